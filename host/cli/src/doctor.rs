//! `wakebox doctor`: does KVM work here, which kind is it, what does it cost, what to fix.

mod programs;

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::say::say;
use super::style::Style;
use wakebox::jail::Kernel;
use wakebox::probe::{Costs, Probe};
use wakebox::units::{count, duration};

/// How long the measurements may take.
const MEASURE_FOR: Duration = Duration::from_millis(700);

pub(super) fn run() -> Result<ExitCode> {
    let style = Style::of_stdout();
    let good = |text: &str| say!("{} {text}", style.good("ok  "));
    let bad = |text: &str| say!("{} {text}", style.bad("bad "));
    let note = |text: &str| say!("{} {text}", style.faint("note"));

    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(_) => good("/dev/kvm is there and may be opened"),
        Err(error) => {
            // The library's sentence, with its advice.
            match Probe::new() {
                Err(known) => bad(&known.to_string()),
                Ok(_) => bad(&format!("/dev/kvm: {error}")),
            }
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut probe = match Probe::new() {
        Ok(probe) => probe,
        Err(error) => {
            bad(&error.to_string());
            return Ok(ExitCode::FAILURE);
        }
    };
    good("it has what guests need, and a guest ran in ring 3");
    note(&format!("kind: {}", kind()));
    let counter = if probe.has_counter() {
        "yes, by the time-stamp counter"
    } else {
        "no: reading the clock costs an exit"
    };
    note(&format!("guests tell the time without an exit: {counter}"));
    note(&match wakebox::probe::io_uring() {
        Ok(()) => "files can be waited for by io_uring (`--io`)".to_owned(),
        Err(error) => {
            format!("files are waited for on threads: io_uring is not to be had ({error})")
        }
    });
    tell_jail(style);
    tell_programs(style);

    let costs = probe.measure(MEASURE_FOR)?;
    show_costs(&costs, style);
    say!("");
    advise(&costs, style);
    say!("{}", style.good("This machine runs Wakebox guests."));
    Ok(ExitCode::SUCCESS)
}

/// What the kernel has for the jail around the process.
fn tell_jail(style: Style) {
    let good = |text: &str| say!("{} {text}", style.good("ok  "));
    let note = |text: &str| say!("{} {text}", style.faint("note"));
    let kernel = Kernel::look();
    let part = |name: &str, has: bool| format!("{} {name}", if has { "has" } else { "lacks" });
    let landlock = match kernel.landlock {
        Some(version) => format!("Landlock (ABI {version})"),
        None => "Landlock".into(),
    };
    let parts = [
        part("seccomp filters", kernel.seccomp),
        part(&landlock, kernel.landlock.is_some()),
    ];
    let missing = kernel.missing();
    let line = format!(
        "for the jail around the process, this kernel {}",
        parts.join(" and ")
    );
    if missing.is_empty() {
        good(&line);
    } else {
        note(&line);
    }
    for missing in missing {
        note(&missing.to_string());
    }
}

/// Which programs of other people are here, and what brings the others.
fn tell_programs(style: Style) {
    for purpose in programs::PURPOSES {
        let (here, missing) = purpose.look();
        if missing.is_empty() {
            say!("{} to {}: {here}", style.good("ok  "), purpose.to);
            continue;
        }
        let has = match &*here {
            "" => String::new(),
            here => format!("has {here}, and "),
        };
        let missing = missing.join(", ");
        say!(
            "{} to {}, this machine {has}lacks {missing}",
            style.faint("note"),
            purpose.to
        );
    }
}

fn show_costs(costs: &Costs, style: Style) {
    say!("");
    say!("{}", style.strong("What it costs here (median)"));
    say!(
        "  create a machine, up to its first exit   {}",
        duration(costs.create)
    );
    say!(
        "  close it                                 {}",
        duration(costs.close)
    );
    say!(
        "  `out` from ring 3 and back               {}",
        duration(costs.round_trip)
    );
    say!(
        "  a system call, for comparison            {}",
        duration(system_call())
    );
}

/// What to do about what is slow or scarce here.
fn advise(costs: &Costs, style: Style) {
    let note = |text: &str| say!("{} {text}", style.faint("note"));
    if costs.create > Duration::from_millis(5) {
        note(
            "creating a machine takes milliseconds: on Linux 6.x the cause is often the thread \
             that KVM starts for `nx_huge_pages` recovery; cgroups mounted with `favordynmods`, or \
             `kvm.nx_huge_pages=never` where you trust your guests, help",
        );
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit.filter(|limit| *limit < 4096) {
        note(&format!(
            "this shell may open {} files; each sandbox takes two, each of its sockets one more \
             (`ulimit -n 65536`)",
            count(limit)
        ));
    }
    if !wakebox::probe::has_branch_barrier() {
        note(
            "this KVM has no barrier for indirect branches: where that matters, do not let guests have \
             one machine after the other (`Builder::own_machine`)",
        );
    }
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        note("one processor: wake modes `poll` and `auto` work as `out` does");
    }
}

/// Which KVM this is, as far as the system tells.
fn kind() -> String {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    let has = |name: &str| {
        modules
            .lines()
            .any(|line| line.starts_with(&format!("{name} ")))
            || fs::metadata(format!("/sys/module/{name}")).is_ok()
    };
    let mut kind = String::from(match () {
        () if has("kvm_pvm") => "KVM-PVM, without hardware virtualization",
        () if has("kvm_intel") => "Intel VT-x",
        () if has("kvm_amd") => "AMD-V",
        () => {
            let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let flag = |name: &str| flags.split_whitespace().any(|word| word == name);
            if flag("vmx") {
                "Intel VT-x"
            } else if flag("svm") {
                "AMD-V"
            } else {
                "a KVM without hardware virtualization, such as KVM-PVM (the processor shows \
                 neither vmx nor svm)"
            }
        }
    });
    if wakebox::probe::is_emulated() {
        kind.push_str(", which QEMU emulates");
    }
    if let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        let _ = write!(kind, "; Linux {}", release.trim());
    }
    kind
}

/// The time of a system call that does nothing.
fn system_call() -> Duration {
    const CALLS: u32 = 10_000;
    let start = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(rustix::process::getppid());
    }
    start.elapsed() / CALLS
}
