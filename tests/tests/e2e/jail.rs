//! The jail around the process: what a guest that broke out would find. Each case is a process of
//! its own (`src/bin/jailed.rs`, or the command).

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use wakebox::WakeMode;
use wakebox::jail::Kernel;
use wakebox_tests::{guest, kvm_test};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The program that enters a jail.
fn jailed<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jailed"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// What the program wrote, which ended well.
#[track_caller]
fn said(args: &[&str]) -> String {
    let output = jailed(args);
    let stderr = text(&output.stderr);
    assert!(
        output.status.success(),
        "{args:?}: {}: {stderr}",
        output.status
    );
    text(&output.stdout).trim_end().into()
}

/// The command `wakebox`, in its jail.
fn wakebox<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs the command, expects that it ends well, and returns what it wrote.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}{stderr}",
        output.status
    );
    stdout
}

/// The command as a server, which is killed at the end; its first line is awaited.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        let mut stdout = BufReader::new(stdout);
        stdout.read_line(&mut line).expect("it says something");
        assert!(line.contains("127.0.0.1"), "{line}");
        thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The version of Landlock here; without it, what is tested is not there.
fn landlock() -> u32 {
    let version = Kernel::look().landlock;
    version.expect("this kernel has no Landlock: `wakebox doctor` says what it takes")
}

/// A port that was free a moment ago.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn a_forbidden_call_ends_the_process() {
    let cases: &[(&str, i64, &[i64])] = &[
        ("execve", libc::SYS_execve, &[]),
        ("execveat", libc::SYS_execveat, &[]),
        ("fork", libc::SYS_fork, &[]),
        ("vfork", libc::SYS_vfork, &[]),
        (
            "clone of a process",
            libc::SYS_clone,
            &[i64::from(libc::SIGCHLD)],
        ),
        (
            "clone into a namespace",
            libc::SYS_clone,
            &[i64::from(libc::CLONE_THREAD | libc::CLONE_NEWUSER)],
        ),
        ("unshare", libc::SYS_unshare, &[0]),
        ("setns", libc::SYS_setns, &[-1]),
        ("ptrace", libc::SYS_ptrace, &[-1]),
        ("process_vm_readv", libc::SYS_process_vm_readv, &[]),
        ("process_vm_writev", libc::SYS_process_vm_writev, &[]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, &[-1]),
        ("kill", libc::SYS_kill, &[1]),
        ("tgkill of another process", libc::SYS_tgkill, &[1, 1]),
        ("bpf", libc::SYS_bpf, &[-1]),
        ("perf_event_open", libc::SYS_perf_event_open, &[]),
        ("io_uring_setup", libc::SYS_io_uring_setup, &[]),
        ("userfaultfd", libc::SYS_userfaultfd, &[-1]),
        ("mount", libc::SYS_mount, &[]),
        ("umount2", libc::SYS_umount2, &[]),
        ("pivot_root", libc::SYS_pivot_root, &[]),
        ("chroot", libc::SYS_chroot, &[]),
        ("kexec_load", libc::SYS_kexec_load, &[-1]),
        ("init_module", libc::SYS_init_module, &[]),
        ("reboot", libc::SYS_reboot, &[0]),
        ("keyctl", libc::SYS_keyctl, &[-1]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, &[-1]),
        ("setuid", libc::SYS_setuid, &[0]),
        ("chmod", libc::SYS_chmod, &[]),
        (
            "prctl",
            libc::SYS_prctl,
            &[i64::from(libc::PR_SET_DUMPABLE), 1],
        ),
        (
            "prlimit64 that sets",
            libc::SYS_prlimit64,
            &[0, i64::from(libc::RLIMIT_NOFILE), 1],
        ),
        ("socket", libc::SYS_socket, &[i64::from(libc::AF_INET), 1]),
        ("ioctl TIOCSTI", libc::SYS_ioctl, &[0, libc::TIOCSTI as i64]),
        ("ioctl KVM_CREATE_IRQCHIP", libc::SYS_ioctl, &[-1, 0xAE60]),
    ];
    for (name, number, arguments) in cases {
        let output = forbidden(*number, arguments);
        assert_eq!(
            output.status.signal(),
            Some(libc::SIGSYS),
            "{name}: {} {} {}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        assert_eq!(text(&output.stdout), "", "{name}");
    }
}

fn forbidden(number: i64, arguments: &[i64]) -> Output {
    jailed(["call", &numbers(number, arguments)])
}

fn numbers(number: i64, arguments: &[i64]) -> String {
    let numbers: Vec<String> = [number]
        .iter()
        .chain(arguments)
        .map(ToString::to_string)
        .collect();
    numbers.join(",")
}

/// Whatever is granted, a socket connects by `connect` alone, which Landlock looks at, and no datagram
/// goes to a path.
#[test]
fn nothing_connects_or_sends_to_a_path_past_landlock() {
    let fast_open = i64::from(libc::MSG_FASTOPEN);
    let somewhere = [-1, 0, 0, 0, 1, 16];
    let unix = i64::from(libc::AF_UNIX);
    let datagrams = i64::from(libc::SOCK_DGRAM | libc::SOCK_CLOEXEC);
    // Which the kernel takes for one of datagrams.
    let raw = i64::from(libc::SOCK_RAW);
    let packets = i64::from(libc::SOCK_SEQPACKET);
    let calls: &[(&str, i64, &[i64])] = &[
        (
            "sendto, fast open",
            libc::SYS_sendto,
            &[-1, 0, 0, fast_open, 1, 16],
        ),
        (
            "sendto, fast open, no address",
            libc::SYS_sendto,
            &[-1, 0, 0, fast_open],
        ),
        ("sendmsg", libc::SYS_sendmsg, &[-1, 0, 0]),
        ("sendmsg, fast open", libc::SYS_sendmsg, &[-1, 0, fast_open]),
        (
            "sendmmsg, fast open",
            libc::SYS_sendmmsg,
            &[-1, 0, 0, fast_open],
        ),
        (
            "pair of datagrams",
            libc::SYS_socketpair,
            &[unix, datagrams],
        ),
        ("pair of packets", libc::SYS_socketpair, &[unix, packets]),
        ("raw pair", libc::SYS_socketpair, &[unix, raw]),
        ("socket of datagrams", libc::SYS_socket, &[unix, datagrams]),
        ("socket of packets", libc::SYS_socket, &[unix, packets]),
        ("raw socket", libc::SYS_socket, &[unix, raw]),
        ("io_uring_setup", libc::SYS_io_uring_setup, &[1]),
        ("TCP_FASTOPEN_CONNECT", libc::SYS_setsockopt, &[-1, 6, 30]),
        ("TCP_REPAIR", libc::SYS_setsockopt, &[-1, 6, 19]),
        ("TCP_ULP", libc::SYS_setsockopt, &[-1, 6, 31]),
        ("multipath TCP", libc::SYS_socket, &[2, 1, 262]),
        ("SCTP", libc::SYS_socket, &[2, 1, 132]),
    ];
    let all = "connect listen udp unix names";
    let grants: Vec<&str> = ["", "unix names", all]
        .into_iter()
        .chain(all.split(' '))
        .collect();
    for grants in &grants {
        for (name, number, arguments) in calls {
            let output = jailed(["call-with", grants, &numbers(*number, arguments)]);
            let answer = text(&output.stdout);
            let killed = output.status.signal() == Some(libc::SIGSYS) && answer.is_empty();
            // Where the resolver would try it.
            let refused = answer.trim() == format!("error Some({})", libc::ENOSYS);
            assert!(
                killed || refused,
                "{name} with `{grants}`: {} {answer}",
                output.status
            );
        }
    }
    // An address beside what is sent is there for datagrams alone.
    for grants in grants {
        let output = jailed(["call-with", grants, &numbers(libc::SYS_sendto, &somewhere)]);
        let killed = output.status.signal() == Some(libc::SIGSYS);
        let has_datagrams = grants.contains("udp") || grants.contains("names");
        assert_eq!(killed, !has_datagrams, "with `{grants}`: {}", output.status);
    }
}

#[test]
fn a_call_that_a_library_can_do_without_fails() {
    let private = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    for (number, arguments) in [
        (
            libc::SYS_mmap,
            &[
                0,
                4096,
                i64::from(libc::PROT_READ | libc::PROT_EXEC),
                private,
                -1,
            ][..],
        ),
        (libc::SYS_mprotect, &[0, 0, i64::from(libc::PROT_EXEC)]),
        (libc::SYS_clone3, &[]),
        (libc::SYS_readlink, &[]),
    ] {
        let error = said(&["call", &numbers(number, arguments)]);
        assert_eq!(error, format!("error Some({})", libc::ENOSYS));
    }
}

#[test]
fn a_call_that_is_granted_is_made() {
    let sync = numbers(libc::SYS_getpriority, &[]);
    assert_eq!(jailed(["call", &sync]).status.signal(), Some(libc::SIGSYS));
    assert!(said(&["granted-call", &sync]).starts_with("value"));
    // Refused before, and looked at before.
    let link = numbers(libc::SYS_readlink, &[]);
    assert_eq!(
        said(&["granted-call", &link]),
        format!("error Some({})", libc::EINVAL)
    );
    let control = numbers(libc::SYS_ioctl, &[-1, 0xAE60]);
    assert_eq!(
        said(&["granted-call", &control]),
        format!("error Some({})", libc::EBADF)
    );
}

#[kvm_test]
fn a_forbidden_call_ends_the_process_from_every_thread() {
    for which in ["main", "trace", "blocking"] {
        let guest = guest("calls");
        let output = jailed([OsStr::new("thread"), which.as_ref(), guest.as_ref()]);
        assert_eq!(
            (output.status.signal(), text(&output.stdout)),
            (Some(libc::SIGSYS), String::new()),
            "{which}: {}",
            text(&output.stderr)
        );
    }
}

#[test]
fn no_file_outside_the_grants_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for name in ["granted", "other"] {
        fs::create_dir(at(name)).unwrap();
        fs::write(at(&format!("{name}/file")), "bytes").unwrap();
    }
    std::os::unix::fs::symlink(at("other/file"), at("granted/link")).unwrap();
    landlock();
    let (refused, both) = ("Err(PermissionDenied)", "Ok(()) Ok(())");
    let neither = &*format!("{refused} {refused}");
    let read_only = &*format!("Ok(()) {refused}");
    let (grant, read_grant) = (
        format!("{}:/data", at("granted")),
        format!("{}:/data:ro", at("granted")),
    );
    for (grant, path, expected) in [
        (&grant, at("granted/file"), both),
        (&grant, at("granted/link"), neither),
        (&grant, at("granted/../other/file"), neither),
        (&grant, at("other/file"), neither),
        (&grant, "/etc/passwd".into(), neither),
        (&grant, "/proc/self/mem".into(), neither),
        (&grant, "/etc/group".into(), neither),
        (&read_grant, at("granted/file"), read_only),
        (&read_grant, at("other/file"), neither),
    ] {
        assert_eq!(said(&["file", grant, &path]), expected, "{path} in {grant}");
    }
    for (granted, path, expected) in [
        (format!("r:{}", at("other/file")), "other/file", read_only),
        (format!("w:{}", at("other/file")), "other/file", both),
        (format!("w:{}", at("other")), "other/file", both),
        (format!("w:{}", at("other")), "granted/file", neither),
        (format!("r:{}", at("none")), "granted/file", neither),
    ] {
        let found = said(&["named-file", &granted, &at(path)]);
        assert_eq!(found, expected, "{path} with {granted}");
    }
}

#[test]
fn no_tcp_port_outside_the_grants_can_be_used() {
    let (one, other) = (free_address(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |address: &str| address.rsplit(':').next().unwrap_or_default().to_owned();
    let (one, other) = (port(&one), other.local_addr().unwrap().port().to_string());
    let refused = match landlock() {
        0..=3 => "Ok(())",
        _ => "Err(PermissionDenied)",
    };
    assert_eq!(said(&["tcp", &other, &other]), "Ok(())");
    assert_eq!(said(&["tcp", &one, &other]), refused);
    assert_eq!(said(&["bind", &one, &one]), "Ok(())");
    assert_eq!(said(&["bind", "0", "0"]), "Ok(())");
    assert_eq!(said(&["bind", "0", &one]), refused);
}

#[test]
fn a_second_thread_is_too_late() {
    let error = said(&["late"]);
    for words in ["too late", "2 threads", "main"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_jail_in_a_jail_is_forbidden() {
    assert_eq!(jailed(["twice"]).status.signal(), Some(libc::SIGSYS));
}

/// `Name: value` lines of all threads' status.
fn statuses(process: u32, name: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let tasks = tasks.filter_map(Result::ok).filter_map(status);
    let value = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim_start_matches(':').trim().to_owned())
    };
    tasks.filter_map(value).collect()
}

#[kvm_test]
fn every_thread_of_the_command_is_in_the_jail_unless_told_otherwise() {
    for (options, privileges, filters) in [(&[][..], "1", "2"), (&["--no-jail"], "0", "0")] {
        let mut run = wakebox(["run"].iter().chain(options))
            .arg(guest("echo"))
            .args(["--allow-listen", "127.0.0.1:0", "--", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(run.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let seen = [
            statuses(run.id(), "NoNewPrivs"),
            statuses(run.id(), "Seccomp"),
        ];
        let _ = run.kill();
        let _ = run.wait();
        // Main, two workers, the ticker, and the driver if there are two processors.
        assert!(seen[0].len() >= 4, "{seen:?}");
        assert!(seen[0].iter().all(|value| value == privileges), "{seen:?}");
        assert!(seen[1].iter().all(|value| value == filters), "{seen:?}");
    }
}

#[kvm_test]
fn the_command_says_what_holds_it() {
    for (options, words) in [
        (
            &["-v"][..],
            &["no new privileges", "Landlock (ABI", "seccomp"][..],
        ),
        (&["-v", "--no-jail"], &["jail: none"]),
        (&[], &[]),
    ] {
        let output = wakebox(["run"].iter().chain(options))
            .arg(guest("hello"))
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert_eq!(stderr.is_empty(), words.is_empty(), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "expected `{word}` in: {stderr}");
        }
    }
}

#[kvm_test]
fn a_kernel_that_lacks_a_part_is_told_apart_and_guests_run_all_the_same() {
    let landlock: Vec<String> = [
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
    ]
    .map(|call| call.to_string())
    .into();
    let landlock = landlock.join(",");
    let seccomp = libc::SYS_seccomp.to_string();
    for (calls, error, has, lacks) in [
        (&landlock, libc::ENOSYS, "seccomp", "no Landlock"),
        (&landlock, libc::EOPNOTSUPP, "seccomp", "no Landlock"),
        (
            &seccomp,
            libc::ENOSYS,
            "Landlock (ABI",
            "no seccomp filters",
        ),
    ] {
        let error = error.to_string();
        let command = env!("CARGO_BIN_EXE_wakebox-cli");
        let lacking = |args: &[&str]| {
            let all = [&["lacking", calls, &error, command][..], args].concat();
            let output = jailed(all);
            assert!(output.status.success(), "{}", text(&output.stderr));
            (text(&output.stdout), text(&output.stderr))
        };
        let hello = guest("hello").display().to_string();
        let (stdout, stderr) = lacking(&["run", "-v", &hello]);
        assert!(stdout.contains("Hello"), "{stdout}");
        for word in [has, lacks] {
            assert!(stderr.contains(word), "expected `{word}` in: {stderr}");
        }
        let (_, quiet) = lacking(&["run", &hello]);
        assert_eq!(quiet, "", "only who asks is told");
        let (doctor, _) = lacking(&["doctor"]);
        assert!(doctor.contains(lacks), "{doctor}");
        assert!(doctor.contains("This machine runs Wakebox guests."));
    }
}

#[kvm_test]
fn the_doctor_says_what_the_kernel_has_for_the_jail() {
    let stdout = succeeds(&mut wakebox(["doctor"]));
    let line = stdout.lines().find(|line| line.contains("the jail around"));
    let line = line.unwrap_or_else(|| panic!("{stdout}"));
    for word in ["seccomp filters", "Landlock"] {
        assert!(line.contains(word), "{line}");
    }
}

#[kvm_test(modes)]
fn the_demos_work_in_the_jail_in_every_mode(mode: WakeMode) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let sources = format!("{}:/data:ro", sources.display());
    let mode = mode.name();
    let run = |name: &str| {
        let mut command = wakebox(["run", "--wake", mode]);
        command.arg(guest(name));
        command
    };
    for name in ["hello", "concurrent", "pipeline"] {
        assert_ne!(succeeds(&mut run(name)), "", "{name}");
    }

    let mut greet = run("greet")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = greet.stdin.take().unwrap();
    stdin.write_all(b"Ann\n").unwrap();
    let output = greet.wait_with_output().unwrap();
    assert!(text(&output.stdout).contains("Hello, Ann!"), "{mode}");

    let found = succeeds(run("grep").args(["--dir", &sources, "--", "find_this_very_line"]));
    assert!(found.contains("jail.rs"), "{found}");

    let address = free_address();
    let server = Server::start(run("http").args(["--allow-listen", &address, "--", &address]));
    let mut page = String::new();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(
        stream,
        "GET /greet/you HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("you"), "{page}");
    // By a name: the resolver's files, and no cache daemon.
    let port = address.rsplit(':').next().unwrap();
    let fetched = succeeds(
        run("fetch")
            .args(["--allow-connect", &format!("localhost:{port}")])
            .args(["--allow-connect", &format!("127.0.0.1:{port}")])
            .args(["--", &format!("http://localhost:{port}/")]),
    );
    assert!(fetched.contains("1 of 1"), "{fetched}");
    drop(server);

    let sum = succeeds(
        wakebox(["call", "--wake", mode])
            .arg(guest("calls"))
            .args(["sum", "[40, 2]", "--", "serve"]),
    );
    assert_eq!(sum, "42\n");
}

/// What a guest that takes commands as arguments says to each, a line each.
#[track_caller]
fn says(command: &mut Command, expected: &[(&str, &str)]) {
    command
        .arg("--")
        .args(expected.iter().map(|(line, _)| line));
    let stdout = succeeds(command);
    let lines: Vec<&str> = stdout.lines().collect();
    let expected: Vec<&str> = expected.iter().map(|(_, answer)| *answer).collect();
    assert_eq!(lines, expected, "{command:?}");
}

#[kvm_test(modes)]
fn every_operation_on_files_works_in_the_jail(mode: WakeMode) {
    let mode = mode.name();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["rw/a", "rw/b", "ro"] {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    fs::write(path.join("ro/file"), "text").unwrap();
    std::os::unix::fs::symlink("../../ro/file", path.join("rw/a/out")).unwrap();
    let grants = ["rw:/rw", "ro:/ro:ro"].map(|grant| format!("{}/{grant}", path.display()));
    let mut run = wakebox([
        "run", "--wake", mode, "--dir", &grants[0], "--dir", &grants[1],
    ]);
    says(
        run.arg(guest("files")),
        &[
            ("write /rw/one 12345", "ok"),
            ("read /rw/one", "ok \"12345\""),
            ("cut /rw/one 2", "ok 2"),
            ("copy /ro/file /rw/two", "ok 4 4"),
            ("open rwtc /rw/two new", "ok \"new\""),
            ("mkdirs /rw/c/d", "ok"),
            // From one directory to another, and of a directory.
            ("rename /rw/one /rw/a/one", "ok"),
            ("rename /rw/c /rw/b/c", "ok"),
            ("list /rw/b", "ok c/ (unreadable 0)"),
            ("rm /rw/a/one", "ok"),
            ("rmdir /rw/b/c/d", "ok"),
            ("list /ro", "ok file (unreadable 0)"),
            ("read /ro/file", "ok \"text\""),
            ("write /ro/file x", "PermissionDenied"),
            ("rm /ro/file", "PermissionDenied"),
            ("read /rw/a/out", "PermissionDenied"),
            ("exists /ro/none", "ok false"),
        ],
    );
}

#[kvm_test(modes)]
fn every_operation_on_sockets_works_in_the_jail(mode: WakeMode) {
    let mode = mode.name();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket").display().to_string();
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut copy = stream.try_clone().expect("a copy");
            thread::spawn(move || std::io::copy(&mut { stream }, &mut copy));
        }
    });
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = udp.local_addr().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok((len, from)) = udp.recv_from(&mut bytes) {
            let _ = udp.send_to(&bytes[..len], from);
        }
    });
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = tcp.local_addr().unwrap();
    let unix = format!("unix-exchange {path}");
    let run = |options: &[&str]| {
        let mut command = wakebox(["run", "--wake", mode]);
        command.args(options).arg(guest("sockets"));
        command
    };
    // Each alone: nothing that another needs helps it.
    says(
        &mut run(&["--allow-unix", &path]),
        &[
            (&unix, "ok true 200000 [33]"),
            ("unix /none", "PermissionDenied"),
        ],
    );
    says(
        &mut run(&["--allow-udp", &peer.to_string()]),
        &[(&format!("udp-echo {peer} 20"), "ok 20")],
    );
    says(
        &mut run(&["--allow-connect", &server.to_string()]),
        &[
            (&format!("options {server}"), "ok 127.0.0.1"),
            ("tcp 127.0.0.1:1", "PermissionDenied"),
        ],
    );
    says(
        &mut run(&[
            "--allow-listen",
            "127.0.0.1:0",
            "--allow-connect",
            "127.0.0.1",
        ]),
        &[("accept-many 20", "ok 20 true")],
    );
    says(
        &mut run(&["--allow-udp", "localhost"]),
        &[(
            &format!("udp-connected localhost:{}", peer.port()),
            "ok Err(NotConnected) 3 \"hel\" true",
        )],
    );
    says(
        &mut run(&["--allow-resolve", "localhost"]),
        &[("lookup other.test", "PermissionDenied")],
    );
    // The policy grants nothing: there is not even a socket.
    says(&mut run(&[]), &[("tcp 127.0.0.1:1", "PermissionDenied")]);
}

#[kvm_test]
fn a_name_server_is_asked_from_inside_the_jail() {
    // Whether it answers or not, and whether this machine has one.
    let stdout = succeeds(
        wakebox(["run", "--allow-resolve", "*"])
            .arg(guest("sockets"))
            .args(["--", "lookup no-such-name.invalid"]),
    );
    assert!(!stdout.starts_with("ok"), "{stdout}");
}

#[kvm_test]
fn ends_of_all_kinds_are_told_from_inside_the_jail() {
    for (name, args, status, word) in [
        ("panic", &[][..], 101, "panicked"),
        ("fault", &["--", "null"], 139, "null pointer"),
        ("spin", &["--timeout", "50ms"], 124, "50"),
        ("deadlock", &[], 123, "sleeps for ever"),
    ] {
        let output = wakebox(["run"])
            .arg(guest(name))
            .args(args)
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{name}: {stderr}");
        assert!(stderr.contains(word), "{name}: {stderr}");
    }
}

#[kvm_test]
fn an_interrupted_command_ends_its_guest_in_the_jail() {
    let mut run = wakebox(["run"])
        .arg(guest("spin"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(run.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    // SAFETY: a system call on numbers; the child was not waited for yet.
    let sent = unsafe { libc::kill(run.id().cast_signed(), libc::SIGINT) };
    assert_eq!(sent, 0);
    assert_eq!(run.wait().unwrap().code(), Some(130));
}
