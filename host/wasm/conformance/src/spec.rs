//! The specification's tests.

use std::collections::HashMap;

use wakebox_wasm::Bounds;
use wasmparser::{Validator, WasmFeatures};
use wast::core::{NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wast::parser::{ParseBuffer, parse};
use wast::token::{F32, F64, Id};
use wast::{QuoteWat, Wast, WastArg, WastDirective, WastExecute, WastInvoke, WastRet, Wat};

use crate::Guest;
use crate::words::{Command, Value};

/// Memory of a guest that runs a script, in bytes: a test grows one to half of all that there can be.
const MEMORY: u64 = 512 << 20;

/// What the tests import.
const SPECTEST: &str = r#"(module
    (func (export "print"))
    (func (export "print_i32") (param i32))
    (func (export "print_i64") (param i64))
    (func (export "print_f32") (param f32))
    (func (export "print_f64") (param f64))
    (func (export "print_i32_f32") (param i32 f32))
    (func (export "print_f64_f64") (param f64 f64))
    (global (export "global_i32") i32 (i32.const 666))
    (global (export "global_i64") i64 (i64.const 666))
    (global (export "global_f32") f32 (f32.const 666.6))
    (global (export "global_f64") f64 (f64.const 666.6))
    (table (export "table") 10 20 funcref)
    (memory (export "memory") 1 2))"#;

/// What a script came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Assertions that held.
    pub held: usize,
    /// What did not, each with its line.
    pub failed: Vec<String>,
    /// Of which tests are about what the runtime has not.
    pub left_out: usize,
}

/// A directive, with the number of the module that it brings.
struct Step<'a> {
    line: usize,
    directive: WastDirective<'a>,
    module: Option<u32>,
}

struct Runner<'a> {
    guest: Guest,
    /// How many instances there are.
    count: u32,
    current: Option<u32>,
    names: HashMap<&'a str, u32>,
    /// Whether a module was left out, of which another may import.
    has_gaps: bool,
}

/// Modules of a library, so that there is room for one more: a component has at most 256.
const MODULES: usize = 200;

/// A part of a script that is run in a guest of its own.
struct Part<'a> {
    modules: Vec<Vec<u8>>,
    steps: Vec<Step<'a>>,
}

impl Part<'_> {
    fn new() -> Result<Self, String> {
        Ok(Self {
            modules: vec![encoded_text(SPECTEST)?],
            steps: Vec::new(),
        })
    }

    /// Takes a module up, if it can be part of a component of the runtime's.
    fn add(&mut self, module: Vec<u8>) -> Option<u32> {
        let features = WasmFeatures::default() - WasmFeatures::GC_TYPES;
        let mut validator = Validator::new_with_features(features);
        validator
            .validate_all(&crate::library(core::slice::from_ref(&module)))
            .ok()?;
        self.modules.push(module);
        Some(self.modules.len() as u32 - 1)
    }
}

/// Runs a script: in one guest, or in several, if it has very many modules. `newer` are lines whose modules are
/// none in the script's version of the specification, and are in later ones.
///
/// # Errors
///
/// If the script cannot be read, or a module of it not be compiled.
pub async fn run(text: &str, newer: &[usize], bounds: Bounds) -> Result<Report, String> {
    let mut lexer = wast::lexer::Lexer::new(text);
    lexer.allow_confusing_unicode(true);
    let buffer = ParseBuffer::new_with_lexer(lexer).map_err(|error| error.to_string())?;
    let script: Wast<'_> = parse(&buffer).map_err(|error| error.to_string())?;
    let mut report = Report::default();
    let mut parts = vec![Part::new()?];
    for mut directive in script.directives {
        let line = directive.span().linecol_in(text).0 + 1;
        let module = match &mut directive {
            WastDirective::AssertMalformed { module, .. }
            | WastDirective::AssertInvalid { module, .. } => {
                match newer.contains(&line) {
                    true => report.left_out += 1,
                    false => refused(module, line, &mut report),
                }
                continue;
            }
            WastDirective::Module(module) => Some(quoted(module)?),
            WastDirective::AssertUnlinkable { module, .. } => Some(plain(module)?),
            WastDirective::AssertTrap {
                exec: WastExecute::Wat(module),
                ..
            } => Some(plain(module)?),
            _ => None,
        };
        let is_full = parts.last().is_none_or(|part| part.modules.len() > MODULES);
        if is_full && matches!(directive, WastDirective::Module(_)) {
            parts.push(Part::new()?);
        }
        let part = parts.last_mut().ok_or("there is a part")?;
        let module = module.and_then(|bytes| part.add(bytes));
        part.steps.push(Step {
            line,
            directive,
            module,
        });
    }
    for part in parts {
        run_part(part, bounds, &mut report).await?;
    }
    Ok(report)
}

async fn run_part(
    Part { modules, steps }: Part<'_>,
    bounds: Bounds,
    report: &mut Report,
) -> Result<(), String> {
    let mut guest = Guest::start(&modules, MEMORY, bounds).await?;
    guest.ask(Command::Instantiate(0)).await?;
    guest.ask(Command::Register(0, "spectest".into())).await?;
    let mut runner = Runner {
        guest,
        count: 1,
        current: None,
        names: HashMap::new(),
        has_gaps: false,
    };
    for step in steps {
        match runner.step(&step).await {
            Ok(held) => report.held += usize::from(held),
            Err(why) if why.starts_with(LEFT_OUT) => report.left_out += 1,
            Err(why) => report.failed.push(format!("line {}: {why}", step.line)),
        }
    }
    runner.guest.end().await;
    Ok(())
}

const LEFT_OUT: &str = "left out";

/// What is no module is none for the compiler of guests, either.
fn refused(module: &mut QuoteWat<'_>, line: usize, report: &mut Report) {
    let bytes = match module.encode() {
        Ok(bytes) => bytes,
        // Not even text of one.
        Err(_) => {
            report.held += 1;
            return;
        }
    };
    match wakebox_wasm::compile(&bytes) {
        Ok(_) => report.failed.push(format!("line {line}: it was compiled")),
        Err(_) => report.held += 1,
    }
}

pub(crate) fn encoded_text(text: &str) -> Result<Vec<u8>, String> {
    let buffer = ParseBuffer::new(text).map_err(|error| error.to_string())?;
    let mut module: Wat<'_> = parse(&buffer).map_err(|error| error.to_string())?;
    plain(&mut module)
}

fn quoted(module: &mut QuoteWat<'_>) -> Result<Vec<u8>, String> {
    module.encode().map_err(|error| error.to_string())
}

fn plain(module: &mut Wat<'_>) -> Result<Vec<u8>, String> {
    module.encode().map_err(|error| error.to_string())
}

impl<'a> Runner<'a> {
    /// Whether it is an assertion that holds.
    async fn step(&mut self, step: &Step<'a>) -> Result<bool, String> {
        match &step.directive {
            WastDirective::Module(module) => {
                let name = match module {
                    QuoteWat::Wat(Wat::Module(module)) => module.id,
                    _ => None,
                };
                self.instantiate(step.module, name).await?;
                Ok(false)
            }
            WastDirective::Register { name, module, .. } => {
                let instance = self.instance(*module)?;
                let register = Command::Register(instance, (*name).into());
                self.guest.ask(register).await?;
                Ok(false)
            }
            WastDirective::Invoke(invoke) => {
                self.invoke(invoke).await?;
                Ok(false)
            }
            WastDirective::AssertReturn { exec, results, .. } => {
                let given = self.execute(exec).await?;
                let fits = given.len() == results.len()
                    && given
                        .iter()
                        .zip(results)
                        .all(|(given, expected)| match expected {
                            WastRet::Core(expected) => matches(*given, expected),
                            _ => false,
                        });
                match fits {
                    true => Ok(true),
                    false => Err(format!("{given:x?}, expected {results:x?}")),
                }
            }
            WastDirective::AssertTrap {
                exec: WastExecute::Wat(_),
                message,
                ..
            }
            | WastDirective::AssertUnlinkable { message, .. } => {
                let made = self.instantiate(step.module, None).await;
                fails(made, message)
            }
            WastDirective::AssertTrap { exec, message, .. } => {
                fails(self.execute(exec).await, message)
            }
            WastDirective::AssertExhaustion { call, message, .. } => {
                fails(self.invoke(call).await, message)
            }
            other => Err(format!("{LEFT_OUT}: {other:?}")),
        }
    }

    async fn instantiate(
        &mut self,
        module: Option<u32>,
        name: Option<Id<'a>>,
    ) -> Result<(), String> {
        if let Some(name) = name {
            self.names.remove(name.name());
        }
        self.current = None;
        let Some(module) = module else {
            self.has_gaps = true;
            return Err(format!("{LEFT_OUT}: not one of a component's"));
        };
        let made = self.guest.ask(Command::Instantiate(module)).await;
        match made {
            Err(why) if self.has_gaps && why.contains("unknown import") => {
                return Err(format!("{LEFT_OUT}: {why}"));
            }
            made => made?,
        };
        let instance = self.count;
        self.count += 1;
        self.current = Some(instance);
        if let Some(name) = name {
            self.names.insert(name.name(), instance);
        }
        Ok(())
    }

    fn instance(&self, module: Option<Id<'_>>) -> Result<u32, String> {
        let found = match module {
            Some(name) => self.names.get(name.name()).copied(),
            None => self.current,
        };
        found.ok_or_else(|| format!("{LEFT_OUT}: its module is"))
    }

    async fn execute(&mut self, execute: &WastExecute<'_>) -> Result<Vec<Value>, String> {
        match execute {
            WastExecute::Invoke(invoke) => self.invoke(invoke).await,
            WastExecute::Get { module, global, .. } => {
                let instance = self.instance(*module)?;
                self.guest
                    .ask(Command::Get(instance, (*global).into()))
                    .await
            }
            WastExecute::Wat(_) => Err("a module is not executed".into()),
        }
    }

    async fn invoke(&mut self, invoke: &WastInvoke<'_>) -> Result<Vec<Value>, String> {
        let instance = self.instance(invoke.module)?;
        let arguments: Option<Vec<_>> = invoke.args.iter().map(argument).collect();
        let arguments = arguments.ok_or(format!("{LEFT_OUT}: {:?}", invoke.args))?;
        let command = Command::Invoke(instance, invoke.name.into(), arguments);
        self.guest.ask(command).await
    }
}

/// Expects an error that says this.
fn fails<T: std::fmt::Debug>(outcome: Result<T, String>, message: &str) -> Result<bool, String> {
    // What follows is the number of an element.
    let message = match message.starts_with("uninitialized element") {
        true => "uninitialized element",
        false => message,
    };
    match outcome {
        Err(why) if why.starts_with(LEFT_OUT) => Err(why),
        Err(why) if why.contains(message) => Ok(true),
        other => Err(format!(
            "{other:?}, expected an error that says {message:?}"
        )),
    }
}

fn argument(argument: &WastArg<'_>) -> Option<Value> {
    let WastArg::Core(argument) = argument else {
        return None;
    };
    Some(match argument {
        WastArgCore::I32(value) => Value::I32(value.cast_unsigned()),
        WastArgCore::I64(value) => Value::I64(value.cast_unsigned()),
        WastArgCore::F32(value) => Value::F32(value.bits),
        WastArgCore::F64(value) => Value::F64(value.bits),
        WastArgCore::V128(value) => halves(value.to_le_bytes()),
        WastArgCore::RefNull(_) => Value::NullFunc,
        _ => return None,
    })
}

fn halves(bytes: [u8; 16]) -> Value {
    let value = u128::from_le_bytes(bytes);
    Value::V128(value as u64, (value >> 64) as u64)
}

fn matches(given: Value, expected: &WastRetCore<'_>) -> bool {
    match (given, expected) {
        (Value::I32(given), WastRetCore::I32(expected)) => given == expected.cast_unsigned(),
        (Value::I64(given), WastRetCore::I64(expected)) => given == expected.cast_unsigned(),
        (Value::F32(given), WastRetCore::F32(expected)) => is_f32(given, expected),
        (Value::F64(given), WastRetCore::F64(expected)) => is_f64(given, expected),
        (Value::V128(low, high), WastRetCore::V128(expected)) => {
            let given = u128::from(high) << 64 | u128::from(low);
            is_v128(given.to_le_bytes(), expected)
        }
        (Value::NullFunc, WastRetCore::RefNull(_)) => true,
        (Value::Func, WastRetCore::RefFunc(_)) => true,
        (given, WastRetCore::Either(all)) => all.iter().any(|expected| matches(given, expected)),
        _ => false,
    }
}

fn is_f32(given: u32, expected: &NanPattern<F32>) -> bool {
    match expected {
        NanPattern::Value(value) => given == value.bits,
        NanPattern::CanonicalNan => given & 0x7fff_ffff == 0x7fc0_0000,
        NanPattern::ArithmeticNan => given & 0x7fc0_0000 == 0x7fc0_0000,
    }
}

fn is_f64(given: u64, expected: &NanPattern<F64>) -> bool {
    match expected {
        NanPattern::Value(value) => given == value.bits,
        NanPattern::CanonicalNan => given & !(1 << 63) == 0x7ff8 << 48,
        NanPattern::ArithmeticNan => given & 0x7ff8 << 48 == 0x7ff8 << 48,
    }
}

fn is_v128(given: [u8; 16], expected: &V128Pattern) -> bool {
    let (words, _) = given.as_chunks::<4>();
    let (doubles, _) = given.as_chunks::<8>();
    match expected {
        V128Pattern::I8x16(lanes) => lanes.map(i8::cast_unsigned) == given,
        V128Pattern::I16x8(lanes) => lanes.map(i16::to_le_bytes).as_flattened() == given,
        V128Pattern::I32x4(lanes) => lanes.map(i32::to_le_bytes).as_flattened() == given,
        V128Pattern::I64x2(lanes) => lanes.map(i64::to_le_bytes).as_flattened() == given,
        V128Pattern::F32x4(lanes) => {
            let mut lanes = lanes.iter().zip(words);
            lanes.all(|(lane, word)| is_f32(u32::from_le_bytes(*word), lane))
        }
        V128Pattern::F64x2(lanes) => {
            let mut lanes = lanes.iter().zip(doubles);
            lanes.all(|(lane, word)| is_f64(u64::from_le_bytes(*word), lane))
        }
    }
}
