//! What a guest brings is its file, and the host reads all of it: program headers, relocations, symbols,
//! debug information. Each file of [`wakebox_proofs::files`], which are as much work as a format
//! allows, is refused with a sentence, or run to an end that has its name. Memory and steps are counted
//! in `tests/fuzz/tests/files.rs`.

use wakebox::Sandbox;
use wakebox_proofs::files::{CASES, End};
use wakebox_tests::kvm_test;

/// What `wakebox run --json` and a server would show, made on a worker of a runtime: its stack is
/// small, and others wait for the thread.
#[kvm_test]
fn the_outcome_of_any_file_can_be_serialized_on_a_worker() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for case in CASES {
        let name = case.name;
        let built = Sandbox::builder().guest((case.file)()).build();
        let (mut sandbox, function) = match (case.end, built) {
            (End::Refused(words), Err(error)) => {
                let sentence = format!("{:#}", anyhow::Error::from(error));
                assert!(sentence.contains(words), "{name}: {sentence}");
                continue;
            }
            (End::Refused(_), Ok(_)) => panic!("{name} was loaded"),
            (End::Stops(_), Err(error)) => panic!("{name} was refused: {error}"),
            (End::Stops(function), Ok(sandbox)) => (sandbox, function),
        };
        let ended = runtime.spawn(async move {
            let outcome = sandbox.run().await.unwrap();
            (serde_json::to_value(&outcome).unwrap(), sandbox)
        });
        let (outcome, sandbox) = runtime.block_on(ended).unwrap();
        assert_eq!(outcome["end"], "fault", "{name}");
        let detail = &outcome["detail"];
        assert_eq!(detail["cause"], "illegal-instruction", "{name}");
        let frames = detail["backtrace"].as_array().unwrap();
        let mut functions = frames.iter().filter_map(|it| it["function"].as_str());
        match function {
            Some(part) => assert!(functions.any(|it| it.contains(part)), "{name}: {detail}"),
            None => assert_eq!(functions.next(), None, "{name}"),
        }
        let mut core = tempfile::tempfile().unwrap();
        sandbox.crash_dump().unwrap().write_to(&mut core).unwrap();
    }
}
