//! The attribute `#[wakebox_guest::main]`.
//!
//! Everything that it adds to a program is in `wakebox_guest::__guest!`; this crate
//! only checks what the attribute stands on, so it needs no parser.

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Makes an `async fn` without parameters the first task of a guest.
///
/// Put it on a function at the root of a binary crate that is `#![no_std]` and
/// `#![no_main]`. The function may return `()`, `i32`, `u8`, `ExitCode`, or a
/// `Result` of one of them whose error is `Debug`; the guest ends when it returns.
///
/// Besides the entry, the attribute defines what a program without a standard
/// library must bring along: panic handler, allocator, and the memory functions of
/// the C library. None of it is there under `cfg(test)`.
#[proc_macro_attribute]
pub fn main(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let error = if attribute.is_empty() {
        match entry_name(&item) {
            Ok(name) => return expand(&name, item),
            Err(error) => error,
        }
    } else {
        "#[wakebox_guest::main] takes no arguments"
    };
    let mut output: TokenStream = format!("::core::compile_error!({error:?});")
        .parse()
        .unwrap();
    output.extend(item);
    output
}

/// The name of an `async fn name()`, or what is wrong with the item.
fn entry_name(item: &TokenStream) -> Result<String, &'static str> {
    let mut tokens = item.clone().into_iter();
    let mut is_async = false;
    loop {
        match tokens.next() {
            Some(TokenTree::Ident(word)) if word.to_string() == "async" => is_async = true,
            Some(TokenTree::Ident(word)) if word.to_string() == "fn" => break,
            Some(_) => {}
            None => return Err("#[wakebox_guest::main] stands on an `async fn`"),
        }
    }
    if !is_async {
        return Err("the main function of a guest is an `async fn`");
    }
    let Some(TokenTree::Ident(name)) = tokens.next() else {
        return Err("#[wakebox_guest::main] stands on a function with a name");
    };
    match tokens.next() {
        Some(TokenTree::Group(list))
            if list.delimiter() == Delimiter::Parenthesis && list.stream().is_empty() =>
        {
            Ok(name.to_string())
        }
        _ => Err("the main function of a guest has no parameters: see wakebox_guest::env::args"),
    }
}

fn expand(name: &str, item: TokenStream) -> TokenStream {
    // Under `cfg(test)` nothing calls the function.
    let mut output: TokenStream = "#[cfg_attr(test, allow(dead_code))]".parse().unwrap();
    output.extend(item);
    let entry: TokenStream = format!("::wakebox_guest::__guest!({name});")
        .parse()
        .unwrap();
    output.extend(entry);
    output
}
