//! Policies: files, options, and what the command says about them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use wakebox::{Error, Policy, Sandbox};
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{guest, kvm_test, run};

fn wakebox() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with a policy in it.
fn written(policy: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("policy.toml");
    fs::write(&file, policy).unwrap();
    (dir, file)
}

#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "expected `{word}` in: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn check_says_what_a_file_grants() {
    let (_dir, file) = written("connect = ['api.example.com:443']\ndirs = ['.:/data:ro']");
    let output = output(wakebox().args(["policy", "check"]).arg(file));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    for sentence in [
        "The guest may connect by TCP to api.example.com, port 443, at public addresses.",
        "which it sees as /data.",
        "It may reach nothing else.",
    ] {
        assert!(stdout.contains(sentence), "{stdout}");
    }
}

#[test]
fn limits_are_said_and_set_in_files_and_options() {
    let (_dir, file) = written("[limits]\ncpu-time = '2s'\nhandles = 100\nlog = 'unlimited'");
    let said = output(wakebox().args(["policy", "check"]).arg(&file));
    assert!(said.status.success(), "{}", text(&said.stderr));
    for sentence in [
        "It gets at most 2.00 s of time on a processor; then it is ended.",
        "It gets at most 100 open handles; then opening is refused.",
        "It gets at most 64 MiB of memory; then allocations fail.",
        "Without limit: wall-clock,",
    ] {
        assert!(
            text(&said.stdout).contains(sentence),
            "{}",
            text(&said.stdout)
        );
    }
    let table = text(&output(wakebox().args(["policy", "limits"])).stdout);
    assert!(
        table.contains("host-fn-time    60.0 s  for a call"),
        "{table}"
    );
    assert!(table.contains("stdout       unlimited  to"), "{table}");

    let (_dir, wrong) = written("limits.speed = 1");
    fails(
        &output(wakebox().args(["policy", "check"]).arg(wrong)),
        &["policy.toml", "limits", "speed", "cpu-time"],
    );
    fails(
        &output(wakebox().args(["run", "--limit", "cpu-time=5", "guest"])),
        &["--limit", "cpu-time", "500ms"],
    );
}

#[kvm_test]
fn options_count_before_files() {
    let (_dir, file) = written("limits.log = 10");
    let run = |options: &[&str]| {
        output(
            wakebox()
                .args(["run", "--policy"])
                .arg(&file)
                .args(options)
                .arg(guest("quota"))
                .args(["--", "log"]),
        )
    };
    let limited = run(&[]);
    assert_eq!(limited.status.code(), Some(124));
    let stderr = text(&limited.stderr);
    assert!(
        stderr.contains("more than 10 bytes to standard error"),
        "{stderr}"
    );
    assert!(run(&["--limit", "log=unlimited"]).status.success());
}

#[test]
fn a_limit_that_is_given_twice_has_one_value() {
    for twice in [
        &["--limit", "handles=3", "--limit", "handles=4"][..],
        &["--mem", "64M", "--limit", "memory=32M"],
        &["--timeout", "1s", "--limit", "wall-clock=unlimited"],
    ] {
        let run = output(wakebox().arg("run").args(twice).arg(guest("hello")));
        let (key, _) = twice[3].split_once('=').unwrap();
        fails(&run, &[key, "it is given as", "and as"]);
    }
}

#[test]
fn a_policy_on_standard_input_is_one() {
    let check = |policy: &str| {
        let (_dir, file) = written(policy);
        let file = fs::File::open(file).unwrap();
        output(wakebox().args(["policy", "check", "-"]).stdin(file))
    };
    let checked = check("connect = ['api.example.com:443']");
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).contains("to api.example.com, port 443"));
    fails(&check("connects = []"), &["-", "connects"]);
    let twice = ["run", "--policy", "-", "--policy", "-"];
    fails(
        &output(wakebox().args(twice).arg(guest("hello"))),
        &["given twice"],
    );
}

/// Runs the folder `.` as a guest in a folder whose `wakebox.toml` says this.
fn project(dir: &Path, lines: &str, options: &[&str]) -> Output {
    let file = dir.join("wakebox.toml");
    fs::write(&file, lines).unwrap();
    // Whatever the umask here.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    in_folder(dir, options)
}

fn in_folder(dir: &Path, options: &[&str]) -> Output {
    output(wakebox().arg("run").args(options).current_dir(dir))
}

#[kvm_test]
fn a_folder_says_what_its_guest_is_and_may_do() {
    let (dir, _) = written("limits.log = 10");
    let dir = dir.path();
    fs::copy(guest("quota"), dir.join("built")).unwrap();
    let lines = "guest = 'built'\npolicy = ['policy.toml']";
    let limited = project(dir, lines, &[".", "log"]);
    assert_eq!(limited.status.code(), Some(124), "{limited:?}");
    let said = text(&limited.stderr);
    let note = "note: ./wakebox.toml has the guest ./built, with --policy ./policy.toml\n";
    assert!(said.starts_with(note), "{said}");
    // It counts for whom it names, and not for a guest that somebody else names.
    assert!(in_folder(dir, &["built", "log"]).status.success());

    fs::copy(guest("hello"), dir.join("built")).unwrap();
    let granted = in_folder(dir, &["--quiet"]);
    assert_eq!(text(&granted.stdout), "Hello from ring 3.\n");
    assert_eq!(text(&granted.stderr), "");
    // Nor for a folder below.
    fs::create_dir(dir.join("below")).unwrap();
    let below = in_folder(&dir.join("below"), &[]);
    fails(
        &below,
        &["is a directory without a `wakebox.toml`", "GUEST"],
    );
}

#[test]
fn a_folders_file_that_others_can_write_grants_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let wrong = project(dir, "guest = 'built'\nconnect = ['a.test']", &[]);
    fails(&wrong, &["wakebox.toml", "connect", "policy"]);
    let file = dir.join("wakebox.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    fails(&in_folder(dir, &[]), &["wakebox.toml", "chmod o-w"]);
}

#[test]
fn a_folders_file_that_is_none_or_has_no_end_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, file) = (dir.path(), dir.path().join("wakebox.toml"));
    // Nobody ever writes to it.
    let name = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
    // SAFETY: the name lasts as long as the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o644) }, 0);
    fails(
        &in_folder(dir, &[]),
        &["wakebox.toml", "not a regular file"],
    );
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    fails(
        &in_folder(dir, &[]),
        &["wakebox.toml", "not a regular file"],
    );
    fs::remove_file(&file).unwrap();
    let long = format!("guest = '{}'", "a".repeat(1 << 20));
    fails(
        &project(dir, &long, &[]),
        &["wakebox.toml", "longer than 1 MiB"],
    );
}

#[test]
fn check_finds_what_cannot_be_granted() {
    let (_dir, file) = written("dirs = ['missing:/data']\nenv = ['WAKEBOX_NO_SUCH_VARIABLE']");
    fails(
        &output(wakebox().args(["policy", "check"]).arg(file)),
        &["missing", "No such file", "WAKEBOX_NO_SUCH_VARIABLE"],
    );
    let (_dir, file) = written("connect = ['a b']");
    fails(
        &output(wakebox().args(["policy", "check"]).arg(file)),
        &["policy.toml", "connect", "`a b`"],
    );
    let nowhere = Path::new("/nonexistent/policy.toml");
    fails(
        &output(wakebox().args(["policy", "check"]).arg(nowhere)),
        &["/nonexistent/policy.toml", "No such file"],
    );
}

#[test]
fn grants_that_cannot_be_are_refused_with_their_name() {
    let elf = Elf::guest(&code::exit(0)).to_bytes();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &elf).unwrap();
    let refuses = |options: &[&str], words: &[&str]| {
        fails(
            &output(wakebox().arg("run").args(options).arg(file.path())),
            words,
        );
    };
    refuses(&["--dir", "data"], &["--dir", "HOST:GUEST"]);
    refuses(&["--dir", "/tmp:data"], &["--dir", "slash"]);
    refuses(&["--dir", "/tmp:/a/../b"], &["--dir", ".."]);
    refuses(
        &["--dir", "/tmp:/d", "--dir", "/var:/d/"],
        &["two directories", "/d"],
    );
    refuses(&["--dir", "/nonexistent:/d"], &["/nonexistent", "No such"]);
    refuses(&["--dir", "/etc/passwd:/d"], &["/etc/passwd", "directory"]);
    refuses(&["--allow-unix", "a.sock"], &["a.sock", "absolute"]);
    refuses(&["--allow-resolve", "a b"], &["--allow-resolve", "PATTERN"]);
    refuses(&["--allow-fn", "a*b"], &["--allow-fn", "kv.*"]);
    refuses(&["--policy", "/nonexistent"], &["/nonexistent"]);
}

#[kvm_test]
fn files_and_options_add_up() {
    let (dir, file) = written("dirs = ['one:/one']\nenv = ['A=file', 'B=file']");
    for name in ["one", "two"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("file"), name).unwrap();
    }
    let output = output(
        wakebox()
            .args(["run", "--stats", "--policy"])
            .arg(file)
            .arg("--dir")
            .arg(format!("{}:/two:ro", dir.path().join("two").display()))
            .arg(guest("files"))
            .args(["--", "read /one/file", "read /two/file", "rm /two/file"]),
    );
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        stdout.lines().collect::<Vec<_>>(),
        ["ok \"one\"", "ok \"two\"", "PermissionDenied"]
    );
    assert!(stderr.contains("1 by policy (file 1)"), "{stderr}");
}

#[kvm_test]
fn variables_come_from_the_policy_and_the_builder_has_the_last_word() {
    let policy = Policy::new()
        .allow_env("A=policy".parse().unwrap())
        .allow_env("B=policy".parse().unwrap())
        .allow_env("PATH".parse().unwrap());
    let builder = Sandbox::builder()
        .guest(guest("variables"))
        .policy(policy)
        .env("B", "builder");
    let ended = run(builder).success();
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert_eq!(ended.lines(), ["A=policy", "B=builder", &path]);
}

#[test]
fn a_directory_that_is_not_there_is_an_error_of_the_host() {
    let policy = Policy::new().allow_dir("/nonexistent:/d".parse().unwrap());
    let elf = Elf::guest(&code::exit(0)).to_bytes();
    let error = Sandbox::builder().guest(elf).policy(policy).build();
    assert!(matches!(error, Err(Error::Grant { .. })), "{error:?}");
}

#[kvm_test]
fn without_a_policy_everything_is_refused_and_nothing_ends() {
    let commands = [
        "tcp 127.0.0.1:80",
        "tcp localhost:80",
        "tcp [::1]:80",
        "listen 127.0.0.1:0",
        "bind 0.0.0.0:0",
        "unix /run/x.sock",
        "lookup localhost",
    ];
    let builder = Sandbox::builder().guest(guest("sockets")).args(commands);
    let ended = run(builder).success();
    assert_eq!(ended.lines(), ["PermissionDenied"; 7]);
    assert_eq!(
        ended.stats.refused,
        [
            ("connect", 3),
            ("listen", 1),
            ("udp bind", 1),
            ("unix", 1),
            ("resolve", 1)
        ]
    );
    let commands = [
        "read /etc/passwd",
        "write /x y",
        "list /",
        "mkdir /x",
        "rm /x",
    ];
    let builder = Sandbox::builder().guest(guest("files")).args(commands);
    let ended = run(builder).success();
    assert_eq!(ended.lines(), ["PermissionDenied"; 5]);
    assert_eq!(ended.stats.refused, [("file", 5)]);
}
