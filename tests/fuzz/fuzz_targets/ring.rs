//! See `wakebox_fuzz::ring`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wakebox_fuzz::ring::run(data);
});
