//! Standard input: lines, pieces of lines, and its end.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use wakebox::{Input, Outcome, Output, Sandbox, WakeMode};
use wakebox_tests::{Ended, ends, guest, kvm_test, run, runtime};

fn probe() -> PathBuf {
    guest("stdin")
}

fn said(input: Input, mode: WakeMode) -> Ended {
    let probe = Sandbox::builder().guest(probe());
    run(probe.stdin(input).wake(mode)).success()
}

#[kvm_test(modes)]
fn a_closed_input_is_at_its_end(mode: WakeMode) {
    assert_eq!(said(Input::Null, mode).lines(), ["end after 0"]);
    assert_eq!(said(Input::bytes(""), mode).lines(), ["end after 0"]);
}

#[kvm_test(modes)]
fn lines_arrive_whole_however_they_are_cut(mode: WakeMode) {
    let ended = said(Input::bytes("one\n\nthree, and no end"), mode);
    assert_eq!(
        ended.lines(),
        ["1: one", "2: ", "3: three, and no end", "end after 3"]
    );
}

#[kvm_test]
fn a_line_longer_than_any_buffer_arrives() {
    let long = "x".repeat(300_000);
    let ended = said(Input::bytes(format!("{long}\nshort\n")), WakeMode::Auto);
    let expected = [
        format!("1: {long}"),
        "2: short".into(),
        "end after 2".into(),
    ];
    assert!(ended.lines() == expected, "{} lines", ended.lines().len());
}

#[kvm_test]
fn a_line_that_is_not_text_is_an_error() {
    let ended = run(Sandbox::builder()
        .guest(probe())
        .stdin(Input::bytes(*b"fine\n\xFF\xFE\n")));
    assert_eq!(ended.outcome, Outcome::Exit(1));
    assert_eq!(ended.lines(), ["1: fine"]);
    assert!(ended.stderr.contains("standard input"), "{}", ended.stderr);
}

#[kvm_test(modes)]
fn question_and_answer_take_turns(mode: WakeMode) {
    runtime().block_on(async {
        let (mut keyboard, input) = duplex(64);
        let (mut screen, output) = duplex(64);
        let mut sandbox = Sandbox::builder()
            .guest(probe())
            .stdin(Input::reader(input))
            .stdout(Output::writer(output))
            .wake(mode)
            .build()
            .unwrap();
        let run = tokio::spawn(async move { ends(&mut sandbox).await });
        for number in 1..=20 {
            // In two pieces, with a wait for the guest in between.
            keyboard.write_all(b"wo").await.unwrap();
            tokio::task::yield_now().await;
            keyboard.write_all(b"rd\n").await.unwrap();
            let expected = format!("{number}: word\n");
            let mut answer = vec![0; expected.len()];
            screen.read_exact(&mut answer).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), expected, "mode {mode}");
        }
        drop(keyboard);
        let mut rest = String::new();
        screen.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "end after 20\n");
        assert!(run.await.unwrap().is_success());
    });
}
