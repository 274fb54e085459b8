//! `wakebox run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::jail::JailArgs;
use super::lint::describe;
use super::outcome::{Frames, explain, write_report};
use super::output::OutputFile;
use super::policy::{Grants, LimitArgs};
use super::say::note;
use super::style::Style;
use wakebox::trace::lint::{Lint, Thresholds};
use wakebox::{Builder, Input, Outcome, Output, Sandbox, WakeMode, trace};

/// Exit status of the command when the guest did not run at all is 1; otherwise:
const STATUSES: &str = "\
Exit status: the guest's own; 101 if it panicked, 123 if it slept with nothing to wait for, 124 \
if it reached a limit that ends it, 125 if it broke the interface, 130 if it was interrupted, 139 if \
it faulted; 1 if it could not be run, or if --lint found something.";

#[derive(Debug, clap::Args)]
#[command(after_help = STATUSES)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) sandbox: SandboxArgs,

    /// Arguments of the guest
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// What a sandbox is made of, for all commands that make one.
#[derive(Debug, clap::Args)]
pub(super) struct SandboxArgs {
    /// The guest: a binary that `cargo build` made of a crate with `#[wakebox_guest::main]`
    guest: PathBuf,

    /// How a sleeping guest is woken: by the return of `out`, by an interrupt, by memory that it
    /// watches, or by whichever suits
    #[arg(long, value_name = "MODE", default_value = "auto", value_parser = ["out", "irq", "poll", "auto"])]
    wake: String,

    /// At the end, print exits, wakes, operations, polls and times on standard error
    #[arg(long)]
    stats: bool,

    /// How much of a backtrace is shown when the guest panics, faults or is stopped
    #[arg(long, value_enum, value_name = "FRAMES", default_value_t = Frames::Short)]
    backtrace: Frames,

    /// A file with the debug information of a stripped guest
    #[arg(long, value_name = "FILE")]
    symbols: Option<PathBuf>,

    /// Write how the guest ended to this file, in JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// If the guest does not end by itself, write its memory and registers to this file, for `gdb
    /// GUEST FILE`; it stays empty otherwise
    #[arg(long, value_name = "FILE")]
    crash_dump: Option<PathBuf>,

    /// Write what happens on both sides to FILE, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Write a page with the run's timeline to FILE, for any browser
    #[arg(long, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// Places of the ring in which the guest's trace records wait to be taken out
    #[arg(long, value_name = "N", default_value_t = trace::RECORDS)]
    trace_ring: u32,

    /// Watch the run, and say at the end on standard error what looks wrong with the guest's tasks;
    /// the exit status is 1 then, if it were 0 otherwise. `wakebox lint` has the thresholds
    #[arg(long)]
    lint: bool,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    jail: JailArgs,

    #[command(flatten)]
    grants: Grants,
}

/// What is to be said when the guest has ended.
#[derive(Debug)]
pub(super) struct Wishes {
    guest: PathBuf,
    stats: bool,
    backtrace: Frames,
    report: Option<OutputFile>,
    dump: Option<OutputFile>,
    lint: Option<trace::Shared<Lint>>,
}

impl SandboxArgs {
    /// The guest's file.
    pub(super) fn guest(&self) -> &Path {
        &self.guest
    }

    /// The command draws on its terminal, and reads keys.
    pub(super) fn keep_terminal(&mut self) {
        self.jail.terminal = true;
    }

    /// Puts this process into its jail, and returns a builder with these settings and this
    /// process's output. To be called before there is another thread, and after all other files
    /// have been opened that the command writes.
    pub(super) fn into_jailed_builder(self, wishes: &Wishes) -> Result<Builder> {
        let policy = self.grants.into_policy()?;
        let writer = |path: &PathBuf| {
            trace::json::Writer::create(path)
                .with_context(|| format!("cannot write the trace to {}", path.display()))
        };
        let writer = self.trace.as_ref().map(writer).transpose()?;
        let page = |path: &PathBuf| {
            trace::timeline::Writer::create(path)
                .with_context(|| format!("cannot write the timeline to {}", path.display()))
        };
        let page = self.timeline.as_ref().map(page).transpose()?;
        self.jail
            .enter(&policy, &self.guest, self.symbols.as_deref())?;
        let mode: WakeMode = self.wake.parse()?;
        let mut builder = Sandbox::builder()
            .guest(self.guest)
            .wake(mode)
            .limits(self.limits.into_limits())
            .policy(policy)
            .stdout(Output::Inherit)
            .stderr(Output::Inherit)
            .trace_records(self.trace_ring);
        if let Some(path) = self.symbols {
            builder = builder.symbols(path);
        }
        if let Some(writer) = writer {
            builder = builder.trace(writer);
        }
        if let Some(page) = page {
            builder = builder.trace(page);
        }
        if let Some(lint) = &wishes.lint {
            builder = builder.trace(lint.clone());
        }
        Ok(builder)
    }

    /// What is to be said at the end. Opens what is written then.
    ///
    /// # Errors
    ///
    /// The report or the crash dump cannot be written.
    pub(super) fn wishes(&self) -> Result<Wishes> {
        let report = |path: &PathBuf| OutputFile::open(path, 0o666, "the report");
        // It may hold secrets.
        let dump = |path: &PathBuf| OutputFile::open(path, 0o600, "the crash dump");
        Ok(Wishes {
            guest: self.guest.clone(),
            stats: self.stats,
            backtrace: self.backtrace,
            report: self.report.as_ref().map(report).transpose()?,
            dump: self.crash_dump.as_ref().map(dump).transpose()?,
            lint: self
                .lint
                .then(|| trace::Shared::new(Lint::new(Thresholds::default()))),
        })
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let mut wishes = args.sandbox.wishes()?;
    let builder = args
        .sandbox
        .into_jailed_builder(&wishes)?
        .args(args.args)
        .stdin(Input::Inherit);
    let (sandbox, outcome) = run_until(builder, std::future::pending())?;
    if let Some(error) = sandbox.trace_error() {
        let style = Style::of_stderr();
        note!(
            "{}: the trace is incomplete: {error}",
            style.error("wakebox")
        );
    }

    conclude(&mut wishes, &outcome, &sandbox)
}

/// Runs a guest to its end, which comes early if somebody presses Ctrl-C, or as soon as `stop` is
/// ready.
///
/// # Errors
///
/// It cannot be run.
pub(super) fn run_until(
    builder: Builder,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(Sandbox, Outcome)> {
    let (sandbox, outcome, ()) = run_beside(builder, stop, |_| std::future::ready(()))?;
    Ok((sandbox, outcome))
}

/// As [`run_until`], with something else that is done meanwhile.
///
/// # Errors
///
/// As [`run_until`].
pub(super) fn run_beside<T, F: Future<Output = T>>(
    builder: Builder,
    stop: impl Future<Output = ()> + Send + 'static,
    beside: impl FnOnce(&Sandbox) -> F,
) -> Result<(Sandbox, Outcome, T)> {
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut sandbox = builder.build()?;
        let kill = sandbox.kill_handle();
        let stopped = tokio::spawn(async move {
            tokio::select! {
                Ok(()) = tokio::signal::ctrl_c() => {}
                () = stop => {}
            }
            kill.kill();
        });
        let beside = beside(&sandbox);
        // On a worker: a guest that computes must not keep this thread from its signals.
        let run = tokio::spawn(async move {
            let outcome = sandbox.run().await;
            (sandbox, outcome)
        });
        let (run, done) = tokio::join!(run, beside);
        let (sandbox, outcome) = run?;
        stopped.abort();
        anyhow::Ok((sandbox, outcome?, done))
    });
    // A read of standard input that is under way cannot be taken back; it must not keep the
    // command.
    runtime.shutdown_background();
    result
}

/// One worker enters the guest, the other turns the reactor meanwhile.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// Says how the guest ended, if it did not end by itself, and what it did. Writes what was asked
/// for.
///
/// # Errors
///
/// The report or the crash dump that was asked for cannot be written.
pub(super) fn conclude(
    wishes: &mut Wishes,
    outcome: &Outcome,
    sandbox: &Sandbox,
) -> Result<ExitCode> {
    let style = Style::of_stderr();
    let was_stopped = matches!(
        outcome,
        Outcome::Limit(_) | Outcome::Violation(_) | Outcome::Cancelled
    );
    let stopped_at = was_stopped.then(|| sandbox.backtrace()).transpose()?;
    if !matches!(outcome, Outcome::Exit(_)) {
        explain(outcome, stopped_at.as_ref(), wishes.backtrace, style);
    }
    if wishes.stats {
        note!("{}", style.faint(&sandbox.stats().to_string()));
    }
    if let Some(file) = &mut wishes.report {
        let guest = wishes.guest.display().to_string();
        write_report(file, &guest, outcome, stopped_at.as_ref())?;
    }
    let mut status = outcome.exit_status();
    if let Some(lint) = &wishes.lint {
        let found = lint.with(|lint| lint.report());
        note!("{}", describe(&found, style).trim_end());
        if status == 0 && !found.is_clean() {
            status = 1;
        }
    }
    if let Some(file) = &mut wishes.dump
        && !matches!(outcome, Outcome::Exit(_))
    {
        let dump = sandbox.crash_dump()?;
        let written = file.start().and_then(|file| dump.write_to(file));
        written
            .with_context(|| format!("cannot write the crash dump {}", file.path().display()))?;
        note!(
            "a crash dump was written: gdb {} {}",
            wishes.guest.display(),
            file.path().display()
        );
    }
    Ok(ExitCode::from(status))
}
