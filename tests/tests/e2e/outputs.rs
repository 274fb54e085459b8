//! What the command writes: every byte arrives, or it says which did not and fails; and no file is
//! lost that was there before.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, PipeReader, Read as _, Write as _, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use wakebox::trace::json::Reader;
use wakebox_tests::terminal::Terminal;
use wakebox_tests::{guest, kvm_test};

fn wakebox(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.args(args).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn output(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

fn do_not_block(end: impl AsFd) {
    let flags = fcntl_getfl(&end).unwrap();
    fcntl_setfl(&end, flags | OFlags::NONBLOCK).unwrap();
}

/// More lines than a pipe holds, and what the guest `stdin` says to them.
fn many_lines() -> (String, String) {
    let lines: Vec<String> = (0..20_000).map(|line| format!("line {line}")).collect();
    let answer = |(index, line): (usize, &String)| format!("{}: {line}\n", index + 1);
    let answers: String = lines.iter().enumerate().map(answer).collect();
    (lines.join("\n") + "\n", answers + "end after 20000\n")
}

/// Has the guest `stdin` answer many lines through these ends of a pipe.
fn converse(input: impl Into<OwnedFd>, out: impl Into<OwnedFd>) -> Child {
    wakebox(&["run"])
        .arg(guest("stdin"))
        .stdin(input.into())
        .stdout(out.into())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

#[kvm_test]
fn every_byte_arrives_whether_the_pipes_block_or_not() {
    let (lines, answers) = many_lines();
    for blocks in [true, false] {
        let ((input, mut keyboard), (mut screen, out)) = (pipe().unwrap(), pipe().unwrap());
        if !blocks {
            do_not_block(&input);
            do_not_block(&out);
        }
        let run = converse(input, out);
        let lines = lines.clone();
        let typist = thread::spawn(move || keyboard.write_all(lines.as_bytes()));
        let mut shown = String::new();
        screen.read_to_string(&mut shown).unwrap();
        assert!(shown == answers, "{} of {}", shown.len(), answers.len());
        typist.join().unwrap().unwrap();
        let ended = run.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        assert_eq!(text(&ended.stderr), "");
    }
}

#[kvm_test]
fn a_reader_that_takes_its_time_gets_the_last_byte_too() {
    let (input, mut keyboard) = pipe().unwrap();
    let (mut screen, out) = pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&out, 4096).unwrap();
    let mut run = converse(input, out);
    keyboard
        .write_all(b"word\n".repeat(2_000).as_slice())
        .unwrap();
    drop(keyboard);
    // A piece at a time: the command cannot have ended before the last one is taken.
    let mut shown = Vec::new();
    let mut piece = [0; 512];
    loop {
        if shown.len() < 8_000 {
            assert_eq!(run.try_wait().unwrap(), None);
        }
        match screen.read(&mut piece).unwrap() {
            0 => break,
            count => shown.extend(&piece[..count]),
        }
    }
    assert!(text(&shown).ends_with("2000: word\nend after 2000\n"));
    assert!(run.wait().unwrap().success());
}

#[kvm_test]
fn a_prompt_is_shown_before_it_is_answered() {
    let (input, mut keyboard) = pipe().unwrap();
    let (mut screen, out) = pipe().unwrap();
    let mut run = wakebox(&["run"])
        .arg(guest("greet"))
        .stdin(OwnedFd::from(input))
        .stdout(OwnedFd::from(out))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut prompt = [0; "What is your name? ".len()];
    screen.read_exact(&mut prompt).unwrap();
    assert_eq!(&prompt, b"What is your name? ");
    keyboard.write_all(b"Ann\n").unwrap();
    let mut rest = String::new();
    screen.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\nHello, Ann!\n");
    assert!(run.wait().unwrap().success());
}

#[kvm_test]
fn output_that_cannot_be_written_is_said_and_fails() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let run = output(wakebox(&["run"]).arg(guest("hello")).stdout(full()));
    let said = text(&run.stderr);
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(
        said.contains("19 bytes of the guest's standard output"),
        "{said}"
    );
    assert!(said.contains("No space left"), "{said}");

    let (screen, out) = pipe().unwrap();
    drop(screen);
    let run = output(
        wakebox(&["run"])
            .arg(guest("hello"))
            .stdout(OwnedFd::from(out)),
    );
    assert_eq!(run.status.code(), Some(1));
    assert!(
        text(&run.stderr).contains("Broken pipe"),
        "{}",
        text(&run.stderr)
    );

    for option in ["--report", "--trace", "--timeline"] {
        let run = output(wakebox(&["run", option, "/dev/full"]).arg(guest("hello")));
        let said = text(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{option}: {said}");
        assert!(said.contains("No space left"), "{option}: {said}");
    }
    // The command's own words.
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("run.json");
    assert!(
        output(wakebox(&["run", "--trace"]).arg(&trace).arg(guest("hello")))
            .status
            .success()
    );
    for (command, status) in [("lint", 2), ("timeline", 1), ("explain", 1)] {
        let said = output(wakebox(&[command]).arg(&trace).stdout(full()));
        let why = text(&said.stderr);
        assert_eq!(said.status.code(), Some(status), "{command}: {why}");
        assert!(why.contains("No space left"), "{command}: {why}");
    }
}

#[kvm_test]
fn what_a_limit_cuts_off_is_counted() {
    let (input, mut keyboard) = pipe().unwrap();
    let (screen, out) = pipe().unwrap();
    // Nobody reads, until the run has ended.
    do_not_block(&out);
    while rustix::io::write(&out, &[b'.'; 4096]).is_ok() {}
    let run = wakebox(&["run", "--timeout", "1s"])
        .arg(guest("stdin"))
        .stdin(OwnedFd::from(input))
        .stdout(OwnedFd::from(out))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    keyboard.write_all(b"word\n").unwrap();
    drop(keyboard);
    let ended = run.wait_with_output().unwrap();
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(124), "{said}");
    let lost = "20 bytes of the guest's standard output did not arrive: the run ended";
    assert!(said.contains(lost), "{said}");
    drop::<PipeReader>(screen);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[kvm_test]
fn no_input_and_no_other_output_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::copy(guest("hello"), at("guest")).unwrap();
    fs::hard_link(at("guest"), at("hard")).unwrap();
    std::os::unix::fs::symlink("guest", at("soft")).unwrap();
    fs::write(at("policy"), "").unwrap();
    fs::write(at("old"), "as it was").unwrap();
    let before = names(folder.path());
    for option in ["--trace", "--timeline", "--report", "--crash-dump"] {
        let cases = [
            vec![option.to_owned(), at("guest")],
            vec![option.to_owned(), at("soft")],
            vec![option.to_owned(), at("hard")],
            vec![
                option.to_owned(),
                at("./../") + &name_of(folder.path()) + "/guest",
            ],
            vec!["--policy".into(), at("policy"), option.into(), at("policy")],
            vec!["--symbols".into(), at("hard"), option.into(), at("hard")],
            vec![
                option.to_owned(),
                at("old"),
                other(option).into(),
                at("old"),
            ],
            vec![
                option.to_owned(),
                at("new"),
                other(option).into(),
                at("./new"),
            ],
        ];
        for case in cases {
            let run = output(wakebox(&["run"]).args(&case).arg(at("guest")));
            let said = text(&run.stderr);
            assert_eq!(run.status.code(), Some(1), "{case:?}: {said}");
            assert!(said.contains("name another file"), "{case:?}: {said}");
            assert_eq!(text(&run.stdout), "", "{case:?}");
            assert_eq!(names(folder.path()), before, "{case:?}");
        }
        // Nor where standard input or output lead.
        let into = File::options().append(true).open(at("old")).unwrap();
        let run = output(wakebox(&["run", option, &at("old"), &at("guest")]).stdout(into));
        assert!(text(&run.stderr).contains("standard output"), "{run:?}");
        let from = File::open(at("old")).unwrap();
        let run = output(wakebox(&["run", option, &at("old"), &at("guest")]).stdin(from));
        assert!(text(&run.stderr).contains("standard input"), "{run:?}");
    }
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "as it was");
    assert_eq!(
        fs::read(at("guest")).unwrap(),
        fs::read(guest("hello")).unwrap()
    );
    assert!(
        output(&mut wakebox(&["run", &at("guest")]))
            .status
            .success()
    );
    // A trace is an input, too.
    let run = output(&mut wakebox(&[
        "run",
        "--trace",
        &at("trace"),
        &at("guest"),
    ]));
    assert!(run.status.success());
    let run = output(&mut wakebox(&["timeline", &at("trace"), &at("trace")]));
    assert!(text(&run.stderr).contains("name another file"), "{run:?}");
    assert!(Reader::open(at("trace")).is_ok());
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap().to_str().unwrap().to_owned()
}

fn other(option: &str) -> &'static str {
    match option {
        "--report" => "--trace",
        _ => "--report",
    }
}

#[kvm_test]
fn what_is_not_written_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let options = ["--trace", "--timeline", "--report", "--crash-dump"];
    let files = options.map(|option| at(option.trim_start_matches('-')));
    for file in &files {
        fs::write(file, "as it was").unwrap();
    }
    let before = names(folder.path());
    let run = |guest: &Path, options: &[&str]| {
        let files = options
            .iter()
            .map(|option| at(option.trim_start_matches('-')));
        let args: Vec<String> = options
            .iter()
            .map(ToString::to_string)
            .zip(files)
            .flat_map(|(option, file)| [option, file])
            .collect();
        output(wakebox(&["run"]).args(args).arg(guest))
    };
    // A guest that is not there, and one that is none.
    for guest in [Path::new("/nonexistent/guest"), Path::new("/etc/passwd")] {
        assert_eq!(run(guest, &options).status.code(), Some(1));
        for file in &files {
            assert_eq!(fs::read_to_string(file).unwrap(), "as it was", "{file}");
        }
        assert_eq!(names(folder.path()), before);
    }
    // One that ends by itself has nothing to dump.
    assert!(run(&guest("hello"), &options).status.success());
    assert_eq!(fs::read_to_string(at("crash-dump")).unwrap(), "as it was");
    assert_ne!(fs::read_to_string(at("report")).unwrap(), "as it was");
    assert_eq!(names(folder.path()), before);
}

#[kvm_test]
fn a_crash_dump_is_its_owners_alone_and_other_files_keep_their_rights() {
    let folder = tempfile::tempdir().unwrap();
    let (dump, report) = (folder.path().join("core"), folder.path().join("report"));
    for file in [&dump, &report] {
        fs::write(file, "old").unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o664)).unwrap();
    }
    let run = output(
        wakebox(&["run", "--crash-dump"])
            .arg(&dump)
            .arg("--report")
            .arg(&report)
            .arg(guest("panic")),
    );
    assert_eq!(run.status.code(), Some(101), "{run:?}");
    assert_eq!(fs::metadata(&dump).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&report).unwrap().mode() & 0o777, 0o664);
    assert!(fs::read(&dump).unwrap().starts_with(b"\x7fELF"));
}

#[kvm_test]
fn what_is_no_regular_file_is_written_as_it_comes() {
    let run = output(wakebox(&["run", "--report", "/dev/stdout"]).arg(guest("hello")));
    let said = text(&run.stdout);
    let (hello, report) = said.split_once('\n').unwrap();
    assert_eq!(hello, "Hello from ring 3.");
    let report: serde_json::Value = serde_json::from_str(report).unwrap();
    assert_eq!(report["end"], "exit");
    let run = output(wakebox(&["run", "--trace", "/dev/stderr"]).arg(guest("hello")));
    let whole: serde_json::Value = serde_json::from_slice(&run.stderr).unwrap();
    assert!(whole.as_array().unwrap().len() > 10);
    for option in ["--trace", "--report", "--timeline"] {
        let run = output(wakebox(&["run", option, "/dev/null"]).arg(guest("hello")));
        assert!(run.status.success(), "{option}: {}", text(&run.stderr));
    }
}

#[kvm_test]
fn a_dash_is_a_standard_stream() {
    let run = output(wakebox(&["run", "--report", "-"]).arg(guest("hello")));
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["end"], "exit");
    assert_eq!(text(&run.stderr), "Hello from ring 3.\n");

    let trace = output(wakebox(&["run", "--trace", "-"]).arg(guest("hello"))).stdout;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&trace).unwrap();
    let given = |args: &[&str]| {
        let trace = File::open(file.path()).unwrap();
        output(wakebox(args).stdin(trace))
    };
    let lint = given(&["lint", "-"]);
    assert!(text(&lint.stdout).contains("nothing found"), "{lint:?}");
    let story = given(&["explain", "-"]);
    assert!(text(&story.stdout).contains("hello"), "{story:?}");
    let page = given(&["timeline", "-"]);
    assert!(text(&page.stdout).contains("</html>"), "{page:?}");
    assert!(text(&page.stderr).contains("events"), "{page:?}");

    // One thing goes there, or nobody could tell where the other begins.
    for (args, words) in [
        (&["run", "--report", "-", "--trace", "-"][..], "the report"),
        (&["call", "--report", "-"], "the result of the call"),
        (&["explain", "--trace", "-"], "the story"),
    ] {
        let refused = output(wakebox(args).arg(guest("calls")));
        assert_eq!(refused.status.code(), Some(1));
        let why = text(&refused.stderr);
        assert!(why.contains(words) && why.contains("name a file"), "{why}");
    }
}

fn first_line(run: &mut Child) -> BufReader<std::process::ChildStdout> {
    let mut out = BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "spinning\n");
    out
}

/// A guest that spins, with a report and a trace, under `before`.
fn spinning(before: &[&str], folder: &Path) -> Command {
    let mut words: Vec<&str> = before.to_vec();
    words.push(env!("CARGO_BIN_EXE_wakebox-cli"));
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["run", "--report"])
        .arg(folder.join("report"))
        .arg("--trace")
        .arg(folder.join("trace"))
        .arg(guest("spin"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn is_whole(folder: &Path, status: i32) {
    let report = fs::read(folder.join("report")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["end"], "cancelled");
    assert_eq!(report["exit_status"], status);
    let mut trace = Reader::open(folder.join("trace")).unwrap();
    assert!(trace.by_ref().map(Result::unwrap).count() > 0 && trace.is_whole());
}

#[kvm_test]
fn signals_that_end_commands_end_a_run_in_order() {
    for (signal, status) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)] {
        let folder = tempfile::tempdir().unwrap();
        let mut run = spinning(&[], folder.path()).spawn().unwrap();
        let _out = first_line(&mut run);
        kill_process(Pid::from_child(&run), signal).unwrap();
        let ended = run.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(status), "{}", text(&ended.stderr));
        is_whole(folder.path(), status);
    }
}

#[kvm_test]
fn an_interrupt_ends_also_what_a_shell_has_put_into_the_background() {
    let folder = tempfile::tempdir().unwrap();
    let ignoring = ["sh", "-c", "trap '' INT; exec \"$0\" \"$@\""];
    let mut run = spinning(&ignoring, folder.path()).spawn().unwrap();
    let _out = first_line(&mut run);
    kill_process(Pid::from_child(&run), Signal::INT).unwrap();
    let ended = run.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", text(&ended.stderr));
    is_whole(folder.path(), 130);
}

#[kvm_test]
fn signals_that_end_commands_end_the_first_process_of_a_namespace() {
    for (signal, status) in [("HUP", 129), ("INT", 130), ("TERM", 143)] {
        let folder = tempfile::tempdir().unwrap();
        // SAFETY: no preconditions.
        let is_root = unsafe { libc::geteuid() } == 0;
        let unshare: &[&str] = if is_root {
            &["unshare", "--pid", "--fork", "--kill-child"]
        } else {
            &[
                "unshare",
                "--user",
                "--map-root-user",
                "--pid",
                "--fork",
                "--kill-child",
            ]
        };
        let mut run = spinning(unshare, folder.path()).spawn().unwrap();
        let _out = first_line(&mut run);
        // The kernel lists the one child of `unshare`, whatever it is called inside.
        let id = run.id();
        let children = format!("/proc/{id}/task/{id}/children");
        let child = fs::read_to_string(children).unwrap();
        let killed = Command::new("kill")
            .args(["-s", signal, child.trim()])
            .status();
        assert!(killed.unwrap().success());
        let ended = run.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(status), "{}", text(&ended.stderr));
        is_whole(folder.path(), status);
    }
}

#[kvm_test]
fn another_signal_ends_the_command_at_once() {
    let (screen, out) = pipe().unwrap();
    let (mut wrote, said) = pipe().unwrap();
    // It stays in its report, which nobody takes.
    do_not_block(&out);
    while rustix::io::write(&out, &[b'.'; 4096]).is_ok() {}
    let mut run = wakebox(&["run", "--report", "/dev/stdout"])
        .arg(guest("spin"))
        .stdout(OwnedFd::from(out))
        .stderr(OwnedFd::from(said))
        .spawn()
        .unwrap();
    let id = Pid::from_child(&run);
    while !is_caught(run.id()) {
        thread::yield_now();
    }
    kill_process(id, Signal::TERM).unwrap();
    // How the guest ended is said before the report is written.
    wrote.read_exact(&mut [0; 8]).unwrap();
    assert_eq!(run.try_wait().unwrap(), None);
    let status = loop {
        if let Some(status) = run.try_wait().unwrap() {
            break status;
        }
        let _ = kill_process(id, Signal::TERM);
        thread::yield_now();
    };
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    drop::<PipeReader>(screen);
}

/// Whether a process has a handler for SIGTERM.
fn is_caught(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & 1 << (libc::SIGTERM - 1) != 0)
}

#[kvm_test]
fn what_a_guest_returns_cannot_move_the_cursor_and_is_untouched_elsewhere() {
    let name = "\"\u{9b}2J\u{202e}\u{1b}[2J\"".replace('\u{1b}', "\\u001b");
    let call = || {
        let mut command = wakebox(&["call"]);
        command
            .arg(guest("calls"))
            .args(["greet", &name, "--", "serve"]);
        command
    };
    let piped = text(&output(&mut call()).stdout);
    assert!(piped.contains("\u{9b}2J\u{202e}"), "{piped:?}");
    let mut terminal = Terminal::start(&mut call(), 80, 24);
    assert_eq!(terminal.ends().code(), Some(0));
    let shown = text(terminal.bytes());
    assert!(
        shown.contains("hello \\u009b2J\\u202e\\u001b[2J"),
        "{shown:?}"
    );
    for harm in ['\u{9b}', '\u{202e}', '\u{1b}'] {
        assert!(!shown.contains(harm), "{shown:?}");
    }
}
