//! Rust: libraries of core modules, components with their WIT, and programs of `std`.

use std::path::Path;
use std::process::Command;

use wakebox::{HostContext, Outcome, Policy};

use crate::common::{calling, end_of, sandbox};
use crate::{made, sources};

/// What `rustc` makes.
fn compiled(source: &str, target: &str, kind: &str) -> Vec<u8> {
    let source = format!("{source}.rs");
    let args = [
        "-O",
        "-Clinker=wasm-ld",
        "--target",
        target,
        "--crate-type",
        kind,
    ];
    made("rust", &rustc(), &[&args[..], &[&source, "-o"]].concat())
}

/// What `WAKEBOX_WASM_RUSTC` names, where the usual one has no targets of WebAssembly.
fn rustc() -> String {
    std::env::var("WAKEBOX_WASM_RUSTC").unwrap_or_else(|_| "rustc".into())
}

/// The target of programs of preview 1, which has had two names.
fn preview1() -> &'static str {
    let has = |target: &&str| {
        let mut command = Command::new(rustc());
        let output = command
            .args(["--print", "target-libdir", "--target", target])
            .output();
        let folder = output.unwrap().stdout;
        let folder = String::from_utf8(folder).unwrap();
        !folder.trim().is_empty() && Path::new(folder.trim()).exists()
    };
    let mut names = ["wasm32-wasip1", "wasm32-wasi"].into_iter();
    names.find(has).expect("rustc has the target of preview 1")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs rustc with the targets of WebAssembly"]
async fn a_library_of_numbers_is_called() {
    let (builder, _, err) = sandbox(compiled("sums", "wasm32-unknown-unknown", "cdylib"));
    let outcome = calling(builder, |caller| async move {
        assert_eq!(caller.call_json("gcd", "[12, 18]").await.unwrap(), "6");
        let mean = caller.call::<_, f64>("mean", &(1.0_f64, 2.0_f64)).await;
        assert_eq!(mean.unwrap(), 1.5);
    })
    .await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs rustc with the targets of WebAssembly"]
async fn a_library_with_its_wit_is_a_component() {
    let module = compiled("explain", "wasm32-unknown-unknown", "cdylib");
    let wit = sources("rust").join("world.wit");
    let component = wakebox_wasm::component(&module, Some(&wit), None).unwrap();
    let (builder, _, err) = sandbox(component);
    let builder = builder.host_fn(
        "my:app/kv.get",
        async |_: HostContext, (key,): (String,)| (key == "grüße").then(|| "greetings".to_owned()),
    );
    let outcome = calling(builder, |caller| async move {
        let said = caller.call::<_, String>("explain", "grüße an alle").await;
        assert_eq!(said.unwrap(), "grüße (greetings) an alle");
        let counts = caller.call_json("count", "\"b a b\"").await.unwrap();
        assert_eq!(counts, r#"[["a",1],["b",2]]"#);
    })
    .await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs rustc with the targets of WebAssembly"]
async fn a_program_of_std_reads_and_writes_files() {
    let (builder, out, err) = sandbox(compiled("words", preview1(), "bin"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "one two\n one ").unwrap();
    let grant = format!("{}:/here", folder.path().display());
    let builder = builder
        .policy(Policy::new().allow_dir(grant.parse().unwrap()))
        .env("LEVEL", "high")
        .args(["/here/text", "/here/counts"]);
    let outcome = end_of(builder).await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
    assert_eq!(out.text(), "2 words, 12 bytes, high\n");
    let counts = std::fs::read_to_string(folder.path().join("counts")).unwrap();
    assert_eq!(counts, "2 one\n1 two\n");
}
