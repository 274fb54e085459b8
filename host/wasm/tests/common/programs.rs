//! Components that a test writes as instructions: what they import is described in WIT, functions that they
//! have are in a library, and what they say goes to the test.

use std::fmt::Display;
use std::sync::{Arc, Mutex};

use wakebox::{Builder, HostContext, Outcome, Policy, Stats};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::{sandbox, with_texts};

/// What programs of a kind have in common.
pub struct Kind {
    /// WIT, and in it their world, if there are several.
    pub wit: &'static str,
    pub world: Option<&'static str>,
    /// The library's parts.
    pub library: &'static [&'static str],
    /// What stands in it for other words: the version of WASI, for instance.
    pub words: &'static [(&'static str, &'static str)],
    /// The function that they are: what stands before and behind their instructions.
    pub function: (&'static str, &'static str),
    /// Errors, as numbers below zero say them: -1 is 0.
    pub errors: &'static [(i32, &'static str)],
}

/// The program of a component.
pub const RUN: (&str, &str) = (
    r#"(export "wasi:cli/run@0.2.0#run") (result i32)
      (local $d i32) (local $f i32) (local $g i32)"#,
    "(i32.const 0)",
);

/// As that, of WASI 0.3.
pub const RUN_NEWER: (&str, &str) = (
    r#"(export "wasi:cli/run@0.3.0#run") (result i32)
      (local $d i32) (local $f i32) (local $g i32)"#,
    "(i32.const 0)",
);

/// What answers requests, in WASI 0.3.
pub const HANDLE_NEWER: (&str, &str) = (
    r#"(export "[async-lift]wasi:http/handler@0.3.0#handle") (param $request i32) (result i32)
      (local $to i32)"#,
    "(i32.const 0)",
);

/// Streams of bytes of WASI 0.3, for a library.
pub const STREAMS: &str = include_str!("../components/streams.wat");

/// A sandbox whose program says numbers and texts, which these are told of before it goes on.
pub fn hearing(
    builder: Builder,
    number: impl Fn(i32) + Send + Sync + 'static,
    text: impl Fn(String) + Send + Sync + 'static,
) -> Builder {
    builder
        .host_fn(
            "wakebox:test/say.number",
            move |_: HostContext, (word,): (i32,)| {
                number(word);
                std::future::ready(())
            },
        )
        .host_fn(
            "wakebox:test/say.text",
            move |_: HostContext, (word,): (String,)| {
                text(word);
                std::future::ready(())
            },
        )
}

impl Kind {
    /// The library: what it imports, and what it has.
    fn library(&self) -> String {
        let mut whole = self.library.join("\n");
        for (word, stands_for) in self.words {
            whole = whole.replace(word, stands_for);
        }
        let (imports, others): (Vec<_>, Vec<_>) =
            whole.lines().partition(|line| line.starts_with("(import"));
        imports.join("\n") + "\n" + &others.join("\n")
    }

    /// A component that runs these instructions with the library. `<text>` is a text: where it lies, and its
    /// length.
    pub fn component(&self, program: &str) -> Vec<u8> {
        let (body, data) = with_texts(program);
        let (library, (head, end)) = (self.library(), self.function);
        let module = format!("(module {library} {data} (func {head} {body} {end}))");
        let mut module = wat::parse_str(module).unwrap();
        let mut resolve = Resolve::default();
        let package = resolve.push_str("world.wit", self.wit).unwrap();
        let world = resolve.select_world(&[package], self.world).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        let encoder = ComponentEncoder::default().module(&module).unwrap();
        encoder.validate(true).encode().unwrap()
    }

    /// What a program says, with a policy.
    pub async fn said_with(&self, policy: Policy, program: &str) -> Vec<String> {
        self.said(policy, program, |_| ()).await.0
    }

    /// As that, and what the sandbox has done; `hears` is told of each number, before the program goes on.
    pub async fn said(
        &self,
        policy: Policy,
        program: &str,
        hears: impl Fn(i32) + Send + Sync + 'static,
    ) -> (Vec<String>, Stats) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let errors = self.errors;
        let (number, text) = (said.clone(), said.clone());
        let (builder, _, err) = sandbox(self.component(program));
        let builder = hearing(
            builder.policy(policy),
            move |word| {
                let error = errors.iter().find(|(code, _)| *code == -1 - word);
                let said = error.map_or_else(|| word.to_string(), |(_, name)| (*name).into());
                number.lock().unwrap().push(said);
                hears(word);
            },
            move |word| text.lock().unwrap().push(word),
        );
        let mut sandbox = builder.build().unwrap();
        let outcome = sandbox.run().await.unwrap();
        assert_eq!((outcome, &*err.text()), (Outcome::Exit(0), ""));
        let said = said.lock().unwrap();
        (said.clone(), sandbox.stats())
    }

    /// Expects an answer to each instruction that gives a number.
    pub async fn answers(&self, policy: Policy, before: &str, dialogue: &[(impl Display, &str)]) {
        let program: String = dialogue
            .iter()
            .map(|(instruction, _)| format!("(call $say {instruction})"))
            .collect();
        let said = self.said_with(policy, &format!("{before} {program}")).await;
        for ((instruction, expected), answer) in dialogue.iter().zip(&said) {
            assert_eq!(answer, expected, "{instruction}");
        }
        assert_eq!(said.len(), dialogue.len());
    }
}
