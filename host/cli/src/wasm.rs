//! Guests that are WebAssembly components or modules: the program `wakebox-wasm` makes images of them.
//!
//! It is a program of its own, so that nobody waits for a compiler whom he does not ask for, and so that
//! compiling what a stranger wrote has a process with limits.

use std::fs::File;
use std::io::Seek;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, fstat, memfd_create, openat, stat};
use rustix::process::Signal;
use wakebox::{Guest, Image};

use super::known;
use super::streams::start_of;

const COMPILER: &str = "wakebox-wasm";

/// Seconds of processor time that it may take.
const SECONDS: u64 = 300;

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
    if let Some(image) = known_image(path, &compiler) {
        return Ok(image.into());
    }
    // An image of megabytes goes from one process to the other without a pipe.
    let image =
        memfd_create(COMPILER, MemfdFlags::CLOEXEC).context("cannot make a file in memory")?;
    let mut image = File::from(image);
    // A file beside options, not one of them.
    let mut command = Command::new(&compiler);
    let seconds = SECONDS.to_string();
    command.args(["compile", "--seconds", &seconds, "--output", "-", "--"]);
    command
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    command.stdout(image.try_clone()?);
    let status = command.status().with_context(|| {
        format!(
            "{} is WebAssembly, and {} cannot be started to compile it: in Wakebox's \
             repository, `cargo install --path host/wasm` builds it",
            path.display(),
            compiler.display(),
        )
    })?;
    if !status.success() {
        bail!("{} was not compiled: {}", path.display(), why(status));
    }
    image.rewind()?;
    Ok(Image::mapped(image, path)?.into())
}

/// The image that the compiler keeps of a component, if it has compiled it as it is.
fn known_image(path: &Path, compiler: &Path) -> Option<Image> {
    let cache = known::path(|name| std::env::var_os(name)).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, &cache, flags, Mode::empty()).ok()?;
    known::ensure_own(&fstat(&folder).ok()?).ok()?;
    let name = known::name(&stat(path).ok()?, &stat(compiler).ok()?);
    let image = known::image(&folder, &name)?;
    Image::mapped(image, path).ok()
}

/// What keeps a compiler from its end.
fn why(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) if signal == Signal::XCPU.as_raw() => format!(
            "that took more than {SECONDS} s of processor time. `wakebox-wasm compile --seconds N -o \
             FILE` allows more, and `wakebox run FILE` runs what it makes"
        ),
        _ => status.to_string(),
    }
}

/// The compiler beside this program, else the one in `PATH`.
fn compiler() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.map(|own| own.with_file_name(COMPILER));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(COMPILER));
    let mut all = beside.into_iter().chain(in_path);
    all.find(|path| path.is_file())
        .unwrap_or_else(|| COMPILER.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_time_is_named() {
        let said = why(ExitStatus::from_raw(Signal::XCPU.as_raw()));
        assert!(said.contains("300 s of processor time"), "{said}");
        assert_eq!(why(ExitStatus::from_raw(1 << 8)), "exit status: 1");
    }

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
