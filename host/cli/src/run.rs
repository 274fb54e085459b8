//! `wakebox run`.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::guest::GuestArgs;
use super::lint::describe;
use super::outcome::{Frames, Memory, Report, explain};
use super::output::{OutputFile, Outputs, Readers, Stream};
use super::refusals;
use super::say::{note, remark};
use super::signals;
use super::style::Style;
use super::tasks;
use super::template::KeyOf;
use wakebox::trace::lint::{Lint, Thresholds};
use wakebox::{Builder, Error, Gdb, GdbListener, Input, Outcome, Output, Sandbox, trace};

/// Exit status of the command when the guest did not run at all is 1; otherwise:
const STATUSES: &str = "\
Exit status: the guest's own; 101 if it panicked, 123 if it slept with nothing to wait for, 124 \
if it reached a limit that ends it, 125 if it broke the interface, 139 if it faulted; 129, 130 or \
143 if SIGHUP, SIGINT or SIGTERM ended it; 1 if it could not be run, if --lint found something, or if \
something that it wrote, or the trace, did not arrive where it was to go.";

#[derive(Debug, clap::Args)]
#[command(after_help = STATUSES)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) sandbox: SandboxArgs,

    /// Wait for gdb at 127.0.0.1:PORT, any that is free if none is named, and let it have the guest before its first
    /// instruction: `gdb GUEST -ex 'target remote 127.0.0.1:PORT'`
    #[arg(
        long,
        help_heading = SHOWN,
        value_name = "PORT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0"
    )]
    gdb: Option<u16>,

    /// Arguments of the guest: the first one that is no option, and all behind it or behind `--`
    #[arg(
        trailing_var_arg = true,
        value_name = "ARGS",
        help_heading = None
    )]
    args: Vec<String>,
}

impl Args {
    /// The file, and what it is given.
    pub(super) fn program(&self) -> (&Path, &[String]) {
        (self.sandbox.guest(), &self.args)
    }
}

/// Above the options that say what is shown of a run, and where it goes.
const SHOWN: &str = "What is shown and written";

/// What a sandbox is made of, for all commands that make one.
#[derive(Debug, clap::Args)]
pub(super) struct SandboxArgs {
    #[command(flatten)]
    guest: GuestArgs,

    /// At the end, print exits, wakes, operations, polls and times on standard error
    #[arg(long, help_heading = SHOWN)]
    stats: bool,

    /// How much of a backtrace is shown when the guest panics, faults or is stopped
    #[arg(long, help_heading = SHOWN, value_enum, value_name = "FRAMES", default_value_t = Frames::Short)]
    backtrace: Frames,

    /// A file with the debug information of a stripped guest
    #[arg(long, help_heading = SHOWN, value_name = "FILE")]
    symbols: Option<PathBuf>,

    /// Write how the guest ended to this file, in JSON. `-` is standard output, here and for --trace and
    /// --timeline; what the guest writes there goes to standard error then
    #[arg(long, help_heading = SHOWN, value_name = "FILE")]
    report: Option<PathBuf>,

    /// If the guest does not end by itself, write its memory and registers to this file, for `gdb
    /// GUEST FILE`; else it is left as it is
    #[arg(long, help_heading = SHOWN, value_name = "FILE")]
    crash_dump: Option<PathBuf>,

    /// Write what happens on both sides to FILE, for ui.perfetto.dev
    #[arg(long, help_heading = SHOWN, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Write a page with the run's timeline to FILE, for any browser
    #[arg(long, help_heading = SHOWN, value_name = "FILE")]
    timeline: Option<PathBuf>,

    /// Slots of the ring in which the guest's trace records wait to be taken out
    #[arg(long, help_heading = SHOWN, value_name = "N", default_value_t = trace::RECORDS)]
    trace_ring: u32,

    /// Watch the run, and say at the end on standard error what looks wrong with the guest's tasks;
    /// the exit status is 1 then, if it were 0 otherwise. `wakebox lint` has the thresholds
    #[arg(long, help_heading = SHOWN)]
    lint: bool,
}

/// Whose standard output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stdout {
    /// The guest's, or that of one file which is called `-`.
    Free,
    /// The command has something else for it.
    Taken(&'static str),
}

/// What is to be said when the guest has ended.
#[derive(Debug)]
pub(super) struct Wishes {
    guest: PathBuf,
    stats: bool,
    backtrace: Frames,
    report: Option<OutputFile>,
    dump: Option<OutputFile>,
    trace: Option<BufWriter<Stream>>,
    page: Option<BufWriter<Stream>>,
    lint: Option<trace::Shared<Lint>>,
    /// Something else than what the guest writes goes to standard output.
    takes_stdout: bool,
}

impl SandboxArgs {
    /// The guest's file.
    pub(super) fn guest(&self) -> &Path {
        self.guest.path()
    }

    /// As [`GuestArgs::listens`].
    pub(super) fn listens(&self) -> Vec<String> {
        self.guest.listens()
    }

    /// As [`GuestArgs::settle`].
    ///
    /// # Errors
    ///
    /// As there.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.guest.settle()
    }

    /// The command draws on its terminal, and reads keys.
    pub(super) fn keep_terminal(&mut self) {
        self.guest.keep_terminal();
    }

    /// Puts this process into its jail, and returns a builder with these settings and this
    /// process's output. To be called before there is another thread.
    pub(super) fn into_jailed_builder(self, wishes: &mut Wishes) -> Result<Builder> {
        let symbols = self.symbols.as_deref();
        let (builder, _) = self.guest.into_jailed_builder(KeyOf::Guest, symbols)?;
        let mut builder = builder.trace_records(self.trace_ring);
        if let Some(path) = self.symbols {
            builder = builder.symbols(path);
        }
        if wishes.takes_stdout {
            builder = builder.stdout(Output::writer(tokio::io::stderr()));
        }
        if let Some(file) = wishes.trace.take() {
            builder = builder.trace(trace::json::Writer::new(file));
        }
        if let Some(file) = wishes.page.take() {
            builder = builder.trace(trace::timeline::Writer::new(file));
        }
        if let Some(lint) = &wishes.lint {
            builder = builder.trace(lint.clone());
        }
        Ok(builder)
    }

    /// What is to be written and said. Opens all that is written, and catches the signals that end the
    /// command. To be called before there is another thread.
    ///
    /// # Errors
    ///
    /// A file cannot be written, or is one that is read or written otherwise.
    pub(super) fn wishes(&self, stdout: Stdout) -> Result<Wishes> {
        signals::catch()?;
        let symbols = self.symbols.iter().map(|file| (&**file, "the symbols"));
        let mut outputs = Outputs::besides(self.guest.inputs().chain(symbols));
        if let Stdout::Taken(what) = stdout {
            outputs.take_stdout(what);
        }
        let mut open = |path: &Option<PathBuf>, readers, what| {
            let open = |path: &PathBuf| outputs.open(path, readers, what);
            path.as_ref().map(open).transpose()
        };
        let report = open(&self.report, Readers::Usual, "the report")?;
        let dump = open(&self.crash_dump, Readers::Owner, "the crash dump")?;
        let trace = open(&self.trace, Readers::Usual, "the trace")?;
        let page = open(&self.timeline, Readers::Usual, "the timeline")?;
        let takes_stdout = outputs.use_stdout();
        outputs.seal()?;
        Ok(Wishes {
            takes_stdout,
            guest: self.guest.path().to_owned(),
            stats: self.stats,
            backtrace: self.backtrace,
            report,
            dump,
            trace: trace.map(OutputFile::stream),
            page: page.map(OutputFile::stream),
            lint: self
                .lint
                .then(|| trace::Shared::new(Lint::new(Thresholds::default()))),
        })
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let Some(port) = args.gdb else {
        return run_with(args.sandbox, args.args);
    };
    let mut sandbox = args.sandbox;
    sandbox.settle()?;
    let gdb = wait_for_gdb(port, sandbox.guest())?;
    run_debugged(sandbox, args.args, Some(gdb))
}

/// Says where gdb is waited for, and waits. To be called before signals are caught: Ctrl-C ends it.
///
/// # Errors
///
/// The port cannot be had.
fn wait_for_gdb(port: u16, guest: &Path) -> Result<Gdb> {
    let at = || format!("cannot wait for gdb at port {port} of 127.0.0.1");
    let listener = GdbListener::bind(port).with_context(at)?;
    let address = listener.address().with_context(at)?;
    note!(
        "waiting for gdb: gdb {} -ex 'target remote {address}'",
        guest.display()
    );
    listener.accept().with_context(at)
}

/// Runs a guest with arguments to its end.
///
/// # Errors
///
/// It cannot be run.
pub(super) fn run_with(mut sandbox: SandboxArgs, args: Vec<String>) -> Result<ExitCode> {
    sandbox.settle()?;
    run_debugged(sandbox, args, None)
}

/// The same of a guest that is settled, with gdb attached if there is one.
fn run_debugged(sandbox: SandboxArgs, args: Vec<String>, gdb: Option<Gdb>) -> Result<ExitCode> {
    let mut wishes = sandbox.wishes(Stdout::Free)?;
    let mut builder = sandbox
        .into_jailed_builder(&mut wishes)?
        .args(args)
        .stdin(Input::Inherit);
    if let Some(gdb) = gdb {
        builder = builder.gdb(gdb);
    }
    let (sandbox, outcome, ()) = run_told(builder, std::future::pending(), |sandbox| {
        tasks::tell_if_it_serves(sandbox);
        std::future::ready(())
    })?;
    conclude(&mut wishes, &outcome, &sandbox)
}

/// Runs a guest to its end, which comes early at a signal that ends commands, or as soon as `stop`
/// is ready.
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

/// As [`run_beside`], and says on standard error what the guest is refused, and at SIGQUIT what its tasks
/// wait for. To be called after the jail was entered.
///
/// # Errors
///
/// As [`run_until`].
pub(super) fn run_told<T, F: Future<Output = T>>(
    builder: Builder,
    stop: impl Future<Output = ()> + Send + 'static,
    beside: impl FnOnce(&Sandbox) -> F,
) -> Result<(Sandbox, Outcome, T)> {
    refusals::tell();
    run_beside(builder, stop, |sandbox| {
        tasks::tell_when_asked(sandbox);
        beside(sandbox)
    })
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
    let runtime = runtime(builder.most_processors())?;
    let result = runtime.block_on(async {
        let mut sandbox = builder.build()?;
        let kill = sandbox.handle();
        let stopped = tokio::spawn(async move {
            tokio::select! {
                () = signals::first() => {}
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
        let outcome = match outcome {
            // Which is said at the end, with what else is to be said.
            Err(Error::OutputLost { code, .. }) => Outcome::Exit(code),
            outcome => outcome?,
        };
        anyhow::Ok((sandbox, outcome, done))
    });
    // What blocks there must not keep the command.
    runtime.shutdown_background();
    result
}

/// One worker for each of the guest's processors, as far as there are processors for them, and one that turns the
/// reactor meanwhile.
fn runtime(processors: u32) -> Result<tokio::runtime::Runtime> {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let at_once = (processors as usize).clamp(1, available);
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1 + at_once)
        .enable_all()
        .build()?)
}

/// Says what of the output and of the trace was lost. Returns whether anything was.
fn is_less(sandbox: &Sandbox, style: Style) -> bool {
    let mut is_less = false;
    for lost in sandbox.lost_output() {
        note!("{}: {lost}", style.error("wakebox"));
        is_less = true;
    }
    if let Some(error) = sandbox.trace_error() {
        note!(
            "{}: the trace is incomplete: {error}",
            style.error("wakebox")
        );
        is_less = true;
    }
    is_less
}

/// Says how the guest ended, if it did not end by itself, what it did, and what was lost. Writes what
/// was asked for.
///
/// # Errors
///
/// The report or the crash dump that was asked for cannot be written.
pub(super) fn conclude(
    wishes: &mut Wishes,
    outcome: &Outcome,
    sandbox: &Sandbox,
) -> Result<ExitCode> {
    refusals::tell_rest();
    let style = Style::of_stderr();
    let was_stopped = matches!(
        outcome,
        Outcome::Limit(_) | Outcome::Violation(_) | Outcome::Cancelled
    );
    let stopped_at = was_stopped.then(|| sandbox.backtrace()).transpose()?;
    if !matches!(outcome, Outcome::Exit(_)) {
        let memory = Some(Memory::of(sandbox));
        explain(
            outcome,
            stopped_at.as_ref(),
            memory,
            wishes.backtrace,
            style,
        );
        tasks::tell(sandbox.tasks(), &sandbox.stats(), style);
    }
    if wishes.stats {
        note!("{}", style.faint(&sandbox.stats().to_string()));
    }
    let mut status = match (outcome, signals::caught()) {
        (Outcome::Cancelled, Some(status)) => status,
        _ => outcome.exit_status(),
    };
    if is_less(sandbox, style) && status == 0 {
        status = 1;
    }
    if let Some(file) = wishes.report.take() {
        let report = Report {
            guest: wishes.guest.display().to_string(),
            message: outcome.to_string(),
            exit_status: status,
            outcome,
            stopped_at: stopped_at.as_ref(),
            tasks: sandbox.tasks(),
            lost_output: sandbox.lost_output(),
        };
        file.write_text(&report.to_json()?)?;
    }
    if let Some(lint) = &wishes.lint {
        let found = lint.with(|lint| lint.report());
        note!("{}", describe(&found, style).trim_end());
        if status == 0 && !found.is_clean() {
            status = 1;
        }
    }
    if let Some(file) = wishes.dump.take()
        && !matches!(outcome, Outcome::Exit(_))
    {
        let (dump, path) = (sandbox.crash_dump()?, file.path().to_owned());
        file.write(|file| dump.write_to(file))?;
        remark!(
            "a crash dump was written: gdb {} {}",
            wishes.guest.display(),
            path.display()
        );
    }
    Ok(ExitCode::from(status))
}
