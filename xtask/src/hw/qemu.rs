//! QEMU, which emulates AMD-V.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Kind;
use super::fetch::{self, Kernel};
use super::machine::{CODES, COMMAND_LINE, Verdict};
use crate::process;

/// The oldest QEMU that was seen to work: 7.2 hung in a quarter of the runs.
const OLDEST: u32 = 10;

/// A QEMU that can be started.
#[derive(Debug)]
pub(crate) struct Qemu {
    program: PathBuf,
    /// The folder into which its packages were unpacked, if it is not installed.
    unpacked: Option<PathBuf>,
}

impl Qemu {
    /// The one that was asked for, or `WAKEBOX_QEMU`, or the one that was fetched, or one on
    /// the `PATH`.
    ///
    /// # Errors
    ///
    /// If there is none that is new enough.
    pub(crate) fn find(asked: Option<PathBuf>) -> Result<Self> {
        let asked = asked.or_else(|| std::env::var_os("WAKEBOX_QEMU").map(PathBuf::from));
        if let Some(program) = asked {
            let qemu = Self {
                program,
                unpacked: None,
            };
            let version = qemu.version()?;
            if version < OLDEST {
                eprintln!("hw-test: QEMU {version} is older than {OLDEST}, and may hang");
            }
            return Ok(qemu);
        }
        let fetched = fetch::qemu();
        let fetched = fetched.is_dir().then(|| Self {
            program: fetched.join("usr/bin/qemu-system-x86_64"),
            unpacked: Some(fetched),
        });
        let installed = Self {
            program: "qemu-system-x86_64".into(),
            unpacked: None,
        };
        let mut seen = "there is none".to_owned();
        for qemu in fetched.into_iter().chain([installed]) {
            match qemu.version() {
                Ok(version) if version >= OLDEST => return Ok(qemu),
                Ok(version) => seen = format!("there is version {version}"),
                Err(_) => {}
            }
        }
        bail!(
            "this needs qemu-system-x86_64 of version {OLDEST} or later, and {seen}; {}, or \
             --qemu PATH names one",
            Kind::Amd.how()
        )
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(folder) = &self.unpacked {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
            let libraries = libraries.map(|name| folder.join(name).display().to_string());
            command.env("LD_LIBRARY_PATH", libraries.join(":"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(folder.join(firmware));
            }
        }
        command.stdin(Stdio::null());
        command
    }

    fn version(&self) -> Result<u32> {
        let output = self.command().arg("--version").output();
        let output = output.with_context(|| format!("cannot start {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        major(&text).with_context(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("{} tells no version: {text}{error}", self.program.display())
        })
    }

    /// Starts the machine. It says what it has to say on its standard output.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub(crate) fn start(&self, kernel: &Kernel, image: &Path) -> Result<Child> {
        let mut command = self.command();
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-M", "pc", "-cpu", "max", "-smp", "2", "-m", "2048"])
            // With a thread for each processor, 10.0.2 ends a guest with a triple fault now and
            // then: see SECURITY.md.
            .args(["-accel", "tcg,thread=single"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"])
            .arg("-kernel")
            .arg(&kernel.file)
            .arg("-initrd")
            .arg(image)
            .args(["-append", &format!("{COMMAND_LINE} tsc=reliable")])
            .stdout(Stdio::piped());
        eprintln!("hw-test: starting {}", self.program.display());
        let child = process::tie(&mut command).spawn();
        child.with_context(|| format!("cannot start {}", self.program.display()))
    }
}

/// What `hw-init` has written to the debug port, as QEMU returns it: twice that and one.
pub(crate) fn verdict(status: Option<i32>) -> Option<Verdict> {
    let word = status.filter(|status| status & 1 == 1)? >> 1;
    let mut codes = CODES.into_iter();
    codes.find_map(|(code, verdict)| (code == word).then_some(verdict))
}

/// The first number in `QEMU emulator version 10.0.2 (...)`.
fn major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version ")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read() {
        assert_eq!(
            major("QEMU emulator version 10.0.2 (Debian 1:10)"),
            Some(10)
        );
        assert_eq!(major("nonsense"), None);
    }

    #[test]
    fn only_the_agreed_status_is_a_verdict() {
        assert_eq!(verdict(Some(0x10 << 1 | 1)), Some(Verdict::Passed));
        assert_eq!(verdict(Some(0x11 << 1 | 1)), Some(Verdict::Failed));
        assert_eq!(verdict(Some(0x12 << 1 | 1)), Some(Verdict::Broken));
        // A kernel that was told not to restart after a panic, QEMU's own failures, a signal.
        for other in [Some(0), Some(1), Some(0x20), None] {
            assert_eq!(verdict(other), None, "{other:?}");
        }
    }
}
