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
/// wants the feature `processors` of `wakebox-guest`, and a host that grants them.
///
/// Besides the entry, the attribute defines what a program without a standard
/// library must bring along: panic handler, allocator, and the memory functions of
/// the C library. None of it is there under `cfg(test)`.
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let read = processors(attribute).and_then(|count| Ok((entry_name(&item)?, count)));
    let error = match read {
        Ok((name, processors)) => return expand(&name, &processors, item),
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

/// The number of `processors = N`, or 1.
fn processors(attribute: TokenStream) -> Result<String, &'static str> {
    let tokens: Vec<_> = attribute.into_iter().collect();
    match &tokens[..] {
        [] => Ok("1".into()),
        [
            TokenTree::Ident(word),
            TokenTree::Punct(equals),
            TokenTree::Literal(count),
        ] if word.to_string() == "processors" && equals.as_char() == '=' => {
            match count.to_string().parse() {
                Ok(count @ 1_u32..=64) => Ok(count.to_string()),
                _ => Err("a guest has 1 to 64 processors: #[wakebox_guest::main(processors = 4)]"),
            }
        }
        _ => Err("#[wakebox_guest::main] is written without arguments or as \
            #[wakebox_guest::main(processors = 4)]"),
    }
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
    for part in
        tokens.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ','))
    {
        match part {
            [] if tokens.is_empty() => {}
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

fn expand(name: &str, processors: &str, item: TokenStream) -> TokenStream {
    // Under `cfg(test)` nothing calls the function.
    let mut output: TokenStream = "#[cfg_attr(test, allow(dead_code))]".parse().unwrap();
    output.extend(item);
    let entry: TokenStream = format!("::wakebox_guest::__guest!({name}, {processors});")
        .parse()
        .unwrap();
    output.extend(entry);
    output
}
