//! The demos, as one types them: `cargo xtask run NAME`. `--dev` has their host built without
//! optimization, as the tests are.

use std::fs;
use std::process::Command;

use wakebox_tests::programs::{Server, output};
use wakebox_tests::{kvm_test, require_kvm, root};

/// What a demo prints.
fn demo(name: &str, args: &[&str]) -> String {
    require_kvm();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["xtask", "run", "--dev", name, "--"])
        .args(args)
        .current_dir(root());
    String::from_utf8(output(&mut command)).expect("text")
}

#[kvm_test]
fn echo_gives_back_what_hundreds_of_clients_send() {
    let said = demo("echo", &["--selftest"]);
    assert!(said.contains("every one of them right"), "{said}");
}

#[kvm_test]
fn grep_finds_what_the_hosts_own_finds() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
    write("one", b"needle\nno\nneedle without an end");
    write("a/two", &b"hay and a needle\n".repeat(5_000));
    write("a/b/binary", b"needle\0\n");
    write(
        "a/b/long",
        &[b"x".repeat(100_000), b"needle\n".to_vec()].concat(),
    );
    write("a/b/none", b"hay\n");
    std::os::unix::fs::symlink("one", folder.path().join("link")).unwrap();
    let place = folder.path().to_str().expect("text");
    let said = demo("grep", &["needle", place, "--selftest"]);
    assert!(said.contains("the same 5003 lines"), "{said}");
}

#[kvm_test]
fn fetch_gets_what_it_was_granted() {
    let server = Server::nginx(&[("a", b"12345"), ("b", &[7; 100_000])]);
    let url = |name: &str| format!("http://{}/{name}", server.address());
    let said = demo("fetch", &["--limit", "2", &url("a"), &url("b"), &url("c")]);
    assert!(said.contains("200        5 bytes"), "{said}");
    assert!(said.contains("200   100000 bytes"), "{said}");
    assert!(said.contains("404 "), "{said}");
    assert!(said.contains("3 of 3 in"), "{said}");
}

#[kvm_test]
fn kv_stores_outside_and_errors_arrive_with_their_type() {
    let said = demo("kv", &["300", "5"]);
    for line in [
        "1500 of 1500 keys set and read back by 300 tasks at once",
        "synchronized: Ok(())",
        "an empty key: Err(EmptyKey)",
        "a long value: Err(ValueTooLong { most: 4096 })",
        "a key that nobody has set: Ok(None)",
        "task 0007 key 001 = 7",
    ] {
        assert!(said.contains(line), "expected `{line}` in: {said}");
    }
}

#[kvm_test]
fn callme_is_called_hundreds_of_times_at_once() {
    let said = demo("callme", &[]);
    for line in [
        "500 naps of 100 ms, all at once",
        "17984 primes below 200,000",
        "Ok(Total { customer: \"Ann\", cents: 670 })",
        "Ok(Unknown { item: \"hat\" })",
        "a call with a time-out: Err(",
        "no such function: Err(NoSuchFunction(\"nonesuch\"))",
        "wrong arguments: Err(BadInput(Mismatch { function: \"checkout\",",
        "guest: a call was given up, its task is dropped",
        "guest: no more calls will come",
    ] {
        assert!(said.contains(line), "expected `{line}` in: {said}");
    }
}

#[kvm_test]
fn c10k_loses_nothing() {
    let said = demo("c10k", &["1000", "1"]);
    assert!(said.contains("1000 connections open"), "{said}");
    assert!(
        said.contains("0 connections broke, 0 echoes are missing"),
        "{said}"
    );
}

#[kvm_test]
fn cores_does_the_same_work_on_one_processor_and_on_two() {
    let said = demo("cores", &[]);
    // The guest itself checks that the results are the same.
    for line in [
        "256 tasks on one processor: ",
        "256 tasks on 2 processors: ",
    ] {
        assert!(said.contains(line), "expected `{line}` in: {said}");
    }
}

#[kvm_test]
fn preempt_answers_in_the_middle_of_a_computation() {
    let said = demo("preempt", &["300"]);
    assert!(said.contains("in one poll"), "{said}");
    let (_, rest) = said
        .split_once("in one poll; ")
        .unwrap_or_else(|| panic!("{said}"));
    let answers: u64 = rest.split_whitespace().next().unwrap().parse().unwrap();
    // In the other modes there is none.
    assert!(answers > 3, "{said}");
    assert!(said.contains("all within"), "{said}");
}

#[kvm_test]
fn fork_has_clones_and_a_pool_answer_without_the_memory_of_a_cold_start() {
    let said = demo("fork", &["7"]);
    // Of three that start cold, and of seven of each other kind, first asleep and then timed.
    assert!(said.contains("31 of 31 answers are right"), "{said}");
    let row = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("expected a row `{name}` in: {said}"));
        let [ms, samples, kib, sandboxes] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        assert!(ms.parse::<f64>().unwrap() > 0.0, "{line}");
        let count = |word: &str| word.parse::<u64>().unwrap();
        (count(samples), count(kib), count(sandboxes))
    };
    let (samples, cold, sandboxes) = row("cold start ");
    assert_eq!((samples, sandboxes), (3, 3), "{said}");
    // Each has found its primes, and keeps them.
    assert!(cold > 400_000_000 / 2 / 8 / 1024, "{said}");
    for name in ["clone of the template ", "taken of a pool "] {
        let (samples, kib, sandboxes) = row(name);
        assert_eq!((samples, sandboxes), (7, 7), "{said}");
        assert!(kib < cold / 4, "{said}");
    }
}

#[kvm_test]
fn requests_take_a_sandbox_each_whose_host_functions_know_the_tenant() {
    let said = demo("requests", &["--once"]);
    let expected = [
        "plain/ann/tea: 200 ann: 250",
        "plain/bob/tea: 200 bob: 250",
        "plain/ann/hat: 404 hat",
        // Who serves many at once does not know for whom.
        "warm/ann/tea: 200 ann: 250",
        "warm/bob/tea: 200 bob: 250",
        "warm/ann/hat: 404 hat",
        // And of the one before nothing is left.
        "pooled/ann/tea: 200 ann: 200",
        "pooled/bob/tea: 200 bob: 250",
        "pooled/ann/hat: 404 hat",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

/// Lines without what only lays them out.
fn words(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split_whitespace());
    let lines = lines.map(|words| words.collect::<Vec<_>>().join(" "));
    lines.filter(|line| !line.is_empty()).collect()
}

#[kvm_test]
fn what_the_readme_shows_of_embedding_is_an_example_that_runs() {
    let page = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = page.split_once("\n## In your program\n").unwrap();
    let (_, block) = section.split_once("```rust\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let example = fs::read_to_string(root().join("host/examples/embed.rs")).unwrap();
    let mut rest = &words(&example)[..];
    for line in words(block) {
        let at = rest.iter().position(|other| *other == line);
        rest = &rest[at.unwrap_or_else(|| panic!("the example has no `{line}`")) + 1..];
    }

    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("target/release")).unwrap();
    fs::copy(
        wakebox_tests::guest("hello"),
        folder.path().join("target/release/hello"),
    )
    .unwrap();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // As `cargo xtask run --dev` builds them.
    build.args("build --quiet --workspace --bin wakebox --examples".split(' '));
    output(build.current_dir(root()));
    let mut run = Command::new(root().join("target/debug/examples/embed"));
    let said = String::from_utf8(output(run.current_dir(folder.path()))).unwrap();
    assert_eq!(
        said.trim_end(),
        "Hello from ring 3.\nthe guest ended with code 0"
    );
}
