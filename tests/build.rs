//! Builds the guest programs, debug and release, before the tests that run them.
//!
//! They are a cargo workspace of their own (no `std`, `panic = "abort"`), so this is a
//! cargo inside a cargo: it must not inherit what the outer one set for this build.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(skip_kvm)");
    println!("cargo::rerun-if-env-changed=WAKEBOX_SKIP_KVM");
    if env::var_os("WAKEBOX_SKIP_KVM").is_some_and(|value| value == "1") {
        println!("cargo::rustc-cfg=skip_kvm");
    }

    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().unwrap_or(tests);
    let target = root.join("target/guests");
    for input in ["abi", "guest", "tests/guests"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    // Gone if somebody emptied the target directory.
    println!(
        "cargo::rerun-if-changed={}",
        target.join("CACHEDIR.TAG").display()
    );

    for profile in ["dev", "release"] {
        // Those that others must not share their features with come by themselves.
        let alone = ["--package=wakebox-urgent", "--package=wakebox-spread"];
        for package in [None].into_iter().chain(alone.map(Some)) {
            let status = cargo()
                .args(["build", "--profile", profile])
                .args(package)
                .current_dir(tests.join("guests"))
                .env("CARGO_TARGET_DIR", &target)
                // Whatever the outer one builds in, it holds the lock of.
                .env("CARGO_BUILD_BUILD_DIR", &target)
                .status();
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => fail(&format!("the guest programs do not build ({status})")),
                Err(error) => fail(&format!("cannot start cargo: {error}")),
            }
        }
    }
}

/// Cargo without the variables that describe the build of this very script.
fn cargo() -> Command {
    const PREFIXES: [&str; 6] = [
        "CARGO_CFG_",
        "CARGO_ENCODED_",
        "CARGO_FEATURE_",
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "DEP_",
    ];
    const NAMES: [&str; 10] = [
        "DEBUG",
        "HOST",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "TARGET",
    ];
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if PREFIXES.iter().any(|prefix| text.starts_with(prefix)) || NAMES.contains(&&*text) {
            command.env_remove(name);
        }
    }
    command
}

fn fail(sentence: &str) -> ! {
    println!("cargo::error={sentence}");
    exit(1);
}
