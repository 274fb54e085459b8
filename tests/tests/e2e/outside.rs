//! A guest outside this repository: written by `wakebox new`, built, run and tested with plain cargo.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use wakebox_tests::programs::output;
use wakebox_tests::terminal::Terminal;
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

/// Runs cargo in a guest's folder, as somebody would type it there, and returns what it prints.
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

/// Types what the README says into a shell, from a clone of this repository on. Returns the folder of the guest that
/// is made there.
fn follow_the_readme(folder: &Path) -> PathBuf {
    let blocks = blocks(&fs::read_to_string(root().join("README.md")).expect("the README"));
    let kinds: Vec<_> = blocks
        .iter()
        .map(|block| (&*block.heading, &*block.language))
        .collect();
    let expected = [
        // A picture.
        ("", "text"),
        ("Two commands", "sh"),
        ("Your first guest", "sh"),
        // Built and run in `a_new_guest_is_run_and_tested_as_the_readme_says`.
        ("Your first guest", "rust"),
        ("Your first guest", "sh"),
        // `demos::what_the_readme_shows_of_embedding_is_an_example_that_runs`.
        ("In your program", "rust"),
    ];
    assert_eq!(kinds, expected, "each block of the README is tried");

    let here = clone(folder);
    let mut shell = Shell {
        here: here.clone(),
        bin: here.join("bin"),
    };
    let [demo, tests] = lines(&blocks[1].text)[..] else {
        panic!("two commands: {}", blocks[1].text);
    };
    let (said, errors) = shell.types(demo);
    assert!(said.contains("five waits, "), "{said}\n{errors}");
    // What this is a part of.
    assert!(tests.starts_with("cargo xtask test "), "{tests}");

    let first = lines(&blocks[2].text);
    let [install, new, into, rest @ ..] = &first[..] else {
        panic!("three commands and more: {first:?}");
    };
    // Of what the demo was built of; and not into the home of who runs the tests.
    let install = install.replace("host/cli ", "host/cli --profile demo --locked --quiet ");
    assert!(install.contains("--quiet"), "{install}");
    let guest = here.join("hello");
    shell.types(&install);
    let (said, _) = shell.types(new);
    assert!(said.contains("  cargo run -- friend "), "{said}");
    fs::copy(lock(), guest.join("Cargo.lock")).expect("the lock file of the guests");
    assert_eq!(*into, "cd hello");
    shell.here.clone_from(&guest);
    let (said, errors) = shell.types(&rest.join("\n"));
    assert_eq!(
        said.matches("Hello, friend, from ring 3").count(),
        2,
        "{said}"
    );
    for line in ["1 passed", "\ntock"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(errors.contains("\nexits "), "--stats: {errors}");

    let [run, explain, top] = lines(&blocks[4].text)[..] else {
        panic!("three commands: {}", blocks[4].text);
    };
    assert!(shell.types(run).0.contains("\ntock"));
    assert!(shell.types(explain).0.contains("tick"));
    let mut terminal = Terminal::start(&mut shell.command(top), 100, 30);
    terminal.shows("ended");
    terminal.press("q");
    assert!(terminal.ends().success(), "{}", terminal.text());
    guest
}

/// A block of code of a page.
struct Block {
    heading: String,
    language: String,
    text: String,
}

/// The blocks of code of a page, each with the heading of its section.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut heading = "";
    let mut is_open = false;
    for line in page.lines() {
        match (is_open, line.strip_prefix("```")) {
            (true, Some(_)) => is_open = false,
            (true, None) => {
                let block = blocks.last_mut().expect("one is open");
                block.text.push_str(line);
                block.text.push('\n');
            }
            (false, Some(language)) => {
                is_open = true;
                blocks.push(Block {
                    heading: heading.into(),
                    language: language.into(),
                    text: String::new(),
                });
            }
            (false, None) => heading = line.strip_prefix("## ").unwrap_or(heading),
        }
    }
    blocks
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// A clone of this repository, with what is not committed yet, that builds in a folder of its own beneath our target.
fn clone(folder: &Path) -> PathBuf {
    let git = |args: &[&str], path: &Path| {
        let mut git = Command::new("git");
        output(git.arg("-C").arg(root()).args(args).arg(path))
    };
    let clone = folder.join("wakebox");
    git(&["clone", "--quiet", "."], &clone);
    let list = [
        "ls-files",
        "-z",
        "--modified",
        "--others",
        "--exclude-standard",
    ];
    let changed = git(&list, Path::new("."));
    for name in text(&changed).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root().join(name), clone.join(name));
        if from.is_file() {
            fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            fs::copy(from, to).expect("a file of this repository");
        }
    }
    let target = root().join("target/clone");
    fs::create_dir_all(&target).expect("a folder");
    std::os::unix::fs::symlink(target, clone.join("target")).expect("a link");
    clone
}

/// Somebody at a shell.
struct Shell {
    here: PathBuf,
    /// Where `cargo install` puts what it installs.
    bin: PathBuf,
}

impl Shell {
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-e", "-c", script])
            .current_dir(&self.here)
            .env("PATH", path_with(&self.bin))
            .env("CARGO_INSTALL_ROOT", self.bin.parent().expect("a folder"));
        // What `cargo nextest` and cargo say of the build of this very test.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let is_ours = text.starts_with("CARGO_") || text.starts_with("NEXTEST");
            if is_ours
                && !["CARGO_HOME", "CARGO_INSTALL_ROOT", "CARGO_NET_OFFLINE"].contains(&&*text)
            {
                command.env_remove(&name);
            }
        }
        command.env_remove("RUSTFLAGS");
        command
    }

    /// What a script prints, which succeeds, on both streams.
    fn types(&self, script: &str) -> (String, String) {
        let output = self.command(script).output().expect("a shell");
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{script}\n{said}\n{errors}");
        (said, errors)
    }
}

#[kvm_test]
fn a_new_guest_is_run_and_tested_as_the_readme_says() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let folder = follow_the_readme(elsewhere.path());

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
    let page = fs::read_to_string(root().join("README.md")).unwrap();
    let source = &blocks(&page)[3].text;
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
