//! Modules that mean harm, each with the sentence that it gets.

mod common;

use std::time::Duration;

use wakebox::{Limit, Limits, Outcome};

use common::{end_of, sandbox};

/// How a module ends, in 64 MiB and with two seconds of processor time.
async fn ended(module: &str) -> (Outcome, String) {
    let (builder, _, err) = sandbox(module);
    let limits = Limits::new().cpu_time(Duration::from_secs(2));
    let outcome = end_of(builder.limits(limits)).await;
    (outcome, err.text())
}

#[track_caller]
fn says((outcome, err): (Outcome, String), words: &[&str]) {
    assert_eq!(outcome, Outcome::Exit(1), "{err}");
    for word in words {
        assert!(err.contains(word), "{word}: {err}");
    }
}

/// A program whose body these instructions are.
fn program(fields: &str, body: &str) -> String {
    format!(r#"(module {fields} (func $start (export "_start") {body}))"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_of_memory_is_what_there_is() {
    let sizes = [
        ("(memory 65536)", "memory"),
        ("(memory 2000)", "memory"),
        ("(table 4000000000 funcref)", "table"),
        ("(table 10000000 funcref)", "table"),
    ];
    for (fields, what) in sizes {
        let limits = format!("exceeds {what} limits");
        let words = [&*limits, "note: the sandbox has less memory left: `--mem`"];
        says(ended(&program(fields, "")).await, &words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_grows_for_ever_is_told_no_and_goes_on() {
    // Until it is refused, and a hundred thousand times after that.
    let storm = "(local $left i32)
        (local.set $left (i32.const 100000))
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 7)) (i32.const -1))))
        (loop $more (br_if $more (i32.ne (table.grow (ref.null func) (i32.const 9999)) (i32.const -1))))
        (loop $again
          (if (i32.ne (memory.grow (i32.const 65000)) (i32.const -1)) (then unreachable))
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br_if $again (local.get $left)))
        ;; What there is can be written to.
        (i32.store (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)) (i32.const 1))";
    let module = program("(memory 1) (table 1 funcref)", storm);
    let (outcome, err) = ended(&module).await;
    assert_eq!((outcome, &*err), (Outcome::Exit(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_empty_is_told_no_as_well() {
    let grow = "(if (i32.ne (memory.grow (i32.const 65000)) (i32.const -1)) (then unreachable))
        (if (i32.ne (table.grow (ref.null func) (i32.const 99999999)) (i32.const -1)) (then unreachable))";
    let (outcome, err) = ended(&program("(memory 0) (table 0 funcref)", grow)).await;
    assert_eq!((outcome, &*err), (Outcome::Exit(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_recurses_without_end_is_a_trap() {
    let deep = program("", "(call $start)");
    says(ended(&deep).await, &["call stack exhausted"]);
    let wide = program(
        "(table 1 funcref) (elem (i32.const 0) $start) (type $t (func))",
        "(local i64 i64 i64 i64 i64 i64 i64 i64) (call_indirect (type $t) (i32.const 0))",
    );
    says(ended(&wide).await, &["call stack exhausted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_reaches_the_limit() {
    for module in [
        program("", "(loop $for-ever (br $for-ever))"),
        // Before the program begins.
        program(
            "(func $first (loop $for-ever (br $for-ever))) (start $first)",
            "",
        ),
    ] {
        let (outcome, err) = ended(&module).await;
        let is_limit = matches!(outcome, Outcome::Limit(Limit::CpuTime(_)));
        assert!(is_limit, "{outcome:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_that_lie_about_types_are_errors() {
    let module = |ty: &str| {
        let import = format!(r#"(import "wasi_snapshot_preview1" "fd_write" (func {ty}))"#);
        program(&import, "")
    };
    for ty in ["(param i32)", "(param i64 i32 i32 i32) (result i32)", ""] {
        says(
            ended(&module(ty)).await,
            &["fd_write", "incompatible import type"],
        );
    }
    let as_memory = r#"(import "wasi_snapshot_preview1" "fd_write" (memory 1))"#;
    says(ended(&program(as_memory, "")).await, &["fd_write"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_that_do_not_fit_are_traps() {
    for fields in [
        r#"(memory 1) (data (i32.const 65536) "x")"#,
        r#"(memory 1) (data (i32.const -1) "x")"#,
    ] {
        says(
            ended(&program(fields, "")).await,
            &["out of bounds memory access"],
        );
    }
    let elements = "(table 1 funcref) (elem (i32.const 1) $start)";
    says(
        ended(&program(elements, "")).await,
        &["out of bounds table access"],
    );
}

/// What the compiler says.
fn refused(module: impl AsRef<[u8]>) -> String {
    let compiled = wakebox_wasm::compile(module.as_ref());
    let error = compiled.expect_err("it is refused");
    format!("{error:#}")
}

#[test]
fn what_is_no_module_is_said_to_be_none() {
    let whole = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".as_slice();
    for (bytes, words) in [
        (&b""[..], "neither WebAssembly nor its text format"),
        (b"\0asm", "shorter than the header"),
        (b"\0asm\x02\0\0\0", "version 0x2"),
        (
            b"\x7fELF\x02\x01\x01\0\0\0",
            "neither WebAssembly nor its text format",
        ),
        (b"(module", "neither WebAssembly nor its text format"),
        (b"{}", "neither WebAssembly nor its text format"),
        // A function without its code, and cut off in the middle of a section.
        (whole, "code section is absent"),
        (&whole[..12], "unexpected end"),
    ] {
        let said = refused(bytes);
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn what_is_newer_than_the_runtime_is_named() {
    for (module, words) in [
        ("(module (type (struct (field i32))))", "gc"),
        ("(module (func (param externref)))", "gc"),
        ("(module (memory 1 1 shared))", "threads"),
        ("(module (tag) (func (throw 0)))", "exceptions"),
        (
            "(module (func (drop (i64.add128 (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1))) drop))",
            "wide arithmetic",
        ),
        ("(module (memory 1 (pagesize 1)))", "custom page sizes"),
    ] {
        let said = refused(module);
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_component_of_very_many_modules_is_refused() {
    let component = |count: usize| format!("(component {})", "(core module)".repeat(count));
    assert!(wakebox_wasm::compile(component(256).as_bytes()).is_ok());
    let said = refused(component(257));
    assert!(said.contains("257 core modules"), "{said}");
}
