//! A guest outside this repository: written by `wakebox new`, built by plain `cargo build`.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use wakebox::Sandbox;
use wakebox_tests::{kvm_test, root, run};

/// `wakebox new`, for a guest library that is not released yet.
fn new(name: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("new")
        .arg(name)
        .arg("--guest-path")
        .arg(root().join("guest"))
        .output()
        .expect("the command starts")
}

/// Runs cargo in a folder, as somebody would type it there.
fn cargo(folder: &Path, args: &[&str]) {
    // The versions that this repository was tested with, most likely downloaded already.
    fs::copy(
        root().join("tests/guests/Cargo.lock"),
        folder.join("Cargo.lock"),
    )
    .expect("the lock file of the guests");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .args(args)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}:\n{stderr}");
    assert!(!stderr.contains("warning"), "cargo {args:?}:\n{stderr}");
}

#[kvm_test]
fn a_new_guest_builds_and_runs() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let folder = elsewhere.path().join("my-guest");
    let output = new(&folder);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    cargo(&folder, &["build"]);
    cargo(&folder, &["build", "--release"]);
    for profile in ["debug", "release"] {
        let guest = folder.join("target").join(profile).join("my-guest");
        let ended = run(Sandbox::builder().guest(guest).args(["friend"])).success();
        let lines = ended.lines();
        assert!(lines[0].contains("friend"), "{profile}: {lines:?}");
        assert_eq!(lines[1..], ["tick", "tock"], "{profile}");
    }
}

#[test]
fn library_code_of_a_guest_is_tested_on_the_host() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manifest = format!(
        "[package]\nname = \"parts\"\nedition = \"2024\"\n\
         [dependencies]\nwakebox-guest = {{ path = {:?} }}\n\
         [workspace]\n",
        root().join("guest")
    );
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(folder.path().join("src/lib.rs"), LIBRARY).unwrap();
    cargo(folder.path(), &["test", "--lib"]);
}

const LIBRARY: &str = "\
#![no_std]
use wakebox_guest::{println, spawn, time};

pub async fn late(value: u32) -> u32 {
    time::sleep(time::Duration::from_millis(u64::from(value))).await;
    println!(\"{value}\");
    spawn(async move { value }).await.unwrap_or_default()
}

pub fn twice(value: u32) -> u32 {
    println!(\"printing is ignored here\");
    value * 2
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_times_two() {
        assert_eq!(super::twice(2), 4);
    }
}
";

#[test]
fn what_is_there_is_not_overwritten() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let folder = elsewhere.path().join("precious");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), "mine").unwrap();
    let output = new(&folder);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("exists already"));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_a_crate_is_not_written() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    for name in ["1st", "white space", "dot.ted", "test", ".."] {
        let output = new(&elsewhere.path().join(name));
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "));
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
