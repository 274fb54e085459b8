//! The attribute `#[kvm_test]`, which `wakebox_tests` has for all that it does not parse.
//!
//! A function with a body is all that it stands on, so this crate needs no parser.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// The wake modes: the variant of `WakeMode`, and the test's name.
const MODES: [(&str, &str); 4] = [
    ("Out", "out"),
    ("Irq", "irq"),
    ("Poll", "poll"),
    ("Auto", "auto"),
];

/// Makes a function a test that needs `/dev/kvm`; an `async fn` runs on a runtime of its own.
///
/// With `WAKEBOX_SKIP_KVM=1` the test is counted as ignored. Without it, a `/dev/kvm` that is missing
/// or forbidden fails the test with a message that says so.
///
/// `#[kvm_test(modes)]` stands on a function of a `WakeMode`, and makes a test of each mode:
/// `name::out`, `name::irq`, `name::poll`, `name::auto`. `#[kvm_test(modes = [Out, Irq])]` makes
/// those of some modes.
#[proc_macro_attribute]
pub fn kvm_test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand(attribute, item.clone()).unwrap_or_else(|error| {
        let mut output = parsed(&format!("::core::compile_error!({error:?});"));
        output.extend(item);
        output
    })
}

fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream, &'static str> {
    let function = Function::of(item)?;
    match modes(attribute)? {
        None => Ok(function.test()),
        Some(modes) => function.tests(&modes),
    }
}

/// The modes that an attribute asks for, if it asks for tests of modes.
fn modes(
    attribute: TokenStream,
) -> Result<Option<Vec<(&'static str, &'static str)>>, &'static str> {
    const USAGE: &str = "`#[kvm_test]`, `#[kvm_test(modes)]`, or `#[kvm_test(modes = [Out, Irq])]`";
    let mut tokens = attribute.into_iter();
    match tokens.next() {
        None => return Ok(None),
        Some(TokenTree::Ident(word)) if word.to_string() == "modes" => {}
        Some(_) => return Err(USAGE),
    }
    let list = match (tokens.next(), tokens.next(), tokens.next()) {
        (None, ..) => return Ok(Some(MODES.to_vec())),
        (Some(TokenTree::Punct(equals)), Some(TokenTree::Group(list)), None)
            if equals.as_char() == '=' && list.delimiter() == Delimiter::Bracket =>
        {
            list.stream()
        }
        _ => return Err(USAGE),
    };
    let words = list.into_iter().filter_map(|token| match token {
        TokenTree::Ident(word) => Some(word.to_string()),
        _ => None,
    });
    let known = |word: String| MODES.into_iter().find(|(variant, _)| *variant == word);
    let modes: Option<Vec<_>> = words.map(known).collect();
    modes
        .filter(|modes| !modes.is_empty())
        .ok_or("the wake modes are Out, Irq, Poll, and Auto")
        .map(Some)
}

/// What the attribute stands on.
struct Function {
    name: String,
    is_async: bool,
    has_parameters: bool,
    /// All but the body.
    head: TokenStream,
    body: Group,
}

impl Function {
    fn of(item: TokenStream) -> Result<Self, &'static str> {
        const NO_FUNCTION: &str = "this attribute stands on a function with a body";
        let mut head: Vec<_> = item.into_iter().collect();
        let Some(TokenTree::Group(body)) = head.pop() else {
            return Err(NO_FUNCTION);
        };
        let is_word = |token: &TokenTree, wanted: &str| match token {
            TokenTree::Ident(word) => word.to_string() == wanted,
            _ => false,
        };
        let at = head.iter().position(|token| is_word(token, "fn"));
        let at = at.ok_or(NO_FUNCTION)?;
        let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(parameters))) =
            (head.get(at + 1), head.get(at + 2))
        else {
            return Err("this attribute stands on a function without type parameters");
        };
        Ok(Self {
            name: name.to_string(),
            is_async: head[..at].iter().any(|token| is_word(token, "async")),
            has_parameters: !parameters.stream().is_empty(),
            head: head.into_iter().collect(),
            body,
        })
    }

    /// What makes a function a test.
    fn attributes(&self) -> &'static str {
        match self.is_async {
            true => "#[::tokio::test] #[cfg_attr(skip_kvm, ignore = \"needs /dev/kvm\")]",
            false => "#[test] #[cfg_attr(skip_kvm, ignore = \"needs /dev/kvm\")]",
        }
    }

    /// The function itself as a test, which first looks whether `/dev/kvm` is there.
    fn test(self) -> TokenStream {
        let mut output = parsed(self.attributes());
        let mut body = parsed("::wakebox_tests::require_kvm();");
        body.extend(self.body.stream());
        let mut body = Group::new(Delimiter::Brace, body);
        body.set_span(self.body.span());
        output.extend(self.head);
        output.extend([TokenTree::Group(body)]);
        output
    }

    /// The function as it is, and a module of its name with a test of each mode.
    fn tests(self, modes: &[(&str, &str)]) -> Result<TokenStream, &'static str> {
        if !self.has_parameters {
            return Err("this function is given the mode: it has a parameter of type `WakeMode`");
        }
        let (attributes, name) = (self.attributes(), &self.name);
        let (is_async, awaited) = match self.is_async {
            true => ("async", ".await"),
            false => ("", ""),
        };
        let tests: String = modes
            .iter()
            .map(|(variant, test)| {
                format!(
                    "{attributes} {is_async} fn {test}() {{
                        ::wakebox_tests::require_kvm();
                        super::{name}(::wakebox::WakeMode::{variant}){awaited};
                    }}"
                )
            })
            .collect();
        let all = MODES.len();
        let module = parsed(&format!(
            "mod {name} {{
                const _: () = assert!(::wakebox::WakeMode::ALL.len() == {all}, \"a mode has no test\");
                {tests}
            }}"
        ));
        let mut output = self.head;
        output.extend([TokenTree::Group(self.body)]);
        output.extend(module);
        Ok(output)
    }
}

/// Rust that this crate has written.
fn parsed(rust: &str) -> TokenStream {
    rust.parse().expect("Rust")
}
