//! Every operation once, a line each. Wants `--allow-listen 127.0.0.1:0` and
//! `--allow-connect 127.0.0.1:*`, or what amounts to it; prints errors otherwise.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use core::fmt::Debug;

use wakebox_guest::io::{Result, Status, stdin};
use wakebox_guest::net::{Shutdown, TcpListener, TcpStream};
use wakebox_guest::time::{Duration, Instant, sleep, synchronize, unix_time};
use wakebox_guest::{env, eprintln, ops, println, random, spawn};

fn say(name: &str, outcome: Result<impl Debug>) {
    match outcome {
        Ok(value) => println!("{name} ok {value:?}"),
        Err(error) => println!("{name} failed {error:?}"),
    }
}

/// `listen`, `connect`, `accept`, `name`, `read`, `write`, `shutdown` and, by drops, `close`.
async fn network(address: &'static str) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    println!("listen ok");
    let bound = listener.local_addr().await?;
    println!("name ok {}", bound.ip());
    let server = spawn(async move {
        let (stream, from) = listener.accept_from().await?;
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes).await?;
        stream.write_all(&bytes).await?;
        // The client's shutdown.
        let end = stream.read(&mut bytes).await?;
        Result::Ok((bytes, end, from))
    });
    let stream = TcpStream::connect(bound).await?;
    println!("connect ok {}", stream.peer_addr().await? == bound);
    stream.write_all(b"hello").await?;
    stream.shutdown(Shutdown::Write).await?;
    println!("shutdown ok");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    println!("read ok {}", &answer == b"hello");
    println!("read at end ok {}", stream.read(&mut [0]).await?);
    let (bytes, end, from) = server.await.map_err(|_| Status::Cancelled)??;
    println!("accept ok {} {end}", &bytes == b"hello");
    println!("accept from ok {}", from == stream.local_addr().await?);
    Ok(())
}

#[wakebox_guest::main]
async fn main() {
    say("nop", ops::nop().await);

    let start = Instant::now();
    sleep(Duration::from_millis(2)).await;
    println!(
        "deadline ok {}",
        start.elapsed() >= Duration::from_millis(2)
    );

    let before = Instant::now();
    let asked = synchronize().await;
    say(
        "clock",
        asked.map(|asked| asked >= before && asked <= Instant::now()),
    );
    // 2020 to 2100.
    let years = unix_time().as_secs() / 31_556_952 + 1970;
    println!("wall clock ok {}", (2020..2100).contains(&years));

    let mut bytes = [0; 5000];
    let filled = random::fill(&mut bytes).await;
    let zeros = bytes.iter().filter(|byte| **byte == 0).count();
    say("entropy", filled.map(|()| zeros < 100));
    println!("seed ok {}", random::seed() != [0; 4]);

    let mut line = String::new();
    let read = stdin().read_line(&mut line).await;
    say("stdin", read.map(|_| line));

    println!("args ok {:?}", env::args().collect::<alloc::vec::Vec<_>>());
    println!("env ok {:?}", env::var("PROBE"));
    println!("console ok");
    eprintln!("console error ok");

    if let Err(error) = network(env::args().next().unwrap_or("127.0.0.1:0")).await {
        println!("network failed {error:?}");
    }
}
