//! Values of components and what they are here.
//!
//! Functions are defined by values whose types are found out when they are called: there is one piece of
//! Wasmtime's code for all of them, and not one for each set of types.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use wasmtime::component::{Resource, ResourceAny, Val};
use wasmtime::{AsContextMut, Result, StoreContextMut, format_err};

use super::State;

pub(crate) type Cx<'a> = StoreContextMut<'a, State>;

/// What a component may give.
pub(crate) trait Taken: Sized + Send + 'static {
    fn taken(value: &Val, cx: &mut Cx<'_>) -> Result<Self>;

    /// Of a case that may have no value.
    fn taken_of(value: Option<&Val>, cx: &mut Cx<'_>) -> Result<Self> {
        value.map_or_else(mismatch, |value| Self::taken(value, cx))
    }
}

/// What a component may be given.
pub(crate) trait Given: Sized + Send + 'static {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val>;

    /// For a case that may have no value.
    fn given_to(self, cx: &mut Cx<'_>) -> Result<Option<Box<Val>>> {
        Ok(Some(Box::new(self.given(cx)?)))
    }
}

/// The arguments of a function.
pub(crate) trait Arguments: Sized + Send + 'static {
    fn all(values: &[Val], cx: &mut Cx<'_>) -> Result<Self>;
}

/// What a function gives: nothing, or one value.
pub(crate) trait Results: Send + 'static {
    fn put(self, results: &mut [Val], cx: &mut Cx<'_>) -> Result<()>;
}

impl Results for () {
    fn put(self, _: &mut [Val], _: &mut Cx<'_>) -> Result<()> {
        Ok(())
    }
}

impl<R: Given> Results for (R,) {
    fn put(self, results: &mut [Val], cx: &mut Cx<'_>) -> Result<()> {
        let [result] = results else {
            return mismatch();
        };
        *result = self.0.given(cx)?;
        Ok(())
    }
}

/// The component's types are others than the interface has.
#[cold]
pub(crate) fn mismatch<T>() -> Result<T> {
    Err(format_err!(
        "a value of another type than its interface has: the component imports other types under a name of WASI"
    ))
}

macro_rules! plain {
    ($($ty:ty = $kind:ident,)*) => {$(
        impl Taken for $ty {
            fn taken(value: &Val, _: &mut Cx<'_>) -> Result<Self> {
                match value {
                    Val::$kind(value) => Ok(value.clone()),
                    _ => mismatch(),
                }
            }
        }

        impl Given for $ty {
            fn given(self, _: &mut Cx<'_>) -> Result<Val> {
                Ok(Val::$kind(self))
            }
        }
    )*};
}

plain! {
    bool = Bool,
    u8 = U8,
    u16 = U16,
    u32 = U32,
    u64 = U64,
    i64 = S64,
    String = String,
}

macro_rules! tuples {
    ($($($part:ident $index:tt)*;)*) => {$(
        #[allow(non_snake_case, reason = "the parts have the names of their types")]
        impl<$($part: Taken),*> Taken for ($($part,)*) {
            fn taken(value: &Val, cx: &mut Cx<'_>) -> Result<Self> {
                match value {
                    Val::Tuple(parts) => Self::all(parts, cx),
                    _ => mismatch(),
                }
            }
        }

        impl<$($part: Given),*> Given for ($($part,)*) {
            fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
                Ok(Val::Tuple(alloc::vec![$(self.$index.given(cx)?,)*]))
            }
        }

        #[allow(non_snake_case, reason = "the parts have the names of their types")]
        impl<$($part: Taken),*> Arguments for ($($part,)*) {
            fn all(values: &[Val], cx: &mut Cx<'_>) -> Result<Self> {
                let [$($part),*] = values else {
                    return mismatch();
                };
                Ok(($($part::taken($part, cx)?,)*))
            }
        }
    )*};
}

tuples! {
    A 0;
    A 0 B 1;
    A 0 B 1 C 2;
    A 0 B 1 C 2 D 3;
    A 0 B 1 C 2 D 3 E 4;
    A 0 B 1 C 2 D 3 E 4 F 5 G 6 H 7;
}

impl Arguments for () {
    fn all(_: &[Val], _: &mut Cx<'_>) -> Result<Self> {
        Ok(())
    }
}

/// What a case has that has no value.
impl Taken for () {
    fn taken(_: &Val, _: &mut Cx<'_>) -> Result<Self> {
        mismatch()
    }

    fn taken_of(value: Option<&Val>, _: &mut Cx<'_>) -> Result<Self> {
        value.map_or(Ok(()), |_| mismatch())
    }
}

impl Given for () {
    fn given(self, _: &mut Cx<'_>) -> Result<Val> {
        mismatch()
    }

    fn given_to(self, _: &mut Cx<'_>) -> Result<Option<Box<Val>>> {
        Ok(None)
    }
}

impl<T: Taken> Taken for Option<T> {
    fn taken(value: &Val, cx: &mut Cx<'_>) -> Result<Self> {
        match value {
            Val::Option(value) => value
                .as_deref()
                .map(|value| T::taken(value, cx))
                .transpose(),
            _ => mismatch(),
        }
    }
}

impl<T: Given> Given for Option<T> {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        let value = self.map(|value| value.given(cx)).transpose()?;
        Ok(Val::Option(value.map(Box::new)))
    }
}

impl<T: Taken, E: Taken> Taken for core::result::Result<T, E> {
    fn taken(value: &Val, cx: &mut Cx<'_>) -> Result<Self> {
        match value {
            Val::Result(Ok(value)) => Ok(Ok(T::taken_of(value.as_deref(), cx)?)),
            Val::Result(Err(value)) => Ok(Err(E::taken_of(value.as_deref(), cx)?)),
            _ => mismatch(),
        }
    }
}

impl<T: Given, E: Given> Given for core::result::Result<T, E> {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        Ok(Val::Result(match self {
            Ok(value) => Ok(value.given_to(cx)?),
            Err(value) => Err(value.given_to(cx)?),
        }))
    }
}

impl<T: Taken> Taken for Vec<T> {
    fn taken(value: &Val, cx: &mut Cx<'_>) -> Result<Self> {
        match value {
            Val::List(values) => values.iter().map(|value| T::taken(value, cx)).collect(),
            _ => mismatch(),
        }
    }
}

impl<T: Given> Given for Vec<T> {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        let values = self.into_iter().map(|value| value.given(cx));
        Ok(Val::List(values.collect::<Result<_>>()?))
    }
}

impl<T: Send + 'static> Taken for Resource<T> {
    fn taken(value: &Val, cx: &mut Cx<'_>) -> Result<Self> {
        match value {
            Val::Resource(resource) => resource.try_into_resource(cx.as_context_mut()),
            _ => mismatch(),
        }
    }
}

impl<T: Send + 'static> Given for Resource<T> {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        let resource = ResourceAny::try_from_resource(self, cx.as_context_mut())?;
        Ok(Val::Resource(resource))
    }
}

/// What is a resource when a component is given it.
pub(crate) struct New<T>(pub(crate) T);

impl<T: Send + 'static> Given for New<T> {
    fn given(self, cx: &mut Cx<'_>) -> Result<Val> {
        let resource = cx.data_mut().push(self.0)?;
        resource.given(cx)
    }
}

/// A value that was made already.
pub(crate) struct Made(pub(crate) Val);

impl Given for Made {
    fn given(self, _: &mut Cx<'_>) -> Result<Val> {
        Ok(self.0)
    }
}

/// Which of these names a value has.
pub(crate) fn place(name: &str, names: &[&str]) -> Result<usize> {
    let place = names.iter().position(|own| *own == name);
    place.map_or_else(mismatch, Ok)
}

/// The case of an enum.
pub(crate) fn case_of(value: &Val, names: &[&str]) -> Result<usize> {
    match value {
        Val::Enum(name) => place(name, names),
        _ => mismatch(),
    }
}

/// The value of what is an enum in 0.2, and a variant in 0.3.
pub(crate) fn case(cx: &Cx<'_>, name: &str, others: &[(&str, &str)]) -> Val {
    if !cx.data().is_newer {
        return Val::Enum(name.into());
    }
    let other = others.iter().find(|(older, _)| *older == name);
    let name = other.map_or(name, |(_, newer)| newer);
    let value = (name == "other").then(|| Box::new(Val::Option(None)));
    Val::Variant(name.into(), value)
}

/// The flags that are set, a bit each.
pub(crate) fn bits_of(value: &Val, names: &[&str]) -> Result<u32> {
    let Val::Flags(set) = value else {
        return mismatch();
    };
    let mut bits = 0;
    for name in set {
        bits |= 1 << place(name, names)?;
    }
    Ok(bits)
}

pub(crate) fn flags_of(bits: u32, names: &[&str]) -> Val {
    let set = names
        .iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1);
    Val::Flags(set.map(|(_, name)| String::from(*name)).collect())
}

/// The next field of a record.
pub(crate) fn field<T: Taken>(
    fields: &mut core::slice::Iter<'_, (String, Val)>,
    cx: &mut Cx<'_>,
) -> Result<T> {
    fields
        .next()
        .map_or_else(mismatch, |(_, value)| T::taken(value, cx))
}

/// The bit of a flag.
pub(crate) const fn bit(name: &str, names: &[&str]) -> u32 {
    let mut place = 0;
    while !is(name.as_bytes(), names[place].as_bytes()) {
        place += 1;
    }
    1 << place
}

const fn is(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Defines an `enum` of WIT: cases, and their names. One that is `typed` can be used with Wasmtime's types also; what
/// says `newer` is a variant in 0.3, where those of these names have others.
macro_rules! cases {
    ($(#[$meta:meta])* typed $vis:vis enum $ty:ident $((newer: $($older:literal => $newer:literal),*))? {
        $($case:ident = $name:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(ComponentType, Lower, Lift, Clone, Copy, PartialEq, Eq)]
        #[component(enum)]
        #[repr(u8)]
        #[allow(dead_code, reason = "all that there are")]
        $vis enum $ty {
            $(#[component(name = $name)] $case,)*
        }
        $crate::wasi::value::cases!(@values $ty $($case = $name)*);
        $crate::wasi::value::cases!(@given $ty $($($older => $newer)*)?);
    };
    ($(#[$meta:meta])* $vis:vis enum $ty:ident $((newer: $($older:literal => $newer:literal),*))? {
        $($case:ident = $name:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[allow(dead_code, reason = "all that there are")]
        $vis enum $ty {
            $($case,)*
        }
        $crate::wasi::value::cases!(@values $ty $($case = $name)*);
        $crate::wasi::value::cases!(@given $ty $($($older => $newer)*)?);
    };
    (@values $ty:ident $($case:ident = $name:literal)*) => {
        impl $ty {
            const NAMES: &'static [&'static str] = &[$($name,)*];
            const ALL: &'static [Self] = &[$(Self::$case,)*];
        }

        impl $crate::wasi::value::Taken for $ty {
            fn taken(
                value: &wasmtime::component::Val,
                _: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<Self> {
                Ok(Self::ALL[$crate::wasi::value::case_of(value, Self::NAMES)?])
            }
        }
    };
    (@given $ty:ident) => {
        impl $crate::wasi::value::Given for $ty {
            fn given(
                self,
                _: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<wasmtime::component::Val> {
                Ok(wasmtime::component::Val::Enum(Self::NAMES[self as usize].into()))
            }
        }
    };
    (@given $ty:ident $($older:literal => $newer:literal)*) => {
        impl $crate::wasi::value::Given for $ty {
            fn given(
                self,
                cx: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<wasmtime::component::Val> {
                Ok($crate::wasi::value::case(cx, Self::NAMES[self as usize], &[$(($older, $newer)),*]))
            }
        }
    };
}

/// Defines a `variant` of WIT: cases with and without a value, and their names.
macro_rules! variant {
    ($(#[$meta:meta])* typed $vis:vis enum $ty:ident {
        $($case:ident $(($value:ident: $of:ty))? = $name:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(ComponentType, Lower, Lift)]
        #[component(variant)]
        $vis enum $ty {
            $(#[component(name = $name)] $case $(($of))?,)*
        }
        $crate::wasi::value::variant!(@values $ty $($case $(($value: $of))? = $name,)*);
    };
    ($(#[$meta:meta])* $vis:vis enum $ty:ident {
        $($case:ident $(($value:ident: $of:ty))? = $name:literal,)*
    }) => {
        $(#[$meta])*
        #[allow(dead_code, reason = "all that there are")]
        $vis enum $ty {
            $($case $(($of))?,)*
        }
        $crate::wasi::value::variant!(@values $ty $($case $(($value: $of))? = $name,)*);
    };
    (@values $ty:ident $($case:ident $(($value:ident: $of:ty))? = $name:literal,)*) => {
        impl $crate::wasi::value::Taken for $ty {
            fn taken(
                value: &wasmtime::component::Val,
                _cx: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<Self> {
                let wasmtime::component::Val::Variant(name, _value) = value else {
                    return $crate::wasi::value::mismatch();
                };
                match name.as_str() {
                    $($name => Ok(Self::$case $((
                        <$of as $crate::wasi::value::Taken>::taken_of(_value.as_deref(), _cx)?
                    ))?),)*
                    _ => $crate::wasi::value::mismatch(),
                }
            }
        }

        impl $crate::wasi::value::Given for $ty {
            fn given(
                self,
                _cx: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<wasmtime::component::Val> {
                let (name, value) = match self {
                    $(Self::$case $(($value))? => {
                        let _value: Option<alloc::boxed::Box<wasmtime::component::Val>> = None;
                        $(let _value = $crate::wasi::value::Given::given_to($value, _cx)?;)?
                        ($name, _value)
                    })*
                };
                Ok(wasmtime::component::Val::Variant(name.into(), value))
            }
        }
    };
}

/// Defines a `record` of WIT: fields in their order, and their names.
macro_rules! record {
    ($(#[$meta:meta])* typed $vis:vis struct $ty:ident {
        $($field:ident: $of:ty = $name:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(ComponentType, Lower, Lift)]
        #[component(record)]
        $vis struct $ty {
            $(#[component(name = $name)] $field: $of,)*
        }
        $crate::wasi::value::record!(@values $ty $($field = $name)*);
    };
    ($(#[$meta:meta])* $vis:vis struct $ty:ident {
        $($field:ident: $of:ty = $name:literal,)*
    }) => {
        $(#[$meta])*
        $vis struct $ty {
            $($field: $of,)*
        }
        $crate::wasi::value::record!(@values $ty $($field = $name)*);
    };
    (@values $ty:ident $($field:ident = $name:literal)*) => {
        impl $crate::wasi::value::Taken for $ty {
            fn taken(
                value: &wasmtime::component::Val,
                cx: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<Self> {
                let wasmtime::component::Val::Record(fields) = value else {
                    return $crate::wasi::value::mismatch();
                };
                let fields = &mut fields.iter();
                Ok(Self {
                    $($field: $crate::wasi::value::field(fields, cx)?,)*
                })
            }
        }

        impl $crate::wasi::value::Given for $ty {
            fn given(
                self,
                cx: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<wasmtime::component::Val> {
                Ok(wasmtime::component::Val::Record(alloc::vec![$(
                    ($name.into(), $crate::wasi::value::Given::given(self.$field, cx)?),
                )*]))
            }
        }
    };
}

/// Defines `flags` of WIT, and their names.
macro_rules! flags {
    ($(#[$meta:meta])* $vis:vis struct $ty:ident { $($flag:ident = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default)]
        $vis struct $ty(u32);

        #[allow(dead_code, reason = "all that there are")]
        impl $ty {
            const NAMES: &'static [&'static str] = &[$($name,)*];
            $($vis const $flag: Self = Self($crate::wasi::value::bit($name, Self::NAMES));)*

            $vis const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// Whether one of them is set.
            $vis const fn has(self, flags: Self) -> bool {
                self.0 & flags.0 != 0
            }
        }

        impl $crate::wasi::value::Taken for $ty {
            fn taken(
                value: &wasmtime::component::Val,
                _: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<Self> {
                Ok(Self($crate::wasi::value::bits_of(value, Self::NAMES)?))
            }
        }

        impl $crate::wasi::value::Given for $ty {
            fn given(
                self,
                _: &mut $crate::wasi::value::Cx<'_>,
            ) -> wasmtime::Result<wasmtime::component::Val> {
                Ok($crate::wasi::value::flags_of(self.0, Self::NAMES))
            }
        }
    };
}

pub(crate) use {cases, flags, record, variant};
