//! Values of components as serde sees them, and so as host functions have them.
//!
//! | WIT | Rust, in a host function |
//! |---|---|
//! | numbers, `bool`, `char`, `string` | the same |
//! | `list<T>` | `Vec<T>` |
//! | `tuple`, `record` | a tuple, or a struct with its fields in their order |
//! | `option<T>`, `result<T, E>` | `Option<T>`, `Result<T, E>`, `()` where there is no type |
//! | `variant`, `enum` | an enum with its cases in their order |
//! | `flags` | a struct with a `bool` for each, in their order |
//! | `own<T>`, `borrow<T>` of a resource of the host | its handle, a `u32` |

mod handles;
mod named;
mod words;

pub(crate) use self::handles::Resources;
pub(crate) use self::named::Parameters;
pub(crate) use self::words::{Signature, Words};

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{DeserializeSeed, EnumAccess, Error as _, SeqAccess, VariantAccess, Visitor};
use serde::ser::{Error as _, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wasmtime::component::Val;
use wasmtime::component::types::{ComponentFunc, Type};

/// Whether a value of this type can go to the host: no streams and futures, and of handles those of such resources.
pub(crate) fn travels(ty: &Type, resources: &Resources) -> bool {
    let travels = |ty: &Type| travels(ty, resources);
    match ty {
        Type::List(list) => travels(&list.ty()),
        Type::Record(record) => record.fields().all(|field| travels(&field.ty)),
        Type::Tuple(tuple) => tuple.types().all(|ty| travels(&ty)),
        Type::Variant(variant) => variant
            .cases()
            .all(|case| case.ty.as_ref().is_none_or(travels)),
        Type::Option(option) => travels(&option.ty()),
        Type::Result(result) => [result.ok(), result.err()].iter().flatten().all(travels),
        Type::Own(resource) | Type::Borrow(resource) => resources.number(resource).is_some(),
        Type::Future(_)
        | Type::Stream(_)
        | Type::ErrorContext
        | Type::Map(_)
        | Type::FixedLengthList(_) => false,
        _ => true,
    }
}

/// The arguments of a call: a tuple of them.
pub(crate) struct Arguments<'a>(pub(crate) &'a ComponentFunc, pub(crate) &'a [Val]);

impl Serialize for Arguments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.1.len())?;
        for ((_, ty), value) in self.0.params().zip(self.1) {
            tuple.serialize_element(&Typed(&ty, value))?;
        }
        tuple.end()
    }
}

/// What a call gives: a value, a unit, or the several that a function of a core module may give.
pub(crate) struct Results<'a>(pub(crate) &'a [Type], pub(crate) &'a [Val]);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            [] => serializer.serialize_unit(),
            [ty] => Perhaps(Some(ty.clone()), self.1.first()).serialize(serializer),
            types => fields(serializer, types.iter().cloned(), self.1.iter()),
        }
    }
}

/// An item of a stream; bytes are a list of them.
pub(crate) struct Item<'a>(pub(crate) &'a Type, pub(crate) &'a Val);

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0, self.1) {
            (Type::U8, Val::List(bytes)) => {
                serializer.collect_seq(bytes.iter().map(|byte| Typed(&Type::U8, byte)))
            }
            (ty, value) => Typed(ty, value).serialize(serializer),
        }
    }
}

/// A value and its type.
struct Typed<'a>(&'a Type, &'a Val);

/// What may be absent, which is a unit then.
struct Perhaps<'a>(Option<Type>, Option<&'a Val>);

impl Serialize for Perhaps<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.0, self.1) {
            (Some(ty), Some(value)) => Typed(ty, value).serialize(serializer),
            _ => serializer.serialize_unit(),
        }
    }
}

impl Serialize for Typed<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() && named::is_named(self.0) {
            return named::write(self.0, self.1, s);
        }
        match (self.0, self.1) {
            (_, Val::Bool(value)) => s.serialize_bool(*value),
            (_, Val::S8(value)) => s.serialize_i8(*value),
            (_, Val::U8(value)) => s.serialize_u8(*value),
            (_, Val::S16(value)) => s.serialize_i16(*value),
            (_, Val::U16(value)) => s.serialize_u16(*value),
            (_, Val::S32(value)) => s.serialize_i32(*value),
            (_, Val::U32(value)) => s.serialize_u32(*value),
            (_, Val::S64(value)) => s.serialize_i64(*value),
            (_, Val::U64(value)) => s.serialize_u64(*value),
            (_, Val::Float32(value)) => s.serialize_f32(*value),
            (_, Val::Float64(value)) => s.serialize_f64(*value),
            (_, Val::Char(value)) => s.serialize_char(*value),
            (_, Val::String(value)) => s.serialize_str(value),
            (Type::List(list), Val::List(values)) => {
                let ty = list.ty();
                s.collect_seq(values.iter().map(|value| Typed(&ty, value)))
            }
            (Type::Tuple(tuple), Val::Tuple(values)) => fields(s, tuple.types(), values.iter()),
            (Type::Record(record), Val::Record(values)) => {
                let types = record.fields().map(|field| field.ty);
                fields(s, types, values.iter().map(|(_, value)| value))
            }
            (Type::Option(option), Val::Option(value)) => match value {
                Some(value) => s.serialize_some(&Typed(&option.ty(), value)),
                None => s.serialize_none(),
            },
            (Type::Result(result), Val::Result(value)) => {
                let (index, ty, value) = match value {
                    Ok(value) => (0, result.ok(), value),
                    Err(value) => (1, result.err(), value),
                };
                s.serialize_newtype_variant("", index, "", &Perhaps(ty, value.as_deref()))
            }
            (Type::Flags(flags), Val::Flags(set)) => {
                let names = flags.names();
                let mut tuple = s.serialize_tuple(names.len())?;
                for name in names {
                    tuple.serialize_element(&set.iter().any(|is_set| is_set == name))?;
                }
                tuple.end()
            }
            (Type::Enum(kind), Val::Enum(name)) => {
                let index = kind.names().position(|case| case == name);
                s.serialize_unit_variant("", index.unwrap_or_default() as u32, "")
            }
            (Type::Variant(variant), Val::Variant(name, value)) => {
                let case = variant
                    .cases()
                    .enumerate()
                    .find(|(_, case)| case.name == name);
                let (index, case) = case.ok_or_else(|| S::Error::custom("no such case"))?;
                let value = Perhaps(case.ty, value.as_deref());
                s.serialize_newtype_variant("", index as u32, "", &value)
            }
            _ => Err(S::Error::custom("a type that does not travel")),
        }
    }
}

fn fields<'a, S: Serializer>(
    serializer: S,
    types: impl ExactSizeIterator<Item = Type>,
    values: impl Iterator<Item = &'a Val>,
) -> Result<S::Ok, S::Error> {
    let mut tuple = serializer.serialize_tuple(types.len())?;
    for (ty, value) in types.zip(values) {
        tuple.serialize_element(&Typed(&ty, value))?;
    }
    tuple.end()
}

/// Reads a value of a type; without one, a unit.
#[derive(Clone)]
pub(crate) struct Expected(pub(crate) Option<Type>);

impl<'de> DeserializeSeed<'de> for Expected {
    type Value = Option<Val>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Option<Val>, D::Error> {
        match self.0 {
            None => <()>::deserialize(d).map(|()| None),
            Some(ty) => read(&ty, d).map(Some),
        }
    }
}

fn read<'de, D: Deserializer<'de>>(ty: &Type, d: D) -> Result<Val, D::Error> {
    if d.is_human_readable() && named::is_named(ty) {
        return named::read(ty, d);
    }
    Ok(match ty {
        Type::Bool => Val::Bool(Deserialize::deserialize(d)?),
        Type::S8 => Val::S8(Deserialize::deserialize(d)?),
        Type::U8 => Val::U8(Deserialize::deserialize(d)?),
        Type::S16 => Val::S16(Deserialize::deserialize(d)?),
        Type::U16 => Val::U16(Deserialize::deserialize(d)?),
        Type::S32 => Val::S32(Deserialize::deserialize(d)?),
        Type::U32 => Val::U32(Deserialize::deserialize(d)?),
        Type::S64 => Val::S64(Deserialize::deserialize(d)?),
        Type::U64 => Val::U64(Deserialize::deserialize(d)?),
        Type::Float32 => Val::Float32(Deserialize::deserialize(d)?),
        Type::Float64 => Val::Float64(Deserialize::deserialize(d)?),
        Type::Char => Val::Char(Deserialize::deserialize(d)?),
        Type::String => Val::String(Deserialize::deserialize(d)?),
        Type::Own(_) => Val::U32(Deserialize::deserialize(d)?),
        Type::List(_) => d.deserialize_seq(Of(ty))?,
        Type::Tuple(tuple) => d.deserialize_tuple(tuple.types().len(), Of(ty))?,
        Type::Record(record) => d.deserialize_tuple(record.fields().len(), Of(ty))?,
        Type::Flags(flags) => d.deserialize_tuple(flags.names().len(), Of(ty))?,
        Type::Option(_) => d.deserialize_option(Of(ty))?,
        Type::Result(_) => d.deserialize_enum("", &["", ""], Of(ty))?,
        Type::Enum(_) | Type::Variant(_) => d.deserialize_enum("", &[], Of(ty))?,
        _ => return Err(D::Error::custom("a type that does not travel")),
    })
}

/// Reads what has parts.
struct Of<'a>(&'a Type);

impl<'de> Visitor<'de> for Of<'_> {
    type Value = Val;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", words::Words(self.0))
    }

    fn visit_none<E>(self) -> Result<Val, E> {
        Ok(Val::Option(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Val, D::Error> {
        let Type::Option(option) = self.0 else {
            return Err(D::Error::custom("no option"));
        };
        Ok(Val::Option(Some(Box::new(read(&option.ty(), d)?))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Val, A::Error> {
        let mut next = |ty: Type| -> Result<Val, A::Error> {
            let value = parts.next_element_seed(Expected(Some(ty)))?.flatten();
            value.ok_or_else(|| A::Error::custom("too few parts"))
        };
        match self.0 {
            Type::Tuple(tuple) => tuple
                .types()
                .map(next)
                .collect::<Result<_, _>>()
                .map(Val::Tuple),
            Type::Record(record) => {
                let fields = record.fields();
                let fields = fields.map(|field| Ok((field.name.to_string(), next(field.ty)?)));
                fields.collect::<Result<_, _>>().map(Val::Record)
            }
            Type::Flags(flags) => {
                let mut set = Vec::new();
                for name in flags.names() {
                    let is_set = parts.next_element()?;
                    if is_set.ok_or_else(|| A::Error::custom("too few flags"))? {
                        set.push(name.to_string());
                    }
                }
                Ok(Val::Flags(set))
            }
            Type::List(list) => {
                let ty = Expected(Some(list.ty()));
                let mut values = Vec::new();
                while let Some(value) = parts.next_element_seed(ty.clone())? {
                    values.extend(value);
                }
                Ok(Val::List(values))
            }
            _ => Err(A::Error::custom("no list")),
        }
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Val, A::Error> {
        let (index, data) = data.variant::<u32>()?;
        let boxed = |value: Option<Val>| value.map(Box::new);
        Ok(match (self.0, index) {
            (Type::Result(result), 0) => {
                Val::Result(Ok(boxed(data.newtype_variant_seed(Expected(result.ok()))?)))
            }
            (Type::Result(result), 1) => Val::Result(Err(boxed(
                data.newtype_variant_seed(Expected(result.err()))?,
            ))),
            (Type::Enum(kind), index) => {
                data.unit_variant()?;
                Val::Enum(named(kind.names().nth(index as usize))?)
            }
            (Type::Variant(variant), index) => {
                let case = variant.cases().nth(index as usize);
                let name = named(case.as_ref().map(|case| case.name))?;
                let ty = case.and_then(|case| case.ty);
                Val::Variant(name, boxed(data.newtype_variant_seed(Expected(ty))?))
            }
            _ => return Err(A::Error::custom("no such case")),
        })
    }
}

fn named<E: serde::de::Error>(name: Option<&str>) -> Result<String, E> {
    name.map(ToString::to_string)
        .ok_or_else(|| E::custom("no such case"))
}
