//! See `wakebox_fuzz::policy`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wakebox_fuzz::policy::run(data);
});
