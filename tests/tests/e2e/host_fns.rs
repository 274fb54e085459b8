//! Functions of the host that do not know their types: of JSON, of bytes, and programs (`--host-fn`).

use std::io;
use std::process::{Command, Output, Stdio};

use wakebox::{HostContext, HostFunctions, Sandbox, WakeMode};
use wakebox_tests::{guest, kvm_test, run};

/// Functions for the guest `calls untyped`.
fn untyped() -> HostFunctions {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
    HostFunctions::new()
        .host_fn_json("add", move |_: HostContext, json: String| async move {
            let numbers: Result<(u64, u64), _> = serde_json::from_str(&json);
            let (a, b) = numbers.map_err(|error| bad(&error.to_string()))?;
            Ok((a + b).to_string())
        })
        .host_fn_json("divide", async |_: HostContext, json: String| {
            Ok(match json.as_str() {
                "[7,2]" => "{\"Ok\": 3}",
                _ => "{\"Err\": \"by zero\"}",
            })
        })
        // What it was given, as it stands there.
        .host_fn_json("page", async |_: HostContext, json: String| {
            assert_eq!(json.lines().count(), 1);
            Ok(json)
        })
        .host_fn_json("never", async |_: HostContext, json: String| {
            assert_eq!(json, "null");
            Err::<String, _>(io::ErrorKind::ResourceBusy.into())
        })
        .host_fn_json("echo", async |_: HostContext, json: String| Ok(json))
        .host_fn_bytes("reverse", async |_: HostContext, mut bytes: Vec<u8>| {
            bytes.reverse();
            Ok(bytes)
        })
}

#[kvm_test(modes)]
fn a_host_that_does_not_know_the_types_is_called_with_json_or_bytes(mode: WakeMode) {
    let builder = Sandbox::builder()
        .guest(guest("calls"))
        .wake(mode)
        .args(["untyped"])
        .functions(untyped());
    let ended = run(builder);
    let expected = [
        "add Ok(5)",
        "divide Ok(Ok(3))",
        "divide by zero Ok(Err(\"by zero\"))",
        "page Ok(\"\\n7\\\\n\")",
        // The type of the guest's, and what its JSON reader says.
        "title Err(InvalidData (call `page`, as `u32 -> core::option::Option<calls::Page>`, gave JSON of \
         something else: invalid type: integer `7`, expected struct Page at line 1 column 1: the data is not \
         valid))",
        "no answer Err(Busy (call `never`: the resource is busy))",
        "other Err(InvalidInput (call `add`: a parameter is out of range))",
        "large Ok(true)",
        "five hundred 125250",
        "bytes Ok([99, 98, 97])",
        "many bytes Ok(true)",
        "no bytes Err(WantsJson (call `add`: the function takes JSON, and nothing else))",
        "typed Err(InvalidData (call `reverse`, which is `bytes -> bytes` on the host, as `u64 -> u64`: the \
         data is not valid))",
        "absent Err(NotFound (call `absent`: there is no such thing))",
        "stream Err(NotFound (call `add`: there is no such thing))",
        "end",
    ];
    assert_eq!(ended.success().lines(), expected, "mode {mode}");
}

/// `wakebox call calls add_on_the_host [40, 2]` with a command for `add`.
fn call(command: &str) -> Output {
    let mut wakebox = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
    wakebox.args(["call", "--host-fn", &format!("add={command}")]);
    wakebox.arg(guest("calls"));
    wakebox.args(["add_on_the_host", "[40, 2]", "--", "serve"]);
    wakebox.stdin(Stdio::null()).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[kvm_test]
fn a_program_answers_a_guests_calls() {
    let called = call(r#"while read -r line; do test "$line" = "[40,2]" && echo " 42 "; done"#);
    assert_eq!(text(&called.stdout), "42\n", "{}", text(&called.stderr));
    assert_eq!(text(&called.stderr), "end\n");
    assert!(called.status.success());
}

#[kvm_test]
fn a_program_that_ends_or_answers_nonsense_is_named() {
    for (command, why) in [
        ("exit 3", "has ended (exit status: 3)"),
        (
            "read -r line; echo hello; cat",
            "answered what is no JSON: `hello`",
        ),
        (
            "read -r line; echo '1\n2'; cat",
            "wrote a line to which there was no call",
        ),
        (
            "read -r line; tr '\\0' 1 </dev/zero | head -c 17000000; cat",
            "answered a line of more than 16 MiB",
        ),
    ] {
        let called = call(command);
        let told = text(&called.stderr);
        let expected = format!("wakebox: the command of the host function `add` {why}");
        let is_answered = command.contains('2');
        assert!(told.contains(&expected) || is_answered, "{command}: {told}");
        assert_eq!(
            told.matches("the command of").count(),
            usize::from(told.contains(&expected))
        );
        // The guest has a `None` for the error, unless the answer was there first.
        let result = text(&called.stdout);
        assert!(
            result == "null\n" || is_answered && result == "1\n",
            "{command}: {result}"
        );
    }
}

#[kvm_test]
fn a_program_has_the_end_of_its_input_when_the_command_ends() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let called = call(&format!(
        "while read -r line; do echo 7; done; echo over >{}",
        told.display()
    ));
    assert_eq!(text(&called.stdout), "7\n");
    while !std::fs::read_to_string(&told).is_ok_and(|said| said == "over\n") {
        std::thread::yield_now();
    }
}
