//! The guest of a command, and what it may do.

use std::path::{Path, PathBuf};

use anyhow::Result;
use wakebox::template::FileOptions;
use wakebox::{Builder, Io, Output, Sandbox, WakeMode};

use super::host_fn::{self, HostFn};
use super::jail::JailArgs;
use super::policy::{Grants, LimitArgs};
use super::project::Project;
use super::template::{KeyArgs, KeyOf};
use super::wasm;

/// A guest and what it may do, for all commands that run one.
#[derive(Debug, clap::Args)]
pub(super) struct GuestArgs {
    /// The guest: a binary that `cargo build` made of a crate with `#[wakebox_guest::main]`, a
    /// template file that `wakebox snapshot` made of one, or a WebAssembly component, which
    /// `wakebox-wasm` compiles. Of a folder, what its `wakebox.toml` says: `guest = "FILE"`, and
    /// `policy = ["FILE"]` for what --policy says; those of the folders above do not count
    #[arg(default_value = ".", hide_default_value = false)]
    guest: PathBuf,

    /// The `wakebox.toml` in which that is said.
    #[arg(skip)]
    project: Option<PathBuf>,

    /// How a sleeping guest is woken: by the return of `out`, by an interrupt, by memory that it
    /// watches, or by whichever suits; a template has settled that [default: auto]
    #[arg(long, value_name = "MODE", value_parser = ["out", "irq", "poll", "auto"])]
    wake: Option<String>,

    /// How the guest waits for files that are not in memory: on threads (epoll), or by io_uring, whose calls go past the
    /// jail's filter; by whichever suits (auto), which is that without a jail [default: auto]
    #[arg(long, value_name = "HOW", value_parser = Io::ALL.map(Io::name))]
    io: Option<String>,

    /// How many processors the guest has, if not as many as it asks for; more than one wants a limit that
    /// grants them: --limit processors=N
    #[arg(long, value_name = "N")]
    processors: Option<u32>,

    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    limits: LimitArgs,

    #[command(flatten)]
    jail: JailArgs,

    #[command(flatten)]
    grants: Grants,

    /// Let the guest call a function NAME, which COMMAND is: a line of JSON on its standard input for each
    /// call (several arguments as an array, none as `null`), and a line with the result, in the same order, on
    /// its standard output. The shell runs it, outside of the jail
    #[arg(
        long,
        value_name = "NAME=COMMAND",
        help_heading = "Grants (a guest reaches nothing else)"
    )]
    host_fn: Vec<HostFn>,
}

impl GuestArgs {
    /// The guest's file.
    pub(super) fn path(&self) -> &Path {
        &self.guest
    }

    /// Where the guest may listen, as the options say.
    pub(super) fn listens(&self) -> Vec<String> {
        self.grants.listens()
    }

    /// Puts what a folder's file says into the place of the folder. To be called before anything else.
    ///
    /// # Errors
    ///
    /// The guest is a folder that says nothing, or something wrong.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.guest.is_dir() {
            let project = Project::in_folder(&self.guest)?;
            self.guest = project.guest;
            self.grants.add_files(project.policy);
            self.project = Some(project.file);
        }
        Ok(())
    }

    /// The files that are read, each with what it is.
    pub(super) fn inputs(&self) -> impl Iterator<Item = (&Path, &str)> {
        let guest = [(&*self.guest, "the guest")];
        let key = self.key.file().map(|file| (file, "the key"));
        let policies = self.grants.files().map(|file| (file, "the policy"));
        let project = self.project.iter().map(|file| (&**file, "the project"));
        guest.into_iter().chain(key).chain(policies).chain(project)
    }

    /// The command draws on its terminal, and reads keys.
    pub(super) fn keep_terminal(&mut self) {
        self.jail.terminal = true;
    }

    /// Puts this process into its jail, in which it can still read `symbols`. Returns a builder with
    /// these settings and this process's output, and how template files are read and written. To be
    /// called before there is another thread.
    pub(super) fn into_jailed_builder(
        mut self,
        key_of: KeyOf,
        symbols: Option<&Path>,
    ) -> Result<(Builder, FileOptions)> {
        let policy = self.grants.into_policy()?;
        let limits = self.limits.into_limits()?;
        let options = self.key.options(&limits)?;
        let is_wasm = wasm::is_wasm(&self.guest);
        let compiled = is_wasm.then(|| wasm::compiled(&self.guest)).transpose()?;
        let commands = host_fn::start(&self.host_fn)?;
        self.jail.children = !commands.is_empty();
        let io = Io::ALL
            .into_iter()
            .find(|io| self.io.as_deref() == Some(io.name()));
        let io = io.unwrap_or_default();
        self.jail.rings = io == Io::Uring;
        self.jail.enter(&policy, &self.guest, symbols)?;
        let guest = self.key.guest(self.guest, &options, key_of)?;
        let mut builder = Sandbox::builder()
            .io(io)
            .guest(compiled.unwrap_or(guest))
            .limits(limits)
            .policy(policy)
            .stdout(Output::Inherit)
            .stderr(Output::Inherit);
        if let Some(mode) = self.wake {
            let mode: WakeMode = mode.parse()?;
            builder = builder.wake(mode);
        }
        if let Some(processors) = self.processors {
            builder = builder.processors(processors);
        }
        for command in commands {
            builder = command.given_to(builder);
        }
        Ok((builder, options))
    }
}
