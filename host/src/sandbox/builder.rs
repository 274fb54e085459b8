//! What a sandbox is built with.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wakebox_abi::layout;
use wakebox_abi::wake::Mode;
use wakebox_vmm::machines::Machines;

use super::{QUANTUM, Sandbox, create};
use crate::calls::HostFunctions;
use crate::calls::host::{Functions, HostContext, Whole};
use crate::calls::resources::Resources;
use crate::error::{Error, Result};
use crate::limits::{LimitKind, Limits};
use crate::loader::Image;
use crate::observe::Sinks;
use crate::ops::uring::Io;
use crate::policy::Policy;
use crate::stdio::{Input, Output};
use crate::template::Template;
use crate::trace::{self, Sink};

/// Where a guest's program comes from.
#[derive(Clone, Debug)]
enum Source {
    Path(PathBuf),
    Bytes(Vec<u8>),
    Template(Template),
}

/// Something that [`Builder::guest`] takes: a path, the bytes of a file, an [`Image`], or a
/// [`Template`].
#[derive(Clone, Debug)]
pub struct Guest(Source);

impl Guest {
    /// What a sandbox of it starts from.
    pub(super) fn load(self) -> Result<Template> {
        Ok(match self.0 {
            Source::Path(path) => Template::from_elf(path)?,
            Source::Bytes(bytes) => Template::at_entry(None, Image::from_bytes(bytes)?),
            Source::Template(template) => template,
        })
    }
}

impl From<&str> for Guest {
    fn from(path: &str) -> Self {
        Self(Source::Path(path.into()))
    }
}

impl From<&Path> for Guest {
    fn from(path: &Path) -> Self {
        Self(Source::Path(path.into()))
    }
}

impl From<PathBuf> for Guest {
    fn from(path: PathBuf) -> Self {
        Self(Source::Path(path))
    }
}

impl From<&PathBuf> for Guest {
    fn from(path: &PathBuf) -> Self {
        Self(Source::Path(path.clone()))
    }
}

impl From<Vec<u8>> for Guest {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Source::Bytes(bytes))
    }
}

impl From<&[u8]> for Guest {
    fn from(bytes: &[u8]) -> Self {
        Self(Source::Bytes(bytes.into()))
    }
}

impl From<Image> for Guest {
    fn from(image: Image) -> Self {
        Self(Source::Template(Template::at_entry(None, image)))
    }
}

impl From<&Image> for Guest {
    fn from(image: &Image) -> Self {
        image.clone().into()
    }
}

impl From<Template> for Guest {
    fn from(template: Template) -> Self {
        Self(Source::Template(template))
    }
}

impl From<&Template> for Guest {
    fn from(template: &Template) -> Self {
        Self(Source::Template(template.clone()))
    }
}

impl Template {
    /// Settings of a sandbox that begins where the template stands.
    #[must_use]
    pub fn spawn(&self) -> Builder {
        Builder::default().guest(self)
    }
}

/// Settings of a sandbox. All but the guest have defaults; nothing is granted.
#[derive(Debug)]
pub struct Builder {
    guest: Option<Guest>,
    pub(super) symbols: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) arena: Option<u64>,
    pub(super) stack: Option<u64>,
    pub(super) processors: Option<u32>,
    #[cfg(feature = "gdb")]
    pub(super) gdb: Option<crate::Gdb>,
    pub(super) quantum: Duration,
    pub(super) mode: Option<Mode>,
    pub(super) io: Io,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) policy: Policy,
    pub(super) functions: Functions,
    pub(super) stdin: Input,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) sinks: Sinks,
    pub(super) trace_records: u32,
    /// Where its machine comes from, if not from those of the process.
    pub(super) machines: Option<Machines>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            guest: None,
            symbols: None,
            limits: Limits::new(),
            arena: None,
            stack: None,
            processors: None,
            #[cfg(feature = "gdb")]
            gdb: None,
            quantum: QUANTUM,
            mode: None,
            io: Io::default(),
            args: Vec::new(),
            env: Vec::new(),
            policy: Policy::new(),
            functions: Functions::default(),
            stdin: Input::Null,
            stdout: Output::Null,
            stderr: Output::Null,
            sinks: Sinks::default(),
            trace_records: trace::RECORDS,
            machines: None,
        }
    }
}

impl Builder {
    /// The program: a path, the bytes of a file, an [`Image`] that is parsed already, or a [`Template`].
    #[must_use]
    pub fn guest(mut self, guest: impl Into<Guest>) -> Self {
        self.guest = Some(guest.into());
        self
    }

    /// A file with the guest's debug information, if the guest is stripped: what `objcopy
    /// --only-keep-debug` wrote, or the binary as it was before. It is only used to name places in
    /// backtraces. Where both files have a build ID, it must be the same.
    #[must_use]
    pub fn symbols(mut self, path: impl Into<PathBuf>) -> Self {
        self.symbols = Some(path.into());
        self
    }

    /// How much the guest may use. What is set here counts before what the policy says, and that
    /// before the defaults.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits.or(&self.limits);
        self
    }

    /// RAM of the guest in bytes: [`Limits::memory`].
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.limits = self.limits.memory(bytes);
        self
    }

    /// The part of the memory through which operations' bytes travel, in bytes. An eighth of the
    /// memory by default, at least 256 KiB, at most 64 MiB.
    #[must_use]
    pub fn arena(mut self, bytes: u64) -> Self {
        self.arena = Some(bytes);
        self
    }

    /// The stack of each processor in bytes. By default, all together have an eighth of the memory, and each at
    /// most 1 MiB.
    #[must_use]
    pub fn stack(mut self, bytes: u64) -> Self {
        self.stack = Some(bytes);
        self
    }

    /// How many virtual processors the guest has, if not as many as it asks for itself
    /// (`#[wakebox_guest::main(processors = 4)]`), which is one unless it does. [`Limits::processors`], one by
    /// default, is to grant them.
    ///
    /// Each is a task of the runtime in which the sandbox runs. A guest with several keeps its machine while it sleeps;
    /// no [`Template`] can be taken of it while it runs.
    #[must_use]
    pub fn processors(mut self, processors: u32) -> Self {
        self.processors = Some(processors);
        self
    }

    /// Most processors that the guest will have, as far as that is known before its file is read: for whoever makes a
    /// runtime for it.
    #[must_use]
    pub fn most_processors(&self) -> u32 {
        let granted = self.limits.or(self.policy.limits());
        let granted = granted.count(LimitKind::Processors);
        self.processors
            .unwrap_or(granted)
            .min(layout::PROCESSORS_MAX)
    }

    /// Most operations in flight, for each processor: [`Limits::in_flight`].
    #[must_use]
    pub fn in_flight(mut self, most: u32) -> Self {
        self.limits = self.limits.in_flight(most);
        self
    }

    /// Most open sockets, files and directories: [`Limits::handles`].
    #[must_use]
    pub fn handles(mut self, most: u32) -> Self {
        self.limits = self.limits.handles(most);
        self
    }

    /// How long the guest may compute before other tasks of its thread get a turn, rounded
    /// up to milliseconds; half of it while others have lately wanted theirs. 2 ms by default.
    #[must_use]
    pub fn quantum(mut self, quantum: Duration) -> Self {
        self.quantum = quantum;
        self
    }

    /// How long a run may take: [`Limits::wall_clock`].
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limits = self.limits.wall_clock(limit);
        self
    }

    /// How the guest sleeps and is woken. [`Mode::Auto`] by default; of a template that stands where a
    /// sandbox was parked, as that did.
    #[must_use]
    pub fn wake(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// How it waits for files that are not in memory. [`Io::Auto`] by default.
    #[must_use]
    pub fn io(mut self, io: Io) -> Self {
        self.io = io;
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment, which is empty otherwise. The last one of a name counts.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.env.retain(|(known, _)| *known != key);
        self.env.push((key, value.into()));
        self
    }

    /// What the guest may reach. Nothing by default.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Gives the guest a function of this program to call, and grants it thereby.
    ///
    /// `function` gets a context and the arguments: any serde type, a tuple for several. What
    /// it returns is any serde type too; its own errors arrive typed if that is a `Result`.
    /// Calls go on concurrently, each as a task of the runtime in which the sandbox runs
    /// ([threads and signals](crate#threads-and-signals)); work that blocks belongs into
    /// `spawn_blocking`. A guest that drops its call drops the future. A panic ends the call with an
    /// error in the guest.
    ///
    /// State is shared through [`Self::state`] (or captured by a closure that clones what it
    /// moves into its future):
    ///
    /// ```
    /// # use wakebox::{HostContext, Sandbox};
    /// # use std::{collections::HashMap, sync::Mutex};
    /// type Store = Mutex<HashMap<String, String>>;
    ///
    /// let builder = Sandbox::builder()
    ///     .state(Store::default())
    ///     .host_fn("kv.get", async |ctx: HostContext, key: String| -> Option<String> {
    ///         ctx.state::<Store>().lock().unwrap().get(&key).cloned()
    ///     });
    /// ```
    #[must_use]
    pub fn host_fn<A, R, F, Fut>(mut self, name: &str, function: F) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Fn(HostContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = R> + Send + 'static,
    {
        self.functions.add_call(name, function);
        self
    }

    /// Gives the guest a resource of an import: values of `T` that are the host's, of which the guest holds at most so
    /// many by handles. What makes them, and their methods, are host functions that have the names of WIT, and find the
    /// values in [`Resources<T>`](crate::Resources), a state of the sandbox; a handle is a `u32`. What the guest drops is
    /// removed. Handles that a template has are of no sandbox that is made of it.
    ///
    /// ```
    /// # use wakebox::{HostContext, Resources, Sandbox};
    /// struct Counter(std::sync::atomic::AtomicU64);
    ///
    /// let builder = Sandbox::builder()
    ///     .host_resource::<Counter>("my:app/counts.counter", 100)
    ///     .host_fn("my:app/counts.[constructor]counter", async |ctx: HostContext, (): ()| {
    ///         // A panic ends the call with an error in the guest.
    ///         ctx.state::<Resources<Counter>>().insert(Counter(0.into())).expect("too many")
    ///     })
    ///     .host_fn("my:app/counts.[method]counter.next", async |ctx: HostContext, (this,): (u32,)| {
    ///         let this = ctx.state::<Resources<Counter>>().get(this).expect("no such counter");
    ///         this.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    ///     });
    /// ```
    #[must_use]
    pub fn host_resource<T: Send + Sync + 'static>(self, name: &str, most: usize) -> Self {
        let drop = match name.rsplit_once('.') {
            Some((interface, name)) => format!("{interface}.[resource-drop]{name}"),
            None => format!("[resource-drop]{name}"),
        };
        self.state(Resources::<T>::new(most)).host_fn(
            &drop,
            async |context: HostContext, (handle,): (u32,)| {
                context.state::<Resources<T>>().remove(handle);
            },
        )
    }

    /// Gives the guest a function of JSON: for programs that do not know its types. The guest calls it as any
    /// other, and if it is built with the feature `json` of `wakebox-guest`, which is on by default, writes
    /// its arguments and reads the result in JSON: several arguments as an array, none as `null`. What the function
    /// gets is JSON, and on one line; what it returns has to be JSON. An error arrives as the status of its
    /// kind. Otherwise as [`Self::host_fn`].
    ///
    /// ```
    /// # use wakebox::{HostContext, Sandbox};
    /// let builder = Sandbox::builder()
    ///     .host_fn_json("price", async |_: HostContext, article: String| {
    ///         Ok(if article == "\"bolt\"" { "12" } else { "null" })
    ///     });
    /// ```
    #[must_use]
    pub fn host_fn_json<R, F, Fut>(mut self, name: &str, function: F) -> Self
    where
        R: Into<Vec<u8>>,
        F: Fn(HostContext, String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<R>> + Send + 'static,
    {
        self.functions.add_whole(name, &Whole::JSON, function);
        self
    }

    /// Gives the guest a function of bytes, which mean something to the two sides alone: for programs that
    /// learn of their functions only when they run, bindings to other languages, formats of one's own. The
    /// guest calls it with `wakebox_guest::host::call_bytes`. An error arrives as the status of its kind.
    /// Otherwise as [`Self::host_fn`].
    ///
    /// ```
    /// # use wakebox::{HostContext, Sandbox};
    /// let builder = Sandbox::builder()
    ///     .host_fn_bytes("reverse", async |_: HostContext, mut bytes: Vec<u8>| {
    ///         bytes.reverse();
    ///         Ok(bytes)
    ///     });
    /// ```
    #[must_use]
    pub fn host_fn_bytes<R, F, Fut>(mut self, name: &str, function: F) -> Self
    where
        R: Into<Vec<u8>>,
        F: Fn(HostContext, Vec<u8>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<R>> + Send + 'static,
    {
        self.functions.add_whole(name, &Whole::BYTES, function);
        self
    }

    /// Gives the guest a function that yields a stream of items, one whenever the guest asks for
    /// it. Otherwise as [`Self::host_fn`].
    #[must_use]
    pub fn host_stream<A, T, F, S>(mut self, name: &str, function: F) -> Self
    where
        A: DeserializeOwned,
        T: Serialize,
        F: Fn(HostContext, A) -> S + Send + Sync + 'static,
        S: Stream<Item = T> + Send + 'static,
    {
        self.functions.add_stream(name, function);
        self
    }

    /// Gives the guest all of these functions, and them their values: what many sandboxes share need be
    /// declared once. They take the place of those of the same name or type. What [`Self::policy`] says of
    /// functions holds for these, too.
    #[must_use]
    pub fn functions(mut self, functions: HostFunctions) -> Self {
        self.functions.add_all(functions.0);
        self
    }

    /// A value for host functions, found by its type with [`HostContext::state`].
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.functions.state.insert(value);
        self
    }

    /// How long one call of a host function may take, `None` for no limit:
    /// [`Limits::host_fn_time`].
    #[must_use]
    pub fn host_fn_timeout(mut self, limit: Option<Duration>) -> Self {
        self.limits = self.limits.host_fn_time(limit);
        self
    }

    /// Where standard input comes from. It is at its end by default.
    #[must_use]
    pub fn stdin(mut self, input: Input) -> Self {
        self.stdin = input;
        self
    }

    /// Where standard output goes. Nowhere by default.
    #[must_use]
    pub fn stdout(mut self, output: Output) -> Self {
        self.stdout = output;
        self
    }

    /// Where standard error goes. Nowhere by default.
    #[must_use]
    pub fn stderr(mut self, output: Output) -> Self {
        self.stderr = output;
        self
    }

    /// Watches the run: `sink` gets every event of both sides ([`crate::trace`]). Called several
    /// times, each sink gets them all.
    ///
    /// A sandbox that is watched takes memory for the guest's records
    /// ([`Self::trace_records`]) beyond [`Self::memory`], has a quantum of at most 2 ms, after which they are
    /// taken out, and a thread `wakebox-trace`.
    #[must_use]
    pub fn trace(mut self, sink: impl Sink + 'static) -> Self {
        self.sinks.0.push(Box::new(sink));
        self
    }

    /// Slots of the ring in which the guest's records wait, 32 bytes each, rounded up to a power
    /// of two; 131,072 by default. What finds it full is lost, and counted.
    #[must_use]
    pub fn trace_records(mut self, slots: u32) -> Self {
        self.trace_records = slots;
        self
    }

    /// Where its machine comes from: one of these that wait, if one fits, and it waits there again after
    /// the end. Those of the process by default.
    ///
    /// While more are lent than are kept, a guest that is parked gives its machine away and gets one again
    /// when it is woken: at once if more than four times as many are lent, else after ten milliseconds.
    /// One whose memory differs by more than 1 MiB from what it was made of keeps its own.
    #[must_use]
    pub fn machines(mut self, machines: Machines) -> Self {
        self.machines = Some(machines);
        self
    }

    /// Has a machine of its own that is made for it and ends with it.
    ///
    /// Otherwise it borrows one whose former guest has ended or sleeps, if there is one, and leaves it to
    /// the next: nothing of a guest is left in it for another, and the kernel takes less time. This is for
    /// who does not want guests one after the other in one virtual machine.
    #[must_use]
    pub fn own_machine(self) -> Self {
        self.machines(Machines::new(0))
    }

    /// Has gdb, which has connected ([`GdbListener`](crate::GdbListener)), look at the guest: before its first
    /// instruction, at breakpoints, step by step, at a fault or a panic before the sandbox ends, and when somebody
    /// presses Ctrl-C in gdb. The guest stands still meanwhile; what the host does for it goes on, and so does the
    /// time of a limit on it. It gets [a machine of its own](Self::own_machine).
    ///
    /// gdb can read and change all that the guest has. If it hangs up, the guest goes on.
    #[cfg(feature = "gdb")]
    #[must_use]
    pub fn gdb(mut self, gdb: crate::Gdb) -> Self {
        self.gdb = Some(gdb);
        self.own_machine()
    }

    /// Makes the machine and loads the guest. No instruction of it has run yet.
    ///
    /// It blocks the thread for about a millisecond with an [`Image`], as long as there are few
    /// relocations, and longer with a file, which is read first ([`Image::from_path`]).
    ///
    /// # Errors
    ///
    /// The guest cannot be read or is refused; a setting cannot be; KVM is missing,
    /// forbidden, or could not do its part.
    pub fn build(mut self) -> Result<Sandbox> {
        let guest = self
            .guest
            .take()
            .ok_or_else(|| Error::Setting("a sandbox needs a guest: Builder::guest".into()))?;
        create::create(guest, self)
    }
}
