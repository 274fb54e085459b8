//! Ten thousand connections to one guest. `cargo xtask run c10k` runs it.
//!
//! Usage: `c10k GUEST [out|irq|poll|auto] [CONNECTIONS] [SECONDS]`
//!
//! The guest listens, sends on each connection now and then, and measures how long the echo
//! takes. The peers that echo are a second process (this program again), because an open socket is
//! a descriptor on each side, and a process may often have no more than 20,000 or so.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use wakebox::{Output, Policy, Sandbox, WakeMode};

/// Connections that are being made at once: fewer than may wait to be accepted.
const AT_ONCE: usize = 256;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match &args[..] {
        [] => Err("usage: c10k GUEST [MODE] [CONNECTIONS] [SECONDS]".into()),
        [peer, address, count] if peer == "--peers" => {
            peers(address.parse()?, count.parse()?).await
        }
        [guest, rest @ ..] => serve(guest, rest).await,
    }
}

/// Allows this process as many descriptors as it may allow itself, and sees to it that they are
/// enough.
fn raise_limit(wanted: u64) -> Result<(), Box<dyn Error>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    match maximum {
        Some(most) if most < wanted => Err(format!(
            "this needs {wanted} open files, and the limit is {most} (ulimit -Hn)"
        )
        .into()),
        _ => Ok(()),
    }
}

async fn serve(guest: &str, args: &[String]) -> Result<(), Box<dyn Error>> {
    let mode: WakeMode = args.first().map_or("auto", String::as_str).parse()?;
    let connections: usize = args.get(1).map_or(Ok(10_000), |arg| arg.parse())?;
    let seconds: u64 = args.get(2).map_or(Ok(10), |arg| arg.parse())?;
    raise_limit(connections as u64 + 100)?;

    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut sandbox = Sandbox::builder()
        .guest(guest)
        .args([
            address.to_string(),
            connections.to_string(),
            seconds.to_string(),
        ])
        .memory(128 << 20)
        .wake(mode)
        // For each connection a read that waits, and now and then a write.
        .in_flight(u32::try_from(2 * connections + 100)?)
        .handles(u32::try_from(connections + 100)?)
        .policy(Policy::new().allow_listen(address.to_string().parse()?))
        .stdout(Output::Inherit)
        .stderr(Output::Inherit)
        .build()?;
    let mut peers = Command::new(std::env::current_exe()?)
        .args(["--peers", &address.to_string(), &connections.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let (outcome, status) = {
        let mut run = pin!(sandbox.run());
        tokio::select! {
            outcome = &mut run => (outcome?, peers.wait().await?),
            // They end when the guest has closed their connections, perhaps before it has ended itself.
            status = peers.wait() => match status? {
                status if status.success() => (run.await?, status),
                status => return Err(format!("the peers ended: {status}").into()),
            },
        }
    };
    eprintln!("{outcome}\n{}", sandbox.stats());
    if outcome.is_success() && status.success() {
        Ok(())
    } else {
        Err("something was lost".into())
    }
}

/// Opens the connections and sends back what comes, until the guest closes them.
async fn peers(address: SocketAddr, count: usize) -> Result<(), Box<dyn Error>> {
    raise_limit(count as u64 + 100)?;
    let mut streams = Vec::with_capacity(count);
    // Until the guest listens.
    while streams.is_empty() {
        match TcpStream::connect(address).await {
            Ok(stream) => streams.push(stream),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    let mut opening = JoinSet::new();
    while streams.len() < count {
        while opening.len() < AT_ONCE && streams.len() + opening.len() < count {
            opening.spawn(TcpStream::connect(address));
        }
        if let Some(stream) = opening.join_next().await {
            streams.push(stream??);
        }
    }
    let mut echoes: JoinSet<_> = streams.into_iter().map(echo).collect();
    while let Some(ended) = echoes.join_next().await {
        ended??;
    }
    Ok(())
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            count => stream.write_all(&bytes[..count]).await?,
        }
    }
}
