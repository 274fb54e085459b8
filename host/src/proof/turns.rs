//! How a turn ends, and how the next one goes on.

use std::future::poll_fn;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::runtime::Runtime;
use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::file::OpenFlags;
use wakebox_abi::op::{self, Buf, Handle, Opcode, Param, Request, Stream};
use wakebox_abi::status::Status;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::signal::RunPage;

use super::{Ends, SLOTS};
use crate::account::Account;
use crate::allowance::{self, PIECE, Quota};
use crate::calls::guest::Caller;
use crate::driver::{Driver, Ended, Turn};
use crate::ops::{self, TokioBackend};
use crate::policy::{DirGrant, Policy};
use crate::stdio::{Captured, Console, Output};
use crate::stop::{Stop, Why};

/// Bytes of the arena: many pieces, and more than a turn may move.
const ARENA: u32 = 2 << 20;

const WHOLE: Buf = Buf {
    offset: 0,
    len: ARENA,
};

/// Threads of the runtime for blocking calls.
const BLOCKING_THREADS: usize = 2;

/// A driver and the guest's ends of its rings.
struct Rig {
    runtime: Runtime,
    memory: Arc<GuestMemory>,
    driver: Driver<TokioBackend>,
    ends: Ends,
    generation: u32,
}

impl Rig {
    /// One whose turns may spend so many bytes and as much time as they take.
    fn new(bytes: u64) -> Self {
        Self::granting(&Policy::new(), bytes)
    }

    fn granting(policy: &Policy, bytes: u64) -> Self {
        let (memory, mut driver) = super::driver(ARENA.into(), policy);
        driver.quota = Quota {
            bytes,
            time: Duration::MAX,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()
            .unwrap();
        let callables = &driver.backend.callables;
        callables.enter(runtime.handle().clone(), tracing::Span::none());
        Self {
            runtime,
            ends: Ends::of(&memory),
            memory,
            driver,
            generation: 0,
        }
    }

    /// Has the standard output be captured, so many bytes at most.
    fn capture(&mut self, most: u64) -> Captured {
        let captured = Captured::new();
        let output = Output::Capture(captured.clone());
        let resources = &mut self.driver.backend;
        let home = resources.callables.home();
        let account = Account::new(most);
        resources.console = Console::new(output, Output::Null, home, &account).unwrap();
        captured
    }

    /// Submits one in a slot.
    fn submit_at(&mut self, slot: u32, request: Request) {
        self.generation += 1;
        let token = Token {
            slot,
            generation: self.generation,
        };
        assert_eq!(
            self.ends.submissions.push(request.submission(token)),
            Ok(true)
        );
        self.ends.submissions.publish();
    }

    /// Submits these, in slots from 0 on.
    fn submit(&mut self, requests: impl IntoIterator<Item = Request>) {
        for (slot, request) in (0..).zip(requests) {
            self.submit_at(slot, request);
        }
    }

    /// Keeps all threads for blocking calls busy until what this gives is dropped.
    fn hold_blocking_threads(&self) -> Vec<mpsc::Sender<()>> {
        let hold = |_| {
            let (gate, opens) = mpsc::channel::<()>();
            let (busy, is_busy) = mpsc::channel();
            self.runtime.spawn_blocking(move || {
                busy.send(()).expect("somebody waits for this");
                // Ends when the gate is dropped.
                let _ = opens.recv();
            });
            is_busy.recv().expect("a thread was started");
            gate
        };
        (0..BLOCKING_THREADS).map(hold).collect()
    }

    /// One turn, inside the runtime.
    fn turn(&mut self) -> Turn {
        let driver = &mut self.driver;
        self.runtime
            .block_on(poll_fn(|context| Poll::Ready(driver.turn(Some(context)))))
            .expect("the rings are whole")
    }

    /// Turns until one ends in another way than for want of an allowance: how many submissions each
    /// has taken and how many completions it has given.
    fn turns(&mut self) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        loop {
            let turn = self.turn();
            all.push((turn.submitted, turn.completed));
            if turn.ended != Ended::Spent {
                return all;
            }
        }
    }

    /// Submits one and takes turns until it is done.
    fn done(&mut self, request: Request) -> (Status, u32) {
        self.submit_at(0, request);
        let (driver, completions) = (&mut self.driver, &mut self.ends.completions);
        self.runtime.block_on(poll_fn(|context| {
            let turn = driver.turn(Some(context)).expect("the rings are whole");
            if let Ok(Some(completion)) = completions.pop() {
                completions.release();
                return Poll::Ready((completion.status, completion.value));
            }
            if turn.ended == Ended::Spent {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        }))
    }

    /// Takes back what is in flight, so that its slots are free again.
    fn settle(&mut self) {
        for target in self.driver.inflight.tokens() {
            self.submit_at(0, Request::Cancel(op::Cancel { target }));
        }
        let driver = &mut self.driver;
        self.runtime.block_on(poll_fn(|context| {
            let turn = driver.turn(Some(context)).expect("the rings are whole");
            if turn.ended == Ended::Spent {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            // What reaches into the arena ends by itself.
            match driver.in_flight() {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        self.completed();
    }

    /// Opens something: its handle.
    fn open(&mut self, request: Request) -> Handle {
        let (status, value) = self.done(request);
        assert_eq!(status, Status::Ok, "{request:?}");
        Handle(value)
    }

    /// Puts bytes into the arena.
    fn put(&self, offset: u32, bytes: &[u8]) -> Buf {
        let start = self.memory.plan().arena.offset;
        self.memory.write(start + u64::from(offset), bytes);
        Buf {
            offset,
            len: bytes.len() as u32,
        }
    }

    /// A word of the arena.
    fn get(&self, offset: u32) -> u64 {
        let mut bytes = [0; 4];
        let start = self.memory.plan().arena.offset;
        self.memory.read(start + u64::from(offset), &mut bytes);
        u32::from_le_bytes(bytes).into()
    }

    fn listener(&mut self) -> Handle {
        let address = self.put(0, b"127.0.0.1:0");
        self.open(Request::TcpListen(op::TcpListen {
            address,
            backlog: 1,
        }))
    }

    /// Slot, status and value of what was completed since the last look.
    fn completed(&mut self) -> Vec<(u32, Status, u32)> {
        let mut all = Vec::new();
        while let Ok(Some(completion)) = self.ends.completions.pop() {
            all.push((completion.token.slot, completion.status, completion.value));
        }
        self.ends.completions.release();
        all
    }
}

fn nop() -> Request {
    Request::Nop(op::Nop {})
}

fn write(from: Buf) -> Request {
    Request::WriteConsole(op::WriteConsole {
        stream: Stream::Out,
        from,
    })
}

fn next_call() -> Request {
    let into = Buf { offset: 0, len: 64 };
    Request::NextCall(op::NextCall { into })
}

#[test]
fn a_turn_ends_at_its_allowance_and_the_next_goes_on() {
    let mut rig = Rig::new(3 * ops::price(Opcode::Nop as u16) as u64);
    rig.submit(vec![nop(); 8]);
    assert_eq!(rig.turns(), [(3, 3), (3, 3), (2, 2)]);
    let slots = rig.completed().into_iter().map(|(slot, ..)| slot);
    assert!(slots.eq(0..8), "in the order in which they were submitted");
    assert!(!rig.driver.has_ready());
}

#[test]
fn a_turn_ends_when_its_time_is_over() {
    let mut rig = Rig::new(u64::MAX);
    rig.driver.quota.time = Duration::ZERO;
    rig.submit(vec![nop(); SLOTS as usize]);
    // So few that nobody looks at the clock.
    assert_eq!(rig.turns(), [(SLOTS, SLOTS)]);
    rig.completed();
    rig.submit(vec![write(Buf { offset: 0, len: 1 }); 8]);
    let looks = rig.turns();
    assert!(looks.len() > 1, "{looks:?}");
    assert_eq!(looks.iter().map(|(submitted, _)| submitted).sum::<u32>(), 8);
}

#[test]
fn a_guest_keeps_its_machine_until_it_has_seen_what_is_published() {
    use wakebox_abi::memory::{Control, Word};
    let mut rig = Rig::new(u64::MAX);
    rig.submit(vec![next_call(), nop()]);
    assert_eq!(rig.turns(), [(2, 1)]);
    assert!(!rig.driver.detach(), "somebody is to wake it for that");
    let control = rig.memory.control();
    control.store(Word::Seen, rig.driver.published(), Ordering::Relaxed);
    rig.completed();
    assert!(rig.driver.detach());
    // Without one, what becomes ready waits, and asks for one.
    assert!(!rig.driver.wants_machine());
    rig.driver.backend.call_queue.close();
    assert!(rig.driver.wants_machine());
    let silent = rig.turn();
    assert_eq!((silent.completed, silent.ended), (0, Ended::Done));
    rig.driver.attach();
    assert_eq!(rig.turns(), [(0, 1)]);
}

#[test]
fn what_is_ready_goes_on_in_the_next_turn() {
    let mut rig = Rig::new(u64::MAX);
    rig.submit(vec![next_call(); 5]);
    assert_eq!(rig.turns(), [(5, 0)]);
    rig.driver.quota.bytes = 2 * allowance::POLL as u64;
    rig.driver.backend.call_queue.close();
    let first = rig.turn();
    assert_eq!((first.completed, first.ended), (2, Ended::Spent));
    assert!(first.is_active() && rig.driver.has_ready() && rig.driver.is_unfinished());
    // Nobody is woken for the others again: they are this driver's to remember.
    assert!(!rig.driver.ready().is_some());
    assert_eq!(rig.turns(), [(0, 2), (0, 1)]);
    assert!(!rig.driver.has_ready());
}

#[test]
fn what_is_submitted_meanwhile_waits_until_the_ready_have_had_their_turn() {
    let mut rig = Rig::new(u64::MAX);
    rig.submit([next_call()]);
    assert_eq!(rig.turns(), [(1, 0)]);
    rig.driver.backend.call_queue.close();
    let one = ops::price(Opcode::Nop as u16) as u64;
    rig.driver.quota.bytes = one;
    let slots = SLOTS / 2;
    let mut taken = 0;
    // A guest that submits as fast as the driver takes.
    while rig.completed().iter().all(|(slot, ..)| *slot != 0) {
        let token = Token {
            slot: slots,
            generation: 1,
        };
        let _ = rig.ends.submissions.push(nop().submission(token));
        rig.ends.submissions.publish();
        taken += rig.turn().submitted;
        assert!(taken <= SLOTS, "the one that is ready waits for ever");
    }
}

#[test]
fn what_is_submitted_beyond_what_a_turn_goes_on_with_is_not_slept_over() {
    let mut rig = Rig::new(1);
    let back = |slot| {
        let target = Token {
            slot,
            generation: 0,
        };
        Request::Cancel(op::Cancel { target })
    };
    rig.submit((0..SLOTS).map(back));
    let first = rig.turn();
    assert_eq!((first.submitted, first.ended), (1, Ended::Spent));
    // There is room for one again. Nobody rings for it: the driver is at work.
    rig.submit_at(0, back(0));
    let taken: u32 = rig.turns().iter().map(|(taken, _)| taken).sum();
    assert_eq!(taken, SLOTS);
    assert!(!rig.driver.has_submissions());
}

/// Has the sandbox killed when it is woken.
struct Killer(Arc<Stop<RunPage>>);

impl Wake for Killer {
    fn wake(self: Arc<Self>) {
        self.0.end(Why::Killed);
    }
}

#[test]
fn a_kill_is_seen_between_two_operations() {
    let mut rig = Rig::new(u64::MAX);
    // Whoever calls the guest kills it when the answer comes.
    let caller = Caller::new(rig.driver.backend.call_queue.clone(), None);
    let killer = Waker::from(Arc::new(Killer(rig.driver.backend.stop.clone())));
    let mut call = std::pin::pin!(caller.call_bytes("f", &[]));
    let polled = call.as_mut().poll(&mut Context::from_waker(&killer));
    assert!(polled.is_pending());
    rig.submit([next_call()]);
    assert_eq!(rig.turns(), [(1, 1)]);
    rig.completed();
    let reply = Request::Reply(op::Reply {
        call: rig.get(0),
        kind: op::ReplyKind::Result,
        from: Buf { offset: 0, len: 1 },
    });
    rig.submit([nop(), reply, nop(), nop()]);
    let turn = rig.turn();
    assert_eq!((turn.submitted, turn.ended), (2, Ended::Stopped));
    assert_eq!(rig.completed().len(), 2, "what was done is said");
    let turn = rig.turn();
    assert_eq!((turn.submitted, turn.ended), (0, Ended::Stopped));
    assert!(!turn.is_active());
}

#[test]
fn a_kill_is_seen_between_two_polls() {
    let mut rig = Rig::new(u64::MAX);
    rig.submit(vec![next_call(); 5]);
    assert_eq!(rig.turns(), [(5, 0)]);
    rig.driver.backend.call_queue.close();
    rig.driver.backend.stop.end(Why::Killed);
    let turn = rig.turn();
    assert_eq!((turn.completed, turn.ended), (0, Ended::Stopped));
}

#[test]
fn a_close_cancels_what_is_in_flight_on_its_handle_in_as_many_turns_as_it_takes() {
    let policy = Policy::new().allow_listen("127.0.0.1:0".parse().unwrap());
    let mut rig = Rig::granting(&policy, u64::MAX);
    let listener = rig.listener();
    let accept = Request::TcpAccept(op::TcpAccept {
        listener,
        peer: Buf::default(),
    });
    rig.submit(vec![accept; 20]);
    assert_eq!(rig.turns(), [(20, 0)]);
    let close = Request::Close(op::Close { handle: listener });
    let price = ops::price(Opcode::Close as u16);
    rig.driver.quota.bytes = (price + 8 * allowance::LIGHT) as u64;
    // In a slot of its own.
    rig.submit_at(20, close);
    let turns = rig.turns();
    assert!(turns.len() > 1, "{turns:?}");
    let completed = rig.completed();
    assert_eq!(completed.len(), 21);
    assert_eq!(completed[20], (20, Status::Ok, 0), "the close is last");
    let cancelled = |(_, status, _): &(u32, Status, u32)| *status == Status::Cancelled;
    assert!(completed[..20].iter().all(cancelled));
}

#[test]
fn a_long_write_goes_on_in_later_turns_and_arrives_whole() {
    let mut rig = Rig::new(4 * PIECE as u64);
    let captured = rig.capture(u64::MAX);
    let bytes: Vec<u8> = (0..ARENA).map(|at| (at % 251) as u8).collect();
    rig.put(0, &bytes);
    rig.submit([write(WHOLE)]);
    let turns = rig.turns();
    assert!(
        turns.len() as u32 >= ARENA / (4 * PIECE as u32),
        "{turns:?}"
    );
    assert_eq!(rig.completed(), [(0, Status::Ok, ARENA)]);
    assert_eq!(captured.to_vec(), bytes);
}

#[test]
fn captured_output_is_kept_as_far_as_the_account_goes_and_the_rest_is_lost() {
    const MOST: u64 = ARENA as u64 * 3 / 2;
    let mut rig = Rig::new(u64::MAX);
    let captured = rig.capture(MOST);
    rig.submit([write(WHOLE)]);
    rig.turns();
    assert_eq!(rig.completed(), [(0, Status::Ok, ARENA)]);
    rig.submit([write(WHOLE)]);
    rig.turns();
    assert_eq!(rig.completed(), [(0, Status::LimitReached, 0)]);
    let kept = captured.to_vec().len() as u64;
    assert!((MOST - 2 * PIECE as u64..MOST).contains(&kept), "{kept}");
    let lost: u64 = rig
        .driver
        .backend
        .console
        .lost()
        .iter()
        .map(|lost| lost.bytes)
        .sum();
    assert_eq!(kept + lost, 2 * u64::from(ARENA));
    // Pieces of a byte take no more than their bytes, nearly.
    let captured = rig.capture(PIECE as u64);
    let byte = Buf { offset: 0, len: 1 };
    let mut written = 0;
    loop {
        rig.submit([write(byte)]);
        rig.turns();
        if rig.completed() != [(0, Status::Ok, 1)] {
            break;
        }
        written += 1;
    }
    assert_eq!(captured.to_vec().len(), written);
    assert!((PIECE / 4..PIECE).contains(&written), "{written}");
}

/// Counts how often it is woken.
#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_operation_that_gives_way_does_not_wake_the_task_that_takes_the_turns() {
    let mut rig = Rig::new(2 * PIECE as u64);
    rig.capture(u64::MAX);
    rig.submit([write(WHOLE)]);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let _in_runtime = rig.runtime.enter();
    let mut turns = 0;
    loop {
        let turn = rig.driver.turn(Some(&Context::from_waker(&waker)));
        let turn = turn.expect("the rings are whole");
        if turn.ended != Ended::Spent {
            break;
        }
        turns += 1;
    }
    assert!(turns > 2, "{turns}: it was to give way");
    // One that is woken while it runs comes first again, before its runtime looks at its sockets.
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
}

#[test]
fn what_nobody_reads_is_not_copied() {
    let mut rig = Rig::new(u64::MAX);
    rig.submit([write(WHOLE)]);
    assert_eq!(rig.turns(), [(1, 1)]);
    assert_eq!(rig.completed(), [(0, Status::Ok, ARENA)]);
    assert!(rig.driver.spent < PIECE as u64);
}

/// A policy with this directory, as `/data`.
fn data(directory: &Path) -> Policy {
    Policy::new().allow_dir(DirGrant::new(directory, "/data").unwrap())
}

#[test]
fn what_takes_long_to_close_is_closed_on_another_thread_and_its_place_is_free_then() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, vec![7; 4 << 20]).unwrap();
    let small = directory.path().join("small");
    std::fs::write(&small, "7").unwrap();
    let mut rig = Rig::granting(&data(directory.path()), u64::MAX);
    let open = |rig: &mut Rig, path: &str, flags| {
        let path = rig.put(0, path.as_bytes());
        let flags = OpenFlags(flags);
        rig.open(Request::OpenFile(op::OpenFile { path, flags }))
    };
    for (path, flags, is_heavy) in [
        ("/data/small", OpenFlags::READ, false),
        ("/data/small", OpenFlags::WRITE, true),
        ("/data/file", OpenFlags::READ, true),
    ] {
        let handle = open(&mut rig, path, flags);
        let left = rig.driver.backend.handles.vacancies().left();
        // No thread for blocking calls is free until the gate is gone.
        let gate = rig.hold_blocking_threads();
        rig.submit_at(0, Request::Close(op::Close { handle }));
        assert_eq!(rig.turns(), [(1, u32::from(!is_heavy))], "{path}");
        drop(gate);
        if !is_heavy {
            rig.completed();
        } else {
            let driver = &mut rig.driver;
            rig.runtime.block_on(poll_fn(|context| {
                let turn = driver.turn(Some(context)).expect("the rings are whole");
                match turn.completed {
                    0 => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            }));
            assert_eq!(rig.completed(), [(0, Status::Ok, 0)]);
        }
        assert_eq!(rig.driver.backend.handles.vacancies().left(), left + 1);
    }
}

#[test]
fn the_end_drops_as_much_as_a_turn_may_and_a_thread_the_rest() {
    let policy = Policy::new().allow_listen("127.0.0.1:0".parse().unwrap());
    let mut rig = Rig::granting(&policy, u64::MAX);
    let all = rig.driver.backend.handles.vacancies().left();
    let listeners: Vec<_> = (0..4).map(|_| rig.listener()).collect();
    let accept = |listener: &Handle| {
        Request::TcpAccept(op::TcpAccept {
            listener: *listener,
            peer: Buf::default(),
        })
    };
    rig.submit(listeners.iter().map(accept));
    assert_eq!(rig.turns(), [(4, 0)]);
    // The operations, and one of the handles.
    rig.driver.quota.bytes = (4 * allowance::LIGHT + 1) as u64;
    assert!(!rig.driver.close_some());
    let vacancies = rig.driver.backend.handles.vacancies().clone();
    assert_eq!(vacancies.left(), all - 3);
    // Nothing is begun any more.
    rig.submit([nop()]);
    assert_eq!(
        (rig.turn().ended, rig.completed()),
        (Ended::Stopped, vec![])
    );
    let runtime = rig.runtime.handle().clone();
    {
        let _runtime = runtime.enter();
        rig.driver.close();
    }
    runtime.block_on(async {
        let mut entries = Vec::new();
        for _ in 0..all {
            entries.push(vacancies.wait().await);
        }
    });
    assert!(rig.driver.close_some());
}

#[test]
fn a_receiver_gives_way_between_the_datagrams_of_strangers() {
    let policy = Policy::new().allow_udp_bind("127.0.0.1:0".parse().unwrap());
    let mut rig = Rig::granting(&policy, Quota::TURN.bytes);
    let address = rig.put(0, b"127.0.0.1:0");
    let socket = rig.open(Request::UdpBind(op::UdpBind { address }));
    let (status, _) = rig.done(Request::SocketName(op::SocketName {
        socket,
        end: op::End::Local,
        into: Buf { offset: 0, len: 64 },
    }));
    assert_eq!(status, Status::Ok);
    let port = (rig.get(0) >> 16) as u16;
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(("127.0.0.1", port)).unwrap();
    for _ in 0..200 {
        stranger.send(b"unasked").unwrap();
    }
    let receive = op::UdpReceive {
        socket,
        into: Buf { offset: 0, len: 64 },
    };
    rig.driver.quota.bytes = 4 * allowance::CALL as u64;
    rig.submit([Request::UdpReceive(receive)]);
    let policy = rig.driver.backend.policy.clone();
    let refused = || policy.refusals().first().map_or(0, |(_, count)| *count);
    let driver = &mut rig.driver;
    let mut most = 0;
    rig.runtime.block_on(poll_fn(|context| {
        let before = refused();
        let turn = driver.turn(Some(context)).expect("the rings are whole");
        most = most.max(refused() - before);
        if turn.ended == Ended::Spent || driver.has_ready() {
            context.waker().wake_by_ref();
        }
        match refused() {
            200 => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }));
    assert!((1..=8).contains(&most), "{most} in a turn");
}

/// What a guest can open, with much to read in each, and what may stand in a parameter.
struct Worst {
    rig: Rig,
    words: Vec<u64>,
}

impl Worst {
    /// With this directory.
    fn new(directory: &Path) -> Self {
        let local = "127.0.0.1";
        let policy = Policy::new()
            .allow_listen("127.0.0.1:0".parse().unwrap())
            .allow_connect(local.parse().unwrap())
            .allow_udp(local.parse().unwrap())
            .allow_udp_bind("127.0.0.1:0".parse().unwrap())
            .allow_dir(DirGrant::new(directory, "/data").unwrap())
            .allow_fn("*".parse().unwrap());
        let mut rig = Rig::granting(&policy, Quota::TURN.bytes);
        let mut words = vec![0, 1, 2, Param::to_word(WHOLE)];
        let opened = Self::open(&mut rig);
        words.extend(opened.map(Param::to_word));
        // A message that is much longer than its reader's buffer was: postcard's form of a string.
        let len = ARENA / 2;
        let varint = [len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8];
        let mut text = vec![b'a'; len as usize + varint.len()];
        text[..varint.len()].copy_from_slice(&varint);
        let input = rig.put(64 << 10, &text);
        let function = rig.put(0, b"echo");
        let call = |into| op::CallHost {
            form: op::CallForm::Plain,
            function,
            input,
            into,
        };
        let small = Buf {
            offset: 128,
            len: 4,
        };
        assert_eq!(
            rig.done(Request::CallHost(call(small))),
            (Status::Ok, op::OVERFLOW)
        );
        words.push(rig.get(small.offset));
        // Everything that is short enough to be taken for a path, a name or an address.
        let path = format!("/data/{}", "./".repeat(2_045));
        words.push(rig.put(4 << 10, path.as_bytes()).to_word());
        words.push(rig.put(512, b"127.0.0.1:0").to_word());
        words.push(function.to_word());
        words.push(input.to_word());
        Self { rig, words }
    }

    /// A connection that has much to read, one that has written it, and one of each of the others.
    fn open(rig: &mut Rig) -> [Handle; 7] {
        let listener = rig.listener();
        let into = Buf { offset: 0, len: 64 };
        let (status, _) = rig.done(Request::SocketName(op::SocketName {
            socket: listener,
            end: op::End::Local,
            into,
        }));
        assert_eq!(status, Status::Ok);
        let port = rig.get(0) >> 16;
        let address = rig.put(0, format!("127.0.0.1:{port}").as_bytes());
        let writer = rig.open(Request::TcpConnect(op::TcpConnect { address }));
        let reader = rig.open(Request::TcpAccept(op::TcpAccept {
            listener,
            peer: Buf::default(),
        }));
        // Until there is no more room between them.
        while rig.driver.in_flight() == 0 {
            rig.submit([Request::WriteStream(op::WriteStream {
                stream: writer,
                from: WHOLE,
                amount: op::Amount::Some,
            })]);
            rig.turns();
            rig.completed();
        }
        rig.settle();
        let address = rig.put(0, b"127.0.0.1:0");
        let udp = rig.open(Request::UdpBind(op::UdpBind { address }));
        let path = rig.put(0, b"/data/file");
        let flags = OpenFlags(OpenFlags::READ | OpenFlags::WRITE);
        let file = rig.open(Request::OpenFile(op::OpenFile { path, flags }));
        let path = rig.put(0, b"/data");
        let directory = rig.open(Request::OpenDirectory(op::OpenDirectory { path }));
        let (function, input) = (rig.put(0, b"count"), rig.put(16, b"\x7f"));
        let stream = Request::OpenHostStream(op::OpenHostStream {
            form: op::CallForm::Plain,
            function,
            input,
        });
        let items = rig.open(stream);
        [listener, writer, reader, udp, file, directory, items]
    }

    /// All requests of an operation that these words make, the handles' closing left out.
    fn requests(&self, opcode: Opcode) -> Vec<Request> {
        let mut all = Vec::new();
        for a in &self.words {
            for b in &self.words {
                for c in &self.words {
                    let submission = Submission {
                        opcode: opcode as u16,
                        deferrable: false,
                        token: Token {
                            slot: 0,
                            generation: 0,
                        },
                        params: [*a, *b, *c, 0, 0, 0],
                    };
                    if let Ok(request) = Request::decode(&submission)
                        && !all.contains(&request)
                    {
                        all.push(request);
                    }
                }
            }
        }
        all
    }
}

/// So many of one kind at once spend more than a turn may, if each moves the whole arena.
const COPIES: usize = 4;

#[test]
fn no_operation_spends_more_in_a_turn_than_its_allowance_and_a_piece() {
    let most = Quota::TURN.bytes + 2 * PIECE as u64;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), vec![7; ARENA as usize]).unwrap();
    for name in 0..400 {
        std::fs::write(directory.path().join(format!("{name:0>200}")), "").unwrap();
    }
    for opcode in Opcode::ALL {
        let mut worst = Worst::new(directory.path());
        let requests = worst.requests(*opcode);
        assert!(!requests.is_empty(), "no words make a {opcode:?}");
        for request in requests {
            let rig = &mut worst.rig;
            rig.submit([request; COPIES]);
            loop {
                let turn = rig.turn();
                assert!(
                    rig.driver.spent <= most,
                    "{request:?}: {}",
                    rig.driver.spent
                );
                if turn.ended != Ended::Spent {
                    break;
                }
            }
            rig.settle();
        }
    }
}
