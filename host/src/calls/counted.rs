//! Counts what a value takes while it is read from bytes of a guest.
//!
//! Few bytes can become a large value: a thousand `None`s are a thousand bytes, and as many times
//! the largest `Some` in memory; a list of units is as long as its length says and holds nothing. So
//! each value is paid for before it is made. What a type takes in memory is known where serde makes
//! it: the size of the visitor's value, that of a list's elements, the length of a text. What cannot
//! be seen is how a collection allocates: it is taken to double its room, to begin with four places,
//! and to reserve nothing ahead of what is read, for which it is told no length.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use crate::account::Charge;

/// Bytes that an allocation takes besides what it is for.
const ALLOCATION: usize = 32;

/// Places with which a collection begins.
const FIRST: usize = 4;

/// Most elements of a message that are read from no byte at all: nothing but their number bounds them.
const EMPTY_MAX: usize = 1 << 16;

/// Bytes that are charged at once.
const STEP: usize = 4 << 10;

/// What the values of a message take.
pub(super) struct Cost {
    charge: Cell<Option<Charge>>,
    /// Bytes charged and not used.
    left: Cell<usize>,
    /// Size of the place that the next value goes to, if it is not an allocation of its own.
    place: Cell<usize>,
    /// Whether what is visited next has its elements in itself: a tuple, a struct.
    is_fixed: Cell<bool>,
    /// Bytes of the message that are not read.
    pub(super) unread: Cell<usize>,
    empty: Cell<usize>,
    /// Whether the account has refused.
    is_full: Cell<bool>,
}

impl Cost {
    /// Pays with this charge, which grows.
    pub(super) fn new(charge: Charge, unread: usize) -> Self {
        Self {
            charge: Cell::new(Some(charge)),
            left: Cell::new(0),
            place: Cell::new(0),
            is_fixed: Cell::new(false),
            unread: Cell::new(unread),
            empty: Cell::new(0),
            is_full: Cell::new(false),
        }
    }

    /// Whether reading ended because the account was full.
    pub(super) fn is_full(&self) -> bool {
        self.is_full.get()
    }

    /// What was paid.
    pub(super) fn into_charge(self) -> Option<Charge> {
        self.charge.into_inner()
    }

    /// Wraps what reads a message.
    pub(super) fn count<D>(&self, inner: D) -> Counted<'_, D> {
        Counted { inner, cost: self }
    }

    #[inline]
    fn pay<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None if self.grow(bytes) => Ok(()),
            None => Err(E::custom(
                "the value is larger than the limit on the host's memory allows",
            )),
        }
    }

    /// Charges what is wanted, and a little more if there is that.
    #[cold]
    fn grow(&self, wanted: usize) -> bool {
        let mut charge = self.charge.take();
        let left = charge.as_mut().and_then(|charge| {
            let more = charge.grow(wanted.saturating_add(STEP)).map(|()| STEP);
            more.or_else(|_| charge.grow(wanted).map(|()| 0)).ok()
        });
        self.charge.set(charge);
        match left {
            Some(left) => self.left.set(self.left.get() + left),
            None => self.is_full.set(true),
        }
        left.is_some()
    }

    /// Pays for a value of this type.
    #[inline]
    fn value<T, E: serde::de::Error>(&self) -> Result<(), E> {
        let (size, place) = (size_of::<T>(), self.place.replace(size_of::<T>()));
        // In its place, or as an option in it; else it is a box or something like it.
        let is_inline = size <= place && place <= size.saturating_mul(2);
        self.pay(if is_inline { size } else { size + ALLOCATION })
    }

    /// Pays for an element of a collection, which is the first one or not.
    #[inline]
    fn element<T, E: serde::de::Error>(&self, is_first: bool) -> Result<(), E> {
        let size = size_of::<T>();
        self.place.set(size);
        self.pay(if is_first {
            FIRST * size + ALLOCATION
        } else {
            size
        })
    }

    /// Notes that an element was read, from here in the message.
    #[inline]
    fn has_read<E: serde::de::Error>(&self, from: usize) -> Result<(), E> {
        if self.unread.get() < from {
            return Ok(());
        }
        self.empty.set(self.empty.get() + 1);
        if self.empty.get() > EMPTY_MAX {
            return Err(E::custom("there are too many elements of no size"));
        }
        Ok(())
    }
}

/// Something that reads, gives access or visits, with what is paid for its values.
pub(super) struct Counted<'c, T> {
    inner: T,
    cost: &'c Cost,
}

impl<'c, T> Counted<'c, T> {
    fn also<U>(&self, inner: U) -> Counted<'c, U> {
        self.cost.count(inner)
    }
}

/// Reads a value with the inner deserializer, and has it visited by way of [`Counted`].
macro_rules! read {
    ($is_fixed:literal: $($method:ident($($name:ident: $type:ty),*);)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.cost.value::<V::Value, D::Error>()?;
            self.cost.is_fixed.set($is_fixed);
            let visitor = self.also(visitor);
            self.inner.$method($($name,)* visitor)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Counted<'_, D> {
    type Error = D::Error;

    read! { false:
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    read! { true:
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Hands over what has no size beyond that of the visitor's value.
macro_rules! visit {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

/// Pays for bytes that the visitor is likely to copy.
macro_rules! visit_bytes {
    ($($method:ident($type:ty);)*) => {$(
        fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.cost.pay::<E>(value.len() + ALLOCATION)?;
            self.inner.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Counted<'_, V> {
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
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
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

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Counted<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.also(deserializer);
        self.inner.deserialize(deserializer)
    }
}

/// Access to the elements of a list or a map.
struct Elements<'c, A> {
    access: Counted<'c, A>,
    is_first: bool,
    /// Whether they lie in the value itself, which is paid for.
    is_fixed: bool,
}

impl<'c, A> Elements<'c, A> {
    fn new(access: Counted<'c, A>) -> Self {
        let is_fixed = access.cost.is_fixed.take();
        Self {
            access,
            is_first: true,
            is_fixed,
        }
    }

    #[inline]
    fn pay<T, E: serde::de::Error>(&self) -> Result<(), E> {
        match self.is_fixed {
            true => {
                self.access.cost.place.set(size_of::<T>());
                Ok(())
            }
            false => self.access.cost.element::<T, E>(self.is_first),
        }
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        // Asked before it is known whether there is one: the last time in vain.
        self.pay::<S::Value, A::Error>()?;
        self.is_first = false;
        let cost = self.access.cost;
        let from = cost.unread.get();
        let element = self.access.inner.next_element_seed(cost.count(seed))?;
        if element.is_some() && !self.is_fixed {
            cost.has_read(from)?;
        }
        Ok(element)
    }

    /// Not told: a length is only an allegation, and a collection would reserve so much.
    fn size_hint(&self) -> Option<usize> {
        None
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Elements<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.pay::<S::Value, A::Error>()?;
        let cost = self.access.cost;
        let from = cost.unread.get();
        let key = self.access.inner.next_key_seed(cost.count(seed))?;
        if key.is_some() {
            cost.has_read(from)?;
        }
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.pay::<S::Value, A::Error>()?;
        self.is_first = false;
        let cost = self.access.cost;
        self.access.inner.next_value_seed(cost.count(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        None
    }
}

impl<'de, 'c, A: EnumAccess<'de>> EnumAccess<'de> for Counted<'c, A> {
    type Error = A::Error;
    type Variant = Counted<'c, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let seed = self.also(seed);
        let cost = self.cost;
        let (value, variant) = self.inner.variant_seed(seed)?;
        Ok((value, cost.count(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Counted<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.cost.place.set(size_of::<S::Value>());
        let seed = self.also(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.cost.is_fixed.set(true);
        let visitor = self.also(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.cost.is_fixed.set(true);
        let visitor = self.also(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
