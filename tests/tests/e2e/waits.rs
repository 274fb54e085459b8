//! What the tasks of a guest wait for, asked while it runs and told when it was stopped.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wakebox::{Builder, LockHolder, Outcome, Policy, Sandbox, Task, Waits, WakeMode};
use wakebox_tests::{ends, guest, guest_debug, kvm_test, root, run, runtime};

/// The line of a guest's source with such a comment, as a task's location has it.
fn mark(mark: &str) -> String {
    let path = root().join("tests/guests/probes/src/bin/waits.rs");
    let source = std::fs::read_to_string(path).expect("the guest's source");
    let comment = format!("// MARK {mark}");
    let line = source.lines().position(|line| line.ends_with(&comment));
    format!("waits.rs:{}:", line.expect("a line with the mark") + 1)
}

fn probe(args: &[&str]) -> Builder {
    Sandbox::builder()
        .guest(guest("waits"))
        .args(args.iter().copied())
}

fn named<'a>(tasks: &'a [Task], name: &str) -> &'a Task {
    let task = tasks.iter().find(|task| task.name == name);
    task.unwrap_or_else(|| panic!("no task `{name}` in {tasks:#?}"))
}

#[kvm_test(modes)]
fn a_deadlock_on_two_locks_names_both_tasks(mode: WakeMode) {
    for file in [guest("waits"), guest_debug("waits")] {
        let builder = probe(&["locks"]).guest(file).wake(mode);
        let mut sandbox = builder.build().unwrap();
        let outcome = runtime().block_on(ends(&mut sandbox));
        assert_eq!(outcome, Outcome::Deadlock);
        let tasks = sandbox.tasks();
        assert_eq!(tasks.len(), 3, "{tasks:#?}");
        for name in ["first", "second"] {
            let task = named(tasks, name);
            assert_eq!(task.waits, Waits::Other, "{task}");
            let location = task.location.as_deref().unwrap_or_default();
            assert!(location.contains(&mark(name)), "{task}");
            // As long as the guest was not stuck, because somebody slept.
            assert!(task.since >= Some(LATER), "{task}");
        }
        let number = named(tasks, "first").number;
        let main = named(tasks, "main");
        assert_eq!(main.waits, Waits::Task { number });
        assert_eq!(main.location, None);
    }
}

/// Of the guest.
const LATER: Duration = Duration::from_millis(30);

#[kvm_test(modes)]
fn a_deadlock_on_two_mutexes_says_who_holds_what_since_when(mode: WakeMode) {
    for file in [guest("waits"), guest_debug("waits")] {
        let builder = probe(&["mutexes"]).guest(file).wake(mode);
        let mut sandbox = builder.build().unwrap();
        let outcome = runtime().block_on(ends(&mut sandbox));
        assert_eq!(outcome, Outcome::Deadlock);
        let tasks = sandbox.tasks();
        for (waiter, other, has) in [("first", "second", "has b"), ("second", "first", "has a")] {
            let task = named(tasks, waiter);
            let Waits::Lock {
                holder:
                    Some(LockHolder {
                        task: number,
                        name,
                        location,
                        since,
                        ..
                    }),
            } = &task.waits
            else {
                panic!("{task}");
            };
            assert_eq!(*number, named(tasks, other).number);
            assert_eq!(name.as_deref(), Some(other));
            assert!(location.contains(&mark(has)), "{task}");
            assert!(*since >= LATER && task.since >= Some(LATER), "{task}");
            assert!(
                task.to_string()
                    .contains(&format!("`{other}` ({number}) has held since"))
            );
        }
    }
}

/// A server that takes connections and says nothing.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[kvm_test(modes)]
fn who_asks_learns_what_each_task_waits_for(mode: WakeMode) {
    let (_listener, address) = silent();
    let policy = Policy::new().allow_connect(address.parse().unwrap());
    let builder = probe(&["host", &address]).policy(policy).wake(mode);
    let mut sandbox = builder.build().unwrap();
    let handle = sandbox.handle();
    assert!(!handle.is_ended());
    let told = runtime().block_on(async {
        let asks = async {
            loop {
                let tasks = handle.tasks().await.expect("it runs");
                // What a task has just submitted, the host may not have taken yet.
                let reads = |task: &Task| {
                    task.name == "reads" && matches!(task.waits, Waits::Operation { .. })
                };
                let sleeps = |task: &Task| {
                    task.name == "sleeps" && matches!(task.waits, Waits::Timer { .. })
                };
                if tasks.iter().any(reads) && tasks.iter().any(sleeps) {
                    handle.kill();
                    break tasks;
                }
                tokio::task::yield_now().await;
            }
        };
        let (outcome, told) = tokio::join!(ends(&mut sandbox), asks);
        assert_eq!(outcome, Outcome::Cancelled);
        told
    });
    for tasks in [&told[..], sandbox.tasks()] {
        let reads = named(tasks, "reads").to_string();
        assert!(reads.contains("waits for ReadStream #"), "{reads}");
        assert!(reads.contains(&format!(" on {address} since ")), "{reads}");
        let sleeps = named(tasks, "sleeps");
        let hour = |left: u64| (3000..=3600).contains(&left);
        assert!(
            matches!(sleeps.waits, Waits::Timer { left } if hour(left.as_secs())),
            "{sleeps}"
        );
    }
    assert_eq!(runtime().block_on(handle.tasks()), None);
    assert!(handle.is_ended());
}

#[kvm_test]
fn a_guest_that_says_that_its_tasks_have_no_end_is_not_believed() {
    let mut sandbox = probe(&["lies"]).build().unwrap();
    let outcome = runtime().block_on(ends(&mut sandbox));
    assert_eq!(outcome, Outcome::Deadlock);
    let tasks = sandbox.tasks();
    assert_eq!(tasks.len(), 256);
    let told = tasks[0].to_string();
    assert!(told.len() < 4096, "{}", told.len());
    assert!(!told.contains('\x1b'), "{told}");
}

#[kvm_test(modes)]
fn a_task_may_block_on_the_host(mode: WakeMode) {
    let ended = run(probe(&["block"]).wake(mode)).success();
    let expected = [
        "at once",
        "slept",
        "another task",
        "slept again",
        "a timer of another task",
    ];
    assert_eq!(ended.lines(), expected);
}

/// The command with a guest that waits, and the lines of its standard error.
fn command(address: &str, options: &[&str]) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("run")
        .args(["--allow-connect", address])
        .args(options)
        .arg(guest("waits"))
        .args(["host", address])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut ready = [0; 6];
    let stdout = child.stdout.as_mut().expect("it is piped");
    stdout.read_exact(&mut ready).expect("its first line");
    assert_eq!(&ready, b"ready\n");
    let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    (child, stderr.lines().map(|line| line.expect("text")))
}

pub(crate) fn send(child: &Child, signal: libc::c_int) {
    let id = libc::pid_t::try_from(child.id()).expect("a process number");
    // SAFETY: it takes numbers, and the child was not waited for.
    assert_eq!(unsafe { libc::kill(id, signal) }, 0);
}

/// What SIGQUIT makes the command say of the three tasks.
fn asked(child: &Child, lines: &mut impl Iterator<Item = String>) -> Vec<String> {
    send(child, libc::SIGQUIT);
    assert_eq!(lines.next().as_deref(), Some("tasks:"));
    lines.take(3).collect()
}

/// Asks until all tasks have been polled, and returns what is said then.
fn asked_until_all_wait(child: &Child, lines: &mut impl Iterator<Item = String>) -> Vec<String> {
    loop {
        let told = asked(child, lines);
        if told[2].contains("waits for a timer") {
            return told;
        }
    }
}

#[kvm_test]
fn sigquit_tells_the_tasks_and_the_guest_goes_on() {
    let (_listener, address) = silent();
    let (mut child, mut lines) = command(&address, &[]);
    asked_until_all_wait(&child, &mut lines);
    // It has gone on.
    let told = asked(&child, &mut lines);
    assert!(told[0].starts_with("  `main` (1) "), "{told:?}");
    assert!(told[1].contains(&format!("on {address} since")), "{told:?}");
    assert!(told[2].contains("waits for a timer"), "{told:?}");
    send(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[kvm_test]
fn a_time_out_and_a_signal_tell_the_tasks_in_text_and_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let path = report.to_str().expect("text");
    for (options, status) in [
        (&["--report", path, "--timeout", "2s"][..], 124),
        (&["--report", path], 130),
    ] {
        let (_listener, address) = silent();
        let (mut child, mut lines) = command(&address, options);
        if status == 130 {
            asked_until_all_wait(&child, &mut lines);
            send(&child, libc::SIGINT);
        }
        let told = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(child.wait().unwrap().code(), Some(status), "{told}");
        assert!(told.contains("tasks:\n  `main` (1) waits for"), "{told}");
        assert!(told.contains(&format!(" on {address} since ")), "{told}");
        let text = std::fs::read_to_string(&report).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["tasks"].as_array().map(Vec::len), Some(3), "{text}");
        assert_eq!(json["tasks"][1]["waits"]["for"], "operation", "{text}");
    }
}

#[kvm_test]
fn who_runs_a_guest_that_only_serves_is_told_so() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("run")
        .arg(guest("calls"))
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("text");
    assert!(line.starts_with("note: the guest serves calls"), "{line}");
    send(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
