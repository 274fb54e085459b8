//! The last byte of a memory is there, and the one behind it is a trap.

use wakebox_wasm::Bounds;
use wakebox_wasm_conformance::bytes::around_the_end;

async fn each_byte(bounds: Bounds) {
    let (tried, trapped) = around_the_end(bounds).await;
    println!("{tried} accesses, {trapped} traps");
    assert!(trapped > 1_000 && tried - trapped > 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_around_the_end_of_a_memory_is_as_it_should_be() {
    each_byte(Bounds::Code).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_pages_that_are_not_there_see_to_bounds_it_is_as_well() {
    each_byte(Bounds::Pages).await;
}
