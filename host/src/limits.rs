//! How much a sandbox may use.
//!
//! One table ([`limits!`](self)) says what is limited, in which unit, to what by default, and what
//! happens at the limit. Policy files, options and sentences are made of it. How a running
//! sandbox is measured is `meter.rs`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::text::nearest;
use crate::units;

/// In what a limit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Time,
    Bytes,
    Count,
}

/// Stands for "without limit" among nanoseconds, bytes and things.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// Declares [`LimitKind`] and the methods of [`Limits`] from one table.
macro_rules! limits {
    ($(
        $(#[doc = $doc:literal])*
        $kind:ident $method:ident($($argument:tt)*) $key:literal $unit:ident $default:expr,
        $noun:literal, $then:literal;
    )*) => {
        /// What is limited.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum LimitKind {
            $($(#[doc = $doc])* $kind,)*
        }

        impl LimitKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// How many there are.
            pub(crate) const COUNT: usize = Self::ALL.len();

            /// The name in policy files and options.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self {
                    $(Self::$kind => $key,)*
                }
            }

            const fn unit(self) -> Unit {
                match self {
                    $(Self::$kind => Unit::$unit,)*
                }
            }

            const fn default_value(self) -> u64 {
                match self {
                    $(Self::$kind => $default,)*
                }
            }

            /// What there is so much of.
            const fn noun(self) -> &'static str {
                match self {
                    $(Self::$kind => $noun,)*
                }
            }

            /// What happens at the limit.
            const fn then(self) -> &'static str {
                match self {
                    $(Self::$kind => $then,)*
                }
            }
        }

        impl Limits {
            $(
                $(#[doc = $doc])*
                #[must_use]
                pub fn $method(mut self, most: limits!(@type $($argument)*)) -> Self {
                    self.values[LimitKind::$kind as usize] = Some(limits!(@value most $($argument)*));
                    self
                }
            )*
        }
    };
    (@type $argument:ty) => { $argument };
    (@value $most:ident impl Into<Option<Duration>>) => {
        $most.into().map_or(UNLIMITED, nanoseconds)
    };
    (@value $most:ident impl Into<Option<$number:ty>>) => {
        $most.into().map_or(UNLIMITED, u64::from)
    };
    (@value $most:ident $number:ty) => { $most };
}

limits! {
    /// Time of a run by the wall clock, from its first poll. At the limit it ends with
    /// [`Limit::WallClock`](crate::Limit::WallClock). Without limit by default.
    WallClock wall_clock(impl Into<Option<Duration>>) "wall-clock" Time UNLIMITED,
        "of run time by the wall clock", "it is ended";
    /// Time in which a processor has run the guest, as the host's scheduler counts it: neither
    /// while it is parked nor while the host is busy with others; but what takes less than 100 us
    /// from entering the guest to leaving it counts by the wall clock. At the limit it ends with
    /// [`Limit::CpuTime`](crate::Limit::CpuTime), at most 2 ms late. Without limit by default.
    CpuTime cpu_time(impl Into<Option<Duration>>) "cpu-time" Time UNLIMITED,
        "of time on a processor", "it is ended";
    /// RAM in bytes, everything included: image, stack, rings, arena, heap. Committed as it is
    /// touched; it always has a limit. At the limit the guest's allocations fail, which is a
    /// panic in code that does not expect it. 64 MiB by default.
    Memory memory(u64) "memory" Bytes 64 << 20,
        "of memory", "allocations fail";
    /// Bytes of its own memory that the host keeps for the guest: messages that wait or are only sent
    /// in part, arguments of host functions and what they were read into, paths, calls of the guest
    /// that have no answer yet, 128 bytes for each in addition, and
    /// [captured](crate::Output::Capture) output; it always has a limit. At the limit
    /// what needs more is refused with `LimitReached`, or
    /// [`CallError::LimitReached`](crate::CallError::LimitReached). 128 MiB by default: a few of the
    /// largest messages at once, each with the value that it becomes.
    HostMemory host_memory(u64) "host-memory" Bytes 128 << 20,
        "of the host's memory", "what needs more is refused";
    /// Operations in flight, rounded up to a power of two. At the limit operations wait in the
    /// guest; a guest that submits more all the same breaks the interface and ends with
    /// [`Outcome::Violation`](crate::Outcome::Violation). 4,096 by default; without limit, as
    /// many as a completion ring can have.
    InFlight in_flight(impl Into<Option<u32>>) "in-flight" Count 4096,
        "operations in flight", "further ones wait";
    /// Open sockets, files, directories and streams of host functions, and those about to be opened.
    /// At the limit opening more is refused with `LimitReached`, and connections that come in
    /// wait in the backlog until something is closed. By default a quarter of the
    /// descriptors that the process may have when the sandbox is made (`RLIMIT_NOFILE`), at most
    /// 65,536; without limit, about a million.
    Handles handles(impl Into<Option<u32>>) "handles" Count 1 << 16,
        "open handles", "opening is refused";
    /// Timers that the host keeps for the guest; the guest's library needs two, whatever the
    /// number of its own. At the limit another is refused with `LimitReached`. 4,096 by default.
    Timers timers(impl Into<Option<u32>>) "timers" Count 4096,
        "pending timers on the host", "another one is refused";
    /// Bytes received from TCP, UDP and Unix sockets. At the limit reading is refused with
    /// `QuotaExceeded`. Without limit by default.
    NetworkIn network_in(impl Into<Option<u64>>) "network-in" Bytes UNLIMITED,
        "from the network", "receiving is refused";
    /// Bytes sent to TCP, UDP and Unix sockets. At the limit sending is refused with
    /// `QuotaExceeded`. Without limit by default.
    NetworkOut network_out(impl Into<Option<u64>>) "network-out" Bytes UNLIMITED,
        "to the network", "sending is refused";
    /// Bytes read from files and directories. At the limit reading is refused with
    /// `QuotaExceeded`. Without limit by default.
    FilesIn files_in(impl Into<Option<u64>>) "files-in" Bytes UNLIMITED,
        "from files", "reading is refused";
    /// Bytes that the guest makes files larger by or writes to them: gaps and lengths that it sets
    /// count like bytes, and a new file or directory counts 4 KiB, which are the file's first bytes
    /// besides. What is removed does not come back. At the limit writing and making is refused with
    /// `QuotaExceeded`. Without limit by default.
    FilesOut files_out(impl Into<Option<u64>>) "files-out" Bytes UNLIMITED,
        "to files", "writing is refused";
    /// Bytes read from standard input. At the limit reading is refused with `QuotaExceeded`.
    /// Without limit by default.
    Stdin stdin(impl Into<Option<u64>>) "stdin" Bytes UNLIMITED,
        "from standard input", "reading is refused";
    /// Bytes written to standard output. At the limit writing is refused with `QuotaExceeded`, of
    /// which `println!` takes no notice. Without limit by default.
    Stdout stdout(impl Into<Option<u64>>) "stdout" Bytes UNLIMITED,
        "to standard output", "writing is refused";
    /// Bytes of messages to the guest: results and items of host functions, arguments of its own
    /// functions. At the limit a message is refused with `QuotaExceeded`. Without limit by default.
    CallsIn calls_in(impl Into<Option<u64>>) "calls-in" Bytes UNLIMITED,
        "of messages from calls", "a message is refused";
    /// Bytes of messages from the guest: arguments of host functions, results of its own
    /// functions. At the limit a message is refused with `QuotaExceeded`. Without limit by default.
    CallsOut calls_out(impl Into<Option<u64>>) "calls-out" Bytes UNLIMITED,
        "of messages to calls", "a message is refused";
    /// Bytes written to standard error, where logs and last words go. What is within the limit is
    /// written; beyond, the guest ends with [`Limit::Log`](crate::Limit::Log). 1 GiB by default.
    Log log(impl Into<Option<u64>>) "log" Bytes 1 << 30,
        "to standard error", "it is ended";
    /// Time of one call of a host function. At the limit the call is dropped and the guest is told
    /// `TimedOut`. Items of a stream may take as long as they like. A minute by default.
    HostFnTime host_fn_time(impl Into<Option<Duration>>) "host-fn-time" Time 60_000_000_000,
        "for a call of a host function", "the call fails";
    /// Virtual processors that the guest may have; at most 64 in any case. A guest that asks for more, or is given
    /// more ([`Builder::processors`](crate::Builder::processors)), is not built. One by default.
    Processors processors(impl Into<Option<u32>>) "processors" Count 1,
        "virtual processors", "it is not built";
}

impl LimitKind {
    /// Whether bytes are counted.
    pub(crate) fn is_bytes(self) -> bool {
        self.unit() == Unit::Bytes
    }

    /// Whether "without limit" cannot be said of it: memory runs out for everybody.
    const fn is_always_limited(self) -> bool {
        matches!(self, Self::Memory | Self::HostMemory)
    }

    fn of_key(key: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.key() == key)
    }

    /// The value of a text, as policy files and options have it.
    fn parse(self, text: &str) -> Result<u64, InvalidLimit> {
        let wrong = |why: String| InvalidLimit {
            key: self.key().into(),
            why,
        };
        if text == "unlimited" {
            return match self {
                kind if kind.is_always_limited() => {
                    Err(wrong(format!("{} always has a limit", kind.key())))
                }
                _ => Ok(UNLIMITED),
            };
        }
        match self.unit() {
            Unit::Time => match humantime::parse_duration(text) {
                Ok(time) => Ok(nanoseconds(time)),
                Err(error) => Err(wrong(format!(
                    "`{}` is not a time: {error}; write it like 500ms, 10s or 2min, or `unlimited`",
                    text.escape_debug()
                ))),
            },
            Unit::Bytes => units::parse_bytes(text).map_err(wrong),
            Unit::Count => match text.parse::<u32>() {
                Ok(count) => Ok(count.into()),
                Err(_) => Err(wrong(format!(
                    "`{}` is not a number from 0 to {}, nor `unlimited`",
                    text.escape_debug(),
                    u32::MAX
                ))),
            },
        }
    }

    fn show(self, value: u64) -> String {
        match self.unit() {
            Unit::Time => units::duration(Duration::from_nanos(value)),
            Unit::Bytes => units::bytes(value),
            Unit::Count => units::count(value),
        }
    }
}

/// A time that is no longer than the host can count: 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).map_or(UNLIMITED - 1, |time| time.min(UNLIMITED - 1))
}

/// A limit that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit `{key}` cannot be: {why}")]
pub struct InvalidLimit {
    key: String,
    why: String,
}

/// How much a sandbox may use, part of its [`Policy`](crate::Policy).
///
/// Each limit has a default; `None` in place of a value is "without limit". Reaching a limit on
/// time or on the log ends the sandbox with [`Outcome::Limit`](crate::Outcome::Limit); reaching
/// another is an ordinary error in the guest. [`LimitKind`] says which.
///
/// ```
/// use std::time::Duration;
/// use wakebox::Limits;
///
/// let limits = Limits::new()
///     .wall_clock(Duration::from_secs(10))
///     .network_out(1 << 20)
///     .log(None);
/// # let _ = limits;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    values: [Option<u64>; LimitKind::COUNT],
}

impl Limits {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No limit on anything but memory, the guest's and the host's, which have their defaults, and nothing without bounds: what
    /// the interface itself bounds stays bounded.
    #[must_use]
    pub fn unlimited() -> Self {
        let mut limits = Self::new();
        for kind in LimitKind::ALL {
            if !kind.is_always_limited() {
                limits.values[*kind as usize] = Some(UNLIMITED);
            }
        }
        limits
    }

    /// The limit in nanoseconds, bytes or things, `None` without one.
    #[must_use]
    pub fn get(&self, kind: LimitKind) -> Option<u64> {
        Some(self.value(kind)).filter(|value| *value != UNLIMITED)
    }

    /// As [`Self::get`], with the largest number for "without limit".
    pub(crate) fn value(&self, kind: LimitKind) -> u64 {
        self.values[kind as usize].unwrap_or(kind.default_value())
    }

    /// Whether it was said, even if only that there is none.
    pub(crate) fn is_set(&self, kind: LimitKind) -> bool {
        self.values[kind as usize].is_some()
    }

    /// A limit on time.
    pub(crate) fn time(&self, kind: LimitKind) -> Option<Duration> {
        self.get(kind).map(Duration::from_nanos)
    }

    /// A limit on a number of things; without limit, the largest number.
    pub(crate) fn count(&self, kind: LimitKind) -> u32 {
        u32::try_from(self.value(kind)).unwrap_or(u32::MAX)
    }

    /// Sets what a text says, `KEY=VALUE`, as in policy files: `cpu-time=2s`, `memory=64M`,
    /// `handles=100`, `log=unlimited`.
    ///
    /// # Errors
    ///
    /// There is no such limit, or it cannot have this value.
    pub fn set(mut self, setting: &str) -> Result<Self, InvalidLimit> {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(InvalidLimit {
                key: setting.escape_debug().to_string(),
                why: "write it like cpu-time=2s".into(),
            });
        };
        let Some(kind) = LimitKind::of_key(key) else {
            let known: Vec<_> = LimitKind::ALL.iter().map(|kind| kind.key()).collect();
            let meant = nearest(key, &known).map(|near| format!("did you mean `{near}`? "));
            return Err(InvalidLimit {
                key: key.escape_debug().to_string(),
                why: format!(
                    "{}there are {}",
                    meant.unwrap_or_default(),
                    known.join(", ")
                ),
            });
        };
        self.values[kind as usize] = Some(kind.parse(value)?);
        Ok(self)
    }

    /// A line for each limit: its key, its value, what happens at it.
    #[must_use]
    pub fn table(&self) -> String {
        let line = |kind: &LimitKind| {
            let value = match self.get(*kind) {
                Some(value) => kind.show(value),
                None => "unlimited".into(),
            };
            let (key, noun, then) = (kind.key(), kind.noun(), kind.then());
            format!("{key:<12} {value:>9}  {noun}; then {then}")
        };
        LimitKind::ALL
            .iter()
            .map(line)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// These limits, and for what they leave open, those of `other`.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        for (own, other) in self.values.iter_mut().zip(&other.values) {
            *own = own.or(*other);
        }
        self
    }

    /// These limits and those of `other`.
    ///
    /// # Errors
    ///
    /// Both say how large one limit is, and not the same.
    pub fn with(mut self, other: &Self) -> Result<Self, InvalidLimit> {
        for kind in LimitKind::ALL {
            let (own, other) = (
                &mut self.values[*kind as usize],
                other.values[*kind as usize],
            );
            match (*own, other) {
                (Some(one), Some(two)) if one != two => {
                    let said = |value| match value {
                        UNLIMITED => "unlimited".to_owned(),
                        value => kind.show(value),
                    };
                    return Err(InvalidLimit {
                        key: kind.key().into(),
                        why: format!("it is given as {} and as {}", said(one), said(two)),
                    });
                }
                (one, two) => *own = one.or(two),
            }
        }
        Ok(self)
    }

    /// The stricter of two, limit by limit; one that is not set does not count.
    #[must_use]
    pub(crate) fn and(mut self, other: &Self) -> Self {
        for (own, other) in self.values.iter_mut().zip(&other.values) {
            *own = match (*own, *other) {
                (Some(one), Some(two)) => Some(one.min(two)),
                (one, two) => one.or(two),
            };
        }
        self
    }
}

impl FromStr for Limits {
    type Err = InvalidLimit;

    /// A single limit, as [`Self::set`] has it.
    fn from_str(setting: &str) -> Result<Self, InvalidLimit> {
        Self::new().set(setting)
    }
}

impl fmt::Display for Limits {
    /// One sentence a line, defaults included; ends without a line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut without = Vec::new();
        for kind in LimitKind::ALL {
            let Some(value) = self.get(*kind) else {
                without.push(kind.key());
                continue;
            };
            let (noun, then) = (kind.noun(), kind.then());
            writeln!(
                f,
                "It gets at most {} {noun}; then {then}.",
                kind.show(value)
            )?;
        }
        match without.as_slice() {
            [] => f.write_str("Everything has a limit."),
            keys => write!(f, "Without limit: {}.", keys.join(", ")),
        }
    }
}

/// Bytes of RAM of the machine that this runs on.
pub(crate) fn memory_of_the_machine() -> u64 {
    let available = rustix::system::sysinfo();
    #[allow(
        clippy::useless_conversion,
        reason = "the field's type differs by platform"
    )]
    let bytes = u64::from(available.totalram) * u64::from(available.mem_unit);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_value_a_default_or_none() {
        let limits = Limits::new().cpu_time(Duration::from_secs(2)).log(None);
        assert_eq!(
            limits.time(LimitKind::CpuTime),
            Some(Duration::from_secs(2))
        );
        assert_eq!(limits.get(LimitKind::Log), None);
        assert_eq!(limits.get(LimitKind::Memory), Some(64 << 20));
        assert_eq!(limits.get(LimitKind::WallClock), None);
        for kind in LimitKind::ALL {
            let is_memory = matches!(kind, LimitKind::Memory | LimitKind::HostMemory);
            assert_eq!(Limits::unlimited().get(*kind).is_some(), is_memory);
        }
        // Longer than can be counted is not "without limit".
        let long = Limits::new().wall_clock(Duration::MAX);
        assert!(long.get(LimitKind::WallClock).is_some());
    }

    #[test]
    fn a_text_sets_every_limit() {
        for kind in LimitKind::ALL {
            let (text, value) = match kind.unit() {
                Unit::Time => ("1500ms", 1_500_000_000),
                Unit::Bytes => ("64K", 65_536),
                Unit::Count => ("7", 7),
            };
            let limits: Limits = format!("{}={text}", kind.key()).parse().unwrap();
            assert_eq!(limits.get(*kind), Some(value));
            let unlimited = format!("{}=unlimited", kind.key()).parse::<Limits>();
            match kind {
                LimitKind::Memory | LimitKind::HostMemory => assert!(unlimited.is_err()),
                _ => assert_eq!(unlimited.unwrap().get(*kind), None),
            }
        }
    }

    #[test]
    fn a_text_that_is_none_is_refused_with_the_reason() {
        for (text, words) in [
            ("memory", &["memory", "cpu-time=2s"][..]),
            ("speed=1", &["speed", "wall-clock", "host-fn-time"]),
            ("cpu-time=5", &["cpu-time", "`5`", "500ms"]),
            ("handles=-1", &["handles", "`-1`", "4294967295"]),
            ("log=much", &["log", "`much`"]),
            ("memory=unlimited", &["memory", "always"]),
        ] {
            let error = text.parse::<Limits>().unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{word}: {error}");
            }
        }
    }

    #[test]
    fn one_limit_has_one_value() {
        let said = |text: &str| text.parse::<Limits>().unwrap();
        let both = said("memory=1M").with(&said("handles=3")).unwrap();
        assert_eq!(both.get(LimitKind::Memory), Some(1 << 20));
        assert_eq!(both.get(LimitKind::Handles), Some(3));
        // Said twice, and not different.
        assert_eq!(both.with(&said("memory=1024K")), Ok(both));
        let error = both.with(&said("handles=unlimited")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the limit `handles` cannot be: it is given as 3 and as unlimited"
        );
    }

    #[test]
    fn of_two_policies_the_stricter_counts_and_an_option_beats_both() {
        let one = Limits::new().handles(10).log(None);
        let two = Limits::new().handles(20).log(5).timers(1);
        let both = one.and(&two);
        assert_eq!(both.get(LimitKind::Handles), Some(10));
        assert_eq!(both.get(LimitKind::Log), Some(5));
        assert_eq!(both.get(LimitKind::Timers), Some(1));
        let option = Limits::new().handles(99).or(&both);
        assert_eq!(option.get(LimitKind::Handles), Some(99));
        assert_eq!(option.get(LimitKind::Timers), Some(1));
    }
}
