//! Bochs, which emulates VT-x.
//!
//! It knows no kernel and no archive: it starts from a medium, as a machine does. That is an ISO 9660
//! file system with ISOLINUX on it, made by `genisoimage`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::fetch::{self, Kernel};
use super::machine::COMMAND_LINE;
use super::{Kind, folder};
use crate::process;

const EMULATOR: &str = "usr/bin/bochs-bin";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const BIOS: &str = "usr/share/bochs/BIOS-bochs-latest";
const VGA_BIOS: &str = "usr/share/bochs/VGABIOS-lgpl-latest";
const MAKE_MEDIUM: &str = "usr/bin/genisoimage";
const LOADER: &str = "usr/lib/ISOLINUX/isolinux.bin";
const LOADER_LIBRARY: &str = "usr/lib/syslinux/modules/bios/ldlinux.c32";

/// A Bochs that was fetched.
#[derive(Debug)]
pub(crate) struct Bochs {
    /// The folder into which its packages were unpacked.
    unpacked: PathBuf,
}

impl Bochs {
    /// The one that was fetched.
    ///
    /// # Errors
    ///
    /// If a part of it is missing.
    pub(crate) fn find() -> Result<Self> {
        let unpacked = fetch::bochs();
        for part in [
            EMULATOR,
            BIOS,
            VGA_BIOS,
            MAKE_MEDIUM,
            LOADER,
            LOADER_LIBRARY,
        ] {
            if !unpacked.join(part).is_file() {
                bail!(
                    "this needs Bochs, and {part} is not there; {}",
                    Kind::Vtx.how()
                );
            }
        }
        Ok(Self { unpacked })
    }

    /// Starts the machine. It says what it has to say on its standard error, for its own words, of
    /// which it has many, are on its standard output.
    ///
    /// # Errors
    ///
    /// If the medium cannot be made, or the machine not be started.
    pub(crate) fn start(&self, kernel: &Kernel, image: &Path) -> Result<Child> {
        let at = folder().join("bochs-machine");
        fetch::remove(&at)?;
        fs::create_dir_all(&at).with_context(|| at.display().to_string())?;
        let medium = self.medium(&at, kernel, image)?;
        let configuration = at.join("bochsrc");
        fs::write(&configuration, self.configuration(&at, &medium))?;
        // Debian's Bochs has its debugger in it, which waits to be told to go on.
        let go_on = at.join("commands");
        fs::write(&go_on, "continue\n")?;
        let mut command = self.command(EMULATOR);
        command
            .arg("-q")
            .arg("-f")
            .arg(configuration)
            .arg("-rc")
            .arg(go_on)
            // The debugger ends the machine where there is nothing more to read.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        eprintln!("hw-test: starting Bochs");
        let child = process::tie(&mut command).spawn();
        child.with_context(|| format!("cannot start {EMULATOR}"))
    }

    /// A program of the packages, with its libraries.
    fn command(&self, program: &str) -> Command {
        let libraries = self.unpacked.join(LIBRARIES);
        let mut command = Command::new(self.unpacked.join(program));
        command
            .env("LTDL_LIBRARY_PATH", libraries.join("bochs/plugins"))
            .env("BXSHARE", self.unpacked.join("usr/share/bochs"))
            .env("LD_LIBRARY_PATH", libraries);
        command
    }

    /// Writes the medium from which the machine starts.
    fn medium(&self, at: &Path, kernel: &Kernel, image: &Path) -> Result<PathBuf> {
        let content = at.join("content");
        fs::create_dir(&content)?;
        for (from, name) in [
            (self.unpacked.join(LOADER), "isolinux.bin"),
            (self.unpacked.join(LOADER_LIBRARY), "ldlinux.c32"),
            (kernel.file.clone(), "kernel"),
            (image.to_owned(), "archive"),
        ] {
            fs::copy(&from, content.join(name)).with_context(|| from.display().to_string())?;
        }
        let menu =
            format!("default it\nlabel it\nkernel kernel\nappend initrd=archive {COMMAND_LINE}\n");
        fs::write(content.join("isolinux.cfg"), menu)?;
        let medium = at.join("medium.iso");
        let mut command = self.command(MAKE_MEDIUM);
        command
            .args(["-quiet", "-b", "isolinux.bin", "-c", "boot.catalog"])
            .args(["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
            .arg("-o")
            .arg(&medium)
            .arg(&content);
        process::check(&mut command)?;
        fetch::remove(&content)?;
        Ok(medium)
    }

    /// The machine, as `bochsrc` describes it (Bochs User Manual, 4.3).
    fn configuration(&self, at: &Path, medium: &Path) -> String {
        let lines = [
            // A Haswell has all of VMX that KVM wants. The clock of newer models runs slow: Linux
            // takes their time-stamp counter for a fast one.
            "cpu: model=corei7_haswell_4770, count=1, ips=50000000, reset_on_triple_fault=0, \
             ignore_bad_msrs=1, mwait_is_nop=1"
                .to_owned(),
            "memory: guest=1024, host=1024".to_owned(),
            format!("romimage: file={}", self.unpacked.join(BIOS).display()),
            format!(
                "vgaromimage: file={}",
                self.unpacked.join(VGA_BIOS).display()
            ),
            "pci: enabled=1, chipset=i440fx".to_owned(),
            "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14".to_owned(),
            format!(
                "ata0-master: type=cdrom, path={}, status=inserted",
                medium.display()
            ),
            "boot: cdrom".to_owned(),
            "com1: enabled=1, mode=file, dev=/dev/stderr".to_owned(),
            // The device `unmapped` has the port that ends the machine.
            "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, \
             iodebug=0"
                .to_owned(),
            "config_interface: textconfig".to_owned(),
            // There is no display that nobody sees; this one waits for nobody to look.
            "display_library: rfb, options=\"timeout=0\"".to_owned(),
            format!("log: {}", at.join("log").display()),
            "panic: action=fatal".to_owned(),
            "error: action=ignore".to_owned(),
            "info: action=ignore".to_owned(),
            "debug: action=ignore".to_owned(),
            "clock: sync=none, time0=local".to_owned(),
        ];
        lines.join("\n") + "\n"
    }
}

/// Whether Bochs itself says a line, until it has opened its log: a time of eleven digits, a letter,
/// and who says it in brackets.
pub(crate) fn says_it_itself(line: &str) -> bool {
    let is_time = |time: &str| time.bytes().all(|byte| byte.is_ascii_digit());
    line.split_at_checked(11).is_some_and(|(time, rest)| {
        let mut rest = rest.chars();
        is_time(time) && rest.next().is_some_and(char::is_alphabetic) && rest.next() == Some('[')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bochs_says_itself_is_known() {
        assert!(says_it_itself(
            "00000000000i[PLUGIN] loaded plugin libbx_serial.so"
        ));
        for line in [
            "",
            "ok    boot::a (0.3 s)",
            "00000000000",
            "[    2.671555] kernel",
        ] {
            assert!(!says_it_itself(line), "{line}");
        }
    }
}
