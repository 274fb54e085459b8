//! Many connections, opened, used and closed again and again: `soak ADDRESS CONNECTIONS CYCLES
//! ROUNDS MILLIS`.
//!
//! In each cycle it says a line and waits for one at three moments: `open`, when every connection
//! has a read in flight and nothing was sent; `held`, when each has sent its messages, as many as
//! there are rounds or for so many milliseconds, and has seen their echoes; `closed`, when all are
//! gone. Behind the word stands the number of operations in flight; behind `held`, those of
//! messages and of echoes, too.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use futures_lite::future::try_zip;
use wakebox_guest::io::{IoBuf, Result, Status, stdin};
use wakebox_guest::net::{TcpListener, TcpStream};
use wakebox_guest::ops::nop;
use wakebox_guest::time::{Duration, Instant, now, sleep};
use wakebox_guest::{env, println, spawn, stats};

/// Bytes of a message.
const MESSAGE: usize = 16;

/// A connection that is held for some time is silent that long, at most, between messages.
const SILENCE: u64 = 1_000;

/// How long a cycle goes.
#[derive(Clone, Copy)]
struct Hold {
    rounds: u32,
    until: Instant,
}

/// What all connections of a cycle have in common.
struct Cycle {
    /// Closed when messages may be sent.
    gate: async_channel::Receiver<()>,
    hold: Cell<Option<Hold>>,
    sent: Cell<u64>,
    echoes: Cell<u64>,
}

/// The message of a connection and a number.
fn message(connection: u32, number: u32) -> [u8; MESSAGE] {
    let word = u64::from(connection) << 32 | u64::from(number);
    let mixed = word.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = [0; MESSAGE];
    bytes[..8].copy_from_slice(&word.to_le_bytes());
    bytes[8..].copy_from_slice(&mixed.to_le_bytes());
    bytes
}

/// One connection, whose read always waits.
async fn talk(stream: TcpStream, connection: u32, cycle: Rc<Cycle>) -> Result<TcpStream> {
    let (sent, received) = (Cell::new(0), Cell::new(0));
    // Wakes the sender at each echo, and the reader at the end of the sender.
    let (echo, echoed) = async_channel::bounded::<()>(1);
    let over = Cell::new(false);

    let send = async {
        // An error says that the gate is open.
        let _ = cycle.gate.recv().await;
        let Some(hold) = cycle.hold.get() else {
            return Err(Status::InvalidData.into());
        };
        loop {
            // So that the connections do not speak in chorus.
            if hold.rounds == 0 {
                let pause =
                    (u64::from(connection) * 7_919 + u64::from(sent.get()) * 104_729) % SILENCE;
                sleep(Duration::from_millis(pause)).await;
            }
            let last = match hold.rounds {
                0 => now() >= hold.until,
                rounds => sent.get() + 1 == rounds,
            };
            let number = sent.get();
            sent.set(number + 1);
            // Before the echo of the last one can come.
            over.set(last);
            stream.write_all(&message(connection, number)).await?;
            cycle.sent.set(cycle.sent.get() + 1);
            let _ = echoed.recv().await;
            if last {
                return Result::Ok(());
            }
        }
    };
    let receive = async {
        let mut buf = IoBuf::with_capacity(MESSAGE).await?;
        let mut bytes = Vec::with_capacity(MESSAGE);
        while !(over.get() && received.get() == sent.get()) {
            let (count, full) = stream.read_buf(buf).await;
            if count? == 0 {
                return Err(Status::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&full);
            buf = full;
            if bytes.len() < MESSAGE {
                continue;
            }
            if bytes != message(connection, received.get()) {
                return Err(Status::InvalidData.into());
            }
            bytes.clear();
            received.set(received.get() + 1);
            cycle.echoes.set(cycle.echoes.get() + 1);
            let _ = echo.try_send(());
        }
        Result::Ok(())
    };
    try_zip(send, receive).await?;
    Ok(stream)
}

/// Says how it stands and waits for a word of the host.
async fn checkpoint(what: &str) -> Result<()> {
    let stats = stats();
    println!("{what} {}", stats.operations - stats.completions);
    let mut line = String::new();
    stdin().read_line(&mut line).await?;
    Ok(())
}

/// Opens all connections, uses them, and closes them.
async fn cycle(
    listener: &TcpListener,
    connections: u32,
    rounds: u32,
    time: Duration,
) -> Result<()> {
    let (open_gate, gate) = async_channel::bounded(1);
    let cycle = Rc::new(Cycle {
        gate,
        hold: Cell::new(None),
        sent: Cell::new(0),
        echoes: Cell::new(0),
    });
    let mut tasks = Vec::with_capacity(connections as usize);
    for number in 0..connections {
        // One by one, so that none is in flight afterwards.
        let stream = listener.accept().await?;
        tasks.push(spawn(talk(stream, number, cycle.clone())));
    }
    // The last reads go out with it.
    nop().await?;
    checkpoint("open").await?;

    cycle.hold.set(Some(Hold {
        rounds,
        until: now() + time,
    }));
    drop(open_gate);
    let mut streams = Vec::with_capacity(tasks.len());
    for task in tasks {
        streams.push(task.await.map_err(|_| Status::Cancelled)??);
    }
    checkpoint(&format!("held {} {}", cycle.sent.get(), cycle.echoes.get())).await?;

    drop(streams);
    // The last closings are done before it is.
    nop().await?;
    checkpoint("closed").await
}

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut args = env::args();
    let address = args.next().unwrap_or("127.0.0.1:0");
    let mut number = || args.next().and_then(|arg| arg.parse().ok()).unwrap_or(0);
    let (connections, cycles, rounds, millis) = (number(), number(), number(), number());

    let listener = TcpListener::bind_with_backlog(address, 4096).await?;
    checkpoint(&format!("listening {}", listener.local_addr().await?)).await?;
    for _ in 0..cycles {
        let time = Duration::from_millis(millis.into());
        cycle(&listener, connections, rounds, time).await?;
    }
    Ok(())
}
