//! Gives up operations in flight, many times, and shows that nothing of them is left.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use wakebox_guest::io::stdin;
use wakebox_guest::net::{TcpListener, TcpStream};
use wakebox_guest::task::yield_now;
use wakebox_guest::time::{Duration, sleep, timeout};
use wakebox_guest::{env, ops, println, spawn, stats};

const ROUNDS: u32 = 200;

#[wakebox_guest::main]
async fn main() {
    let address = env::args().next().expect("an address to listen on");
    let listener = TcpListener::bind(address).await.expect("it is granted");

    // Accepts that never come, given up before, at and after their submission.
    for round in 0..ROUNDS {
        let patience = Duration::from_micros(u64::from(round % 50));
        assert!(timeout(patience, listener.accept()).await.is_err());
    }
    println!("accepts given up");

    // Tasks that are aborted with an operation in flight.
    for _ in 0..ROUNDS {
        let task = spawn(sleep(Duration::from_secs(3600)));
        let doomed = spawn(async {
            let mut line = [0; 64];
            let _ = stdin().read(&mut line).await;
        });
        yield_now().await;
        task.abort();
        doomed.abort();
        assert!(task.await.is_err());
        assert!(doomed.await.is_err());
    }
    println!("tasks aborted");

    // An operation that is faster than its cancellation: both must be survived.
    for round in 0..ROUNDS {
        let tasks: Vec<_> = (0..8).map(|_| spawn(ops::nop())).collect();
        for _ in 0..round % 3 {
            yield_now().await;
        }
        for task in tasks {
            task.abort();
        }
    }
    println!("faster than cancelled");

    // The listener still listens, and a connection that it would have given to an accept
    // that was given up is not lost with it.
    let address = listener.local_addr().await.expect("it listens");
    let client = spawn(async move { TcpStream::connect(address).await.map(drop) });
    let accepted = listener.accept().await;
    println!("accepted {}", accepted.is_ok());
    client
        .await
        .expect("nobody aborts it")
        .expect("it is granted");
    assert!(stats().cancels > 0, "nothing was cancelled");
}
