//! The emulated machine: started, listened to, and believed only if it ends as agreed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::fetch::{self, Kernel};
use crate::process;

/// The oldest QEMU that was seen to work: 7.2 hung in a quarter of the runs.
const OLDEST: u32 = 10;

/// What `hw-init` writes to the debug port, as QEMU returns it: twice that and one.
const PASSED: i32 = 0x10 << 1 | 1;
const FAILED: i32 = 0x11 << 1 | 1;
const BROKEN: i32 = 0x12 << 1 | 1;

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
            fetch::HOW
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

    /// Starts the machine, shows what it says, and waits for its end. If it says nothing for
    /// `silence`, it hangs, and is ended.
    ///
    /// # Errors
    ///
    /// A sentence for each way in which it did not end with all tests passed.
    pub(crate) fn run(&self, kernel: &Kernel, image: &Path, silence: Duration) -> Result<()> {
        let mut command = self.command();
        command
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-M", "pc", "-cpu", "max", "-smp", "2", "-m", "2048"])
            .args(["-accel", "tcg,thread=single"])
            .args(["-display", "none", "-monitor", "none", "-serial", "stdio"])
            .args(["-device", "isa-debug-exit,iobase=0x501,iosize=1"])
            .arg("-kernel")
            .arg(&kernel.file)
            .arg("-initrd")
            .arg(image)
            .args(["-append", COMMAND_LINE])
            .stdout(Stdio::piped());
        eprintln!("hw-test: starting {}", self.program.display());
        let child = process::tie(&mut command).spawn();
        let mut child =
            child.with_context(|| format!("cannot start {}", self.program.display()))?;
        let said = listen(&mut child, silence)?;
        if said.hangs.is_some() {
            // It may have ended just now.
            let _ = child.kill();
        }
        let status = child.wait().context("cannot wait for QEMU")?;
        judge(&said, status)
    }
}

/// Without `no_timer_check`, the kernel gives up where the host is too busy for its timer's first
/// interrupts to come in time.
const COMMAND_LINE: &str = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off tsc=reliable \
                            random.trust_cpu=on nokaslr no_timer_check";

/// What was noticed in what the machine said.
#[derive(Debug, Default)]
struct Said {
    panic: Option<String>,
    /// For how long it has said nothing, in vain.
    hangs: Option<Duration>,
}

/// Passes on what the machine says, until it ends or has said nothing for too long.
fn listen(child: &mut Child, silence: Duration) -> Result<Said> {
    let output = child.stdout.take().context("QEMU has no output")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    let mut said = Said::default();
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => {
                println!("{line}");
                if line.contains("Kernel panic") {
                    said.panic = Some(line);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(said),
            Err(RecvTimeoutError::Timeout) => {
                said.hangs = Some(silence);
                return Ok(said);
            }
        }
    }
}

fn judge(said: &Said, status: ExitStatus) -> Result<()> {
    if let Some(silence) = said.hangs {
        bail!(
            "the machine has said nothing for {} s, and was ended",
            silence.as_secs()
        );
    }
    if let Some(panic) = &said.panic {
        bail!("the machine's kernel gave up: {panic}");
    }
    match status.code() {
        Some(PASSED) => Ok(()),
        Some(FAILED) => bail!("tests failed on emulated AMD-V"),
        Some(BROKEN) => bail!("the machine could not run the tests: see its last line"),
        _ => bail!("the machine ended without saying how the tests went (QEMU: {status})"),
    }
}

/// The first number in `QEMU emulator version 10.0.2 (...)`.
fn major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version ")?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

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
    fn only_the_agreed_status_is_a_success() {
        let fine = Said::default();
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        assert!(judge(&fine, exited(PASSED)).is_ok());
        // A kernel that was told not to restart after a panic, and QEMU's own failures.
        for other in [0, 1, FAILED, BROKEN] {
            assert!(judge(&fine, exited(other)).is_err(), "{other}");
        }
        assert!(judge(&fine, ExitStatus::from_raw(9)).is_err());
        let panicked = Said {
            panic: Some("Kernel panic - not syncing".into()),
            ..Said::default()
        };
        assert!(judge(&panicked, exited(PASSED)).is_err());
    }
}
