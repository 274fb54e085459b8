//! Values of any type in streams and futures, whose types are found out when they are moved: there is one piece of
//! Wasmtime's code for all of them.

use alloc::boxed::Box;
use alloc::string::String;
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

/// Writes a value; where it lies was looked at before.
fn store<T>(
    cx: &mut LowerContext<'_, T>,
    ty: InterfaceType,
    offset: usize,
    value: &Val,
) -> Result<()> {
    let types = cx.types;
    let case = |cx: &mut LowerContext<'_, T>, place: usize| {
        // As many cases as a byte tells apart: of what there is, nothing has more.
        *cx.get(offset) = [place as u8];
    };
    match (value, ty) {
        (Val::Bool(value), InterfaceType::Bool) => value.linear_lower_to_memory(cx, ty, offset),
        (Val::U8(value), InterfaceType::U8) => value.linear_lower_to_memory(cx, ty, offset),
        (Val::U16(value), InterfaceType::U16) => value.linear_lower_to_memory(cx, ty, offset),
        (Val::U32(value), InterfaceType::U32) => value.linear_lower_to_memory(cx, ty, offset),
        (Val::U64(value), InterfaceType::U64) => value.linear_lower_to_memory(cx, ty, offset),
        (Val::String(value), InterfaceType::String) => value.linear_lower_to_memory(cx, ty, offset),
        (Val::Resource(value), InterfaceType::Own(_)) => {
            value.linear_lower_to_memory(cx, ty, offset)
        }
        (Val::Record(values), InterfaceType::Record(ty)) => {
            let fields = &types[ty].fields;
            if fields.len() != values.len() {
                return mismatch();
            }
            let mut at = offset;
            for (field, (name, value)) in fields.iter().zip(values) {
                if field.name != *name {
                    return mismatch();
                }
                let place = types.canonical_abi(&field.ty).next_field32_size(&mut at);
                store(cx, field.ty, place, value)?;
            }
            Ok(())
        }
        (Val::Option(value), InterfaceType::Option(ty)) => {
            let ty = &types[ty];
            case(cx, value.is_some().into());
            let place = offset + ty.info.payload_offset32 as usize;
            held(cx, Some(ty.ty), place, value.as_deref())
        }
        (Val::Result(value), InterfaceType::Result(ty)) => {
            let ty = &types[ty];
            case(cx, value.is_err().into());
            let place = offset + ty.info.payload_offset32 as usize;
            match value {
                Ok(value) => held(cx, ty.ok, place, value.as_deref()),
                Err(value) => held(cx, ty.err, place, value.as_deref()),
            }
        }
        (Val::Enum(name), InterfaceType::Enum(ty)) => {
            let place = types[ty].names.get_index_of(name);
            place.map_or_else(mismatch, |place| {
                case(cx, place);
                Ok(())
            })
        }
        (Val::Variant(name, value), InterfaceType::Variant(ty)) => {
            let ty = &types[ty];
            let Some((place, _, of)) = ty.cases.get_full(name) else {
                return mismatch();
            };
            case(cx, place);
            let place = offset + ty.info.payload_offset32 as usize;
            held(cx, *of, place, value.as_deref())
        }
        _ => mismatch(),
    }
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

/// Reads a value that bytes begin with.
fn load(cx: &mut LiftContext<'_>, ty: InterfaceType, bytes: &[u8]) -> Result<Val> {
    let types = cx.types.clone();
    let abi = types.canonical_abi(&ty);
    let Some(bytes) = bytes.get(..abi.size32 as usize) else {
        return mismatch();
    };
    let case = bytes.first().copied().unwrap_or_default();
    match ty {
        InterfaceType::Own(_) => Ok(Val::Resource(ResourceAny::linear_lift_from_memory(
            cx, ty, bytes,
        )?)),
        InterfaceType::Option(ty) => {
            let ty = &types[ty];
            let place = ty.info.payload_offset32 as usize;
            Ok(Val::Option(match case {
                0 => None,
                _ => loaded(cx, Some(ty.ty), &bytes[place..])?,
            }))
        }
        InterfaceType::Result(ty) => {
            let ty = &types[ty];
            let place = ty.info.payload_offset32 as usize;
            Ok(Val::Result(match case {
                0 => Ok(loaded(cx, ty.ok, &bytes[place..])?),
                _ => Err(loaded(cx, ty.err, &bytes[place..])?),
            }))
        }
        InterfaceType::Variant(ty) => {
            let cases = &types[ty].cases;
            let name = cases.get_index(case.into()).map(|(name, _)| name);
            // Nobody asks what an error has besides its name.
            name.map_or_else(mismatch, |name| {
                Ok(Val::Variant(String::from(&**name), None))
            })
        }
        _ => mismatch(),
    }
}

fn loaded(
    cx: &mut LiftContext<'_>,
    ty: Option<InterfaceType>,
    bytes: &[u8],
) -> Result<Option<Box<Val>>> {
    ty.map(|ty| Ok(Box::new(load(cx, ty, bytes)?))).transpose()
}
