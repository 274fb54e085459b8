//! Something to watch; the first argument names the case.
#![no_std]
#![no_main]

use wakebox_guest::task::{spawn_named, yield_now};
use wakebox_guest::time::{Duration, Instant, sleep};
use wakebox_guest::{env, ops, println};

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    match args.next() {
        Some("story") => story().await,
        Some("names") => names().await,
        Some("die") => die().await,
        Some("burst") => burst().await,
        Some("events") => {
            let count = args.next().and_then(|count| count.parse().ok());
            events(count.unwrap_or(100_000)).await;
        }
        other => panic!("no case {other:?}"),
    }
}

/// One task for each kind of cause.
async fn story() {
    let (mouth, ear) = async_channel::bounded(1);
    // Long enough that it is not over when the ticker is polled first, however slow the machine.
    let ticker = spawn_named("ticker", sleep(Duration::from_millis(100)));
    let asker = spawn_named("asker", async {
        for _ in 0..2 {
            ops::nop().await.expect("a no-op cannot fail");
        }
    });
    let listener = spawn_named("listener", async move { ear.recv().await });
    let speaker = spawn_named("speaker", async move {
        // The listener listens first.
        yield_now().await;
        mouth.send("hello").await
    });
    let idler = spawn_named("idler", core::future::pending::<()>());
    let _ = (ticker.await, asker.await, listener.await, speaker.await);
    idler.abort();
    let _ = idler.await;
    println!("told");
}

/// Names that are hard to write down.
async fn names() {
    for name in ["\"</script>\\", "", "\u{202e}\0\n", "naïve 名前"] {
        let _ = spawn_named(name, async {}).await;
    }
    let _ = wakebox_guest::spawn(ops::nop()).await;
}

/// Ends in the middle of a poll.
async fn die() {
    ops::nop().await.expect("a no-op cannot fail");
    panic!("enough");
}

/// More in one poll than a small ring has places for.
async fn burst() {
    core::future::poll_fn(|cx| {
        for _ in 0..1_000 {
            drop(cx.waker().clone());
        }
        core::task::Poll::Ready(())
    })
    .await;
    // Behind the hole.
    ops::nop().await.expect("a no-op cannot fail");
}

/// As fast as it can: three events a turn.
async fn events(turns: u64) {
    let start = Instant::now();
    for _ in 0..turns {
        yield_now().await;
    }
    println!("{}", start.elapsed().as_nanos());
}
