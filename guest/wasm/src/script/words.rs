//! What tests ask of a guest that runs scripts, and what it answers. The tests compile this very file.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use wasmtime::{AsContextMut, Extern, Instance, Val};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(dead_code, reason = "one side makes them, the other reads them")]
pub(crate) enum Command {
    /// Makes an instance of the module with this number; it has the next number that no instance has.
    Instantiate(u32),
    /// Modules that are instantiated from now on find an instance's exports under a name.
    Register(u32, String),
    Invoke(u32, String, Vec<Value>),
    /// The value of a global.
    Get(u32, String),
    /// A number for all that an instance exports of memories, globals and tables.
    Digest(u32),
    End,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(dead_code, reason = "one side makes them, the other reads them")]
pub(crate) enum Answer {
    /// Nothing was asked yet.
    Ready,
    Done(Vec<Value>),
    Failed(String),
}

/// A value: a number by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Value {
    I32(u32),
    I64(u64),
    F32(u32),
    F64(u64),
    /// The lower half first.
    V128(u64, u64),
    NullFunc,
    Func,
    Other,
}

impl Value {
    pub(crate) fn of(value: &Val) -> Self {
        match value {
            Val::I32(value) => Self::I32(value.cast_unsigned()),
            Val::I64(value) => Self::I64(value.cast_unsigned()),
            Val::F32(bits) => Self::F32(*bits),
            Val::F64(bits) => Self::F64(*bits),
            Val::V128(value) => {
                let value = value.as_u128();
                Self::V128(value as u64, (value >> 64) as u64)
            }
            Val::FuncRef(None) => Self::NullFunc,
            Val::FuncRef(Some(_)) => Self::Func,
            _ => Self::Other,
        }
    }

    /// The value, if it can come from elsewhere.
    pub(crate) fn to_val(self) -> Option<Val> {
        Some(match self {
            Self::I32(value) => Val::I32(value.cast_signed()),
            Self::I64(value) => Val::I64(value.cast_signed()),
            Self::F32(bits) => Val::F32(bits),
            Self::F64(bits) => Val::F64(bits),
            Self::V128(low, high) => Val::V128((u128::from(high) << 64 | u128::from(low)).into()),
            Self::NullFunc => Val::FuncRef(None),
            Self::Func | Self::Other => return None,
        })
    }
}

/// See [`Command::Digest`].
pub(crate) fn digest(instance: &Instance, mut store: impl AsContextMut) -> u64 {
    // FNV-1a.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    let exports: Vec<Extern> = instance
        .exports(&mut store)
        .map(|export| export.into_extern())
        .collect();
    for export in exports {
        match export {
            Extern::Memory(memory) => add(memory.data(&store)),
            Extern::Table(table) => add(&table.size(&store).to_le_bytes()),
            Extern::Global(global) => {
                let value = Value::of(&global.get(&mut store));
                add(alloc::format!("{value:?}").as_bytes());
            }
            _ => {}
        }
    }
    hash
}
