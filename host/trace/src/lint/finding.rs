//! What a lint has found, for people and for programs.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::TaskId;

/// What may be wrong with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// It returned `Pending`, nobody has a waker of it, and it was never polled again.
    NoWaker,
    /// It waits at the end of the run, and nothing can wake it any more.
    NeverWoken,
    /// One poll computed for too long.
    LongPoll,
    /// It was woken far more often than it was polled.
    WakeStorm,
    /// Too many of its polls were in vain.
    SpuriousPolls,
    /// It and others woke each other again and again, and nothing came of it.
    WakeCircle,
    /// An operation that it gave up was done all the same, and nobody got what it gave.
    UnseenResult,
    /// A timer woke it much later than it was to.
    LateTimer,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::NoWaker,
        Self::NeverWoken,
        Self::LongPoll,
        Self::WakeStorm,
        Self::SpuriousPolls,
        Self::WakeCircle,
        Self::UnseenResult,
        Self::LateTimer,
    ];

    /// The word for it, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoWaker => "no-waker",
            Self::NeverWoken => "never-woken",
            Self::LongPoll => "long-poll",
            Self::WakeStorm => "wake-storm",
            Self::SpuriousPolls => "spurious-polls",
            Self::WakeCircle => "wake-circle",
            Self::UnseenResult => "unseen-result",
            Self::LateTimer => "late-timer",
        }
    }

    /// What it means, and what to do.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NoWaker => {
                "whoever returns Pending must first see to it that `cx.waker()` is called later: a \
                 future written by hand has to keep a clone of it where the event will be, or poll \
                 something that does"
            }
            Self::NeverWoken => {
                "its waker was dropped uncalled, or is kept by something that will never happen: \
                 look for a sender that nobody uses, a lock that is not given back, tasks that wait \
                 for each other"
            }
            Self::LongPoll => {
                "no other task of the guest runs during a poll, and no timer fires: put \
                 `yield_now().await` into the loop, or split the work"
            }
            Self::WakeStorm => {
                "only the first wake before a poll has an effect, the others cost time: wake once \
                 per batch, or only when the state changes from \"nothing to do\" to \"something\""
            }
            Self::SpuriousPolls => {
                "each found nothing to do: a loop that wakes itself until something is so wants an \
                 event to wait for; many who wait for one thing want to be woken one at a time"
            }
            Self::WakeCircle => {
                "what they wait for keeps one waker and has many who wait, so that each who comes \
                 turns another away; or they pass a token round that nobody needs. For many who wait \
                 use a lock or a channel that keeps them all, such as those of `async-lock` and \
                 `async-channel`"
            }
            Self::UnseenResult => {
                "dropping a future cancels its operation, unless that is done by then; bytes that \
                 were read are gone. Keep the future across the loop of a `select`, and drop it only \
                 together with what it reads from"
            }
            Self::LateTimer => {
                "timers fire between polls, so a long poll makes all of them late: split it, or put \
                 `yield_now().await` into it. If no poll was long, the host had no processor left"
            }
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for FindingKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Something that a lint has found. Those of one kind about tasks of one place are one finding,
/// which tells of the worst.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Of which kind.
    pub kind: FindingKind,
    /// The task.
    pub task: TaskId,
    /// Its name, as the guest wrote it: any text.
    pub name: String,
    /// Where it was spawned, as `file:line:column`, as the guest wrote it.
    #[serde(rename = "place")]
    pub location: Option<String>,
    /// When, in nanoseconds since the sandbox was made.
    pub time: u64,
    /// How often this was found.
    pub count: u64,
    /// What was seen. Goes on from "task `name` ...".
    pub what: String,
    /// What it means, and what to do: [`FindingKind::advice`].
    pub advice: &'static str,
    /// The larger, the worse.
    #[serde(skip)]
    pub(super) weight: u64,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// In the order of their times.
    pub findings: Vec<Finding>,
    /// Findings left out, because there are too many different ones.
    pub omitted: u64,
    /// Tasks that were not looked at, because too many others lived when they began.
    pub unwatched: u64,
    /// Events looked at.
    pub events: u64,
    /// Records and events that the trace lost. Findings that rest on what did *not* happen are only
    /// made about tasks that were spawned after the last loss.
    pub lost: u64,
    /// Whether the end of the run was seen. If not, nothing is said about tasks that wait at the
    /// end.
    pub whole: bool,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}
