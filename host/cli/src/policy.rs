//! Grants on the command line, and `wakebox policy`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use super::say::{note, say};
use super::streams;
use super::style::Style;
use wakebox::policy::{DirGrant, FunctionPattern, LocalAddress, NamePattern, Target, Variable};
use wakebox::{Limits, Policy, units};

/// What a guest may reach: nothing else.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Grants (a guest reaches nothing else)")]
pub(super) struct Grants {
    /// Grant what a policy file says; `wakebox policy check FILE` explains it. `-` is standard input,
    /// of which the guest sees the end then
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,

    /// Let the guest open TCP connections to a host or network, on one port or any; a name does
    /// not open this host's own network
    #[arg(long, value_name = "HOST[:PORT]|CIDR[:PORT]")]
    allow_connect: Vec<Target>,

    /// Let the guest listen on this TCP address and port
    #[arg(long, value_name = "ADDR:PORT")]
    allow_listen: Vec<LocalAddress>,

    /// Let the guest exchange UDP datagrams with a host or network
    #[arg(long, value_name = "HOST[:PORT]|CIDR[:PORT]")]
    allow_udp: Vec<Target>,

    /// Let the guest bind this UDP address and port
    #[arg(long, value_name = "ADDR:PORT")]
    allow_udp_bind: Vec<LocalAddress>,

    /// Let the guest connect to this Unix stream socket
    #[arg(long, value_name = "PATH")]
    allow_unix: Vec<PathBuf>,

    /// Let the guest resolve names like example.com or *.example.com, without connecting to them
    #[arg(long, value_name = "PATTERN")]
    allow_resolve: Vec<NamePattern>,

    /// Let the guest see a directory under a path of its own
    #[arg(long, value_name = "HOST:GUEST[:ro|:links]")]
    dir: Vec<DirGrant>,

    /// Put a variable into the guest's environment, which is empty otherwise; without a value, the
    /// one it has here
    #[arg(long, value_name = "K[=V]", value_parser = parse_variable)]
    env: Vec<Variable>,

    /// Let the guest call host functions by name, like kv.get or kv.*
    #[arg(long, value_name = "NAME")]
    allow_fn: Vec<FunctionPattern>,
}

fn parse_variable(text: &str) -> Result<Variable, String> {
    let variable: Variable = text.parse().map_err(|error| format!("{error}"))?;
    // Said now, with the option's name, and not when the sandbox is built.
    let known = Policy::new().allow_env(variable.clone()).environment();
    known.map_err(|error| format!("{error}; write {text}=value to give it one"))?;
    Ok(variable)
}

impl Grants {
    /// The policy files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.policy.iter().map(PathBuf::as_path)
    }

    /// Where the guest may listen, as the options say.
    pub(super) fn listens(&self) -> Vec<String> {
        self.allow_listen.iter().map(ToString::to_string).collect()
    }

    /// Further policy files.
    pub(super) fn add_files(&mut self, files: Vec<PathBuf>) {
        self.policy.extend(files);
    }

    /// All grants together.
    ///
    /// # Errors
    ///
    /// A file is not a policy, or two grants contradict each other.
    pub(super) fn into_policy(self) -> Result<Policy> {
        let mut policy = Policy::new();
        let from_input = self.files().filter(|file| streams::is_standard(file));
        if from_input.count() > 1 {
            bail!("standard input holds one policy: `--policy -` was given twice");
        }
        for file in self.policy {
            policy = policy.and(streams::policy(&file)?);
        }
        fn add<T>(policy: Policy, all: Vec<T>, allow: fn(Policy, T) -> Policy) -> Policy {
            all.into_iter().fold(policy, allow)
        }
        policy = add(policy, self.allow_connect, Policy::allow_connect);
        policy = add(policy, self.allow_listen, Policy::allow_listen);
        policy = add(policy, self.allow_udp, Policy::allow_udp);
        policy = add(policy, self.allow_udp_bind, Policy::allow_udp_bind);
        policy = add(policy, self.allow_unix, Policy::allow_unix);
        policy = add(policy, self.allow_resolve, Policy::allow_resolve);
        policy = add(policy, self.dir, Policy::allow_dir);
        policy = add(policy, self.env, Policy::allow_env);
        policy = add(policy, self.allow_fn, Policy::allow_fn);
        policy.validate()?;
        Ok(policy)
    }
}

/// How much a guest may use.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits (they count before those of policy files)")]
pub(super) struct LimitArgs {
    /// Memory of the guest, everything included [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    mem: Option<u64>,

    /// End the guest after this time, like 500ms, 10s or 2min
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    timeout: Option<Duration>,

    /// Most operations in flight at once [default: 4096]
    #[arg(long, value_name = "N")]
    in_flight: Option<u32>,

    /// Any limit of a policy file, like cpu-time=2s, network-out=1M or log=unlimited;
    /// `wakebox policy limits` lists them
    #[arg(long = "limit", value_name = "KEY=VALUE")]
    others: Vec<Limits>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 500ms, 10s or 2min"))
}

impl LimitArgs {
    /// All of them.
    ///
    /// # Errors
    ///
    /// Two options give one limit different values.
    pub(super) fn into_limits(self) -> Result<Limits> {
        let own = [
            self.mem.map(|bytes| Limits::new().memory(bytes)),
            self.timeout.map(|time| Limits::new().wall_clock(time)),
            self.in_flight.map(|most| Limits::new().in_flight(most)),
        ];
        let mut all = own.into_iter().flatten().chain(self.others);
        Ok(all.try_fold(Limits::new(), |limits, other| limits.with(&other))?)
    }
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say in plain sentences what a policy file grants, and whether it could be granted here
    Check {
        /// The file, in TOML; its lists are named as the options of `wakebox run`. `-` is standard
        /// input
        file: PathBuf,
    },
    /// List what can be limited, with the defaults and what happens at the limit
    Limits,
}

pub(super) fn run(command: &Command) -> Result<ExitCode> {
    let file = match command {
        Command::Check { file } => file,
        Command::Limits => {
            say!("{}", Limits::new().table());
            return Ok(ExitCode::SUCCESS);
        }
    };
    let policy = streams::policy(file)?;
    say!("{policy}");
    let troubles = policy.troubles();
    let style = Style::of_stderr();
    for trouble in &troubles {
        note!("{}: {trouble}", style.error("error"));
    }
    Ok(match troubles.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
