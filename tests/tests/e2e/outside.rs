//! A guest outside this repository: written by `wakebox new`, built, run and tested with plain cargo.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use wakebox_tests::{kvm_test, root};

/// `wakebox new`.
fn new(name: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("new")
        .arg(name)
        .output()
        .expect("the command starts")
}

/// The versions that this repository was tested with, most likely downloaded already.
fn lock() -> PathBuf {
    root().join("tests/guests/Cargo.lock")
}

/// Where commands are found, this folder included.
fn path_with(bin: &Path) -> OsString {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = [bin.to_owned()]
        .into_iter()
        .chain(std::env::split_paths(&paths));
    std::env::join_paths(paths).expect("paths without a colon")
}

/// Runs cargo in a folder, as somebody would type it there, and returns what it prints.
fn cargo(folder: &Path, args: &[&str]) -> String {
    fs::copy(lock(), folder.join("Cargo.lock")).expect("the lock file of the guests");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let output = Command::new(cargo)
        .args(args)
        .current_dir(folder)
        .env("PATH", path_with(&folder.with_file_name("bin")))
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo starts");
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}:\n{stderr}");
    assert!(!stderr.contains("warning"), "cargo {args:?}:\n{stderr}");
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The first block of code in a language under a heading of the README.
fn readme(heading: &str, language: &str) -> String {
    let page = fs::read_to_string(root().join("README.md")).expect("the README");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let (_, block) = section.split_once(&format!("```{language}\n")).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.to_owned()
}

/// Types what the README says of a first guest into a shell, where the command is installed.
fn follow_the_readme(folder: &Path) {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    let command = env!("CARGO_BIN_EXE_wakebox-cli");
    std::os::unix::fs::symlink(command, bin.join("wakebox")).unwrap();
    let block = readme("Your first guest", "sh");
    let (install, rest) = block.split_once('\n').unwrap();
    assert!(install.starts_with("cargo install --path host/cli "));
    let (new, rest) = rest.split_once('\n').unwrap();
    let lock = lock();
    let script = format!("{new}\ncp '{}' hello\n{rest}", lock.display());
    let output = Command::new("sh")
        .args(["-e", "-c", &script])
        .current_dir(folder)
        .env("PATH", path_with(&bin))
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_BUILD_DIR")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("a shell");
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{script}\n{said}\n{errors}");
    assert_eq!(
        said.matches("Hello, friend, from ring 3").count(),
        2,
        "{said}"
    );
    for line in ["  cargo run -- friend ", "1 passed", "\ntock"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(errors.contains("\nexits "), "--stats: {errors}");
}

#[kvm_test]
fn a_new_guest_is_run_and_tested_as_the_readme_says() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let folder = elsewhere.path().join("hello");
    follow_the_readme(elsewhere.path());

    for profile in [&[][..], &["--release"]] {
        let args = [&["run"], profile, &["--", "friend"]].concat();
        let said = cargo(&folder, &args);
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].contains("friend"), "{profile:?}: {lines:?}");
        assert_eq!(lines[1..], ["tick", "tock"], "{profile:?}");
    }
    assert!(check(&folder).contains("`hello` and what it is linked with do without `std`"));
    let run = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .args(["run", "--quiet", ".", "you"])
        .current_dir(&folder)
        .output()
        .expect("the command starts");
    assert!(text(&run.stdout).contains("you"), "{run:?}");
    let tested = cargo(&folder, &["test"]);
    assert!(tested.contains("1 passed"), "{tested}");

    // What the page shows of a guest's source is one.
    let source = readme("Your first guest", "rust");
    fs::write(folder.join("src/main.rs"), source).unwrap();
    assert_eq!(cargo(&folder, &["run"]), "tick\ntock\n");

    // Started without the runner, it says what it is instead of dying of a signal.
    let alone = Command::new(folder.join("target/debug/hello")).output();
    let alone = alone.expect("a program of Linux");
    assert_eq!(alone.status.code(), Some(1), "{:?}", alone.status);
    let said = text(&alone.stderr);
    assert!(said.contains("`wakebox run FILE`"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// `wakebox check` in a folder.
fn check(folder: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("check")
        .current_dir(folder)
        .output()
        .expect("the command starts");
    let said = text(&output.stdout);
    let is_well = said.starts_with("well: ");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(i32::from(!is_well)), "{stderr}");
    said
}

#[test]
fn who_wants_std_is_named_with_who_asks_for_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manifest = "[package]\nname = \"guest\"\nedition = \"2024\"\n\
         [dependencies]\nserde = \"1\"\nitoa = \"1\"\n\
         [dev-dependencies]\npostcard = { version = \"1\", features = [\"use-std\"] }\n\
         [workspace]\n";
    fs::write(folder.path().join("Cargo.toml"), manifest).unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    fs::write(
        folder.path().join("src/main.rs"),
        "#![no_std]\nfn main() {}",
    )
    .unwrap();
    fs::copy(lock(), folder.path().join("Cargo.lock")).unwrap();
    let said = check(folder.path());
    for words in [
        "wants std: src/main.rs lacks #![no_main]\n",
        "wants std: `serde` 1.",
        ", for its feature `std`\n  --> `guest` asks for `serde/default` by its default features\n",
        "  --> `serde/std` asks for `serde_core/std`\n",
        "= have `default-features = false` in the line of `serde` in Cargo.toml",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    for innocent in ["itoa", "postcard", "serde_derive"] {
        assert!(!said.contains(&format!("std: `{innocent}`")), "{said}");
    }
}

#[test]
fn a_new_guest_may_use_a_library_that_is_there() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let folder = elsewhere.path().join("another");
    let made = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("new")
        .arg(&folder)
        .arg("--guest-path")
        .arg(root().join("guest"))
        .output()
        .expect("the command starts");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let path = format!("path = {:?}", root().join("guest"));
    assert!(manifest.contains(&path), "{manifest}");
    assert!(!folder.join("wakebox").exists());
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
    assert!(text(&output.stderr).contains("exists already"));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn a_name_that_no_guest_can_have_is_refused_with_the_reason() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    for (name, reason) in [
        ("1st", "begin with a letter"),
        ("white space", "letters, digits"),
        ("dot.ted", "letters, digits"),
        ("..", "letters, digits"),
        ("self", "keyword"),
        ("async", "keyword"),
        ("core", "comes with Rust"),
        ("test", "comes with Rust"),
        ("proc-macro", "comes with Rust"),
        ("wakebox-guest", "made with"),
        ("deps", "cargo keeps files"),
    ] {
        let output = new(&elsewhere.path().join(name));
        assert_eq!(output.status.code(), Some(1), "{name}");
        let said = text(&output.stderr);
        assert!(said.starts_with("error: "), "{said}");
        assert!(said.contains(reason), "{name}: {said}");
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
