//! Emulators and a kernel from Debian's packages, unpacked into `target/hw`.
//!
//! Nothing is installed and nobody needs to be root: apt is used with lists and a cache of
//! our own beside its usual configuration, which says where packages come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::machine::Machine;
use super::{Kind, folder};
use crate::process;

/// A package that depends on the newest kernel.
const KERNEL: &str = "linux-image-cloud-amd64";
const QEMU: [&str; 2] = ["qemu-system-x86", "seabios"];
/// With what makes the medium from which it starts.
const BOCHS: [&str; 6] = [
    "bochs",
    "bochsbios",
    "genisoimage",
    "isolinux",
    "syslinux-common",
    "vgabios",
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where Debian is, if apt does not say.
const ARCHIVE: &str = "http://deb.debian.org/debian";

/// A kernel and those of its modules that make `/dev/kvm`.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) file: PathBuf,
    pub(crate) modules: Vec<(&'static str, PathBuf)>,
}

/// Where QEMU is, if it was fetched.
pub(crate) fn qemu() -> PathBuf {
    folder().join("qemu")
}

/// Where Bochs is, if it was fetched.
pub(crate) fn bochs() -> PathBuf {
    folder().join("bochs")
}

/// The kernel that was fetched, with the modules for a kind of hardware.
///
/// # Errors
///
/// If there is none, or it lacks a module.
pub(crate) fn kernel(kind: Kind) -> Result<Kernel> {
    let root = folder().join("kernel");
    let Ok(file) = only(&root.join("boot"), "vmlinuz-") else {
        bail!("this needs Debian's {KERNEL}; {}", kind.how());
    };
    let all = only(&root.join("lib/modules"), "")?.join("kernel");
    // `hw-init` loads them in this order: one needs the other.
    let own = kind.module();
    let modules = [
        ("irqbypass", "virt/lib/irqbypass.ko".to_owned()),
        ("kvm", "arch/x86/kvm/kvm.ko".to_owned()),
        (own, format!("arch/x86/kvm/{own}.ko")),
    ];
    let modules = modules.map(|(name, path)| (name, all.join(path)));
    if let Some((name, path)) = modules.iter().find(|(_, path)| !path.is_file()) {
        bail!("the kernel has no module {name}: {}", path.display());
    }
    Ok(Kernel {
        file,
        modules: modules.into(),
    })
}

/// The one entry of a folder that begins so.
fn only(folder: &Path, start: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = paths.filter(|path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(start)
    });
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("{} should hold one `{start}*`", folder.display()),
    }
}

/// Fetches what is missing.
///
/// # Errors
///
/// If this is not Debian, or apt cannot.
pub(crate) fn all(kind: Kind) -> Result<()> {
    let needs_emulator = Machine::find(kind, None).is_err();
    let needs_kernel = kernel(kind).is_err();
    if !needs_emulator && !needs_kernel {
        eprintln!("hw-test: everything is there");
        return Ok(());
    }
    let apt = Apt::new()?;
    if needs_emulator {
        let (packages, into) = match kind {
            Kind::Amd => (&QEMU[..], qemu()),
            Kind::Vtx => (&BOCHS[..], bochs()),
        };
        apt.fetch_with_dependencies(packages)?;
        apt.unpack(&into)?;
    }
    if needs_kernel {
        let package = apt.dependency(KERNEL)?;
        apt.fetch(&package)?;
        apt.unpack(&folder().join("kernel"))?;
    }
    apt.clean()?;
    super::is_ready(kind)
}

/// apt with everything that it keeps in a folder of ours.
#[derive(Debug)]
struct Apt {
    folder: PathBuf,
    release: String,
}

impl Apt {
    fn new() -> Result<Self> {
        let about = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let value = |name: &str| {
            let lines = about.lines().filter_map(|line| line.split_once('='));
            let mut values = lines.filter(|(key, _)| *key == name);
            values.next().map(|(_, value)| value.trim_matches('"'))
        };
        let (Some("debian"), Some(codename)) = (value("ID"), value("VERSION_CODENAME")) else {
            bail!(
                "only Debian's packages can be fetched, and this is not Debian. Run this in a \
                 container with Debian"
            );
        };
        let apt = Self {
            folder: folder().join("apt"),
            // Debian 12 has QEMU 7.2, which hangs.
            release: match codename {
                "bookworm" => "bookworm-backports".to_owned(),
                other => other.to_owned(),
            },
        };
        apt.clean()?;
        for name in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(apt.folder.join(name)).context("target/hw/apt")?;
        }
        let archive = archive(codename).unwrap_or_else(|| ARCHIVE.to_owned());
        let mut sources = format!("deb [signed-by={KEYRING}] {archive} {codename} main\n");
        if apt.release != codename {
            sources += &format!("deb [signed-by={KEYRING}] {archive} {} main\n", apt.release);
        }
        fs::write(apt.folder.join("sources.list"), sources)?;
        fs::write(apt.folder.join("apt.conf"), apt.configuration())?;
        process::check(apt.command("apt-get").args(["--quiet", "update"]))?;
        Ok(apt)
    }

    /// What differs from the system's configuration (apt.conf(5)).
    fn configuration(&self) -> String {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut text = String::new();
        for (option, value) in [
            ("Dir::Etc::SourceList", &*at("sources.list")),
            ("Dir::Etc::SourceParts", "-"),
            ("Dir::State::Lists", &at("lists")),
            ("Dir::Cache", &at("")),
            ("Dir::Cache::Archives", &at("archives")),
            // The lock and the user of the system's own cache.
            ("Debug::NoLocking", "1"),
            ("APT::Sandbox::User", ""),
            // Where there is no network, an error, and soon.
            ("APT::Update::Error-Mode", "any"),
            ("Acquire::Retries", "1"),
            ("Acquire::http::Timeout", "20"),
            ("Acquire::https::Timeout", "20"),
            // Nothing but names and sums of packages.
            ("Acquire::Languages", "none"),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false",
            ),
        ] {
            text += &format!("{option} \"{value}\";\n");
        }
        text
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.join("archives"))
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C")
            .arg("--config-file")
            .arg(self.folder.join("apt.conf"));
        command
    }

    /// Downloads packages and what they need that this system does not have.
    fn fetch_with_dependencies(&self, packages: &[&str]) -> Result<()> {
        process::check(
            self.command("apt-get")
                .args(["--quiet", "--yes", "--download-only"])
                .args(["--no-install-recommends", "--target-release"])
                .arg(&self.release)
                .arg("install")
                .args(packages),
        )
    }

    /// Downloads one package.
    fn fetch(&self, package: &str) -> Result<()> {
        process::check(
            self.command("apt-get")
                .args(["--quiet", "download", package]),
        )
    }

    /// The package on which another depends.
    fn dependency(&self, package: &str) -> Result<String> {
        let output = self
            .command("apt-cache")
            .args(["depends", "--important", package])
            .output()
            .context("cannot start apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        let name = names.next().map(str::to_owned);
        name.with_context(|| format!("apt knows no package {package}"))
    }

    /// Unpacks what was downloaded, and forgets it. The folder appears when it is complete.
    fn unpack(&self, into: &Path) -> Result<()> {
        let partial = into.with_extension("partial");
        remove(&partial)?;
        remove(into)?;
        let archives = self.folder.join("archives");
        for entry in fs::read_dir(&archives).context("target/hw/apt/archives")? {
            let package = entry?.path();
            if package.extension().is_some_and(|name| name == "deb") {
                process::check(Command::new("dpkg").arg("-x").arg(&package).arg(&partial))?;
                fs::remove_file(package)?;
            }
        }
        fs::rename(&partial, into).with_context(|| into.display().to_string())
    }

    fn clean(&self) -> Result<()> {
        remove(&self.folder)
    }
}

/// The archive from which this system has its packages.
fn archive(codename: &str) -> Option<String> {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(RELEASE) $(COMPONENT) $(REPO_URI)",
        ])
        .arg("Identifier: Packages")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let start = format!("{codename} main ");
    let mut archives = text.lines().filter_map(|line| line.strip_prefix(&start));
    archives.next().map(str::to_owned)
}

/// Removes a folder, if it is there.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}
