//! `wakebox doctor`: does KVM work here, which kind is it, what does it cost, what to fix.

mod programs;

use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::say::{self, say};
use super::style::Style;
use wakebox::jail::Kernel;
use wakebox::probe::{Costs, Probe};
use wakebox::units::{count, duration};

/// How long the measurements may take.
const MEASURE_FOR: Duration = Duration::from_millis(700);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How good what was found is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Note,
    Bad,
}

#[derive(serde::Serialize)]
struct Finding {
    grade: Grade,
    what: String,
}

/// Times in nanoseconds, each a median.
#[derive(serde::Serialize)]
struct Nanoseconds {
    create: u128,
    close: u128,
    round_trip: u128,
    system_call: u128,
}

/// What was found, for programs.
#[derive(serde::Serialize)]
struct Report {
    runs_guests: bool,
    findings: Vec<Finding>,
    costs: Option<Nanoseconds>,
}

/// Tells what it finds at once, or keeps it for a program.
struct Doctor {
    is_json: bool,
    style: Style,
    report: Report,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let mut doctor = Doctor {
        is_json: args.json,
        style: Style::of_stdout(),
        report: Report {
            runs_guests: false,
            findings: Vec::new(),
            costs: None,
        },
    };
    doctor.look()?;
    let runs = doctor.report.runs_guests;
    if args.json {
        say::json_of(&doctor.report)?;
    } else if runs {
        say!("{}", doctor.style.good("This machine runs Wakebox guests."));
    }
    Ok(ExitCode::from(u8::from(!runs)))
}

impl Doctor {
    fn tell(&mut self, grade: Grade, what: impl Into<String>) {
        let what = what.into();
        let word = match grade {
            Grade::Ok => self.style.good("ok  "),
            Grade::Note => self.style.faint("note"),
            Grade::Bad => self.style.bad("bad "),
        };
        if !self.is_json {
            say!("{word} {what}");
        }
        self.report.findings.push(Finding { grade, what });
    }

    fn look(&mut self) -> Result<()> {
        let opened = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        let mut probe = match (opened, Probe::new()) {
            (Ok(_), Ok(probe)) => probe,
            // The library's sentence, with its advice.
            (_, Err(error)) => {
                self.tell(Grade::Bad, error.to_string());
                return Ok(());
            }
            (Err(error), Ok(_)) => {
                self.tell(Grade::Bad, format!("/dev/kvm: {error}"));
                return Ok(());
            }
        };
        self.tell(Grade::Ok, "/dev/kvm is there and may be opened");
        self.tell(
            Grade::Ok,
            "it has what guests need, and a guest ran in ring 3",
        );
        self.tell(Grade::Note, format!("kind: {}", kind()));
        let counter = if probe.has_counter() {
            "yes, by the time-stamp counter"
        } else {
            "no: reading the clock costs an exit"
        };
        self.tell(
            Grade::Note,
            format!("guests tell the time without an exit: {counter}"),
        );
        self.tell(
            Grade::Note,
            match wakebox::probe::io_uring() {
                Ok(()) => "files can be waited for by io_uring (`--io`)".to_owned(),
                Err(error) => {
                    format!("files are waited for on threads: io_uring is not to be had ({error})")
                }
            },
        );
        self.look_at_jail();
        self.look_at_programs();

        let costs = probe.measure(MEASURE_FOR)?;
        self.show(&costs);
        self.advise(&costs);
        self.report.runs_guests = true;
        Ok(())
    }

    /// What the kernel has for the jail around the process.
    fn look_at_jail(&mut self) {
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
        let grade = if missing.is_empty() {
            Grade::Ok
        } else {
            Grade::Note
        };
        self.tell(
            grade,
            format!(
                "for the jail around the process, this kernel {}",
                parts.join(" and ")
            ),
        );
        for missing in missing {
            self.tell(Grade::Note, missing.to_string());
        }
    }

    /// Which programs of other people are here, and what brings the others.
    fn look_at_programs(&mut self) {
        for purpose in programs::PURPOSES {
            let (here, missing) = purpose.look();
            if missing.is_empty() {
                self.tell(Grade::Ok, format!("to {}: {here}", purpose.to));
                continue;
            }
            let has = match &*here {
                "" => String::new(),
                here => format!("has {here}, and "),
            };
            let missing = missing.join(", ");
            self.tell(
                Grade::Note,
                format!("to {}, this machine {has}lacks {missing}", purpose.to),
            );
        }
    }

    fn show(&mut self, costs: &Costs) {
        let system_call = system_call();
        self.report.costs = Some(Nanoseconds {
            create: costs.create.as_nanos(),
            close: costs.close.as_nanos(),
            round_trip: costs.round_trip.as_nanos(),
            system_call: system_call.as_nanos(),
        });
        if self.is_json {
            return;
        }
        say!("");
        say!("{}", self.style.strong("What it costs here (median)"));
        for (what, takes) in [
            ("create a machine, up to its first exit", costs.create),
            ("close it", costs.close),
            ("`out` from ring 3 and back", costs.round_trip),
            ("a system call, for comparison", system_call),
        ] {
            say!("  {what:<40} {}", duration(takes));
        }
        say!("");
    }

    /// What to do about what is slow or scarce here.
    fn advise(&mut self, costs: &Costs) {
        if costs.create > Duration::from_millis(5) {
            self.tell(Grade::Note,
                "creating a machine takes milliseconds: on Linux 6.x the cause is often the thread \
                 that KVM starts for `nx_huge_pages` recovery; cgroups mounted with `favordynmods`, or \
                 `kvm.nx_huge_pages=never` where you trust your guests, help",
            );
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        if let Some(limit) = limit.filter(|limit| *limit < 4096) {
            self.tell(Grade::Note, format!(
                "this shell may open {} files; each sandbox takes two, each of its sockets one more \
                 (`ulimit -n 65536`)",
                count(limit)
            ));
        }
        if !wakebox::probe::has_branch_barrier() {
            self.tell(Grade::Note,
                "this KVM has no barrier for indirect branches: where that matters, do not let guests have \
                 one machine after the other (`Builder::own_machine`)",
            );
        }
        if std::thread::available_parallelism().is_ok_and(|processors| processors.get() < 2) {
            self.tell(
                Grade::Note,
                "one processor: wake modes `poll` and `auto` work as `out` does",
            );
        }
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
