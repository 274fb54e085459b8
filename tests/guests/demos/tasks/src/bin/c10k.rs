//! Ten thousand connections: `c10k ADDRESS [CONNECTIONS] [SECONDS]`.
//!
//! What to watch: each connection is a task with a timer of its own, which sends a message now and
//! then, about once a second, and a read that always waits for the echo. So ten thousand
//! operations are in flight at any time, on one virtual processor, and only those that have
//! something to say are polled. The peers, and the two limits that have to be raised for so many
//! (operations in flight, open sockets), are in `host/examples/c10k.rs`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::pending;

use futures_lite::future::or;
use wakebox_guest::io::{IoBuf, Result, Status};
use wakebox_guest::net::{TcpListener, TcpStream};
use wakebox_guest::time::{Duration, Instant, now, sleep_until};
use wakebox_guest::{env, println, random, spawn};

/// Bytes of a message.
const MESSAGE: usize = 16;

/// How long a connection is silent, at most; half of it on average.
const SILENCE: u64 = 2_000_000_000;

/// How long the last echoes may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Tally {
    sent: Cell<u64>,
    /// Microseconds from a message to its echo.
    echoes: RefCell<Vec<u32>>,
}

/// The numbers of the connection and of the message, and when it is sent.
fn message(connection: u32, number: u32) -> [u8; MESSAGE] {
    let words = u128::from(connection) | u128::from(number) << 32;
    (words | u128::from(now().as_nanos()) << 64).to_le_bytes()
}

/// When a message was sent, if it is that of this connection and number.
fn sent_at(message: &[u8; MESSAGE], connection: u32, number: u32) -> Option<Instant> {
    let words = u128::from_le_bytes(*message);
    let right = words as u32 == connection && (words >> 32) as u32 == number;
    right.then(|| Instant::from_nanos((words >> 64) as u64))
}

/// One connection.
struct Talk {
    stream: TcpStream,
    number: u32,
    sent: Cell<u32>,
    echoes: Cell<u32>,
    /// Whether no more is to be sent.
    silent: Cell<bool>,
    tally: Rc<Tally>,
}

impl Talk {
    fn is_over(&self) -> bool {
        self.silent.get() && self.echoes.get() == self.sent.get()
    }

    /// Sends messages until `end`, and waits for the echoes of those that are under way.
    async fn run(self, end: Instant) -> Result<()> {
        let patience = async {
            sleep_until(end + PATIENCE).await;
            Ok(())
        };
        or(patience, or(self.send(end), self.receive())).await
    }

    async fn send(&self, end: Instant) -> Result<()> {
        // Marsaglia's xorshift, so that connections do not speak in chorus.
        let mut dice =
            random::seed()[0] ^ (u64::from(self.number) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        loop {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            let next = now() + Duration::from_nanos(dice % SILENCE);
            sleep_until(next.min(end)).await;
            if next >= end {
                break;
            }
            let sent = self.sent.get();
            self.sent.set(sent + 1);
            self.tally.sent.set(self.tally.sent.get() + 1);
            self.stream.write_all(&message(self.number, sent)).await?;
        }
        self.silent.set(true);
        if !self.is_over() {
            // The last echo ends it.
            pending::<()>().await;
        }
        Ok(())
    }

    async fn receive(&self) -> Result<()> {
        let mut buf = IoBuf::with_capacity(MESSAGE).await?;
        let mut bytes = Vec::with_capacity(2 * MESSAGE);
        while !self.is_over() {
            let (count, full) = self.stream.read_buf(buf).await;
            if count? == 0 {
                return Err(Status::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&full);
            buf = full;
            while let Some(message) = bytes.first_chunk() {
                let echoes = self.echoes.get();
                let at = sent_at(message, self.number, echoes).ok_or(Status::InvalidData)?;
                let micros = at.elapsed().as_micros() as u32;
                self.tally.echoes.borrow_mut().push(micros);
                self.echoes.set(echoes + 1);
                bytes.drain(..MESSAGE);
            }
        }
        Ok(())
    }
}

/// Times of echoes, from the quickest to the slowest.
fn percentiles(mut micros: Vec<u32>) {
    micros.sort_unstable();
    let at = |share: f64| {
        let place = (micros.len() as f64 * share) as usize;
        micros
            .get(place.min(micros.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    };
    println!(
        "{:>7} echoes: half within {} us, 90% {} us, 99% {} us, 99.9% {} us, all {} us",
        micros.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
}

#[wakebox_guest::main]
async fn main() -> Result<i32> {
    let mut args = env::args();
    let address = args.next().unwrap_or("127.0.0.1:7780");
    let mut number = |otherwise: u64| {
        args.next()
            .and_then(|arg| arg.parse().ok())
            .unwrap_or(otherwise)
    };
    let (connections, seconds) = (number(10_000), number(10));

    let listener = TcpListener::bind_with_backlog(address, 4096).await?;
    println!("listening on {}", listener.local_addr().await?);
    let mut streams = Vec::new();
    let mut start = None;
    while streams.len() < connections as usize {
        streams.extend(listener.accept_many(64).await?);
        start.get_or_insert_with(now);
    }
    let took = start.map_or(Duration::ZERO, Instant::elapsed);
    println!(
        "{} connections open after {} ms",
        streams.len(),
        took.as_millis()
    );

    let tally = Rc::new(Tally::default());
    let end = now() + Duration::from_secs(seconds);
    let tasks: Vec<_> = streams
        .into_iter()
        .zip(0..)
        .map(|(stream, number)| {
            let talk = Talk {
                stream,
                number,
                sent: Cell::new(0),
                echoes: Cell::new(0),
                silent: Cell::new(false),
                tally: tally.clone(),
            };
            spawn(talk.run(end))
        })
        .collect();
    let mut all = Vec::new();
    for second in 1..=seconds {
        sleep_until(end - Duration::from_secs(seconds - second)).await;
        let new = core::mem::take(&mut *tally.echoes.borrow_mut());
        all.extend_from_slice(&new);
        percentiles(new);
    }
    let (mut broken, mut first) = (0, None);
    for task in tasks {
        if let Ok(Err(error)) = task.await {
            broken += 1;
            first.get_or_insert(error);
        }
    }
    all.append(&mut tally.echoes.borrow_mut());
    println!("in all {} messages", tally.sent.get());
    let missing = tally.sent.get() - all.len() as u64;
    percentiles(all);
    println!("{broken} connections broke, {missing} echoes are missing");
    if let Some(error) = first {
        println!("the first that broke: {error}");
    }
    Ok(i32::from(broken > 0 || missing > 0))
}
