//! See `wakebox_fuzz::operations`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wakebox_fuzz::operations::run(data);
});
