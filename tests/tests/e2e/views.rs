//! `explain`, `top` and `lint`: what they show of a run, on terminals and elsewhere.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use wakebox::trace::json::{Reader, Writer};
use wakebox::trace::lint::{Lint, Thresholds};
use wakebox::trace::{EventKind, Sink};
use wakebox_tests::terminal::Terminal;
use wakebox_tests::{guest, kvm_test, made_up, memory, require_kvm};

fn wakebox(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.args(words).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A command about a guest.
fn about(guest_name: &str, words: &[&str], args: &[&str]) -> Command {
    let mut command = wakebox(words);
    command.arg(guest(guest_name)).arg("--").args(args);
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

#[track_caller]
fn refused(command: &mut Command, words: &[&str]) {
    let output = output(command);
    let stderr = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1..=2)), "{output:?}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` in {stderr}");
    }
}

// Lint ---------------------------------------------------------------------------------

#[kvm_test]
fn each_mistake_is_found_and_named() {
    for (mistake, task) in [
        ("no-waker", "forgetful"),
        ("never-woken", "forgotten"),
        ("long-poll", "main"),
        ("wake-storm", "woken"),
        ("spurious-polls", "main"),
        ("wake-circle", "impatient"),
        ("late-timer", "timer"),
    ] {
        let output = output(&mut about("careless", &["run", "--lint"], &[mistake]));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{mistake}: {stderr}");
        let expected = format!("{mistake}: task `{task}` ");
        assert!(stderr.contains(&expected), "`{expected}` in {stderr}");
        if task != "main" {
            assert!(stderr.contains("careless.rs:"), "{stderr}");
        }
        assert!(!stderr.contains('\x1b'), "{stderr}");
    }
}

#[kvm_test]
fn what_only_looks_careless_is_not_blamed() {
    let output = output(&mut about("careless", &["run", "--lint"], &["careful"]));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("nothing found in "), "{stderr}");
    assert_eq!(output.status.code(), Some(0), "{stderr}");
}

#[kvm_test]
fn how_many_tasks_were_not_looked_at_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    let file = file.to_str().unwrap();
    let words = [
        "run",
        "--lint",
        "--trace",
        file,
        "--trace-ring",
        "1048576",
        "--mem",
        "128M",
    ];
    let watched = output(&mut about("careless", &words, &["crowd"]));
    let sentence = "10 tasks were not looked at, because too many others lived";
    let stderr = text(&watched.stderr);
    assert!(stderr.contains(sentence), "{stderr}");
    // That is no finding. On a busy machine so many tasks take one poll for long, which is one.
    let mut lint = wakebox(&["lint", "--long-poll", "1h", "--late-timer", "1h", file]);
    let read = output(&mut lint);
    let stdout = text(&read.stdout);
    assert!(stdout.contains(sentence), "{stdout}");
    assert!(stdout.contains("nothing found in "), "{stdout}");
    assert_eq!(read.status.code(), Some(0), "{stdout}");
}

#[kvm_test]
fn the_demos_are_clean() {
    let folder = tempfile::tempdir().unwrap();
    for (demo, options, args) in [
        ("hello", &[][..], &[][..]),
        ("sequential", &[], &[]),
        ("concurrent", &[], &[]),
        ("pipeline", &[], &[]),
        ("greet", &[], &[]),
        ("storm", &[], &["1000", "20000"]),
        ("grep", &["--dir", "tests:/data:ro"], &["pending"]),
    ] {
        let file = folder.path().join(demo);
        let mut command = wakebox(&["run", "--trace-ring", "1048576"]);
        command.current_dir(wakebox_tests::root());
        command.args(options).arg("--trace").arg(&file);
        let output = command
            .arg(guest(demo))
            .arg("--")
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{demo}: {output:?}");
        clean(&file, demo);
    }
}

#[track_caller]
fn clean(file: &Path, what: &str) {
    // Late timers are left out: the machine may be busy with other tests.
    let mut command = wakebox(&["lint", "--late-timer", "1h"]);
    let output = output(command.arg(file));
    assert_eq!(output.status.code(), Some(0), "{what}: {output:?}");
    assert!(text(&output.stdout).starts_with("nothing found"));
}

#[kvm_test]
fn a_program_reads_the_same_findings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    let mut run = wakebox(&["run", "--trace"]);
    let ran = output(
        run.arg(&file)
            .arg(guest("careless"))
            .args(["--", "no-waker"]),
    );
    assert!(ran.status.success(), "{ran:?}");
    let found = output(wakebox(&["lint", "--json"]).arg(&file));
    assert_eq!(found.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let finding = &report["findings"][0];
    assert_eq!(finding["kind"], "no-waker");
    assert_eq!(finding["name"], "forgetful");
    assert!(finding["place"].as_str().unwrap().contains("careless.rs:"));
    assert!(finding["advice"].as_str().unwrap().contains("cx.waker()"));
    assert_eq!(report["whole"], true);
}

#[test]
fn what_is_no_trace_is_refused_with_a_status_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let other = br#"[{"name":"wakebox_trace","args":{"format":77,"wakebox":"9.9.9"}},"#;
    for (path, words) in [
        (file("empty", b""), "empty"),
        (file("foreign", b"\x7fELF"), "no trace"),
        (file("other", other), "version 77"),
        (folder.path().join("missing"), "No such file"),
    ] {
        let mut command = wakebox(&["lint"]);
        refused(command.arg(&path), &[words]);
        assert_eq!(output(&mut command).status.code(), Some(2));
    }
}

#[test]
fn a_trace_that_was_cut_off_is_looked_at_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.json");
    let mut writer = Writer::create(&path).unwrap();
    for event in made_up::server(3, 2_000) {
        if !matches!(event.kind, EventKind::Finished { .. }) {
            writer.event(&event).unwrap();
        }
    }
    writer.caught_up().unwrap();
    drop(writer);
    let len = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(len - 10).unwrap();
    let output = output(wakebox(&["lint"]).arg(&path));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("ends before the run did"), "{stdout}");
    assert!(stdout.contains("nothing found"), "{stdout}");
    assert_eq!(output.status.code(), Some(0));
}

#[kvm_test]
fn a_run_that_was_killed_leaves_a_trace_and_a_page_of_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("run.json");
    let page = folder.path().join("live.html");
    let mut command = wakebox(&["run", "--trace"]);
    command.arg(&trace).arg("--timeline").arg(&page);
    command.arg(guest("traced"));
    // It would go on for hours.
    command.args(["--", "events", "1000000000"]);
    let mut child = command.spawn().unwrap();
    let len = || std::fs::metadata(&trace).map_or(0, |file| file.len());
    while len() < 1 << 20 {
        assert_eq!(child.try_wait().unwrap(), None, "it goes on");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));

    let mut reader = Reader::open(&trace).unwrap();
    let events = reader.by_ref().map(Result::unwrap).count();
    assert!(events > 1_000 && !reader.is_whole(), "{events}");
    let linted = output(wakebox(&["lint"]).arg(&trace));
    let said = text(&linted.stdout);
    assert!(
        said.contains("note: the trace ends before the run did"),
        "{said}"
    );
    assert_eq!(linted.status.code(), Some(0), "{said}");
    let told = output(wakebox(&["explain"]).arg(&trace));
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert!(text(&told.stdout).contains("task `main` is spawned"));
    let made = output(wakebox(&["timeline"]).arg(&trace));
    let said = text(&made.stdout);
    assert!(
        said.ends_with("; the trace ends before the run did\n"),
        "{said}"
    );
    // What the run itself had written of its page.
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("id=\"trace\">\n") && !page.contains("\"summary\":"));
}

/// A trace as long as one likes, made while it is read: a block of lines again and again, most of them
/// lines that only draw.
struct Endless {
    head: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    left: u64,
}

impl std::io::Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let from = if self.head.is_empty() {
            &self.block[self.at..]
        } else {
            &self.head[..]
        };
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let count = from.len().min(into.len()).min(most);
        into[..count].copy_from_slice(&from[..count]);
        self.left -= count as u64;
        if self.head.is_empty() {
            self.at = (self.at + count) % self.block.len();
        } else {
            self.head.drain(..count);
        }
        Ok(count)
    }
}

#[test]
fn two_gibibytes_are_streamed_and_not_loaded() {
    wakebox_tests::alone!("two_gibibytes_are_streamed_and_not_loaded", || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.json");
        let mut writer = Writer::create(&path).unwrap();
        for event in made_up::server(10, 500) {
            if !matches!(event.kind, EventKind::Finished { .. }) {
                writer.event(&event).unwrap();
            }
        }
        writer.caught_up().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let head = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut block = bytes[head..].to_vec();
        // What only draws, so that it is the length that takes the time.
        for _ in 0..20 {
            block.extend_from_slice(br#"{"cat":"cause","name":""#);
            block.resize(block.len() + (1 << 20) - 100, b'x');
            block.extend_from_slice(b"\"},\n");
        }
        let endless = Endless {
            head: bytes[..head].to_vec(),
            block,
            at: 0,
            left: 2 << 30,
        };
        let mut lint = Lint::new(Thresholds::default());
        let before = memory::heap_in_use();
        let mut most = 0;
        for event in Reader::new(BufReader::new(endless)).unwrap() {
            // Cut off in the middle of a line, which is no event then.
            lint.look(&event.unwrap());
            most = most.max(memory::heap_in_use());
        }
        assert!(lint.report().events > 40_000);
        let grown = most.saturating_sub(before);
        assert!(grown < 32 << 20, "{grown} bytes");
    });
}

// Explain ------------------------------------------------------------------------------

#[kvm_test]
fn a_run_is_told_with_what_the_guest_prints_in_its_place() {
    let output = output(&mut about(
        "traced",
        &["explain", "--wake", "out"],
        &["story"],
    ));
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let mut rest = stdout.as_str();
    for words in [
        "task `main` is spawned",
        "task `main` is polled for the first time",
        "task `asker` is polled for the first time",
        "task `asker` is Pending on Nop #",
        "`out WAIT`",
        "the host parks the machine",
        "task `main` is Ready",
        "| told",
        "the run is over: the guest ended with code 0",
    ] {
        let at = rest.find(words);
        let at = at.unwrap_or_else(|| panic!("`{words}` in its place in:\n{stdout}"));
        rest = &rest[at..];
    }
    assert!(!stdout.contains('\x1b'), "no colours in a pipe");
}

#[kvm_test]
fn names_do_what_they_like_neither_live_nor_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    let live = output(&mut about(
        "traced",
        &["explain", "--trace", file.to_str().unwrap()],
        &["names"],
    ));
    let told = output(wakebox(&["explain"]).arg(&file));
    for output in [live, told] {
        let stdout = text(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        assert!(stdout.contains("task `\\u{202e}\\u{0}\\n`"), "{stdout}");
        assert!(stdout.contains("naïve 名前"));
        assert!(!stdout.contains('\u{202e}') && !stdout.contains('\0'));
    }
}

#[kvm_test]
fn a_reader_that_goes_away_ends_it_quietly() {
    // Far more than a pipe holds.
    let mut child = about("traced", &["explain"], &["events", "1000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("begins"));
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

/// Runs a command whose standard output and standard error nobody reads.
fn unheard(command: &mut Command) -> ExitStatus {
    let pipe = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    command.stdout(pipe()).stderr(pipe());
    command.status().unwrap()
}

#[kvm_test]
fn what_nobody_reads_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("run.json");
    let words = [
        "run",
        "--stats",
        "--lint",
        "--trace",
        trace.to_str().unwrap(),
    ];
    let ran = unheard(&mut about("careless", &words, &["no-waker"]));
    assert_eq!(ran.code(), Some(1), "as lint has it");
    let died = unheard(&mut about("traced", &["run"], &["die"]));
    assert_eq!(died.code(), Some(101));
    for (words, code) in [
        (&["lint"][..], 1),
        (&["lint", "--json"], 1),
        (&["explain"], 0),
        (&["timeline"], 0),
        (&["inspect"], 1),
    ] {
        let status = unheard(wakebox(words).arg(&trace));
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
    let inspected = unheard(wakebox(&["inspect"]).arg(guest("traced")));
    assert_eq!(inspected.code(), Some(0));
    let refused = unheard(wakebox(&["lint"]).arg("/nonexistent"));
    assert_eq!(refused.code(), Some(2));
}

#[test]
fn stepping_wants_a_terminal() {
    refused(
        &mut wakebox(&["explain", "--step", "guest"]),
        &["--step", "no terminal"],
    );
}

#[kvm_test]
fn a_step_a_key_and_q_ends_it() {
    let mut command = about("traced", &["explain", "--step"], &["story"]);
    let mut terminal = Terminal::start(&mut command, 40, 20);
    terminal.shows("begins");
    assert!(!terminal.text().contains("spawned"));
    for (key, words) in [(" ", "spawned"), ("\r", "is polled")] {
        // What a step shows comes in pieces, and all of it counts.
        while !terminal.text().contains(words) {
            let lines = terminal.text().matches('\n').count();
            terminal.press(key);
            terminal.shows_times("\n", lines + 1);
        }
    }
    terminal.press("q");
    assert_eq!(terminal.ends().code(), Some(0));
}

// Top ----------------------------------------------------------------------------------

#[test]
fn top_wants_a_terminal() {
    refused(
        &mut wakebox(&["top", "guest"]),
        &["terminal", "wakebox explain"],
    );
}

fn top_of_a_server(columns: u16, rows: u16) -> Terminal {
    require_kvm();
    let mut command = wakebox(&["top", "--allow-listen", "127.0.0.1:0"]);
    command.arg(guest("echo")).args(["--", "127.0.0.1:0"]);
    let mut terminal = Terminal::start(&mut command, columns, rows);
    terminal.shows("main");
    terminal.shows("listening");
    terminal.shows("q quit");
    terminal
}

/// The terminal was given back.
fn left(terminal: &Terminal) {
    let shown = text(terminal.bytes());
    assert!(shown.contains("\x1b[?1049l"), "the other screen is left");
    let (hidden, visible) = (shown.rfind("\x1b[?25l"), shown.rfind("\x1b[?25h"));
    assert!(hidden <= visible, "a cursor that was hidden is shown again");
}

#[kvm_test]
fn top_shows_the_tasks_survives_a_resize_and_quits() {
    let mut terminal = top_of_a_server(100, 30);
    terminal.shows("waits for");
    for (columns, rows) in [(40, 12), (3, 2), (120, 40)] {
        terminal.resize(columns, rows);
        if columns >= 40 {
            terminal.shows("main");
            terminal.shows("q quit");
        }
    }
    terminal.press("q");
    assert_eq!(terminal.ends().code(), Some(0));
    left(&terminal);
}

#[kvm_test]
fn top_gives_the_terminal_back_at_ctrl_c_and_at_a_signal() {
    let mut terminal = top_of_a_server(80, 24);
    terminal.press("\x03");
    assert_eq!(terminal.ends().code(), Some(0));
    left(&terminal);

    let mut terminal = top_of_a_server(80, 24);
    let process = rustix::process::Pid::from_raw(terminal.id().cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    assert_eq!(terminal.ends().code(), Some(0));
    left(&terminal);
}

#[kvm_test]
fn top_stays_when_the_guest_has_ended_and_then_says_how() {
    let mut command = about("traced", &["top"], &["die"]);
    let mut terminal = Terminal::start(&mut command, 100, 30);
    terminal.shows("the guest panicked");
    terminal.press("q");
    assert_eq!(terminal.ends().code(), Some(101));
    left(&terminal);
    let shown = terminal.text();
    assert!(shown.contains("enough"), "{shown}");
}

#[kvm_test]
fn a_guest_that_cannot_be_run_leaves_the_terminal_as_it_was() {
    let mut command = wakebox(&["top", "/nonexistent/guest"]);
    let mut terminal = Terminal::start(&mut command, 100, 30);
    assert_eq!(terminal.ends().code(), Some(1));
    left(&terminal);
    let shown = terminal.text();
    assert!(shown.contains("/nonexistent/guest"), "{shown}");
}
