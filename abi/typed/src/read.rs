//! Reading with somebody who watches.

use core::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{Record, Token};

/// Who watches a value being read. Each method may end the reading.
///
/// What a type takes in memory is known where serde makes it: the type of the visitor's value, that
/// of a list's elements, the length of a text.
#[allow(clippy::missing_errors_doc, reason = "each is the watcher's own")]
pub trait Watch {
    /// Where it is recorded what is read.
    fn record(&self) -> &Record;

    /// A value of this type is read next, whose elements, if it has any, are fields of it or not.
    fn value<T, E: Error>(&self, _is_fixed: bool) -> Result<(), E> {
        Ok(())
    }

    /// The payload of a variant is read next, which lies in the enum.
    fn payload<T>(&self) {}

    /// The fields of a variant are read next, which lie in the enum.
    fn fields(&self) {}

    /// Text or bytes of this length are likely to be copied.
    fn bytes<E: Error>(&self, _len: usize) -> Result<(), E> {
        Ok(())
    }

    /// Elements are read next. Returns whether they lie in the value itself.
    fn elements(&self) -> bool {
        false
    }

    /// An element is read next, if there is one more.
    fn element<T, E: Error>(&self, _is_fixed: bool, _is_first: bool) -> Result<(), E> {
        Ok(())
    }

    /// How much of the message is not read.
    fn unread(&self) -> usize {
        0
    }

    /// An element of a collection was read, of which so much was not before.
    fn has_read<E: Error>(&self, _unread: usize) -> Result<(), E> {
        Ok(())
    }
}

impl Watch for Record {
    fn record(&self) -> &Record {
        self
    }
}

/// Something that reads, gives access or visits, and who watches.
#[derive(Debug)]
pub struct Watched<'w, T, W> {
    inner: T,
    by: &'w W,
}

impl<'w, T, W: Watch> Watched<'w, T, W> {
    /// Wraps what reads a message.
    pub fn new(inner: T, by: &'w W) -> Self {
        Self { inner, by }
    }

    fn also<U>(&self, inner: U) -> Watched<'w, U, W> {
        Watched::new(inner, self.by)
    }
}

/// Reads a value with the inner deserializer, and has it visited by way of [`Watched`].
macro_rules! read {
    ($is_fixed:literal: $($method:ident($($name:ident: $type:ty),*) $token:ident;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.by.value::<V::Value, D::Error>($is_fixed)?;
            if Token::$token != Token::Nothing {
                self.by.record().note(Token::$token);
            }
            let visitor = self.also(visitor);
            self.inner.$method($($name,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>, W: Watch> Deserializer<'de> for Watched<'_, D, W> {
    type Error = D::Error;

    read! { false:
        deserialize_any() Nothing;
        deserialize_bool() Bool;
        deserialize_i8() I8;
        deserialize_i16() I16;
        deserialize_i32() I32;
        deserialize_i64() I64;
        deserialize_i128() I128;
        deserialize_u8() U8;
        deserialize_u16() U16;
        deserialize_u32() U32;
        deserialize_u64() U64;
        deserialize_u128() U128;
        deserialize_f32() F32;
        deserialize_f64() F64;
        deserialize_char() Char;
        deserialize_str() Text;
        deserialize_string() Text;
        deserialize_bytes() List;
        deserialize_byte_buf() List;
        deserialize_option() Option;
        deserialize_unit() Nothing;
        deserialize_unit_struct(name: &'static str) Nothing;
        deserialize_newtype_struct(name: &'static str) Nothing;
        deserialize_seq() List;
        deserialize_map() List;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) Variant;
        deserialize_identifier() Nothing;
        deserialize_ignored_any() Nothing;
    }

    read! { true:
        deserialize_tuple(len: usize) Nothing;
        deserialize_tuple_struct(name: &'static str, len: usize) Nothing;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) Nothing;
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Hands over what has no size beyond that of the visitor's value.
macro_rules! visit {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

/// Hands over text, or bytes, which are a list.
macro_rules! visit_bytes {
    ($($method:ident($type:ty) $token:ident;)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.by.bytes::<E>(value.len())?;
            if Token::$token == Token::U8 {
                self.by.record().note_many(Token::U8, value.len());
            }
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>, W: Watch> Visitor<'de> for Watched<'_, V, W> {
    type Value = V::Value;

    visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
    }

    visit_bytes! {
        visit_str(&str) Text;
        visit_borrowed_str(&'de str) Text;
        visit_bytes(&[u8]) U8;
        visit_borrowed_bytes(&'de [u8]) U8;
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.also(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        let deserializer = self.also(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = Elements::new(self.also(access));
        self.inner.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        // A struct's fields may come so.
        let access = Elements::new(self.also(access));
        self.inner.visit_map(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.also(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, S: DeserializeSeed<'de>, W: Watch> DeserializeSeed<'de> for Watched<'_, S, W> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.also(deserializer);
        self.inner.deserialize(deserializer)
    }
}

/// Access to the elements of a list or a map.
struct Elements<'w, A, W> {
    access: Watched<'w, A, W>,
    is_first: bool,
    /// Whether they lie in the value itself.
    is_fixed: bool,
}

impl<'w, A, W: Watch> Elements<'w, A, W> {
    fn new(access: Watched<'w, A, W>) -> Self {
        let is_fixed = access.by.elements();
        Self {
            access,
            is_first: true,
            is_fixed,
        }
    }

    #[inline]
    fn expect<T, E: Error>(&self) -> Result<(), E> {
        self.access.by.element::<T, E>(self.is_fixed, self.is_first)
    }
}

impl<'de, A: SeqAccess<'de>, W: Watch> SeqAccess<'de> for Elements<'_, A, W> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        // Asked before it is known whether there is one: the last time in vain.
        self.expect::<S::Value, A::Error>()?;
        self.is_first = false;
        let by = self.access.by;
        let unread = by.unread();
        let seed = self.access.also(seed);
        let element = self.access.inner.next_element_seed(seed)?;
        if element.is_some() && !self.is_fixed {
            by.has_read(unread)?;
        }
        Ok(element)
    }

    /// Not told: a length is only an allegation, and a collection would reserve so much.
    fn size_hint(&self) -> Option<usize> {
        None
    }
}

impl<'de, A: MapAccess<'de>, W: Watch> MapAccess<'de> for Elements<'_, A, W> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.expect::<S::Value, A::Error>()?;
        let by = self.access.by;
        let unread = by.unread();
        let seed = self.access.also(seed);
        let key = self.access.inner.next_key_seed(seed)?;
        if key.is_some() {
            by.has_read(unread)?;
        }
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.expect::<S::Value, A::Error>()?;
        self.is_first = false;
        let seed = self.access.also(seed);
        self.access.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        None
    }
}

impl<'de, 'w, A: EnumAccess<'de>, W: Watch> EnumAccess<'de> for Watched<'w, A, W> {
    type Error = A::Error;
    type Variant = Watched<'w, A::Variant, W>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let seed = self.also(seed);
        let by = self.by;
        // The number of the variant, which is read as a name, a number, or whatever.
        let read = || self.inner.variant_seed(seed);
        let (value, variant) = by.record().unnoticed(read)?;
        Ok((value, Watched::new(variant, by)))
    }
}

impl<'de, A: VariantAccess<'de>, W: Watch> VariantAccess<'de> for Watched<'_, A, W> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.by.payload::<S::Value>();
        let seed = self.also(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.by.fields();
        let visitor = self.also(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.by.fields();
        let visitor = self.also(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
