//! A backtrace: which calls led to where a guest stopped.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::ser::SerializeSeq;

use super::symbols::Symbols;
use super::unwind::Calls;

/// One function of a backtrace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Frame {
    /// Guest-virtual address: of the instruction for the innermost frame, of the one that
    /// the call returns to for all others.
    pub address: u64,
    /// The same in the guest's file, as `objdump` and `addr2line -e` count; none outside the
    /// guest's code.
    pub offset: Option<u64>,
    /// The function's name, as far as the guest's file or its symbols tell.
    pub function: Option<String>,
    /// The source file, as far as debug information tells. It may name any file.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// Whether the function is inlined into the one of the next frame.
    pub inlined: bool,
    /// Whether the function belongs to the language or to Wakebox, not to the guest's author.
    pub runtime: bool,
}

impl Frame {
    pub(crate) fn at(address: u64, offset: Option<u64>) -> Self {
        Self {
            address,
            offset,
            ..Self::default()
        }
    }

    /// The crate that the function is from, if its name tells.
    #[must_use]
    pub fn crate_name(&self) -> Option<&str> {
        let name = self.function.as_deref()?;
        // `<&mut krate::Type as other::Trait>::method`
        let mut name = name.trim_start_matches(['<', '&', '*', '(', '[']);
        for word in ["mut ", "const ", "dyn "] {
            name = name.strip_prefix(word).unwrap_or(name);
        }
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
        let (krate, rest) = name.split_at(end);
        rest.starts_with("::").then_some(krate)
    }

    /// Whether it is at the same location as another.
    fn is_again(&self, other: &Self) -> bool {
        (&self.function, &self.file, self.line, self.inlined)
            == (&other.function, &other.file, other.line, other.inlined)
            && self.function.is_some()
    }

    /// Whether the function handles a panic.
    fn is_panic_handler(&self) -> bool {
        self.function.as_deref().is_some_and(|name| {
            name.ends_with("rust_begin_unwind")
                || name.starts_with("wakebox_guest::panic::")
                || name.ends_with("::__wakebox_guest::panic")
        })
    }
}

/// Marks the frames of the runtime.
///
/// The symbol table names functions in full, but not those that are inlined, and debug
/// information may have nothing of them but `poll<F>`. They are known by their source: the
/// language's library is compiled under a name of its own, and Wakebox's lies where
/// functions come from that are known to be Wakebox's.
pub(crate) fn mark_runtime(frames: &mut [Vec<Frame>]) {
    const CRATES: [&str; 6] = [
        "core",
        "alloc",
        "std",
        "compiler_builtins",
        "__rustc",
        "wakebox_guest",
    ];
    /// There are two, unless somebody made them up.
    const MOST_FOLDERS: usize = 16;
    let is_own = |frame: &Frame| matches!(frame.crate_name(), Some("wakebox_guest"));
    let mut folders: Vec<String> = Vec::new();
    for frame in frames.iter().flatten().filter(|frame| is_own(frame)) {
        let file = frame.file.as_deref().unwrap_or_default();
        let Some(at) = file.rfind("/src/") else {
            continue;
        };
        let (root, source) = file.split_at(at);
        let neighbour = match root.rsplit_once('/') {
            Some((parent, "guest")) => Some(format!("{parent}/abi")),
            Some((parent, name)) => name
                .strip_prefix("wakebox-guest")
                .map(|version| format!("{parent}/wakebox-abi{version}")),
            None => None,
        };
        // Functions that take a closure may be known as Wakebox's by a file of the closure's.
        if source.starts_with("/src/bin/") || neighbour.is_none() || folders.len() >= MOST_FOLDERS {
            continue;
        }
        let found = [Some(root.to_owned()), neighbour];
        for folder in found.into_iter().flatten().map(|root| root + "/src/") {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    for frame in frames.iter_mut().flatten() {
        let file = frame.file.as_deref().unwrap_or_default();
        let is_library = file.starts_with("/rustc/")
            || file.contains("/lib/rustlib/src/rust/library/")
            || folders.iter().any(|folder| file.starts_with(folder));
        let name = frame.function.as_deref().unwrap_or_default();
        frame.runtime = match frame.crate_name() {
            Some(krate) => CRATES.contains(&krate) || name.contains("::__wakebox_guest::"),
            // The C start file's, and what the guest library gives it to call.
            None => is_library || matches!(name, "_start" | "__libc_start_main"),
        };
    }
}

/// `function at file:line:column`, as far as is known.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.function, self.offset) {
            (Some(name), _) => f.write_str(name)?,
            (None, Some(offset)) => write!(f, "guest+{offset:#x}")?,
            (None, None) => write!(f, "{:#x}", self.address)?,
        }
        if let Some(file) = &self.file {
            write!(f, " at {file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        Ok(())
    }
}

/// The calls that led to where a guest stopped, innermost first.
///
/// It was walked when the guest ended, in bounded time, along a stack that the guest may have
/// made up: it is the guest's own statement. Names and lines are looked up when [`Self::frames`]
/// is called for the first time, and then kept. Of a very deep stack only the inner and outer ends
/// are here.
#[derive(Clone)]
pub struct Backtrace {
    calls: Calls,
    symbols: Option<Arc<Symbols>>,
    frames: OnceLock<Found>,
}

/// Frames, and the index of the one before which some were left out.
#[derive(Clone)]
struct Found {
    frames: Vec<Frame>,
    omitted_before: usize,
}

impl Backtrace {
    pub(crate) fn new(calls: Calls, symbols: Arc<Symbols>) -> Self {
        Self {
            calls,
            symbols: Some(symbols),
            frames: OnceLock::new(),
        }
    }

    /// Of no calls at all.
    pub(crate) fn empty() -> Self {
        Self {
            calls: Calls::default(),
            symbols: None,
            frames: OnceLock::new(),
        }
    }

    /// Guest-virtual addresses: where the guest stood, then return addresses, without names.
    #[must_use]
    pub fn addresses(&self) -> &[u64] {
        &self.calls.addresses
    }

    /// How many calls were left out of the middle of a deep stack.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.calls.omitted
    }

    fn found(&self) -> &Found {
        self.frames.get_or_init(|| {
            let resolved = match &self.symbols {
                Some(symbols) => symbols.resolve(&self.calls.addresses),
                None => Vec::new(),
            };
            let before = resolved.iter().take(self.calls.omitted_before);
            Found {
                omitted_before: before.map(Vec::len).sum(),
                frames: resolved.into_iter().flatten().collect(),
            }
        })
    }

    /// All frames, inlined functions as well as the runtime's own. The first call looks the names
    /// up, and so does whatever else shows or serializes a backtrace for the first time. That blocks
    /// the thread for some milliseconds, and for a few tenths of a second whatever the guest's file
    /// holds: what cannot be found by then has no name or line. In async code that cannot wait so
    /// long, do it on a thread for such, as `tokio::task::spawn_blocking` has.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.found().frames
    }

    /// The frames of the guest's author: without those that handle a panic, and without the
    /// executor beneath the task. All frames, if that leaves none.
    #[must_use]
    pub fn user_frames(&self) -> &[Frame] {
        self.frames().get(self.user_range()).unwrap_or_default()
    }

    /// Whether the guest stood in the runtime alone, waiting or between tasks.
    #[must_use]
    pub fn is_runtime_only(&self) -> bool {
        self.frames().iter().all(|frame| frame.runtime)
    }

    fn user_range(&self) -> Range<usize> {
        let frames = self.frames();
        let outer = frames.iter().rposition(|frame| !frame.runtime);
        let end = outer.map_or(frames.len(), |last| last + 1);
        // The language's functions on the way to the panic handler say less than the message.
        let handler = frames.iter().rposition(Frame::is_panic_handler);
        let start = handler.map_or(0, |handler| {
            let behind = frames.iter().skip(handler + 1);
            handler + 1 + behind.take_while(|frame| frame.runtime).count()
        });
        if start < end {
            start..end
        } else {
            0..frames.len()
        }
    }

    /// The innermost frame of the guest's author.
    #[must_use]
    pub fn location(&self) -> Option<&Frame> {
        let frames = self.user_frames();
        frames
            .iter()
            .find(|frame| !frame.runtime && frame.line.is_some())
            .or(frames.first())
    }

    /// [`Self::location`], by its former name.
    #[deprecated = "it is `location` now"]
    #[must_use]
    pub fn place(&self) -> Option<&Frame> {
        self.location()
    }

    /// Writes the frames, one or two lines each: all of them if `full`, else [`Self::user_frames`].
    /// `faint` makes what is less important less visible.
    ///
    /// # Errors
    ///
    /// What `f` says.
    pub fn write(
        &self,
        f: &mut dyn fmt::Write,
        full: bool,
        faint: &dyn Fn(&str) -> String,
    ) -> fmt::Result {
        let Found {
            frames,
            omitted_before,
        } = self.found();
        let range = if full {
            0..frames.len()
        } else {
            self.user_range()
        };
        let mut index = range.start;
        while let Some(frame) = frames.get(index).filter(|_| index < range.end) {
            let name = match (&frame.function, frame.offset) {
                (Some(name), _) => name.clone(),
                (None, Some(offset)) => format!("guest+{offset:#x}"),
                (None, None) => format!("{:#x}", frame.address),
            };
            let inlined = if frame.inlined {
                faint(" (inlined)")
            } else {
                String::new()
            };
            writeln!(f, "{index:>4}: {name}{inlined}")?;
            if let Some(file) = &frame.file {
                let at = location(file, frame.line, frame.column);
                writeln!(f, "      {}", faint(&format!("at {at}")))?;
            }
            // A function that calls itself from one location is shown once.
            let next = frames.iter().take(range.end).skip(index + 1);
            let again = next.take_while(|next| next.is_again(frame)).count();
            index += 1 + again;
            let omits = self.calls.omitted > 0 && (index - again..=index).contains(omitted_before);
            let omitted = if omits { self.calls.omitted } else { 0 };
            let more = if omits && self.calls.unfinished {
                " or more"
            } else {
                ""
            };
            let note = match (again, omits) {
                (0, false) => continue,
                (0, true) => format!("... {omitted}{more} calls that are not shown"),
                (1, false) => "... once more".to_owned(),
                (again, _) => format!("... {}{more} times more", again + omitted),
            };
            writeln!(f, "      {}", faint(&note))?;
        }
        let hidden = frames.len() - range.len();
        if hidden > 0 {
            let note = format!("{hidden} frames of the runtime are not shown");
            writeln!(f, "      {}", faint(&note))?;
        }
        Ok(())
    }
}

/// `file:line:column`, as far as is known.
#[must_use]
pub fn location(file: &str, line: Option<u32>, column: Option<u32>) -> String {
    let mut text = file.to_owned();
    for number in [line, column].into_iter().map_while(|number| number) {
        text.push_str(&format!(":{number}"));
    }
    text
}

/// All frames, one or two lines each.
impl fmt::Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, true, &str::to_owned)
    }
}

impl fmt::Debug for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Backtrace").field(&self.calls).finish()
    }
}

/// The same addresses, whatever they are called.
impl PartialEq for Backtrace {
    fn eq(&self, other: &Self) -> bool {
        self.calls == other.calls
    }
}

impl Eq for Backtrace {}

/// The list of all frames.
impl Serialize for Backtrace {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let frames = self.frames();
        let mut list = serializer.serialize_seq(Some(frames.len()))?;
        for frame in frames {
            list.serialize_element(frame)?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(name: &str) -> Frame {
        Frame {
            function: Some(name.into()),
            ..Frame::default()
        }
    }

    fn backtrace(names: &[&str]) -> Backtrace {
        let mut frames = vec![names.iter().map(|name| frame(name)).collect::<Vec<_>>()];
        mark_runtime(&mut frames);
        let found = Found {
            frames: frames.concat(),
            omitted_before: names.len(),
        };
        Backtrace {
            frames: OnceLock::from(found),
            ..Backtrace::empty()
        }
    }

    #[test]
    fn a_crate_is_told_by_a_functions_name() {
        for (name, krate) in [
            ("probes::main", Some("probes")),
            ("<probes::A as core::fmt::Debug>::fmt", Some("probes")),
            ("<&mut core::A<probes::B> as probes::T>::f", Some("core")),
            ("<dyn my_crate::T>::f", Some("my_crate")),
            ("memcpy", None),
            ("", None),
        ] {
            assert_eq!(frame(name).crate_name(), krate, "{name}");
        }
    }

    #[test]
    fn the_authors_frames_are_those_between_panic_and_executor() {
        let trace = backtrace(&[
            "wakebox_guest::panic::panic",
            "__rustc::rust_begin_unwind",
            "core::panicking::panic_fmt",
            "core::panicking::panic_bounds_check",
            "probe::fetch",
            "core::iter::for_each",
            "probe::main::{{closure}}",
            "<core::pin::Pin<P> as core::future::Future>::poll",
            "wakebox_guest::executor::Executor::turn",
            "probe::__wakebox_guest::__libc_start_main",
            "_start",
        ]);
        let names: Vec<_> = trace
            .user_frames()
            .iter()
            .filter_map(|frame| frame.function.as_deref())
            .collect();
        assert_eq!(
            names,
            [
                "probe::fetch",
                "core::iter::for_each",
                "probe::main::{{closure}}"
            ]
        );
    }

    #[test]
    fn recursion_is_shown_once() {
        let trace = backtrace(&["probe::a", "probe::b", "probe::b", "probe::b", "probe::a"]);
        assert_eq!(
            trace.to_string(),
            "   0: probe::a\n   1: probe::b\n      ... 2 times more\n   4: probe::a\n"
        );
    }

    #[test]
    fn what_is_inlined_is_known_by_where_its_source_lies() {
        let at = |name: &str, file: &str| Frame {
            file: Some(file.into()),
            ..frame(name)
        };
        let mut frames = [vec![
            at("ring", "/r/wakebox-abi-0.1.0/src/port.rs"),
            at("read<u8>", "/rustc/0123/library/core/src/ptr/mod.rs"),
            at("{async_fn#0}", "/home/me/guest/src/main.rs"),
            at(
                "poll<main::{async_fn_env#0}>",
                "/r/wakebox-guest-0.1.0/src/executor/task.rs",
            ),
            at(
                "wakebox_guest::entry::start",
                "/r/wakebox-guest-0.1.0/src/entry.rs",
            ),
        ]];
        mark_runtime(&mut frames);
        let runtime: Vec<_> = frames[0].iter().map(|frame| frame.runtime).collect();
        assert_eq!(runtime, [true, true, false, true, true]);
    }

    #[test]
    fn a_guest_that_only_waits_has_all_its_frames_shown() {
        let trace = backtrace(&["wakebox_guest::idle::wait", "_start"]);
        assert!(trace.is_runtime_only());
        assert_eq!(trace.user_frames().len(), 2);
    }
}
