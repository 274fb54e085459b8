//! Clients of servers that other people wrote, over TCP (`tcp`) or Unix sockets (`unix`).
//!
//! - `download KIND ADDRESS NAME...`: gets files by HTTP, all at once, and writes each to `/out`.
//! - `redis KIND ADDRESS`: stores and fetches values, sends 5,000 commands at once, lets tasks wait
//!   for a list that others fill, and has others listen to messages.
//!
//! A line of output for each thing: what it was and `ok ...`, or the error's status.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use embedded_io_async::Read;
use futures::future::join_all;
use futures_lite::future::try_zip;
use reqwless::client::HttpConnection;
use reqwless::request::{Request, RequestBuilder};
use wakebox_guest::fs::File;
use wakebox_guest::io::{Result, Status};
use wakebox_guest::net::{Stream, TcpStream, UnixStream};
use wakebox_guest::{env, println, spawn};

type Line = Result<String>;

/// Gets a file by HTTP and writes it to `/out`.
async fn download<K>(stream: Stream<K>, name: &str) -> Line {
    let broken = |error| match error {
        reqwless::Error::Network(_) => Status::ConnectionReset,
        _ => Status::InvalidData,
    };
    let path = format!("/{name}");
    let request = Request::get(&path).host("nginx").build();
    let mut buffer = vec![0; 4096];
    let mut connection = HttpConnection::Plain(stream);
    let sent = connection.send(request, &mut buffer).await;
    let response = sent.map_err(broken)?;
    let status = response.status.0;
    let mut body = response.body().reader();
    let mut file = File::create(format!("/out/{name}")).await?;
    let mut part = vec![0; 16 << 10];
    loop {
        match body.read(&mut part).await.map_err(broken)? {
            0 => return Ok(format!("{status}")),
            count => file.write_all(&part[..count]).await?,
        }
    }
}

/// What Redis answers (RESP2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>).
#[derive(Debug, PartialEq)]
enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Number(i64),
    Bulk(Vec<u8>),
    Nothing,
    List(Vec<Reply>),
}

impl Reply {
    /// The reply that bytes begin with and its length, if all of it is there.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        let (line, mut at) = (&bytes[1..end], end + 2);
        let number = || -> Result<i64> {
            let text = core::str::from_utf8(line).map_err(|_| Status::InvalidData)?;
            Ok(text.parse().map_err(|_| Status::InvalidData)?)
        };
        let reply = match bytes[0] {
            b'+' => Self::Simple(line.to_vec()),
            b'-' => Self::Error(line.to_vec()),
            b':' => Self::Number(number()?),
            b'$' => match usize::try_from(number()?) {
                Err(_) => Self::Nothing,
                Ok(len) if bytes.len() < at + len + 2 => return Ok(None),
                Ok(len) => {
                    let bulk = bytes[at..at + len].to_vec();
                    at += len + 2;
                    Self::Bulk(bulk)
                }
            },
            b'*' => match number()? {
                ..0 => Self::Nothing,
                count => {
                    let mut list = Vec::new();
                    for _ in 0..count {
                        let Some((item, len)) = Self::parse(&bytes[at..])? else {
                            return Ok(None);
                        };
                        list.push(item);
                        at += len;
                    }
                    Self::List(list)
                }
            },
            _ => return Err(Status::InvalidData.into()),
        };
        Ok(Some((reply, at)))
    }
}

/// A command as Redis wants it.
fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A connection to Redis.
struct Redis<K> {
    stream: Stream<K>,
    /// What was read and is not a whole reply.
    bytes: Vec<u8>,
}

impl<K> Redis<K> {
    fn new(stream: Stream<K>) -> Self {
        let bytes = Vec::new();
        Self { stream, bytes }
    }

    async fn send(&self, words: &[&[u8]]) -> Result<()> {
        self.stream.write_all(&encode(words)).await
    }

    async fn reply(&mut self) -> Result<Reply> {
        next_reply(&self.stream, &mut self.bytes).await
    }

    /// A command and its reply.
    async fn ask(&mut self, words: &[&[u8]]) -> Result<Reply> {
        self.send(words).await?;
        self.reply().await
    }
}

async fn next_reply<K>(stream: &Stream<K>, bytes: &mut Vec<u8>) -> Result<Reply> {
    let mut part = vec![0; 16 << 10];
    loop {
        if let Some((reply, len)) = Reply::parse(bytes)? {
            bytes.drain(..len);
            return Ok(reply);
        }
        match stream.read(&mut part).await? {
            0 => return Err(Status::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&part[..count]),
        }
    }
}

/// The value of a key: all bytes there are, ends of lines among them.
fn value(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * at / 7) as u8).collect()
}

/// Stores values and fetches them again.
async fn values<K>(mut redis: Redis<K>) -> Line {
    let mut same = 0;
    for len in [0, 1, 2, 1_000, 16_384, 1_000_000] {
        let (key, value) = (format!("value {len}"), value(len));
        let set = redis.ask(&[b"SET", key.as_bytes(), &value]).await?;
        let get = redis.ask(&[b"GET", key.as_bytes()]).await?;
        same += u32::from(set == Reply::Simple(b"OK".into()) && get == Reply::Bulk(value));
    }
    let nothing = redis.ask(&[b"GET", b"no such key"]).await? == Reply::Nothing;
    let refused = redis.ask(&[b"INCR", b"value 1000"]).await?;
    let refused = matches!(refused, Reply::Error(_));
    Ok(format!("{same} {nothing} {refused}"))
}

/// Sends many commands at once, and reads the replies meanwhile.
async fn pipeline<K>(mut redis: Redis<K>, count: i64) -> Line {
    let commands: Vec<u8> = (0..count)
        .flat_map(|_| encode(&[b"INCR", b"counter"]))
        .collect();
    let stream = &redis.stream;
    let bytes = &mut redis.bytes;
    let read = async {
        let mut right = 0;
        for number in 1..=count {
            right += i64::from(next_reply(stream, bytes).await? == Reply::Number(number));
        }
        Result::Ok(right)
    };
    let ((), right) = try_zip(stream.write_all(&commands), read).await?;
    Ok(format!("{right}"))
}

/// Waits for items of a list, each of which comes only when the one before has been taken.
async fn queue<K>(mut consumer: Redis<K>, mut producer: Redis<K>, count: u32) -> Line {
    let consume = async {
        for number in 0..count {
            let popped = consumer.ask(&[b"BLPOP", b"to", b"0"]).await?;
            let expected = Reply::List(vec![
                Reply::Bulk(b"to".into()),
                Reply::Bulk(number.to_le_bytes().into()),
            ]);
            if popped != expected {
                return Err(Status::InvalidData.into());
            }
            consumer
                .ask(&[b"RPUSH", b"back", &number.to_be_bytes()])
                .await?;
        }
        Result::Ok(())
    };
    let produce = async {
        for number in 0..count {
            producer
                .ask(&[b"RPUSH", b"to", &number.to_le_bytes()])
                .await?;
            let popped = producer.ask(&[b"BLPOP", b"back", b"0"]).await?;
            let expected = Reply::List(vec![
                Reply::Bulk(b"back".into()),
                Reply::Bulk(number.to_be_bytes().into()),
            ]);
            if popped != expected {
                return Err(Status::InvalidData.into());
            }
        }
        Result::Ok(())
    };
    try_zip(consume, produce).await?;
    Ok(format!("{count}"))
}

/// Listens to messages: each listener hears all, in order.
async fn messages<K: 'static>(
    mut listeners: Vec<Redis<K>>,
    mut speaker: Redis<K>,
    count: u32,
) -> Line {
    for listener in &mut listeners {
        listener.ask(&[b"SUBSCRIBE", b"news"]).await?;
    }
    let heard: Vec<_> = listeners
        .into_iter()
        .map(|mut listener| {
            spawn(async move {
                for number in 0..count {
                    let expected = Reply::List(vec![
                        Reply::Bulk(b"message".into()),
                        Reply::Bulk(b"news".into()),
                        Reply::Bulk(value(number as usize)),
                    ]);
                    if listener.reply().await? != expected {
                        return Err(Status::InvalidData.into());
                    }
                }
                Result::Ok(count)
            })
        })
        .collect();
    let mut receivers = Reply::Nothing;
    for number in 0..count {
        receivers = speaker
            .ask(&[b"PUBLISH", b"news", &value(number as usize)])
            .await?;
    }
    let mut all = 0;
    for listener in heard {
        all += listener.await.map_err(|_| Status::Cancelled)??;
    }
    Ok(format!("{all} {receivers:?}"))
}

fn say(what: &str, line: Line) {
    match line {
        Ok(text) => println!("{what} ok {text}"),
        Err(error) => println!("{what} {:?}", error.status()),
    }
}

async fn run<K: 'static>(job: &str, connect: impl AsyncFn() -> Result<Stream<K>>) -> Result<()> {
    if job == "download" {
        let get = async |name| download(connect().await?, name).await;
        let names: Vec<_> = env::args().skip(3).collect();
        let gets = names.iter().map(|name| get(*name));
        for (name, line) in names.iter().zip(join_all(gets).await) {
            say(name, line);
        }
        return Ok(());
    }
    let redis = async || Result::Ok(Redis::new(connect().await?));
    say("values", values(redis().await?).await);
    say("pipeline", pipeline(redis().await?, 5_000).await);
    say("queue", queue(redis().await?, redis().await?, 200).await);
    let listeners = vec![redis().await?, redis().await?, redis().await?];
    say("messages", messages(listeners, redis().await?, 300).await);
    let mut last = redis().await?;
    let greeting = last.ask(&[b"GET", b"greeting"]).await?;
    say(
        "greeting",
        Ok(format!(
            "{}",
            greeting == Reply::Bulk(b"from outside".into())
        )),
    );
    Ok(())
}

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    let mut word = || args.next().unwrap_or_default();
    let (job, kind, address) = (word(), word(), word());
    let ended = match kind {
        "unix" => run(job, async || UnixStream::connect(address).await).await,
        _ => run(job, async || TcpStream::connect(address).await).await,
    };
    if let Err(error) = ended {
        println!("{:?}", error.status());
    }
}
