//! Generated modules, in a guest and beside it.

use arbitrary::Unstructured;
use wakebox_wasm::Bounds;
use wasm_smith::{Config, Module as Smith};
use wasmtime::{Config as Settings, Engine, Instance, Module, Store, Val};

use crate::Guest;
use crate::words::{Command, Value, digest};

/// Memory of a guest, in bytes: more than a generated module may have.
const MEMORY: u64 = 64 << 20;

/// How often what a module runs may go round.
const FUEL: u32 = 1000;

/// What a module did: its start, then each function that it exports, and what was left.
type Told = Vec<Result<Vec<Value>, String>>;

/// The trap's sentence, without where it was; of what is no trap, all.
fn trap(text: &str) -> String {
    match text.find("wasm trap: ") {
        Some(at) => text[at..].lines().next().unwrap_or_default().into(),
        None => text.into(),
    }
}

/// A module of these bytes, if they suffice for one: it ends, and has NaNs of one form.
fn generated(bytes: &[u8]) -> Option<Vec<u8>> {
    let config = Config {
        max_imports: 0,
        export_everything: true,
        canonicalize_nans: true,
        max_memories: 1,
        max_memory32_bytes: 16 << 16,
        memory_max_size_required: true,
        max_table_elements: 1000,
        table_max_size_required: true,
        min_funcs: 6,
        allow_start_export: true,
        bulk_memory_enabled: true,
        reference_types_enabled: false,
        simd_enabled: true,
        multi_value_enabled: true,
        tail_call_enabled: true,
        gc_enabled: false,
        threads_enabled: false,
        exceptions_enabled: false,
        memory64_enabled: false,
        relaxed_simd_enabled: false,
        custom_page_sizes_enabled: false,
        wide_arithmetic_enabled: false,
        ..Config::default()
    };
    let mut module = Smith::new(config, &mut Unstructured::new(bytes)).ok()?;
    module.ensure_termination(FUEL).ok()?;
    Some(module.to_bytes())
}

/// The functions that a module exports, each with arguments.
fn calls(module: &Module) -> Vec<(String, Vec<Value>)> {
    let functions = module.exports().filter_map(|export| {
        let ty = export.ty();
        let arguments = ty.func()?.params().map(|ty| match ty {
            wasmtime::ValType::I32 => Value::I32(7),
            wasmtime::ValType::I64 => Value::I64(1 << 40),
            wasmtime::ValType::F32 => Value::F32(1.5_f32.to_bits()),
            wasmtime::ValType::F64 => Value::F64((-2.25_f64).to_bits()),
            wasmtime::ValType::V128 => Value::V128(0x0102_0304, 5),
            wasmtime::ValType::Ref(_) => Value::NullFunc,
        });
        Some((export.name().to_owned(), arguments.collect()))
    });
    functions.collect()
}

fn on_the_host(engine: &Engine, module: &Module, calls: &[(String, Vec<Value>)]) -> Told {
    let mut store = Store::new(engine, ());
    let failed = |error: wasmtime::Error| trap(&format!("{error:?}"));
    let instance = match Instance::new(&mut store, module, &[]) {
        Ok(instance) => instance,
        Err(error) => return vec![Err(failed(error))],
    };
    let mut told = vec![Ok(Vec::new())];
    for (name, arguments) in calls {
        let func = instance.get_func(&mut store, name).expect("it is exported");
        let arguments: Vec<_> = arguments
            .iter()
            .filter_map(|value| value.to_val())
            .collect();
        let mut results = vec![Val::FuncRef(None); func.ty(&store).results().len()];
        let outcome = func.call(&mut store, &arguments, &mut results);
        told.push(match outcome {
            Ok(()) => Ok(results.iter().map(Value::of).collect()),
            Err(error) => Err(failed(error)),
        });
    }
    told.push(Ok(vec![Value::I64(digest(&instance, &mut store))]));
    told
}

async fn in_a_guest(bytes: Vec<u8>, bounds: Bounds, calls: &[(String, Vec<Value>)]) -> Told {
    let mut guest = Guest::start(&[bytes], MEMORY, bounds)
        .await
        .expect("it was compiled before");
    let mut told = Vec::new();
    let made = guest.ask(Command::Instantiate(0)).await;
    let is_made = made.is_ok();
    told.push(made.map_err(|why| trap(&why)));
    if is_made {
        for (name, arguments) in calls {
            let call = Command::Invoke(0, name.clone(), arguments.clone());
            told.push(guest.ask(call).await.map_err(|why| trap(&why)));
        }
        told.push(guest.ask(Command::Digest(0)).await);
    }
    guest.end().await;
    told
}

/// Runs a module made of these bytes on both sides. Gives how many calls there were, and how many of them trapped;
/// `None` if the bytes make no module.
///
/// # Panics
///
/// If the two differ.
pub async fn both(bytes: &[u8], bounds: Bounds) -> Option<(usize, usize)> {
    let module = generated(bytes)?;
    let mut settings = Settings::new();
    // As in a guest: a stack as large, and no signals.
    settings.max_wasm_stack(256 << 10);
    settings.signals_based_traps(false);
    let engine = Engine::new(&settings).expect("a compiler of this machine's");
    let compiled = Module::new(&engine, &module).ok()?;
    let calls = calls(&compiled);
    let expected = on_the_host(&engine, &compiled, &calls);
    let seen = in_a_guest(module, bounds, &calls).await;
    assert_eq!(seen, expected, "calls of {calls:?}");
    let traps = expected.iter().filter(|told| told.is_err()).count();
    Some((calls.len(), traps))
}

/// Bytes to make a module of, the same for the same seed.
pub fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..16 << 10).map(|_| next()).collect()
}
