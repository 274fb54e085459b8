//! Writing with a record.

use core::fmt;

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::{Record, Token};

/// A typed message: a value, and behind it the record of what was written.
#[derive(Debug)]
pub struct Typed<'a, T: ?Sized>(pub &'a T);

impl<T: Serialize + ?Sized> Serialize for Typed<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = Record::new();
        let mut message = serializer.serialize_tuple(2)?;
        message.serialize_element(&Noted::new(self.0, &record))?;
        message.serialize_element(&record.to_bytes())?;
        message.end()
    }
}

/// Something that is written or writes, and where it is noted what.
struct Noted<'r, T> {
    inner: T,
    record: &'r Record,
}

impl<'r, T> Noted<'r, T> {
    fn new(inner: T, record: &'r Record) -> Self {
        Self { inner, record }
    }
}

impl<T: Serialize + ?Sized> Serialize for Noted<'_, &T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.serialize(Noted::new(serializer, self.record))
    }
}

/// Notes what a value is and writes it.
macro_rules! write {
    ($($method:ident($type:ty) $token:ident;)*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.record.note(Token::$token);
            self.inner.$method(value)
        }
    )*};
}

/// Writes what has elements: each of them is noted, and the whole as something or as nothing.
macro_rules! write_elements {
    ($($compound:ident $method:ident($($name:ident: $type:ty),*) $token:ident;)*) => {$(
        #[inline]
        fn $method(self, $($name: $type),*) -> Result<Self::$compound, S::Error> {
            if Token::$token != Token::Nothing {
                self.record.note(Token::$token);
            }
            let record = self.record;
            Ok(Noted::new(self.inner.$method($($name),*)?, record))
        }
    )*};
}

impl<'r, S: Serializer> Serializer for Noted<'r, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Noted<'r, S::SerializeSeq>;
    type SerializeTuple = Noted<'r, S::SerializeTuple>;
    type SerializeTupleStruct = Noted<'r, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Noted<'r, S::SerializeTupleVariant>;
    type SerializeMap = Noted<'r, S::SerializeMap>;
    type SerializeStruct = Noted<'r, S::SerializeStruct>;
    type SerializeStructVariant = Noted<'r, S::SerializeStructVariant>;

    write! {
        serialize_bool(bool) Bool;
        serialize_i8(i8) I8;
        serialize_i16(i16) I16;
        serialize_i32(i32) I32;
        serialize_i64(i64) I64;
        serialize_i128(i128) I128;
        serialize_u8(u8) U8;
        serialize_u16(u16) U16;
        serialize_u32(u32) U32;
        serialize_u64(u64) U64;
        serialize_u128(u128) U128;
        serialize_f32(f32) F32;
        serialize_f64(f64) F64;
        serialize_char(char) Char;
        serialize_str(&str) Text;
    }

    write_elements! {
        SerializeSeq serialize_seq(len: Option<usize>) List;
        SerializeMap serialize_map(len: Option<usize>) List;
        SerializeTuple serialize_tuple(len: usize) Nothing;
        SerializeTupleStruct serialize_tuple_struct(name: &'static str, len: usize) Nothing;
        SerializeStruct serialize_struct(name: &'static str, len: usize) Nothing;
        SerializeTupleVariant serialize_tuple_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) Variant;
        SerializeStructVariant serialize_struct_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) Variant;
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.record.note(Token::List);
        self.record.note_many(Token::U8, value.len());
        self.inner.serialize_bytes(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.record.note(Token::Option);
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.record.note(Token::Option);
        self.inner.serialize_some(&Noted::new(value, self.record))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.record.note(Token::Variant);
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = Noted::new(value, self.record);
        self.inner.serialize_newtype_struct(name, &value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.record.note(Token::Variant);
        let value = Noted::new(value, self.record);
        self.inner
            .serialize_newtype_variant(name, index, variant, &value)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.record.note(Token::Text);
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Writes the elements of something.
macro_rules! elements {
    ($($compound:ident $method:ident($($name:ident: $type:ty)?);)*) => {$(
        impl<C: $compound> $compound for Noted<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($name: $type,)?
                value: &T,
            ) -> Result<(), C::Error> {
                self.inner.$method($($name,)? &Noted::new(value, self.record))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

elements! {
    SerializeSeq serialize_element();
    SerializeTuple serialize_element();
    SerializeTupleStruct serialize_field();
    SerializeTupleVariant serialize_field();
    SerializeStruct serialize_field(key: &'static str);
    SerializeStructVariant serialize_field(key: &'static str);
}

impl<C: SerializeMap> SerializeMap for Noted<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.inner.serialize_key(&Noted::new(key, self.record))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.inner.serialize_value(&Noted::new(value, self.record))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
