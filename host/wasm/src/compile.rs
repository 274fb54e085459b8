//! From a component, or a core module, to machine code, with the settings of the runtime guest.

use anyhow::{Context, Result, bail, ensure};
use wasmtime::{Config, Engine};

use crate::head::GUARD;

/// What the code may use of a processor: the runtime guest checks that it is there.
const FEATURES: [&str; 6] = [
    "has_sse3",
    "has_ssse3",
    "has_cmpxchg16b",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
];

/// Wasmtime's error, with all that it has to say.
fn own(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

/// How the code of a component sees to it that nothing behind a memory is touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Bounds {
    /// It compares each address.
    Code,
    /// It relies on pages that are not there, and goes on with the fault: smaller code, and mostly faster.
    #[default]
    Pages,
}

pub(crate) fn engine(bounds: Bounds) -> Result<Engine> {
    let mut config = Config::new();
    // Named, so that it is not the processor of whoever compiles that decides.
    config.target("x86_64-unknown-linux-gnu").map_err(own)?;
    for feature in FEATURES {
        // SAFETY: each is what its name says, and what the code is for has them.
        unsafe { config.cranelift_flag_enable(feature) };
    }
    config.wasm_component_model_async(true);
    config.concurrency_support(true);
    let (reservation, guard) = match bounds {
        Bounds::Code => (0, 0),
        Bounds::Pages => (wakebox_abi::window::LEN, GUARD),
    };
    config.signals_based_traps(bounds == Bounds::Pages);
    config.memory_reservation(reservation);
    config.memory_guard_size(guard);
    // What the runtime has not: memory that is copied when it is written, unwinding.
    config.memory_init_cow(false);
    config.native_unwind_info(false);
    config.gc_support(false);
    Engine::new(&config).map_err(own)
}

/// What is compiled.
pub(crate) enum Kind {
    Component,
    Module,
}

/// A component or a module in binary, which may have been given as text.
pub(crate) fn binary(component: &[u8]) -> Result<(Kind, std::borrow::Cow<'_, [u8]>)> {
    let bytes =
        wat::parse_bytes(component).context("this is neither WebAssembly nor its text format")?;
    let Some(header) = bytes.first_chunk::<8>() else {
        bail!("this is shorter than the header of WebAssembly");
    };
    ensure!(header.starts_with(b"\0asm"), "this is not WebAssembly");
    match header[4..] {
        [0x0d, 0, 1, 0] => Ok((Kind::Component, bytes)),
        [1, 0, 0, 0] => Ok((Kind::Module, bytes)),
        [a, b, c, d] => bail!(
            "this is WebAssembly of version {:#x}, layer {:#x}, which is not known",
            u16::from_le_bytes([a, b]),
            u16::from_le_bytes([c, d])
        ),
        _ => bail!("this is not WebAssembly"),
    }
}

/// Core modules of a component at most: Wasmtime 48 tells their tables and memories apart by so many numbers, and
/// takes those of others for the same.
const MODULES: usize = 256;

/// How many core modules a component has, with those of components in it, as far as it can be read.
fn modules(component: &[u8]) -> usize {
    let payloads = wasmparser::Parser::new(0).parse_all(component);
    let payloads = payloads.map_while(Result::ok);
    payloads
        .filter(|payload| matches!(payload, wasmparser::Payload::ModuleSection { .. }))
        .count()
}

/// Compiles a component or a core module, given in binary or as text, for the runtime guest.
///
/// # Errors
///
/// If it is neither, or not a valid one.
pub fn compile(component: &[u8]) -> Result<Vec<u8>> {
    compile_with(component, Bounds::default())
}

/// The same, with code that sees to bounds so.
///
/// # Errors
///
/// As [`compile`].
pub fn compile_with(component: &[u8], bounds: Bounds) -> Result<Vec<u8>> {
    let (kind, bytes) = binary(component)?;
    let engine = engine(bounds)?;
    match kind {
        Kind::Component => {
            let modules = modules(&bytes);
            ensure!(
                modules <= MODULES,
                "the component has {modules} core modules, and the compiler takes {MODULES} at most"
            );
            let code = engine.precompile_component(&bytes);
            code.map_err(own).context("the component is not valid")
        }
        Kind::Module => {
            let code = engine.precompile_module(&bytes);
            code.map_err(own).context("the module is not valid")
        }
    }
}
