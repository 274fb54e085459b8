//! The command: bad input is answered with one clear sentence, good input with the guest.

use std::io::{BufRead as _, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{guest, kvm_test};

fn wakebox() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// Runs the command and returns its output.
fn output(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Expects a failure that is explained by a sentence with all of `words`, on standard
/// error alone, without a backtrace.
#[track_caller]
fn refuses(command: &mut Command, words: &[&str]) {
    let output = output(command);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let code = output.status.code();
    assert!(matches!(code, Some(1..=2)), "status {code:?}: {stderr}");
    assert_eq!(stdout, "", "an error belongs on standard error");
    assert!(stderr.starts_with("error: "), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "expected `{word}` in: {stderr}");
    }
    for noise in ["backtrace", "panicked", "\x1b["] {
        assert!(!stderr.contains(noise), "{noise}: {stderr}");
    }
}

/// A file with these bytes, which goes away with the value.
fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    file
}

/// A guest that needs no more than the machine.
fn exits_with(value: u32) -> tempfile::NamedTempFile {
    file(&Elf::guest(&code::exit(value)).to_bytes())
}

#[test]
fn a_missing_file() {
    refuses(
        wakebox().args(["run", "/nonexistent/guest"]),
        &["/nonexistent/guest", "No such file"],
    );
}

#[test]
fn a_directory() {
    refuses(wakebox().args(["run", "/"]), &["/", "directory"]);
}

#[test]
fn an_empty_file() {
    let empty = file(b"");
    refuses(wakebox().arg("run").arg(empty.path()), &["empty"]);
}

#[test]
fn something_that_has_no_end() {
    refuses(
        wakebox().args(["run", "/dev/zero"]),
        &["/dev/zero", "not a regular file"],
    );
}

#[test]
fn a_program_for_this_host() {
    refuses(
        wakebox().arg("run").arg(std::env::current_exe().unwrap()),
        &["not a guest", "wakebox new"],
    );
}

#[test]
fn no_memory_or_more_than_there_is() {
    let guest = exits_with(0);
    refuses(
        wakebox().args(["run", "--mem", "0"]).arg(guest.path()),
        &["0"],
    );
    refuses(
        wakebox().args(["run", "--mem", "4K"]).arg(guest.path()),
        &["too small", "at least"],
    );
    refuses(
        wakebox().args(["run", "--mem", "1000T"]).arg(guest.path()),
        &["more than this machine has"],
    );
    for malformed in ["", "-1", "12X", "1e99", "99999999999999999999G", "NaN"] {
        refuses(
            wakebox()
                .arg("run")
                .arg(format!("--mem={malformed}"))
                .arg(guest.path()),
            &["--mem"],
        );
    }
}

#[test]
fn a_malformed_grant() {
    let target = "HOST[:PORT] or CIDR[:PORT]";
    for (option, form) in [
        ("--allow-connect", target),
        ("--allow-udp", target),
        ("--allow-listen", "ADDR:PORT"),
        ("--allow-udp-bind", "ADDR:PORT"),
    ] {
        for malformed in ["", "host:", ":80", "host:65536", "::1:80", "a b:80"] {
            refuses(
                wakebox()
                    .arg("run")
                    .arg(format!("{option}={malformed}"))
                    .arg("guest"),
                &[option, form],
            );
        }
    }
}

#[test]
fn other_malformed_options() {
    refuses(
        wakebox().args(["run", "--wake", "often", "guest"]),
        &["--wake", "often", "poll"],
    );
    refuses(
        wakebox().args(["run", "--timeout", "soon", "guest"]),
        &["--timeout", "soon"],
    );
    refuses(
        wakebox().args(["run", "--env", "novalue", "guest"]),
        &["--env", "novalue"],
    );
    refuses(wakebox().args(["run"]), &["GUEST"]);
    refuses(wakebox().args(["fly"]), &["fly"]);
}

/// The command in a mount namespace of its own, in which `prepare` was run before.
fn elsewhere(prepare: &str, guest: &Path) -> Command {
    // SAFETY: no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    let mut command = Command::new("unshare");
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--mount", "sh", "-c"])
        .arg(format!("{prepare} && exec \"$0\" run \"$1\""))
        .arg(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg(guest)
        .stdin(Stdio::null());
    command
}

#[test]
fn no_kvm() {
    let guest = exits_with(0);
    refuses(
        &mut elsewhere("mount -t tmpfs none /dev", guest.path()),
        &["/dev/kvm does not exist", "wakebox doctor"],
    );
}

#[kvm_test]
fn no_permission_on_kvm() {
    let guest = exits_with(0);
    // A device on a file system without devices may not be opened, not even by root.
    let prepare = "mount --bind /dev/kvm /dev/kvm && mount -o remount,bind,nodev /dev/kvm";
    refuses(
        &mut elsewhere(prepare, guest.path()),
        &["permission denied", "group"],
    );
}

#[kvm_test]
fn the_exit_status_is_the_guests() {
    for value in [0, 1, 42, 255] {
        let guest = exits_with(value);
        let output = output(wakebox().arg("run").arg(guest.path()));
        assert_eq!(output.status.code(), Some(value as i32));
        assert_eq!(
            (text(&output.stdout), text(&output.stderr)),
            Default::default()
        );
    }
}

#[kvm_test]
fn ends_that_are_not_the_guests_own_have_their_status() {
    let spins = file(&Elf::guest(&code::spin()).to_bytes());
    let faults = file(&Elf::guest(&code::load(0)).to_bytes());
    let sleeps = file(&Elf::guest(&code::wait(0)).to_bytes());
    for (guest, status, word) in [
        (&spins, 124, "50"),
        (&faults, 139, "null pointer"),
        (&sleeps, 123, "sleeps for ever"),
    ] {
        let output = output(
            wakebox()
                .args(["run", "--timeout", "50ms"])
                .arg(guest.path()),
        );
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
        assert!(!stderr.contains("\x1b["), "colours are for terminals");
    }
}

#[kvm_test]
fn statistics_go_to_standard_error() {
    let output = output(wakebox().args(["run", "--stats"]).arg(guest("hello")));
    assert!(output.status.success());
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let stderr = text(&output.stderr);
    for word in ["exits", "wakes", "ops", "executor", "time"] {
        assert!(stderr.contains(word), "expected `{word}` in: {stderr}");
    }
}

#[kvm_test]
fn a_closed_standard_input_is_an_end_of_file() {
    let command = format!(
        "exec {} run {} <&-",
        env!("CARGO_BIN_EXE_wakebox-cli"),
        guest("greet").display()
    );
    let output = output(Command::new("sh").args(["-c", &command]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("anonymous"));
}

#[kvm_test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = output(
        wakebox()
            .args(["run", "--allow-listen", &address])
            .arg(guest("echo"))
            .args(["--", &address]),
    );
    let stderr = text(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("in use"), "{stderr}");
    assert!(!stderr.contains("backtrace"), "{stderr}");
}

#[kvm_test]
fn an_output_that_nobody_reads_does_not_hang_or_panic() {
    let command = format!(
        "{} run {} | true; exit \"${{PIPESTATUS[0]}}\"",
        env!("CARGO_BIN_EXE_wakebox-cli"),
        guest("hello").display()
    );
    let output = output(Command::new("bash").args(["-c", &command]));
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("RUST_BACKTRACE"), "{stderr}");
}

#[test]
fn inspect_says_what_a_guest_is_and_why_another_is_none() {
    let good = exits_with(0);
    let output_of_good = output(wakebox().arg("inspect").arg(good.path()));
    assert!(output_of_good.status.success());
    assert!(text(&output_of_good.stdout).contains("r-x"));

    let bad = file(b"no guest");
    let output_of_bad = output(wakebox().arg("inspect").arg(bad.path()));
    assert_eq!(output_of_bad.status.code(), Some(1));
    assert!(text(&output_of_bad.stdout).contains("not an ELF file"));
}

#[kvm_test]
fn the_doctor_finds_this_machine_well() {
    let output = output(wakebox().arg("doctor"));
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(
        stdout.contains("This machine runs Wakebox guests."),
        "{stdout}"
    );
}

#[kvm_test]
fn the_doctor_names_each_program_that_tests_and_people_want_as_here_or_as_missing() {
    let said = text(&output(wakebox().arg("doctor")).stdout);
    let lines: Vec<_> = said.lines().collect();
    let has = |start: &str, name: &str| {
        lines.iter().any(|line| {
            let words = line.split(|c: char| c.is_whitespace() || c == ',');
            line.starts_with(start) && words.into_iter().any(|word| word == name)
        })
    };
    let listed = include_str!("../../../.ci/packages")
        .lines()
        .filter(|line| !line.starts_with('#'));
    let listed = listed.filter_map(|line| line.split_whitespace().next());
    for name in listed.chain([
        "cargo",
        "cc",
        "git",
        "componentize-py",
        "clang",
        "wakebox-wasm",
    ]) {
        assert!(has("ok   ", name) || has("note ", name), "{name}: {said}");
    }
    // On a machine that has nothing, nothing is said to be there.
    let bare = text(&output(wakebox().arg("doctor").env("PATH", "/nowhere")).stdout);
    for (name, by) in [
        ("gdb", "apt-get install gdb"),
        ("componentize-py", "pip install componentize-py"),
        ("cc", "apt-get install gcc libc6-dev"),
    ] {
        let missing = format!("{name} ({by})");
        assert!(bare.contains(&missing), "{missing}: {bare}");
    }
    assert!(bare.contains("This machine runs Wakebox guests."), "{bare}");
}

#[test]
fn help_is_on_standard_output() {
    for args in [&["--help"][..], &["run", "--help"], &["new", "--help"]] {
        let output = output(wakebox().args(args));
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("Usage:"));
    }
}

#[kvm_test]
fn a_guests_function_is_called_with_json() {
    let call = |function: &str, json: &str| {
        let mut command = wakebox();
        command
            .arg("call")
            .arg(guest("calls"))
            .args([function, json, "--", "serve"]);
        output(&mut command)
    };
    let sum = call("sum", "[40, 2]");
    assert_eq!(
        (sum.status.code(), text(&sum.stdout)),
        (Some(0), "42\n".into())
    );
    // Apart from that, what the guest itself writes.
    assert_eq!(text(&sum.stderr), "end\n");
    let greeting = call("greet", "\"you\"");
    assert_eq!(text(&greeting.stdout), "{\"Ok\":\"hello you\"}\n");
    let slow = call("slow", "0");
    assert_eq!(text(&slow.stdout), "0\n");
    for (function, json, word) in [
        ("greet", "7", "other arguments"),
        // Which is the guest's serde that says so.
        ("greet", "7", "invalid type: integer `7`, expected a string"),
        ("sum", "[1", "EOF while parsing a list at line 1"),
        ("none", "0", "`none`. It exports:"),
        ("none", "0", "\n  sum: (u64, u64) -> u64"),
    ] {
        let refused = call(function, json);
        assert_eq!(refused.status.code(), Some(1));
        assert!(
            text(&refused.stderr).contains(word),
            "{}",
            text(&refused.stderr)
        );
    }
}

#[kvm_test]
fn a_guests_arguments_need_no_dashes_before_them() {
    let given = |args: &[&str]| {
        let mut command = wakebox();
        command.arg("run").arg(guest("ops")).args(args);
        let said = text(&output(&mut command).stdout);
        let line = said.lines().find_map(|line| line.strip_prefix("args ok "));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    assert_eq!(given(&["friend"]), r#"["friend"]"#);
    // What stands behind the guest's first argument is the guest's.
    let args = ["--wake", "out", "one", "--stats", "two"];
    assert_eq!(given(&args), r#"["one", "--stats", "two"]"#);
    assert_eq!(given(&["--wake", "out", "--", "--stats"]), r#"["--stats"]"#);
    assert_eq!(given(&[]), "[]");
    // An option that there is not is no argument.
    refuses(
        wakebox().arg("run").arg(guest("ops")).arg("--stat"),
        &["--stat", "--stats"],
    );
}

#[test]
fn cargos_runner_leaves_to_this_host_what_is_no_guest() {
    let output = output(wakebox().args(["cargo-runner", "--", "/bin/echo", "--not", "a guest"]));
    assert_eq!(text(&output.stdout), "--not a guest\n");
    refuses(
        wakebox().args(["cargo-runner", "--", "/nonexistent/guest"]),
        &["/nonexistent/guest", "No such file"],
    );
}

#[kvm_test]
fn without_a_function_those_that_there_are_are_listed() {
    let mut command = wakebox();
    command
        .arg("call")
        .arg(guest("calls"))
        .args(["--", "serve"]);
    let output = output(&mut command);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<_> = said.lines().collect();
    assert!(lines.contains(&"sum: (u64, u64) -> u64"), "{said}");
    assert!(
        lines.contains(&"renamed.in.the.attribute: u32 -> u32"),
        "{said}"
    );
    let exported: Vec<_> = lines.iter().filter(|line| line.contains(": ")).collect();
    assert!(exported.is_sorted(), "{said}");
}

#[kvm_test]
fn a_function_may_have_another_name_for_the_host_and_many_parameters() {
    let call = |function: &str, json: &str| {
        let mut command = wakebox();
        command.arg("call").arg(guest("calls"));
        command.args([function, json, "--", "serve"]);
        text(&output(&mut command).stdout)
    };
    assert_eq!(call("renamed.in.the.attribute", "7"), "7\n");
    assert_eq!(call("many", "[1, 2, 3, 4, 5, 6, 7]"), "28\n");
}

#[kvm_test]
fn items_of_a_stream_are_lines_until_nobody_reads_them() {
    let stream = |function: &str, json: &str| {
        let mut command = wakebox();
        command.arg("call").arg(guest("calls"));
        command.args([function, json, "--", "serve"]);
        command
    };
    let all = output(&mut stream("countdown", "3"));
    assert_eq!(text(&all.stdout), "3\n2\n1\n");
    assert_eq!(text(&all.stderr), "end\n");
    // Has no end: the guest is told when the reader has gone.
    let mut endless = stream("endless", "null");
    let endless = endless.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = endless.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 0..3 {
        assert_eq!(lines.next().unwrap().unwrap(), n.to_string());
    }
    drop(lines);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (ended.status.code(), text(&ended.stderr)),
        (Some(0), "dropped\nend\n".into())
    );
}

#[kvm_test]
fn a_refusal_is_told_once_with_the_option_that_grants_it() {
    let mut command = wakebox();
    let url = "http://127.0.0.1:9/";
    command.arg("run").arg(guest("fetch")).args([url, url, url]);
    let told = text(&output(&mut command).stderr);
    let note = "note: refused connect 127.0.0.1:9; grant it with --allow-connect 127.0.0.1:9";
    assert_eq!(told.matches(note).count(), 1, "{told}");

    let mut command = wakebox();
    command
        .args(["run", "--quiet"])
        .arg(guest("fetch"))
        .arg(url);
    let told = text(&output(&mut command).stderr);
    assert!(!told.contains("note: "), "{told}");
}

#[test]
fn options_stand_under_the_heading_of_their_kind() {
    let help = |command: &str| text(&output(wakebox().args([command, "-h"])).stdout);
    let under = |help: &str, heading: &str| {
        let (_, behind) = help.split_once(&format!("\n{heading}")).expect(heading);
        let end = behind.find("\n\n").unwrap_or(behind.len());
        behind[..end].to_owned()
    };
    let run = help("run");
    for (heading, option) in [
        ("Arguments:", "[ARGS]"),
        ("Options:", "--color"),
        ("Options:", "--quiet"),
        ("Limits", "--mem"),
        ("Jail", "--no-jail"),
        ("Grants", "--allow-connect"),
        ("What is shown and written:", "--report"),
        ("What is shown and written:", "--stats"),
    ] {
        let found = under(&run, heading);
        assert!(found.contains(option), "no {option} under {heading}: {run}");
    }
    assert!(under(&help("call"), "Arguments:").contains("[JSON]"));
    assert!(under(&help("snapshot"), "Template:").contains("--output"));
}

#[test]
fn colours_are_what_was_wished() {
    let coloured = |options: &[&str]| {
        let mut command = wakebox();
        command.args(options).args(["run", "/nonexistent/guest"]);
        text(&output(&mut command).stderr).contains("\x1b[")
    };
    assert!(!coloured(&[]));
    assert!(!coloured(&["--color", "never"]));
    assert!(coloured(&["--color", "always"]));
}

#[test]
fn shells_and_man_are_told_of_every_option() {
    for shell in ["bash", "fish", "zsh"] {
        let script = text(&output(wakebox().args(["completions", shell])).stdout);
        assert!(script.contains("allow-connect"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    let output = output(wakebox().arg("man").arg(&pages));
    assert!(output.status.success(), "{}", text(&output.stderr));
    for page in ["wakebox.1", "wakebox-run.1", "wakebox-policy-check.1"] {
        assert!(pages.join(page).is_file(), "{page}");
    }
}
