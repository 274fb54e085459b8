//! What the host runs out of, and what never comes: an error of the operation, and nothing else.
//!
//! Some of it is made with namespaces of the test's own, for which one has to be root.

use std::ffi::CString;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use wakebox::{Policy, Sandbox, WakeMode};
use wakebox_tests::programs::output;
use wakebox_tests::{Ended, guest, kvm_test, run};

/// Runs it on a thread with namespaces of its own, which the threads that it starts share.
fn apart<T: Send + 'static>(flags: i32, body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        // SAFETY: it changes what this thread sees of the system, not of memory.
        let unshared = unsafe { libc::unshare(flags) };
        let error = io::Error::last_os_error();
        assert_eq!(
            unshared, 0,
            "a namespace ({error}): this test has to be run as root"
        );
        body()
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Mounts a file system in memory of so many bytes on a folder of this thread's mount namespace.
fn mount_memory(folder: &Path, bytes: u64) {
    let text = |text: &str| CString::new(text).expect("no zero byte");
    let (root, kind) = (text("/"), text("tmpfs"));
    let folder = text(folder.to_str().expect("text"));
    let options = text(&format!("size={bytes}"));
    let none = std::ptr::null();
    // So that nobody else sees the next one.
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: all strings live until the calls return.
    let mounted = unsafe {
        libc::mount(none, root.as_ptr(), none, private, none.cast()) == 0
            && libc::mount(
                kind.as_ptr(),
                folder.as_ptr(),
                kind.as_ptr(),
                0,
                options.as_ptr().cast(),
            ) == 0
    };
    assert!(mounted, "a tmpfs: {}", io::Error::last_os_error());
}

#[kvm_test]
fn a_full_disk_is_told_and_what_was_there_stays() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().to_owned();
    // Gone with the thread, before the folder.
    let lines = apart(libc::CLONE_NEWNS, move || {
        mount_memory(&folder, 1 << 20);
        fs::write(folder.join("large"), vec![7; 900 << 10]).unwrap();
        let grant = format!("{}:/d", folder.display());
        let builder = Sandbox::builder()
            .guest(guest("files"))
            .args([
                "copy /d/large /d/copy",
                "stat /d/large",
                "rm /d/copy",
                "write /d/small x",
            ])
            .policy(Policy::new().allow_dir(grant.parse().unwrap()));
        let ended = run(builder).success();
        let large = fs::read(folder.join("large")).unwrap();
        assert!(large == vec![7; 900 << 10]);
        ended.stdout
    });
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!(lines[0], "StorageFull");
    assert!(lines[1].starts_with("ok File 921600 "), "{}", lines[1]);
    assert_eq!(lines[2..], ["ok", "ok"]);
}

/// Runs `wakebox run` with the probe `files` in a process with a limit of its own.
fn limited(
    resource: libc::__rlimit_resource_t,
    limit: libc::rlimit,
    folder: &Path,
    words: &[&str],
) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command
        .arg("run")
        .arg(guest("files"))
        .args(["--dir", &format!("{}:/d", folder.display())])
        .args(words);
    // SAFETY: between `fork` and `exec` it makes one system call with a value of its own.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(resource, &raw const limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    String::from_utf8(output(command.stdin(Stdio::null()))).expect("text")
}

#[kvm_test]
fn a_file_that_grows_beyond_what_the_process_may_write_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large"), vec![7; 3 << 20]).unwrap();
    let most = libc::rlimit {
        rlim_cur: 1 << 20,
        rlim_max: 1 << 20,
    };
    let words = ["--", "copy /d/large /d/copy", "write /d/small x"];
    let said = limited(libc::RLIMIT_FSIZE, most, folder.path(), &words);
    assert_eq!(said, "FileTooLarge\nok\n");
    assert_eq!(
        fs::metadata(folder.path().join("copy")).unwrap().len(),
        1 << 20
    );
}

#[kvm_test]
fn descriptors_that_are_used_up_are_told_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "").unwrap();
    let most = libc::rlimit {
        rlim_cur: 200,
        rlim_max: 200,
    };
    let all = ["--limit", "handles=unlimited", "--", "hoard /d/a"];
    let said = limited(libc::RLIMIT_NOFILE, most, folder.path(), &all);
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words[2..], ["OutOfMemory", "true"], "{said}");
    let opened: u64 = words[1].parse().unwrap();
    assert!((100..200).contains(&opened), "{said}");
    // Unless it is said, a guest gets a quarter of them and no more.
    let said = limited(
        libc::RLIMIT_NOFILE,
        most,
        folder.path(),
        &["--", "hoard /d/a"],
    );
    assert_eq!(said, "ok 50 LimitReached true\n");
}

#[kvm_test]
fn the_command_uses_all_the_descriptors_that_it_may() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "").unwrap();
    // A soft limit that is too low, and a hard one that is not.
    let limit = libc::rlimit {
        rlim_cur: 100,
        rlim_max: 1000,
    };
    let words = ["--limit", "handles=500", "--", "hoard /d/a"];
    let said = limited(libc::RLIMIT_NOFILE, limit, folder.path(), &words);
    assert_eq!(said, "ok 500 LimitReached true\n");
}

/// Gives this thread's new network namespace its loopback, with few attempts to connect.
fn prepare_network() {
    // SAFETY: the structure is plain data, and lives until the calls return.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let up = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
        assert_eq!(up, 0, "loopback: {}", io::Error::last_os_error());
        libc::close(socket);
    }
    // ip-sysctl(7) in the kernel's documentation: one attempt more, and then ETIMEDOUT.
    fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1").expect("a setting of the namespace");
}

#[kvm_test]
fn a_connection_that_nobody_answers_times_out() {
    let ended: Ended = apart(libc::CLONE_NEWNET, || {
        prepare_network();
        // Its queue holds one connection, and nobody takes that out: the next is not answered.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: it makes a queue shorter.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address: SocketAddr = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).unwrap();
        let builder = Sandbox::builder()
            .guest(guest("net"))
            .args(["connect", &address.to_string()])
            .wake(WakeMode::Auto)
            .policy(Policy::new().allow_connect(address.to_string().parse().unwrap()));
        run(builder).success()
    });
    assert_eq!(ended.lines()[0], "error TimedOut");
}
