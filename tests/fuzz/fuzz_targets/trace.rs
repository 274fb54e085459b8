//! See `wakebox_fuzz::trace`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wakebox_fuzz::trace::run(data);
});
