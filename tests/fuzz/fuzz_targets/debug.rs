//! See `wakebox_fuzz::debug`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wakebox_fuzz::debug::run(data);
});
