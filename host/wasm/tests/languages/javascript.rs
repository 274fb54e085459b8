//! JavaScript, by `componentize-js` of npm.

use wakebox::Policy;

use crate::{made, says, served};

/// A component of a program in JavaScript.
fn javascript(source: &str, world: &str) -> Vec<u8> {
    let source = format!("{source}.js");
    let flags = [&*source, "-w", "world.wit", "-n", world, "-o"];
    made("javascript", "componentize-js", &flags)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-js of npm"]
async fn runs_and_has_ten_timers_at_once() {
    let said = says(javascript("hello", "script"), &[], Policy::new()).await;
    assert_eq!(said, "JavaScript 2 4 6\n");
    let said = says(javascript("naps", "script"), &[], Policy::new()).await;
    assert!(said.starts_with("0 1 2 3 4 5 6 7 8 9 in "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs componentize-js of npm"]
async fn answers_http() {
    for (number, answer) in served(javascript("handler", "handler"))
        .await
        .iter()
        .enumerate()
    {
        let said = format!("JavaScript was asked for /page/{number}\n");
        assert!(answer.contains(&said), "{answer}");
    }
}
