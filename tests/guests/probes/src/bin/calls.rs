//! Calls in both directions.
//!
//! `serve` answers calls of the host until there are no more; `call` calls the host; `large` has it
//! send more than fits into the arena, and tries the same; `busy` is `call` beside a task that never
//! rests; `mismatch` calls it with other types; `untyped` calls functions of JSON and of bytes; `hold` has two calls under way for ever.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use futures::future::Either;
use futures::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use wakebox_guest::time::{Duration, sleep, timeout};
use wakebox_guest::{env, host, println, spawn};

wakebox_guest::host_fns! {
    async fn add(a: u64, b: u64) -> u64 = "add";
    async fn divide(a: u64, b: u64) -> Result<u64, String> = "divide";
    async fn large(len: u64) -> Vec<u8> = "large";
    async fn echo(bytes: &[u8]) -> Vec<u8> = "echo";
    async fn never() -> () = "never";
    async fn begun() -> () = "begun";
    async fn panics() -> () = "panics";
    async fn absent() -> () = "absent";
    async fn one_of_two(only: u8) -> u64 = "add";
    async fn page(number: &str) -> String = "page";
    async fn title(number: u32) -> Option<Page> = "page";
}

/// What is not an option on the host.
#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "is only shown")]
struct Page {
    title: String,
}

/// An article by its number.
#[wakebox_guest::export]
async fn article(number: u32) -> Option<String> {
    Some(alloc::format!("article {number}"))
}

#[wakebox_guest::export]
async fn sum(a: u64, b: u64) -> u64 {
    a + b
}

#[wakebox_guest::export]
async fn greet(name: String) -> Result<String, String> {
    if name.is_empty() {
        return Err("nobody to greet".into());
    }
    Ok(alloc::format!("hello {name}"))
}

#[wakebox_guest::export]
async fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.reverse();
    bytes
}

/// Calls the host back while the host waits.
#[wakebox_guest::export]
async fn add_on_the_host(a: u64, b: u64) -> Option<u64> {
    add(a, b).await.ok()
}

/// Never ends by itself; says when it is dropped.
#[wakebox_guest::export]
async fn sleep_for_ever() {
    let _said = Said;
    println!("asleep");
    core::future::pending::<()>().await;
}

/// Ends the guest.
#[wakebox_guest::export]
async fn panics_here() {
    panic!("a panic that a test asked for");
}

#[wakebox_guest::export(name = "renamed.in.the.attribute")]
async fn renamed(value: u32) -> u32 {
    value
}

#[wakebox_guest::export]
#[allow(clippy::too_many_arguments, reason = "which is what is tried")]
async fn many(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32) -> u32 {
    a + b + c + d + e + f + g
}

#[wakebox_guest::export]
async fn slow(milliseconds: u64) -> u64 {
    sleep(Duration::from_millis(milliseconds)).await;
    milliseconds
}

#[wakebox_guest::export(stream)]
async fn countdown(from: u64) -> impl Stream<Item = u64> {
    stream::iter((1..=from).rev())
}

/// Items of these lengths.
#[wakebox_guest::export(name = "of.lengths", stream)]
async fn of_lengths(lengths: Vec<u32>) -> impl Stream<Item = Vec<u8>> {
    stream::iter(lengths.into_iter().map(|len| vec![7; len as usize]))
}

/// How many items the stream below has made.
static MADE: AtomicU64 = AtomicU64::new(0);

/// Has no end; says when it is dropped.
#[wakebox_guest::export(stream)]
async fn endless() -> impl Stream<Item = u64> {
    let said = Said;
    stream::iter(0..).inspect(move |_| {
        let _ = &said;
        MADE.fetch_add(1, Ordering::Relaxed);
    })
}

#[wakebox_guest::export]
async fn made() -> u64 {
    MADE.load(Ordering::Relaxed)
}

/// Says when it is dropped.
struct Said;

impl Drop for Said {
    fn drop(&mut self) {
        println!("dropped");
    }
}

#[wakebox_guest::main]
async fn main() {
    match env::args().next() {
        Some("serve") => wakebox_guest::serve().await,
        Some("call") => call().await,
        Some("busy") => {
            let busy = spawn(async {
                loop {
                    let _ = wakebox_guest::ops::nop().await;
                }
            });
            call().await;
            busy.abort();
        }
        // Drops a call.
        Some("drop") => {
            // The one ends when the other has begun, and so drops it.
            let never = core::pin::pin!(never());
            let begun = core::pin::pin!(begun());
            let first = futures::future::select(never, begun).await;
            println!("begun {}", matches!(first, Either::Right((Ok(()), _))));
        }
        Some("hold") => {
            let calls = [spawn(never()), spawn(never())];
            for call in calls {
                let _ = call.await;
            }
            core::future::pending::<()>().await;
        }
        Some("mismatch") => mismatch().await,
        Some("untyped") => untyped().await,
        Some("large") => {
            let bytes = large(5_000_000).await.expect("the bytes");
            let same = bytes
                .iter()
                .enumerate()
                .all(|(at, byte)| (at % 251) as u8 == *byte);
            println!("large {} {same}", bytes.len());
            println!("echo {:?}", echo(&bytes).await.map(|back| back.len()));
        }
        other => panic!("serve, call, mismatch, untyped, large, busy or hold, not {other:?}"),
    }
    println!("end");
}

/// Calls with types that are not the host's, whose bytes would fit.
async fn mismatch() {
    println!("{:?}", page("7").await);
    println!("{:?}", title(7).await);
    let opened = host::stream::<_, String>("numbers", "\x01").await;
    println!("{:?}", opened.map(drop));
    let mut items = host::stream::<_, Option<bool>>("numbers", &2_u32)
        .await
        .expect("a stream");
    println!("{:?}", items.next().await);
    println!("after the end {:?}", items.next().await.is_none());
}

/// Calls functions that do not know their types.
async fn untyped() {
    println!("add {:?}", add(2, 3).await);
    println!("divide {:?}", divide(7, 2).await);
    println!("divide by zero {:?}", divide(7, 0).await);
    println!("page {:?}", page("\n7\\n").await);
    println!("title {:?}", title(7).await);
    println!("no answer {:?}", never().await);
    println!("other {:?}", one_of_two(1).await);
    let bytes: Vec<u8> = (0..3000).map(|at: u32| (at % 251) as u8).collect();
    println!("large {:?}", echo(&bytes).await.map(|back| back == bytes));
    let calls: Vec<_> = (0..500).map(|n| spawn(add(n, 1))).collect();
    let mut sum = 0;
    for call in calls {
        sum += call.await.expect("not aborted").expect("added");
    }
    println!("five hundred {sum}");

    println!("bytes {:?}", host::call_bytes("reverse", b"abc").await);
    let back = host::call_bytes("reverse", &bytes).await;
    println!(
        "many bytes {:?}",
        back.map(|back| back.iter().rev().eq(&bytes))
    );
    println!("no bytes {:?}", host::call_bytes("add", b"[1,2]").await);
    println!("typed {:?}", host::call::<_, u64>("reverse", &7_u64).await);
    println!("absent {:?}", host::call_bytes("absent", b"").await);
    let opened = host::stream::<_, u64>("add", &(1_u64, 2_u64)).await;
    println!("stream {:?}", opened.map(drop));
}

async fn call() {
    println!("add {:?}", add(2, 3).await);
    println!("divide {:?}", divide(7, 2).await);
    println!("divide by zero {:?}", divide(7, 0).await);
    for len in [0, 1, 1000, 1024, 5000, 300_000] {
        let bytes: Vec<u8> = (0..len).map(|at: u32| (at % 251) as u8).collect();
        let back = echo(&bytes).await;
        println!("echo {len} {}", back.is_ok_and(|back| back == bytes));
    }
    let too_long = alloc::vec![7; 32 << 20];
    println!(
        "too long {:?}",
        echo(&too_long).await.map(|back| back.len())
    );
    println!("absent {:?}", absent().await);
    println!("wrong type {:?}", one_of_two(1).await);
    println!("panics {:?}", panics().await);
    println!(
        "given up {:?}",
        timeout(Duration::from_millis(1), never()).await.is_err()
    );

    let calls: Vec<_> = (0..500).map(|n| spawn(add(n, 1))).collect();
    let mut sum = 0;
    for call in calls {
        sum += call.await.expect("not aborted").expect("added");
    }
    println!("five hundred {sum}");

    let mut items = host::stream::<_, String>("count", &3_u32)
        .await
        .expect("a stream");
    while let Some(item) = items.next().await {
        println!("item {item:?}");
    }
    println!("after the end {:?}", items.next().await.is_none());
    let mut long = host::stream::<_, Vec<u8>>("long", &())
        .await
        .expect("a stream");
    while let Some(item) = long.next().await {
        println!("long item {:?}", item.map(|item| item.len()));
    }
    let endless = host::stream::<_, u64>("endless", &())
        .await
        .expect("a stream");
    drop(endless);
}
