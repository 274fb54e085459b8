//! Files under granted directories: what a guest does with them, and what it cannot.
//!
//! Each case runs on the file system of the temporary directory, where reads of cached bytes are
//! done on the spot, and twice on a `tmpfs`, where all of them take a thread, or an entry in a ring of io_uring.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;
use wakebox::{Builder, Io, Policy, Sandbox, WakeMode};
use wakebox_abi::entry::Token;
use wakebox_abi::file::OpenFlags;
use wakebox_abi::layout;
use wakebox_abi::op::{self, Buf, Handle, Operation};
use wakebox_abi::status::Status;
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::limits::allow_descriptors;
use wakebox_tests::{Ended, alone, guest, kvm_test, run, run_beside};

/// How the name of a directory begins whose files are waited for by io_uring.
const BY_URING: &str = "uring-";

pub(crate) fn directories() -> [TempDir; 3] {
    [
        tempfile::tempdir().unwrap(),
        tempfile::tempdir_in("/dev/shm").unwrap(),
        tempfile::Builder::new()
            .prefix(BY_URING)
            .tempdir_in("/dev/shm")
            .unwrap(),
    ]
}

/// A sandbox with a directory as `/d`.
pub(crate) fn sandbox(dir: &Path, end: &str) -> Builder {
    let grant = format!("{}:/d{end}", dir.display());
    let io = match grant.contains(BY_URING) {
        true => Io::Uring,
        false => Io::Epoll,
    };
    let policy = Policy::new().allow_dir(grant.parse().unwrap());
    Sandbox::builder().policy(policy).io(io)
}

/// The guest that does what it is told.
fn told(builder: Builder, commands: &[&str]) -> Builder {
    builder.guest(guest("files")).args(commands.iter().copied())
}

pub(crate) fn ended(builder: Builder, commands: &[&str]) -> Ended {
    run(told(builder, commands)).success()
}

/// What a guest with this directory as `/d` says to commands.
fn said(dir: &Path, commands: &[&str]) -> Vec<String> {
    let ended = ended(sandbox(dir, ""), commands);
    ended.lines().into_iter().map(String::from).collect()
}

/// Expects an answer to each command.
#[track_caller]
pub(crate) fn answers(dir: &Path, dialogue: &[(&str, &str)]) {
    let commands: Vec<&str> = dialogue.iter().map(|(command, _)| *command).collect();
    let said = said(dir, &commands);
    for ((command, expected), line) in dialogue.iter().zip(&said) {
        assert_eq!(line, expected, "{command}");
    }
    assert_eq!(said.len(), dialogue.len());
}

/// Bytes that are not alike anywhere.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[kvm_test]
fn a_guest_learns_which_directories_are_granted() {
    let dir = tempfile::tempdir().unwrap();
    // More than it is told at once.
    let paths: Vec<String> = (100..140)
        .map(|index| format!("/{index}/{}", "long".repeat(75)))
        .collect();
    let mut policy = Policy::new();
    for (index, path) in paths.iter().enumerate() {
        let host = dir.path().join(index.to_string());
        fs::create_dir(&host).unwrap();
        policy = policy.allow_dir(format!("{}:{path}:ro", host.display()).parse().unwrap());
    }
    let said = ended(Sandbox::builder().policy(policy), &["mounts"]);
    assert_eq!(said.lines(), [format!("ok {}", paths.join(" "))]);
    let none = ended(Sandbox::builder(), &["mounts"]);
    assert_eq!(none.lines(), ["ok"]);
}

#[kvm_test]
fn the_usual_options() {
    for dir in directories() {
        answers(
            dir.path(),
            &[
                ("open r /d/a", "NotFound"),
                ("open w /d/a text", "NotFound"),
                ("open wc /d/a first", "ok written"),
                ("open rw /d/a F", "ok \"First\""),
                ("open wn /d/a text", "AlreadyExists"),
                ("open wn /d/b text", "ok written"),
                ("open ra /d/a !", "ok \"First!\""),
                ("open rac /d/c x", "ok \"x\""),
                ("open rwt /d/a new", "ok \"new\""),
                ("open rc /d/x", "InvalidInput"),
                ("open at /d/a", "InvalidInput"),
                ("open c /d/x", "InvalidInput"),
                ("write-read /d/a", "BadHandle"),
                ("open r /d", "IsADirectory"),
                ("open w /d", "IsADirectory"),
                ("open r /d/a/b", "NotADirectory"),
                ("list /d", "ok a b c (unreadable 0)"),
            ],
        );
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join("c")).unwrap(), b"x");
    }
}

#[kvm_test]
fn directories_and_what_is_in_them() {
    for dir in directories() {
        answers(
            dir.path(),
            &[
                ("mkdir /d/a", "ok"),
                ("mkdir /d/a", "AlreadyExists"),
                ("mkdir /d/x/y", "NotFound"),
                ("mkdirs /d/p/q/r/", "ok"),
                ("mkdirs /d/p/q/r", "ok"),
                ("write /d/p/file text", "ok"),
                ("mkdirs /d/p/file/q", "NotADirectory"),
                ("mkdirs /d/p/file", "AlreadyExists"),
                ("list /d/p", "ok file q/ (unreadable 0)"),
                ("list /d/p/file", "NotADirectory"),
                ("list /d/none", "NotFound"),
                ("rmdir /d/p", "DirectoryNotEmpty"),
                ("rmdir /d/p/file", "NotADirectory"),
                ("rm /d/p/q", "IsADirectory"),
                ("rm /d/none", "NotFound"),
                ("rename /d/p/file /d/a/moved", "ok"),
                ("rename /d/none /d/a/x", "NotFound"),
                ("rename /d/a/moved /d/p", "IsADirectory"),
                ("rename /d/a /d/p", "DirectoryNotEmpty"),
                ("read /d/a/moved", "ok \"text\""),
                ("exists /d/a/moved", "ok true"),
                ("exists /d/p/file", "ok false"),
                ("rm /d/a/moved", "ok"),
                ("rmdir /d/a", "ok"),
                ("rmdir /d/p/q/r", "ok"),
                ("rmdir /d", "PermissionDenied"),
                ("rename /d /d/x", "PermissionDenied"),
                ("list /d", "ok p/ (unreadable 0)"),
            ],
        );
    }
}

#[kvm_test]
fn a_long_listing_is_complete_and_can_be_given_up() {
    for dir in directories() {
        for index in 0..5_000 {
            fs::write(dir.path().join(format!("file-{index:04}")), "").unwrap();
        }
        let lines = said(dir.path(), &["list /d", "resume /d"]);
        assert_eq!(lines, ["ok 5000 from file-0000 to file-4999", "ok 5000"]);
    }
}

#[kvm_test]
fn a_name_that_is_not_text_is_told_and_does_not_end_a_listing() {
    for dir in directories() {
        let bad = std::ffi::OsStr::from_bytes(b"\xFF\xFE");
        fs::write(dir.path().join(bad), "").unwrap();
        fs::write(dir.path().join("good"), "").unwrap();
        symlink("good", dir.path().join("link")).unwrap();
        answers(dir.path(), &[("list /d", "ok good link@ (unreadable 1)")]);
    }
}

#[kvm_test]
fn a_cursor_moves_as_it_should() {
    for dir in directories() {
        fs::write(dir.path().join("a"), "").unwrap();
        let text = "0123AB6789\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0!";
        let expected =
            format!("ok [10, 7, 3, 0, 2, 20, 21] \"78923\" Err(InvalidInput) \"{text}\"");
        answers(dir.path(), &[("cursor /d/a", &expected)]);
    }
}

#[kvm_test]
fn what_is_told_of_a_file() {
    for dir in directories() {
        fs::write(dir.path().join("a"), "12345").unwrap();
        let mode = fs::Permissions::from_mode(0o640);
        fs::set_permissions(dir.path().join("a"), mode).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        symlink("none", dir.path().join("dangling")).unwrap();
        answers(
            dir.path(),
            &[
                ("stat /d/a", "ok File 5 640 true"),
                ("stat /d/link", "ok File 5 640 true"),
                ("lstat /d/link", "ok Symlink 1 777 true"),
                ("stat /d/dangling", "NotFound"),
                ("lstat /d/dangling", "ok Symlink 4 777 true"),
                ("cut /d/a 2", "ok 2"),
                ("read /d/a", "ok \"12\""),
                ("cut /d/a 4", "ok 4"),
                ("read /d/a", "ok \"12\\0\\0\""),
                ("cut-read /d/a", "InvalidInput"),
                ("cut /d/a 18446744073709551615", "InvalidInput"),
            ],
        );
    }
}

#[kvm_test]
fn large_files_arrive_byte_for_byte() {
    for dir in directories() {
        let bytes = noise(5_000_000);
        fs::write(dir.path().join("from"), &bytes).unwrap();
        for mode in WakeMode::ALL {
            let ended = ended(sandbox(dir.path(), "").wake(mode), &["copy /d/from /d/to"]);
            assert_eq!(ended.lines(), ["ok 5000000 5000000"], "mode {mode}");
            assert!(
                fs::read(dir.path().join("to")).unwrap() == bytes,
                "mode {mode}"
            );
            fs::remove_file(dir.path().join("to")).unwrap();
        }
    }
}

#[kvm_test]
fn many_tasks_use_one_file_at_once() {
    for dir in directories() {
        fs::write(dir.path().join("a"), "").unwrap();
        assert_eq!(said(dir.path(), &["many /d/a 250"]), ["ok 250"]);
        let expected: Vec<u8> = (0..250).flat_map(|index| [index as u8; 1000]).collect();
        assert!(fs::read(dir.path().join("a")).unwrap() == expected);
    }
}

#[kvm_test]
fn lengths_and_places_at_the_edges() {
    for dir in directories() {
        fs::write(dir.path().join("a"), "12345").unwrap();
        let expected = "ok 0 0 Err(InvalidInput) 0 0 Err(OutOfMemory)";
        answers(dir.path(), &[("edges /d/a", expected)]);
    }
}

#[kvm_test]
fn paths_that_cannot_be() {
    let [dir, ..] = directories();
    let invalid = "Err(InvalidInput)";
    let expected = format!(
        "ok [{invalid}, {invalid}, {invalid}, {invalid}, Err(NotFound), Err(PermissionDenied)]"
    );
    answers(dir.path(), &[("paths", &expected)]);
}

#[kvm_test]
fn too_many_open_files_are_refused_and_nothing_else() {
    // It raises the process's own limit.
    alone!(
        "too_many_open_files_are_refused_and_nothing_else",
        open_too_many
    );
}

fn open_too_many() {
    for dir in directories() {
        fs::write(dir.path().join("a"), "").unwrap();
        let builder = sandbox(dir.path(), "").handles(100);
        let ended = ended(builder, &["hoard /d/a"]);
        assert_eq!(ended.lines(), ["ok 100 LimitReached true"]);
    }
    let [dir, ..] = directories();
    fs::write(dir.path().join("a"), "").unwrap();
    allow_descriptors(10_100).unwrap();
    let many = ended(sandbox(dir.path(), "").handles(10_000), &["hoard /d/a"]);
    assert_eq!(many.lines(), ["ok 10000 LimitReached true"]);
    // A file is not made if it could not be opened.
    let [dir, ..] = directories();
    let ended = ended(
        sandbox(dir.path(), "").handles(0),
        &["open wc /d/new text", "mkdir /d/sub"],
    );
    assert_eq!(ended.lines(), ["LimitReached", "ok"]);
    assert!(!dir.path().join("new").exists());
}

#[kvm_test]
fn a_directory_for_reading_is_not_changed() {
    for dir in directories() {
        fs::write(dir.path().join("a"), "text").unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let commands = [
            "read /d/a",
            "list /d",
            "open rw /d/a x",
            "open w /d/a x",
            "open a /d/a x",
            "open wc /d/new x",
            "open wt /d/a x",
            "write /d/a x",
            "rename /d/a /d/b",
            "rm /d/a",
            "rmdir /d/sub",
            "mkdir /d/new",
        ];
        let ended = ended(sandbox(dir.path(), ":ro"), &commands);
        let lines = ended.lines();
        assert_eq!(lines[..2], ["ok \"text\"", "ok a sub/ (unreadable 0)"]);
        assert_eq!(lines[2..], ["PermissionDenied"; 10]);
        assert_eq!(ended.stats.refused, [("file", 10)]);
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"text");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

#[kvm_test]
fn nothing_moves_between_grants_that_are_for_reading() {
    let [one, two, _] = directories();
    fs::write(one.path().join("a"), "text").unwrap();
    let policy = Policy::new()
        .allow_dir(format!("{}:/one:ro", one.path().display()).parse().unwrap())
        .allow_dir(format!("{}:/two", two.path().display()).parse().unwrap());
    let commands = [
        "rename /one/a /two/a",
        "write /two/b text",
        "rename /two/b /one/b",
    ];
    let ended = ended(Sandbox::builder().policy(policy), &commands);
    assert_eq!(
        ended.lines(),
        ["PermissionDenied", "ok", "PermissionDenied"]
    );
}

#[kvm_test]
fn two_file_systems_are_told_apart_when_renaming() {
    let [one, two, _] = directories();
    fs::write(one.path().join("a"), "text").unwrap();
    let policy = Policy::new()
        .allow_dir(format!("{}:/one", one.path().display()).parse().unwrap())
        .allow_dir(format!("{}:/two", two.path().display()).parse().unwrap());
    let ended = ended(Sandbox::builder().policy(policy), &["rename /one/a /two/a"]);
    assert_eq!(ended.lines(), ["CrossesDevices"]);
}

#[kvm_test]
fn links_that_lead_out_are_refused_and_links_within_are_followed() {
    for dir in directories() {
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "secret").unwrap();
        fs::write(root.join("sub/file"), "inside").unwrap();
        symlink("../outside", root.join("up")).unwrap();
        symlink(dir.path().join("outside"), root.join("absolute")).unwrap();
        symlink("sub", root.join("in")).unwrap();
        let commands = [
            "read /d/in/file",
            "read /d/up/secret",
            "read /d/absolute/secret",
            "read /d/../outside/secret",
            "read /d/sub/../../outside/secret",
            "write /d/up/new text",
            "mkdir /d/up/new",
            "rm /d/absolute/secret",
            "rename /d/up/secret /d/mine",
            "rename /d/sub/file /d/up/secret",
            "list /d/up",
            "stat /d/up",
            "lstat /d/up",
            // Removes the link itself.
            "rm /d/up",
        ];
        let ended = ended(sandbox(&root, ""), &commands);
        let lines = ended.lines();
        assert_eq!(lines[0], "ok \"inside\"");
        assert_eq!(lines[1..12], ["PermissionDenied"; 11]);
        assert_eq!(lines[12..], ["ok Symlink 10 777 true", "ok"]);
        assert_eq!(ended.stats.refused, [("file", 11)]);
        let outside: Vec<_> = fs::read_dir(dir.path().join("outside")).unwrap().collect();
        assert_eq!(outside.len(), 1);
        assert_eq!(
            fs::read(dir.path().join("outside/secret")).unwrap(),
            b"secret"
        );
        assert_eq!(fs::read(root.join("sub/file")).unwrap(), b"inside");
    }
}

#[kvm_test]
fn pipes_and_devices_are_not_files() {
    let [dir, ..] = directories();
    let pipe = std::ffi::CString::new(dir.path().join("pipe").as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let lines = said(
        dir.path(),
        &[
            "read /d/pipe",
            "open rw /d/pipe x",
            "list /d",
            "stat /d/pipe",
        ],
    );
    assert_eq!(lines[..2], ["PermissionDenied", "PermissionDenied"]);
    assert_eq!(lines[2], "ok pipe? socket? (unreadable 0)");
    assert!(lines[3].starts_with("ok Other 0 600"), "{}", lines[3]);
}

/// Swaps what is in the directory between a file and links, over and over, while a guest reads it.
fn race(dir: &Path, commands: &[&str], swap: impl Fn(&Path, u64) + Send + Sync) -> Ended {
    let root = dir.join("root");
    run_beside(told(sandbox(&root, ""), commands), |turn| {
        swap(&root, turn);
    })
    .success()
}

#[kvm_test]
fn a_link_that_is_swapped_meanwhile_never_shows_what_is_outside() {
    for dir in directories() {
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("real")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/file"), "secret").unwrap();
        fs::write(root.join("real/file"), "inside").unwrap();
        let outside = dir.path().join("outside");
        // A directory on the way, and the file itself: each now real, now a link that leads out.
        let swap = |root: &Path, turn: u64| {
            let (inside, away) = match turn % 4 {
                0 => ("real", "real/file"),
                1 => ("../outside", "../outside/file"),
                2 => ("real", "real/file"),
                _ => (outside.to_str().unwrap(), "/etc/passwd"),
            };
            for (target, name) in [(inside, "dir"), (away, "file")] {
                let new = root.join("new");
                symlink(target, &new).unwrap();
                fs::rename(&new, root.join(name)).unwrap();
            }
        };
        swap(&root, 0);
        let commands = ["race /d/dir/file 3000", "race /d/file 3000"];
        let ended = race(dir.path(), &commands, swap);
        for line in ended.lines() {
            let seen = line.strip_prefix("ok ").unwrap();
            assert!(seen.contains("inside"), "{seen}");
            for (what, _) in seen
                .trim_matches(['{', '}'])
                .split(", ")
                .filter_map(|pair| pair.split_once(": "))
            {
                assert!(
                    ["\"inside\"", "\"PermissionDenied\""].contains(&what),
                    "{what}"
                );
            }
        }
    }
}

#[kvm_test]
fn a_directory_that_moves_out_meanwhile_does_not_take_the_guest_along() {
    for dir in directories() {
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "b").unwrap();
        fs::write(root.join("a/file"), "a").unwrap();
        fs::write(root.join("file"), "root").unwrap();
        fs::write(dir.path().join("file"), "secret").unwrap();
        // `a/b` changes its depth: `..` from inside leads to another place each time.
        let swap = |root: &Path, turn: u64| {
            let (from, to) = if turn.is_multiple_of(2) {
                ("a/b", "b")
            } else {
                ("b", "a/b")
            };
            fs::rename(root.join(from), root.join(to)).unwrap();
        };
        let commands = ["race /d/a/b/../../file 2000", "race /d/b/../../file 2000"];
        let ended = race(dir.path(), &commands, swap);
        for line in ended.lines() {
            assert!(!line.contains("secret"), "{line}");
        }
    }
}

#[kvm_test(modes)]
fn a_read_that_was_given_up_writes_into_no_other_buffer(mode: WakeMode) {
    // On a tmpfs every read takes a thread, and is under way when it is given up.
    let [_, dir, _] = directories();
    fs::write(dir.path().join("a"), vec![0xAA; 1 << 20]).unwrap();
    let ended = ended(sandbox(dir.path(), "").wake(mode), &["abandon /d/a 200"]);
    assert_eq!(ended.lines(), ["ok clean"], "mode {mode}");
}

#[kvm_test]
fn a_path_that_is_not_text_is_refused() {
    let [dir, ..] = directories();
    fs::write(
        dir.path().join(std::ffi::OsStr::from_bytes(b"\xFF")),
        "text",
    )
    .unwrap();
    let path = Buf { offset: 0, len: 4 };
    let flags = OpenFlags(OpenFlags::READ);
    let token = Token {
        slot: 0,
        generation: 1,
    };
    for (bytes, expected) in [
        (b"/d/\xFF", Status::InvalidInput),
        (b"/d/b", Status::NotFound),
    ] {
        let parts = [
            code::store(layout::ARENA, u32::from_le_bytes(*bytes)),
            code::submit(&[op::OpenFile { path, flags }.submission(token)]),
            code::wait(0),
            code::exit_with_status_of(0),
        ];
        let elf = Elf::guest(&parts.concat()).to_bytes();
        let outcome = run(sandbox(dir.path(), "").guest(elf)).outcome;
        let expected = wakebox::Outcome::Exit(expected.code() as i32);
        assert_eq!(outcome, expected, "{bytes:?}");
    }
}

#[kvm_test]
fn a_handle_that_was_closed_is_bad_also_when_its_place_is_taken() {
    let [dir, ..] = directories();
    fs::write(dir.path().join("a"), "text").unwrap();
    let close = op::Opcode::Close;
    let (file, again) = (op::Opcode::OpenFile, op::Opcode::OpenFile);
    let read = op::ReadFile {
        file: Handle(0),
        into: Buf {
            offset: 1024,
            len: 16,
        },
        offset: 0,
    };
    assert_eq!(status_of(dir.path(), &[file], read), Status::Ok);
    assert_eq!(
        status_of(dir.path(), &[file, close], read),
        Status::BadHandle
    );
    assert_eq!(
        status_of(dir.path(), &[file, close, again], read),
        Status::BadHandle
    );
}

/// The status of the last of these operations in a guest with a directory as `/d`, whose arena
/// begins with `/d/a`. One that closes means the first that was opened.
fn status_of(dir: &Path, operations: &[op::Opcode], last: impl Operation) -> Status {
    let path = Buf { offset: 0, len: 4 };
    let token = |slot| Token {
        slot,
        generation: 1,
    };
    let mut entries = Vec::new();
    for opcode in operations {
        let token = token(entries.len() as u32);
        entries.push(match opcode {
            op::Opcode::OpenFile => {
                let flags = OpenFlags(OpenFlags::READ);
                op::OpenFile { path, flags }.submission(token)
            }
            op::Opcode::OpenDirectory => {
                let path = Buf { offset: 0, len: 2 };
                op::OpenDirectory { path }.submission(token)
            }
            op::Opcode::Close => {
                let handle = Handle(0);
                op::Close { handle }.submission(token)
            }
            _ => unreachable!("only these are wanted here"),
        });
    }
    let place = entries.len() as u64;
    entries.push(last.submission(token(place as u32)));
    let parts = [
        code::store(layout::ARENA, u32::from_le_bytes(*b"/d/a")),
        code::submit(&entries),
        code::wait(place as u32),
        code::exit_with_status_of(place),
    ];
    let elf = Elf::guest(&parts.concat()).to_bytes();
    match run(sandbox(dir, "").guest(elf).wake(WakeMode::Out)).outcome {
        wakebox::Outcome::Exit(code) => Status::from_code(code as u32),
        other => panic!("expected a completion: {other}"),
    }
}

#[kvm_test]
fn handles_that_are_forged_or_of_another_kind_are_bad() {
    let [dir, ..] = directories();
    fs::write(dir.path().join("a"), "text").unwrap();
    let into = Buf {
        offset: 1024,
        len: 4096,
    };
    let read = |handle| op::ReadFile {
        file: Handle(handle),
        into,
        offset: 0,
    };
    let list = |handle| op::ReadDirectory {
        directory: Handle(handle),
        into,
    };
    use op::Opcode::{OpenDirectory, OpenFile};
    let status = |before: &[_], last| status_of(dir.path(), before, last);
    assert_eq!(status(&[OpenFile], read(0)), Status::Ok);
    assert_eq!(status(&[OpenDirectory], read(0)), Status::BadHandle);
    assert_eq!(status(&[OpenFile], read(1)), Status::BadHandle);
    for forged in [0, 1, 1 << 20, u32::MAX] {
        assert_eq!(status(&[], read(forged)), Status::BadHandle, "{forged:#x}");
    }
    let list_of = |before: &[_], handle| status_of(dir.path(), before, list(handle));
    assert_eq!(list_of(&[OpenFile], 0), Status::BadHandle);
    let stream = op::ReadStream {
        stream: Handle(0),
        into,
    };
    assert_eq!(
        status_of(dir.path(), &[OpenFile], stream),
        Status::BadHandle
    );
    let datagram = op::UdpReceive {
        socket: Handle(0),
        into,
    };
    assert_eq!(
        status_of(dir.path(), &[OpenFile], datagram),
        Status::BadHandle
    );
}

#[kvm_test]
fn buffers_that_are_too_small_or_not_in_the_arena_are_refused() {
    let [dir, ..] = directories();
    fs::write(dir.path().join("a"), "text").unwrap();
    let opened = [op::Opcode::OpenFile];
    for (offset, len) in [(0, u32::MAX), (u32::MAX, 1), (1 << 30, 0)] {
        let into = Buf { offset, len };
        let read = op::ReadFile {
            file: Handle(0),
            into,
            offset: 0,
        };
        assert_eq!(
            status_of(dir.path(), &opened, read),
            Status::InvalidInput,
            "{into:?}"
        );
    }
    let empty = op::ReadFile {
        file: Handle(0),
        into: Buf::default(),
        offset: 0,
    };
    assert_eq!(status_of(dir.path(), &opened, empty), Status::Ok);
    let stat = op::StatFile {
        file: Handle(0),
        into: Buf { offset: 0, len: 39 },
    };
    assert_eq!(status_of(dir.path(), &opened, stat), Status::InvalidInput);
}
