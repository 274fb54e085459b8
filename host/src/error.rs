//! What the host could not do. What a guest did wrong is not an error but an
//! [`Outcome`](crate::Outcome).
//!
//! An error's `Display` does not repeat its source: print the chain, as `anyhow`'s `{:#}` does. Its `Debug`
//! does, because that is what a `main` prints that returns it.

mod load;
mod lost;
mod template;

use std::io;
use std::path::PathBuf;

pub use self::load::LoadError;
pub(crate) use self::load::MOST_HEADERS;
pub use self::lost::LostOutput;
pub use self::template::TemplateFileError;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the host could not do, and what can be done about it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm does not exist: this kernel offers no KVM (is virtualization switched on in \
         the firmware, or nested virtualization in the cloud's settings? `wakebox doctor` looks)"
    )]
    KvmMissing,

    /// `/dev/kvm` may not be opened.
    #[error(
        "/dev/kvm may not be opened: permission denied (add yourself to its group, often with \
         `sudo usermod -aG kvm $USER`, and log in again)"
    )]
    KvmForbidden,

    /// KVM lacks something that Wakebox needs.
    #[error("this KVM cannot run Wakebox guests: {0}")]
    KvmUnsuitable(String),

    /// As many sandboxes of a [`Pool`](crate::Pool) are taken as may be, and none came back in time.
    #[error("no sandbox of the pool came back within {patience:?}")]
    PoolExhausted {
        /// How long somebody has waited.
        patience: std::time::Duration,
    },

    /// A call to KVM failed.
    #[error("KVM could not {action}{}", advice(source))]
    Kvm {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// The processor could not go on in the guest, by no fault that a guest can make.
    #[error("KVM stopped the virtual processor: {0}")]
    KvmStopped(String),

    /// A guest file could not be read.
    #[error("cannot read the guest {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// The file is not a guest that can be loaded.
    #[error("{name} cannot be run")]
    Load {
        /// The file, or "guest" for bytes in memory.
        name: String,
        /// Why not.
        source: LoadError,
    },

    /// A file is not a template that can be used here.
    #[error("{name} cannot be used as a template")]
    Template {
        /// The file, or "the file" if that has no name.
        name: String,
        /// Why not.
        source: TemplateFileError,
    },

    /// A template could not be written.
    #[error("the template could not be written")]
    Save {
        /// Why not.
        source: io::Error,
    },

    /// The file of debug information cannot be used.
    #[error("{0} cannot serve as symbols: {1}")]
    Symbols(PathBuf, String),

    /// A crash dump could not be written.
    #[error("cannot write the crash dump {path}")]
    Dump {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// The memory asked for does not hold the guest.
    #[error(
        "{} of memory are too small for this guest: it takes at least {}",
        crate::units::bytes(*asked), crate::units::bytes(*least)
    )]
    MemoryTooSmall {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that it takes.
        least: u64,
    },

    /// The memory asked for is more than the machine has.
    #[error(
        "{} of memory are more than this machine has ({})",
        crate::units::bytes(*asked), crate::units::bytes(*available)
    )]
    MemoryTooLarge {
        /// Bytes asked for.
        asked: u64,
        /// Bytes of RAM in the machine.
        available: u64,
    },

    /// A granted directory cannot be opened.
    #[error("the directory {path} cannot be granted")]
    Grant {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },

    /// A setting has a value that cannot be.
    #[error("{0}")]
    Setting(String),

    /// Guest memory could not be mapped.
    #[error("could not map {} of guest memory{}", crate::units::bytes(*bytes), advice(source))]
    Map {
        /// Bytes asked for.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },

    /// A thread could not be started.
    #[error("could not start the thread `{name}`{}", advice_on_threads(source))]
    Thread {
        /// Its name.
        name: &'static str,
        /// Why not.
        source: io::Error,
    },

    /// A standard stream of this process could not be prepared for a guest.
    #[error(
        "this process's standard streams cannot be given to a guest{}",
        advice(source)
    )]
    Stdio {
        /// Why not.
        source: io::Error,
    },

    /// The guest ended by itself, but not everything arrived that it had written. How other ends come
    /// about is told by their [`Outcome`](crate::Outcome); what was lost then, by
    /// [`Sandbox::lost_output`](crate::Sandbox::lost_output).
    #[error("the guest ended with code {code}, but {}", sentences(lost))]
    OutputLost {
        /// The guest's own code.
        code: i32,
        /// What did not arrive, of either stream.
        lost: Vec<LostOutput>,
    },

    /// A jail was to be entered when there were other threads already, which it would not hold.
    #[error(
        "too late for a jail: {}. It holds the thread that enters it and those which that one \
         starts, so enter it first of all in `main`, before a Tokio runtime is made (and not under \
         `#[tokio::main]`)",
        threads.map_or("/proc is not there to tell how many threads there are".into(), |threads| {
            format!("there are {threads} threads")
        })
    )]
    JailTooLate {
        /// Threads of the process, if they could be counted.
        threads: Option<u64>,
    },

    /// The kernel refused a part of a jail that it should have.
    #[error("the jail could not be entered: the kernel did not {action}")]
    Jail {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// [`Sandbox::run`](crate::Sandbox::run) was called again after the end.
    #[error("this sandbox has ended: a sandbox runs once")]
    Ended,

    /// The process was forked after the sandbox was built, and this is the child.
    #[error(
        "this sandbox belongs to the process that built it, and this one is its child: KVM gives a \
         machine to one process, so build another sandbox here"
    )]
    Forked,

    /// [`Sandbox::run`](crate::Sandbox::run) was polled, or
    /// [`Sandbox::start`](crate::Sandbox::start) called, outside a Tokio runtime.
    #[error(
        "no Tokio runtime here: poll `Sandbox::run`, or call `Sandbox::start`, inside one that has \
         I/O and time enabled, or use `Sandbox::run_blocking`"
    )]
    NoRuntime,
}

fn sentences(lost: &[LostOutput]) -> String {
    let lost: Vec<String> = lost.iter().map(ToString::to_string).collect();
    lost.join("; ")
}

/// What a person can do about a call that the kernel refused, in brackets, if that is known.
fn advice(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EMFILE) => {
            " (this process has as many files open as it may: raise `ulimit -n`; a sandbox takes two \
             and those of its sockets and files)"
        }
        Some(libc::ENFILE) => {
            " (this machine has as many files open as it may: /proc/sys/fs/file-max)"
        }
        Some(libc::ENOMEM) => {
            " (out of memory, or of what this process or its control group may have: `ulimit -v`, \
             memory.max)"
        }
        Some(libc::EFAULT) => {
            " (guest memory could not be reached: the machine may be out of memory, or somebody has \
             changed the mapping)"
        }
        Some(libc::EAGAIN) => {
            " (out of threads: some kernels start one for each machine; `ulimit -u`, pids.max of the \
             control group)"
        }
        _ => "",
    }
}

/// As [`advice`], where the call starts a thread.
fn advice_on_threads(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EAGAIN) => {
            " (out of threads, or of memory for its stack: `ulimit -u`, `ulimit -v`, pids.max of the \
             control group)"
        }
        _ => advice(source),
    }
}

/// The same, with what a person can do about it.
impl From<wakebox_vmm::Error> for Error {
    fn from(error: wakebox_vmm::Error) -> Self {
        use wakebox_vmm::Error as E;
        match error {
            E::KvmMissing => Self::KvmMissing,
            E::KvmForbidden => Self::KvmForbidden,
            E::KvmUnsuitable(why) => Self::KvmUnsuitable(why),
            E::Kvm { action, source } => Self::Kvm { action, source },
            E::KvmStopped(why) => Self::KvmStopped(why),
            E::MemoryTooSmall { asked, least } => Self::MemoryTooSmall { asked, least },
            E::Map { bytes, source } => Self::Map { bytes, source },
            E::Thread { name, source } => Self::Thread { name, source },
        }
    }
}

/// What `main` prints of an error that it returns: the sentence, and what has led to it.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")?;
        let mut source = std::error::Error::source(self);
        if source.is_some() {
            f.write_str("\n\nCaused by:")?;
        }
        while let Some(cause) = source {
            write!(f, "\n    {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_that_returns_an_error_prints_a_sentence_and_its_cause() {
        let error = Error::Kvm {
            action: "make a machine",
            source: io::Error::from_raw_os_error(libc::EMFILE),
        };
        let printed = format!("{error:?}");
        assert!(printed.starts_with("KVM could not make a machine"));
        assert!(
            printed.contains("\n\nCaused by:\n    Too many open files"),
            "{printed}"
        );
        assert_eq!(format!("{:?}", Error::Ended), Error::Ended.to_string());
    }
}
