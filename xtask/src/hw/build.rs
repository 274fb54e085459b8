//! The tests, linked statically, and the file system that holds them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::fetch::Kernel;
use super::{cpio::Archive, folder};
use crate::{process, workspace};

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// In the package `wakebox-tests`: what the machine starts as its first process.
const INIT: &str = "hw-init";

/// The tests of the short run, by the beginnings of their names. What differs between kinds of
/// KVM is the start, the rights of memory, the ends, interrupts, kicks, and waking.
const SHORT: &[&str] = &[
    "boot::",
    "executor::faults_have_names",
    "hostile::",
    "neighbours::a_computing_guest",
    "neighbours::a_guest_is_ended",
    "no_lost_wakeups::",
    "ops::",
    "timers::",
];

/// What a program resolves names with, where no name server is.
const HOSTS: &[u8] = b"127.0.0.1 localhost\n::1 localhost\n";
const NAME_SERVICES: &[u8] = b"hosts: files dns\n";

/// Builds the tests and packs them. Returns where the archive is.
///
/// # Errors
///
/// If cargo fails, or the archive cannot be written.
pub(crate) fn image(kernel: &Kernel, short: bool, filters: &[String]) -> Result<PathBuf> {
    let short_filters: Vec<_> = SHORT.iter().copied().map(String::from).collect();
    let filters = match short && filters.is_empty() {
        true => &short_filters,
        false => filters,
    };
    let built = tests(short)?;
    let path = folder().join("initramfs");
    let mut archive = Archive::create(&path)?;
    archive.device("/dev/console", 5, 1)?;
    for directory in ["/proc", "/sys", "/tmp"] {
        archive.directory(directory)?;
    }
    archive.file("/etc/hosts", HOSTS)?;
    archive.file("/etc/nsswitch.conf", NAME_SERVICES)?;
    for (name, module) in &kernel.modules {
        archive.copy(&format!("/modules/{name}.ko"), module)?;
    }
    archive.copy("/init", built.program(INIT)?)?;
    archive.file("/plan", built.plan(filters)?.as_bytes())?;
    for program in built.tests.iter().chain(built.programs.values()) {
        archive.copy(text(program)?, program)?;
    }
    for profile in ["debug", "release"] {
        let guests = workspace::guest_target().join(profile);
        for entry in fs::read_dir(&guests).with_context(|| guests.display().to_string())? {
            let entry = entry?;
            let is_program = entry.path().extension().is_none() && entry.file_type()?.is_file();
            if is_program && !entry.file_name().to_string_lossy().starts_with('.') {
                archive.copy(text(&entry.path())?, &entry.path())?;
            }
        }
    }
    archive.finish()?;
    Ok(path)
}

/// What cargo has built.
#[derive(Debug, Default)]
struct Built {
    tests: Vec<PathBuf>,
    /// By name.
    programs: BTreeMap<String, PathBuf>,
}

impl Built {
    fn program(&self, name: &str) -> Result<&PathBuf> {
        let found = self.programs.get(name);
        found.with_context(|| format!("cargo has built no program `{name}`"))
    }

    /// What the first process reads; the other side is `tests/src/bin/hw-init/plan.rs`.
    fn plan(&self, filters: &[String]) -> Result<String> {
        let mut plan = String::new();
        for test in &self.tests {
            plan += &format!("program {}\n", text(test)?);
        }
        for filter in filters {
            plan += &format!("filter {filter}\n");
        }
        Ok(plan)
    }
}

fn tests(short: bool) -> Result<Built> {
    let mut command = process::cargo();
    command
        .args(["test", "--no-run", "--package", "wakebox-tests"])
        .args(["--target", TARGET, "--message-format"])
        .arg("json-render-diagnostics")
        .env("CARGO_TARGET_DIR", folder().join("build"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // The machine has all of it in memory.
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env("CARGO_PROFILE_DEV_STRIP", "debuginfo")
        // It is there, whatever is here.
        .env_remove("WAKEBOX_SKIP_KVM");
    let mut programs = vec!["*"];
    if short {
        programs = SHORT
            .iter()
            .filter_map(|name| name.split("::").next())
            .collect();
        programs.dedup();
    }
    for program in programs {
        command.args(["--test", program]);
    }
    let built = understand(&output(&mut command)?);
    if built.tests.is_empty() {
        bail!("`{}` names no test program", process::line(&command));
    }
    Ok(built)
}

/// Runs a command and returns what it says; what it complains of is shown.
fn output(command: &mut Command) -> Result<String> {
    let line = process::line(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads cargo's messages, one JSON object on each line, for the programs in them.
///
/// xtask is compiled before anything that a newcomer sees, so it has no JSON parser: the fields
/// that it wants are strings without escapes, or it does not find the file.
fn understand(messages: &str) -> Built {
    let mut built = Built::default();
    for line in messages.lines() {
        let Some(path) = field(line, "executable").map(PathBuf::from) else {
            continue;
        };
        if line.contains(r#""test":true},"#) && line.contains(r#""kind":["test"]"#) {
            built.tests.push(path);
        } else if let Some(name) = path.file_name() {
            let name = name.to_string_lossy().into_owned();
            built.programs.insert(name, path);
        }
    }
    built.tests.sort();
    built
}

/// The value of a field that is a string.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = line.split_once(&format!(r#""{name}":""#))?;
    after.split('"').next()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"test":true},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"test":true},"profile":{"test":false},"executable":"/t/hw-init"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"test":true},"profile":{"test":true},"executable":"/t/boot-0f"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let built = understand(messages);
        assert_eq!(built.tests, [Path::new("/t/boot-0f")]);
        assert_eq!(built.program(INIT).unwrap(), Path::new("/t/hw-init"));
        assert!(built.program("boot").is_err());
    }
}
