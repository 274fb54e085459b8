//! What programs read of the command: `--json`.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use wakebox_tests::{guest, kvm_test};

/// What a command prints as JSON, and its exit status.
fn json_of(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&said).unwrap_or_else(|error| {
        let stderr = String::from_utf8_lossy(&output.stderr);
        panic!("{arguments:?}: {error}: {said}\n{stderr}")
    });
    (output.status.code(), value)
}

#[test]
fn a_guest_is_inspected_for_a_program_and_so_is_what_is_none() {
    let hello = guest("hello");
    let hello = hello.to_str().unwrap();
    let (code, said) = json_of(&["inspect", "--json", hello]);
    assert_eq!(
        (code, &said["kind"], &said["refused"]),
        (Some(0), &json!("guest"), &Value::Null)
    );
    assert_eq!(
        said["file_len"].as_u64(),
        Some(std::fs::metadata(hello).unwrap().len())
    );
    let segments = said["segments"].as_array().unwrap();
    let entry = said["entry"].as_u64().unwrap();
    let holds_entry = |segment: &&Value| {
        let at = |name| segment[name].as_u64().unwrap();
        (at("start")..at("end")).contains(&entry)
    };
    let segment = segments.iter().find(holds_entry).unwrap();
    assert_eq!(segment["rights"], "r-x");

    let mut other = tempfile::NamedTempFile::new().unwrap();
    other.write_all(b"no guest").unwrap();
    let (code, said) = json_of(&["inspect", "--json", other.path().to_str().unwrap()]);
    assert_eq!((code, said.get("kind")), (Some(1), None));
    assert!(said["refused"].as_str().unwrap().contains("ELF"), "{said}");
}

#[kvm_test]
fn a_template_is_inspected_for_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calls.template");
    let file = file.to_str().unwrap();
    let taken = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("snapshot")
        .arg(guest("calls"))
        .args(["-o", file, "--", "serve"])
        .output()
        .unwrap();
    assert!(taken.status.success(), "{taken:?}");
    let (code, said) = json_of(&["inspect", "--json", file]);
    assert_eq!((code, &said["kind"]), (Some(0), &json!("template")));
    let parked = &said["parked"];
    assert!(parked["in_flight"].as_u64() > Some(0), "{said}");
    assert!(parked["held"].as_u64() <= parked["memory"].as_u64());
    let hash = said["parts"][0]["sha256"].as_str().unwrap();
    assert_eq!(hash.len(), 64);
}

#[test]
fn what_wants_std_is_told_to_a_program() {
    let root = wakebox_tests::root();
    let manifest = |path: &str| root.join(path).join("Cargo.toml");
    let check = |manifest: &Path| {
        json_of(&[
            "check",
            "--json",
            "--manifest-path",
            manifest.to_str().unwrap(),
        ])
    };
    let (code, said) = check(&manifest("tests/guests/probes"));
    assert_eq!((code, &said["findings"]), (Some(0), &json!([])));
    assert_eq!(said["name"], "wakebox-probes");
    let (code, said) = check(&manifest("xtask"));
    let findings = said["findings"].as_array().unwrap();
    assert_eq!(code, Some(1));
    let has = |what: &str| {
        findings
            .iter()
            .any(|finding| finding["what"].as_str().unwrap().contains(what))
    };
    assert!(
        has("src/main.rs lacks #![no_std] and #![no_main]"),
        "{said}"
    );
}

#[kvm_test]
fn the_doctor_tells_a_program_what_a_machine_has_and_what_it_costs() {
    let (code, said) = json_of(&["doctor", "--json"]);
    assert_eq!((code, &said["runs_guests"]), (Some(0), &json!(true)));
    assert!(said["costs"]["round_trip"].as_u64() > Some(0), "{said}");
    let findings = said["findings"].as_array().unwrap();
    let kind = findings.iter().find(|finding| {
        let what = finding["what"].as_str().unwrap();
        what.starts_with("kind: ")
    });
    assert_eq!(kind.unwrap()["grade"], "note");
    assert!(findings.iter().all(|finding| finding["grade"] != "bad"));
}
