//! Values in formats that people read, which name fields and cases: JSON.
//!
//! | WIT | JSON |
//! |---|---|
//! | `record` | an object |
//! | `enum`, and a case of a `variant` without a value | its name |
//! | another case | an object with one field, named as the case |
//! | `result` | an object with one field, `ok` or `err` |
//! | `flags` | a list of the names of those that are set |
//!
//! A field that is an option may be absent.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserializer, Serializer};
use wasmtime::component::Val;
use wasmtime::component::types::Type;

use super::words::Words;
use super::{Expected, Perhaps, Typed};

/// Whether the value of a type is written otherwise here.
pub(super) fn is_named(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Record(_) | Type::Variant(_) | Type::Enum(_) | Type::Result(_) | Type::Flags(_)
    )
}

pub(super) fn write<S: Serializer>(ty: &Type, value: &Val, s: S) -> Result<S::Ok, S::Error> {
    match (ty, value) {
        (Type::Record(record), Val::Record(fields)) => {
            let mut map = s.serialize_map(Some(fields.len()))?;
            for (field, (name, value)) in record.fields().zip(fields) {
                map.serialize_entry(name, &Typed(&field.ty, value))?;
            }
            map.end()
        }
        (Type::Flags(_), Val::Flags(set)) => s.collect_seq(set),
        (Type::Enum(_), Val::Enum(name)) | (_, Val::Variant(name, None)) => s.serialize_str(name),
        (Type::Variant(variant), Val::Variant(name, value)) => {
            let case = variant.cases().find(|case| case.name == name);
            let ty = case.and_then(|case| case.ty);
            one(s, name, &Perhaps(ty, value.as_deref()))
        }
        (Type::Result(result), Val::Result(value)) => match value {
            Ok(value) => one(s, "ok", &Perhaps(result.ok(), value.as_deref())),
            Err(value) => one(s, "err", &Perhaps(result.err(), value.as_deref())),
        },
        _ => Err(S::Error::custom("a type that does not travel")),
    }
}

/// An object with one field.
fn one<S: Serializer>(s: S, name: &str, value: &Perhaps<'_>) -> Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(Some(1))?;
    map.serialize_entry(name, value)?;
    map.end()
}

pub(super) fn read<'de, D: Deserializer<'de>>(ty: &Type, d: D) -> Result<Val, D::Error> {
    match ty {
        Type::Record(_) | Type::Result(_) => d.deserialize_map(Of(ty)),
        Type::Flags(_) => d.deserialize_seq(Of(ty)),
        Type::Enum(_) => d.deserialize_str(Of(ty)),
        _ => d.deserialize_any(Of(ty)),
    }
}

struct Of<'a>(&'a Type);

impl Of<'_> {
    /// The case of a name, and the type of its value.
    fn case<E: serde::de::Error>(&self, name: &str) -> Result<Option<Type>, E> {
        let case = match self.0 {
            Type::Variant(variant) => {
                let mut cases = variant.cases();
                cases.find(|case| case.name == name).map(|case| case.ty)
            }
            Type::Enum(kind) => {
                let mut names = kind.names();
                names.find(|case| *case == name).map(|_| None)
            }
            Type::Result(result) if name == "ok" => Some(result.ok()),
            Type::Result(result) if name == "err" => Some(result.err()),
            _ => None,
        };
        case.ok_or_else(|| E::custom(format!("no case `{name}` in {}", Words(self.0))))
    }

    fn value(&self, name: String, value: Option<Val>) -> Val {
        let value = value.map(Box::new);
        match self.0 {
            Type::Result(_) if name == "ok" => Val::Result(Ok(value)),
            Type::Result(_) => Val::Result(Err(value)),
            Type::Enum(_) => Val::Enum(name),
            _ => Val::Variant(name, value),
        }
    }
}

impl<'de> Visitor<'de> for Of<'_> {
    type Value = Val;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Words(self.0))
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Val, E> {
        match self.case(name)? {
            None => Ok(self.value(name.into(), None)),
            Some(ty) => Err(E::custom(format!("`{name}` wants a value: {}", Words(&ty)))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Val, A::Error> {
        let Type::Flags(flags) = self.0 else {
            return Err(A::Error::custom(format!(
                "a list, and no {}",
                Words(self.0)
            )));
        };
        let mut set: Vec<String> = Vec::new();
        while let Some(name) = parts.next_element::<String>()? {
            if !flags.names().any(|flag| flag == name) {
                return Err(A::Error::custom(format!(
                    "no flag `{name}` in {}",
                    Words(self.0)
                )));
            }
            set.push(name);
        }
        Ok(Val::Flags(set))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Val, A::Error> {
        let Type::Record(record) = self.0 else {
            let only = || A::Error::custom(format!("one field is wanted, for {}", Words(self.0)));
            let name: String = map.next_key()?.ok_or_else(only)?;
            let value = map.next_value_seed(Expected(self.case(&name)?))?;
            return match map.next_key::<String>()? {
                None => Ok(self.value(name, value)),
                Some(_) => Err(only()),
            };
        };
        let mut values: Vec<Option<Val>> = record.fields().map(|_| None).collect();
        while let Some(name) = map.next_key::<String>()? {
            let mut fields = record.fields().zip(&mut values);
            let found = fields.find(|(field, _)| field.name == name);
            let Some((field, value)) = found else {
                return Err(A::Error::custom(format!(
                    "no field `{name}` in {}",
                    Words(self.0)
                )));
            };
            *value = map.next_value_seed(Expected(Some(field.ty)))?;
        }
        let fields = record.fields().zip(values).map(|(field, value)| {
            let value = match (value, &field.ty) {
                (Some(value), _) => value,
                (None, Type::Option(_)) => Val::Option(None),
                (None, _) => {
                    return Err(A::Error::custom(format!(
                        "no field `{}`, which is in {}",
                        field.name,
                        Words(self.0)
                    )));
                }
            };
            Ok((field.name.to_string(), value))
        });
        fields.collect::<Result<_, _>>().map(Val::Record)
    }
}

/// Reads the arguments of a function: an array of several, one by itself, anything for none.
pub(crate) struct Parameters<'a>(pub(crate) &'a [(String, Type)]);

impl<'de> DeserializeSeed<'de> for Parameters<'_> {
    type Value = Vec<Val>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Vec<Val>, D::Error> {
        let is_read_by_people = d.is_human_readable();
        match self.0 {
            [] if is_read_by_people => d.deserialize_ignored_any(self),
            [(_, ty)] if is_read_by_people => Ok(Expected(Some(ty.clone()))
                .deserialize(d)?
                .into_iter()
                .collect()),
            _ => d.deserialize_tuple(self.0.len(), self),
        }
    }
}

impl<'de> Visitor<'de> for Parameters<'_> {
    type Value = Vec<Val>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} arguments", self.0.len())
    }

    fn visit_unit<E>(self) -> Result<Vec<Val>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Vec<Val>, A::Error> {
        let mut values = Vec::new();
        for (name, ty) in self.0 {
            let value = parts.next_element_seed(Expected(Some(ty.clone())));
            let value = value.map_err(|error| A::Error::custom(format!("`{name}`: {error}")))?;
            let value = value
                .flatten()
                .ok_or_else(|| A::Error::custom(format!("there is no `{name}`: {}", Words(ty))))?;
            values.push(value);
        }
        Ok(values)
    }
}
