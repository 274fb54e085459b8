//! Components of core modules, whose functions have the names and types that the component model wants of them.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use wasmparser::{Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::compile::{Kind, binary};

/// Makes a component of a core module, given in binary or as text, by the WIT in a file or folder; `world` names one
/// where that has several. Texts are UTF-8. A module that has its WIT in it, as generated bindings put it there, needs
/// none.
///
/// # Errors
///
/// If it is no core module, the WIT cannot be read, or the two do not fit.
pub fn component(module: &[u8], wit: Option<&Path>, world: Option<&str>) -> Result<Vec<u8>> {
    let (Kind::Module, bytes) = binary(module)? else {
        bail!("this is a component already");
    };
    let mut module = bytes.into_owned();
    if let Some(wit) = wit {
        let mut resolve = Resolve::default();
        let pushed = resolve.push_path(wit);
        let (package, _) = pushed.with_context(|| wit.display().to_string())?;
        let world = resolve.select_world(&[package], world)?;
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    }
    ensure!(
        has_wit(&module),
        "the module has no WIT in it: `--wit` says where it is"
    );
    let encoder = ComponentEncoder::default().module(&module);
    let component = encoder.and_then(|encoder| encoder.validate(true).encode());
    component.context("the module and its WIT do not fit")
}

/// Whether there is what bindings, or [`embed_component_metadata`], put into a module.
fn has_wit(module: &[u8]) -> bool {
    let mut payloads = Parser::new(0).parse_all(module).map_while(Result::ok);
    payloads.any(|payload| {
        matches!(payload, Payload::CustomSection(section) if section.name().starts_with("component-type"))
    })
}
