//! Limits of this process.

use std::io;

use anyhow::{Result, ensure};

/// Lets this process have so many descriptors.
///
/// # Errors
///
/// If it may not have as many.
pub fn allow_descriptors(wanted: u64) -> Result<()> {
    let most = raise_descriptors()?;
    ensure!(
        most >= wanted,
        "this needs {wanted} open files, and a process may have {most} (ulimit -Hn)"
    );
    Ok(())
}

/// Lets this process have as many descriptors as it may, and returns how many these are.
///
/// # Errors
///
/// If the system call fails.
pub fn raise_descriptors() -> Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it writes to a structure that lives here.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    ensure!(got == 0, io::Error::last_os_error());
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: it reads a structure that lives here.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    ensure!(set == 0, io::Error::last_os_error());
    Ok(limit.rlim_max)
}
