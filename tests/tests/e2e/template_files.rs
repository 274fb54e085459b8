//! Templates in files: written here, and read here or by another process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use wakebox::template::{FileOptions, Open, Position, When};
use wakebox::{Limits, Sandbox, Template, WakeMode};
use wakebox_tests::{guest, kvm_test, root};

fn wakebox<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    command.args(args).stdin(Stdio::null());
    command.output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// What the command wrote, which ended well.
#[track_caller]
fn said(args: &[&str]) -> String {
    let ended = wakebox(args);
    let (stdout, stderr) = (text(&ended.stdout), text(&ended.stderr));
    assert!(ended.status.success(), "{args:?}: {stdout}{stderr}");
    stdout
}

/// What the command said is wrong.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let ended = wakebox(args);
    let stderr = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{args:?}: {stderr}");
    stderr
}

/// A folder, and the path of a template in it that the command has taken after a call of `count`.
fn taken(options: &[&str]) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template").display().to_string();
    let guest = guest("templates").display().to_string();
    let start = ["snapshot", &guest, "--at", "call:count", "-o", &file];
    let end = ["--", "serve"];
    said(&[&start[..], options, &end[..]].concat());
    (folder, file)
}

/// A template of the probe when it has been called once.
async fn parked(mode: WakeMode) -> Template {
    let builder = Sandbox::builder().guest(guest("templates")).wake(mode);
    let running = builder
        .memory(32 << 20)
        .args(["serve"])
        .build()
        .unwrap()
        .start();
    assert_eq!(running.call::<_, u64>("count", &()).await.unwrap(), 1);
    let handle = running.handle();
    let template = handle.snapshot(When::Parked, Open::Refuse).await.unwrap();
    running.close().await.unwrap();
    template
}

#[kvm_test(modes)]
async fn sandboxes_go_on_from_a_file_in_every_mode(mode: WakeMode) {
    let template = parked(mode).await;
    let mut file = Vec::new();
    template.save(&mut file).unwrap();
    let loaded = Template::load(&mut &*file).unwrap();
    let (Position::Parked { mode: was, .. }, Position::Parked { mode: is, .. }) =
        (template.info().at, loaded.info().at)
    else {
        panic!("{:?}", loaded.info());
    };
    assert_eq!((was, is), (mode, mode));
    drop(template);
    for _ in 0..2 {
        let running = loaded.spawn().build().unwrap().start();
        let count: u64 = running.call("count", &()).await.unwrap();
        assert_eq!(count, 2, "{mode}");
        let restores: (u64, u64) = running.call("restores", &()).await.unwrap();
        assert_eq!(restores, (1, 1), "{mode}");
        running.close().await.unwrap();
    }
    // What was loaded is as good as what was taken.
    let mut again = Vec::new();
    loaded.save(&mut again).unwrap();
    assert!(
        again == file,
        "{mode}: the file of what was loaded is another"
    );
}

#[kvm_test]
fn another_process_goes_on_from_a_file_and_draws_bytes_of_its_own() {
    let (_folder, file) = taken(&[]);
    for mode in ["out", "irq", "poll", "auto"] {
        let (_folder, file) = taken(&["--wake", mode]);
        assert_eq!(said(&["call", &file, "count"]), "2", "{mode}");
        assert_eq!(said(&["call", &file, "restores"]), "[1,1]", "{mode}");
    }
    let words = said(&["call", &file, "words", "--env", "NAME=x", "--", "one"]);
    assert_eq!(words, "[[\"one\"],\"x\"]");
    let drawn = [(); 2].map(|()| said(&["call", &file, "random"]));
    assert_ne!(drawn[0], drawn[1]);
    // One that waits for calls is run until its time is over.
    let ended = wakebox(["run", &file, "--timeout", "50ms"]);
    assert_eq!(ended.status.code(), Some(124), "{}", text(&ended.stderr));
    // A template of what was made of one.
    let second = format!("{file}-2");
    said(&[
        "snapshot",
        &file,
        "--at",
        "call:count",
        "--zstd",
        "-o",
        &second,
    ]);
    assert_eq!(said(&["call", &second, "count"]), "3");
}

#[kvm_test]
fn a_template_is_taken_when_the_guest_asks_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template").display().to_string();
    let probe = guest("templates").display().to_string();
    let asked = said(&[
        "snapshot", &probe, "--at", "guest", "-o", &file, "--", "asks",
    ]);
    // The command ends the guest as soon as its template is there: it may come to say so, or not.
    assert!(["", "Ok(Continued)"].contains(&&*asked), "{asked}");
    assert_eq!(said(&["call", &file, "count"]), "1");
    let before = std::fs::read(&file).unwrap();
    let panics = guest("panic").display().to_string();
    let why = refused(&["snapshot", &panics, "-o", &file]);
    assert!(why.contains("ended before a template"), "{why}");
    let why = refused(&[
        "snapshot",
        &probe,
        "--at",
        "call:none",
        "-o",
        &file,
        "--",
        "serve",
    ]);
    assert!(why.contains("exports no function `none`"), "{why}");
    let listener = [
        "--allow-listen",
        "127.0.0.1:0",
        "-o",
        &file,
        "--",
        "listener",
    ];
    let listens = |open| {
        [
            &["snapshot", &*probe, "--at", "call:count", "--open", open],
            &listener[..],
        ]
        .concat()
    };
    let why = refused(&listens("refuse"));
    assert!(
        why.contains("listeners (1)") && why.contains("--open end"),
        "{why}"
    );
    assert_eq!(
        std::fs::read(&file).unwrap(),
        before,
        "what was there is as it was"
    );
    said(&listens("end"));
    assert_ne!(std::fs::read(&file).unwrap(), before);
}

#[kvm_test]
fn a_file_that_cannot_be_used_is_refused_with_its_reason() {
    let (folder, file) = taken(&[]);
    let good = std::fs::read(&file).unwrap();
    let key = |name: &str, bytes: &[u8]| -> String {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let path: PathBuf = folder.path().join("wrong");
        std::fs::write(&path, bytes).unwrap();
        let path = path.display().to_string();
        let inspected = wakebox(["inspect", &path]);
        assert_eq!(
            inspected.status.code(),
            Some(1),
            "{}",
            text(&inspected.stdout)
        );
        refused(&["call", &path, "count"])
    };
    let last = good.len() - 1;
    for (why, reason) in [
        (
            with(&|file| file.truncate(last)),
            "it is cut off in the memory",
        ),
        (with(&|file| file[last] ^= 1), "the memory has been altered"),
        (with(&|file| file[100] ^= 1), "the header has been altered"),
        (with(&|file| file.push(0)), "something lies behind its end"),
        (with(&|file| file[8] = 4), "use a newer `wakebox`"),
        (with(&|file| file[8] = 0), "take the template again"),
        (with(&|file| file[0] = b'W'), "not an ELF file"),
    ] {
        assert!(why.contains(reason), "{why}");
    }
    let (one, other) = (key("one", &[1; 32]), key("other", &[2; 32]));
    let why = refused(&["call", &file, "count", "--key", &one]);
    assert!(why.contains("made without a key"), "{why}");
    let (_other_folder, signed) = taken(&["--key", &one]);
    assert_eq!(said(&["call", &signed, "count", "--key", &one]), "2");
    let why = refused(&["call", &signed, "count", "--key", &other]);
    assert!(why.contains("not made with this key"), "{why}");
    let why = refused(&["call", &signed, "count", "--key", &key("short", b"short")]);
    assert!(why.contains("too short"), "{why}");
    let program = guest("templates").display().to_string();
    let why = refused(&["call", &program, "count", "--key", &one]);
    assert!(why.contains("is not a template file"), "{why}");
    let why = refused(&["call", &file, "count", "--mem", "16M"]);
    assert!(why.contains("it wants 64 MiB of memory"), "{why}");
    let why = refused(&["call", &file, "count", "--wake", "irq"]);
    assert!(why.contains("the wake mode is auto, not irq"), "{why}");
    let none = folder.path().join("none").display().to_string();
    let why = refused(&["snapshot", &program, "-o", &format!("{none}/template")]);
    assert!(why.contains("cannot write the template"), "{why}");
    // Secrets may be in it.
    use std::os::unix::fs::PermissionsExt as _;
    let mode = Path::new(&file).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[kvm_test]
fn inspect_says_what_a_template_file_holds() {
    let (_folder, file) = taken(&["--wake", "irq"]);
    let inspected = said(&["inspect", &file]);
    for words in [
        "template, format 1",
        "where the guest was parked",
        "irq",
        "the memory",
        "It would be loaded.",
    ] {
        assert!(inspected.contains(words), "{inspected}");
    }
}

#[kvm_test]
async fn a_file_of_each_version_of_the_format_is_read_and_answers() {
    let running = |version: u32| {
        let path = root().join(format!("tests/golden/template-{version}"));
        let template = Template::from_file(&path, &FileOptions::new()).unwrap();
        let granted = Limits::new().processors(3);
        template.spawn().limits(granted).build().unwrap().start()
    };
    let one = running(1);
    assert_eq!(one.call::<_, u64>("count", &()).await.unwrap(), 2);
    one.close().await.unwrap();
    let several = running(2);
    for number in 0..3_u32 {
        assert_eq!(several.call::<_, u64>("count", &number).await.unwrap(), 1);
    }
    several.close().await.unwrap();
    let windows = running(3);
    for _ in 0..2 {
        assert_eq!(windows.call::<_, u64>("check", &()).await.unwrap(), 3);
    }
    windows.close().await.unwrap();
}
