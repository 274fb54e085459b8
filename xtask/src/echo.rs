//! `cargo xtask run echo -- --selftest`: drives the echo server from the host side.
//!
//! Every connection is open before the first byte is sent, so the guest really serves
//! them all at once, and the bytes of each are its own, so an answer that went to the
//! wrong connection is seen.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

const CONNECTIONS: u64 = 300;
const ROUNDS: u64 = 20;
/// Below what a socket's buffers take, so that writing all of it before reading cannot
/// block both sides.
const MAX_MESSAGE: usize = 16 * 1024;
/// A server that stands still is an error, not a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the server that `command` runs, on a free port, and checks every byte that
/// it echoes.
///
/// # Errors
///
/// If the server does not start, or does not echo.
pub(crate) fn selftest(mut command: Command) -> Result<ExitCode> {
    let address = free_address()?;
    command
        .args(["--allow-listen", &address.to_string()])
        .args(["--", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut server = Server(command.spawn().context("cannot start the echo server")?);
    server.wait_until_it_speaks()?;

    let start = Instant::now();
    let bytes = drive(address)?;
    println!(
        "{CONNECTIONS} connections at once, {bytes} bytes echoed, every one of them right ({:.2} s)",
        start.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}

/// A port that was free a moment ago.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    Ok(listener.local_addr()?)
}

/// The running sandbox; ends with this value.
struct Server(Child);

impl Server {
    /// Waits for its first line, which says that it listens.
    fn wait_until_it_speaks(&mut self) -> Result<()> {
        let stdout = self.0.stdout.take().context("the output is piped")?;
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            let status = self.0.wait()?;
            bail!("the echo server ended before it listened ({status})");
        }
        print!("{line}");
        // Whatever else it says must not fill the pipe.
        thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It serves for ever; an error means that it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Opens all connections, then lets all of them talk; the number of bytes echoed.
fn drive(address: SocketAddr) -> Result<usize> {
    let streams = (0..CONNECTIONS)
        .map(|number| {
            TcpStream::connect_timeout(&address, PATIENCE)
                .with_context(|| format!("connection {number} of {CONNECTIONS}"))
        })
        .collect::<Result<Vec<_>>>()?;
    let clients: Vec<_> = streams
        .into_iter()
        .zip(0..)
        .map(|(stream, number)| {
            thread::spawn(move || {
                converse(stream, number).with_context(|| format!("connection {number}"))
            })
        })
        .collect();
    let mut bytes = 0;
    for client in clients {
        match client.join() {
            Ok(sent) => bytes += sent?,
            Err(_) => bail!("a client panicked"),
        }
    }
    Ok(bytes)
}

/// Sends messages of all lengths and compares what comes back, then says goodbye and
/// expects the same.
fn converse(mut stream: TcpStream, number: u64) -> Result<usize> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let mut random = Random::new(number);
    let mut total = 0;
    for round in 0..ROUNDS {
        let len = 1 + random.next() as usize % MAX_MESSAGE;
        let sent: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        stream.write_all(&sent).context("sending")?;
        let mut received = vec![0; len];
        stream.read_exact(&mut received).context("receiving")?;
        if let Some(at) = (0..len).find(|at| sent[*at] != received[*at]) {
            bail!(
                "message {round}, byte {at} of {len}: sent {}, received {}",
                sent[at],
                received[at]
            );
        }
        total += len;
    }
    stream.shutdown(Shutdown::Write)?;
    let rest = stream.read_to_end(&mut Vec::new())?;
    ensure!(rest == 0, "{rest} bytes that nobody sent");
    Ok(total)
}

/// Marsaglia's xorshift: different for each connection, the same in each run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 8
    }
}
