//! What this kernel can hold a process with.

use std::os::unix::fs::MetadataExt as _;
use std::ptr;

use super::Missing;

/// Ways to hold a process that a kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Whether it filters system calls (seccomp, `CONFIG_SECCOMP_FILTER`).
    pub seccomp: bool,
    /// The version of Landlock's interface; `None` if it is not built in, or not switched on.
    pub landlock: Option<u32>,
}

impl Kernel {
    /// Asks the kernel.
    #[must_use]
    pub fn look() -> Self {
        Self {
            seccomp: has_filters(),
            landlock: landlock_version(),
        }
    }

    /// What it lacks, each with its effect on a jail; empty if it has all that a jail uses.
    #[must_use]
    pub fn missing(self) -> Vec<Missing> {
        let mut missing = Vec::new();
        if !self.seccomp {
            missing.push(Missing::Filter);
        }
        let Some(version) = self.landlock else {
            missing.push(Missing::Landlock);
            return missing;
        };
        for (since, what) in [
            (2, Missing::Renames),
            (3, Missing::Truncation),
            (4, Missing::TcpPorts),
            (5, Missing::Devices),
            (6, Missing::Scopes),
        ] {
            if version < since {
                missing.push(what);
            }
        }
        missing
    }
}

/// Whether a filter can end the process (`seccomp(2)`, `SECCOMP_GET_ACTION_AVAIL`; Linux 4.14).
fn has_filters() -> bool {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the call reads four bytes, which live through it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    result == 0
}

/// The version of Landlock's interface (`landlock_create_ruleset(2)`).
fn landlock_version() -> Option<u32> {
    /// From `linux/landlock.h`.
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the call takes no memory.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<u8>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

/// Threads of this process, if `/proc` tells: its `task` directory has a link for each, besides the
/// two of every directory.
pub(super) fn threads() -> Option<u64> {
    let task = std::fs::metadata("/proc/self/task").ok()?;
    task.nlink().checked_sub(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_of_landlock_adds() {
        let missing = |landlock| {
            let seccomp = true;
            Kernel { seccomp, landlock }.missing()
        };
        assert_eq!(missing(None), [Missing::Landlock]);
        assert_eq!(
            missing(Some(2)),
            [
                Missing::Truncation,
                Missing::TcpPorts,
                Missing::Devices,
                Missing::Scopes
            ]
        );
        assert_eq!(missing(Some(6)), []);
        assert_eq!(missing(Some(99)), []);
    }

    #[test]
    fn threads_are_counted() {
        let before = threads().unwrap();
        let (tell, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        // Other tests start and end threads as well: this one is there for certain.
        assert!(before >= 1 && threads().unwrap() >= 2);
        drop(tell);
        assert!(other.join().unwrap().is_err());
    }
}
