//! `wakebox run`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::policy::{Grants, LimitArgs};
use super::style::Style;
use crate::{Builder, Fault, Input, Outcome, Output, Panic, Sandbox, Stats, WakeMode};

/// Exit status of the command when the guest did not run at all is 1; otherwise:
const STATUSES: &str = "\
Exit status: the guest's own; 101 if it panicked, 123 if it slept with nothing to wait for, 124 \
if it reached a limit that ends it, 125 if it broke the interface, 130 if it was interrupted, 139 if \
it faulted; 1 if it could not be run.";

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

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    grants: Grants,
}

impl SandboxArgs {
    /// A builder with these settings, and this process's output.
    pub(super) fn into_builder(self) -> Result<Builder> {
        let mode: WakeMode = self.wake.parse()?;
        Ok(Sandbox::builder()
            .guest(self.guest)
            .wake(mode)
            .limits(self.limits.into_limits())
            .policy(self.grants.into_policy()?)
            .stdout(Output::Inherit)
            .stderr(Output::Inherit))
    }

    /// Whether statistics are wanted at the end.
    pub(super) fn stats(&self) -> bool {
        self.stats
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let with_stats = args.sandbox.stats();
    let builder = args
        .sandbox
        .into_builder()?
        .args(args.args)
        .stdin(Input::Inherit);
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let mut sandbox = builder.build()?;
        let kill = sandbox.kill_handle();
        let interrupted = tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                kill.kill();
            }
        });
        // On a worker: a guest that computes must not keep this thread from its signals.
        let run = tokio::spawn(async move {
            let outcome = sandbox.run().await;
            (sandbox, outcome)
        });
        let (sandbox, outcome) = run.await?;
        interrupted.abort();
        anyhow::Ok((sandbox.stats(), outcome?))
    });
    // A read of standard input that is under way cannot be taken back; it must not keep the
    // command.
    runtime.shutdown_background();
    let (stats, outcome) = result?;

    Ok(conclude(&outcome, with_stats.then_some(&stats)))
}

/// One worker enters the guest, the other turns the reactor meanwhile.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// Says how the guest ended, if it did not end by itself, and what it did.
pub(super) fn conclude(outcome: &Outcome, stats: Option<&Stats>) -> ExitCode {
    let style = Style::of_stderr();
    if !matches!(outcome, Outcome::Exit(_)) {
        explain(outcome, style);
    }
    if let Some(stats) = stats {
        eprintln!("{}", style.faint(&stats.to_string()));
    }
    ExitCode::from(outcome.exit_status())
}

/// Says how a guest ended that did not end by itself.
fn explain(outcome: &Outcome, style: Style) {
    match outcome {
        Outcome::Panic(panic) => explain_panic(panic, style),
        Outcome::Fault(fault) => explain_fault(fault, style),
        other => eprintln!("{}: {other}", style.error("wakebox")),
    }
}

fn explain_panic(panic: &Panic, style: Style) {
    let task = panic
        .task
        .as_deref()
        .map(|task| format!(" in task `{task}`"))
        .unwrap_or_default();
    eprintln!(
        "{}: the guest panicked{task}: {}",
        style.error("wakebox"),
        style.strong(&panic.message)
    );
    if let Some(file) = &panic.file {
        eprintln!(
            "  {} {file}:{}:{}",
            style.faint("-->"),
            panic.line,
            panic.column
        );
    }
}

fn explain_fault(fault: &Fault, style: Style) {
    eprintln!(
        "{}: the guest faulted: {}",
        style.error("wakebox"),
        style.strong(&fault.to_string())
    );
    let r = &fault.registers;
    let line = |text: String| eprintln!("  {}", style.faint(&text));
    line(format!(
        "rip {:016x}  rsp {:016x}  rbp {:016x}",
        r.rip, r.rsp, r.rbp
    ));
    line(format!(
        "rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}",
        r.rax, r.rbx, r.rcx, r.rdx
    ));
    line(format!(
        "rsi {:016x}  rdi {:016x}  r8  {:016x}  r9  {:016x}",
        r.rsi, r.rdi, r.r8, r.r9
    ));
}
