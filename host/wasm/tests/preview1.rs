//! Core modules with WASI preview 1: what a C compiler makes of a program.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use wakebox::{Input, Outcome, Policy};

use common::{end_of, sandbox, with_texts};

const HELLO: &str = include_str!("modules/hello.wat");
const LIBRARY: &str = include_str!("modules/library.wat");

/// All functions but `proc_exit`, and their parameters: `i` has 32 bits, `l` 64.
const FUNCTIONS: &str = "
    args_get ii, args_sizes_get ii, environ_get ii, environ_sizes_get ii, clock_res_get ii,
    clock_time_get ili, random_get ii, sched_yield, proc_raise i, poll_oneoff iiii, fd_advise illi,
    fd_allocate ill, fd_close i, fd_datasync i, fd_fdstat_get ii, fd_fdstat_set_flags ii,
    fd_fdstat_set_rights ill, fd_filestat_get ii, fd_filestat_set_size il, fd_filestat_set_times illi,
    fd_pread iiili, fd_prestat_dir_name iii, fd_prestat_get ii, fd_pwrite iiili, fd_read iiii,
    fd_readdir iiili, fd_renumber ii, fd_seek ilii, fd_sync i, fd_tell ii, fd_write iiii,
    path_create_directory iii, path_filestat_get iiiii, path_filestat_set_times iiiilli,
    path_link iiiiiii, path_open iiiiillii, path_readlink iiiiii, path_remove_directory iii,
    path_rename iiiiii, path_symlink iiiii, path_unlink_file iii, sock_accept iii, sock_recv iiiiii,
    sock_send iiiii, sock_shutdown ii";

fn functions() -> impl Iterator<Item = (&'static str, &'static str)> {
    let functions = FUNCTIONS.split(',').map(str::trim);
    functions.map(|function| function.split_once(' ').unwrap_or((function, "")))
}

/// A module that imports all functions, and runs these instructions with the library. `<text>` is a text:
/// where it lies, and its length.
fn module(program: &str) -> String {
    let mut imports = String::new();
    for (name, parameters) in functions() {
        let parameters: String = parameters
            .chars()
            .map(|kind| if kind == 'i' { " i32" } else { " i64" })
            .collect();
        imports += &format!(
            r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param{parameters}) (result i32)))"#
        );
    }
    let (body, data) = with_texts(program);
    format!(
        r#"(module {imports} (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          {LIBRARY} {data} (func (export "_start") (local $f i32) (local $g i32) {body}))"#
    )
}

/// The lines of a program that has a directory as `/data`.
async fn said(directory: &Path, end: &str, program: &str) -> Vec<String> {
    let grant = format!("{}:/data{end}", directory.display());
    let (builder, out, err) = sandbox(module(program));
    let builder = builder.policy(Policy::new().allow_dir(grant.parse().unwrap()));
    let outcome = end_of(builder).await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
    out.text().lines().map(String::from).collect()
}

/// Expects a number of each instruction.
async fn answers(directory: &Path, end: &str, dialogue: &[(&str, u32)]) {
    let program: String = dialogue
        .iter()
        .map(|(instruction, _)| format!("(call $say {instruction})"))
        .collect();
    let said = said(directory, end, &program).await;
    for ((instruction, expected), answer) in dialogue.iter().zip(&said) {
        assert_eq!(*answer, expected.to_string(), "{instruction}");
    }
    assert_eq!(said.len(), dialogue.len());
}

#[test]
fn the_command_runs_a_module() {
    let wakebox = Path::new(env!("CARGO_BIN_EXE_wakebox-wasm")).with_file_name("wakebox");
    let cache = tempfile::tempdir().unwrap();
    let hello = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/modules/hello.wat");
    let mut command = Command::new(wakebox);
    command
        .args(["run", hello])
        .env("XDG_CACHE_HOME", cache.path());
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (&*output.stdout, &*err),
        (&b"hello from a module\n"[..], "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_has_arguments_an_environment_input_and_an_exit_code() {
    let program = "
        (drop (call $args_sizes_get (i32.const 1024) (i32.const 1028)))
        (call $say (i32.load (i32.const 1024)))
        (drop (call $args_get (i32.const 1024) (i32.const 2048)))
        (call $text (i32.load (i32.const 1028)) (i32.const 7))
        (drop (call $environ_get (i32.const 1024) (i32.const 2048)))
        (call $text (i32.load (i32.const 1024)) (i32.const 9))
        (call $say (call $read (i32.const 0) (i32.const 5)))
        (call $say (call $read (i32.const 0) (i32.const 50)))
        (call $say (call $read (i32.const 0) (i32.const 50)))
        (call $proc_exit (i32.const 7))";
    let (builder, out, err) = sandbox(module(program));
    let builder = builder
        .args(["and two"])
        .env("KEY", "value")
        .stdin(Input::bytes("some input"));
    let outcome = end_of(builder).await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(7), ""));
    assert_eq!(
        out.text(),
        "2\nand two\nKEY=value\nsome \n0\ninput\n0\n\n0\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_go_on_and_random_numbers_differ() {
    let program = "
        (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 1024)))
        (drop (call $sched_yield))
        (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 1032)))
        (call $say (i64.lt_u (i64.load (i32.const 1024)) (i64.load (i32.const 1032))))
        (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 1024)))
        (call $say (i64.gt_u (i64.load (i32.const 1024)) (i64.const 1700000000000000000)))
        (call $say (call $clock_time_get (i32.const 9) (i64.const 0) (i32.const 1024)))
        (drop (call $random_get (i32.const 2048) (i32.const 1000)))
        (call $say (i64.ne (i64.load (i32.const 3032)) (i64.load (i32.const 3040))))";
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        said(folder.path(), "", program).await,
        ["1", "1", "28", "1"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_of_ten_clocks_is_one_park() {
    let mut program = String::new();
    for index in 0..10 {
        let after = if index == 6 {
            20_000_000
        } else {
            30_000_000_000_u64
        };
        program += &format!("(call $wish (i32.const {index}) (i64.const {after}))");
    }
    program += "
        (call $say (call $poll_oneoff (i32.const 65536) (i32.const 2048) (i32.const 10) (i32.const 1024)))
        (call $say (i32.load (i32.const 1024)))
        (call $say (i32.load (i32.const 2048)))";
    let (builder, out, err) = sandbox(module(&program));
    let mut sandbox = builder.build().unwrap();
    let handle = sandbox.handle();
    let outcome = sandbox.run().await.unwrap();
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
    assert_eq!(out.text(), "0\n1\n6\n");
    let stats = handle.stats();
    assert!(stats.exits.total() < 20, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_made_written_read_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let program = "
        (call $say (call $fd_prestat_dir_name (i32.const 3) (i32.const 2048) (i32.const 5)))
        (call $text (i32.const 2048) (i32.const 5))
        (call $say (call $fd_prestat_get (i32.const 4) (i32.const 1024)))
        (local.set $f (call $open <new> (i32.const 5) (i64.const 66) (i32.const 0)))
        (call $say (call $write (local.get $f) <some text>))
        (call $say (call $seek (local.get $f) (i64.const -4) (i32.const 2)))
        (call $say (call $read (local.get $f) (i32.const 3)))
        (call $say (call $seek (local.get $f) (i64.const 0) (i32.const 1)))
        (call $say (call $seek (local.get $f) (i64.const -1) (i32.const 0)))
        (local.set $g (call $open <new> (i32.const 0) (i64.const 64) (i32.const 1)))
        (call $say (call $write (local.get $g) <!>))
        (call $say (call $stat <new>))
        (call $say (call $fd_filestat_set_size (local.get $g) (i64.const 4)))
        (call $say (call $fd_close (local.get $f)))
        (call $say (call $read (local.get $f) (i32.const 3)))
        (call $say (call $path_create_directory (i32.const 3) <dir>))
        (call $say (call $path_rename (i32.const 3) <new> (i32.const 3) <dir/moved>))
        (call $say (call $path_remove_directory (i32.const 3) <dir>))
        (call $say (call $list (call $open <dir> (i32.const 2) (i64.const 16384) (i32.const 0)) (i32.const 1000)))";
    let expected = [
        "0", "/data", "8", "0", "5", "0", "tex", "0", "8", "0", "28", "0", "104", "0", "0", "8",
        "0", "0", "55", "moved", "0",
    ];
    assert_eq!(said(folder.path(), "", program).await, expected);
    assert_eq!(
        fs::read_to_string(folder.path().join("dir/moved")).unwrap(),
        "some"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_listed_with_little_room() {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = (10..40).map(|index| format!("file {index}")).collect();
    for name in &names {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let mut said = said(
        folder.path(),
        "",
        "(call $say (call $list (i32.const 3) (i32.const 100)))",
    )
    .await;
    assert_eq!(said.pop().as_deref(), Some("0"));
    said.sort();
    assert_eq!(said, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let granted = folder.path().join("granted");
    fs::create_dir(&granted).unwrap();
    fs::write(folder.path().join("secret"), "secret").unwrap();
    fs::write(granted.join("file"), "text").unwrap();
    symlink("../secret", granted.join("up")).unwrap();
    let reads = "(i32.const 0) (i64.const 2) (i32.const 0)";
    let dialogue = [
        (&*format!("(call $open <../secret> {reads})"), 1063),
        (&*format!("(call $open <up> {reads})"), 1063),
        (&*format!("(call $open </data/file> {reads})"), 1063),
        (&*format!("(call $open <none> {reads})"), 1044),
        // The right of setting the size is not that of writing.
        (
            "(i32.lt_u (call $open <file> (i32.const 0) (i64.const 4194306) (i32.const 0)) (i32.const 1000))",
            1,
        ),
        (
            "(call $open <file> (i32.const 0) (i64.const 66) (i32.const 0))",
            1063,
        ),
        (
            "(call $open <new> (i32.const 1) (i64.const 2) (i32.const 0))",
            1063,
        ),
        ("(call $path_unlink_file (i32.const 3) <file>)", 63),
        ("(call $path_symlink <a> (i32.const 3) <b>)", 63),
        (
            &*format!("(call $write (call $open <file> {reads}) <no>)"),
            8,
        ),
        // Nothing is a socket.
        ("(call $sock_shutdown (i32.const 3) (i32.const 0))", 57),
        ("(call $sock_shutdown (i32.const 99) (i32.const 0))", 8),
    ];
    answers(&granted, ":ro", &dialogue).await;
    assert_eq!(fs::read_to_string(granted.join("file")).unwrap(), "text");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_times_are_made_and_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "text").unwrap();
    let times = "(i64.const 1000000000) (i64.const 2000000000)";
    let dialogue = [
        (
            "(call $path_link (i32.const 3) (i32.const 0) <file> (i32.const 3) <second>)",
            0,
        ),
        (
            "(call $path_link (i32.const 3) (i32.const 1) <file> (i32.const 3) <third>)",
            28,
        ),
        (
            "(call $path_link (i32.const 3) (i32.const 0) <file> (i32.const 3) <../x>)",
            63,
        ),
        ("(call $path_symlink <file> (i32.const 3) <l>)", 0),
        ("(call $path_symlink </etc> (i32.const 3) <m>)", 63),
        (
            "(call $path_readlink (i32.const 3) <l> (i32.const 2048) (i32.const 3) (i32.const 1024))",
            0,
        ),
        ("(i32.load (i32.const 1024))", 3),
        ("(i32.load (i32.const 2048))", 0x6c_69_66),
        (
            "(call $path_readlink (i32.const 3) <file> (i32.const 2048) (i32.const 3) (i32.const 1024))",
            28,
        ),
        (
            &*format!(
                "(call $path_filestat_set_times (i32.const 3) (i32.const 1) <l> {times} (i32.const 5))"
            ),
            0,
        ),
        (
            &*format!(
                "(call $path_filestat_set_times (i32.const 3) (i32.const 1) <l> {times} (i32.const 3))"
            ),
            28,
        ),
        (
            "(call $path_filestat_get (i32.const 3) (i32.const 1) <l> (i32.const 1024))",
            0,
        ),
        ("(i32.load (i32.const 1048))", 2),
        (
            "(i32.wrap_i64 (i64.div_u (i64.load (i32.const 1072)) (i64.const 1000000000)))",
            2,
        ),
        (
            "(call $path_filestat_get (i32.const 3) (i32.const 0) <second> (i32.const 2048))",
            0,
        ),
        (
            "(i64.eq (i64.load (i32.const 1032)) (i64.load (i32.const 2056)))",
            1,
        ),
        (
            "(call $path_filestat_get (i32.const 3) (i32.const 0) <l> (i32.const 2048))",
            0,
        ),
        (
            "(i64.eq (i64.load (i32.const 1032)) (i64.load (i32.const 2056)))",
            0,
        ),
        (
            &*format!(
                "(call $fd_filestat_set_times (call $open <file> (i32.const 0) (i64.const 2) (i32.const 0)) {times} (i32.const 8))"
            ),
            0,
        ),
    ];
    answers(folder.path(), ":links", &dialogue).await;
    let file = fs::metadata(folder.path().join("file")).unwrap();
    assert!((file.atime(), file.nlink()) == (1, 2) && file.mtime() > 1_500_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn pointers_and_descriptors_that_lead_nowhere_are_errors() {
    let mut program = String::new();
    for (name, parameters) in functions() {
        for first in [u32::MAX, 0, 1, 3] {
            let mut arguments = String::new();
            for (index, kind) in parameters.chars().enumerate() {
                arguments += &match (index, kind) {
                    (0, _) => format!("(i32.const {first})"),
                    (_, 'i') => "(i32.const 4294967290)".into(),
                    _ => "(i64.const -1)".into(),
                };
            }
            program += &format!("(drop (call ${name} {arguments}))");
        }
    }
    // Descriptors 0, 1 and 3 are closed by now, and nothing can be said.
    program += "(call $proc_exit (i32.const 5))";
    let folder = tempfile::tempdir().unwrap();
    let grant = format!("{}:/data", folder.path().display());
    let (builder, _, err) = sandbox(module(&program));
    let builder = builder.policy(Policy::new().allow_dir(grant.parse().unwrap()));
    assert_eq!(
        (end_of(builder).await, &*err.text()),
        (Outcome::Exit(5), "")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_cannot_run_says_why() {
    let cases = [
        (
            r#"(module (import "env" "f" (func)) (import "wasi_snapshot_preview1" "fd_fly" (func)) (func (export "_start")))"#,
            "imports:\n  env#f\n  wasi_snapshot_preview1#fd_fly",
        ),
        (
            r#"(module (memory (export "memory") 1))"#,
            r#"neither a function `_start`, nor one of numbers that could be called, but ["memory"]"#,
        ),
        (
            r#"(module (func (export "_start") unreachable))"#,
            "unreachable",
        ),
    ];
    for (module, says) in cases {
        let (builder, _, err) = sandbox(module);
        assert_eq!(end_of(builder).await, Outcome::Exit(1), "{module}");
        assert!(err.text().contains(says), "{module}: {}", err.text());
    }
    let (builder, _, err) = sandbox(HELLO.replace("64", "-1"));
    assert_eq!(end_of(builder).await, Outcome::Exit(1));
    assert!(err.text().contains("unreachable"), "{}", err.text());
}
