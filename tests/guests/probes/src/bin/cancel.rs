//! Drops each kind of operation in flight, and shows that what comes later finds its own.
//! Wants to be allowed to listen and connect as `ops`; standard input should stay open.
#![no_std]
#![no_main]

use core::future::Future;

use wakebox_guest::io::{IoBuf, Result, stdin};
use wakebox_guest::net::{TcpListener, TcpStream};
use wakebox_guest::time::{Duration, sleep, timeout};
use wakebox_guest::{env, ops, println, random, spawn, stats};

const SOON: Duration = Duration::from_millis(3);

/// Drops a future that is not ready soon.
async fn give_up<T>(name: &str, future: impl Future<Output = T>) {
    let outcome = if timeout(SOON, future).await.is_ok() {
        "was quicker"
    } else {
        "dropped"
    };
    println!("{name} {outcome}");
}

/// Drops futures right after their submission, then does operations in the same slots.
async fn no_stranger_is_woken() -> bool {
    let mut right = true;
    for round in 0..200_u32 {
        let mut first = [0; 8];
        let mut second = [0; 8];
        {
            let fill = random::fill(&mut first);
            let _ = timeout(Duration::ZERO, fill).await;
        }
        right &= random::fill(&mut second).await.is_ok();
        right &= second != [0; 8];
        let _ = timeout(Duration::from_micros(u64::from(round % 5)), ops::nop()).await;
        right &= ops::nop().await.is_ok();
    }
    right
}

async fn network(address: &'static str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    give_up("accept", listener.accept()).await;
    let bound = listener.local_addr().await?;
    let client = TcpStream::connect(bound).await?;
    // The accept that was dropped belongs to the listener, and so does what it brought.
    let server = listener.accept().await?;

    let mut bytes = [0; 4];
    give_up("read", server.read(&mut bytes)).await;
    client.write_all(b"kept").await?;
    server.read_exact(&mut bytes).await?;
    println!("bytes kept {}", &bytes == b"kept");

    // Nobody reads, so that a write stays in flight sooner or later.
    let buf = IoBuf::copy_of(&[7; 32 << 10]).await?;
    let writer = spawn(async move {
        let mut buf = buf;
        loop {
            let outcome;
            (outcome, buf) = client.write_all_buf(buf).await;
            outcome?;
        }
        #[allow(unreachable_code, reason = "gives the block its type")]
        Result::Ok(())
    });
    sleep(Duration::from_millis(100)).await;
    writer.abort();
    println!("write dropped {}", writer.await.is_err());
    Ok(())
}

#[wakebox_guest::main]
async fn main() {
    give_up("stdin", stdin().read(&mut [0])).await;
    give_up("sleep", sleep(Duration::from_secs(1_000))).await;
    println!("no stranger is woken {}", no_stranger_is_woken().await);
    if let Err(error) = network(env::args().next().unwrap_or("127.0.0.1:0")).await {
        println!("network failed {error:?}");
    }
    println!("some cancels {}", stats().cancels > 0);
}
