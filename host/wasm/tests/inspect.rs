//! What `inspect` says of components and modules.

use std::fs;
use std::process::Command;

use wakebox_wasm::inspect;

const HELLO: &str = include_str!("components/hello.wat");
const MANY: &str = include_str!("components/many.wat");
const MODULE: &str = include_str!("modules/hello.wat");

fn said(component: &str) -> String {
    inspect(component.as_bytes()).unwrap()
}

/// The lines below a title.
fn below<'a>(title: &str, text: &'a str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| *line != title).skip(1);
    lines.map_while(|line| line.strip_prefix("  ")).collect()
}

#[test]
fn a_component_whose_imports_are_provided_misses_nothing() {
    let said = said(HELLO);
    assert!(said.starts_with("component\n"), "{said}");
    assert_eq!(below("exports", &said), ["wasi:cli/run@0.2.0: the program"]);
    assert!(
        below("imports", &said).contains(&"wasi:cli/stdout@0.2.0: provided"),
        "{said}"
    );
    assert_eq!(below("missing for `wakebox run`", &said), ["nothing"]);
}

#[test]
fn host_functions_are_named_as_a_program_gives_them() {
    let said = said(MANY);
    assert!(
        said.contains("host functions `my:app/kv.get` (`Builder::host_fn`)"),
        "{said}"
    );
    assert_eq!(
        below("missing for `wakebox run`", &said),
        ["my:app/kv.get, a host function"]
    );
}

#[test]
fn what_nobody_provides_and_what_a_grant_is_needed_for_is_said() {
    let said = said(
        r#"(component
          (import "wasi:cli/environment@0.2.3" (instance
            (export "initial-cwd" (func (result (option string))))))
          (import "wasi:sockets/ip-name-lookup@0.2.0" (instance (export "f" (func))))
          (import "wasi:http/other@0.2.0" (instance (export "f" (func))))
          (import "wasi:clocks/monotonic-clock@0.3.0" (instance (export "now" (func (result u64)))))
          (import "wasi:clocks/wall-clock@0.3.0" (instance (export "now" (func (result u64))))))"#,
    );
    assert_eq!(
        below("imports", &said),
        [
            "wasi:cli/environment@0.2.3: provided; what is there, --env NAME=VALUE grants",
            "wasi:sockets/ip-name-lookup@0.2.0: provided; what is there, --allow-resolve NAME grants",
            "wasi:http/other@0.2.0: not provided: whoever calls it is ended",
            "wasi:clocks/monotonic-clock@0.3.0: provided",
            "wasi:clocks/wall-clock@0.3.0: not provided: whoever calls it is ended",
        ]
    );
    assert_eq!(
        below("missing for `wakebox run`", &said),
        [
            "wasi:cli/run@0.2, or a function `run`: there is no program",
            "wasi:http/other@0.2.0",
            "wasi:clocks/wall-clock@0.3.0",
        ]
    );
}

#[test]
fn a_component_that_answers_requests_is_to_be_served() {
    let said = said(
        r#"(component
          (core module $m (func (export "f")))
          (core instance $m (instantiate $m))
          (func $f (canon lift (core func $m "f")))
          (instance (export "wasi:http/incoming-handler@0.2.0") (export "handle" (func $f))))"#,
    );
    assert_eq!(
        below("exports", &said),
        ["wasi:http/incoming-handler@0.2.0: for `wakebox serve`"]
    );
    assert_eq!(below("missing for `wakebox run`", &said), ["nothing"]);
}

#[test]
fn functions_of_a_component_are_to_be_called() {
    let said = said(
        r#"(component
          (core module $m (func (export "f")))
          (core instance $m (instantiate $m))
          (func $f (export "add") (canon lift (core func $m "f")))
          (instance (export "my:app/texts@1.2.0") (export "same" (func $f))))"#,
    );
    assert_eq!(
        below("exports", &said),
        [
            "add: for `wakebox call`",
            "my:app/texts@1.2.0: for `wakebox call`"
        ]
    );
    assert_eq!(below("missing for `wakebox run`", &said), ["nothing"]);
}

#[test]
fn of_a_module_it_says_the_functions() {
    let hello = said(MODULE);
    assert!(
        hello.starts_with("core module, WASI preview 1\n"),
        "{hello}"
    );
    assert_eq!(
        below("imports", &hello),
        ["wasi_snapshot_preview1#fd_write: provided"]
    );
    assert_eq!(below("exports", &hello), ["memory", "_start: the program"]);
    assert_eq!(below("missing for `wakebox run`", &hello), ["nothing"]);
    let other = said(
        r#"(module (import "wasi_snapshot_preview1" "path_open" (func)) (import "env" "f" (func))
          (import "wasi_snapshot_preview1" "fd_fly" (func)))"#,
    );
    assert!(
        below("imports", &other).contains(&"files: what is there, --dir HOST:GUEST[:ro] grants"),
        "{other}"
    );
    assert_eq!(
        below("missing for `wakebox run`", &other),
        [
            "env#f",
            "wasi_snapshot_preview1#fd_fly",
            "_start, or a function of numbers: there is no program, and nothing to call"
        ]
    );
}

#[test]
fn functions_of_a_module_without_a_program_are_to_be_called() {
    let library = r#"(module
      (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
      (memory (export "memory") 1)
      (func (export "_initialize"))
      (func (export "add") (param i32 f64) (result i64 f32) unreachable)
      (func (export "refer") (param funcref)))"#;
    let said = said(library);
    assert_eq!(
        below("exports", &said),
        [
            "memory",
            "_initialize: called before all else",
            "add: for `wakebox call`",
            "refer"
        ]
    );
    assert_eq!(below("missing for `wakebox run`", &said), ["nothing"]);
}

#[test]
fn the_command_inspects_and_says_what_is_no_component() {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app.wat");
    let inspect = |bytes: &[u8]| {
        fs::write(&app, bytes).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-wasm"));
        command.arg("inspect").arg(&app).output().unwrap()
    };
    let output = inspect(MODULE.as_bytes());
    assert_eq!(String::from_utf8_lossy(&output.stdout), said(MODULE));
    let whole = wat::parse_str(HELLO).unwrap();
    for bad in [
        &whole[..whole.len() / 2],
        b"\x7fELF",
        b"\0asm\x01\0\0\0\x09",
    ] {
        let output = inspect(bad);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(
            err.starts_with("error: ") && err.contains("app.wat"),
            "{err}"
        );
    }
}
