//! A store that lies outside: `kv [TASKS] [KEYS]`, run by `host/examples/kv.rs`.
//!
//! What to watch: the guest has no file and no network, only the functions that the host gives
//! it. Hundreds of tasks call them at once, errors arrive with their own type, and a listing is a
//! stream that the host fills as it is read.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use wakebox_guest::io::Result;
use wakebox_guest::time::Instant;
use wakebox_guest::{env, host, println, spawn};

/// What can go wrong in the store. The host has the same type.
#[derive(Debug, Deserialize, PartialEq)]
enum StoreError {
    EmptyKey,
    ValueTooLong { most: usize },
    Storage(String),
}

wakebox_guest::host_fns! {
    /// Sets a key and gives the value that it had.
    async fn put(key: &str, value: &str) -> core::result::Result<Option<String>, StoreError> = "kv.put";
    async fn get(key: &str) -> core::result::Result<Option<String>, StoreError> = "kv.get";
    /// Makes everything that was set durable.
    async fn sync() -> core::result::Result<(), StoreError> = "kv.sync";
}

/// Sets keys, reads them back, and returns how many were right.
async fn work(task: usize, keys: usize) -> Result<usize> {
    let mut right = 0;
    for number in 0..keys {
        let (key, value) = (
            format!("task {task:04} key {number:03}"),
            format!("{}", task * number),
        );
        let old = put(&key, &value).await?;
        let found = get(&key).await?;
        right += usize::from(old == Ok(None) && found == Ok(Some(value)));
    }
    Ok(right)
}

#[wakebox_guest::main]
async fn main() -> Result<i32> {
    let mut args = env::args().map(|arg| arg.parse().ok());
    let tasks = args.next().flatten().unwrap_or(400);
    let keys = args.next().flatten().unwrap_or(25);

    let start = Instant::now();
    let handles: Vec<_> = (0..tasks).map(|task| spawn(work(task, keys))).collect();
    let mut right = 0;
    for handle in handles {
        right += handle.await.unwrap_or(Ok(0))?;
    }
    let calls = 2 * tasks * keys;
    let micros = start.elapsed().as_micros().max(1);
    println!(
        "{right} of {} keys set and read back by {tasks} tasks at once",
        tasks * keys
    );
    println!(
        "{calls} calls in {} ms: {} per second",
        micros / 1_000,
        calls as u128 * 1_000_000 / micros
    );
    println!("synchronized: {:?}", sync().await?);

    println!("an empty key: {:?}", put("", "value").await?);
    println!("a long value: {:?}", put("long", &"x".repeat(5_000)).await?);
    println!("a key that nobody has set: {:?}", get("nothing").await?);

    let mut first = host::stream::<_, (String, String)>("kv.scan", "task 0007").await?;
    for _ in 0..3 {
        if let Some(entry) = first.next().await {
            let (key, value) = entry?;
            println!("{key} = {value}");
        }
    }
    println!("the rest of the listing is dropped");
    Ok(i32::from(right != tasks * keys))
}
