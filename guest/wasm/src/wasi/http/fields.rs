//! Header fields.

use alloc::string::String;
use alloc::vec::Vec;

use wasmtime::Result;
use wasmtime::component::Resource;

use super::super::define::{Define, Linker, method, method_of, part, resource};
use super::super::value::Cx;
use super::types::HeaderError;
use crate::http::{self, is_hop};

/// One in the table.
#[derive(Clone, Default)]
pub(super) struct Fields {
    pub(super) entries: http::Fields,
    is_fixed: bool,
}

type Outcome<T> = core::result::Result<T, HeaderError>;

impl Fields {
    /// Fields that a component may look at, and not change.
    pub(super) fn fixed(entries: http::Fields) -> Self {
        Self {
            entries,
            is_fixed: true,
        }
    }

    fn values(&self, name: &str) -> Vec<Vec<u8>> {
        let entries = self.entries.iter();
        let own = entries.filter(|(own, _)| own.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.clone()).collect()
    }

    fn open(&mut self, name: &str) -> Outcome<&mut http::Fields> {
        if self.is_fixed {
            return Err(HeaderError::Immutable);
        }
        check_name(name)?;
        Ok(&mut self.entries)
    }

    fn append(&mut self, name: String, value: Vec<u8>) -> Outcome<()> {
        let entries = self.open(&name)?;
        check_value(&value)?;
        entries.push((name.to_ascii_lowercase(), value));
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Outcome<()> {
        let entries = self.open(name)?;
        entries.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        Ok(())
    }
}

/// Whether it is a token (RFC 9110, 5.6.2).
pub(super) fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// Whether it is a token, and a component's to say.
fn check_name(name: &str) -> Outcome<()> {
    if !is_token(name) {
        return Err(HeaderError::InvalidSyntax);
    }
    if is_hop(name) {
        return Err(HeaderError::Forbidden);
    }
    Ok(())
}

/// What would end a line, or is no text, stands in no value (RFC 9110, 5.5).
fn check_value(value: &[u8]) -> Outcome<()> {
    let is_part = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
    match value.iter().all(is_part) {
        true => Ok(()),
        false => Err(HeaderError::InvalidSyntax),
    }
}

pub(super) fn provide(instance: &mut Linker<'_>) -> Result<()> {
    // The others are its names elsewhere.
    for name in ["fields", "headers", "trailers"] {
        resource::<Fields>(instance, name)?;
    }
    instance.define("[constructor]fields", |mut cx: Cx<'_>, ()| {
        Ok((cx.data_mut().table.push(Fields::default())?,))
    })?;
    instance.define(
        "[static]fields.from-list",
        |mut cx: Cx<'_>, (entries,): (http::Fields,)| {
            let mut fields = Fields::default();
            for (name, value) in entries {
                if let Err(error) = fields.append(name, value) {
                    return Ok((Err(error),));
                }
            }
            Ok((Outcome::Ok(cx.data_mut().table.push(fields)?),))
        },
    )?;
    method_of::<Fields, String, Vec<Vec<u8>>>(instance, "[method]fields.get", |fields, name| {
        fields.values(&name)
    })?;
    method_of::<Fields, String, bool>(instance, "[method]fields.has", |fields, name| {
        let mut names = fields.entries.iter().map(|(own, _)| own);
        names.any(|own| own.eq_ignore_ascii_case(&name))
    })?;
    instance.define(
        "[method]fields.set",
        |mut cx: Cx<'_>, (this, name, values): (Resource<Fields>, String, Vec<Vec<u8>>)| {
            let fields = cx.data_mut().table.get_mut(&this)?;
            let mut set = || -> Outcome<()> {
                values.iter().try_for_each(|value| check_value(value))?;
                fields.delete(&name)?;
                let name = name.to_ascii_lowercase();
                let own = values.iter().map(|value| (name.clone(), value.clone()));
                fields.entries.extend(own);
                Ok(())
            };
            Ok((set(),))
        },
    )?;
    method_of::<Fields, String, Outcome<()>>(instance, "[method]fields.delete", |fields, name| {
        fields.delete(&name)
    })?;
    instance.define(
        "[method]fields.append",
        |mut cx: Cx<'_>, (this, name, value): (Resource<Fields>, String, Vec<u8>)| {
            Ok((cx.data_mut().table.get_mut(&this)?.append(name, value),))
        },
    )?;
    method_of::<Fields, String, Outcome<Vec<Vec<u8>>>>(
        instance,
        "[method]fields.get-and-delete",
        |fields, name| {
            let values = fields.values(&name);
            fields.delete(&name)?;
            Ok(values)
        },
    )?;
    for name in ["[method]fields.entries", "[method]fields.copy-all"] {
        method::<Fields, http::Fields>(instance, name, |fields| fields.entries.clone())?;
    }
    part::<Fields, Fields>(instance, "[method]fields.clone", |fields| Fields {
        is_fixed: false,
        ..fields.clone()
    })
}
