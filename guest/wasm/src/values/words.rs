//! Types as WIT writes them.

use core::fmt;

use wasmtime::component::types::{ComponentFunc, Type};

/// How many types lie in each other before the rest is left out.
const DEPTH: usize = 4;

/// A type in words.
pub(crate) struct Words<'a>(pub(crate) &'a Type);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.0, DEPTH)
    }
}

fn write(f: &mut fmt::Formatter<'_>, ty: &Type, depth: usize) -> fmt::Result {
    let name = match ty {
        Type::Bool => "bool",
        Type::S8 => "s8",
        Type::U8 => "u8",
        Type::S16 => "s16",
        Type::U16 => "u16",
        Type::S32 => "s32",
        Type::U32 => "u32",
        Type::S64 => "s64",
        Type::U64 => "u64",
        Type::Float32 => "f32",
        Type::Float64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::Own(_) | Type::Borrow(_) => "a resource",
        Type::Future(_) => "future",
        Type::Stream(_) => "stream",
        Type::ErrorContext => "error-context",
        _ if depth == 0 => "..",
        _ => return write_compound(f, ty, depth - 1),
    };
    f.write_str(name)
}

fn write_compound(f: &mut fmt::Formatter<'_>, ty: &Type, depth: usize) -> fmt::Result {
    match ty {
        Type::List(list) => {
            f.write_str("list<")?;
            write(f, &list.ty(), depth)?;
            f.write_str(">")
        }
        Type::Option(option) => {
            f.write_str("option<")?;
            write(f, &option.ty(), depth)?;
            f.write_str(">")
        }
        Type::Result(result) => {
            f.write_str("result<")?;
            write_if(f, result.ok(), depth)?;
            f.write_str(", ")?;
            write_if(f, result.err(), depth)?;
            f.write_str(">")
        }
        Type::Tuple(tuple) => {
            f.write_str("tuple<")?;
            for (index, ty) in tuple.types().enumerate() {
                f.write_str(separator(index))?;
                write(f, &ty, depth)?;
            }
            f.write_str(">")
        }
        Type::Record(record) => {
            f.write_str("record { ")?;
            for (index, field) in record.fields().enumerate() {
                write!(f, "{}{}: ", separator(index), field.name)?;
                write(f, &field.ty, depth)?;
            }
            f.write_str(" }")
        }
        Type::Variant(variant) => {
            f.write_str("variant { ")?;
            for (index, case) in variant.cases().enumerate() {
                write!(f, "{}{}", separator(index), case.name)?;
                if let Some(ty) = case.ty {
                    f.write_str("(")?;
                    write(f, &ty, depth)?;
                    f.write_str(")")?;
                }
            }
            f.write_str(" }")
        }
        Type::Enum(kind) => write_names(f, "enum", kind.names()),
        Type::Flags(flags) => write_names(f, "flags", flags.names()),
        _ => f.write_str("a type of another kind"),
    }
}

fn separator(index: usize) -> &'static str {
    if index == 0 { "" } else { ", " }
}

fn write_if(f: &mut fmt::Formatter<'_>, ty: Option<Type>, depth: usize) -> fmt::Result {
    match ty {
        Some(ty) => write(f, &ty, depth),
        None => f.write_str("_"),
    }
}

fn write_names<'a>(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    names: impl Iterator<Item = &'a str>,
) -> fmt::Result {
    write!(f, "{kind} {{ ")?;
    for (index, name) in names.enumerate() {
        write!(f, "{}{name}", separator(index))?;
    }
    f.write_str(" }")
}

/// A function's types in words.
pub(crate) struct Signature(pub(crate) ComponentFunc);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (index, (name, ty)) in self.0.params().enumerate() {
            write!(f, "{}{name}: {}", separator(index), Words(&ty))?;
        }
        f.write_str(")")?;
        match self.0.results().next() {
            Some(ty) => write!(f, " -> {}", Words(&ty)),
            None => Ok(()),
        }
    }
}
