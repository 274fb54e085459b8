//! What the command asks of its own process before it does anything.

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
