//! A guest of which templates are taken: it initialises itself, and then serves calls.
//!
//! `asks` asks for a template when it is ready; `listener` and `waiting` have something open that does
//! not exist in a copy; `timer` waits for a time that is far away; `computing` never waits;
//! `hook` faults when it is restored.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use wakebox_guest::net::TcpListener;
use wakebox_guest::time::{Duration, sleep, unix_time};
use wakebox_guest::{env, export, fs, on_restore, println, restored, snapshot, spawn, time};

/// What the guest remembers. There is one flow of control.
struct State {
    /// Calls of `count`.
    count: Cell<u64>,
    restores: Cell<u64>,
    hooks: Cell<u64>,
    ended: RefCell<Vec<String>>,
    secret: RefCell<Vec<u8>>,
    /// Pages that are the guest's already.
    pages: RefCell<Vec<u8>>,
}

struct Shared(State);

// SAFETY: a guest has one processor, and no interrupt runs its code.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(State {
    count: Cell::new(0),
    restores: Cell::new(0),
    hooks: Cell::new(0),
    ended: RefCell::new(Vec::new()),
    secret: RefCell::new(Vec::new()),
    pages: RefCell::new(Vec::new()),
});

fn state() -> &'static State {
    &STATE.0
}

/// How often it was called.
#[export]
async fn count() -> u64 {
    state().count.set(state().count.get() + 1);
    state().count.get()
}

/// Bytes of the generator that needs no host.
#[export]
async fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return [0; 16];
    }
    bytes
}

/// Restores that a task and that a hook has seen.
#[export]
async fn restores() -> (u64, u64) {
    (state().restores.get(), state().hooks.get())
}

/// The arguments, and a variable.
#[export]
async fn words() -> (Vec<String>, Option<String>) {
    let args = env::args().map(String::from).collect();
    (args, env::var("NAME").map(String::from))
}

/// What ended because of a restore.
#[export]
async fn ended() -> Vec<String> {
    state().ended.borrow().clone()
}

/// Milliseconds on the monotonic clock, and seconds on the other.
#[export]
async fn clocks() -> (u64, u64) {
    (time::now().as_nanos() / 1_000_000, unix_time().as_secs())
}

/// Keeps something, in the heap and in registers.
#[export]
async fn keep(secret: Vec<u8>) {
    *state().secret.borrow_mut() = secret;
}

/// Writes a byte into each of so many pages.
#[export]
async fn dirty(pages: u32) {
    let mut bytes = state().pages.borrow_mut();
    for page in bytes.chunks_mut(4096).take(pages as usize) {
        page[0] = page[0].wrapping_add(1);
    }
}

/// Fills so many more bytes of memory with what is no zero, and keeps them. Returns how many it has.
#[export]
async fn fill(bytes: u32) -> u64 {
    let mut pages = state().pages.borrow_mut();
    let filled = pages.len() + bytes as usize;
    pages.resize(filled, 7);
    filled as u64
}

/// What is kept.
#[export]
async fn kept() -> Vec<u8> {
    state().secret.borrow().clone()
}

/// Waits as long as it is told.
#[export]
async fn wait(ms: u64) -> u64 {
    sleep(Duration::from_millis(ms)).await;
    ms
}

/// Whether a file can be read.
#[export]
async fn read(path: String) -> Option<String> {
    fs::read_to_string(&path).await.ok()
}

fn ended_with(what: &str, result: Result<(), wakebox_guest::io::Error>) {
    let how = match result {
        Ok(()) => alloc::format!("{what}: ok"),
        Err(error) => alloc::format!("{what}: {:?}", error.status()),
    };
    state().ended.borrow_mut().push(how);
}

#[wakebox_guest::main]
async fn main() {
    *state().pages.borrow_mut() = alloc::vec![1; 256 * 4096];
    on_restore(|| state().hooks.set(state().hooks.get() + 1));
    drop(spawn(async {
        let mut restored = restored();
        loop {
            (&mut restored).await;
            state().restores.set(state().restores.get() + 1);
        }
    }));
    match env::args().next().unwrap_or_default() {
        "asks" => {
            let before = snapshot().await;
            println!("{before:?}");
        }
        "listener" => {
            drop(spawn(async {
                let Ok(listener) = TcpListener::bind("127.0.0.1:0").await else {
                    return;
                };
                ended_with("accept", listener.accept().await.map(drop));
                // The handle is dead: it never names something else.
                ended_with("again", listener.accept().await.map(drop));
                let rebound = TcpListener::bind("127.0.0.1:0").await;
                ended_with("bind", rebound.map(drop));
            }));
        }
        "timer" => {
            drop(spawn(async {
                sleep(Duration::from_secs(3600)).await;
            }));
        }
        "hook" => on_restore(|| panic!("a panic that a test asked for")),
        "computing" => loop {
            core::hint::spin_loop();
        },
        _ => {}
    }
    wakebox_guest::serve().await;
}
