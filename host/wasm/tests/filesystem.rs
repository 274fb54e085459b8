//! Files as components see them: what is granted, what is done, and what is refused with which error.

mod common;

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use wakebox::Policy;

use common::programs::{Kind, RUN, RUN_NEWER, STREAMS};

/// The errors of `wasi:filesystem` 0.2, as far as tests await them.
const ERRORS: [(i32, &str); 12] = [
    (3, "bad-descriptor"),
    (7, "exist"),
    (12, "invalid"),
    (14, "is-directory"),
    (15, "loop"),
    (20, "no-entry"),
    (24, "not-directory"),
    (25, "not-empty"),
    (27, "unsupported"),
    (31, "not-permitted"),
    (33, "read-only"),
    (36, "cross-device"),
];

/// Those of 0.3, which has no `would-block`.
const ERRORS_NEWER: [(i32, &str); 12] = {
    let mut errors = ERRORS;
    let mut at = 0;
    while at < errors.len() {
        errors[at].0 -= 1;
        at += 1;
    }
    errors
};

const LIBRARY: &str = include_str!("components/files/library.wat");

const OLDER: Kind = Kind {
    wit: include_str!("components/files/world.wit"),
    world: None,
    library: &[LIBRARY, include_str!("components/files/older.wat")],
    words: &[("@VERSION", "@0.2.0")],
    function: RUN,
    errors: &ERRORS,
};

const NEWER: Kind = Kind {
    wit: include_str!("components/files/newer.wit"),
    world: None,
    library: &[LIBRARY, STREAMS, include_str!("components/files/newer.wat")],
    words: &[
        ("@VERSION", "@0.3.0"),
        ("STREAMS", "wasi:filesystem/types@0.3.0"),
        ("FUNCTION", "[method]descriptor.read-via-stream"),
    ],
    function: RUN_NEWER,
    errors: &ERRORS_NEWER,
};

common::both! {
    what_is_granted_is_preopened
    a_file_is_made_written_read_cut_and_told_of
    directories_are_made_listed_and_removed
    the_ways_of_opening_are_those_of_posix
    links_and_times_are_made_and_told
    nothing_leads_out_of_what_is_granted
    what_is_granted_for_reading_is_not_changed
}

/// `$d` of programs is the first directory that is granted.
const BEGIN: &str = "(local.set $d (call $root))";

/// What a program says, with a policy.
async fn said_with(files: &Kind, policy: Policy, program: &str) -> Vec<String> {
    files.said_with(policy, &format!("{BEGIN} {program}")).await
}

fn granting(directory: &Path, end: &str) -> Policy {
    let grant = format!("{}:/data{end}", directory.display());
    Policy::new().allow_dir(grant.parse().unwrap())
}

/// What a program says whose `$d` is this directory.
async fn said(files: &Kind, directory: &Path, program: &str) -> Vec<String> {
    said_with(files, granting(directory, ""), program).await
}

/// Expects an answer to each instruction that gives a number.
async fn answers(files: &Kind, directory: &Path, end: &str, dialogue: &[(impl Display, &str)]) {
    files
        .answers(granting(directory, end), BEGIN, dialogue)
        .await;
}

async fn what_is_granted_is_preopened(files: &Kind) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    let at = folder.path().display();
    let policy = Policy::new()
        .allow_dir(format!("{at}/one:/one").parse().unwrap())
        .allow_dir(format!("{at}/two:/two/deep:ro").parse().unwrap());
    let said = said_with(files, policy, "(call $say-granted)").await;
    assert_eq!(said, ["2", "/two/deep", "/one"]);
}

async fn a_file_is_made_written_read_cut_and_told_of(files: &Kind) {
    let folder = tempfile::tempdir().unwrap();
    let program = "
        (local.set $f (call $open (local.get $d) <new> (i32.const 5) (i32.const 3)))
        (call $say (call $write (local.get $f) (i64.const 0) <some text>))
        (call $say (call $write (local.get $f) (i64.const 5) <more>))
        (call $say (call $read (local.get $f) (i64.const 2)))
        (call $say (call $read (local.get $f) (i64.const 9)))
        (call $say (call $size (local.get $f) (i64.const 4)))
        (call $say (call $sync (local.get $f)))
        (call $say (call $stat (local.get $d) <new>))
        (call $say (call $flags (local.get $f)))
        (call $say (call $flags (local.get $d)))";
    let said = said(files, folder.path(), program).await;
    let expected = ["9", "4", "me more", "0", "", "1", "0", "0", "46", "3", "33"];
    assert_eq!(said, expected);
    assert_eq!(
        fs::read_to_string(folder.path().join("new")).unwrap(),
        "some"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_a_file_read_and_write_it_and_a_poll_waits_for_what_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "0123456789").unwrap();
    let program = "
        (local.set $f (call $open (local.get $d) <file> (i32.const 0) (i32.const 3)))
        (local.set $g (call $input (local.get $f) (i64.const 2)))
        (call $say (call $take (local.get $g) (i64.const 3)))
        (call $take-polling (local.get $g) (i64.const 2))
        (call $say (call $take (local.get $g) (i64.const 100)))
        (call $say (call $take (local.get $g) (i64.const 100)))
        (local.set $g (call $output (local.get $f) (i64.const 1)))
        (call $say (call $put (local.get $g) <AB>))
        (call $say (call $put-soon (local.get $g) <C>))
        (call $end-output (local.get $g))
        (local.set $g (call $append (local.get $f)))
        (call $say (call $put (local.get $g) <Y>))
        (call $say (call $put (local.get $g) <Z>))";
    let said = said(&OLDER, folder.path(), program).await;
    assert_eq!(
        said,
        ["234", "0", "56", "1", "789", "0", "1", "0", "0", "0", "0"]
    );
    assert_eq!(fs::read_to_string(file).unwrap(), "0ABC456789YZ");
}

async fn directories_are_made_listed_and_removed(files: &Kind) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let (made, gone) = (
        "(call $mkdir (local.get $d) <a>)",
        "(call $rmdir (local.get $d) <a>)",
    );
    let dialogue = [
        (made, "0"),
        (made, "exist"),
        ("(call $mkdir (local.get $d) <no/b>)", "no-entry"),
        ("(call $rename (local.get $d) <file> <a/moved>)", "0"),
        (gone, "not-empty"),
        ("(call $unlink (local.get $d) <a>)", "is-directory"),
        ("(call $rmdir (local.get $d) <a/moved>)", "not-directory"),
        ("(call $unlink (local.get $d) <a/moved>)", "0"),
        ("(call $unlink (local.get $d) <a/moved>)", "no-entry"),
        (gone, "0"),
    ];
    answers(files, folder.path(), "", &dialogue).await;
    for name in ["x", "y"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let mut said = said(
        files,
        folder.path(),
        "(call $say (call $list (local.get $d)))",
    )
    .await;
    assert_eq!(said.pop().as_deref(), Some("0"));
    said.sort();
    assert_eq!(said, ["x", "y"]);
}

async fn the_ways_of_opening_are_those_of_posix(files: &Kind) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    fs::write(folder.path().join("sub/file"), "text").unwrap();
    symlink("sub/file", folder.path().join("link")).unwrap();
    let open = |path: &str, how: u32, flags: u32| {
        let open =
            format!("(call $open (local.get $d) <{path}> (i32.const {how}) (i32.const {flags}))");
        format!("(i32.and {open} (i32.shr_s {open} (i32.const 31)))")
    };
    let dialogue = [
        (open("sub/file", 0, 1), "0"),
        (open("sub/file/", 0, 1), "not-directory"),
        (open("none", 0, 1), "no-entry"),
        (open("", 0, 1), "no-entry"),
        (open("sub", 0, 1), "0"),
        (open("sub", 0, 3), "is-directory"),
        (open("sub", 2, 1), "0"),
        (open("sub/file", 2, 1), "not-directory"),
        (open("sub/file", 5, 3), "exist"),
        (open("sub", 3, 1), "invalid"),
        // Writes wait for the disk.
        (open("sub/file", 0, 7), "0"),
        // Reads would wait for those of others.
        (open("sub/file", 0, 19), "unsupported"),
        (open("link", 0, 1), "0"),
        ("(call $try-link (local.get $d) <link>)".into(), "loop"),
        ("(call $stat (local.get $d) <link>)".into(), "85"),
    ];
    let dialogue: Vec<_> = dialogue
        .iter()
        .map(|(open, answer)| (&**open, *answer))
        .collect();
    answers(files, folder.path(), "", &dialogue).await;
}

async fn links_and_times_are_made_and_told(files: &Kind) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "text").unwrap();
    symlink("/etc/passwd", at("absolute")).unwrap();
    let open =
        |path: &str| format!("(call $open (local.get $d) <{path}> (i32.const 0) (i32.const 1))");
    let (same, other) = (
        format!("(call $same {} {})", open("file"), open("second")),
        format!("(call $same {} {})", open("file"), open("file2")),
    );
    let dialogue = [
        (
            "(call $link (local.get $d) (i32.const 0) <file> <second>)",
            "0",
        ),
        (
            "(call $link (local.get $d) (i32.const 0) <file> <second>)",
            "exist",
        ),
        (
            "(call $link (local.get $d) (i32.const 1) <file> <third>)",
            "invalid",
        ),
        (
            "(call $link (local.get $d) (i32.const 0) <../file> <third>)",
            "not-permitted",
        ),
        ("(call $links (local.get $d) <second>)", "2"),
        (&*same, "1"),
        ("(call $hash (local.get $d) <file> <second>)", "1"),
        (
            "(call $write (call $open (local.get $d) <file2> (i32.const 1) (i32.const 2)) (i64.const 0) <x>)",
            "1",
        ),
        (&*other, "0"),
        ("(call $hash (local.get $d) <file> <file2>)", "0"),
        ("(call $symlink (local.get $d) <file> <l>)", "0"),
        (
            "(call $symlink (local.get $d) </etc/passwd> <p>)",
            "not-permitted",
        ),
        (
            "(call $readlink (local.get $d) <absolute>)",
            "not-permitted",
        ),
        ("(call $readlink (local.get $d) <file>)", "invalid"),
        (
            "(call $touch (local.get $d) (i32.const 1) <l> (i64.const 1234567890))",
            "0",
        ),
        (
            "(call $touch (local.get $d) (i32.const 0) <l> (i64.const 5))",
            "0",
        ),
        (
            "(call $touch (local.get $d) (i32.const 1) <none> (i64.const 5))",
            "no-entry",
        ),
        (
            "(call $touch-open (call $open (local.get $d) <file2> (i32.const 0) (i32.const 1)) (i64.const 77))",
            "0",
        ),
    ];
    answers(files, folder.path(), ":links", &dialogue).await;
    let read = said(
        files,
        folder.path(),
        "(call $say (call $readlink (local.get $d) <l>))",
    )
    .await;
    assert_eq!(read, ["file", "0"]);
    let seconds = |name: &str| fs::symlink_metadata(at(name)).unwrap().mtime();
    assert_eq!(
        [seconds("file"), seconds("l"), seconds("file2")],
        [1_234_567_890, 5, 77]
    );
    answers(
        files,
        folder.path(),
        ":ro",
        &[
            (
                "(call $link (local.get $d) (i32.const 0) <file> <third>)",
                "not-permitted",
            ),
            (
                "(call $symlink (local.get $d) <file> <third>)",
                "not-permitted",
            ),
            (
                "(call $touch (local.get $d) (i32.const 1) <file> (i64.const 5))",
                "not-permitted",
            ),
        ],
    )
    .await;
}

async fn nothing_leads_out_of_what_is_granted(files: &Kind) {
    let folder = tempfile::tempdir().unwrap();
    let granted = folder.path().join("granted");
    fs::create_dir_all(granted.join("sub")).unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    fs::write(granted.join("file"), "text").unwrap();
    symlink("../secret", granted.join("up")).unwrap();
    symlink(folder.path().join("secret"), granted.join("absolute")).unwrap();
    symlink("..", granted.join("parent")).unwrap();
    let mut dialogue: Vec<(String, &str)> = vec![
        ("(call $try (local.get $d) <sub/../file>)".into(), "0"),
        (
            "(call $try (call $open (local.get $d) <sub> (i32.const 2) (i32.const 1)) <../file>)"
                .into(),
            "not-permitted",
        ),
        (
            "(call $mkdir (local.get $d) <parent/new>)".into(),
            "not-permitted",
        ),
        (
            "(call $rename (local.get $d) <file> <parent/new>)".into(),
            "not-permitted",
        ),
        (
            "(call $rename (local.get $d) <file> <../new>)".into(),
            "not-permitted",
        ),
        (
            "(call $try (call $open (local.get $d) <file> (i32.const 0) (i32.const 1)) <x>)".into(),
            "not-directory",
        ),
    ];
    for path in [
        "../secret",
        "sub/../../secret",
        "up",
        "absolute",
        "parent/secret",
        "/data/file",
        "/etc/passwd",
        "..",
    ] {
        dialogue.push((
            format!("(call $try (local.get $d) <{path}>)"),
            "not-permitted",
        ));
    }
    answers(files, &granted, "", &dialogue).await;
}

async fn what_is_granted_for_reading_is_not_changed(files: &Kind) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    let read = "(call $open (local.get $d) <file> (i32.const 0) (i32.const 1))";
    let dialogue = [
        (
            &*format!("(call $write {read} (i64.const 0) <no>)"),
            "bad-descriptor",
        ),
        (
            &*format!("(call $size {read} (i64.const 0))"),
            "bad-descriptor",
        ),
        (
            "(call $open (local.get $d) <file> (i32.const 0) (i32.const 3))",
            "not-permitted",
        ),
        (
            "(call $open (local.get $d) <file> (i32.const 8) (i32.const 3))",
            "not-permitted",
        ),
        (
            "(call $open (local.get $d) <new> (i32.const 1) (i32.const 3))",
            "not-permitted",
        ),
        ("(call $unlink (local.get $d) <file>)", "not-permitted"),
        ("(call $mkdir (local.get $d) <new>)", "not-permitted"),
        // It exists: nothing is to be made.
        (
            "(call $same (call $open (local.get $d) <file> (i32.const 1) (i32.const 1)) (call $open (local.get $d) <./file> (i32.const 0) (i32.const 1)))",
            "1",
        ),
    ];
    answers(files, folder.path(), ":ro", &dialogue).await;
    assert_eq!(
        fs::read_to_string(folder.path().join("file")).unwrap(),
        "text"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_larger_than_what_is_moved_at_once_comes_and_goes_in_a_stream() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let bytes: Vec<u8> = (0..150_000_u32)
        .map(|at| at as u8 ^ (at >> 8) as u8)
        .collect();
    fs::write(&path, &bytes).unwrap();
    // From its 10th byte to the copy's 3rd, and an end to it.
    let program = "
        (local.set $f (call $open (local.get $d) <file> (i32.const 0) (i32.const 1)))
        (local.set $g (call $open (local.get $d) <copy> (i32.const 1) (i32.const 3)))
        (call $say (call $copy (local.get $f) (local.get $g)))
        (call $say (call $append (local.get $g) <end>))";
    let said = said(&NEWER, folder.path(), program).await;
    assert_eq!(said, ["0", "0", "3"]);
    let mut copied = vec![0; 3];
    copied.extend_from_slice(&bytes[10..]);
    copied.extend_from_slice(b"end");
    assert!(fs::read(folder.path().join("copy")).unwrap() == copied);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_written_is_told_by_the_future() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    let open =
        |flags| format!("(call $open (local.get $d) <file> (i32.const 0) (i32.const {flags}))");
    let (reads, writes) = (open(1), open(2));
    let dialogue = [
        (
            format!("(call $told (call $input-of {writes} (i64.const 0)))"),
            "bad-descriptor",
        ),
        (
            "(call $told (call $input-of (local.get $d) (i64.const 0)))".into(),
            "is-directory",
        ),
        (
            format!("(call $write {reads} (i64.const 0) <no>)"),
            "bad-descriptor",
        ),
        (
            "(call $write (local.get $d) (i64.const 0) <no>)".into(),
            "is-directory",
        ),
        (format!("(call $append {reads} <no>)"), "bad-descriptor"),
        (format!("(call $list {reads})"), "not-directory"),
        // Nobody reads: that is no error.
        (format!("(call $told (call $unread {reads}))"), "0"),
        (
            format!("(call $told (call $unread {writes}))"),
            "bad-descriptor",
        ),
    ];
    answers(&NEWER, folder.path(), "", &dialogue).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_questions_about_files_are_in_flight_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    let program = "(call $stat-many (local.get $d) (i32.const 100) <file>)";
    let said = said(&NEWER, folder.path(), program).await;
    assert_eq!(said, ["100", "100"]);
}
