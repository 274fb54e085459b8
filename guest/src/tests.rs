//! The whole runtime against a host made of plain memory: who is woken, what is
//! submitted, and what becomes of buffers and handles.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use wakebox_abi::entry::Token;
use wakebox_abi::op::{Close, Nop, Opcode, Operation, SocketAddress};
use wakebox_abi::port;
use wakebox_abi::status::Status;

use crate::io::{IoBuf, stdin};
use crate::machine::{ARENA, Answer, boot, boot_with, on_operation, run, when_idle, with_host};
use crate::net::{TcpListener, TcpStream};
use crate::op::Op;
use crate::ops::nop;
use crate::reactor::RESERVED;
use crate::runtime::runtime;
use crate::task::{spawn, yield_now};
use crate::time::{Duration, Instant, interval, sleep, timeout};
use crate::{Snapshot, env, eprint, on_restore, print, println, restored, snapshot};

/// Polls a future once.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

fn count_seen(name: &str) -> usize {
    with_host(|host| host.seen.iter().filter(|seen| **seen == name).count())
}

/// Space that is taken from the arena. Buffers give theirs back when they are dropped.
fn arena_in_use() -> String {
    format!("{:?}", runtime().arena)
}

#[test]
fn all_submissions_of_a_turn_go_out_with_one_doorbell() {
    run(async {
        let tasks: Vec<_> = (0..10).map(|_| spawn(nop())).collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    with_host(|host| {
        assert_eq!(host.seen, ["Nop"; 10]);
        assert_eq!(host.doorbells, [port::WAIT]);
    });
}

#[test]
fn an_error_of_the_host_is_an_error_of_the_future() {
    run(async {
        on_operation(|_, _| Answer::Now(Status::PermissionDenied, 0));
        let error = TcpStream::connect("10.0.0.1:80").await.unwrap_err();
        assert_eq!(error.status(), Status::PermissionDenied);
        assert_eq!(
            error.to_string(),
            format!("connect to 10.0.0.1:80: {}", Status::PermissionDenied)
        );
    });
}

#[test]
fn operations_wait_in_line_when_the_ring_and_the_slots_are_full() {
    let order = Rc::new(RefCell::new(Vec::new()));
    let inner = order.clone();
    boot(4, 16).block_on(async move {
        let tasks: Vec<_> = (0..1_000)
            .map(|number| {
                let order = inner.clone();
                spawn(async move {
                    nop().await.unwrap();
                    order.borrow_mut().push(number);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert!(order.borrow().iter().copied().eq(0..1_000));
    assert_eq!(count_seen("Nop"), 1_000);
}

#[test]
fn a_guest_whose_every_slot_waits_can_still_sleep_and_speak() {
    boot(16, 16).block_on(async {
        on_operation(|_, _| Answer::Later);
        let stuck: Vec<_> = (0..100).map(|_| spawn(nop())).collect();
        sleep(Duration::from_secs(1)).await;
        println!("still here");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(count_seen("Nop"), 16 - RESERVED as usize);
        assert!(stuck.iter().all(|task| !task.is_finished()));
    });
    assert_eq!(with_host(|host| host.printed.clone()), b"still here\n");
}

#[test]
fn results_that_nobody_collects_hold_nobody_up() {
    boot(16, 16).block_on(async {
        let mut uncollected: Vec<_> = (0..100).map(|_| Box::pin(nop())).collect();
        for op in &mut uncollected {
            assert!(poll_once(op.as_mut()).await.is_pending());
        }
        nop().await.unwrap();
        for op in uncollected {
            op.await.unwrap();
        }
    });
}

#[test]
fn an_operation_that_was_never_polled_or_stands_in_line_costs_nothing_to_drop() {
    boot(16, 16).block_on(async {
        on_operation(|_, _| Answer::Later);
        drop(nop());
        let mut ops: Vec<_> = (0..50).map(|_| Box::pin(nop())).collect();
        for op in &mut ops {
            assert!(poll_once(op.as_mut()).await.is_pending());
        }
        ops.truncate(16 - RESERVED as usize);
        yield_now().await;
        yield_now().await;
    });
    assert_eq!(count_seen("Nop"), 16 - RESERVED as usize);
}

#[test]
fn a_dropped_operation_is_cancelled_and_keeps_its_buffer_until_the_end() {
    run(async {
        on_operation(|_, submission| match Opcode::from_code(submission.opcode) {
            Some(Opcode::Entropy) => Answer::Later,
            _ => Answer::Now(Status::Ok, 0),
        });
        let before = arena_in_use();
        {
            let mut bytes = [0; 100];
            let mut fill = pin!(crate::random::fill(&mut bytes));
            assert!(poll_once(fill.as_mut()).await.is_pending());
            yield_now().await;
        }
        assert_ne!(arena_in_use(), before);
        // The next exit shows the Cancel to the host, which ends the operation.
        nop().await.unwrap();
        assert_eq!(count_seen("Cancel"), 1);
        assert_eq!(arena_in_use(), before);
    });
}

#[test]
fn a_stale_completion_wakes_nobody() {
    run(async {
        let tokens = Rc::new(RefCell::new(Vec::<Token>::new()));
        let seen = tokens.clone();
        on_operation(move |_, submission| {
            seen.borrow_mut().push(submission.token);
            Answer::Later
        });
        {
            let mut first = pin!(nop());
            assert!(poll_once(first.as_mut()).await.is_pending());
            sleep(Duration::from_nanos(10)).await;
        }
        sleep(Duration::from_nanos(10)).await;
        let mut others = [Box::pin(nop()), Box::pin(nop())];
        for other in &mut others {
            assert!(poll_once(other.as_mut()).await.is_pending());
        }
        sleep(Duration::from_nanos(10)).await;
        let (first, others_tokens) = {
            let tokens = tokens.borrow();
            (tokens[0], [tokens[1], tokens[2]])
        };
        let uses_its_slot = |other: &Token| other.slot == first.slot;
        assert!(others_tokens.iter().any(uses_its_slot), "a slot used twice");
        with_host(|host| {
            host.complete_stale(first);
            host.complete_stale(Token {
                slot: 4_000,
                ..first
            });
        });
        sleep(Duration::from_nanos(10)).await;
        for mut other in others {
            assert!(poll_once(other.as_mut()).await.is_pending());
            with_host(|host| host.end(Opcode::Nop, Status::Ok, 0, b""));
            other.await.unwrap();
        }
    });
}

#[test]
fn a_handle_that_arrives_for_nobody_is_closed() {
    run(async {
        let closed = Rc::new(RefCell::new(Vec::new()));
        let seen = closed.clone();
        on_operation(move |_, submission| {
            if let Ok(Close { handle }) = Close::from_params(&submission.params)
                && submission.opcode == Opcode::Close as u16
            {
                seen.borrow_mut().push(handle.0);
            }
            match Opcode::from_code(submission.opcode) {
                Some(Opcode::TcpConnect | Opcode::TcpAccept) => Answer::Later,
                Some(Opcode::TcpListen) => Answer::Now(Status::Ok, 5),
                _ => Answer::Now(Status::Ok, 0),
            }
        });
        {
            let mut connect = pin!(TcpStream::connect("localhost:1"));
            assert!(poll_once(connect.as_mut()).await.is_pending());
            sleep(Duration::from_nanos(10)).await;
            // Faster than the Cancel.
            with_host(|host| host.end(Opcode::TcpConnect, Status::Ok, 41, b""));
        }
        sleep(Duration::from_nanos(10)).await;
        assert_eq!(closed.take(), [41]);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        {
            let mut accept = pin!(listener.accept());
            assert!(poll_once(accept.as_mut()).await.is_pending());
            sleep(Duration::from_nanos(10)).await;
        }
        // The accept belongs to the listener: a connection that nobody waits for is kept.
        with_host(|host| host.end(Opcode::TcpAccept, Status::Ok, 42, b""));
        let stream = listener.accept().await.unwrap();
        drop(stream);
        {
            let mut accept = pin!(listener.accept());
            assert!(poll_once(accept.as_mut()).await.is_pending());
            sleep(Duration::from_nanos(10)).await;
        }
        with_host(|host| host.end(Opcode::TcpAccept, Status::Ok, 43, b""));
        drop(listener);
        sleep(Duration::from_nanos(10)).await;
        sleep(Duration::from_nanos(10)).await;
        let mut closed = closed.take();
        closed.sort_unstable();
        assert_eq!(closed, [5, 42, 43]);
    });
}

#[test]
fn who_connected_is_known_without_another_operation() {
    run(async {
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        on_operation(
            move |_, submission| match Opcode::from_code(submission.opcode) {
                Some(Opcode::TcpAccept) => Answer::Later,
                Some(Opcode::SocketName) => {
                    count.set(count.get() + 1);
                    Answer::Now(Status::BadHandle, 0)
                }
                _ => Answer::Now(Status::Ok, 0),
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer: SocketAddr = "127.0.0.1:4711".parse().unwrap();
        let bytes = SocketAddress(peer).to_bytes();
        when_idle(move |host| host.end(Opcode::TcpAccept, Status::Ok, 42, &bytes));
        let (stream, from) = listener.accept_from().await.unwrap();
        assert_eq!((from, stream.peer_addr().await.unwrap()), (peer, peer));
        let moved = stream.into_movable().unwrap().into_stream();
        assert_eq!(moved.peer_addr().await.unwrap(), peer);
        assert_eq!(asked.get(), 0);
        // A host that says nothing of it is asked.
        when_idle(|host| host.end(Opcode::TcpAccept, Status::Ok, 43, &[0; SocketAddress::SIZE]));
        assert!(listener.accept_from().await.is_err());
        assert_eq!(asked.get(), 1);
    });
}

#[test]
fn a_dropped_read_loses_no_byte() {
    run(async {
        on_operation(|_, submission| match Opcode::from_code(submission.opcode) {
            Some(Opcode::ReadStdin) => Answer::Later,
            _ => Answer::Now(Status::Ok, 0),
        });
        let mut bytes = [0; 4];
        let early = timeout(Duration::from_millis(1), stdin().read(&mut bytes)).await;
        assert!(early.is_err());
        when_idle(|host| host.end(Opcode::ReadStdin, Status::Ok, 6, b"abcdef"));
        assert_eq!(stdin().read(&mut bytes).await.unwrap(), 4);
        assert_eq!(&bytes, b"abcd");
        assert_eq!(stdin().read(&mut bytes).await.unwrap(), 2);
        assert_eq!(&bytes[..2], b"ef");
        assert_eq!(count_seen("ReadStdin"), 1);

        // A line of which the beginning was read by somebody who gave up.
        let mut line = String::new();
        when_idle(|host| host.end(Opcode::ReadStdin, Status::Ok, 5, b"one\ntw"));
        when_idle(|host| host.end(Opcode::ReadStdin, Status::Ok, 5, b"wo\nrest"));
        stdin().read_line(&mut line).await.unwrap();
        assert_eq!(line, "one\n");
    });
}

#[test]
fn lines_end_at_the_end_of_the_input() {
    run(async {
        on_operation(|_, _| Answer::Later);
        let mut lines = stdin().lines();
        when_idle(|host| host.end(Opcode::ReadStdin, Status::Ok, 4, b"a\r\nb"));
        when_idle(|host| host.end(Opcode::ReadStdin, Status::Ok, 0, b""));
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("a"));
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("b"));
        when_idle(|host| host.end(Opcode::ReadStdin, Status::Ok, 0, b""));
        assert_eq!(lines.next_line().await.unwrap(), None);
    });
}

#[test]
fn a_second_reader_has_its_turn_after_the_first() {
    run(async {
        on_operation(|_, _| Answer::Later);
        async fn byte() -> u8 {
            let mut byte = [0];
            assert_eq!(stdin().read(&mut byte).await.unwrap(), 1);
            byte[0]
        }
        let mut first = pin!(byte());
        let mut second = Box::pin(byte());
        let mut third = pin!(byte());
        assert!(poll_once(first.as_mut()).await.is_pending());
        assert!(poll_once(second.as_mut()).await.is_pending());
        assert!(poll_once(third.as_mut()).await.is_pending());
        when_idle(|host| host.end(Opcode::ReadStdin, Status::Ok, 2, b"ab"));
        assert_eq!(first.await, b'a');
        // It gives up, and its turn is the next one's.
        drop(second);
        assert_eq!(third.await, b'b');
    });
}

#[test]
fn a_buffer_travels_without_being_copied() {
    run(async {
        on_operation(
            |host, submission| match Opcode::from_code(submission.opcode) {
                Some(Opcode::TcpConnect) => Answer::Now(Status::Ok, 3),
                Some(Opcode::ReadStream) => Answer::Later,
                // Takes at most a thousand bytes at a time.
                Some(Opcode::WriteStream) => {
                    let bytes = host.written(submission);
                    let count = bytes.len().min(1_000);
                    host.printed.extend(&bytes[..count]);
                    Answer::Now(Status::Ok, count as u32)
                }
                _ => Answer::Now(Status::Ok, 0),
            },
        );
        let stream = TcpStream::connect("a:1").await.unwrap();
        let buf = IoBuf::with_capacity(6_000).await.unwrap();
        let place = buf.as_ptr();
        let bytes: Vec<u8> = (0..5_000).map(|number| number as u8).collect();
        let read = bytes.clone();
        when_idle(move |host| host.end(Opcode::ReadStream, Status::Ok, 5_000, &read));
        let (count, buf) = stream.read_buf(buf).await;
        assert_eq!((count.unwrap(), buf.as_ptr()), (5_000, place));
        assert_eq!(*buf, bytes);
        let (outcome, buf) = stream.write_all_buf(buf).await;
        outcome.unwrap();
        assert_eq!(buf.as_ptr(), place);
        assert_eq!(with_host(|host| host.printed.clone()), bytes);
    });
}

#[test]
fn whoever_needs_more_arena_than_there_is_waits_in_line() {
    run(async {
        let error = IoBuf::with_capacity(ARENA + 1).await.unwrap_err();
        assert_eq!(error.status(), Status::OutOfMemory);
        let large = IoBuf::with_capacity(ARENA / 2).await.unwrap();
        let trace = Rc::new(RefCell::new(Vec::new()));
        for (name, capacity) in [("large", ARENA / 2), ("small", 16), ("none", 0)] {
            let trace = trace.clone();
            spawn(async move {
                let _buf = IoBuf::with_capacity(capacity).await.unwrap();
                trace.borrow_mut().push(name);
            });
        }
        for _ in 0..5 {
            yield_now().await;
        }
        assert!(trace.borrow().is_empty(), "nobody overtakes");
        drop(large);
        for _ in 0..5 {
            yield_now().await;
        }
        assert_eq!(*trace.borrow(), ["large", "small", "none"]);
    });
}

#[test]
fn both_streams_keep_their_common_order() {
    run(async {
        print!("a");
        eprint!("b");
        print!("{}{}", "c", 1);
        eprint!("d");
    });
    assert_eq!(with_host(|host| host.printed.clone()), b"abc1d");
}

#[test]
fn printing_more_than_fits_waits_for_the_host_and_loses_nothing() {
    run(async {
        for number in 0..50_000 {
            println!("{number}");
        }
    });
    let expected: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    assert!(with_host(|host| host.printed == expected.as_bytes()));
}

#[test]
fn sleeps_end_in_order_and_share_one_deadline() {
    let trace = Rc::new(RefCell::new(Vec::new()));
    let inner = trace.clone();
    run(async move {
        let tasks: Vec<_> = [30, 10, 20, 10, 0]
            .into_iter()
            .map(|millis| {
                let trace = inner.clone();
                spawn(async move {
                    sleep(Duration::from_millis(millis)).await;
                    trace.borrow_mut().push(millis);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(*trace.borrow(), [0, 10, 10, 20, 30]);
    assert_eq!(count_seen("Deadline"), 3);
    assert_eq!(count_seen("Cancel"), 0);
}

#[test]
fn an_earlier_timer_replaces_the_deadline_of_a_later_one() {
    run(async {
        let start = Instant::now();
        spawn(async {
            sleep(Duration::from_secs(u64::MAX)).await;
        });
        yield_now().await;
        for millis in [3, 2, 1] {
            sleep(Duration::from_millis(millis)).await;
        }
        assert!(start.elapsed() >= Duration::from_millis(6));
        assert!(start.elapsed() < Duration::from_millis(7));
    });
}

#[test]
fn a_guest_without_a_counter_asks_for_the_time() {
    boot_with(64, 64, 0).block_on(async {
        with_host(|host| host.pass(1_000_000));
        // The clock page is as old as the boot, but nobody sleeps too short.
        let start = Instant::now();
        assert_eq!(start.as_nanos(), 0);
        sleep(Duration::from_nanos(500)).await;
        assert_eq!(Instant::now().as_nanos(), 1_000_501);
    });
    assert_eq!(
        with_host(|host| host.seen.clone()),
        ["ReadClock", "Deadline"]
    );
}

#[test]
fn a_timeout_drops_what_it_gave_up_and_an_interval_keeps_its_beat() {
    run(async {
        assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
        assert!(timeout(Duration::ZERO, pending::<()>()).await.is_err());
        assert!(
            timeout(Duration::from_millis(1), pending::<()>())
                .await
                .is_err()
        );
        let start = Instant::now();
        let mut beat = interval(Duration::from_millis(10));
        let mut ticks = Vec::new();
        for pause in [0, 5, 25, 0, 0] {
            ticks.push((beat.tick().await - start).as_millis());
            sleep(Duration::from_millis(pause)).await;
        }
        // At 45 somebody waits again: the tick at 30 comes late, and that at 40 not at all.
        assert_eq!(ticks, [0, 10, 20, 30, 50]);
    });
}

#[test]
fn a_timer_fires_while_another_task_computes_for_ever() {
    run(async {
        let busy = spawn(async {
            loop {
                nop().await.unwrap();
                yield_now().await;
            }
        });
        on_operation(|host, _| {
            host.pass(1);
            Answer::Now(Status::Ok, 0)
        });
        sleep(Duration::from_nanos(5)).await;
        busy.abort();
        assert!(busy.await.is_err());
    });
}

#[test]
fn closing_is_never_lost_and_comes_in_order() {
    boot(4, 4).block_on(async {
        let next = Rc::new(RefCell::new(0));
        let closed = Rc::new(RefCell::new(Vec::new()));
        let (handles, seen) = (next.clone(), closed.clone());
        on_operation(
            move |_, submission| match Opcode::from_code(submission.opcode) {
                Some(Opcode::TcpConnect) => {
                    *handles.borrow_mut() += 1;
                    Answer::Now(Status::Ok, *handles.borrow())
                }
                Some(Opcode::Close) => {
                    let close = Close::from_params(&submission.params).unwrap();
                    seen.borrow_mut().push(close.handle.0);
                    Answer::Now(Status::Ok, 0)
                }
                _ => Answer::Now(Status::Ok, 0),
            },
        );
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(TcpStream::connect("a:1").await.unwrap());
        }
        streams.into_iter().for_each(drop);
        while closed.borrow().len() < 50 {
            nop().await.unwrap();
        }
        assert!(closed.borrow().iter().copied().eq(1..=50));
    });
}

#[test]
fn the_end_drops_operations_in_flight_without_harm() {
    run(async {
        on_operation(|_, _| Answer::Later);
        spawn(async {
            let _ = Op::new(Nop {}).await;
            unreachable!("the host never answers");
        });
        yield_now().await;
        yield_now().await;
    });
}

/// What happened, in order.
type Events = Rc<RefCell<Vec<&'static str>>>;

/// Notes something, at the place at which it is called.
fn noter(events: &Events) -> impl Fn(&'static str) + 'static {
    let events = events.clone();
    move |what| events.borrow_mut().push(what)
}

#[test]
fn hooks_run_in_order_before_completions_are_handled_and_then_who_waits_is_woken() {
    let events = Events::default();
    let (first, second, waiter, operation) = (
        noter(&events),
        noter(&events),
        noter(&events),
        noter(&events),
    );
    run(async move {
        // Where the reactor counts how many completions it has read.
        let read = || runtime().reactor.taken();
        let before = Rc::new(std::cell::Cell::new(0));
        let seen = before.clone();
        on_restore(move || {
            assert_eq!(read(), seen.get(), "a completion was read before the hook");
            first("first hook");
        });
        on_restore(move || second("second hook"));
        let waits = restored();
        spawn(async move {
            waits.await;
            waiter("waiter");
        });
        on_operation(|_, _| Answer::Later);
        let nop = spawn(async move {
            nop().await.unwrap();
            operation("operation");
        });
        when_idle(move |host| {
            before.set(runtime().reactor.taken());
            host.restore(2, &[], &[]);
            host.end(Opcode::Nop, Status::Ok, 0, &[]);
        });
        nop.await.unwrap();
        yield_now().await;
    });
    assert_eq!(events.borrow()[..2], ["first hook", "second hook"]);
    let mut then = events.borrow()[2..].to_vec();
    then.sort_unstable();
    assert_eq!(then, ["operation", "waiter"]);
}

/// Sleeps once, during which the guest becomes the instance of this number.
async fn restore(number: u64) {
    when_idle(move |host| {
        host.restore(number, &["number", "two"], &["KEY=restored"]);
        host.end(Opcode::Nop, Status::Ok, 0, &[]);
    });
    on_operation(|_, _| Answer::Later);
    nop().await.unwrap();
}

#[test]
fn each_waiter_is_told_once_of_each_restore() {
    run(async {
        let count = |told: &Rc<std::cell::Cell<u32>>| {
            let told = told.clone();
            async move {
                let mut restores = restored();
                loop {
                    (&mut restores).await;
                    told.set(told.get() + 1);
                }
            }
        };
        let told: Vec<Rc<std::cell::Cell<u32>>> = (0..3).map(|_| Rc::default()).collect();
        let tasks: Vec<_> = told.iter().map(|told| spawn(count(told))).collect();
        let never_polled = restored();
        let mut dropped = Box::pin(restored());
        assert!(poll_once(dropped.as_mut()).await.is_pending());
        yield_now().await;
        drop(dropped);
        restore(2).await;
        yield_now().await;
        assert!(told.iter().all(|told| told.get() == 1), "{told:?}");
        // A restore counts from the call on; those before it do not.
        let mut never_polled = pin!(never_polled);
        assert!(poll_once(never_polled.as_mut()).await.is_ready());
        assert!(poll_once(never_polled.as_mut()).await.is_pending());
        assert!(poll_once(pin!(restored())).await.is_pending());
        // Sleeps that were no restore tell nobody.
        sleep(Duration::from_secs(1)).await;
        assert!(told.iter().all(|told| told.get() == 1), "{told:?}");
        restore(3).await;
        yield_now().await;
        assert!(told.iter().all(|told| told.get() == 2), "{told:?}");
        assert!(tasks.iter().all(|task| !task.is_finished()));
    });
}

#[test]
fn a_hook_may_add_hooks_and_wait_for_the_next_restore() {
    let events = Events::default();
    let (outer, inner, task) = (noter(&events), noter(&events), noter(&events));
    run(async move {
        let mut parts = Some((inner, task));
        on_restore(move || {
            outer("outer");
            let Some((inner, task)) = parts.take() else {
                return;
            };
            on_restore(move || inner("inner"));
            let next = restored();
            spawn(async move {
                next.await;
                task("task");
            });
        });
        restore(2).await;
        yield_now().await;
        restore(3).await;
        yield_now().await;
    });
    assert_eq!(*events.borrow(), ["outer", "outer", "inner", "task"]);
}

#[test]
#[should_panic(expected = "in a hook")]
fn a_panic_in_a_hook_is_one_of_the_guest() {
    run(async {
        on_restore(|| panic!("in a hook"));
        restore(2).await;
    });
}

#[test]
fn a_restored_guest_has_its_own_words_and_leaves_those_it_has_given_out_alone() {
    run(async {
        with_host(|host| host.restore(1, &["the template's"], &["KEY=template", "ONE=1"]));
        let of_the_template = env::args().next().unwrap();
        assert_eq!(env::var("KEY"), Some("template"));
        // The same copy each time.
        assert_eq!(
            env::args().next().unwrap().as_ptr(),
            of_the_template.as_ptr()
        );
        restore(2).await;
        assert_eq!(env::args().collect::<Vec<_>>(), ["number", "two"]);
        assert_eq!(env::vars().collect::<Vec<_>>(), [("KEY", "restored")]);
        assert_eq!(of_the_template, "the template's");
    });
}

#[test]
fn a_restored_guest_has_its_own_seed() {
    run(async {
        assert_eq!(crate::random::seed()[0], 1);
        restore(2).await;
        assert_eq!(crate::random::seed()[0], 2);
    });
}

/// Draws 32 bytes as the crate `getrandom` does.
#[cfg(feature = "getrandom")]
fn drawn() -> [u8; 32] {
    let mut bytes = [0; 32];
    // SAFETY: so many bytes may be written there.
    unsafe { crate::generator::fill(bytes.as_mut_ptr(), bytes.len()) }.unwrap();
    bytes
}

#[cfg(feature = "getrandom")]
#[test]
fn clones_of_one_guest_draw_what_neither_it_nor_another_draws() {
    let guest = |number: Option<u64>| {
        run(async move {
            let before = drawn();
            if let Some(number) = number {
                restore(number).await;
            }
            (before, drawn(), drawn())
        })
    };
    let all = [guest(None), guest(Some(2)), guest(Some(3))];
    let mut streams = std::collections::HashSet::new();
    for (before, one, two) in all {
        assert_eq!(before, all[0].0, "what was drawn before is the template's");
        assert!(streams.insert(one) && streams.insert(two));
    }
}

#[test]
fn bytes_of_the_host_are_all_drawn_in_one_sandbox() {
    run(async {
        let mut asked = 0;
        on_operation(move |host, _| {
            asked += 1;
            match asked {
                1 => Answer::Now(Status::Ok, 4),
                // Within the first attempt the guest is restored.
                2 => {
                    host.restore(2, &[], &[]);
                    Answer::Now(Status::Ok, 4)
                }
                _ => Answer::Now(Status::Ok, 8),
            }
        });
        let mut bytes = [0; 8];
        crate::random::fill(&mut bytes).await.unwrap();
        assert_eq!(count_seen("Entropy"), 3);
    });
}

#[test]
fn a_guest_that_asks_for_a_template_learns_on_which_side_it_is() {
    run(async {
        on_operation(|_, _| Answer::Now(Status::Ok, 0));
        assert_eq!(snapshot().await, Ok(Snapshot::Continued));
        on_operation(|host, _| {
            host.restore(2, &[], &[]);
            Answer::Now(Status::Ok, 1)
        });
        let told = restored();
        assert_eq!(snapshot().await, Ok(Snapshot::Restored));
        told.await;
        on_operation(|_, _| Answer::Now(Status::Ok, 2));
        assert!(snapshot().await.is_err(), "no such side");
        on_operation(|_, _| Answer::Now(Status::Unsupported, 0));
        let refused = snapshot().await.unwrap_err();
        assert_eq!(refused.status(), Status::Unsupported);
        let text = format!("snapshot: {}", Status::Unsupported);
        assert_eq!(refused.to_string(), text);
    });
}
