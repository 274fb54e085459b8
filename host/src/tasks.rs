//! The tasks of a guest and what each waits for: what the guest says ([`wakebox_abi::task`]), and what the
//! host knows of the operations that are in flight.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use wakebox_abi::entry::Token;
use wakebox_abi::task::{Entry, Holder, LISTS_MAX, SINCE, State, TYPE_NAME, short_name};
use wakebox_trace::units;
use wakebox_vmm::memory::View;

use crate::text::Quoted;

/// Most tasks that are looked at: a guest may have a million, and may say that they stand in a circle.
const MOST: usize = 256;

/// Most bytes of a name that are looked at.
const NAME_MAX: usize = 256;

/// A task of a guest that has not ended, in the guest's own words: escaped, and cut off if they are long.
///
/// `Display` gives a sentence for a person, `Serialize` the same for a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Task {
    /// From 1 on, in the order in which the guest makes them.
    pub number: u32,
    /// What it was called, or what the function is called that its future is of.
    pub name: String,
    /// Where it was spawned, as in `src/main.rs:20:9`; `None` for those of the guest's runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// What it waits for: the first thing that its last poll has asked for.
    pub waits: Waits,
    /// How many things more it waits for.
    pub more: u32,
    /// How long ago it was last polled, or made. It may be too long by what the guest has computed without a look at
    /// the clock; a guest looks whenever it wakes up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Duration>,
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "for")]
#[non_exhaustive]
pub enum Waits {
    /// Something in the guest that its runtime knows nothing of: a lock or a channel between tasks, for
    /// instance.
    Other,
    /// Nothing: it is being polled.
    Polled,
    /// Nothing any more: what it waited for is done.
    Done,
    /// An operation of the host.
    Operation {
        /// Which, as in `ReadStream #65 on 127.0.0.1:80`.
        what: String,
        /// For how long it has been in flight, to a few milliseconds.
        since: Duration,
    },
    /// A time.
    Timer {
        /// For how long it still waits.
        left: Duration,
    },
    /// The end of another task.
    Task {
        /// Its number.
        number: u32,
    },
    /// Room for an operation: as many as may be are in flight.
    Slot,
    /// That the sandbox is restored from a template.
    Restored,
    /// A lock of the guest's library.
    Lock {
        /// Who holds it; `None` if nobody does any more, or no task.
        #[serde(skip_serializing_if = "Option::is_none")]
        holder: Option<LockHolder>,
    },
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LockHolder {
    /// The number of the task.
    pub task: u32,
    /// Its name, if it is among the tasks that are told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it has taken the lock, as in `src/main.rs:20:9`.
    pub location: String,
    /// How long ago.
    pub since: Duration,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}", self.name, self.number)?;
        if let Some(location) = &self.location {
            write!(f, ", spawned at {location}")?;
        }
        write!(f, ") {}", self.waits)?;
        if self.more > 0 {
            write!(f, ", or for {} more", self.more)?;
        }
        let told = matches!(
            self.waits,
            Waits::Polled | Waits::Done | Waits::Operation { .. }
        );
        match self.since {
            Some(since) if !told => write!(f, ", since {}", units::duration(since)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("waits for another task: a lock, a channel, a waker"),
            Self::Polled => f.write_str("is being polled"),
            Self::Done => f.write_str("can go on: what it waited for is done"),
            Self::Operation { what, since } => {
                write!(f, "waits for {what} since {}", units::duration(*since))
            }
            Self::Timer { left } if left.is_zero() => f.write_str("waits for a timer that is due"),
            Self::Timer { left } => {
                write!(f, "waits for a timer, {} more", units::duration(*left))
            }
            Self::Task { number } => write!(f, "waits for the end of task {number}"),
            Self::Slot => f.write_str("waits for room for an operation (--in-flight)"),
            Self::Restored => f.write_str("waits to be restored from a template"),
            Self::Lock { holder: None } => f.write_str("waits for a lock that nobody holds"),
            Self::Lock {
                holder: Some(holder),
            } => write!(f, "waits for a lock that {holder}"),
        }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "`{name}` ({})", self.task)?,
            None => write!(f, "task {}", self.task)?,
        }
        write!(
            f,
            " has held since {}, taken at {}",
            units::duration(self.since),
            self.location
        )
    }
}

/// Reads the tasks of a processor that stands still. `own` is where it says that those of its executor
/// are, `more` where it has lists of others, or zero, `now_ns` the time of its clock, and `in_flight` tells of an
/// operation, if it is.
pub(crate) fn read(
    view: &View,
    own: u64,
    more: u64,
    now_ns: u64,
    mut in_flight: impl FnMut(Token) -> Option<(String, Duration)>,
) -> Vec<Task> {
    let mut tasks = Vec::new();
    if let Some([oldest]) = words(view, own) {
        read_list(view, oldest, now_ns, &mut in_flight, &mut tasks);
    }
    let mut next = more;
    for _ in 0..LISTS_MAX {
        let list = (next != 0).then(|| words(view, next)).flatten();
        let Some([oldest, another]) = list else {
            break;
        };
        read_list(view, oldest, now_ns, &mut in_flight, &mut tasks);
        next = another;
    }
    tasks
}

/// The oldest of tasks, in their order, as many as are told of.
pub(crate) fn oldest(mut tasks: Vec<Task>) -> Vec<Task> {
    tasks.sort_by_key(|task| task.number);
    tasks.truncate(MOST);
    // In their order, so that a holder is found soon.
    for at in 0..tasks.len() {
        let Waits::Lock {
            holder: Some(holder),
        } = &tasks[at].waits
        else {
            continue;
        };
        let found = tasks.binary_search_by_key(&holder.task, |task| task.number);
        let found = found.ok().map(|found| tasks[found].name.clone());
        if let Waits::Lock {
            holder: Some(holder),
        } = &mut tasks[at].waits
        {
            holder.name = found;
        }
    }
    tasks
}

/// Reads the tasks from the oldest of a list on, until there are [`MOST`].
fn read_list(
    view: &View,
    oldest: u64,
    now_ns: u64,
    in_flight: &mut impl FnMut(Token) -> Option<(String, Duration)>,
    tasks: &mut Vec<Task>,
) {
    let mut next = oldest;
    while next != 0 && tasks.len() < MOST {
        let Some(entry) = words(view, next).map(Entry::from_words) else {
            break;
        };
        let (state, more) = entry.waits();
        let waits = match state {
            Some(State::Polled) => Waits::Polled,
            Some(State::Operation) => match in_flight(Token::from_word(entry.detail)) {
                Some((what, since)) => Waits::Operation { what, since },
                None => Waits::Done,
            },
            Some(State::Timer) => Waits::Timer {
                left: Duration::from_nanos(entry.detail.saturating_sub(now_ns)),
            },
            Some(State::Task) => Waits::Task {
                number: entry.detail as u32,
            },
            Some(State::Slot) => Waits::Slot,
            Some(State::Restored) => Waits::Restored,
            Some(State::Lock) => Waits::Lock {
                holder: holder(view, entry.detail, now_ns),
            },
            Some(State::Other) | None => Waits::Other,
        };
        let follows = next.wrapping_add(Entry::SIZE as u64);
        let since = (entry.state & SINCE != 0).then(|| words(view, follows));
        tasks.push(Task {
            number: entry.number,
            name: name(view, &entry),
            location: (entry.file_len > 0)
                .then(|| place(view, (entry.file, entry.file_len), entry.line, entry.column)),
            waits,
            more,
            since: since.flatten().map(|[at]| ago(at, now_ns)),
        });
        next = entry.next;
    }
}

/// How long ago something was, on the guest's clock.
fn ago(at_ns: u64, now_ns: u64) -> Duration {
    Duration::from_nanos(now_ns.saturating_sub(at_ns))
}

/// A place in a source file.
fn place(view: &View, (file, len): (u64, u32), line: u32, column: u32) -> String {
    let file = text(view, file, len);
    Quoted(format!("{file}:{line}:{column}")).to_string()
}

/// Who holds the lock whose holder is at an address.
fn holder(view: &View, address: u64, now_ns: u64) -> Option<LockHolder> {
    let holder = Holder::from_words(words(view, address)?);
    let file = (holder.file, holder.file_len);
    (holder.task != 0).then(|| LockHolder {
        task: holder.task,
        name: None,
        location: place(view, file, holder.line, holder.column),
        since: ago(holder.since, now_ns),
    })
}

fn name(view: &View, entry: &Entry) -> String {
    let whole = text(view, entry.name, entry.name_len);
    let mut name = String::new();
    // A text that can be written to.
    let written = match entry.state & TYPE_NAME {
        0 => Err(fmt::Error),
        _ => short_name(&whole, &mut name),
    };
    Quoted(if written.is_ok() { name } else { whole }).to_string()
}

/// The words at an address of the guest, if they are there.
fn words<const N: usize>(view: &View, address: u64) -> Option<[u64; N]> {
    let mut words = [[0; 8]; N];
    let bytes = words.as_flattened_mut();
    let len = bytes.len();
    (view.read(address, bytes) == len).then(|| words.map(u64::from_le_bytes))
}

/// As much of a text as is there and looked at.
fn text(view: &View, address: u64, len: u32) -> String {
    let mut bytes = vec![0; (len as usize).min(NAME_MAX)];
    let there = view.read(address, &mut bytes);
    bytes.truncate(there);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_told_in_a_sentence() {
        let task = |waits, more| Task {
            number: 3,
            name: "fetch-2".into(),
            location: Some("src/main.rs:20:9".into()),
            waits,
            more,
            since: Some(Duration::from_millis(2500)),
        };
        let operation = Waits::Operation {
            what: "ReadStream #65 on 127.0.0.1:80".into(),
            since: Duration::from_millis(1900),
        };
        assert_eq!(
            task(operation, 0).to_string(),
            "`fetch-2` (3, spawned at src/main.rs:20:9) waits for ReadStream #65 on 127.0.0.1:80 \
             since 1.90 s"
        );
        assert!(
            task(Waits::Other, 2)
                .to_string()
                .ends_with(" a waker, or for 2 more, since 2.50 s")
        );
        let holder = LockHolder {
            task: 4,
            name: Some("other".into()),
            location: "src/main.rs:7:3".into(),
            since: Duration::from_secs(3),
        };
        let lock = Waits::Lock {
            holder: Some(holder),
        };
        assert!(task(lock, 0).to_string().ends_with(
            ") waits for a lock that `other` (4) has held since 3.00 s, taken at src/main.rs:7:3, \
             since 2.50 s"
        ));
        let json = serde_json::to_value(task(Waits::Task { number: 7 }, 0)).unwrap();
        assert_eq!(json["waits"]["for"], "task");
        assert_eq!(json["waits"]["number"], 7);
    }
}
