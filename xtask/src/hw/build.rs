//! The tests, linked statically, and the file system that holds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::fetch::Kernel;
use super::{Kind, cpio::Archive, folder};
use crate::{process, workspace};

/// In the package `wakebox-tests`: what the machine starts as its first process.
const INIT: &str = "hw-init";

/// The test program whose modules are groups of tests, as other test programs are one each.
const MODULES: &str = "e2e";

/// The features that dependencies have where all packages are built together; the tests have them of
/// `tests/Cargo.toml`. What is built of these is not built again.
pub(crate) const UNIFIED: &str = "wakebox/default,wakebox/metrics,wakebox/proof,\
                                  serde_json/alloc,wakebox-proofs/unified";

/// How a program is linked that finds no library where it runs, and has all of it in memory. Nobody
/// asks there for a backtrace of a test.
const STATIC: [&str; 6] = [
    "-C",
    "target-feature=+crt-static",
    "-C",
    "debuginfo=0",
    "-C",
    "strip=debuginfo",
];

/// The tests of the short run, by the beginnings of their names. What differs between kinds of
/// KVM is the start, the rights of memory, faults, interrupts, kicks, and waking, by several processors too; the jail is there
/// for a C library that is linked statically, and an older kernel.
const SHORT: &[&str] = &[
    "boot::",
    "ends::a_single_step",
    "ends::a_stack_overflow",
    "ends::the_command_shows",
    "hostile::lies",
    "hostile::memory",
    "hostile::ports",
    "hostile::processor",
    "hostile::state",
    "hostile::upcalls",
    "jail::a_forbidden_call",
    "jail::a_call_that",
    "jail::ends_of_all_kinds",
    "jail::every_operation_on_files",
    "jail::no_",
    "kill::",
    "limits::memory_that_is_used_up",
    "limits::processor_time",
    "limits::the_wall_clock",
    "neighbours::a_computing_guest",
    "neighbours::a_guest_is_ended",
    "no_lost_wakeups::irq",
    "no_lost_wakeups::poll_ends",
    "ops::every_operation",
    "processors::a_kill",
    "processors::a_limit",
    "processors::a_run",
    "processors::one_that",
    "processors::the_exit",
    "processors::the_fault",
    "processors::the_violation",
    "processors::tokens",
    "shutdown::",
    "spread::a_panic",
    "spread::each_processor",
    "spread::the_end",
    "timers::timers_fire_in_order_and_none_early::irq",
    "urgent::a_",
    "urgent::an_urgent_task_that",
    "urgent::urgent_tasks_that",
];

/// The same for Bochs, which is ten times slower: the start, ports as the bitmap of the TSS allows
/// them, faults, and what is left of a processor that has given up. It may be ended before the last.
const SHORT_VTX: &[&str] = &["boot::", "ends::a_fault_names_its_cause", "shutdown::"];

/// What every system has: names of hosts, where no name server is, and of users and groups.
const SYSTEM: [(&str, &[u8]); 4] = [
    ("/etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", b"hosts: files dns\n"),
    ("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\n"),
    ("/etc/group", b"root:x:0:\n"),
];

/// Links the tests and packs them for a kind of hardware. Returns where the archive is.
///
/// # Errors
///
/// If cargo fails, or the archive cannot be written.
pub(crate) fn image(
    kind: Kind,
    kernel: &Kernel,
    short: bool,
    filters: &[String],
) -> Result<PathBuf> {
    let tests = match kind {
        Kind::Amd => SHORT,
        Kind::Vtx => SHORT_VTX,
    };
    let short_filters: Vec<_> = tests.iter().copied().map(String::from).collect();
    let filters = match short && filters.is_empty() {
        true => &short_filters,
        false => filters,
    };
    let built = Built::all(filters)?;
    let path = folder().join("initramfs");
    let mut archive = Archive::create(&path)?;
    archive.device("/dev/console", 5, 1)?;
    for directory in ["/proc", "/sys", "/tmp"] {
        archive.directory(directory)?;
    }
    // `CARGO_TARGET_TMPDIR`.
    archive.directory(text(&workspace::root().join("target/tmp"))?)?;
    for (path, text) in SYSTEM {
        archive.file(path, text)?;
    }
    for (name, module) in &kernel.modules {
        archive.copy(&format!("/modules/{name}.ko"), module)?;
    }
    archive.copy("/init", &built.init)?;
    archive.file("/plan", built.plan(kind, short, filters)?.as_bytes())?;
    for test in &built.tests {
        archive.copy(text(test)?, test)?;
    }
    for (name, program) in &built.programs {
        // Where cargo has told the tests that it is.
        archive.copy(text(&workspace::debug_binary(name)?)?, program)?;
    }
    guests(&mut archive, |name, profile| {
        kind != Kind::Vtx || built.names(name, profile)
    })?;
    // Only source of the project to which a guest belongs is shown.
    let manifest = workspace::root().join("Cargo.toml");
    archive.copy(text(&manifest)?, &manifest)?;
    sources(&mut archive, &workspace::guest_workspace())?;
    // Where a demo searches.
    for folder in ["abi", "tests/tests"] {
        sources(&mut archive, &workspace::root().join(folder))?;
    }
    archive.finish()?;
    Ok(path)
}

/// Packs those guests that are wanted, by their name and profile.
fn guests(
    archive: &mut Archive<BufWriter<File>>,
    is_wanted: impl Fn(&str, &str) -> bool,
) -> Result<()> {
    for profile in ["debug", "release"] {
        let guests = workspace::guest_target().join(profile);
        for entry in fs::read_dir(&guests).with_context(|| guests.display().to_string())? {
            let entry = entry?;
            let is_program = entry.path().extension().is_none() && entry.file_type()?.is_file();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if is_program && !name.starts_with('.') && is_wanted(&name, profile) {
                archive.copy(text(&entry.path())?, &entry.path())?;
                // Which sources it is made of: the jail lets these be read.
                let sources = entry.path().with_extension("d");
                if sources.is_file() {
                    archive.copy(text(&sources)?, &sources)?;
                }
            }
        }
    }
    Ok(())
}

/// Packs source: reports show lines of it.
fn sources(archive: &mut Archive<BufWriter<File>>, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(archive, &path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            archive.copy(text(&path)?, &path)?;
        }
    }
    Ok(())
}

/// What cargo has linked.
#[derive(Debug)]
struct Built {
    init: PathBuf,
    tests: Vec<PathBuf>,
    /// The groups of tests of which they are wanted.
    groups: Vec<String>,
    /// What the tests start, by name.
    programs: BTreeMap<String, PathBuf>,
    /// Their source.
    source: String,
}

impl Built {
    /// The tests of which `filters` speak, and what they start.
    ///
    /// `cargo rustc` hands flags to one program alone: what that is linked from is the same that
    /// the tests outside of the machine are linked from, and is not built again.
    fn all(filters: &[String]) -> Result<Self> {
        let mut built = Self {
            init: program(INIT)?,
            tests: Vec::new(),
            groups: Vec::new(),
            programs: BTreeMap::new(),
            source: String::new(),
        };
        let groups = groups(&workspace::root().join("tests/tests"))?;
        let wanted = wanted(&groups, filters);
        for group in &wanted {
            let source = group.read()?;
            for name in starts(&source) {
                if !built.programs.contains_key(name) {
                    built.programs.insert(name.to_owned(), program(name)?);
                }
            }
            built.source += &source;
            built.groups.push(group.name.clone());
        }
        for test in test_programs(&wanted) {
            let path = linked("--test", test, &workspace::target()?)?;
            built.tests.push(path);
        }
        Ok(built)
    }

    /// Whether the tests may run a guest: they name it, or are named as it is. All guests are more
    /// than Bochs can read in minutes.
    fn names(&self, guest: &str, profile: &str) -> bool {
        let named = self.source.contains(&format!("\"{guest}\""));
        let same = self.groups.iter().any(|group| group == guest);
        (named || same) && (profile == "release" || self.source.contains("guest_debug("))
    }

    /// What the first process reads; the other side is `tests/src/bin/hw-init/plan.rs`.
    fn plan(&self, kind: Kind, short: bool, filters: &[String]) -> Result<String> {
        let mut plan = format!("seconds {}\n", kind.bound(short).as_secs());
        for test in &self.tests {
            plan += &format!("program {}\n", text(test)?);
        }
        for filter in filters {
            plan += &format!("filter {filter}\n");
        }
        let (patience, every) = match kind {
            Kind::Amd => (5, 13),
            Kind::Vtx => (30, 29),
        };
        plan += &format!("variable WAKEBOX_PATIENCE={patience}\n");
        if short {
            // A prime, for cases come in series.
            plan += &format!("variable WAKEBOX_HOSTILE_EVERY={every}\n");
        }
        Ok(plan)
    }
}

/// Tests whose full names begin alike: a module of the program [`MODULES`], or a program of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    /// What holds it.
    program: String,
    source: PathBuf,
}

impl Group {
    /// Its source, and that of the module of the package's library that has its name: what runs the
    /// hostile guests names their neighbours.
    fn read(&self) -> Result<String> {
        let library = workspace::root().join("tests/src");
        let folder = library.join(&self.name);
        let mut files = vec![self.source.clone(), folder.with_extension("rs")];
        if folder.is_dir() {
            files.extend(rust_files(&folder)?);
        }
        let mut source = String::new();
        for file in files.iter().filter(|file| file.is_file()) {
            source += &fs::read_to_string(file).with_context(|| file.display().to_string())?;
        }
        Ok(source)
    }
}

/// All groups of tests, by name.
fn groups(sources: &Path) -> Result<Vec<Group>> {
    let group = |source: PathBuf, program: Option<&str>| {
        let name = source.file_stem()?.to_string_lossy().into_owned();
        Some(Group {
            program: program.unwrap_or(&name).to_owned(),
            name,
            source,
        })
    };
    let programs = rust_files(sources)?.into_iter();
    let modules = rust_files(&sources.join(MODULES))?.into_iter();
    let modules = modules.filter(|source| !source.ends_with("main.rs"));
    let mut groups: Vec<_> = programs
        .filter_map(|source| group(source, None))
        .chain(modules.filter_map(|source| group(source, Some(MODULES))))
        .collect();
    groups.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(groups)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Those groups in which a filter may find something: a filter that begins with the name of one
/// and two colons speaks of that one.
fn wanted<'a>(groups: &'a [Group], filters: &[String]) -> Vec<&'a Group> {
    let speaks_of = |filter: &String| {
        let (name, _) = filter.split_once("::")?;
        groups.iter().find(|group| group.name == name)
    };
    let named: Option<Vec<_>> = filters.iter().map(speaks_of).collect();
    let named = named.filter(|named| !named.is_empty());
    let all = groups.iter();
    all.filter(|group| named.as_ref().is_none_or(|named| named.contains(group)))
        .collect()
}

/// The programs that hold these groups, each once.
fn test_programs<'a>(groups: &[&'a Group]) -> BTreeSet<&'a str> {
    groups.iter().map(|group| &*group.program).collect()
}

/// The programs that a test starts: cargo tells it where they are in variables, by name.
fn starts(source: &str) -> impl Iterator<Item = &str> {
    let after = source.split("\"CARGO_BIN_EXE_").skip(1);
    after.filter_map(|after| after.split('"').next())
}

/// Links a program. The usual one stays where it is.
fn program(name: &str) -> Result<PathBuf> {
    linked("--bin", name, &folder().join("static"))
}

/// Links a test or a program of the package `wakebox-tests`.
fn linked(kind: &str, name: &str, target: &Path) -> Result<PathBuf> {
    let mut command = process::cargo();
    command
        .args(["rustc", "--quiet", "--package", "wakebox-tests", kind, name])
        .args(["--features", UNIFIED])
        .args(["--message-format", "json-render-diagnostics", "--"])
        .args(STATIC)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_BUILD_BUILD_DIR", workspace::target()?)
        // KVM is there, whatever is here.
        .env_remove("WAKEBOX_SKIP_KVM");
    let said = output(&mut command)?;
    executable(&said, kind.trim_start_matches('-'), name)
        .with_context(|| format!("`{}` names no program", process::line(&command)))
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

/// Finds in cargo's messages, one JSON object on each line, where a program is.
///
/// xtask is compiled before anything that a newcomer sees, so it has no JSON parser: the fields
/// that it wants are strings without escapes, or it does not find the file.
fn executable(messages: &str, kind: &str, name: &str) -> Option<PathBuf> {
    let (kind, name) = (
        format!(r#""kind":["{kind}"]"#),
        format!(r#""name":"{name}""#),
    );
    let mut lines = messages.lines();
    let line = lines.find(|line| {
        line.contains(&kind) && line.contains(&name) && line.contains(r#""executable":""#)
    })?;
    field(line, "executable").map(PathBuf::from)
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
    fn a_program_is_found_in_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"boot"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"boot"},"executable":"/t/boot"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"boot"},"executable":"/t/boot-0f"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = |kind, name| executable(messages, kind, name);
        assert_eq!(found("test", "boot"), Some("/t/boot-0f".into()));
        assert_eq!(found("bin", "boot"), Some("/t/boot".into()));
        assert_eq!(found("lib", "boot"), None);
        assert_eq!(found("test", "root"), None);
    }

    #[test]
    fn a_filter_that_names_a_group_asks_for_no_other() {
        let groups = ["boot", "ends", "reboot"].map(|name| Group {
            name: name.to_owned(),
            program: MODULES.to_owned(),
            source: PathBuf::new(),
        });
        let wanted = |filters: &[&str]| -> Vec<_> {
            let filters: Vec<_> = filters.iter().copied().map(String::from).collect();
            let wanted = wanted(&groups, &filters).into_iter();
            wanted.map(|group| group.name.as_str()).collect()
        };
        assert_eq!(wanted(&[]), ["boot", "ends", "reboot"]);
        assert_eq!(wanted(&["boot::", "ends::a"]), ["boot", "ends"]);
        assert_eq!(wanted(&["boot::", "a_fault"]), ["boot", "ends", "reboot"]);
    }

    #[test]
    fn modules_and_programs_are_groups_and_each_program_is_linked_once() {
        let all = groups(&workspace::root().join("tests/tests")).unwrap();
        let wanted = |filters: &[&str]| -> Vec<_> {
            let filters: Vec<_> = filters.iter().copied().map(String::from).collect();
            wanted(&all, &filters)
        };
        let programs = |filters: &[&str]| -> Vec<_> {
            let programs = test_programs(&wanted(filters));
            programs.into_iter().map(str::to_owned).collect()
        };
        assert_eq!(programs(&["boot::", "ends::", "kill::"]), ["e2e"]);
        assert_eq!(programs(&["hostile::"]), ["hostile"]);
        assert_eq!(programs(&["boot::", "shutdown::"]), ["e2e", "shutdown"]);
        let all_programs = programs(&[]);
        assert!(all_programs.len() < all.len() / 4, "{all_programs:?}");
        assert!(all.iter().all(|group| group.name != "main"));
        assert!(all.iter().all(|group| group.source.is_file()));
    }

    /// A name that is none would have all tests linked, and find nothing.
    #[test]
    fn each_filter_of_the_short_runs_speaks_of_a_group() {
        let all = groups(&workspace::root().join("tests/tests")).unwrap();
        for filter in SHORT.iter().chain(SHORT_VTX) {
            let filters = [(*filter).to_owned()];
            let (group, _) = filter.split_once("::").unwrap();
            let wanted = wanted(&all, &filters);
            let names: Vec<_> = wanted.iter().map(|group| &*group.name).collect();
            assert_eq!(names, [group]);
        }
    }

    /// Without one of them, each test of the group would end at once.
    #[test]
    fn guests_are_also_named_by_what_runs_them() {
        let all = groups(&workspace::root().join("tests/tests")).unwrap();
        let hostile = all.iter().find(|group| group.name == "hostile").unwrap();
        let built = Built {
            init: PathBuf::new(),
            tests: Vec::new(),
            groups: vec![hostile.name.clone()],
            programs: BTreeMap::new(),
            source: hostile.read().unwrap(),
        };
        let is_packed =
            ["hostile", "neighbour", "hello"].map(|guest| built.names(guest, "release"));
        assert_eq!(is_packed, [true, true, false]);
    }

    #[test]
    fn what_a_test_starts_is_read_from_its_source() {
        let source = r#"Command::new(env!("CARGO_BIN_EXE_jailed")); env!("CARGO_BIN_EXE_soak")"#;
        let found: Vec<_> = starts(source).collect();
        assert_eq!(found, ["jailed", "soak"]);
    }
}
