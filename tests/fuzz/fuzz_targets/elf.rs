//! See `wakebox_fuzz::elf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wakebox_fuzz::elf::run(data);
});
