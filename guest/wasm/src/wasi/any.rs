//! Values of any type in streams and futures, whose types are found out when they are moved: there is one piece of
//! Wasmtime's code for all of them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use wasmtime::component::__internal::{
    CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext, LowerContext,
};
use wasmtime::component::{ComponentType, Lift, Lower, ResourceAny, Val};
use wasmtime::{Result, ValRaw};

use super::value::mismatch;

/// A value.
pub(crate) struct Any(pub(crate) Val);

// SAFETY: it is a byte or more in memory, and nothing else of its layout is said here: what is read and written beyond it
// is in bounds of what Wasmtime gives, or refused. It is never passed flat.
unsafe impl ComponentType for Any {
    type Lower = [ValRaw; 1];

    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::SCALAR1;

    fn typecheck(_: &InterfaceType, _: &InstanceType<'_>) -> Result<()> {
        // Each value is looked at when it is moved.
        Ok(())
    }
}

// SAFETY: as above; it writes into the component's memory only.
unsafe impl Lower for Any {
    fn linear_lower_to_flat<T>(
        &self,
        _: &mut LowerContext<'_, T>,
        _: InterfaceType,
        _: &mut MaybeUninit<Self::Lower>,
    ) -> Result<()> {
        mismatch()
    }

    fn linear_lower_to_memory<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        ty: InterfaceType,
        offset: usize,
    ) -> Result<()> {
        let abi = cx.types.canonical_abi(&ty);
        let (size, align) = (abi.size32 as usize, abi.align32 as usize);
        let end = offset.checked_add(size);
        if !offset.is_multiple_of(align) || end.is_none_or(|end| end > cx.as_slice_mut().len()) {
            return mismatch();
        }
        store(cx, ty, offset, &self.0)
    }
}

// SAFETY: as above; it reads of the component's memory only.
unsafe impl Lift for Any {
    fn linear_lift_from_flat(
        _: &mut LiftContext<'_>,
        _: InterfaceType,
        _: &Self::Lower,
    ) -> Result<Self> {
        mismatch()
    }

    fn linear_lift_from_memory(
        cx: &mut LiftContext<'_>,
        ty: InterfaceType,
        bytes: &[u8],
    ) -> Result<Self> {
        // The bytes are one of the memory's.
        let memory = cx.memory();
        let offset = (bytes.as_ptr() as usize).checked_sub(memory.as_ptr() as usize);
        let bytes = offset.and_then(|offset| memory.get(offset..));
        let value = bytes.map_or_else(mismatch, |bytes| load(cx, ty, bytes))?;
        Ok(Self(value))
    }
}

/// What a value that is a number is in memory, and its bytes there.
fn number(value: &Val, ty: InterfaceType) -> Option<(u64, usize)> {
    Some(match (value, ty) {
        (Val::Bool(value), InterfaceType::Bool) => ((*value).into(), 1),
        (Val::U8(value), InterfaceType::U8) => ((*value).into(), 1),
        (Val::S8(value), InterfaceType::S8) => (*value as u64, 1),
        (Val::U16(value), InterfaceType::U16) => ((*value).into(), 2),
        (Val::S16(value), InterfaceType::S16) => (*value as u64, 2),
        (Val::U32(value), InterfaceType::U32) => ((*value).into(), 4),
        (Val::S32(value), InterfaceType::S32) => (*value as u64, 4),
        (Val::Char(value), InterfaceType::Char) => (u32::from(*value).into(), 4),
        (Val::Float32(value), InterfaceType::Float32) => (value.to_bits().into(), 4),
        (Val::U64(value), InterfaceType::U64) => (*value, 8),
        (Val::S64(value), InterfaceType::S64) => (*value as u64, 8),
        (Val::Float64(value), InterfaceType::Float64) => (value.to_bits(), 8),
        _ => return None,
    })
}

/// Writes a value; where it lies was looked at before.
fn store<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    offset: usize,
    value: &Val,
) -> Result<()> {
    let types = cx.types;
    if let Some((bits, size)) = number(value, ty) {
        put(cx, offset, bits, size);
        return Ok(());
    }
    match (value, ty) {
        (Val::String(value), InterfaceType::String) => value.linear_lower_to_memory(cx, ty, offset),
        (Val::Resource(value), InterfaceType::Own(_)) => {
            value.linear_lower_to_memory(cx, ty, offset)
        }
        (Val::List(values), InterfaceType::List(ty)) => {
            let at = list(cx, types[ty].element, values)?;
            put(cx, offset, at as u64 | (values.len() as u64) << 32, 8);
            Ok(())
        }
        (Val::Tuple(values), InterfaceType::Tuple(ty)) => {
            let all = types[ty].types.iter().copied();
            fields(cx, all.zip(values), offset)
        }
        (Val::Record(values), InterfaceType::Record(ty)) => {
            let all = types[ty].fields.iter();
            let is_same = all.clone().map(|field| &*field.name);
            if !is_same.eq(values.iter().map(|(name, _)| &**name)) {
                return mismatch();
            }
            let all = all.map(|field| field.ty);
            fields(cx, all.zip(values.iter().map(|(_, value)| value)), offset)
        }
        (Val::Flags(names), InterfaceType::Flags(ty)) => {
            let all = &types[ty].names;
            let mut bits = 0_u64;
            for name in names {
                match all.get_index_of(name).filter(|place| *place < 32) {
                    Some(place) => bits |= 1 << place,
                    None => return mismatch(),
                }
            }
            put(cx, offset, bits, types[ty].abi.size32 as usize);
            Ok(())
        }
        _ => case(cx, ty, offset, value),
    }
}

/// Writes a value that is one of several cases.
fn case<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    offset: usize,
    value: &Val,
) -> Result<()> {
    let types = cx.types;
    let (place, info, of, value) = match (value, ty) {
        (Val::Option(value), InterfaceType::Option(ty)) => {
            let ty = &types[ty];
            (value.is_some().into(), &ty.info, Some(ty.ty), value)
        }
        (Val::Result(value), InterfaceType::Result(ty)) => {
            let ty = &types[ty];
            match value {
                Ok(value) => (0, &ty.info, ty.ok, value),
                Err(value) => (1, &ty.info, ty.err, value),
            }
        }
        (Val::Enum(name), InterfaceType::Enum(ty)) => {
            let ty = &types[ty];
            match ty.names.get_index_of(name) {
                Some(place) => (place, &ty.info, None, &None),
                None => return mismatch(),
            }
        }
        (Val::Variant(name, value), InterfaceType::Variant(ty)) => {
            let ty = &types[ty];
            match ty.cases.get_full(name) {
                Some((place, _, of)) => (place, &ty.info, *of, value),
                None => return mismatch(),
            }
        }
        _ => return mismatch(),
    };
    put(cx, offset, place as u64, usize::from(info.size));
    held(
        cx,
        of,
        offset + info.payload_offset32 as usize,
        value.as_deref(),
    )
}

/// Writes a number of so many bytes.
fn put<T>(cx: &mut LowerContext<'_, T>, offset: usize, bits: u64, size: usize) {
    cx.as_slice_mut()[offset..offset + size].copy_from_slice(&bits.to_le_bytes()[..size]);
}

/// Writes what lies one behind the other.
fn fields<'a, T>(
    cx: &mut LowerContext<'_, T>,
    all: impl Iterator<Item = (InterfaceType, &'a Val)>,
    mut offset: usize,
) -> Result<()> {
    for (ty, value) in all {
        let place = cx.types.canonical_abi(&ty).next_field32_size(&mut offset);
        store(cx, ty, place, value)?;
    }
    Ok(())
}

/// Writes a list into memory of its own, and gives where.
fn list<T>(cx: &mut LowerContext<'_, T>, ty: InterfaceType, values: &[Val]) -> Result<usize> {
    let abi = cx.types.canonical_abi(&ty);
    let (size, align) = (abi.size32 as usize, abi.align32);
    let at = cx.realloc(0, 0, align, size * values.len())?;
    for (index, value) in values.iter().enumerate() {
        store(cx, ty, at + size * index, value)?;
    }
    Ok(at)
}

/// Writes what a case has, if it has anything.
fn held<T>(
    cx: &mut LowerContext<'_, T>,
    ty: Option<InterfaceType>,
    offset: usize,
    value: Option<&Val>,
) -> Result<()> {
    match (ty, value) {
        (Some(ty), Some(value)) => store(cx, ty, offset, value),
        (Some(_), None) | (None, None) => Ok(()),
        (None, Some(_)) => mismatch(),
    }
}

/// The number that bytes begin with.
fn bits(bytes: &[u8], size: usize) -> u64 {
    let mut word = [0; 8];
    let size = size.min(bytes.len()).min(8);
    word[..size].copy_from_slice(&bytes[..size]);
    u64::from_le_bytes(word)
}

/// A value that is a number.
fn numbered(ty: InterfaceType, bits: u64) -> Option<Val> {
    Some(match ty {
        InterfaceType::Bool => Val::Bool(bits != 0),
        InterfaceType::U8 => Val::U8(bits as u8),
        InterfaceType::S8 => Val::S8(bits as i8),
        InterfaceType::U16 => Val::U16(bits as u16),
        InterfaceType::S16 => Val::S16(bits as i16),
        InterfaceType::U32 => Val::U32(bits as u32),
        InterfaceType::S32 => Val::S32(bits as i32),
        InterfaceType::U64 => Val::U64(bits),
        InterfaceType::S64 => Val::S64(bits as i64),
        InterfaceType::Float32 => Val::Float32(f32::from_bits(bits as u32)),
        InterfaceType::Float64 => Val::Float64(f64::from_bits(bits)),
        InterfaceType::Char => Val::Char(char::from_u32(bits as u32)?),
        _ => return None,
    })
}

/// Reads a value that bytes begin with.
fn load(cx: &mut LiftContext<'_>, ty: InterfaceType, bytes: &[u8]) -> Result<Val> {
    let types = cx.types.clone();
    let size = types.canonical_abi(&ty).size32 as usize;
    let Some(bytes) = bytes.get(..size) else {
        return mismatch();
    };
    if let Some(value) = numbered(ty, bits(bytes, size)) {
        return Ok(value);
    }
    Ok(match ty {
        InterfaceType::String => Val::String(String::linear_lift_from_memory(cx, ty, bytes)?),
        InterfaceType::Own(_) => {
            Val::Resource(ResourceAny::linear_lift_from_memory(cx, ty, bytes)?)
        }
        InterfaceType::List(ty) => Val::List(listed(cx, types[ty].element, bits(bytes, 8))?),
        InterfaceType::Tuple(ty) => {
            let all = types[ty].types.iter().copied();
            Val::Tuple(parts(cx, all, bytes)?)
        }
        InterfaceType::Record(ty) => {
            let all = &types[ty].fields;
            let values = parts(cx, all.iter().map(|field| field.ty), bytes)?;
            let names = all.iter().map(|field| String::from(&*field.name));
            Val::Record(names.zip(values).collect())
        }
        InterfaceType::Flags(ty) => {
            let all = types[ty].names.iter().enumerate();
            let set = all.filter(|(place, _)| bits(bytes, size) >> place & 1 == 1);
            Val::Flags(set.map(|(_, name)| String::from(&**name)).collect())
        }
        _ => return one_case(cx, ty, bytes),
    })
}

/// Reads a value that is one of several cases.
fn one_case(cx: &mut LiftContext<'_>, ty: InterfaceType, bytes: &[u8]) -> Result<Val> {
    let types = cx.types.clone();
    let info = match ty {
        InterfaceType::Option(ty) => &types[ty].info,
        InterfaceType::Result(ty) => &types[ty].info,
        InterfaceType::Enum(ty) => &types[ty].info,
        InterfaceType::Variant(ty) => &types[ty].info,
        _ => return mismatch(),
    };
    let place = bits(bytes, usize::from(info.size)) as usize;
    let held = &bytes[info.payload_offset32 as usize..];
    Ok(match ty {
        InterfaceType::Option(ty) => Val::Option(match place {
            0 => None,
            _ => loaded(cx, Some(types[ty].ty), held)?,
        }),
        InterfaceType::Result(ty) => Val::Result(match place {
            0 => Ok(loaded(cx, types[ty].ok, held)?),
            _ => Err(loaded(cx, types[ty].err, held)?),
        }),
        InterfaceType::Enum(ty) => match types[ty].names.iter().nth(place) {
            Some(name) => Val::Enum(String::from(&**name)),
            None => return mismatch(),
        },
        InterfaceType::Variant(ty) => match types[ty].cases.get_index(place) {
            Some((name, of)) => Val::Variant(String::from(&**name), loaded(cx, *of, held)?),
            None => return mismatch(),
        },
        _ => return mismatch(),
    })
}

/// Reads what lies one behind the other.
fn parts(
    cx: &mut LiftContext<'_>,
    all: impl Iterator<Item = InterfaceType>,
    bytes: &[u8],
) -> Result<Vec<Val>> {
    let mut offset = 0;
    let values = all.map(|ty| {
        let place = cx.types.canonical_abi(&ty).next_field32_size(&mut offset);
        load(cx, ty, &bytes[place..])
    });
    values.collect()
}

/// Reads a list, of which this says where it lies and how long it is.
fn listed(cx: &mut LiftContext<'_>, ty: InterfaceType, place: u64) -> Result<Vec<Val>> {
    let abi = cx.types.canonical_abi(&ty);
    let (size, align) = (abi.size32 as usize, abi.align32 as usize);
    let (at, count) = (place as u32 as usize, (place >> 32) as usize);
    let memory = cx.memory();
    let all = memory.get(at..).and_then(|all| all.get(..size * count));
    let Some(all) = all.filter(|_| at.is_multiple_of(align)) else {
        return mismatch();
    };
    let values = (0..count).map(|index| load(cx, ty, &all[size * index..]));
    values.collect()
}

fn loaded(
    cx: &mut LiftContext<'_>,
    ty: Option<InterfaceType>,
    bytes: &[u8],
) -> Result<Option<Box<Val>>> {
    ty.map(|ty| Ok(Box::new(load(cx, ty, bytes)?))).transpose()
}
