//! The command `wakebox-wasm`: compiles a component in a process of its own, once.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, setrlimit};
use wakebox_wasm::{Bounds, Cache, read_component};

/// WebAssembly components as guests of Wakebox
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Make a guest of a component or a core module, which `wakebox run` runs
    Compile {
        /// The component or module, in binary or as text (`.wat`)
        component: PathBuf,
        /// Where the guest goes; `-` is standard output
        #[arg(short, long)]
        output: PathBuf,
        /// Seconds of processor time that compiling may take
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// MiB of memory that compiling may take
        #[arg(long, default_value_t = 4096)]
        memory: u64,
        /// How the code sees to it that nothing behind a memory is touched: by comparing each address, or by pages that are
        /// not there
        #[arg(long, value_enum, default_value_t)]
        bounds: Bounds,
    },
    /// Say what a component or a core module imports and exports, which grants it needs, and what is missing
    Inspect {
        /// The component or module, in binary or as text (`.wat`)
        component: PathBuf,
    },
    /// Make a component of a core module and its WIT
    Component {
        /// The module, in binary or as text (`.wat`)
        module: PathBuf,
        /// Its WIT, a file or a folder; generated bindings put it into the module
        #[arg(long)]
        wit: Option<PathBuf>,
        /// The world, if there are several
        #[arg(long, requires = "wit")]
        world: Option<String>,
        /// Where the component goes; `-` is standard output
        #[arg(short, long)]
        output: PathBuf,
    },
    /// The compiled code that is kept, so that a component is compiled once
    #[command(subcommand)]
    Cache(CacheCommand),
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Say where it lies
    Path,
    /// Remove it
    Clear,
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Compile {
            component,
            output,
            seconds,
            memory,
            bounds,
        } => {
            limit_time(seconds)?;
            limit(Resource::As, memory.saturating_mul(1 << 20))?;
            compile(&component, &output, bounds)
        }
        Command::Inspect { component } => {
            let said = looked_at(&component, wakebox_wasm::inspect)?;
            Ok(std::io::stdout().write_all(said.as_bytes())?)
        }
        Command::Component {
            module,
            wit,
            world,
            output,
        } => {
            let made = looked_at(&module, |bytes| {
                wakebox_wasm::component(bytes, wit.as_deref(), world.as_deref())
            })?;
            put(&output, &made)
        }
        Command::Cache(CacheCommand::Path) => {
            println!("{}", Cache::path()?.display());
            Ok(())
        }
        Command::Cache(CacheCommand::Clear) => {
            let bytes = Cache::open(&Cache::path()?)?.clear()?;
            println!("removed {bytes} bytes");
            Ok(())
        }
    }
}

fn compile(component: &Path, output: &Path, bounds: Bounds) -> Result<()> {
    let image = fs::File::open(component)
        .map_err(Into::into)
        .and_then(|file| image(file, bounds));
    let image = image.with_context(|| component.display().to_string())?;
    put(output, &image)
}

fn put(output: &Path, bytes: &[u8]) -> Result<()> {
    if output == Path::new("-") {
        return Ok(std::io::stdout().write_all(bytes)?);
    }
    fs::write(output, bytes).with_context(|| output.display().to_string())
}

/// What is made of a file without compiling it.
fn looked_at<T>(file: &Path, look: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
    limit_time(LOOK_SECONDS)?;
    limit(Resource::As, LOOK_BYTES)?;
    let bytes = fs::File::open(file).map_err(Into::into);
    let bytes = bytes.and_then(|mut file| read_component(&mut file));
    let made = bytes.and_then(|bytes| look(&bytes));
    made.with_context(|| file.display().to_string())
}

/// With the user's cache, if there can be one.
fn image(mut component: fs::File, bounds: Bounds) -> Result<Vec<u8>> {
    let note = |error: anyhow::Error| eprintln!("note: {error:#}");
    match Cache::path().and_then(|path| Cache::open(&path)) {
        Ok(cache) => cache.bounds(bounds).image_of(component, note),
        Err(error) => {
            note(error.context("the component is compiled each time"));
            wakebox_wasm::image_with(&read_component(&mut component)?, bounds)
        }
    }
}

/// What looking at a component may take.
const LOOK_SECONDS: u64 = 60;
const LOOK_BYTES: u64 = 4 << 30;

/// What a stranger wrote shall not take all that this machine has.
fn limit(resource: Resource, most: u64) -> Result<()> {
    limits(resource, most, most)
}

/// Seconds of processor time, after which SIGXCPU ends this process: that says why, which SIGKILL does not.
fn limit_time(seconds: u64) -> Result<()> {
    limits(Resource::Cpu, seconds, seconds.saturating_add(1))
}

fn limits(resource: Resource, current: u64, maximum: u64) -> Result<()> {
    let limits = Rlimit {
        current: Some(current),
        maximum: Some(maximum),
    };
    setrlimit(resource, limits).with_context(|| format!("cannot limit {resource:?}"))
}
