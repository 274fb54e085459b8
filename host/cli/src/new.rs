//! `wakebox new`: the crate of a guest, ready for `cargo build`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::say::say;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the crate, and of the folder that is made; a path makes it there
    name: PathBuf,

    /// Use the `wakebox-guest` in this folder instead of the released one
    #[arg(long, value_name = "DIR")]
    guest_path: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let folder = &args.name;
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !is_crate_name(name) {
        bail!(
            "`{}` cannot be the name of a crate: use letters, digits, `-` and `_`, and begin with \
             a letter",
            folder.display()
        );
    }
    if folder.exists() {
        bail!("{} exists already; nothing was written", folder.display());
    }
    let dependency = match &args.guest_path {
        None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
        Some(path) => {
            let path = path
                .canonicalize()
                .with_context(|| format!("no `wakebox-guest` in {}", path.display()))?;
            // A TOML basic string: what JSON escapes, it escapes the same way.
            format!("{{ path = {:?} }}", path.display().to_string())
        }
    };
    let manifest = MANIFEST
        .replace("{name}", name)
        .replace("{guest}", &dependency);
    write(folder, "Cargo.toml", &manifest)?;
    write(folder, "src/main.rs", MAIN)?;
    write(folder, ".gitignore", "/target\n")?;
    say!("A guest lies in {}. Next:", folder.display());
    say!("");
    say!("  cd {} && cargo build --release", folder.display());
    say!("  wakebox run target/release/{name} --stats -- friend");
    Ok(ExitCode::SUCCESS)
}

fn is_crate_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        && name != "test"
}

fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

const MANIFEST: &str = "\
[package]
name = \"{name}\"
version = \"0.1.0\"
edition = \"2024\"

[[bin]]
name = \"{name}\"
path = \"src/main.rs\"
# A guest has no `std` to run a test harness with: put what you want to test into a library crate,
# where `cargo test` works as usual.
test = false
bench = false

[dependencies]
wakebox-guest = {guest}

# There is nothing to unwind to in a guest.
[profile.dev]
panic = \"abort\"

[profile.release]
panic = \"abort\"
# Functions and lines for backtraces. They are in the file only, never in the guest's memory.
debug = \"limited\"

# A crate of its own, also inside somebody else's workspace.
[workspace]
";

const MAIN: &str = "\
#![no_std]
#![no_main]

use core::time::Duration;

use wakebox_guest::{env, println, spawn, time};

#[wakebox_guest::main]
async fn main() {
    let name = env::args().next().unwrap_or(\"world\");
    println!(\"Hello, {name}, from ring 3 of a machine without a kernel.\");

    // Both sleep at once. The host wakes each of them across the boundary.
    let tick = spawn(async {
        time::sleep(Duration::from_millis(50)).await;
        println!(\"tick\");
    });
    time::sleep(Duration::from_millis(100)).await;
    println!(\"tock\");
    let _ = tick.await;
}
";
