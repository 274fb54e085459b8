//! The command `wakebox`: one file a subcommand.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod call;
mod check;
mod doctor;
mod explain;
mod gdb;
mod guest;
mod host_fn;
mod inspect;
mod jail;
mod keeper;
mod known;
mod lint;
mod new;
mod outcome;
mod output;
mod papers;
mod policy;
mod process;
mod project;
mod refusals;
mod run;
mod runner;
mod say;
mod serve;
mod signals;
mod snapshot;
mod streams;
mod style;
mod suggest;
mod tasks;
mod template;
mod timeline;
mod top;
mod wasm;

use std::process::ExitCode;

use self::say::note;
pub use self::top::Picture;
use clap::{CommandFactory as _, Parser, Subcommand};

/// Runs untrusted async Rust in a micro-VM whose wakers reach across the boundary.
#[derive(Debug, Parser)]
#[command(
    name = "wakebox",
    version,
    max_term_width = 100,
    propagate_version = true
)]
#[command(after_help = "\
First steps:
  wakebox doctor               does KVM work here, and what does it cost?
  wakebox new hello            write a guest
  cd hello && cargo run -- friend
  wakebox run target/debug/hello --stats")]
struct Cli {
    /// When to colour what is said
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t,
        global = true,
        help_heading = None
    )]
    color: style::When,

    /// Say nothing but what was asked for and what went wrong
    #[arg(long, short, global = true, help_heading = None)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a guest in a micro-VM; its exit status becomes the command's
    Run(Box<run::Args>),
    /// For cargo's `runner`: run a guest as `run` does, and what is no guest, as a test, on this host
    #[command(hide = true, name = "cargo-runner")]
    Runner(Box<run::Args>),
    /// Let a WebAssembly component with `wasi:http/incoming-handler` or `handler` answer HTTP requests
    Serve(Box<serve::Args>),
    /// Call a function that a guest exports, with JSON, and print what it returns
    Call(Box<call::Args>),
    /// Run a guest until it is ready, and write a template from which others go on
    Snapshot(Box<snapshot::Args>),
    /// Tell a run as a story: each event of both sides a line, in plain words
    Explain(Box<explain::Args>),
    /// Watch the tasks of a running guest, on the whole terminal
    Top(Box<top::Args>),
    /// Say what looks wrong in a trace: tasks that nobody can wake, long polls, wakes for nothing
    Lint(Box<lint::Args>),
    /// Make a page with the timeline of a trace, for any browser
    Timeline(timeline::Args),
    /// Say what a guest or template file holds, and whether it would be refused
    Inspect(inspect::Args),
    /// Look whether this machine can run guests, what that costs, and what to fix
    Doctor(doctor::Args),
    /// Say which dependency of a guest's crate wants `std`, which guests have not, and who asks for it
    Check(check::Args),
    /// Write the crate of a new guest
    New(new::Args),
    /// Write a script for gdb: `wakebox tasks` lists there what the tasks in a crash dump wait for
    GdbScript,
    /// Write a script with which a shell completes this command's words
    Completions(papers::Completions),
    /// Write manual pages, one for each subcommand, into a folder
    Man(papers::Man),
    /// Explain what a policy file grants
    #[command(subcommand)]
    Policy(policy::Command),
}

/// Runs the command with this process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    process::prepare();
    let cli = Cli::try_parse().unwrap_or_else(|error| suggest::with(error, &Cli::command()).exit());
    style::settle(cli.color);
    if cli.quiet {
        say::be_quiet();
    }
    let result = match cli.command {
        Command::Serve(args) => serve::run(*args),
        Command::Run(args) => run::run(*args),
        Command::Runner(args) => runner::run(*args),
        Command::Call(args) => call::run(*args),
        Command::Snapshot(args) => snapshot::run(*args),
        Command::Explain(args) => explain::run(*args),
        Command::Top(args) => top::run(*args),
        Command::Lint(args) => Ok(lint::run(&args)),
        Command::Timeline(args) => timeline::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::GdbScript => Ok(gdb::run()),
        Command::Completions(args) => papers::completions(&args, Cli::command()),
        Command::Man(args) => papers::man(&args, Cli::command()),
        Command::Check(args) => check::run(&args),
        Command::New(args) => new::run(&args),
        Command::Policy(command) => policy::run(&command),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let style = style::Style::of_stderr();
            note!("{}: {error:#}", style.error("error"));
            ExitCode::FAILURE
        }
    }
}
