//! C, by Debian's clang with wasi-libc.

use wakebox::{Outcome, Policy};

use crate::common::{end_of, sandbox};
use crate::made;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Debian's clang and wasi-libc"]
async fn reads_the_files_that_are_granted() {
    let flags = ["--target=wasm32-wasi", "-O2", "words.c", "-o"];
    let module = made("c", "clang", &flags);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "one two\n three ").unwrap();
    let grant = format!("{}:/here:ro", folder.path().display());
    let (builder, out, err) = sandbox(module);
    let policy = Policy::new().allow_dir(grant.parse().unwrap());
    let builder = builder.policy(policy).args(["/here/text", "/here/none"]);
    assert_eq!(end_of(builder).await, Outcome::Exit(1));
    assert_eq!(out.text(), "3 /here/text\n");
    assert!(
        err.text().starts_with("/here/none: No such file"),
        "{}",
        err.text()
    );
}
