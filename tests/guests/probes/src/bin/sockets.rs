//! UDP, Unix sockets, names and settings, a command an argument, a line of output a command: `ok
//! ...` or the error's status.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::pin::pin;

use wakebox_guest::io::{IoBuf, Result, Status};
use wakebox_guest::net::{Stream, TcpListener, TcpStream, UdpSocket, UnixStream, lookup};
use wakebox_guest::ops::nop;
use wakebox_guest::time::Duration;
use wakebox_guest::{env, println, spawn};

type Line = Result<String>;

macro_rules! line {
    ($($arg:tt)*) => { Ok(alloc::format!($($arg)*)) };
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse().map_err(|_| Status::InvalidInput.into())
}

/// `udp-echo PEER COUNT`: sends datagrams of growing length and compares what comes back.
async fn udp_echo(peer: &str, count: usize) -> Line {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let peer = address(peer)?;
    let mut same = 0;
    let mut answer = vec![0; 65_536];
    for round in 0..count {
        let datagram: Vec<u8> = (0..round * 97).map(|index| (index * round) as u8).collect();
        socket.send_to(&datagram, peer).await?;
        let (len, from) = socket.recv_from(&mut answer).await?;
        same += usize::from(answer[..len] == datagram && from == peer);
    }
    line!("{same}")
}

/// `udp-connected PEER`: by `connect`, which takes names too.
async fn udp_connected(peer: &str) -> Line {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let lonely = socket.send(b"x").await.map_err(|error| error.status());
    socket.connect(peer).await?;
    socket.send(b"hello").await?;
    let mut answer = [0; 3];
    let cut = socket.recv(&mut answer).await?;
    let same = socket.peer_addr().await?.port() == peer_port(peer);
    line!(
        "{lonely:?} {cut} {:?} {same}",
        String::from_utf8_lossy(&answer)
    )
}

/// `udp-zone LOCAL PEER`: to an address with a zone and back.
async fn udp_zone(local: &str, peer: &str) -> Line {
    let socket = UdpSocket::bind(local).await?;
    let peer = address(peer)?;
    socket.send_to(b"x", peer).await?;
    let (_, from) = socket.recv_from(&mut [0; 8]).await?;
    line!("{}", from == peer)
}

fn peer_port(peer: &str) -> u16 {
    let port = peer.rsplit(':').next();
    port.and_then(|port| port.parse().ok()).unwrap_or(0)
}

/// `udp-refused PEER`: to somebody who is not there, told to who waits for an answer and to who asks
/// for it later; and the socket goes on.
async fn udp_refused(peer: &str) -> Line {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(peer).await?;
    let mut seen = Vec::new();
    let mut bytes = [0; 16];
    {
        let mut waits = pin!(socket.recv(&mut bytes));
        assert!(futures_lite::future::poll_once(&mut waits).await.is_none());
        // A turn, so that the host has it.
        nop().await?;
        socket.send(b"is there anybody?").await?;
        seen.push(waits.await.map_err(|error| error.status()));
    }
    socket.send(b"is there anybody?").await?;
    seen.push(
        socket
            .recv(&mut bytes)
            .await
            .map_err(|error| error.status()),
    );
    line!("{seen:?}")
}

/// `udp-shared PEER COUNT`: many tasks that receive on one socket, which have their turns in order.
async fn udp_shared(peer: &str, count: usize) -> Line {
    let socket = Rc::new(UdpSocket::bind("127.0.0.1:0").await?);
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let socket = socket.clone();
            spawn(async move {
                let mut bytes = [0; 4];
                socket.recv(&mut bytes).await.map(|_| bytes[0])
            })
        })
        .collect();
    // One of them gives up in the middle of the line.
    let given_up = spawn({
        let socket = socket.clone();
        async move { socket.recv(&mut [0]).await }
    });
    nop().await?;
    given_up.abort();
    let mut seen = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        socket.send_to(&[number as u8], address(peer)?).await?;
        seen.push(task.await.map_err(|_| Status::Cancelled)??);
    }
    line!("{seen:?}")
}

/// `accept-shared TASKS COUNT`: many tasks that accept from one listener, until so many connections
/// to itself are accepted.
async fn accept_shared(tasks: usize, count: usize) -> Line {
    let listener = Rc::new(TcpListener::bind("127.0.0.1:0").await?);
    let to = listener.local_addr().await?;
    let (accepted, all) = async_channel::unbounded();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (listener, accepted) = (listener.clone(), accepted.clone());
            spawn(async move {
                loop {
                    let stream = listener.accept().await;
                    if accepted.send(stream.is_ok()).await.is_err() {
                        return;
                    }
                }
            })
        })
        .collect();
    let mut well = 0;
    for _ in 0..count {
        let _client = TcpStream::connect(to).await?;
        well += usize::from(all.recv().await.unwrap_or(false));
    }
    for task in tasks {
        task.abort();
    }
    line!("{well}")
}

/// `udp-many PEER`: sends datagrams together, and receives what there is, the first by itself.
async fn udp_many(peer: &str) -> Line {
    let peer = address(peer)?;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    {
        // What comes then is for whoever receives next, in whatever way.
        let mut waits = pin!(socket.recv_many(8));
        assert!(futures_lite::future::poll_once(&mut waits).await.is_none());
    }
    let sent = socket.send_many(b"aaabbbcccd", 3, Some(peer)).await?;
    let mut first = [0; 8];
    let (count, from) = socket.recv_from(&mut first).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut answers = vec![(text(&first[..count]), from == peer)];
    while answers.len() < 4 {
        let mut given = socket.recv_many(8).await?;
        while let Some((bytes, from)) = given.take_next() {
            answers.push((text(bytes), from == peer));
        }
    }
    let none = socket.send_many(b"", 3, Some(peer)).await;
    line!(
        "{sent} {answers:?} {:?}",
        none.map_err(|error| error.status())
    )
}

/// `udp-given-up PEER`: a datagram that arrives when nobody waits is for the next who does.
async fn udp_given_up(peer: &str) -> Line {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let mut bytes = [0; 16];
    {
        let mut early = pin!(socket.recv(&mut bytes));
        assert!(futures_lite::future::poll_once(&mut early).await.is_none());
        // A turn, so that the host has it.
        nop().await?;
    }
    socket.send_to(b"kept", address(peer)?).await?;
    let (len, _) = socket.recv_from(&mut bytes).await?;
    line!("{:?}", String::from_utf8_lossy(&bytes[..len]))
}

/// `udp-large PEER`: more than a datagram can hold.
async fn udp_large(peer: &str) -> Line {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let peer = address(peer)?;
    let mut seen = Vec::new();
    for len in [65_507, 65_508, 100_000] {
        let sent = socket.send_to(&vec![1; len], peer).await;
        seen.push(sent.map_err(|error| error.status()));
    }
    line!("{seen:?}")
}

/// `udp-serve ADDRESS`: says where it listens, receives one datagram, says from where.
async fn udp_serve(on: &str) -> Line {
    let socket = UdpSocket::bind(on).await?;
    println!("bound {}", socket.local_addr().await?);
    let mut bytes = [0; 64];
    let (len, from) = socket.recv_from(&mut bytes).await?;
    line!("{:?} {from}", String::from_utf8_lossy(&bytes[..len]))
}

/// Sends and receives with both halves in tasks of their own, and puts them together again.
async fn exchange<K: 'static>(stream: Stream<K>) -> Line {
    let (mut read, mut write) = stream.into_split();
    let reader = spawn(async move {
        let (mut head, mut tail) = ([0; 3], [0; 200_000]);
        let mut seen = 0;
        let mut same = true;
        while seen < 200_000 {
            let count = read
                .read_vectored(&mut [&mut head, &mut [], &mut tail])
                .await?;
            if count == 0 {
                break;
            }
            same &= head
                .iter()
                .chain(&tail)
                .take(count)
                .enumerate()
                .all(|(index, byte)| *byte == (seen + index) as u8);
            seen += count;
        }
        Result::Ok((read, same, seen))
    });
    let bytes: Vec<u8> = (0..200_000).map(|index| index as u8).collect();
    let (first, rest) = bytes.split_at(1);
    let mut sent = write.write_vectored(&[first, &[], rest]).await?;
    let (outcome, buf) = write
        .write_buf(IoBuf::copy_of(&bytes[sent..sent + 100]).await?)
        .await;
    sent += outcome?;
    drop(buf);
    write.write_all(&bytes[sent..]).await?;
    let (read, same, seen) = reader.await.map_err(|_| Status::Cancelled)??;
    let stream = read.reunite(write).map_err(|_| Status::InvalidData)?;
    stream.write_all(b"!").await?;
    let mut last = [0; 1];
    stream.read_exact(&mut last).await?;
    line!("{same} {seen} {last:?}")
}

/// `options ADDRESS`: settings of a connection.
async fn options(to: &str) -> Line {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true).await?;
    stream.set_nodelay(false).await?;
    stream.set_keepalive(Some(Duration::from_millis(1))).await?;
    stream.set_keepalive(Some(Duration::MAX)).await?;
    stream.set_keepalive(None).await?;
    let local = stream.local_addr().await?;
    line!("{}", local.ip())
}

/// `accept-many COUNT`: connects to itself so often and accepts all.
async fn accept_many(count: usize) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let to = listener.local_addr().await?;
    {
        // Given up: its connections are for the next.
        let mut early = pin!(listener.accept_many(8));
        assert!(futures_lite::future::poll_once(&mut early).await.is_none());
        // A turn, so that the host has it.
        nop().await?;
    }
    let clients: Vec<_> = (0..count)
        .map(|index| {
            spawn(async move {
                let stream = TcpStream::connect(to).await?;
                stream.write_all(&[index as u8]).await?;
                Result::Ok(stream)
            })
        })
        .collect();
    let mut accepted = vec![listener.accept().await?];
    while accepted.len() < count {
        accepted.extend(listener.accept_many(100).await?);
    }
    let mut seen = Vec::new();
    for stream in &accepted {
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        seen.push(byte[0]);
    }
    for client in clients {
        client.await.map_err(|_| Status::Cancelled)??;
    }
    seen.sort_unstable();
    let all = seen
        .iter()
        .enumerate()
        .all(|(index, byte)| index as u8 == *byte);
    line!("{} {all}", seen.len())
}

/// `serve-in-turn COUNT`: says where it listens and serves connections, of which it has room for
/// one, until so many have said a byte.
async fn serve_in_turn(count: usize) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("bound {}", listener.local_addr().await?);
    let mut seen = Vec::new();
    while seen.len() < count {
        let stream = listener.accept().await?;
        {
            // There is no place for a second one, but it is not turned away.
            let mut next = pin!(listener.accept());
            assert!(futures_lite::future::poll_once(&mut next).await.is_none());
            let full = TcpListener::bind("127.0.0.1:0").await;
            assert_eq!(
                full.map_err(|error| error.status()).err(),
                Some(Status::LimitReached)
            );
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        seen.push(byte[0]);
    }
    seen.sort_unstable();
    line!("{seen:?}")
}

/// `lookup-connect NAME PORT`: in two steps, as many libraries do.
async fn lookup_connect(name: &str, port: u16) -> Line {
    let mut last = Status::NotFound;
    for ip in lookup(name).await? {
        match TcpStream::connect(SocketAddr::new(ip, port)).await {
            Ok(_) => return line!("connected"),
            Err(error) => last = error.status(),
        }
    }
    Err(last.into())
}

async fn command(line: &str) -> Line {
    let mut words = line.split(' ');
    let verb = words.next().unwrap_or_default();
    let mut word = || words.next().unwrap_or_default();
    let (a, b) = (word(), word());
    let number = b.parse().unwrap_or(0);
    match verb {
        "tcp" => TcpStream::connect(a).await.map(|_| String::new()),
        "listen" => TcpListener::bind(a).await.map(|_| String::new()),
        "options" => options(a).await,
        "accept-many" => accept_many(a.parse().unwrap_or(0)).await,
        "serve-in-turn" => serve_in_turn(a.parse().unwrap_or(0)).await,
        "tcp-exchange" => exchange(TcpStream::connect(a).await?).await,
        "unix" => UnixStream::connect(a).await.map(|_| String::new()),
        "unix-exchange" => exchange(UnixStream::connect(a).await?).await,
        "udp-zone" => udp_zone(a, b).await,
        "bind" => UdpSocket::bind(a).await.map(|_| String::new()),
        "send" => {
            let socket = UdpSocket::bind("0.0.0.0:0").await?;
            line!("{}", socket.send_to(b"x", address(a)?).await?)
        }
        "udp-echo" => udp_echo(a, number).await,
        "udp-connected" => udp_connected(a).await,
        "udp-shared" => udp_shared(a, number).await,
        "accept-shared" => accept_shared(a.parse().unwrap_or(0), number).await,
        "udp-refused" => udp_refused(a).await,
        "udp-many" => udp_many(a).await,
        "udp-given-up" => udp_given_up(a).await,
        "udp-large" => udp_large(a).await,
        "udp-serve" => udp_serve(a).await,
        "lookup" => line!("{:?}", lookup(a).await?),
        "lookup-connect" => lookup_connect(a, number as u16).await,
        other => line!("there is no `{other}`"),
    }
}

#[wakebox_guest::main]
async fn main() {
    for line in env::args() {
        match command(line).await {
            Ok(text) => println!("{}", alloc::format!("ok {text}").trim_end()),
            Err(error) => println!("{:?}", error.status()),
        }
    }
}
