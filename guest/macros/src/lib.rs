//! The attributes `#[wakebox_guest::main]` and `#[wakebox_guest::export]`.
//!
//! Everything that they add to a program is in `wakebox_guest`; this crate only checks what
//! they stand on, so it needs no parser.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Makes an `async fn` without parameters the first task of a guest.
///
/// Put it on a function at the root of a binary crate that is `#![no_std]` and
/// `#![no_main]`. The function may return `()`, `i32`, `u8`, `ExitCode`, or a
/// `Result` of one of them whose error is `Debug`; the guest ends when it returns.
///
/// With `#[wakebox_guest::main(processors = 4)]` the guest asks for so many processors, at most 64; that
/// wants the feature `processors` of `wakebox-guest`, and a host that grants them. With `windows = 2`, or with both, it
/// has so many windows (`wakebox_guest::window`), at most 256, each of which takes 8 KiB of its memory.
///
/// Besides the entry, the attribute defines what a program without a standard
/// library must bring along: panic handler, allocator, and the memory functions of
/// the C library. None of it is there under `cfg(test)`.
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let read = counts(attribute).and_then(|counts| Ok((entry_name(&item)?, counts)));
    let error = match read {
        Ok((name, counts)) => return expand(&name, counts, item),
        Err(error) => error,
    };
    let mut output: TokenStream = format!("::core::compile_error!({error:?});")
        .parse()
        .unwrap();
    output.extend(item);
    output
}

/// Makes an `async fn` one that the host can call by its name.
///
/// It takes up to sixteen parameters and gives a result, all of which serde can carry. The calls are
/// taken and answered by `wakebox_guest::serve`. With `#[export(name = "stock.get")]` the host calls it
/// by that name instead of its own.
///
/// With `#[export(stream)]`, or `#[export(name = "...", stream)]`, what it gives is a `futures_core::Stream` of such
/// results, which the host takes one by one (`Caller::stream`). The stream is polled no further than the caller keeps
/// up with, and dropped when the caller drops it.
#[proc_macro_attribute]
pub fn export(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let names = async_fn(&item).and_then(|(name, _)| Ok((name, asked(attribute)?)));
    let added = match names {
        Ok((name, Asked { exported, of })) => format!(
            "const _: () = {{
                static EXPORT: ::wakebox_guest::__private::Export =
                    ::wakebox_guest::__private::Export::new({exported}, |format, input| {{
                        ::wakebox_guest::__private::{of}::begin({name}, format, input)
                    }}, || ::wakebox_guest::__private::{of}::signature({name}));
                extern \"C\" fn register() {{
                    EXPORT.register();
                }}
                #[used]
                #[unsafe(link_section = \".init_array\")]
                static REGISTER: extern \"C\" fn() = register;
            }};",
            exported = exported.unwrap_or_else(|| format!("{name:?}")),
        ),
        Err(error) => format!("::core::compile_error!({error:?});"),
    };
    let mut output = item;
    output.extend(added.parse::<TokenStream>().unwrap());
    output
}

/// How many processors and how many windows a guest asks for.
#[derive(Clone, Copy)]
struct Counts {
    processors: u32,
    windows: u32,
}

/// The numbers of `processors = N` and `windows = N`; 1 and none without.
fn counts(attribute: TokenStream) -> Result<Counts, &'static str> {
    const FORM: &str = "#[wakebox_guest::main] is written without arguments or as \
        #[wakebox_guest::main(processors = 4)], #[wakebox_guest::main(windows = 2)], or with both";
    let mut counts = Counts {
        processors: 1,
        windows: 0,
    };
    let tokens: Vec<_> = attribute.into_iter().collect();
    for part in parts(&tokens) {
        let [
            TokenTree::Ident(word),
            TokenTree::Punct(equals),
            TokenTree::Literal(count),
        ] = part
        else {
            return Err(FORM);
        };
        if equals.as_char() != '=' {
            return Err(FORM);
        }
        match (word.to_string().as_str(), count.to_string().parse()) {
            ("processors", Ok(count @ 1..=64)) => counts.processors = count,
            ("processors", _) => {
                return Err(
                    "a guest has 1 to 64 processors: #[wakebox_guest::main(processors = 4)]",
                );
            }
            ("windows", Ok(count @ 1..=256)) => counts.windows = count,
            ("windows", _) => {
                return Err("a guest has 1 to 256 windows: #[wakebox_guest::main(windows = 2)]");
            }
            _ => return Err(FORM),
        }
    }
    Ok(counts)
}

/// What commas separate; nothing if there is nothing.
fn parts(tokens: &[TokenTree]) -> impl Iterator<Item = &[TokenTree]> {
    let is_comma =
        |token: &TokenTree| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',');
    let is_empty = tokens.is_empty();
    tokens.split(is_comma).filter(move |_| !is_empty)
}

/// What `#[export(..)]` asks for.
struct Asked {
    /// The literal of `name = "..."`, if there is one.
    exported: Option<String>,
    /// The trait of what the function gives.
    of: &'static str,
}

/// Reads `name = "..."` and `stream`, both or either.
fn asked(attribute: TokenStream) -> Result<Asked, &'static str> {
    const FORM: &str = "#[wakebox_guest::export] is written without arguments, or as \
        #[wakebox_guest::export(name = \"...\")], #[wakebox_guest::export(stream)], or with both";
    let mut asked = Asked {
        exported: None,
        of: "Exported",
    };
    let tokens: Vec<_> = attribute.into_iter().collect();
    for part in parts(&tokens) {
        match part {
            [TokenTree::Ident(word)] if word.to_string() == "stream" => asked.of = "ExportedStream",
            [
                TokenTree::Ident(word),
                TokenTree::Punct(equals),
                TokenTree::Literal(name),
            ] if word.to_string() == "name" && equals.as_char() == '=' => {
                let text = name.to_string();
                if !text.starts_with(['"', 'r']) || text == "\"\"" {
                    return Err(FORM);
                }
                asked.exported = Some(text);
            }
            _ => return Err(FORM),
        }
    }
    Ok(asked)
}

/// The name of an `async fn name()`, or what is wrong with the item.
fn entry_name(item: &TokenStream) -> Result<String, &'static str> {
    match async_fn(item)? {
        (name, Some(TokenTree::Group(list)))
            if list.delimiter() == Delimiter::Parenthesis && list.stream().is_empty() =>
        {
            Ok(name)
        }
        _ => Err("the main function of a guest has no parameters: see wakebox_guest::env::args"),
    }
}

/// The name of an `async fn` and what follows it.
fn async_fn(item: &TokenStream) -> Result<(String, Option<TokenTree>), &'static str> {
    let mut tokens = item.clone().into_iter();
    let mut is_async = false;
    loop {
        match tokens.next() {
            Some(TokenTree::Ident(word)) if word.to_string() == "async" => is_async = true,
            Some(TokenTree::Ident(word)) if word.to_string() == "fn" => break,
            Some(_) => {}
            None => return Err("this attribute stands on an `async fn`"),
        }
    }
    match tokens.next() {
        _ if !is_async => Err("this attribute stands on an `async fn`"),
        Some(TokenTree::Ident(name)) => Ok((name.to_string(), tokens.next())),
        _ => Err("this attribute stands on a function with a name"),
    }
}

fn expand(name: &str, counts: Counts, item: TokenStream) -> TokenStream {
    let Counts {
        processors,
        windows,
    } = counts;
    // Under `cfg(test)` nothing calls the function.
    let mut output: TokenStream = "#[cfg_attr(test, allow(dead_code))]".parse().unwrap();
    output.extend(item);
    let entry: TokenStream = format!("::wakebox_guest::__guest!({name}, {processors}, {windows});")
        .parse()
        .unwrap();
    output.extend(entry);
    output
}
