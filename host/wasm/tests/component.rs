//! Components that are made of core modules and their WIT.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use wakebox::Outcome;
use wakebox_wasm::component;

use common::{calling, sandbox};

const WIT: &str = "package my:app; world first { export twice: func(text: string) -> string; }
world second { export nothing: func(); }";

/// Gives a text once more behind itself.
const MODULE: &str = r#"(module
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 1024))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3))))
  (func (export "twice") (param $at i32) (param $length i32) (result i32)
    (memory.copy (i32.add (local.get $at) (local.get $length)) (local.get $at) (local.get $length))
    (i32.store (i32.const 16) (local.get $at))
    (i32.store (i32.const 20) (i32.mul (local.get $length) (i32.const 2)))
    (i32.const 16)))"#;

fn made(module: &str, wit: &str, world: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("world.wit");
    fs::write(&file, wit).unwrap();
    component(module.as_bytes(), Some(&file), world)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_and_its_wit_are_a_component() {
    let (builder, _, err) = sandbox(made(MODULE, WIT, Some("first")).unwrap());
    let outcome = calling(builder, |caller| async move {
        let twice = caller.call_json("twice", "\"grüße \"").await;
        assert_eq!(twice.unwrap(), "\"grüße grüße \"");
    })
    .await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
}

#[test]
fn what_does_not_fit_is_said() {
    let first = Some("first");
    let without = MODULE.replace("\"twice\"", "\"thrice\"");
    let other = MODULE.replace("(param $length i32) (result", "(param $length i64) (result");
    let other = other.replace("(local.get $length)", "(i32.wrap_i64 (local.get $length))");
    let component = r"(component)";
    for (module, wit, world, says) in [
        (MODULE, WIT, None, "world"),
        (MODULE, WIT, Some("third"), "third"),
        (MODULE, "package", first, "world.wit"),
        (&*without, WIT, first, "twice"),
        (&*other, WIT, first, "twice"),
        (component, WIT, first, "this is a component already"),
        ("\0asm", WIT, first, "shorter than the header"),
    ] {
        let error = made(module, wit, world).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(says), "{says}: {error}");
    }
    // One that has no WIT in it, and is given none.
    let error = wakebox_wasm::component(MODULE.as_bytes(), None, None).unwrap_err();
    assert!(error.to_string().contains("no WIT in it"), "{error:#}");
}

#[test]
fn the_command_makes_a_component() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lib.wat"), MODULE).unwrap();
    fs::write(folder.path().join("world.wit"), WIT).unwrap();
    let wakebox_wasm = Path::new(env!("CARGO_BIN_EXE_wakebox-wasm"));
    let run = |program: &Path, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder.path());
        let command = command.env("XDG_CACHE_HOME", folder.path());
        let output = command.output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.stdout, err)
    };
    let mut args = vec![
        "component",
        "lib.wat",
        "--wit",
        "world.wit",
        "-o",
        "app.wasm",
    ];
    let (code, _, err) = run(wakebox_wasm, &args);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("error: lib.wat: "), "{err}");
    args.extend(["--world", "first"]);
    assert_eq!(run(wakebox_wasm, &args), (Some(0), vec![], String::new()));
    let (_, said, err) = run(
        &wakebox_wasm.with_file_name("wakebox"),
        &["call", "app.wasm", "twice", "\"a\""],
    );
    assert_eq!((&*said, &*err), (&b"\"aa\"\n"[..], ""));
}
