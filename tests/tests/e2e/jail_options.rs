//! Every option of the commands that run a guest, and every limit, inside the jail: what an option
//! has the command do takes system calls, and one that the filter does not know ends the process.
//!
//! The options are taken from the commands' own help and the limits from `LimitKind::ALL`: one that is
//! new fails here until there is a case for it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use wakebox::LimitKind;
use wakebox_tests::{guest, kvm_test};

fn wakebox(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.args(args).stdin(Stdio::null());
    command.output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The long options that a command's help names.
fn options(command: &str) -> BTreeSet<String> {
    let help = text(&wakebox(&[command, "--help"]).stdout);
    let option = |line: &str| {
        let words = line.trim_start();
        let long = words.strip_prefix("--").or_else(|| {
            let (short, long) = words.split_once(", --")?;
            (short.len() == 2 && short.starts_with('-')).then_some(long)
        })?;
        let end = long.find(|c: char| !c.is_ascii_lowercase() && c != '-');
        Some(long[..end.unwrap_or(long.len())].to_owned())
    };
    help.lines().filter_map(option).collect()
}

/// Values with which an option is tried.
fn values(option: &str, folder: &Path) -> Vec<Option<String>> {
    let at = |name: &str| folder.join(name).display().to_string();
    let one = |value: &str| vec![Some(value.to_owned())];
    match option {
        "wake" => ["out", "irq", "poll", "auto"]
            .map(|mode| Some(mode.into()))
            .into(),
        "io" => ["auto", "epoll", "uring"].map(|io| Some(io.into())).into(),
        "backtrace" => ["none", "short", "full"]
            .map(|most| Some(most.into()))
            .into(),
        "stats" | "lint" | "verbose" | "quiet" => vec![None],
        "color" => ["auto", "always", "never"]
            .map(|when| Some(when.into()))
            .into(),
        "symbols" => one(&guest("panic").display().to_string()),
        "report" | "crash-dump" | "trace" | "timeline" => vec![Some(at(option))],
        "trace-ring" => one("1024"),
        "mem" => one("32M"),
        "in-flight" => one("16"),
        "processors" => one("1"),
        "timeout" => one("100s"),
        "limit" => LimitKind::ALL
            .iter()
            .map(|kind| Some(format!("{}={}", kind.key(), generous(*kind))))
            .collect(),
        "policy" => {
            let file = at("policy.toml");
            std::fs::write(&file, "resolve = [\"localhost\"]\n").unwrap();
            vec![Some(file)]
        }
        "allow-connect" => one("localhost:1"),
        "allow-listen" | "allow-udp-bind" => one("127.0.0.1:0"),
        "allow-udp" => one("127.0.0.1:1"),
        "allow-unix" => one("/run/none"),
        "allow-resolve" => one("localhost"),
        "dir" => vec![
            Some(format!("{}:/data", folder.display())),
            Some(format!("{}:/data:ro", folder.display())),
        ],
        "env" => one("KEY=value"),
        "allow-fn" => one("kv.*"),
        // What is tried is the jail; there may be no shell.
        "host-fn" if Path::new("/bin/sh").exists() => one("price=cat"),
        "host-fn" => Vec::new(),
        "at" => ["parked", "call:sum=[40, 2]"]
            .map(|when| Some(when.into()))
            .into(),
        "open" => ["refuse", "end"].map(|what| Some(what.into())).into(),
        "zstd" => vec![None],
        "key" => {
            let file = at("key");
            std::fs::write(&file, [7; 32]).unwrap();
            vec![Some(file)]
        }
        option => panic!("`--{option}` is not tried in the jail: give it a value here"),
    }
}

/// A value of a limit that no guest here reaches.
fn generous(kind: LimitKind) -> &'static str {
    match kind {
        LimitKind::WallClock | LimitKind::CpuTime | LimitKind::HostFnTime => "100s",
        LimitKind::Memory | LimitKind::HostMemory => "64M",
        LimitKind::InFlight | LimitKind::Handles | LimitKind::Timers | LimitKind::Processors => {
            "64"
        }
        _ => "1M",
    }
}

/// Options that change what a command is, not what it does with a guest, and the one that each has.
const OTHER: [&str; 4] = ["help", "version", "no-jail", "output"];

#[kvm_test]
fn every_option_works_in_the_jail() {
    let folder = tempfile::tempdir().unwrap();
    let (panics, serves) = (guest("panic"), guest("calls"));
    let (panics, serves) = (panics.to_str().unwrap(), serves.to_str().unwrap());
    let template = folder.path().join("template");
    let template = template.to_str().unwrap();
    let snapshot = ["-o", template, "--", "serve"];
    for (command, guest, args, status) in [
        ("run", panics, &[][..], 101),
        ("call", serves, &["sum", "[40, 2]", "--", "serve"], 0),
        ("snapshot", serves, &snapshot[..], 0),
        // Whoever goes on from what the last one has written, with a key.
        ("call", template, &["sum", "[40, 2]"], 0),
    ] {
        let all = options(command);
        assert!(all.len() > 15, "{all:?}");
        let signed = values("key", folder.path())[0].clone().unwrap();
        if guest == template {
            let words = ["snapshot", serves, "--key", &signed, "--in-flight", "64"];
            let ended = wakebox(&[&words[..], &snapshot[..]].concat());
            assert!(ended.status.success(), "{}", text(&ended.stderr));
        }
        for option in all
            .iter()
            .filter(|option| !OTHER.contains(&option.as_str()))
        {
            match (command, option.as_str()) {
                // Those of another guest.
                ("call", "symbols") => continue,
                // That waits for a debugger: `gdb.rs` has it in the jail.
                ("run", "gdb") => continue,
                // Of what is no template no key tells anything.
                ("run" | "call", "key") if guest != template => continue,
                // Which the template has settled.
                ("call", "wake" | "mem" | "in-flight") if guest == template => continue,
                _ => {}
            }
            for value in values(option, folder.path()) {
                let option = format!("--{option}");
                let mut words = vec![command, &option];
                words.extend(value.as_deref());
                words.push(guest);
                words.extend(args);
                let ended = wakebox(&words);
                assert_eq!(
                    ended.status.code(),
                    Some(status),
                    "{words:?}: {}: {}",
                    ended.status,
                    text(&ended.stderr)
                );
            }
        }
    }
    // What was asked for was written, each time that there was something to write.
    for name in ["report", "trace", "timeline", "crash-dump"] {
        assert!(
            folder.path().join(name).metadata().unwrap().len() > 0,
            "{name}"
        );
    }
}

/// A limit's least value that lets a guest begin, a command that meets it, and what it ends with: its
/// status, and a word of its standard output or error.
fn meeting(kind: LimitKind) -> (&'static str, &'static [&'static str], i32, &'static str) {
    match kind {
        LimitKind::WallClock => ("50ms", &["run", "spin"], 124, "ran for longer"),
        LimitKind::CpuTime => ("50ms", &["run", "spin"], 124, "computed for longer"),
        LimitKind::Memory => (
            "4M",
            &["run", "quota", "--", "try-memory"],
            0,
            "refused true",
        ),
        LimitKind::InFlight => ("2", &["run", "concurrent"], 0, "five waits"),
        LimitKind::Handles => (
            "0",
            &["run", "quota", "--", "read", "/data/file"],
            0,
            "LimitReached",
        ),
        LimitKind::Timers => ("0", &["run", "concurrent"], 0, "five waits"),
        LimitKind::FilesIn => (
            "10",
            &["run", "quota", "--", "read", "/data/file"],
            0,
            "10 QuotaExceeded",
        ),
        LimitKind::FilesOut => (
            "10",
            &["run", "quota", "--", "write", "/data/new"],
            0,
            "QuotaExceeded",
        ),
        LimitKind::Stdin => (
            "10",
            &["run", "quota", "--", "input"],
            0,
            "10 QuotaExceeded",
        ),
        LimitKind::Stdout => ("10", &["run", "quota", "--", "print"], 0, "xxxxxxxxxx"),
        LimitKind::Log => ("10", &["run", "quota", "--", "log"], 124, "10 bytes"),
        LimitKind::NetworkIn => (
            "10",
            &["run", "quota", "--", "receive", ADDRESS],
            0,
            "10 QuotaExceeded",
        ),
        LimitKind::NetworkOut => (
            "10",
            &["run", "quota", "--", "send", ADDRESS],
            0,
            "10 QuotaExceeded",
        ),
        LimitKind::CallsIn | LimitKind::CallsOut => (
            "1",
            &["call", "calls", "greet", "\"somebody\"", "--", "serve"],
            1,
            "greet",
        ),
        LimitKind::HostMemory => (
            "1",
            &["call", "calls", "greet", "\"somebody\"", "--", "serve"],
            1,
            "greet",
        ),
        LimitKind::Processors => ("0", &["run", "hello"], 1, "0 is the limit"),
        // The command has no host functions: the limit is there and nothing meets it.
        LimitKind::HostFnTime => ("1ms", &["run", "hello"], 0, "Hello"),
        kind => panic!(
            "`{}` is not met in the jail: give it a case here",
            kind.key()
        ),
    }
}

/// Stands for where a server listens.
const ADDRESS: &str = "ADDRESS";

#[kvm_test]
fn every_limit_is_met_in_the_jail() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("file");
    std::fs::write(&input, "more than ten bytes").unwrap();
    let grant = format!("{}:/data", folder.path().display());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let _ = std::io::Write::write_all(&mut &stream, &[1; 100]);
                let _ = std::io::copy(&mut &stream, &mut std::io::sink());
            });
        }
    });
    for kind in LimitKind::ALL {
        let (least, words, status, word) = meeting(*kind);
        let limit = format!("{}={least}", kind.key());
        let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
        command
            .arg(words[0])
            .args(["--limit", &limit, "--dir", &grant]);
        command
            .args(["--allow-connect", &address])
            .arg(guest(words[1]));
        let rest = words[2..].iter();
        command.args(rest.map(|word| if *word == ADDRESS { &address } else { *word }));
        command.stdin(std::fs::File::open(&input).unwrap());
        let ended = command.output().expect("the command starts");
        let said = text(&ended.stdout) + &text(&ended.stderr);
        assert_eq!(
            ended.status.code(),
            Some(status),
            "{limit}: {} {said}",
            ended.status
        );
        assert!(said.contains(word), "expected `{word}` at {limit}: {said}");
    }
}
