//! Builds the runtime guest, which is in a workspace of its own.

use std::path::Path;
use std::process::{Command, exit};

fn main() {
    // Where it is now: a target folder may have been copied with this program in it.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let root = Path::new(&here)
        .ancestors()
        .nth(2)
        .expect("the repository has a root");
    let runtime = root.join("guest/wasm");
    for path in ["guest", "abi"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let target = root.join("target/guests-wasm");
    // What is given away is a third smaller, and takes three minutes to build.
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let profile = if is_release { "dist" } else { "release" };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--profile", profile, "--locked"])
        .args(std::env::var_os("CARGO_FEATURE_SCRIPT").map(|_| "--features=script"))
        .current_dir(&runtime)
        .env("CARGO_TARGET_DIR", &target);
    // What this build was given is not for the guest.
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        cargo.env_remove(name);
    }
    if !cargo.status().is_ok_and(|status| status.success()) {
        eprintln!(
            "error: the runtime guest in {} was not built",
            runtime.display()
        );
        exit(1);
    }
    let built = target.join(profile).join("wasm-runtime");
    println!("cargo::rerun-if-changed={}", built.display());
    // The next build may be of the other kind, and puts it into the same place.
    let out = std::env::var_os("OUT_DIR").expect("cargo says where output goes");
    let runtime = Path::new(&out).join("wasm-runtime");
    std::fs::copy(&built, &runtime).expect("the runtime guest is copied");
    println!(
        "cargo::rustc-env=WAKEBOX_WASM_RUNTIME={}",
        runtime.display()
    );
}
