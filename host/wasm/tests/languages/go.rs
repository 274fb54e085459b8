//! Go, for `wasip1`: programs, and libraries.

use wakebox::{Outcome, Policy};

use crate::common::{calling, end_of, sandbox};
use crate::made;

fn compiled(source: &str, mode: &str) -> Vec<u8> {
    let mode = format!("-buildmode={mode}");
    // `go` wants the source last.
    let command = r#"GOOS=wasip1 GOARCH=wasm go build "$0" -o "$2" "$1""#;
    made("go", "sh", &["-c", command, &mode, source])
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go 1.24"]
async fn goroutines_read_files_and_wait_for_timers() {
    let (builder, out, err) = sandbox(compiled("words.go", "exe"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), "one two\n three ").unwrap();
    let grant = format!("{}:/here:ro", folder.path().display());
    let builder = builder
        .memory(256 << 20)
        .policy(Policy::new().allow_dir(grant.parse().unwrap()))
        .env("LEVEL", "high")
        .args(["/here/text", "/here/none"]);
    let outcome = end_of(builder).await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(1), ""));
    assert_eq!(
        out.text(),
        "3 /here/text\nopen /here/none: No such file or directory\ntimers 45 true high\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go 1.24"]
async fn a_library_is_initialized_and_called() {
    let (builder, _, err) = sandbox(compiled("sums/sums.go", "c-shared"));
    let outcome = calling(builder.memory(256 << 20), |caller| async move {
        for (number, median) in [(5_i64, 5_i64), (1, 5), (3, 3)] {
            let said = caller.call::<_, i64>("median", &(number,)).await;
            assert_eq!(said.unwrap(), median);
        }
    })
    .await;
    assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
}
