//! A guest that keeps what it is told, and sleeps. `host/examples/tenants.rs` runs ten thousand of it.
//!
//! What to watch: each has a secret of its own and a timer that is due much later. Both are still there
//! when it is woken, in whichever machine that is.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::time::Duration;

use async_lock::Mutex;
use wakebox_guest::{serve, snapshot, spawn, time};

/// What a guest keeps.
struct Kept {
    secret: Vec<u8>,
    visits: u64,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    secret: Vec::new(),
    visits: 0,
});

/// Keeps a secret.
#[wakebox_guest::export]
async fn keep(secret: Vec<u8>) {
    KEPT.lock().await.secret = secret;
}

/// How often it was visited, this time included, and its secret.
#[wakebox_guest::export]
async fn visit() -> (u64, Vec<u8>) {
    let mut kept = KEPT.lock().await;
    kept.visits += 1;
    (kept.visits, kept.secret.clone())
}

#[wakebox_guest::main]
async fn main() -> wakebox_guest::io::Result<()> {
    spawn(async {
        loop {
            time::sleep(Duration::from_secs(3600)).await;
        }
    });
    snapshot().await?;
    serve().await;
    Ok(())
}
