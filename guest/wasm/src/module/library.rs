//! Functions of a core module that are called from outside. Their numbers are those of components that have the same
//! bits: `i32` is `s32`.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Display};

use wasmtime::component::Val;
use wasmtime::component::types::Type;
use wasmtime::{ExternType, Func, FuncType, Instance, Module, Store, ValType};

use super::INITIALIZE;
use crate::called::{self, Called, Callee, Export, Running};
use crate::platform::OneThread;
use crate::preview1::State;

/// The functions whose values are numbers.
pub(super) fn functions(module: &Module) -> Vec<(String, FuncType)> {
    let functions = module.exports().filter_map(|export| match export.ty() {
        ExternType::Func(ty) if export.name() != INITIALIZE => Some((export.name().into(), ty)),
        _ => None,
    });
    functions
        .filter(|(_, ty)| {
            ty.params()
                .chain(ty.results())
                .all(|ty| number(&ty).is_some())
        })
        .collect()
}

/// The type of a component that is the same number.
fn number(ty: &ValType) -> Option<Type> {
    Some(match ty {
        ValType::I32 => Type::S32,
        ValType::I64 => Type::S64,
        ValType::F32 => Type::Float32,
        ValType::F64 => Type::Float64,
        _ => return None,
    })
}

fn to_core(value: &Val) -> wasmtime::Val {
    match value {
        Val::S64(value) => wasmtime::Val::I64(*value),
        Val::Float32(value) => wasmtime::Val::F32(value.to_bits()),
        Val::Float64(value) => wasmtime::Val::F64(value.to_bits()),
        Val::S32(value) => wasmtime::Val::I32(*value),
        // There is no other: the arguments were read as numbers.
        _ => wasmtime::Val::I32(0),
    }
}

fn of_core(value: &wasmtime::Val) -> Val {
    match value {
        wasmtime::Val::I64(value) => Val::S64(*value),
        wasmtime::Val::F32(bits) => Val::Float32(f32::from_bits(*bits)),
        wasmtime::Val::F64(bits) => Val::Float64(f64::from_bits(*bits)),
        other => Val::S32(other.i32().unwrap_or_default()),
    }
}

/// Answers calls, until no more will come.
pub(super) async fn serve(
    functions: Vec<(String, FuncType)>,
    mut store: Store<State>,
    instance: &Instance,
) {
    let found = functions.into_iter().filter_map(|(name, ty)| {
        let func = instance.get_func(&mut store, &name)?;
        Some((name, func, ty))
    });
    let found: Vec<_> = found.collect();
    let running = Running::new(store);
    let exports = found.into_iter().map(|(name, func, ty)| {
        // A module has no names for them.
        let parameters = ty.params().enumerate();
        let parameters =
            parameters.filter_map(|(index, ty)| Some((format!("{index}"), number(&ty)?)));
        Export {
            name,
            parameters: parameters.collect(),
            results: ty.results().filter_map(|ty| number(&ty)).collect(),
            callee: Box::new(Core {
                func,
                words: Words(ty),
                running: running.clone(),
            }),
        }
    });
    called::serve(exports.collect()).await;
}

struct Core {
    func: Func,
    words: Words,
    running: Rc<Running<State>>,
}

impl Callee for Core {
    fn call(&self, arguments: Vec<Val>) -> Called {
        let (running, func) = (self.running.clone(), self.func);
        let count = self.words.0.results().len();
        Box::pin(async move {
            let arguments: Vec<_> = arguments.iter().map(to_core).collect();
            let mut results = alloc::vec![wasmtime::Val::I32(0); count];
            running
                .with(async |store: &mut Store<State>| {
                    OneThread(func.call_async(store, &arguments, &mut results)).await
                })
                .await?;
            Ok(results.iter().map(of_core).collect())
        })
    }

    fn types(&self) -> &dyn Display {
        &self.words
    }
}

/// The types of a function, in words.
struct Words(FuncType);

impl Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        list(f, self.0.params())?;
        f.write_str(")")?;
        match self.0.results().len() {
            0 => return Ok(()),
            1 => f.write_str(" -> ")?,
            _ => f.write_str(" -> (")?,
        }
        list(f, self.0.results())?;
        f.write_str(if self.0.results().len() > 1 { ")" } else { "" })
    }
}

fn list(f: &mut fmt::Formatter<'_>, types: impl Iterator<Item = ValType>) -> fmt::Result {
    for (index, ty) in types.enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(f, "{separator}{ty}")?;
    }
    Ok(())
}
