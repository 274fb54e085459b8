//! A guest that computes, and answers meanwhile. `cargo xtask run preempt` runs it.
//!
//! Usage: `preempt GUEST [out|irq|poll|auto] [MILLISECONDS]`
//!
//! The guest computes for two seconds in one poll. An urgent task of it has a TCP client, which is this
//! program: it asks again and again, and notes how long each answer takes.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use wakebox::{Output, Policy, Sandbox, WakeMode};

/// From one question to the next.
const PAUSE: Duration = Duration::from_millis(5);

// A thread sees to sockets and timers while another one is in the guest, and pulls that out.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [guest, rest @ ..] = &args[..] else {
        return Err("usage: preempt GUEST [MODE] [MILLISECONDS]".into());
    };
    let mode: WakeMode = rest.first().map_or("irq", String::as_str).parse()?;
    let ms: u64 = rest.get(1).map_or(Ok(2_000), |arg| arg.parse())?;

    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut sandbox = Sandbox::builder()
        .guest(guest.as_str())
        .args([address.to_string(), ms.to_string()])
        .wake(mode)
        .policy(Policy::new().allow_listen(address.to_string().parse()?))
        .stdout(Output::Inherit)
        .stderr(Output::Inherit)
        .build()?;
    let client = thread::spawn(move || ask(address));
    let outcome = sandbox.run().await?;
    let mut times = client.join().map_err(|_| "the client panicked")?;
    if !outcome.is_success() {
        return Err(outcome.to_string().into());
    }
    times.sort_unstable();
    let at = |percent: usize| {
        let time = times.get(times.len().saturating_sub(1) * percent / 100);
        time.map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    println!(
        "the client got {} answers in mode {mode}: half of them within {:.0} us, all but one in a hundred \
         within {:.0} us, all within {:.0} us",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
    Ok(())
}

/// Asks until nobody answers any more. Returns how long each answer took.
fn ask(address: SocketAddr) -> Vec<Duration> {
    let mut times = Vec::new();
    // Until the guest listens.
    let mut server = loop {
        match TcpStream::connect(address) {
            Ok(server) => break server,
            Err(_) => thread::sleep(PAUSE),
        }
    };
    let mut exchange = || -> io::Result<Duration> {
        let asked = Instant::now();
        server.write_all(b"?")?;
        server.read_exact(&mut [0])?;
        Ok(asked.elapsed())
    };
    while let Ok(time) = exchange() {
        times.push(time);
        thread::sleep(PAUSE);
    }
    times
}
