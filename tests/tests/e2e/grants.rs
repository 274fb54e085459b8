//! Grants of directories and sockets: rights belong to what is granted, not to the path by which a guest
//! comes, and nothing that a guest does to names changes what it may reach.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::fs::inotify;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, mknodat, open, renameat_with};
use tempfile::TempDir;
use wakebox::{Builder, Captured, Error, Limits, Output as To, Policy, Sandbox};
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{Ended, guest, kvm_test, run, run_beside};

/// A policy that grants directories, each with `@` for one.
fn policy(at: &Path, grants: &[&str]) -> Policy {
    let at = at.to_str().expect("a temporary directory has a plain name");
    grants.iter().fold(Policy::new(), |policy, grant| {
        policy.allow_dir(grant.replace('@', at).parse().unwrap())
    })
}

fn files(policy: Policy, commands: &[&str]) -> Builder {
    let builder = Sandbox::builder().guest(guest("files")).policy(policy);
    builder.args(commands.iter().copied())
}

fn ended(policy: Policy, commands: &[&str]) -> Ended {
    run(files(policy, commands)).success()
}

/// Expects an answer to each command.
#[track_caller]
fn answers(policy: Policy, dialogue: &[(&str, &str)]) {
    let commands: Vec<&str> = dialogue.iter().map(|(command, _)| *command).collect();
    let ended = ended(policy, &commands);
    let lines = ended.lines();
    for ((command, expected), line) in dialogue.iter().zip(&lines) {
        assert_eq!(line, expected, "{command}");
    }
    assert_eq!(lines.len(), dialogue.len());
}

/// `work`, in it `keep` with a file and links to it, beside it `other`.
fn project() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in ["work/keep", "work/x", "other"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    fs::write(dir.path().join("work/keep/f"), "original").unwrap();
    fs::write(dir.path().join("other/f"), "other").unwrap();
    symlink("keep", dir.path().join("work/link")).unwrap();
    dir
}

fn wakebox(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("the command starts")
}

#[test]
fn grants_that_only_take_away_are_refused_and_both_are_named() {
    let dir = project();
    let elf = Elf::guest(&code::exit(0)).to_bytes();
    for grants in [
        ["@/work:/data", "@/work/keep:/data/keep:ro"],
        ["@/work:/data", "@/work/link:/elsewhere:ro"],
        ["@/work:/data", "@/work:/again:ro"],
        ["@/work:/data", "@/other:/data/keep"],
    ] {
        let policy = policy(dir.path(), &grants);
        let error = Sandbox::builder().guest(elf.clone()).policy(policy).build();
        let error = error.expect_err("they overlap");
        assert!(matches!(error, Error::Setting(_)), "{error:?}");
        for grant in grants {
            let grant = grant.replace('@', dir.path().to_str().unwrap());
            for word in grant.split(':').filter(|word| *word != "ro") {
                assert!(error.to_string().contains(word), "{word}: {error}");
            }
        }
    }
}

#[test]
fn the_check_of_a_policy_says_what_a_run_says() {
    let dir = project();
    UnixListener::bind(dir.path().join("work/x/a.sock")).unwrap();
    let elf = dir.path().join("guest");
    fs::write(&elf, Elf::guest(&code::exit(0)).to_bytes()).unwrap();
    let socket = dir.path().join("work/x/a.sock");
    let socket = format!("dirs = ['work:/data']\nunix = ['{}']", socket.display());
    for (text, words) in [
        (
            "dirs = ['work:/data', 'work/keep:/data/keep:ro']",
            "for reading only",
        ),
        ("dirs = ['work:/data', 'other:/data/keep']", "already"),
        (&*socket, "another socket"),
        ("dirs = ['none:/data']", "No such file"),
    ] {
        let file = dir.path().join("policy.toml");
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let check = wakebox(&["policy", "check", file]);
        let run = wakebox(&["run", "--policy", file, elf.to_str().unwrap()]);
        for output in [check, run] {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{text}: {stderr}");
            assert!(stderr.contains(words), "{words}: {stderr}");
        }
    }
}

#[kvm_test]
fn what_may_be_changed_in_a_folder_for_reading_is_changed_by_its_own_path_only() {
    let dir = project();
    fs::create_dir(dir.path().join("work/out")).unwrap();
    let grants = ["@/work:/data:ro", "@/work/out:/data/out"];
    answers(
        policy(dir.path(), &grants),
        &[
            ("write /data/out/new text", "ok"),
            ("write /data/./out//new text", "ok"),
            ("read /data/x/../out/new", "ok \"text\""),
            ("write /data/x/../out/new changed", "PermissionDenied"),
            ("write /data/keep/f changed", "PermissionDenied"),
            ("write /data/out/../keep/f changed", "PermissionDenied"),
            ("rename /data/keep /data/out/keep", "PermissionDenied"),
            ("rename /data/out /data/moved", "PermissionDenied"),
            ("rmdir /data/out", "PermissionDenied"),
            ("mkdir /data/out", "AlreadyExists"),
            ("read /data/keep/f", "ok \"original\""),
        ],
    );
}

#[kvm_test]
fn slashes_and_dots_at_the_end_mean_what_they_mean_to_the_kernel() {
    let dir = project();
    for (command, expected) in [
        ("rm /d/other/f/", "NotADirectory"),
        ("rm /d/other/f/.", "NotADirectory"),
        ("rename /d/other/f/ /d/moved", "NotADirectory"),
        ("rename /d/other/f /d/moved/", "NotADirectory"),
        ("rename /d/other/f/. /d/moved", "NotADirectory"),
        ("rm /d/work/link/", "NotADirectory"),
        ("rmdir /d/work/link/", "NotADirectory"),
        ("rename /d/work/link/ /d/moved", "NotADirectory"),
        ("rmdir /d/work/x/.", "InvalidInput"),
        ("rmdir /d/work/x/..", "DirectoryNotEmpty"),
        ("rename /d/work/x/. /d/moved", "Busy"),
        ("mkdir /d/new/.", "NotFound"),
        ("mkdir /d/other/f/", "AlreadyExists"),
        ("mkdir /d", "AlreadyExists"),
        ("stat /d/other/f/", "NotADirectory"),
        ("read /d/other/f/", "NotADirectory"),
        ("open wc /d/new/ x", "IsADirectory"),
        ("open wn /d/other/f/ x", "IsADirectory"),
        ("list /d/work/link/.", "ok f (unreadable 0)"),
        ("lstat /d/work/link", "ok Symlink 4 777 true"),
        ("list /d", "ok other/ work/ (unreadable 0)"),
        ("mkdir /d/new/", "ok"),
        ("rename /d/new/ /d/newer//", "ok"),
        ("rmdir /d/newer/", "ok"),
    ] {
        answers(policy(dir.path(), &["@:/d"]), &[(command, expected)]);
    }
}

/// Sees who opens something. Opening as a mere place is none.
struct Watch(std::os::fd::OwnedFd);

impl Watch {
    fn over(path: &Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, path, inotify::WatchFlags::OPEN).unwrap();
        Self(watch)
    }

    /// How often it was opened since it was asked last.
    fn opened(&self) -> usize {
        let mut space = [std::mem::MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.0, &mut space);
        let mut opened = 0;
        while events.next().is_ok() {
            opened += 1;
        }
        opened
    }
}

fn make_pipe(at: &Path) {
    mknodat(CWD, at, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[kvm_test]
fn a_pipe_in_a_granted_folder_is_not_opened_for_a_moment() {
    let dir = project();
    let pipe = dir.path().join("work/pipe");
    make_pipe(&pipe);
    symlink("pipe", dir.path().join("work/to-pipe")).unwrap();
    let watch = Watch::over(&pipe);
    for end in ["", ":ro"] {
        let grants = format!("@/work:/d{end}");
        let commands = [
            "read /d/pipe",
            "read /d/to-pipe",
            "open r /d/./pipe",
            "open rw /d/pipe x",
            "open wt /d/pipe x",
            "open wc /d/to-pipe x",
            "open ra /d/pipe x",
        ];
        let ended = ended(policy(dir.path(), &[&grants]), &commands);
        assert_eq!(ended.lines(), ["PermissionDenied"; 7]);
        let commands = ["stat /d/pipe", "list /d/pipe", "list /d", "read /d/pipe/"];
        let ended = self::ended(policy(dir.path(), &[&grants]), &commands);
        let lines = ended.lines();
        assert!(lines[0].starts_with("ok Other"), "{lines:?}");
        assert_eq!((lines[1], lines[3]), ("NotADirectory", "NotADirectory"));
    }
    answers(
        policy(dir.path(), &["@/work:/d"]),
        &[
            ("open wn /d/pipe x", "AlreadyExists"),
            ("rename /d/pipe /d/moved", "ok"),
            ("rename /d/moved /d/pipe", "ok"),
        ],
    );
    assert_eq!(watch.opened(), 0, "a guest has opened the pipe");
    drop(open(
        &pipe,
        OFlags::RDONLY | OFlags::NONBLOCK,
        Mode::empty(),
    ));
    assert_eq!(watch.opened(), 1, "the watch works");
}

#[kvm_test]
fn a_pipe_that_takes_a_files_place_meanwhile_is_not_opened() {
    let dir = project();
    let work = dir.path().join("work");
    make_pipe(&work.join("pipe"));
    fs::write(work.join("file"), "inside").unwrap();
    let watch = Watch::over(&work.join("pipe"));
    let races = files(policy(dir.path(), &["@/work:/d"]), &["race /d/file 3000"]);
    let ended = run_beside(races, |_| {
        let (one, two) = (work.join("pipe"), work.join("file"));
        renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
    });
    let ended = ended.success();
    let line = ended.lines()[0];
    assert!(line.contains("inside"), "{line}");
    for (what, _) in line
        .trim_start_matches("ok {")
        .trim_end_matches('}')
        .split(", ")
        .filter_map(|pair| pair.split_once(": "))
    {
        assert!(
            ["\"inside\"", "\"PermissionDenied\""].contains(&what),
            "{what}"
        );
    }
    assert_eq!(watch.opened(), 0, "a guest has opened the pipe");
}

#[kvm_test]
fn a_folder_for_reading_stays_so_while_the_host_renames_about_it() {
    let dir = project();
    let grants = ["@/work:/data", "@/other:/keep:ro"];
    let commands = [
        "race /keep/f 2000",
        "write /keep/f changed",
        "rename /keep/f /data/f",
        "rename /data/keep /keep/keep",
        "rm /keep/f",
    ];
    let (here, there) = (dir.path().join("other"), dir.path().join("another"));
    let ended = run_beside(files(policy(dir.path(), &grants), &commands), |_| {
        fs::rename(&here, &there).unwrap();
        fs::rename(&there, &here).unwrap();
    });
    let ended = ended.success();
    let lines = ended.lines();
    // The directory was opened when the sandbox was built: it is the same under any name.
    assert_eq!(lines[0], "ok {\"other\": 2000}");
    assert_eq!(lines[1..], ["PermissionDenied"; 4]);
    assert_eq!(fs::read(dir.path().join("other/f")).unwrap(), b"other");
}

#[kvm_test]
fn new_files_are_made_where_links_lead_and_not_outside() {
    let dir = project();
    for (target, name) in [
        ("keep/new", "to-new"),
        ("to-new2", "to-to-new"),
        ("keep/new2", "to-new2"),
        ("../other/stolen", "out"),
        ("/tmp/wakebox-stolen", "absolute"),
        ("keep/none/new", "nowhere"),
        ("keep/new/", "slash"),
        ("round", "round"),
        ("slash-round/", "slash-round"),
    ] {
        symlink(target, dir.path().join("work").join(name)).unwrap();
    }
    let dialogue = [
        ("write /d/to-new text", "ok"),
        ("read /d/keep/new", "ok \"text\""),
        ("open wc /d/to-to-new text", "ok written"),
        ("read /d/keep/new2", "ok \"text\""),
        ("open wn /d/to-new2 text", "AlreadyExists"),
        ("write /d/out text", "PermissionDenied"),
        ("write /d/absolute text", "PermissionDenied"),
        ("write /d/nowhere text", "NotFound"),
        ("write /d/slash text", "IsADirectory"),
        ("write /d/round text", "TooManyLinks"),
        ("write /d/slash-round text", "IsADirectory"),
        ("read /d/slash-round", "TooManyLinks"),
    ];
    answers(policy(dir.path(), &["@/work:/d"]), &dialogue);
    assert!(!dir.path().join("other/stolen").exists());
    assert!(!Path::new("/tmp/wakebox-stolen").exists());
    // The same in the jail of the command.
    for name in ["new", "new2"] {
        fs::remove_file(dir.path().join("work/keep").join(name)).unwrap();
    }
    let grant = format!("{}/work:/d", dir.path().display());
    let program = guest("files");
    let mut arguments = vec!["run", "--dir", &grant, program.to_str().unwrap(), "--"];
    arguments.extend(dialogue.iter().map(|(command, _)| *command));
    let output = wakebox(&arguments);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let expected: Vec<&str> = dialogue.iter().map(|(_, answer)| *answer).collect();
    assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
}

#[kvm_test]
fn appending_leaves_the_cursor_at_the_end() {
    let dir = project();
    fs::write(dir.path().join("work/a"), "0123").unwrap();
    answers(
        policy(dir.path(), &["@/work:/d"]),
        &[
            (
                "append /d/a",
                "ok [0, 2, 7, 3, 10, 15, 5, 2, 5] 2 0 \"23!\"",
            ),
            ("read /d/a", "ok \"0123!?\""),
        ],
    );
}

#[kvm_test]
fn the_quota_of_files_counts_what_a_disk_may_have_to_hold() {
    for (most, dialogue) in [
        (
            10_000,
            &[
                ("mkdir /d/one", "ok"),
                ("mkdir /d/one", "AlreadyExists"),
                ("mkdir /d/two", "ok"),
                ("mkdir /d/three", "QuotaExceeded"),
                ("write /d/new x", "QuotaExceeded"),
                ("open wn /d/new x", "QuotaExceeded"),
                // What is there costs what is written.
                ("write /d/keep/f 12345", "ok"),
            ][..],
        ),
        (
            10_000,
            &[
                ("cut /d/keep/f 10008", "ok 10008"),
                ("cut /d/keep/f 0", "ok 0"),
                ("cut /d/keep/f 1", "QuotaExceeded"),
                ("write /d/keep/f 1", "QuotaExceeded"),
            ][..],
        ),
        (
            10_000,
            &[
                ("sparse /d/keep/f 20000", "QuotaExceeded"),
                ("sparse /d/keep/f 9008", "ok 1 9009"),
                ("sparse /d/keep/f 10007", "ok 1 10008"),
                ("sparse /d/keep/f 0", "QuotaExceeded"),
                ("cut /d/keep/f 10008", "ok 10008"),
                ("cut /d/keep/f 1099511627776", "QuotaExceeded"),
            ][..],
        ),
        // The first bytes of a new file are paid with its entry.
        (
            4096,
            &[
                ("open rwc /d/new 12345", "ok \"12345\""),
                ("mkdir /d/one", "QuotaExceeded"),
            ][..],
        ),
    ] {
        let dir = project();
        let limits = Limits::new().files_out(most);
        let commands: Vec<&str> = dialogue.iter().map(|(command, _)| *command).collect();
        let builder = files(policy(dir.path(), &["@/work:/d"]), &commands);
        let ended = run(builder.limits(limits)).success();
        let expected: Vec<&str> = dialogue.iter().map(|(_, answer)| *answer).collect();
        assert_eq!(ended.lines(), expected, "{commands:?}");
    }
}

#[kvm_test]
fn a_socket_is_reached_only_by_a_way_that_the_guest_cannot_change() {
    let dir = project();
    let at = dir.path().to_str().unwrap();
    symlink("../other", dir.path().join("work/way")).unwrap();
    symlink(format!("{at}/other"), dir.path().join("safe")).unwrap();
    let [granted, secret] = ["other/a.sock", "work/x/a.sock"].map(|path| {
        let listener = UnixListener::bind(dir.path().join(path)).unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    // In the jail of the command, beside a directory that is changed.
    let (grant, socket) = (format!("{at}/work:/d"), format!("{at}/safe/a.sock"));
    let program = guest("sockets");
    let (right, wrong) = (format!("unix {socket}"), format!("unix {at}/other/a.sock"));
    let inside = format!("unix {at}/work/x/a.sock");
    let output = wakebox(&[
        "run",
        "--dir",
        &grant,
        "--allow-unix",
        &socket,
        program.to_str().unwrap(),
        "--",
        &right,
        &wrong,
        &inside,
    ]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout, "ok\nPermissionDenied\nPermissionDenied\n");
    let mut byte = [0];
    let (mut stream, _) = granted.accept().expect("it was reached");
    assert_eq!(stream.read(&mut byte).unwrap(), 0);
    assert!(granted.accept().is_err() && secret.accept().is_err());
    // A way that leads through what the guest may change is none.
    let elf = Elf::guest(&code::exit(0)).to_bytes();
    for way in ["work/way/a.sock", "work/x/a.sock", "work/x/none"] {
        let policy = policy(dir.path(), &["@/work:/d"]).allow_unix(format!("{at}/{way}"));
        let built = Sandbox::builder().guest(elf.clone()).policy(policy).build();
        let error = built.expect_err("the guest could change it").to_string();
        assert!(error.contains(way) && error.contains("/work"), "{error}");
    }
    // One that the host turns that way later, neither.
    let safe = dir.path().join("safe");
    let policy = policy(dir.path(), &["@/work:/d"]).allow_unix(&socket);
    let shown = Captured::new();
    let sandbox = Sandbox::builder().guest(program).args([&right]);
    let sandbox = sandbox
        .policy(policy)
        .stdout(To::Capture(shown.clone()))
        .build();
    fs::remove_file(&safe).unwrap();
    symlink("work/way", &safe).unwrap();
    sandbox.unwrap().run_blocking().unwrap();
    assert_eq!(shown.text(), "PermissionDenied\n");
    assert!(granted.accept().is_err() && secret.accept().is_err());
}

/// What `wakebox policy check` says of each policy, with `@` for a directory, where these folders of it
/// are mounted on others; none where nobody may mount anything.
fn checked_with_mounts(at: &Path, mounts: &[[&str; 2]], policies: &[&str]) -> Option<Vec<Output>> {
    let place = |text: &str| text.replace('@', at.to_str().unwrap());
    let unshare = |script: &str, argument: &Path| {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-e",
            "-c",
            script,
        ]);
        command.arg("sh").arg(argument).stdin(Stdio::null());
        command.output()
    };
    match unshare("mount --bind \"$1\" \"$1\"", at) {
        Ok(output) if output.status.success() => {}
        refused => {
            eprintln!("NOT TESTED: nobody may mount anything here: {refused:?}");
            return None;
        }
    }
    let mut script = String::new();
    for [what, at] in mounts {
        let (options, what) = match what.strip_suffix(":ro") {
            Some(what) => ("--read-only", what),
            None => ("", *what),
        };
        script += &format!("mount {options} --bind '{}' '{}'\n", place(what), place(at));
    }
    script += &format!(
        "exec {} policy check \"$1\"",
        env!("CARGO_BIN_EXE_wakebox-cli")
    );
    let check = |policy: &&str| {
        let file = at.join("policy.toml");
        fs::write(&file, place(policy)).unwrap();
        unshare(&script, &file).unwrap()
    };
    Some(policies.iter().map(check).collect())
}

#[test]
fn a_folder_for_reading_is_not_changed_by_way_of_a_mount() {
    let dir = project();
    let mounts = [
        // What lies in `work`, elsewhere; and what lies elsewhere, in `work`.
        ["@/work/keep", "@/other"],
        ["@/far", "@/work/x"],
        // Nothing can be changed by way of that.
        ["@/apart:ro", "@/work/shown"],
    ];
    for path in ["far/deep", "apart", "work/shown"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    let _sockets = ["far/deep/a.sock", "apart/a.sock"]
        .map(|path| UnixListener::bind(dir.path().join(path)).unwrap());
    let refused = [
        "dirs = ['@/work:/data', '@/other:/seen:ro']",
        "dirs = ['@/other:/seen', '@/work/keep:/data:ro']",
        "dirs = ['@/work:/data', '@/far:/seen:ro']",
        "dirs = ['@/work:/data', '@/far/deep:/seen:ro']",
        "dirs = ['@/work:/data', '@/work/x:/seen:ro']",
        "dirs = ['@/work:/data']\nunix = ['@/far/deep/a.sock']",
    ];
    let granted = [
        "dirs = ['@/work:/data', '@/apart:/seen:ro']",
        "dirs = ['@/work:/data:ro', '@/other:/seen:ro']",
        // For writing in one for reading, as everywhere.
        "dirs = ['@/work:/data:ro', '@/far:/seen']",
        "dirs = ['@/work:/data']\nunix = ['@/apart/a.sock']",
    ];
    let policies = [&refused[..], &granted].concat();
    let Some(checks) = checked_with_mounts(dir.path(), &mounts, &policies) else {
        return;
    };
    for (index, (policy, output)) in policies.iter().zip(checks).enumerate() {
        let stderr = String::from_utf8(output.stderr).unwrap();
        let is_refused = index < refused.len();
        assert_eq!(output.status.success(), !is_refused, "{policy}: {stderr}");
        assert_eq!(
            stderr.contains("for writing"),
            is_refused,
            "{policy}: {stderr}"
        );
    }
}

#[kvm_test]
fn a_file_with_a_name_in_a_folder_for_writing_is_changed_by_that_name_only() {
    let dir = project();
    fs::hard_link(dir.path().join("other/f"), dir.path().join("work/f")).unwrap();
    answers(
        policy(dir.path(), &["@/work:/data", "@/other:/seen:ro"]),
        &[
            ("write /seen/f changed", "PermissionDenied"),
            ("read /seen/f", "ok \"other\""),
            ("write /data/f changed", "ok"),
            ("read /seen/f", "ok \"changed\""),
            // It can be removed there, and has its other name all the same.
            ("rm /data/f", "ok"),
            ("read /seen/f", "ok \"changed\""),
            // No name for writing can be given to what is for reading.
            ("rename /seen/f /data/f", "PermissionDenied"),
        ],
    );
}
