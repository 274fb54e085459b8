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

/// How it went: said in the last line, and with QEMU as its exit status, which is twice this and one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Passed = 0x10,
    Failed = 0x11,
    /// The tests could not be run.
    Broken = 0x12,
}

/// Of QEMU's device `isa-debug-exit`.
const EXIT_PORT: u16 = 0x501;
/// Of Bochs's device `unmapped`, which ends the machine when it is told so.
const SHUTDOWN_PORT: u16 = 0x8900;
const SHUTDOWN: &[u8] = b"Shutdown";

/// In the order in which one needs the other; of the last two there is one.
const MODULES: [&str; 4] = ["irqbypass", "kvm", "kvm-amd", "kvm-intel"];

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
    let path = |name: &str| Path::new("/modules").join(name).with_extension("ko");
    let mut last = "";
    for name in MODULES.into_iter().filter(|name| path(name).exists()) {
        let path = path(name);
        last = name;
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        finit_module(&file, c"", 0)
            .map_err(io::Error::from)
            .with_context(|| format!("cannot load the module {name}"))?;
    }
    if !Path::new("/dev/kvm").exists() {
        bail!("the modules are loaded, and there is no /dev/kvm");
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("hw-test: Linux {}, {last}", release.trim());
    Ok(())
}

/// Ends the machine, when all that was said has left it.
pub(crate) fn end(verdict: Verdict) -> ! {
    println!("hw-test: verdict {}", verdict as u8);
    // The emulator does not wait for what the kernel has yet to send.
    let _ = rustix::termios::tcdrain(std::io::stdout());
    // QEMU has nothing there; the other one is where Bochs's firmware reports that it has failed.
    write_port(SHUTDOWN_PORT, SHUTDOWN);
    write_port(EXIT_PORT, &[verdict as u8]);
    // With neither device. xtask misses the exit status, and says so.
    let _ = reboot(RebootCommand::PowerOff);
    std::process::exit(1);
}

fn write_port(port: u16, bytes: &[u8]) {
    // SAFETY: this process may use any port, being root in a machine whose only devices behind these
    // ports are those that end it.
    unsafe {
        if libc::ioperm(port.into(), 1, 1) == 0 {
            for byte in bytes {
                asm!("out dx, al", in("dx") port, in("al") *byte, options(nomem, nostack));
            }
        }
    }
}
