//! What a component, or a core module, wants of its world: what it imports, which grant that needs, and what
//! nobody provides.

use std::fmt::Write;

use anyhow::{Context, Result, bail};
use wasmparser::{CompositeInnerType, ExternalKind, Parser, Payload, ValType, Validator};
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Resolve, TypeDefKind, WorldId, WorldItem};

use crate::compile::{Kind, binary};

/// An interface that the runtime guest provides, and the option of `wakebox run` without which there is nothing behind
/// it.
type Provided = (&'static str, &'static str);

/// Those of WASI 0.2 and 0.3.
const BOTH: [Provided; 18] = [
    ("wasi:cli/environment", "--env NAME=VALUE"),
    ("wasi:cli/exit", ""),
    ("wasi:cli/stderr", ""),
    ("wasi:cli/stdin", ""),
    ("wasi:cli/stdout", ""),
    ("wasi:cli/terminal-input", ""),
    ("wasi:cli/terminal-output", ""),
    ("wasi:cli/terminal-stderr", ""),
    ("wasi:cli/terminal-stdin", ""),
    ("wasi:cli/terminal-stdout", ""),
    ("wasi:clocks/monotonic-clock", ""),
    ("wasi:filesystem/preopens", "--dir HOST:GUEST[:ro]"),
    ("wasi:filesystem/types", "--dir HOST:GUEST[:ro]"),
    ("wasi:http/types", ""),
    ("wasi:random/insecure", ""),
    ("wasi:random/insecure-seed", ""),
    ("wasi:random/random", ""),
    ("wasi:sockets/ip-name-lookup", "--allow-resolve NAME"),
];

/// Those of 0.2 alone.
const OLDER: [Provided; 11] = [
    ("wasi:clocks/wall-clock", ""),
    ("wasi:http/outgoing-handler", "--allow-connect HOST:PORT"),
    ("wasi:io/error", ""),
    ("wasi:io/poll", ""),
    ("wasi:io/streams", ""),
    ("wasi:sockets/instance-network", ""),
    ("wasi:sockets/network", ""),
    (
        "wasi:sockets/tcp",
        "--allow-connect HOST:PORT or --allow-listen ADDR:PORT",
    ),
    ("wasi:sockets/tcp-create-socket", ""),
    (
        "wasi:sockets/udp",
        "--allow-udp HOST:PORT and --allow-udp-bind ADDR:PORT",
    ),
    ("wasi:sockets/udp-create-socket", ""),
];

/// Those of 0.3 alone.
const NEWER: [Provided; 5] = [
    ("wasi:cli/types", ""),
    ("wasi:clocks/system-clock", ""),
    ("wasi:clocks/types", ""),
    ("wasi:http/client", "--allow-connect HOST:PORT"),
    (
        "wasi:sockets/types",
        "--allow-connect HOST:PORT, --allow-listen ADDR:PORT, --allow-udp HOST:PORT with \
         --allow-udp-bind ADDR:PORT",
    ),
];

/// Takes the names from the runtime guest's table.
macro_rules! functions {
    ($($name:ident($($argument:ident: $ty:ty),*);)*) => {
        /// The functions of preview 1 that it provides, besides `proc_exit`.
        const PREVIEW1: &[&str] = &[$(stringify!($name),)*];
    };
}

include!("../../../guest/wasm/src/preview1/table.rs");

/// What is said of one, line by line.
#[derive(Default)]
struct Report {
    imports: String,
    exports: String,
    missing: String,
}

impl Report {
    fn import(&mut self, name: &str, what: &str) -> Result<()> {
        Ok(writeln!(self.imports, "  {name}: {what}")?)
    }

    fn missing(&mut self, what: &str) -> Result<()> {
        Ok(writeln!(self.missing, "  {what}")?)
    }

    fn text(self, what: &str) -> String {
        let or = |text: String, none: &str| {
            if text.is_empty() {
                format!("  {none}\n")
            } else {
                text
            }
        };
        format!(
            "{what}\nexports\n{}imports\n{}missing for `wakebox run`\n{}",
            or(self.exports, "nothing"),
            or(self.imports, "nothing"),
            or(self.missing, "nothing")
        )
    }
}

/// Says, in lines of text, what a component or a core module exports and imports, which grant each import
/// needs, and what is missing.
///
/// # Errors
///
/// If it is neither, or not a valid one.
pub fn inspect(component: &[u8]) -> Result<String> {
    let (kind, bytes) = binary(component)?;
    match kind {
        Kind::Module => module(&bytes).context("the module is not valid"),
        Kind::Component => match decode(&bytes).context("the component is not valid")? {
            DecodedWasm::Component(resolve, world) => of_world(&resolve, world),
            DecodedWasm::WitPackage(..) => {
                bail!("this is a package of interfaces, and no component")
            }
        },
    }
}

fn of_world(resolve: &Resolve, world: WorldId) -> Result<String> {
    let mut report = Report::default();
    let world = &resolve.worlds[world];
    let mut has_run = false;
    for (key, item) in &world.exports {
        let name = resolve.name_world_key(key);
        let runs = name.starts_with("wasi:cli/run@0.")
            || matches!(item, WorldItem::Function(function) if function.name == "run");
        let handlers = ["wasi:http/incoming-handler@0.2.", "wasi:http/handler@0.3."];
        let serves = handlers.iter().any(|handler| name.starts_with(handler));
        let is_function = matches!(item, WorldItem::Function(_));
        let is_called = is_function || !name.starts_with("wasi:");
        has_run |= runs || serves || is_called;
        let what = match (runs, serves, is_called) {
            (true, ..) => ": the program",
            (_, true, _) => ": for `wakebox serve`",
            (.., true) => ": for `wakebox call`",
            _ => "",
        };
        writeln!(report.exports, "  {name}{what}")?;
    }
    if !has_run {
        report.missing("wasi:cli/run@0.2, or a function `run`: there is no program")?;
    }
    for (key, item) in &world.imports {
        let name = resolve.name_world_key(key);
        match item {
            WorldItem::Interface { id, .. } => {
                let of = &resolve.interfaces[*id];
                let drops = of.types.iter().filter_map(|(name, ty)| {
                    let is_own = matches!(resolve.types[*ty].kind, TypeDefKind::Resource);
                    is_own.then(|| format!("[resource-drop]{name}"))
                });
                let functions: Vec<_> = of.functions.keys().cloned().chain(drops).collect();
                interface(&mut report, &name, &functions)?;
            }
            WorldItem::Function(function) => host_functions(&mut report, &name, &[&function.name])?,
            WorldItem::Type { .. } => {}
        }
    }
    Ok(report.text("component"))
}

fn interface(report: &mut Report, name: &str, functions: &[String]) -> Result<()> {
    let (base, version) = name.split_once('@').unwrap_or((name, ""));
    let (both, alone): (&[Provided], &[Provided]) = match version.get(..4) {
        Some("0.2.") => (&BOTH, &OLDER),
        Some("0.3.") => (&BOTH, &NEWER),
        _ => (&[], &[]),
    };
    match both
        .iter()
        .chain(alone)
        .find(|(interface, _)| *interface == base)
    {
        Some((_, "")) => report.import(name, "provided"),
        Some((_, grant)) => {
            report.import(name, &format!("provided; what is there, {grant} grants"))
        }
        // Types alone are nobody's to provide.
        _ if functions.is_empty() => report.import(name, "types alone"),
        _ if base.starts_with("wasi:") => {
            report.import(name, "not provided: whoever calls it is ended")?;
            report.missing(name)
        }
        _ => {
            let functions: Vec<String> = functions
                .iter()
                .map(|function| format!("{base}.{function}"))
                .collect();
            let functions: Vec<&str> = functions.iter().map(String::as_str).collect();
            host_functions(report, name, &functions)
        }
    }
}

/// Functions that the embedding program gives.
fn host_functions(report: &mut Report, name: &str, functions: &[&str]) -> Result<()> {
    let list = functions.join("`, `");
    report.import(
        name,
        &format!("host functions `{list}` (`Builder::host_fn`)"),
    )?;
    functions
        .iter()
        .try_for_each(|function| report.missing(&format!("{function}, a host function")))
}

/// Whether a function's values are numbers, so that they can come from elsewhere and go there.
fn has_numbers(types: &wasmparser::types::Types, function: u32) -> bool {
    let ty = &types[types.as_ref().core_function_at(function)]
        .composite_type
        .inner;
    let CompositeInnerType::Func(ty) = ty else {
        return false;
    };
    let mut values = ty.params().iter().chain(ty.results());
    values.all(|ty| {
        matches!(
            ty,
            ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64
        )
    })
}

fn module(bytes: &[u8]) -> Result<String> {
    let mut report = Report::default();
    let types = Validator::new().validate_all(bytes)?;
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    imports.push(import?);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    exports.push(export?);
                }
            }
            _ => {}
        }
    }
    let mut files = false;
    for import in imports {
        let name = format!("{}#{}", import.module, import.name);
        let is_provided = import.module == "wasi_snapshot_preview1"
            && (import.name == "proc_exit" || PREVIEW1.contains(&import.name));
        files |= is_provided && import.name.starts_with("path_");
        if is_provided {
            report.import(&name, "provided")?;
        } else {
            report.import(&name, "not provided")?;
            report.missing(&name)?;
        }
    }
    if files {
        report.imports += "  files: what is there, --dir HOST:GUEST[:ro] grants\n";
    }
    let is_function = |export: &wasmparser::Export<'_>| export.kind == ExternalKind::Func;
    let is_program = exports
        .iter()
        .any(|export| is_function(export) && export.name == "_start");
    let mut is_called = false;
    for export in exports {
        let is_function = is_function(&export);
        let what = match export.name {
            "_start" if is_function => ": the program",
            "_initialize" if is_function && !is_program => ": called before all else",
            _ if is_function && !is_program && has_numbers(&types, export.index) => {
                is_called = true;
                ": for `wakebox call`"
            }
            _ => "",
        };
        writeln!(report.exports, "  {}{what}", export.name)?;
    }
    if !is_program && !is_called {
        report.missing(
            "_start, or a function of numbers: there is no program, and nothing to call",
        )?;
    }
    Ok(report.text("core module, WASI preview 1"))
}
