//! The command `wakebox-wasm`: compiles a component in a process of its own.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};

/// WebAssembly components as guests of Wakebox
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Make a guest of a component, which `wakebox run` runs
    Compile {
        /// The component, in binary or as text (`.wat`)
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
    },
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
    let Command::Compile {
        component,
        output,
        seconds,
        memory,
    } = command;
    limit(Resource::Cpu, seconds)?;
    limit(Resource::As, memory.saturating_mul(1 << 20))?;
    let image = read(&component).and_then(|bytes| wakebox_wasm::image(&bytes));
    let image = image.with_context(|| component.display().to_string())?;
    if output == Path::new("-") {
        std::io::stdout().write_all(&image)?;
    } else {
        fs::write(&output, image).with_context(|| output.display().to_string())?;
    }
    Ok(())
}

/// Most bytes of a component.
const COMPONENT_MAX: u64 = 256 << 20;

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(COMPONENT_MAX + 1)
        .read_to_end(&mut bytes)?;
    anyhow::ensure!(
        bytes.len() as u64 <= COMPONENT_MAX,
        "it is larger than {COMPONENT_MAX} bytes"
    );
    Ok(bytes)
}

/// What a stranger wrote shall not take all that this machine has.
fn limit(resource: Resource, most: u64) -> Result<()> {
    let limits = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(resource, limits).with_context(|| format!("cannot limit {resource:?}"))
}
