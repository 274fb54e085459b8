//! See `wakebox_fuzz::paths`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wakebox_fuzz::paths::run(data);
});
