//! Generated modules do in a guest what they do natively.

use wakebox_wasm::Bounds;
use wakebox_wasm_conformance::natively::{both, bytes};

#[tokio::test(flavor = "multi_thread")]
async fn generated_modules_do_in_a_guest_what_they_do_beside_it() {
    generated(Bounds::Code).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_do_so_as_well_where_pages_that_are_not_there_see_to_bounds() {
    generated(Bounds::Pages).await;
}

async fn generated(bounds: Bounds) {
    let number = |name: &str, usual: u64| match std::env::var(name) {
        Ok(number) => number.parse().expect("a number"),
        Err(_) => usual,
    };
    let (count, first) = (number("WAKEBOX_MODULES", 40), number("WAKEBOX_SEED", 0));
    let (mut modules, mut calls, mut traps) = (0, 0, 0);
    for seed in first..first + count {
        // Of a failure, the last is the seed.
        print!("{seed} ");
        if let Some((called, trapped)) = both(&bytes(seed), bounds).await {
            modules += 1;
            calls += called;
            traps += trapped;
        }
    }
    println!("{modules} modules, {calls} calls, {traps} traps");
    assert!(modules * 2 > count, "{modules} modules of {count}");
    assert!(calls > traps && traps > 0, "{calls} calls, {traps} traps");
}
