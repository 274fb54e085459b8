//! Tasks that wait, in the way that its first argument names: `locks`, `mutexes`, `host ADDRESS`, `block`, `lies`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;

use async_lock::Mutex;
use wakebox_guest::net::TcpStream;
use wakebox_guest::task::{block_on, spawn_named, yield_now};
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{env, println, spawn, sync};

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    match args.next() {
        Some("locks") => locks().await,
        Some("mutexes") => mutexes().await,
        Some("host") => host(args.next().unwrap_or_default()).await,
        Some("block") => block().await,
        Some("lies") => lies().await,
        other => panic!("what is {other:?}?"),
    }
}

/// Each of two tasks holds what the other one wants.
async fn locks() {
    let (a, b) = (Rc::new(Mutex::new(())), Rc::new(Mutex::new(())));
    let take = |one: &Rc<Mutex<()>>, other: &Rc<Mutex<()>>| {
        let (one, other) = (one.clone(), other.clone());
        async move {
            let _one = one.lock().await;
            yield_now().await;
            let _other = other.lock().await;
        }
    };
    let first = spawn_named("first", take(&a, &b)); // MARK first
    let second = spawn_named("second", take(&b, &a)); // MARK second
    sleep(LATER).await;
    let _ = first.await;
    let _ = second.await;
}

/// How much later than the tasks have begun to wait the guest is stuck.
const LATER: Duration = Duration::from_millis(30);

/// The same with locks that know who holds them.
async fn mutexes() {
    let (a, b) = (Rc::new(sync::Mutex::new(1)), Rc::new(sync::Mutex::new(2)));
    let (c, d) = (a.clone(), b.clone());
    let first = spawn_named("first", async move {
        let one = a.lock().await; // MARK has a
        yield_now().await;
        println!("{} {}", *one, *b.lock().await);
    });
    let second = spawn_named("second", async move {
        let two = d.lock().await; // MARK has b
        yield_now().await;
        println!("{} {}", *two, *c.lock().await);
    });
    sleep(LATER).await;
    let _ = first.await;
    let _ = second.await;
}

/// Waits for a server that says nothing, and for a long time.
async fn host(address: &str) {
    async fn reads(stream: TcpStream) {
        let _ = stream.read(&mut [0]).await;
    }
    async fn sleeps() {
        sleep(Duration::from_secs(3600)).await;
    }
    match TcpStream::connect(address).await {
        Ok(stream) => drop(spawn(reads(stream))),
        Err(error) => panic!("{error}"),
    }
    let sleeper = spawn(sleeps());
    println!("ready");
    let _ = sleeper.await;
}

/// Blocks in the middle of a poll, for the host but for no other task.
async fn block() {
    let other = spawn(async { println!("another task") });
    println!("{}", block_on(async { "at once" }));
    block_on(sleep(Duration::from_millis(5)));
    println!("slept");
    let _ = other.await;
    // That wakers which were called meanwhile are those of tasks, and are not lost.
    let timer = spawn(async {
        sleep(Duration::from_millis(1)).await;
        println!("a timer of another task");
    });
    yield_now().await;
    block_on(sleep(Duration::from_millis(20)));
    println!("slept again");
    let _ = timer.await;
}

/// Says that its only task is followed by itself, with a name that is longer than memory.
async fn lies() {
    #[repr(C)]
    struct Entry {
        next: *const Entry,
        name: *const u8,
        file: *const u8,
        detail: u64,
        name_len: u32,
        file_len: u32,
        place: [u32; 2],
        number: u32,
        state: u32,
    }
    let entry = alloc::boxed::Box::leak(alloc::boxed::Box::new(Entry {
        next: core::ptr::null(),
        name: "\x1b[2J".as_ptr(),
        file: core::ptr::dangling(),
        detail: u64::MAX,
        name_len: u32::MAX,
        file_len: u32::MAX,
        place: [u32::MAX; 2],
        number: u32::MAX,
        state: u32::MAX,
    }));
    entry.next = entry;
    let head = alloc::boxed::Box::leak(alloc::boxed::Box::new(&raw const *entry));
    let head = (&raw const *head).expose_provenance();
    // `Word::Tasks` and `TasksHigh` of the control page (abi/src/memory.rs).
    let words = core::ptr::with_exposed_provenance_mut::<u32>(0x4020_0000 + 0x8C);
    // SAFETY: the page is the guest's to write, and nobody in it reads these words.
    unsafe {
        words.write_volatile(head as u32);
        words.add(1).write_volatile((head >> 32) as u32);
    }
    core::future::pending::<()>().await;
}
