//! From a kernel and a packed file system to something in which tests can run.

use std::arch::asm;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, finit_module, reboot};

/// How it went, as the emulator's exit status will say it: twice this and one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Passed = 0x10,
    Failed = 0x11,
    /// The tests could not be run.
    Broken = 0x12,
}

/// Of the emulator's `isa-debug-exit` device.
const EXIT_PORT: u16 = 0x501;

/// In the order in which one needs the other.
const MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];

pub(crate) fn file_systems() -> Result<()> {
    for (kind, at) in [
        ("devtmpfs", "/dev"),
        ("devpts", "/dev/pts"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/dev/shm"),
    ] {
        fs::create_dir_all(at).context(at)?;
        mount(kind, at, kind, MountFlags::empty(), None)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot mount {at}"))?;
    }
    Ok(())
}

/// Switches the loopback device on.
pub(crate) fn network() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("cannot make a socket")?;
    // SAFETY: zeroes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `SIOCSIFFLAGS` reads an `ifreq`, which this is, and keeps no pointer (netdevice(7)).
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot switch the loopback device on");
    }
    Ok(())
}

/// As many descriptors as a usual login has.
pub(crate) fn limits() -> Result<()> {
    const FILES: Option<u64> = Some(1 << 16);
    let limit = Rlimit {
        current: FILES,
        maximum: FILES,
    };
    setrlimit(Resource::Nofile, limit)
        .map_err(io::Error::from)
        .context("cannot raise the limit of open files")
}

/// Loads the modules that make `/dev/kvm`.
pub(crate) fn kvm() -> Result<()> {
    for name in MODULES {
        let path = Path::new("/modules").join(name).with_extension("ko");
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        finit_module(&file, c"", 0)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot load the module {name}"))?;
    }
    if !Path::new("/dev/kvm").exists() {
        bail!("the modules are loaded, and there is no /dev/kvm");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("hw-test: Linux {}, kvm_amd", release.trim());
    Ok(())
}

/// Ends the machine, when all that was said has left it.
pub(crate) fn end(verdict: Verdict) -> ! {
    // The emulator does not wait for what the kernel has yet to send.
    let _ = rustix::termios::tcdrain(std::io::stdout());
    // SAFETY: this process may use any port, being root in a machine whose only such device
    // is the one that ends it.
    unsafe {
        if libc::ioperm(EXIT_PORT.into(), 1, 1) == 0 {
            asm!("out dx, al", in("dx") EXIT_PORT, in("al") verdict as u8, options(nomem, nostack));
        }
    }
    // Without that device. xtask misses the exit status, and says so.
    let _ = reboot(RebootCommand::PowerOff);
    std::process::exit(1);
}
