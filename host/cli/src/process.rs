//! What the command asks of its own process before it does anything, and where its file is.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Makes room for what guests open, and keeps a guest from ending the process.
pub(super) fn prepare() {
    allow_descriptors();
    ignore_file_size_signal();
}

/// As many descriptors as the process may have: every connection and file of a guest takes one, and
/// the usual soft limit is there for programs that cannot count so far (`select`).
fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // If it cannot be, guests learn it when they open too much.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Writes beyond the limit on the size of files (`ulimit -f`) are errors, and no more: the signal
/// that comes with them would end the process (setrlimit(2), RLIMIT_FSIZE).
fn ignore_file_size_signal() {
    // SAFETY: no handler is installed, and no other thread runs yet.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Undoes for a program that replaces this one what [`prepare`] did to signals.
pub(super) fn restore_signals() {
    // SAFETY: as above; what is restored is what a process begins with.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
    }
}

/// The word by which a shell, or cargo, starts this very command: its name, if that is found in `PATH`
/// and is this file, else where the file is.
pub(super) fn own_name() -> String {
    const NAME: &str = "wakebox";
    let Ok(own) = std::env::current_exe() else {
        return NAME.to_owned();
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(NAME))
        .find(|file| file.is_file());
    let is_own = |found: &Path| found.canonicalize().ok() == own.canonicalize().ok();
    match found {
        Some(found) if is_own(&found) => NAME.to_owned(),
        _ => own.display().to_string(),
    }
}
