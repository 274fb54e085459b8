//! A task that computes for two seconds and awaits nothing, and an urgent one that answers a TCP client
//! meanwhile: the guest's side of `host/examples/preempt.rs`. Arguments: where to listen, and for how many
//! milliseconds to compute.
#![no_std]
#![no_main]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex;
use embassy_sync::signal::Signal;
use wakebox_guest::interrupt::{self, Priority};
use wakebox_guest::net::TcpListener;
use wakebox_guest::time::{Duration, Instant};
use wakebox_guest::{env, println, stats};

static ASKED: Signal<CriticalSectionRawMutex, ()> = Signal::new();
static ANSWERS: AtomicU64 = AtomicU64::new(0);

/// Answers whoever asks, byte by byte.
async fn serve(address: &str) {
    let listener = TcpListener::bind(address).await.expect("a listener");
    let client = listener.accept().await.expect("a client");
    let mut question = [0; 1];
    while client.read_exact(&mut question).await.is_ok() {
        client.write_all(&question).await.expect("it is there");
        ANSWERS.fetch_add(1, Ordering::Relaxed);
        ASKED.signal(());
    }
}

/// Computes for so long. Nothing in here knows that it is interrupted.
fn compute(time: Duration) -> f64 {
    let end = Instant::now() + time;
    let mut sums = [0.0; 8];
    while Instant::now() < end {
        for (index, sum) in sums.iter_mut().enumerate() {
            for round in 0..1_000 {
                *sum = *sum * 0.999 + f64::from(round) * index as f64;
            }
        }
    }
    sums.iter().sum()
}

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    let address = args.next().unwrap_or("127.0.0.1:7777");
    let ms = args
        .next()
        .and_then(|arg| arg.parse().ok())
        .unwrap_or(2_000);
    interrupt::spawn_named(Priority::Urgent, "answers", async move || {
        serve(address).await
    });
    ASKED.wait().await;

    let (before, began) = (ANSWERS.load(Ordering::Relaxed), Instant::now());
    black_box(compute(Duration::from_millis(ms)));
    let answers = ANSWERS.load(Ordering::Relaxed) - before;
    println!(
        "the guest computed for {:.2} s in one poll; {answers} answers meanwhile, {} upcalls",
        began.elapsed().as_secs_f64(),
        stats().upcalls
    );
}
