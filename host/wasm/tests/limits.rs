//! Limits of the process that compiles.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

/// signal(7): the limit of processor time is exceeded.
const SIGXCPU: i32 = 24;

fn compile(app: &std::path::Path, limit: [&str; 2]) -> Output {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-wasm"));
    command.args(["compile", "-o", "-"]).args(limit).arg(app);
    command
        .env("XDG_CACHE_HOME", cache.path())
        .output()
        .unwrap()
}

#[test]
fn a_module_that_takes_long_to_compile_reaches_the_limit_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app.wat");
    let body = "i32.const 7 i32.xor i32.popcnt ".repeat(1_000_000);
    let text = format!("(module (func (param i32) (result i32) local.get 0 {body}))");
    fs::write(&app, text).unwrap();
    let output = compile(&app, ["--seconds", "1"]);
    assert_eq!(output.status.signal(), Some(SIGXCPU), "{output:?}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_file_that_takes_more_memory_than_there_may_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app.wasm");
    fs::File::create(&app).unwrap().set_len(200 << 20).unwrap();
    let output = compile(&app, ["--memory", "150"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("app.wasm") && err.contains("memory"), "{err}");
}
