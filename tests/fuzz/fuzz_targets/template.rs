//! See `wakebox_fuzz::template`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wakebox_fuzz::template::run(data);
});
