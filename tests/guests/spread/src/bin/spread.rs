//! A probe with several processors; the argument says what it does.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::pending;
use core::hint::black_box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use wakebox_guest::net::{TcpListener, TcpStream};
use wakebox_guest::task::yield_now;
use wakebox_guest::time::{Duration, Instant, sleep};
use wakebox_guest::{env, host, ops, println, processor, spawn, stats};
use wakebox_spread::Mailbox;

/// Each processor says its number, and is heard.
async fn each() {
    println!("{} processors", processor::count());
    for number in (0..processor::count()).rev() {
        let said = processor::spawn_on(number, || async {
            // Stays where it is made.
            let own = Rc::new(processor::current());
            sleep(Duration::from_millis(1)).await;
            yield_now().await;
            assert!(*own == processor::current());
            println!("this is {own}");
            *own
        });
        assert!(said.await == Ok(number));
    }
}

/// What any may run is run by several, and each task once.
async fn shares() {
    let ran: Arc<[AtomicU32; 4]> = Arc::default();
    let tasks: Vec<_> = (0..400_u64)
        .map(|task| {
            let ran = ran.clone();
            processor::spawn_anywhere(async move {
                for round in 0..4 {
                    // The heap, on all of them at once.
                    let memory: Vec<u64> = (0..100).map(|word| word + round).collect();
                    black_box((0..20_000).fold(memory[7], |sum, round| black_box(sum ^ round)));
                    ran[processor::current()].fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
                task
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.expect("nobody aborts it");
    }
    let polls: u32 = ran.iter().map(|polls| polls.load(Ordering::Relaxed)).sum();
    let several = ran
        .iter()
        .filter(|polls| polls.load(Ordering::Relaxed) > 0)
        .count()
        > 1;
    println!("sum {sum}, {polls} polls, several {several}");
}

/// A channel leads from all to the first.
async fn channel() {
    let (sender, receiver) = async_channel::bounded(4);
    for number in 0..processor::count() as u64 {
        let sender = sender.clone();
        drop(processor::spawn_on(number as usize, move || async move {
            for value in 0..500 {
                sender
                    .send(value * number)
                    .await
                    .expect("somebody receives");
            }
        }));
    }
    drop(sender);
    let mut sum = 0;
    while let Ok(value) = receiver.recv().await {
        sum += value;
    }
    println!("sum {sum}");
}

struct Game {
    boxes: Vec<Mailbox>,
    hops: AtomicU32,
    random: AtomicU64,
    over: Mailbox,
}

impl Game {
    async fn play(self: Arc<Self>, own: usize) {
        loop {
            self.boxes[own].take().await;
            if self.hops.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.over.put();
            }
            let mut random = self
                .random
                .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
            random = (random ^ random >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            random ^= random >> 29;
            self.boxes[random as usize % self.boxes.len()].put();
        }
    }
}

/// Tokens go from task to task on all processors, so many hops in all.
async fn tokens(hops: u32) {
    const TASKS: usize = 24;
    for tokens in [1, 5] {
        let game = Arc::new(Game {
            boxes: (0..TASKS).map(|_| Mailbox::new()).collect(),
            hops: AtomicU32::new(hops),
            random: AtomicU64::new(tokens),
            over: Mailbox::new(),
        });
        for own in 0..TASKS {
            let game = game.clone();
            if own % 2 == 0 {
                let place = own / 2 % processor::count();
                drop(processor::spawn_on(place, move || game.play(own)));
            } else {
                drop(processor::spawn_anywhere(game.play(own)));
            }
        }
        for token in 0..tokens as usize {
            game.boxes[token].put();
        }
        game.over.take().await;
    }
    println!("all arrived");
}

/// One is to be aborted on another processor.
async fn aborts() {
    let last = processor::count() - 1;
    let stays = processor::spawn_on(last, pending::<()>);
    let roams = processor::spawn_anywhere(pending::<()>());
    sleep(Duration::from_millis(2)).await;
    stays.abort();
    roams.abort();
    println!("{} {}", stays.await.is_err(), roams.await.is_err());
}

/// The end does not wait for one that computes.
async fn ends() {
    let begun = Arc::new(AtomicU32::new(0));
    let seen = begun.clone();
    drop(processor::spawn_on(
        processor::count() - 1,
        move || async move {
            seen.store(1, Ordering::Relaxed);
            loop {
                black_box(0);
            }
        },
    ));
    while begun.load(Ordering::Relaxed) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    println!("ends");
}

/// What any may run sleeps and has files read, wherever it is, and goes on wherever there is time.
async fn stays() {
    let tasks: Vec<_> = (0..60_u64)
        .map(|task| {
            processor::spawn_anywhere(async move {
                let slept = processor::stay(move || async move {
                    // Neither may leave where it is.
                    let own = Rc::new(processor::current());
                    sleep(Duration::from_micros(task * 50)).await;
                    assert!(*own == processor::current());
                    task
                });
                let slept = slept.await;
                yield_now().await;
                let mut bytes = [0; 8];
                let read = processor::stay(move || async move {
                    wakebox_guest::random::fill(&mut bytes).await.is_ok()
                });
                if read.await { slept } else { 0 }
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.expect("nobody aborts it");
    }
    // What is dropped does not stay.
    let gone = Arc::new(AtomicU32::new(0));
    let seen = Counts(gone.clone());
    let roams = processor::spawn_anywhere(processor::stay(move || async move {
        let _seen = seen;
        pending::<()>().await;
    }));
    sleep(Duration::from_millis(2)).await;
    roams.abort();
    assert!(roams.await.is_err());
    while gone.load(Ordering::Acquire) == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    println!("sum {sum}");
}

/// Adds to a count when it is dropped.
struct Counts(Arc<AtomicU32>);

impl Drop for Counts {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Says so when it is dropped, and leaves others.
struct Says(&'static str, u32);

impl Drop for Says {
    fn drop(&mut self) {
        println!("{} is dropped", self.0);
        if self.1 > 0 {
            let next = Self("what a destructor has made", self.1 - 1);
            drop(processor::spawn_anywhere(async move {
                let _next = next;
            }));
        }
    }
}

/// What is left when main ends is dropped, whatever it waits for.
async fn drops() {
    let waits = Says("what waits", 2);
    drop(processor::spawn_anywhere(async move {
        let _waits = waits;
        pending::<()>().await;
    }));
    let sleeps = Says("what sleeps", 0);
    drop(processor::spawn_anywhere(async move {
        let _sleeps = sleeps;
        processor::stay(|| sleep(Duration::from_secs(3_600))).await;
    }));
    let stays = Says("what stays", 0);
    drop(processor::spawn_anywhere(processor::stay(
        move || async move {
            let _stays = stays;
            pending::<()>().await;
        },
    )));
    sleep(Duration::from_millis(3)).await;
    let local = Says("what is of one", 0);
    drop(processor::spawn_on(
        processor::count() - 1,
        move || async move {
            let _local = local;
            pending::<()>().await;
        },
    ));
    let queued = Says("what is queued", 0);
    drop(processor::spawn_anywhere(async move {
        let _queued = queued;
        pending::<()>().await;
    }));
}

/// Time does not go back, whoever is asked.
async fn clock() {
    let latest = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..processor::count())
        .map(|number| {
            let latest = latest.clone();
            processor::spawn_on(number, move || async move {
                for _ in 0..20_000 {
                    let before = latest.load(Ordering::Acquire);
                    let now = Instant::now().as_nanos();
                    assert!(now >= before, "{now} after {before}");
                    latest.fetch_max(now, Ordering::AcqRel);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("nobody aborts it");
    }
    println!("forward");
}

/// What all have done is counted, whoever asks.
async fn counts() {
    let before = stats();
    for number in 0..processor::count() {
        let done = processor::spawn_on(number, || async {
            for _ in 0..100 {
                yield_now().await;
            }
        });
        done.await.expect("nobody aborts it");
        // The other sleeps, or rings, when it has woken this one.
        while stats().completed - before.completed < number as u64 + 1 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let polls = stats().polls - before.polls;
    assert!(polls >= 100 * processor::count() as u64, "{polls}");
    println!("counted");
}

/// Connections are accepted on one processor and served on all, and moved once more in the middle.
async fn connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().await.expect("an address");
    let clients: Vec<_> = (0..8_u8)
        .map(|client| {
            spawn(async move {
                let stream = TcpStream::connect(address).await.expect("a connection");
                for round in 0..4 {
                    let sent = [client, round];
                    stream.write_all(&sent).await.expect("sent");
                    let mut answer = [0; 3];
                    stream.read_exact(&mut answer).await.expect("an answer");
                    assert!(answer[..2] == sent, "{answer:?}");
                    assert!(usize::from(answer[2]) == place(client, round), "{answer:?}");
                }
            })
        })
        .collect();
    for _ in &clients {
        let stream = listener.accept().await.expect("a connection");
        // A byte that was read and not taken stays where it is.
        stream.readable().await.expect("a byte");
        let stream = stream.into_movable().expect_err("a byte is there");
        let mut own = [0; 2];
        stream.read_exact(&mut own).await.expect("a request");
        serve(stream, own);
    }
    for client in clients {
        client.await.expect("nobody aborts it");
    }
    println!("served");
}

fn place(client: u8, round: u8) -> usize {
    usize::from(client + round) % processor::count()
}

/// Answers a request where it is to be answered, and takes the next one there.
fn serve(stream: TcpStream, request: [u8; 2]) {
    let movable = stream.into_movable().expect("all was taken");
    let place = place(request[0], request[1]);
    drop(processor::spawn_on(place, move || async move {
        let stream = movable.into_stream();
        let answer = [request[0], request[1], processor::current() as u8];
        stream.write_all(&answer).await.expect("sent");
        let mut next = [0; 2];
        if stream.read_exact(&mut next).await.is_ok() {
            serve(stream, next);
        }
    }));
}

/// Tasks that any may run wait: for nothing that anybody knows of, and for each other's end.
async fn stuck() {
    async fn lost() {
        pending().await
    }
    async fn joins(other: processor::JoinHandle<()>) {
        let _ = other.await;
    }
    let lost = processor::spawn_anywhere(lost()); // MARK lost
    let stays = processor::spawn_on(processor::count() - 1, lost_there);
    drop(processor::spawn_anywhere(joins(lost)));
    let _ = stays.await;
}

async fn lost_there() {
    pending().await
}

/// The last one calls the host and computes for ever.
async fn calls() {
    let last = processor::count() - 1;
    drop(processor::spawn_on(last, || async {
        // So that whoever watches the rings is awake, and need not be called.
        for _ in 0..1_000 {
            ops::nop().await.expect("a no-op is done");
        }
        spawn(async {
            let _ = host::call::<(), ()>("end", &()).await;
        });
        // So that the call is on its way.
        yield_now().await;
        yield_now().await;
        loop {
            black_box(0);
        }
    }));
    pending::<()>().await;
}

#[wakebox_guest::main(processors = 4)]
async fn main() {
    match env::args().next() {
        Some("each") => each().await,
        Some("shares") => shares().await,
        Some("channel") => channel().await,
        Some("tokens") => tokens(5_000).await,
        Some("aborts") => aborts().await,
        Some("ends") => ends().await,
        Some("clock") => clock().await,
        Some("stays") => stays().await,
        Some("drops") => drops().await,
        Some("counts") => counts().await,
        Some("connections") => connections().await,
        Some("stuck") => stuck().await,
        Some("calls") => calls().await,
        Some("panics") => {
            let task =
                processor::spawn_on(processor::count() - 1, || async { panic!("on another") });
            let _: Result<(), _> = task.await;
        }
        other => panic!("no test {other:?}"),
    }
}
