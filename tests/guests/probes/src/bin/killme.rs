//! Does one thing for ever, once it has told the host: `compute`, `park`, `call` a host function that
//! never answers, `work` with a disk, or `tick`: tell it again and again.
#![no_std]
#![no_main]

use core::hint::spin_loop;

use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{env, fs};

wakebox_guest::host_fns! {
    async fn here() -> () = "here";
    async fn never() -> () = "never";
}

#[wakebox_guest::main]
async fn main() {
    let verb = env::args().next().unwrap_or_default();
    here().await.expect("the host listens");
    match verb {
        "compute" => loop {
            spin_loop();
        },
        "park" => sleep(Duration::from_secs(1 << 30)).await,
        "call" => never().await.expect("it never ends"),
        "work" => loop {
            let _ = fs::metadata("/d").await;
        },
        "tick" => loop {
            here().await.expect("the host listens");
            sleep(Duration::from_millis(1)).await;
        },
        other => panic!("there is no `{other}`"),
    }
}
