//! An emulated machine: started, listened to, and believed only if it ends as agreed.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Kind;
use super::bochs::{self, Bochs};
use super::fetch::Kernel;
use super::qemu::{self, Qemu};

/// What every kernel is told. Without `no_timer_check`, it gives up where the host is too busy for
/// its timer's first interrupts to come in time.
pub(crate) const COMMAND_LINE: &str = "console=ttyS0,115200 quiet loglevel=4 panic=-1 \
                                       mitigations=off random.trust_cpu=on nokaslr \
                                       no_timer_check";

/// How the tests went, as `hw-init` says it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    Broken,
}

/// The numbers by which `hw-init` says it.
pub(crate) const CODES: [(i32, Verdict); 3] = [
    (0x10, Verdict::Passed),
    (0x11, Verdict::Failed),
    (0x12, Verdict::Broken),
];

/// How long a machine may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// If it says nothing for so long, it hangs, and is ended.
    pub(crate) silence: Duration,
    /// After this, it is ended, and what it has said until then counts.
    pub(crate) all: Option<Duration>,
}

/// What emulates it.
#[derive(Debug)]
pub(crate) enum Machine {
    Qemu(Qemu),
    Bochs(Bochs),
}

impl Machine {
    /// The emulator of a kind, or the one that was asked for.
    ///
    /// # Errors
    ///
    /// If there is none that works.
    pub(crate) fn find(kind: Kind, asked: Option<PathBuf>) -> Result<Self> {
        match kind {
            Kind::Amd => Qemu::find(asked).map(Self::Qemu),
            Kind::Vtx => Bochs::find().map(Self::Bochs),
        }
    }

    /// Starts the machine, shows what it says, and waits for its end.
    ///
    /// # Errors
    ///
    /// A sentence for each way in which it did not end with all tests passed.
    pub(crate) fn run(&self, kernel: &Kernel, image: &Path, bounds: Bounds) -> Result<()> {
        let mut child = match self {
            Self::Qemu(qemu) => qemu.start(kernel, image),
            Self::Bochs(bochs) => bochs.start(kernel, image),
        }?;
        let said = match self {
            Self::Qemu(_) => {
                let output = child.stdout.take().context("QEMU has no output")?;
                listen(output, |_| false, bounds)
            }
            Self::Bochs(_) => {
                let output = child.stderr.take().context("Bochs has no output")?;
                listen(output, bochs::says_it_itself, bounds)
            }
        };
        if said.ended_by.is_some() {
            // It may have ended just now.
            let _ = child.kill();
        }
        let status = child.wait().context("cannot wait for the emulator")?;
        let verdict = match self {
            Self::Qemu(_) => qemu::verdict(status.code()),
            Self::Bochs(_) => said.verdict,
        };
        judge(&said, verdict).with_context(|| format!("the emulator: {status}"))
    }
}

/// Why a machine was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndedBy {
    /// It has said nothing for so long.
    Silence(Duration),
    /// It had so long in all.
    Time(Duration),
}

/// What was noticed in what the machine said.
#[derive(Debug, Default)]
struct Said {
    panic: Option<String>,
    passed: usize,
    failed: usize,
    /// What the first process said last.
    verdict: Option<Verdict>,
    ended_by: Option<EndedBy>,
}

impl Said {
    /// Looks at a line. What tests say is indented; nothing of it begins so.
    fn note(&mut self, line: &str) {
        if line.contains("Kernel panic") {
            self.panic = Some(line.to_owned());
        }
        self.passed += usize::from(line.starts_with("ok    "));
        self.failed += usize::from(line.starts_with("FAIL  "));
        if let Some(code) = line.strip_prefix("hw-test: verdict ") {
            let mut codes = CODES.into_iter();
            let found = codes.find(|(number, _)| number.to_string() == code);
            self.verdict = found.map(|(_, verdict)| verdict);
        }
    }
}

/// Passes on what the machine says, but not what is the emulator's own, until it ends or is to be
/// ended.
fn listen(
    output: impl Read + Send + 'static,
    is_emulators: impl Fn(&str) -> bool,
    bounds: Bounds,
) -> Said {
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
    let start = Instant::now();
    loop {
        let left = bounds.all.map(|all| all.saturating_sub(start.elapsed()));
        let wait = left.map_or(bounds.silence, |left| left.min(bounds.silence));
        match lines.recv_timeout(wait) {
            Ok(line) if is_emulators(&line) => {}
            Ok(line) => {
                println!("{line}");
                said.note(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return said,
            Err(RecvTimeoutError::Timeout) => {
                said.ended_by = Some(match bounds.all {
                    Some(all) if start.elapsed() >= all => EndedBy::Time(all),
                    _ => EndedBy::Silence(bounds.silence),
                });
                return said;
            }
        }
    }
}

fn judge(said: &Said, verdict: Option<Verdict>) -> Result<()> {
    match said.ended_by {
        Some(EndedBy::Silence(silence)) => bail!(
            "the machine has said nothing for {} s, and was ended",
            silence.as_secs()
        ),
        Some(EndedBy::Time(all)) if said.passed == 0 => bail!(
            "no test has passed in the {} s that this may take",
            all.as_secs()
        ),
        Some(EndedBy::Time(all)) if said.failed == 0 && said.panic.is_none() => {
            println!(
                "hw-test: {} passed in {} s; there was no time for the others",
                said.passed,
                all.as_secs()
            );
            return Ok(());
        }
        _ => {}
    }
    if let Some(panic) = &said.panic {
        bail!("the machine's kernel gave up: {panic}");
    }
    match verdict {
        _ if said.failed > 0 => bail!("tests failed on emulated hardware"),
        Some(Verdict::Passed) => Ok(()),
        Some(Verdict::Failed) => bail!("tests failed on emulated hardware"),
        Some(Verdict::Broken) => bail!("the machine could not run the tests: see its last line"),
        None => bail!("the machine ended without saying how the tests went"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Bounds = Bounds {
        silence: Duration::from_secs(3600),
        all: None,
    };

    fn said(text: &'static str) -> Said {
        listen(text.as_bytes(), bochs::says_it_itself, SOON)
    }

    #[test]
    fn what_the_first_process_says_last_is_its_verdict() {
        assert_eq!(
            said("ok    a (1 s)\nhw-test: verdict 16\n").verdict,
            Some(Verdict::Passed)
        );
        assert_eq!(said("hw-test: verdict 17\n").verdict, Some(Verdict::Failed));
        assert_eq!(said("    | hw-test: verdict 16\n").verdict, None);
        assert_eq!(said("hw-test: verdict 3\n").verdict, None);
    }

    #[test]
    fn only_a_verdict_is_believed_and_no_failure_beside_it() {
        let passed = Some(Verdict::Passed);
        assert!(judge(&said("ok    a\n"), passed).is_ok());
        for verdict in [None, Some(Verdict::Failed), Some(Verdict::Broken)] {
            assert!(judge(&said("ok    a\n"), verdict).is_err(), "{verdict:?}");
        }
        assert!(judge(&said("FAIL  a\n"), passed).is_err());
        assert!(judge(&said("Kernel panic - not syncing\n"), passed).is_err());
    }

    #[test]
    fn when_time_is_up_what_was_reached_counts() {
        let at_the_end = |text| Said {
            ended_by: Some(EndedBy::Time(Duration::from_secs(240))),
            ..said(text)
        };
        assert!(judge(&at_the_end("ok    a\n"), None).is_ok());
        for text in ["", "skip  a\n", "ok    a\nFAIL  b\n"] {
            assert!(judge(&at_the_end(text), None).is_err(), "{text}");
        }
        let silent = Said {
            ended_by: Some(EndedBy::Silence(Duration::from_secs(60))),
            ..said("ok    a\n")
        };
        assert!(judge(&silent, None).is_err());
    }
}
