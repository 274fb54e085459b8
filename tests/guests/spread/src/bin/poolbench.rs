//! What several processors cost and give, measured inside the guest: `poolbench WHAT`; a number a line.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicU64, Ordering};

use wakebox_guest::io::{IoBuf, Result};
use wakebox_guest::net::{TcpListener, TcpStream};
use wakebox_guest::time::Instant;
use wakebox_guest::{env, eprintln, println, processor, spawn};
use wakebox_spread::Mailbox;

const TASKS: u64 = 1_000;
const ROUNDS: u64 = 100;
/// From one processor to the other, there and back.
const WAKES: u64 = 20_000;
/// Of a connection, and of what is hashed for a request.
const BUFFER: usize = 16 << 10;
const HASHED: usize = 4 << 10;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds for a task that any processor may run: spawned, polled once, and its end awaited.
async fn spawns() -> f64 {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| processor::spawn_anywhere(async move { black_box(task) }))
            .collect();
        for task in tasks {
            task.await.expect("nobody aborts it");
        }
        rounds.push(start.elapsed().as_nanos() as f64 / TASKS as f64);
    }
    median(rounds)
}

/// Nanoseconds for a task that another processor takes and runs, while this one looks on. What it takes to spawn them
/// is not part of it.
async fn thefts() -> f64 {
    let other = processor::count() - 1;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let ended = Arc::new(AtomicU64::new(0));
        let begin = Arc::new(AtomicU64::new(0));
        let holds = begin.clone();
        // The other one does not begin before all are there.
        let held = processor::spawn_on(other, move || async move {
            while holds.load(Ordering::Acquire) != 1 {
                spin_loop();
            }
        });
        for _ in 0..TASKS {
            let ended = ended.clone();
            drop(processor::spawn_anywhere(async move {
                ended.fetch_add(1, Ordering::Release);
            }));
        }
        let start = Instant::now();
        begin.store(1, Ordering::Release);
        while ended.load(Ordering::Acquire) < TASKS {
            spin_loop();
        }
        rounds.push(start.elapsed().as_nanos() as f64 / TASKS as f64);
        held.await.expect("nobody aborts it");
    }
    median(rounds)
}

/// Nanoseconds from a wake on one processor until the task on the other is polled.
async fn wakes() -> f64 {
    static THERE: Mailbox = Mailbox::new();
    static BACK: Mailbox = Mailbox::new();
    let other = processor::spawn_on(processor::count() - 1, || async {
        for _ in 0..WAKES {
            THERE.take().await;
            BACK.put();
        }
    });
    let start = Instant::now();
    for _ in 0..WAKES {
        THERE.put();
        BACK.take().await;
    }
    let each = start.elapsed().as_nanos() as f64 / (2 * WAKES) as f64;
    other.await.expect("nobody aborts it");
    each
}

/// FNV-1a of as many bytes as a request is said to be about.
fn hash(seed: u8) -> u64 {
    let block = black_box([seed; HASHED]);
    block.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Sends everything back, and has something hashed for it wherever there is time.
async fn answer(stream: TcpStream) -> Result<()> {
    let mut buf = IoBuf::with_capacity(BUFFER).await?;
    loop {
        let (count, full) = stream.read_buf(buf).await;
        if count? == 0 {
            return Ok(());
        }
        let seed = full[0];
        let hashed = processor::spawn_anywhere(async move { black_box(hash(seed)) });
        hashed.await.expect("nobody aborts it");
        let (written, empty) = stream.write_all_buf(full).await;
        written?;
        buf = empty;
    }
}

/// Serves so many connections to their ends.
async fn serves(address: &str, connections: usize) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr().await?);
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let stream = listener.accept().await?;
        tasks.push(spawn(async move {
            if let Err(error) = answer(stream).await {
                eprintln!("a connection ended: {error}");
            }
        }));
    }
    for task in tasks {
        let _ = task.await;
    }
    Ok(())
}

#[wakebox_guest::main(processors = 2)]
async fn main() -> Result<()> {
    let args: Vec<_> = env::args().collect();
    // What begins is not measured.
    for number in 0..processor::count() {
        let begun = processor::spawn_on(number, || async {}).await;
        begun.expect("nobody aborts it");
    }
    match args[..] {
        ["spawns"] => println!("{}", spawns().await),
        ["thefts"] => println!("{}", thefts().await),
        ["wakes"] => println!("{} {}", wakes().await, 2 * WAKES),
        [address, "--once", connections] => {
            serves(address, connections.parse().expect("a number")).await?;
        }
        _ => panic!("poolbench spawns | thefts | wakes | ADDRESS --once N"),
    }
    Ok(())
}
