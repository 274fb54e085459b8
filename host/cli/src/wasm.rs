//! Guests that are WebAssembly components or modules: the program `wakebox-wasm` makes images of them.
//!
//! It is a program of its own, so that nobody waits for a compiler whom he does not ask for, and so that
//! compiling what a stranger wrote has a process with limits.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use wakebox::Guest;

use super::streams::start_of;

const COMPILER: &str = "wakebox-wasm";

/// Whether a file is WebAssembly, or is called its text. What is no regular file is read but once, as a
/// guest.
pub(super) fn is_wasm(path: &Path) -> bool {
    let is_text = path.extension().is_some_and(|extension| extension == "wat");
    start_of(path).is_some_and(|start| {
        start.starts_with(b"\0asm") || is_text && !start.starts_with(b"\x7fELF")
    })
}

/// The guest that runs a component or a module. To be called before the process enters its jail.
///
/// # Errors
///
/// If there is no compiler, or it refuses the component, which it has said on standard error.
pub(super) fn compiled(path: &Path) -> Result<Guest> {
    let compiler = compiler();
    // A file beside options, not one of them.
    let mut command = Command::new(&compiler);
    command.args(["compile", "--output", "-", "--"]).arg(path);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| {
        format!(
            "{} is WebAssembly, and {} cannot be started to compile it: in Wakebox's \
             repository, `cargo install --path host/wasm` builds it",
            path.display(),
            compiler.display(),
        )
    })?;
    if !output.status.success() {
        bail!("{} was not compiled ({})", path.display(), output.status);
    }
    Ok(output.stdout.into())
}

/// The compiler beside this program, else the one in `PATH`.
fn compiler() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.map(|own| own.with_file_name(COMPILER));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| COMPILER.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_known_by_its_first_bytes_and_text_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            is_wasm(&path)
        };
        assert!(file("app", b"\0asm\x0d\0\x01\0"));
        assert!(file("app.wat", b"(component)"));
        assert!(!file("app.wasm", b"\x7fELF"));
        assert!(!file("other.wat", b"\x7fELF"));
        assert!(!is_wasm(folder.path()));
    }
}
