//! Takes from the whole process what its sandboxes do not need.
//!
//! The machine is the first wall around a guest. A jail is the second: should a guest find a hole in
//! this library or in KVM and come to run code in the host process, that code has no more files,
//! sockets and system calls than the [`Policy`] grants to guests. The command `wakebox` enters one
//! before a guest's first instruction, unless `--no-jail` is given.
//!
//! ```no_run
//! use wakebox::jail::Jail;
//! use wakebox::{Policy, Sandbox};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let policy = Policy::new().allow_dir("/srv/site:/site:ro".parse()?);
//!     // Before there is any other thread: so no `#[tokio::main]`.
//!     let held = Jail::for_policy(&policy).may_read("guests/site").enter()?;
//!     eprintln!("{held}");
//!     let mut sandbox = Sandbox::builder().guest("guests/site").policy(policy).build()?;
//!     println!("{}", sandbox.run_blocking()?);
//!     Ok(())
//! }
//! ```
//!
//! # What it does
//!
//! 1. `no_new_privs`: no program that is started can gain rights (and none can be started).
//! 2. [Landlock](https://docs.kernel.org/userspace-api/landlock.html): of all files, those in the
//!    granted directories can be opened, with the rights of the grant; what [`Jail::may_read`] and
//!    [`Jail::may_write`] name; `/dev/kvm`; and, if the policy has names, the files by which names
//!    are resolved. TCP connects to, and listens on, the ports of the policy only (and port 53, if
//!    it has names). Other processes can get no signals, and abstract Unix sockets cannot be
//!    reached.
//! 3. A seccomp filter, an allow-list of the system calls that running sandboxes takes: `filter.rs`
//!    has it, each with its reason. A call that is not on it ends the process at once, with the
//!    signal `SIGSYS`; the kernel's log says which call it was (`dmesg`, `type=1326`). Where the
//!    arguments are numbers they are looked at: `ioctl` does what KVM machines need and hardly
//!    anything else; `clone` makes threads, not processes; `socket` has the families and types that
//!    the policy needs, if any; nothing can be made executable. A few calls that libraries try and
//!    can do without fail instead, with `ENOSYS`.
//!
//! # What it means for a program
//!
//! * It is for ever, and for the whole process, its own code included: what the policy does not
//!   grant to guests, the program cannot do either. It cannot start programs, open other files,
//!   load libraries or compile code at run time. What is open already stays open. More can be
//!   granted with [`Jail::may_read`], [`Jail::may_write`], [`Jail::may_call`],
//!   [`Jail::may_use_terminal`], and with a wider policy for the jail than for its sandboxes
//!   ([`Policy::and`]).
//! * It has to be entered **before there is a second thread**: Landlock holds the calling thread and
//!   those that it starts. [`Jail::enter`] refuses otherwise ([`Error::JailTooLate`]).
//! * Names are resolved by the C library from files and name servers alone. Modules that it would
//!   load for others (mDNS, LDAP, `nss-resolve`) and its cache daemon are out of reach.
//! * Network interfaces are known by those names that they have when the jail is entered, as in
//!   `[fe80::1%eth0]:80`; numbers do always.
//! * A granted path means what lies there when the jail is entered. If something else takes its
//!   place later, that is not granted.
//! * A panic's backtrace has no names of functions, because the program's own file is not granted.
//!
//! # What it does not hold
//!
//! * Neither Landlock nor seccomp sees where a datagram goes, if the policy grants datagrams or
//!   names; which address a TCP connection with a granted port goes to; and which Unix socket is
//!   connected to, if the policy grants any.
//! * If the policy grants listening, the process can also listen on a port that the kernel chooses:
//!   Landlock looks at `bind`, not at `listen` without one.
//! * Landlock holds what is in files and directories, not that they are there. Whether a path exists,
//!   its kind, size, owner and times (`stat`, `access`) can be asked for every path that the process's
//!   user could ask it for, and such a path can be opened with `O_PATH`, which gives nothing else.
//! * Between sandboxes of one process there is no jail: it grants what all of them may do together.
//!
//! # Where the kernel lacks something
//!
//! The rest is done all the same, and [`Held::missing`] says what is not. [`Kernel::look`] tells
//! beforehand; so does `wakebox doctor`.

mod filter;
mod kernel;
mod paths;

use std::fmt;
use std::path::PathBuf;

use wakebox_vmm::system::System;

pub use self::kernel::Kernel;
use crate::error::{Error, Result};
use crate::policy::Policy;

/// What a process keeps: what a policy needs, and what is added here.
#[derive(Clone, Debug)]
#[must_use = "a jail holds nobody before it is entered"]
pub struct Jail {
    policy: Policy,
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    calls: Vec<i64>,
    terminal: bool,
}

impl Jail {
    /// A jail for sandboxes with this policy, and with any that grants less.
    pub fn for_policy(policy: &Policy) -> Self {
        Self {
            policy: policy.clone(),
            read: Vec::new(),
            write: Vec::new(),
            calls: Vec::new(),
            terminal: false,
        }
    }

    /// Lets the process read this file, or this directory and all that is beneath it. A guest's own
    /// file needs it, unless it was read before.
    ///
    /// What is not there when the jail is entered is not granted.
    pub fn may_read(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// Lets the process read and change this file, or all that is beneath this directory.
    pub fn may_write(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.push(path.into());
        self
    }

    /// Lets the process ask for its terminal's size and set its modes, as programs do that draw on
    /// it. Not put characters into its input.
    pub fn may_use_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Lets the process make this system call, whatever its arguments: a number such as
    /// `libc::SYS_flock`. For what the program's own code does, and its libraries.
    pub fn may_call(mut self, number: i64) -> Self {
        self.calls.push(number);
        self
    }

    /// Closes the process in, for ever.
    ///
    /// # Errors
    ///
    /// [`Error::JailTooLate`] if there is another thread; [`Error::Jail`] for what the kernel has and
    /// refused all the same. What it does not have is no error, see [`Held::missing`].
    pub fn enter(self) -> Result<Held> {
        // Opens `/dev/kvm` and what tells which pages were written, and counts the processors: their
        // files are out of reach afterwards. An
        // error comes again, and is told, when a sandbox is built.
        let _ = System::get();
        wakebox_vmm::memory::prepare();
        crate::policy::zone::keep();
        match kernel::threads() {
            Some(1) => {}
            threads => return Err(Error::JailTooLate { threads }),
        }
        let kernel = Kernel::look();
        let failed = |action| {
            move |source| Error::Jail {
                action,
                source: Box::new(source),
            }
        };
        rustix::thread::set_no_new_privs(true).map_err(|error| Error::Jail {
            action: "give up gaining privileges",
            source: Box::new(error),
        })?;
        if kernel.landlock.is_some() {
            paths::restrict(&self).map_err(failed("restrict files and ports with Landlock"))?;
        }
        // The last: afterwards, even these calls are forbidden.
        if kernel.seccomp {
            filter::install(&self).map_err(|error| Error::Jail {
                action: "filter system calls with seccomp",
                source: Box::new(error),
            })?;
        }
        tracing::debug!(?kernel, "entered the jail");
        Ok(Held {
            kernel,
            missing: kernel.missing(),
        })
    }
}

/// A jail that was entered, and what of it this kernel lacks.
#[derive(Clone, Debug)]
pub struct Held {
    kernel: Kernel,
    missing: Vec<Missing>,
}

impl Held {
    /// What this kernel lacks for the whole jail; empty if nothing.
    #[must_use]
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// What this kernel has.
    #[must_use]
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }
}

impl fmt::Display for Held {
    /// What is in force, in a sentence, and a sentence for each part that is missing; without a
    /// line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("jail: no new privileges")?;
        if let Some(version) = self.kernel.landlock {
            write!(f, ", files and ports held by Landlock (ABI {version})")?;
        }
        if self.kernel.seccomp {
            f.write_str(", system calls filtered by seccomp")?;
        }
        for missing in &self.missing {
            write!(f, "\njail: {missing}")?;
        }
        Ok(())
    }
}

/// A part of the jail that a kernel lacks. `Display` says what follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Missing {
    /// seccomp filters.
    Filter,
    /// Landlock as a whole.
    Landlock,
    /// Landlock knows renames between directories from ABI 2 on (Linux 5.19), and refuses all before.
    Renames,
    /// Landlock knows the truncation of files from ABI 3 on (Linux 6.2).
    Truncation,
    /// Landlock knows TCP ports from ABI 4 on (Linux 6.7).
    TcpPorts,
    /// Landlock knows control calls to devices from ABI 5 on (Linux 6.10).
    Devices,
    /// Landlock keeps signals and abstract Unix sockets inside from ABI 6 on (Linux 6.12).
    Scopes,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => {
                "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER): the process can make \
                 every system call"
            }
            Self::Landlock => {
                "this kernel has no Landlock, or does not use it (Linux 5.13, \
                 CONFIG_SECURITY_LANDLOCK, `landlock` in the boot parameter lsm=): the process can \
                 open every file that its user can"
            }
            Self::Renames => {
                "Landlock is older than ABI 2 (Linux 5.19): guests cannot rename from one directory \
                 to another"
            }
            Self::Truncation => {
                "Landlock is older than ABI 3 (Linux 6.2): the process can empty files that it may \
                 only read"
            }
            Self::TcpPorts => {
                "Landlock is older than ABI 4 (Linux 6.7): if the policy grants TCP, the process can \
                 use every port"
            }
            Self::Devices => {
                "Landlock is older than ABI 5 (Linux 6.10): the filter alone says which control \
                 calls devices get"
            }
            Self::Scopes => {
                "Landlock is older than ABI 6 (Linux 6.12): if the policy grants a Unix socket, the \
                 process can reach abstract ones too; the filter alone keeps it from sending signals"
            }
        })
    }
}
