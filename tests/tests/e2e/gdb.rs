//! gdb, attached to a guest that runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use wakebox_tests::programs::{output, program};
use wakebox_tests::{guest, guest_debug, kvm_test};

use crate::ends::marked;
use crate::waits::send;

/// `wakebox run --gdb`, and where it waits for gdb.
fn waiting(name: &std::path::Path, args: &[&str]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .args(["run", "--gdb"])
        .arg(name)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut line = String::new();
    let stderr = child.stderr.as_mut().expect("it is piped");
    BufReader::new(stderr).read_line(&mut line).expect("text");
    let (_, address) = line.split_once("target remote ").expect(&line);
    (child, address.trim_end_matches(['\'', '\n']).to_owned())
}

/// gdb with this guest, which connects and has these commands.
fn gdb(file: &std::path::Path, address: &str, commands: &[&str]) -> Command {
    let mut gdb = program("gdb");
    gdb.args(["-nx", "-quiet", "-batch"]).arg(file);
    gdb.args(["-ex", "set confirm off", "-ex", "set width 0"]);
    // That of Rust has no casts of pointers.
    gdb.args(["-ex", "set language c"]);
    gdb.arg("-ex").arg(format!("target remote {address}"));
    for command in commands {
        gdb.args(["-ex", command]);
    }
    gdb.stdin(Stdio::null());
    gdb
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[kvm_test]
fn a_guest_is_stopped_looked_at_changed_and_led_on_step_by_step() {
    let file = guest_debug("debugged");
    let (child, address) = waiting(&file, &[]);
    let at = format!("break debugged.rs:{}", marked("debugged", "break"));
    let number = "print *(unsigned*)&NUMBER";
    let commands = [
        "info registers rip",
        &at,
        "continue",
        number,
        "backtrace 1",
        "set var *(unsigned*)&NUMBER = 41",
        "next",
        number,
        "delete",
        "print/x $pc",
        "stepi",
        "print/x $pc",
        "x/i $pc",
        "continue",
    ];
    let said = text(&output(&mut gdb(&file, &address, &commands)));
    for words in [
        "Breakpoint 1, ",
        "debugged::count",
        "$1 = 20\n",
        "exited with code 07",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let values: Vec<_> = said
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .collect();
    let value = |name: &str| {
        values
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, value)| *value)
    };
    assert_eq!(value("$2"), Some("42"), "{said}");
    assert!(
        value("$3").is_some() && value("$3") != value("$4"),
        "{said}"
    );
    // The guest has gone on with what gdb has put there.
    let ended = child.wait_with_output().unwrap();
    assert_eq!(text(&ended.stdout), "42\n", "{said}");
    assert_eq!(ended.status.code(), Some(7), "{}", text(&ended.stderr));
}

#[kvm_test]
fn ctrl_c_in_gdb_stops_a_guest_that_sleeps_or_computes_and_it_goes_on_when_gdb_leaves() {
    let script = tempfile::NamedTempFile::with_suffix(".py").unwrap();
    let written = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("gdb-script")
        .output()
        .unwrap();
    std::fs::write(script.path(), written.stdout).unwrap();
    let source = format!("source {}", script.path().display());
    let file = guest_debug("debugged");
    for job in ["sleep", "compute"] {
        let (mut child, address) = waiting(&file, &[job]);
        let commands = [
            "continue",
            &source,
            "wakebox tasks",
            "stepi",
            "set var *(unsigned*)&NUMBER = 99",
            "detach",
        ];
        let mut gdb = gdb(&file, &address, &commands);
        let gdb = gdb
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "begins\n");
        send(&gdb, libc::SIGINT);
        let said = gdb.wait_with_output().unwrap();
        let said = text(&said.stdout) + &text(&said.stderr);
        for words in ["Program received signal SIGINT", "`main` (1) ", "detached"] {
            assert!(said.contains(words), "{job}: {words}: {said}");
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{job}: {said}");
    }
}

#[kvm_test]
fn a_fault_and_a_panic_are_looked_at_before_the_sandbox_ends() {
    for (name, args, signal, status) in [
        ("fault", "ud2", "SIGILL", 139),
        ("panic", "poll", "SIGABRT", 101),
    ] {
        let file = guest(name);
        let (child, address) = waiting(&file, &[args]);
        let said = text(&output(&mut gdb(
            &file,
            &address,
            &["continue", "backtrace", "continue"],
        )));
        assert!(
            said.contains(&format!("Program received signal {signal}")),
            "{said}"
        );
        assert!(said.contains(&format!("{name}::")), "{said}");
        let ended = child.wait_with_output().unwrap();
        let told = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(status), "{told}");
    }
}
