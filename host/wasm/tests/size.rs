//! How large the runtime guest is, which lies in each image.

/// Bytes that it may have: as it is given away, and as the tests build it.
const MOST: u64 = match cfg!(debug_assertions) {
    false => 1_500_000,
    true => 2_500_000,
};

#[test]
fn the_runtime_guest_stays_small() {
    let size = std::fs::metadata(env!("WAKEBOX_WASM_RUNTIME"))
        .unwrap()
        .len();
    assert!(size <= MOST, "it has {size} bytes, of at most {MOST}");
}
