//! Leaves out of a release what only an unwinder reads: a guest does not unwind, and the symbols that a
//! backtrace would name are not there either. Relocations are packed, and functions that are equal are there once:
//! nothing compares where functions lie.

fn main() {
    println!("cargo::rerun-if-changed=discard.ld");
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{here}/discard.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        println!("cargo::rustc-link-arg-bins=-Wl,-O2,--icf=all");
    }
}
