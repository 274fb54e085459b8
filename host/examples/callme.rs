//! Calls functions of a guest, many at once. `cargo xtask run callme` runs it.
//!
//! Usage: `callme GUEST [out|irq|poll|auto]`

use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use wakebox::{Output, Sandbox, WakeMode};

#[derive(Serialize)]
struct Order {
    customer: &'static str,
    items: Vec<&'static str>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "it is printed")]
enum Receipt {
    Total { customer: String, cents: u32 },
    Unknown { item: String },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let guest = args.next().ok_or("usage: callme GUEST [MODE]")?;
    let mode: WakeMode = args.next().as_deref().unwrap_or("auto").parse()?;

    let running = Sandbox::builder()
        .guest(&*guest)
        .wake(mode)
        .host_fn("price", async |_, item: String| -> Option<u32> {
            tokio::time::sleep(Duration::from_millis(20)).await;
            match &*item {
                "tea" => Some(250),
                "cake" => Some(420),
                _ => None,
            }
        })
        .stdout(Output::Inherit)
        .stderr(Output::Inherit)
        .build()?
        .start();

    let start = Instant::now();
    let naps = try_join_all((0..500).map(|_| running.call::<_, u64>("nap", &(100_u64,)))).await?;
    println!(
        "{} naps of 100 ms, all at once: {:.0?}",
        naps.len(),
        start.elapsed()
    );

    let start = Instant::now();
    let (primes, nap) = tokio::join!(
        running.call::<_, u32>("primes", &(200_000_u32,)),
        running.call::<_, u64>("nap", &(1_u64,)),
    );
    println!(
        "{} primes below 200,000, and a nap of {} ms beside: {:.0?}",
        primes?,
        nap?,
        start.elapsed()
    );

    let orders = [("Ann", vec!["tea", "cake"]), ("Bob", vec!["tea", "hat"])];
    let start = Instant::now();
    let receipts = join_all(orders.map(|(customer, items)| {
        let order = Order { customer, items };
        let caller = running.caller();
        async move { caller.call::<_, Receipt>("checkout", &(order,)).await }
    }))
    .await;
    println!(
        "the guest asks back for prices: {receipts:?} ({:.0?})",
        start.elapsed()
    );

    let given_up = running.call::<_, ()>("patience", &());
    let late = tokio::time::timeout(Duration::from_millis(50), given_up).await;
    println!("a call with a time-out: {late:?}");
    let absent = running.call::<_, ()>("nonesuch", &()).await;
    println!("no such function: {absent:?}");
    let wrong = running.call::<_, Receipt>("checkout", &()).await;
    println!("wrong arguments: {wrong:?}");

    let start = Instant::now();
    for _ in 0..1_000 {
        running.call::<_, u64>("nap", &(0_u64,)).await?;
    }
    println!(
        "a call and its answer, one after another: {:.1?} each",
        start.elapsed() / 1_000
    );

    let (outcome, stats) = running.close().await?;
    eprintln!("{outcome}\n{stats}");
    Ok(())
}
