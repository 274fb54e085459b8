//! Whether a crate links `std`, by what stands in the file of its root.

use super::tokens::{Token, tokens};

/// What the root of a crate says, given the features that are on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Root {
    /// `#![no_std]` holds.
    pub(super) is_no_std: bool,
    /// `#![no_main]` holds.
    pub(super) is_no_main: bool,
    /// `extern crate std` holds.
    has_extern_std: bool,
    /// The features on which that depends.
    pub(super) features: Vec<String>,
}

impl Root {
    /// Whether the crate links `std`.
    pub(super) fn wants_std(&self) -> bool {
        !self.is_no_std || self.has_extern_std
    }

    /// Reads the text of a root.
    pub(super) fn of(text: &str, is_on: &dyn Fn(&str) -> bool) -> Self {
        let mut root = Self::default();
        let all = tokens(text);
        let mut rest = &all[..];
        // Whether the attributes before the item that comes leave it in.
        let mut holds = true;
        let mut depth = 0_u32;
        while let Some((first, after)) = rest.split_first() {
            match first {
                Token::Mark('#') if depth == 0 => {
                    let (inner, after) = match after {
                        [Token::Mark('!'), after @ ..] => (true, after),
                        _ => (false, after),
                    };
                    let (attribute, after) = group(after);
                    let mut reader = Cfg {
                        rest: attribute,
                        is_on,
                        features: &mut root.features,
                    };
                    if inner {
                        let said = reader.inner();
                        root.is_no_std |= said.contains(&"no_std");
                        root.is_no_main |= said.contains(&"no_main");
                    } else {
                        holds &= reader.outer();
                    }
                    rest = after;
                    continue;
                }
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth = depth.saturating_sub(1),
                Token::Word("extern") if depth == 0 => {
                    if let [Token::Word("crate"), Token::Word("std"), ..] = after {
                        root.has_extern_std |= holds;
                    }
                }
                _ => {}
            }
            if depth == 0 && matches!(first, Token::Mark(';' | '}')) {
                holds = true;
            }
            rest = after;
        }
        root.features.sort();
        root.features.dedup();
        root
    }
}

/// What stands in the brackets that come next, and what comes behind them.
fn group<'a, 't>(all: &'a [Token<'t>]) -> (&'a [Token<'t>], &'a [Token<'t>]) {
    let mut depth = 0_u32;
    for (index, token) in all.iter().enumerate() {
        match token {
            Token::Mark('[' | '(') => depth += 1,
            Token::Mark(']' | ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return (all.get(1..index).unwrap_or(&[]), &all[index + 1..]);
        }
    }
    (&[], &[])
}

/// Reads an attribute.
struct Cfg<'a, 't> {
    rest: &'a [Token<'t>],
    is_on: &'a dyn Fn(&str) -> bool,
    features: &'a mut Vec<String>,
}

/// Deepest nesting of a condition that is read.
const DEPTH: u32 = 32;

impl<'t> Cfg<'_, 't> {
    /// The attributes that a `#![...]` gives, if its condition holds.
    fn inner(&mut self) -> Vec<&'t str> {
        match self.rest {
            [Token::Word("cfg_attr"), Token::Mark('('), rest @ ..] => {
                let mentioned = self.features.len();
                self.rest = rest;
                let holds = self.condition(DEPTH);
                let words = self.rest.iter().filter_map(Token::word);
                let given: Vec<_> = words.collect();
                // What else depends on features is of no interest.
                if !given.contains(&"no_std") {
                    self.features.truncate(mentioned);
                }
                if holds { given } else { Vec::new() }
            }
            [Token::Word(word)] => vec![word],
            _ => Vec::new(),
        }
    }

    /// Whether a `#[...]` leaves in what it stands at.
    fn outer(&mut self) -> bool {
        match self.rest {
            [Token::Word("cfg"), Token::Mark('('), rest @ ..] => {
                self.rest = rest;
                self.condition(DEPTH)
            }
            _ => true,
        }
    }

    /// A condition; what a guest is built with is known, and what else there may be does not hold.
    fn condition(&mut self, depth: u32) -> bool {
        let Some((Token::Word(word), rest)) = self.rest.split_first() else {
            return false;
        };
        match rest {
            [Token::Mark('('), rest @ ..] if depth > 0 => {
                self.rest = rest;
                let mut all = Vec::new();
                while !matches!(self.rest.first(), None | Some(Token::Mark(')'))) {
                    let before = self.rest.len();
                    all.push(self.condition(depth - 1));
                    if let [Token::Mark(','), rest @ ..] = self.rest {
                        self.rest = rest;
                    } else if self.rest.len() == before {
                        self.rest = &self.rest[1..];
                    }
                }
                self.rest = self.rest.get(1..).unwrap_or(&[]);
                match *word {
                    "all" => all.iter().all(|holds| *holds),
                    "any" => all.iter().any(|holds| *holds),
                    "not" => !all.iter().any(|holds| *holds),
                    _ => false,
                }
            }
            [Token::Mark('='), Token::Text(value), rest @ ..] => {
                self.rest = rest;
                if *word == "feature" {
                    self.features.push((*value).to_owned());
                    return (self.is_on)(value);
                }
                matches!(
                    (*word, *value),
                    ("target_os", "linux")
                        | ("target_arch", "x86_64")
                        | ("target_family", "unix")
                        | ("target_env", "gnu")
                        | ("target_vendor", "unknown")
                        | ("target_pointer_width", "64")
                        | ("target_endian", "little")
                        | ("panic", "abort")
                )
            }
            rest => {
                self.rest = rest;
                matches!(*word, "unix" | "true")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(text: &str, on: &[&str]) -> bool {
        Root::of(text, &|feature| on.contains(&feature)).wants_std()
    }

    #[test]
    fn a_crate_links_std_unless_it_says_otherwise() {
        assert!(wants("//! #![no_std]\nfn f() {}", &[]));
        assert!(wants("const TEXT: &str = \"#![no_std]\";", &[]));
        assert!(!wants("/* a crate */ #![no_std]\nextern crate alloc;", &[]));
        let root = Root::of("#![no_std]\n#![no_main]\n", &|_| false);
        assert!(root.is_no_std && root.is_no_main);
    }

    #[test]
    fn a_feature_decides() {
        for text in [
            "#![cfg_attr(not(feature = \"std\"), no_std)]",
            "#![cfg_attr(all(not(test), not(feature = \"std\")), no_std)]",
            "#![no_std]\n#[cfg(feature = \"std\")]\nextern crate std;",
            "#![no_std]\n#[cfg(any(test, feature = \"std\"))] #[macro_use] extern crate std;",
            "#![cfg_attr(not(any(feature = \"std\", windows)), no_std)]\nmod a { fn b() {} }",
        ] {
            assert!(!wants(text, &["alloc"]), "{text}");
            assert!(wants(text, &["std"]), "{text}");
            assert_eq!(Root::of(text, &|_| false).features, ["std"], "{text}");
        }
        let other = "#![no_std]\n#[cfg(feature = \"std\")] mod a;\nextern crate alloc;";
        assert!(!wants(other, &["std"]));
    }

    #[test]
    fn no_text_is_too_strange() {
        for text in [
            "#![cfg_attr(",
            "#",
            "#![",
            "#![cfg_attr(not(, no_std)]",
            "#![cfg_attr(not((((((feature",
            "\"open",
            "r##\"open\"#",
            "/* open /* */",
            "'",
            "'a",
            "'\\",
            "#![cfg_attr(any(], no_std)]",
        ] {
            Root::of(text, &|_| true);
        }
        let deep = format!("#![cfg_attr({}x, no_std)]", "not(".repeat(10_000));
        Root::of(&deep, &|_| true);
    }
}
