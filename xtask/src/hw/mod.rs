//! `cargo xtask hw-test`: the end-to-end tests on the kinds of KVM that hardware has: that for AMD-V,
//! which QEMU emulates, and that for VT-x, which Bochs does.
//!
//! Everything is kept in `target/hw`: the emulators and the kernel, if they were fetched, the
//! statically linked tests, and the file system from which the machine starts. Its first process is
//! `tests/src/bin/hw-init`, which runs the tests.

mod bochs;
mod build;
mod cpio;
mod fetch;
mod machine;
mod qemu;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use self::build::UNIFIED;
use self::machine::{Bounds, Machine};
use crate::args::Args;
use crate::workspace;

/// A kind of hardware virtualization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// AMD-V, emulated by QEMU.
    Amd,
    /// VT-x, emulated by Bochs.
    Vtx,
}

impl Kind {
    /// The kernel's module for it.
    fn module(self) -> &'static str {
        match self {
            Self::Amd => "kvm-amd",
            Self::Vtx => "kvm-intel",
        }
    }

    /// What to do where something is missing.
    fn how(self) -> &'static str {
        match self {
            Self::Amd => {
                "`cargo xtask hw-test --install` fetches what is missing into target/hw (Debian's \
                 packages, about 55 MB; nothing is installed)"
            }
            Self::Vtx => {
                "`cargo xtask hw-test --vtx --install` fetches what is missing into target/hw \
                 (Debian's packages, about 35 MB; nothing is installed)"
            }
        }
    }

    /// A test that has not ended by then hangs.
    fn bound(self, short: bool) -> Duration {
        Duration::from_secs(match (self, short) {
            (Self::Amd, false) => 1200,
            // Its tests are small.
            (Self::Amd, true) => 300,
            (Self::Vtx, _) => 3600,
        })
    }

    /// What the short run may take in all: Bochs is some ten times slower than QEMU.
    fn short_time(self) -> Option<Duration> {
        match self {
            Self::Amd => None,
            Self::Vtx => Some(Duration::from_secs(240)),
        }
    }
}

/// A machine that has then still not said that a test hangs does so itself.
const AFTER: Duration = Duration::from_secs(60);

/// Everything that this task keeps.
fn folder() -> PathBuf {
    workspace::root().join("target/hw")
}

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let qemu = args.option::<PathBuf>("--qemu")?;
    let short = args.flag("--short");
    let kind = match args.flag("--vtx") {
        true => Kind::Vtx,
        false => Kind::Amd,
    };
    if qemu.is_some() && kind == Kind::Vtx {
        bail!("QEMU does not emulate VT-x: --qemu and --vtx do not go together");
    }
    if args.flag("--install") {
        args.all_done()?;
        install(kind)?;
        return Ok(ExitCode::SUCCESS);
    }
    args.done()?;
    test(kind, qemu, short, &args.rest)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether what the lane needs is here.
///
/// # Errors
///
/// What is missing, and what to do.
pub(crate) fn is_ready(kind: Kind) -> Result<()> {
    Machine::find(kind, None)?;
    fetch::kernel(kind)?;
    Ok(())
}

/// Fetches what the lane needs, if it is not here.
///
/// # Errors
///
/// What could not be fetched, and why.
pub(crate) fn install(kind: Kind) -> Result<()> {
    fetch::all(kind).context("what the hardware lane needs cannot be fetched")
}

/// Runs the tests whose names contain one of `filters`, or all.
///
/// # Errors
///
/// If one fails, or the machine does.
fn test(kind: Kind, qemu: Option<PathBuf>, short: bool, filters: &[String]) -> Result<()> {
    let machine = Machine::find(kind, qemu)?;
    let kernel = fetch::kernel(kind)?;
    let image = build::image(kind, &kernel, short, filters)?;
    let bounds = Bounds {
        silence: kind.bound(short) + AFTER,
        // Whoever names tests wants all of these.
        all: kind.short_time().filter(|_| short && filters.is_empty()),
    };
    machine.run(&kernel, &image, bounds)
}
