//! `cargo xtask bench --only wasm`: WebAssembly in Wakebox beside the same in Wasmtime on the host, in turns, in one run.
//!
//! Of each number the least of several rounds counts: what else runs on the machine can only add.

mod http;
mod native;
mod ours;
mod starts;

use std::time::Duration;

use anyhow::Result;
use wakebox_wasm::Bounds;

/// Programs that compute, and with what argument.
const COMPUTE: &str = include_str!("compute.wat");
const PROGRAMS: [(&str, u32); 5] = [
    ("fib", 30),
    ("sieve", 4_000_000),
    ("chase", 4_000_000),
    ("matmul", 160),
    ("crc", 8_000_000),
];

/// Calls of an import that are in flight at once.
const IN_FLIGHT: u32 = 256;
const ROUNDS: usize = 9;
const TURNS: usize = 200;

/// A component each of whose calls of `round` has so many calls of an import in flight.
fn many() -> String {
    let many = include_str!("../../tests/components/many.wat");
    let many = many.replace("i32.const 100)", &format!("i32.const {IN_FLIGHT})"));
    many.replace(
        "(func (export \"run\") async",
        "(func (export \"round\") async",
    )
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    println!(
        "{:<48} {:>12} {:>12} {:>8}  bar",
        "", "wakebox", "wasmtime", "ratio"
    );
    runtime.block_on(compute())?;
    runtime.block_on(imports())?;
    runtime.block_on(http::all())?;
    runtime.block_on(starts::all())?;
    let size = wakebox_wasm::RUNTIME.len() as f64 / 1e6;
    println!(
        "{:<48} {size:>9.2} MB {:>12} {:>8}  at most 1.5",
        "runtime guest, stripped", "", ""
    );
    Ok(())
}

fn row(what: &str, ours: Duration, theirs: Option<Duration>, bar: &str) {
    let ours_ms = ours.as_secs_f64() * 1e3;
    let (theirs_ms, ratio) = match theirs {
        Some(theirs) => (
            format!("{:.3} ms", theirs.as_secs_f64() * 1e3),
            format!("{:.2}", ours.as_secs_f64() / theirs.as_secs_f64()),
        ),
        None => (String::new(), String::new()),
    };
    println!("{what:<48} {ours_ms:>9.3} ms {theirs_ms:>12} {ratio:>8}  {bar}");
}

async fn compute() -> Result<()> {
    let code = ours::Called::start(COMPUTE, None, Bounds::Code)?;
    let pages = ours::Called::start(COMPUTE, None, Bounds::Pages)?;
    let mut same = native::Called::start(COMPUTE, true).await?;
    let mut default = native::Called::start(COMPUTE, false).await?;
    for (name, argument) in PROGRAMS {
        let mut least = [Duration::MAX; 4];
        for _ in 0..ROUNDS {
            let mut all = [(Duration::MAX, 0); 4];
            all[0] = code.call(name, argument).await?;
            all[1] = pages.call(name, argument).await?;
            all[2] = same.call(name, argument).await?;
            all[3] = default.call(name, argument).await?;
            for (least, (time, result)) in least.iter_mut().zip(all) {
                let own = all[0].1;
                anyhow::ensure!(own == result, "{name} gives {result} and {own}");
                *least = (*least).min(time);
            }
        }
        let [code, pages, same, default] = least;
        for (settings, ours, theirs, bar) in [
            ("same settings", code, same, "at most 1.05"),
            ("its default", code, default, ""),
            ("pages, its default", pages, default, "at most 1.2"),
        ] {
            row(
                &format!("{name}({argument}), {settings}"),
                ours,
                Some(theirs),
                bar,
            );
        }
    }
    code.end().await?;
    pages.end().await
}

async fn imports() -> Result<()> {
    let ours = ours::Called::start(&many(), Some("my:app/kv.get"), Bounds::default())?;
    let mut native = native::Called::start(&many(), true).await?;
    let mut least = [Duration::MAX; 2];
    for _ in 0..TURNS {
        least[0] = least[0].min(ours.round().await?);
        least[1] = least[1].min(native.round().await?);
    }
    row(
        &format!("an import that waits, {IN_FLIGHT} in flight, each"),
        least[0] / IN_FLIGHT,
        Some(least[1] / IN_FLIGHT),
        "at most 0.003 ms",
    );
    ours.end().await
}
