//! A gibibyte over one connection, each way: a guest beside native Tokio, with the same peer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wakebox::{Policy, Sandbox, WakeMode};
use wakebox_tests::guest;

use crate::net::of_others;
use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 3;
/// Bytes of a transfer.
const COUNT: usize = 1 << 30;
/// Bytes that either asks for at once, as in the guest program `bulk` if it is told nothing else.
const PIECE: usize = 256 << 10;
/// The same of one who sends much.
const LARGE: usize = 2 << 20;

/// Seen from the one that is measured.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Send,
    Receive,
}

/// Who moves the bytes.
#[derive(Clone, Copy)]
enum Who {
    Native,
    Guest(WakeMode),
}

const ALL: [Who; 3] = [
    Who::Native,
    Who::Guest(WakeMode::Auto),
    Who::Guest(WakeMode::Out),
];

/// Bytes a second, and what of processors a transfer takes.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (way, piece, name) in [
        (Way::Receive, PIECE, "received"),
        (Way::Send, PIECE, "sent"),
        (Way::Send, LARGE, "sent, 2 MiB at once,"),
    ] {
        let mut seen: [(Vec<f64>, Vec<f64>); ALL.len()] = Default::default();
        for _ in 0..ROUNDS {
            for (who, (rates, costs)) in ALL.into_iter().zip(&mut seen) {
                let (took, cost) = transfer(way, piece, who)?;
                rates.push(COUNT as f64 / took.as_secs_f64());
                costs.push(cost.as_nanos() as f64);
            }
        }
        let [native, guests @ ..] = seen.map(|(rates, costs)| (median(rates), median(costs)));
        for (who, (rate, cost)) in ALL[1..].iter().zip(guests) {
            let Who::Guest(mode) = who else { continue };
            rows.push(
                Row::new(
                    format!("1 GiB {name} over TCP, mode {mode}"),
                    Unit::BytesPerSecond,
                    rate,
                )
                .floor(native.0)
                .bar(Bar::RatioAtLeast(0.97)),
            );
            let cost = Row::new("    of processors, in all", Unit::Nanoseconds, cost);
            rows.push(cost.floor(native.1).bar(Bar::Ratio(1.03)));
        }
    }
    Ok(rows)
}

/// How long a transfer takes, and the processor time of all threads but the peer's, which is this one.
fn transfer(way: Way, piece: usize, who: Who) -> Result<(Duration, Duration)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mover = thread::spawn(move || match who {
        Who::Native => wakebox_tests::runtime().block_on(native(way, piece, address)),
        Who::Guest(mode) => in_guest(way, piece, mode, address),
    });
    let (mut stream, _) = listener.accept()?;
    let (start, before) = (Instant::now(), of_others());
    let mut piece = vec![7; PIECE];
    let mut moved = 0;
    match way {
        Way::Send => loop {
            match stream.read(&mut piece)? {
                0 => break,
                count => moved += count,
            }
        },
        Way::Receive => {
            while moved < COUNT {
                stream.write_all(&piece)?;
                moved += piece.len();
            }
            stream.shutdown(std::net::Shutdown::Write)?;
            // The end of the other side.
            ensure!(stream.read(&mut piece)? == 0, "nobody sends");
        }
    }
    let seen = (start.elapsed(), of_others().saturating_sub(before));
    ensure!(moved == COUNT, "{moved} bytes of {COUNT}");
    mover.join().map_err(|_| anyhow!("the mover panicked"))??;
    Ok(seen)
}

async fn native(way: Way, piece: usize, address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut piece = vec![7; piece];
    match way {
        Way::Receive => while stream.read(&mut piece).await? > 0 {},
        Way::Send => {
            for _ in 0..COUNT / piece.len() {
                stream.write_all(&piece).await?;
            }
        }
    }
    Ok(())
}

fn in_guest(way: Way, piece: usize, mode: WakeMode, address: SocketAddr) -> Result<()> {
    let args = match way {
        Way::Send => vec![
            "send".to_owned(),
            COUNT.to_string(),
            address.to_string(),
            piece.to_string(),
        ],
        Way::Receive => vec!["receive".to_owned(), address.to_string()],
    };
    let outcome = Sandbox::builder()
        .guest(guest("bulk"))
        .wake(mode)
        .args(args)
        .policy(Policy::new().allow_connect(address.to_string().parse()?))
        .build()?
        .run_blocking()?;
    ensure!(outcome.is_success(), "the guest that moves: {outcome}");
    Ok(())
}
