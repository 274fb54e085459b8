//! Resources of the host. A handle of a component is Wasmtime's; what it stands for is a number that the host has given, and
//! on the way there it is that.

use alloc::boxed::Box;
use alloc::vec::Vec;

use wasmtime::component::types::Type;
use wasmtime::component::{ResourceDynamic, ResourceType, Val};
use wasmtime::{AsContextMut, Result};

use crate::wasi::value::{Cx, mismatch};

/// Those that a component imports, each with its place as its number.
#[derive(Default)]
pub(crate) struct Resources(Vec<ResourceType>);

impl Resources {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of a resource, if it is one.
    pub(crate) fn number(&self, ty: &ResourceType) -> Option<u32> {
        let place = self.0.iter().position(|own| own == ty);
        place.map(|place| place as u32)
    }

    /// What Wasmtime is to take one for.
    pub(crate) fn add(&mut self, ty: ResourceType) -> ResourceType {
        self.0.push(ty);
        ResourceType::host_dynamic(self.0.len() as u32 - 1)
    }

    /// A value with the host's numbers in place of handles.
    pub(crate) fn lowered(&self, value: &Val, cx: &mut Cx<'_>) -> Result<Val> {
        if let Val::Resource(handle) = value {
            let handle = ResourceDynamic::try_from_resource_any(*handle, cx.as_context_mut())?;
            return Ok(Val::U32(handle.rep()));
        }
        each(value, &mut |_, part| self.lowered(part, cx), None)
    }

    /// A value with handles, that are the component's, in place of the host's numbers.
    pub(crate) fn raised(&self, value: &Val, ty: &Type, cx: &mut Cx<'_>) -> Result<Val> {
        if let (Type::Own(resource), Val::U32(number)) = (ty, value) {
            let Some(resource) = self.number(resource) else {
                return mismatch();
            };
            let handle = ResourceDynamic::new_own(*number, resource);
            return Ok(Val::Resource(
                handle.try_into_resource_any(cx.as_context_mut())?,
            ));
        }
        let part = &mut |ty: Option<&Type>, part: &Val| match ty {
            Some(ty) => self.raised(part, ty, cx),
            None => Ok(part.clone()),
        };
        each(value, part, Some(ty))
    }
}

/// What is done with a part, and its type, if that is known.
type Part<'a> = dyn FnMut(Option<&Type>, &Val) -> Result<Val> + 'a;

/// A value of other parts; one without parts is the same.
fn each(value: &Val, part: &mut Part<'_>, ty: Option<&Type>) -> Result<Val> {
    let mut boxed = |ty: Option<Type>, value: &Option<Box<Val>>| -> Result<Option<Box<Val>>> {
        let value = value.as_deref().map(|value| part(ty.as_ref(), value));
        Ok(value.transpose()?.map(Box::new))
    };
    Ok(match (value, ty) {
        (Val::Option(value), Some(Type::Option(ty))) => Val::Option(boxed(Some(ty.ty()), value)?),
        (Val::Option(value), _) => Val::Option(boxed(None, value)?),
        (Val::Result(value), ty) => {
            let ty = match ty {
                Some(Type::Result(ty)) => (ty.ok(), ty.err()),
                _ => (None, None),
            };
            Val::Result(match value {
                Ok(value) => Ok(boxed(ty.0, value)?),
                Err(value) => Err(boxed(ty.1, value)?),
            })
        }
        (Val::Variant(name, value), ty) => {
            let case = match ty {
                Some(Type::Variant(ty)) => ty.cases().find(|case| case.name == name),
                _ => None,
            };
            Val::Variant(name.clone(), boxed(case.and_then(|case| case.ty), value)?)
        }
        (Val::List(values), ty) => {
            let of = match ty {
                Some(Type::List(ty)) => Some(ty.ty()),
                _ => None,
            };
            let values = values.iter().map(|value| part(of.as_ref(), value));
            Val::List(values.collect::<Result<_>>()?)
        }
        (Val::Tuple(values), ty) => {
            let mut types = match ty {
                Some(Type::Tuple(ty)) => ty.types().collect(),
                _ => Vec::new(),
            }
            .into_iter();
            let values = values
                .iter()
                .map(|value| part(types.next().as_ref(), value));
            Val::Tuple(values.collect::<Result<_>>()?)
        }
        (Val::Record(fields), ty) => {
            let mut types = match ty {
                Some(Type::Record(ty)) => ty.fields().map(|field| field.ty).collect(),
                _ => Vec::new(),
            }
            .into_iter();
            let fields = fields
                .iter()
                .map(|(name, value)| Ok((name.clone(), part(types.next().as_ref(), value)?)));
            Val::Record(fields.collect::<Result<_>>()?)
        }
        _ => value.clone(),
    })
}
