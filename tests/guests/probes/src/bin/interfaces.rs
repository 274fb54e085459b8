//! The interfaces of the ecosystem, each used by code that knows nothing of this runtime:
//! `interfaces ADDRESS NAME:PORT`, where somebody at both greets in lines and echoes, and lines on
//! standard input.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;

use core::net::SocketAddr;

use embassy_time::{Duration, Instant, Ticker, Timer, with_timeout};
use embedded_io_async::{BufRead, Read, Write};
use embedded_nal_async::{AddrType, Dns, TcpConnect};
use futures::stream::{FuturesUnordered, StreamExt};
use rand::rngs::SysRng;
use rand::{RngExt, SeedableRng, TryRng};
use wakebox_guest::io::{BufReader, Result, stdin};
use wakebox_guest::net::{Stack, TcpListener, TcpStream, lookup};
use wakebox_guest::{env, println, spawn, time};

/// A line, by the traits alone.
async fn line<R: BufRead>(from: &mut R) -> String {
    let mut line = Vec::new();
    loop {
        let Ok(bytes) = from.fill_buf().await else {
            break;
        };
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let count = end.map_or(bytes.len(), |end| end + 1);
        line.extend_from_slice(&bytes[..count]);
        from.consume(count);
        if count == 0 || end.is_some() {
            break;
        }
    }
    String::from_utf8_lossy(&line).trim_end().into()
}

/// Sends all of it and reads as much back, by the traits alone.
async fn echoed<S: Read + Write>(stream: &mut S, bytes: &[u8]) -> bool {
    let mut back = alloc::vec![0; bytes.len()];
    stream.write_all(bytes).await.is_ok()
        && stream.flush().await.is_ok()
        && stream.read_exact(&mut back).await.is_ok()
        && back == bytes
}

/// A client for any network that has the traits.
async fn visit<N: TcpConnect + Dns>(network: &N, name: &str, port: u16) -> bool {
    let Ok(address) = network.get_host_by_name(name, AddrType::IPv4).await else {
        return false;
    };
    let Ok(mut stream) = network.connect((address, port).into()).await else {
        return false;
    };
    let mut greeting = [0; 12];
    stream.read_exact(&mut greeting).await.is_ok() && echoed(&mut stream, b"visitor").await
}

/// A server for any network that has the traits of `edge-nal`.
async fn edge_server(network: &impl edge_nal::TcpAccept) -> bool {
    use edge_nal::{Readable, TcpSplit};

    let Ok((_, mut stream)) = network.accept().await else {
        return false;
    };
    let (mut from, mut to) = stream.split();
    let mut bytes = [0; 4];
    from.readable().await.is_ok()
        && from.read_exact(&mut bytes).await.is_ok()
        && to.write_all(&bytes).await.is_ok()
}

/// A client for one.
async fn edge_client(network: &impl edge_nal::TcpConnect, to: SocketAddr) -> bool {
    use edge_nal::{Close, TcpShutdown};

    let Ok(mut stream) = network.connect(to).await else {
        return false;
    };
    echoed(&mut stream, b"edge").await && stream.close(Close::Both).await.is_ok()
}

async fn edge() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr().await?;
    let both = futures::join!(edge_server(&listener), edge_client(&Stack, address));
    println!("edge {both:?}");
    Ok(())
}

async fn input() {
    let mut reader = BufReader::with_capacity(5, stdin());
    println!("stdin buffered {:?}", line(&mut reader).await);
    println!("stdin buffered {:?}", line(&mut reader).await);
}

async fn streams(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    println!("stream line {:?}", line(&mut stream).await);
    println!("stream line {:?}", line(&mut stream).await);
    println!("stream echo {}", echoed(&mut stream, &[7; 50_000]).await);
    println!(
        "stream echo by reference {}",
        echoed(&mut &stream, b"x").await
    );
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    write.write_all(b"one\ntwo\n").await?;
    println!("half line {:?}", line(&mut read).await);
    println!("half line {:?}", line(&mut read).await);
    drop(write);
    println!("half end {:?}", line(&mut read).await);
    Ok(())
}

/// Connections to itself, taken from a stream.
async fn incoming() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr().await?;
    let clients = spawn(async move {
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await);
            time::sleep(time::Duration::from_millis(1)).await;
        }
        clients
    });
    let mut three = listener.incoming().take(3);
    while let Some(stream) = three.next().await {
        stream?;
    }
    println!("incoming three");
    let mut waiting = listener.incoming();
    let never = futures::future::poll_immediate(waiting.next()).await;
    println!("incoming waits {}", never.is_none());
    let clients_too = async {
        (
            TcpStream::connect(address).await,
            TcpStream::connect(address).await,
        )
    };
    // The second waits behind the first.
    let (first, second, _clients) = futures::join!(waiting.next(), listener.accept(), clients_too);
    println!(
        "accept meanwhile {}",
        first.is_some_and(|first| first.is_ok()) && second.is_ok()
    );
    drop(waiting);
    let _more = TcpStream::connect(address).await?;
    println!("accept after {}", listener.accept().await.is_ok());
    let _ = clients.await;
    let beats = time::interval(time::Duration::from_millis(1));
    println!("interval {}", beats.take(3).count().await);
    Ok(())
}

async fn embassy() {
    let start = Instant::now();
    Timer::after_millis(5).await;
    let slept = start.elapsed();
    println!("embassy slept {}", slept >= Duration::from_millis(5));
    let late = with_timeout(Duration::from_millis(2), Timer::after_secs(3_600)).await;
    println!("embassy timeout {}", late.is_err());
    // From one moment, however long it takes to begin with each.
    let start = Instant::now();
    let mut order: FuturesUnordered<_> = [9, 3, 6]
        .map(async |millis| {
            Timer::at(start + Duration::from_millis(millis)).await;
            millis
        })
        .into_iter()
        .collect();
    let mut woken = Vec::new();
    while let Some(millis) = order.next().await {
        woken.push(millis);
    }
    println!("embassy order {woken:?}");
    let mut ticker = Ticker::every(Duration::from_millis(1));
    for _ in 0..3 {
        ticker.next().await;
    }
    let tasks: Vec<_> = (0..1_000)
        .map(|number| spawn(async move { Timer::after_millis(number % 10).await }))
        .collect();
    let mut ended = 0;
    for task in tasks {
        ended += usize::from(task.await.is_ok());
    }
    println!("embassy tasks {ended}");
    let ours = time::now().as_nanos() / 1_000;
    println!(
        "embassy same clock {}",
        Instant::now().as_micros().abs_diff(ours) < 1_000_000
    );
}

fn randomness() {
    let mut bytes = [0; 1_000];
    let filled = getrandom::fill(&mut bytes).is_ok();
    let zeroes = bytes.iter().filter(|&&byte| byte == 0).count();
    println!("getrandom {}", filled && zeroes < 50);
    println!("getrandom changes {}", getrandom::u64() != getrandom::u64());
    let filled = getrandom_03::fill(&mut bytes).is_ok();
    println!("getrandom 0.3 {filled}");
    println!("rand system {}", SysRng.try_next_u64().is_ok());
    let mut generator = rand::rngs::SmallRng::try_from_rng(&mut SysRng).unwrap();
    println!(
        "rand range {}",
        (1..7).contains(&generator.random_range(1..7))
    );
    // For the test, which runs twice: it is not the same then.
    println!("{:016x}", getrandom::u64().unwrap_or(0));
}

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut args = env::args();
    let address = args.next().unwrap_or_default();
    let (name, port) = args
        .next()
        .and_then(|at| at.split_once(':'))
        .unwrap_or_default();
    input().await;
    streams(address).await?;
    println!(
        "visit {}",
        visit(&Stack, name, port.parse().unwrap_or(0)).await
    );
    let absent = Stack.get_host_by_name("elsewhere.invalid", AddrType::Either);
    println!(
        "no grant {:?}",
        absent.await.map_err(|error| error.status())
    );
    println!("lookup {}", lookup("127.0.0.1").await.is_ok());
    edge().await?;
    incoming().await?;
    embassy().await;
    randomness();
    Ok(())
}
