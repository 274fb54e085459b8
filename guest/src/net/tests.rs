//! Writes that are posted, and what the host may tell of them later.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use wakebox_abi::op::{Nop, Opcode};
use wakebox_abi::port;
use wakebox_abi::status::Status;

use super::{Shutdown, TcpStream};
use crate::buf::IoBuf;
use crate::machine::{ARENA, Answer, Host, boot, on_operation, run, when_idle, with_host};
use crate::ops::nop;
use crate::runtime::runtime;
use crate::task::{spawn, yield_now};
use crate::time::{Duration, sleep};

/// A connection; what else is done to it ends at once, but for these, which the test ends.
async fn connected(later: &'static [Opcode]) -> TcpStream {
    on_operation(move |_, submission| {
        match later
            .iter()
            .any(|opcode| *opcode as u16 == submission.opcode)
        {
            true => Answer::Later,
            false => Answer::Now(Status::Ok, value(submission)),
        }
    });
    TcpStream::connect("a:1").await.unwrap()
}

/// What an operation gives that succeeds: a write all that was to be written.
fn value(submission: &wakebox_abi::entry::Submission) -> u32 {
    use wakebox_abi::op::{Operation, WriteStream};

    match Opcode::from_code(submission.opcode) {
        Some(Opcode::WriteStream) => {
            WriteStream::from_params(&submission.params)
                .unwrap()
                .from
                .len
        }
        _ => 1,
    }
}

fn seen() -> Vec<&'static str> {
    with_host(|host| host.seen.split_off(0))
}

fn take_write(host: &mut Host, len: u32) {
    host.end(Opcode::WriteStream, Status::Ok, len, b"");
}

async fn poll_once<F: Future>(future: F) -> bool {
    let mut future = pin!(future);
    poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

#[test]
fn a_write_goes_out_with_the_read_that_follows_and_is_not_heard_of_alone() {
    run(async {
        let stream = connected(&[Opcode::ReadStream]).await;
        with_host(|host| host.doorbells.clear());
        for round in 0..3_u8 {
            when_idle(|host| host.end(Opcode::ReadStream, Status::Ok, 1, b"?"));
            let mut byte = [0];
            stream.write_all(&[round]).await.unwrap();
            stream.read(&mut byte).await.unwrap();
        }
        // One sleep for each round, that of the read.
        with_host(|host| assert_eq!(host.doorbells, [port::WAIT; 3]));
        assert_eq!(
            seen()[1..],
            ["WriteStream", "ReadStream"].repeat(3),
            "nobody has asked for the end of a write"
        );
    });
}

#[test]
fn a_few_writes_are_under_way_at_a_time_and_the_next_waits_for_the_end_of_the_first() {
    run(async {
        let stream = connected(&[Opcode::WriteStream]).await;
        for number in 0..4 {
            stream.write_all(&[number; 5]).await.unwrap();
        }
        assert!(!poll_once(stream.write_all(b"dropped")).await);
        when_idle(|host| {
            // Somebody waits for it, so the host is to say at once when it has ended.
            let before = ["WriteStream"; 4];
            assert_eq!(host.seen[1..], [&before[..], &["Nop"]].concat());
            take_write(host, 5);
        });
        stream.write_all(b"the fifth").await.unwrap();
        for len in [5, 5, 5, 9] {
            when_idle(move |host| take_write(host, len));
        }
        stream.flush().await.unwrap();
        assert_eq!(seen()[6..], ["WriteStream", "Nop"]);
    });
}

#[test]
fn a_large_write_is_under_way_alone() {
    run(async {
        let stream = connected(&[Opcode::WriteStream]).await;
        let large = vec![7; ARENA / 4];
        stream.write_all(&large).await.unwrap();
        assert!(!poll_once(stream.write_all(b"x")).await);
        let len = large.len() as u32;
        when_idle(move |host| take_write(host, len));
        stream.write_all(b"x").await.unwrap();
        when_idle(|host| take_write(host, 1));
        stream.flush().await.unwrap();
    });
}

#[test]
fn what_could_not_be_sent_is_told_by_what_writes_next_once() {
    run(async {
        let stream = connected(&[Opcode::WriteStream]).await;
        for writes_next in [true, false] {
            stream.write_all(b"lost").await.unwrap();
            when_idle(|host| host.end(Opcode::WriteStream, Status::ConnectionReset, 0, b""));
            sleep(Duration::from_nanos(10)).await;
            let told = match writes_next {
                true => stream.write_all(b"not written").await,
                false => stream.flush().await,
            };
            assert_eq!(told.unwrap_err().status(), Status::ConnectionReset);
            stream.flush().await.unwrap();
        }
    });
}

#[test]
fn a_connection_that_is_dropped_is_closed_when_all_is_sent() {
    run(async {
        let stream = connected(&[Opcode::WriteStream]).await;
        stream.write_all(b"last words").await.unwrap();
        drop(stream);
        sleep(Duration::from_nanos(10)).await;
        assert!(!seen().contains(&"Close"));
        with_host(|host| take_write(host, 10));
        sleep(Duration::from_nanos(10)).await;
        assert!(seen().contains(&"Close"));
    });
}

#[test]
fn a_peer_that_takes_nothing_holds_a_connection_that_was_dropped_for_half_a_minute() {
    run(async {
        let stream = connected(&[Opcode::WriteStream]).await;
        stream.write_all(b"never taken").await.unwrap();
        drop(stream);
        sleep(Duration::from_secs(29)).await;
        assert!(!seen().contains(&"Close"));
        sleep(Duration::from_secs(2)).await;
        assert!(seen().contains(&"Close"));
        with_host(|host| host.end(Opcode::WriteStream, Status::Cancelled, 0, b""));
    });
}

#[test]
fn writing_is_shut_down_behind_what_was_written() {
    run(async {
        let stream = connected(&[Opcode::WriteStream]).await;
        stream.write_all(b"all").await.unwrap();
        when_idle(|host| {
            assert!(!host.seen.contains(&"ShutdownStream"));
            take_write(host, 3);
        });
        stream.shutdown(Shutdown::Write).await.unwrap();
        assert!(seen().contains(&"ShutdownStream"));
    });
}

#[test]
fn the_end_of_a_guest_waits_for_what_it_has_written() {
    let ended = Rc::new(RefCell::new(false));
    let end = ended.clone();
    run(async move {
        let stream = connected(&[Opcode::WriteStream]).await;
        stream.write_all(b"the result").await.unwrap();
        when_idle(move |host| {
            *end.borrow_mut() = true;
            take_write(host, 10);
        });
        stream
    });
    assert!(*ended.borrow());
}

#[test]
fn who_waits_for_what_is_put_off_asks_for_it_once() {
    run(async {
        // Something stays in flight, so that the host may put things off.
        let stream = Rc::new(connected(&[Opcode::ReadStream]).await);
        let reading = stream.clone();
        let reader = spawn(async move {
            let mut byte = [0];
            let _ = reading.read(&mut byte).await;
        });
        yield_now().await;
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        stream.flush().await.unwrap();
        let mut expected = vec!["TcpConnect", "ReadStream", "WriteStream"];
        expected.push("Nop");
        assert_eq!(seen(), expected);
        // Who waits for the space of a buffer does, too.
        let most = ARENA - ARENA / 8;
        stream.write_all(&vec![7; ARENA / 4]).await.unwrap();
        let large = IoBuf::with_capacity(most - ARENA / 8).await.unwrap();
        assert_eq!(seen(), ["WriteStream", "Nop"]);
        drop(large);
        reader.abort();
    });
}

#[test]
fn who_stands_in_line_for_a_slot_is_not_kept_waiting_for_what_is_put_off() {
    boot(8, 8).block_on(async {
        let stream = Rc::new(connected(&[Opcode::ReadStream]).await);
        let reading = stream.clone();
        let reader = spawn(async move {
            let mut byte = [0];
            let _ = reading.read(&mut byte).await;
        });
        yield_now().await;
        for _ in 0..50 {
            let buf = IoBuf::with_capacity(1).await.unwrap();
            runtime().reactor.submit_for_nobody(Nop {}.into(), buf);
        }
        nop().await.unwrap();
        reader.abort();
    });
}

#[test]
fn what_lies_in_a_buffer_is_written_also_where_others_wait_for_space() {
    run(async {
        let stream = connected(&[]).await;
        let most = ARENA - ARENA / 8;
        let mut buf = IoBuf::with_capacity(16).await.unwrap();
        buf.extend_from_slice(b"an answer");
        let mut rest = Vec::new();
        for size in [ARENA / 4, 1 << 10, 16] {
            rest.extend(std::iter::from_fn(|| IoBuf::try_with_capacity(size)));
        }
        let waits = spawn(async move { IoBuf::with_capacity(most).await.map(drop) });
        yield_now().await;
        let (written, _) = stream.write_all_buf(buf).await;
        written.unwrap();
        assert_eq!(seen()[1..], ["WriteStream"]);
        waits.abort();
    });
}
