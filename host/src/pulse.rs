//! Where the rings of a sandbox stand, for whoever suspects that nothing moves.

use std::fmt;
use std::sync::Arc;

use wakebox_abi::memory::{Counter, Word};
use wakebox_vmm::memory::GuestMemory;

use crate::calls::guest::CallQueue;
use crate::driver::inflight::Ready;
use crate::driver::poller::Poller;
use crate::ops::TokioBackend;

/// Looks at a sandbox from beside: [`Sandbox::pulse`](crate::Sandbox::pulse). It disturbs nobody and
/// outlives the run.
///
/// Its `Display` is a table of the words of the control page, the driver, and the calls.
#[derive(Clone, Debug)]
pub struct Pulse {
    pub(crate) memory: Arc<GuestMemory>,
    pub(crate) ready: Arc<Ready>,
    /// None if the task that runs the guest is its own driver.
    pub(crate) poller: Option<Arc<Poller<TokioBackend>>>,
    pub(crate) call_queue: Arc<CallQueue>,
}

impl Pulse {
    /// The positions of both rings and the guest's turns. While they stay the same, nothing has
    /// moved.
    #[must_use]
    pub fn positions(&self) -> [u64; 5] {
        let page = self.memory.control_page();
        let word = |word| u64::from(page.word(word));
        [
            word(Word::SubmissionTail),
            word(Word::SubmissionHead),
            word(Word::CompletionTail),
            word(Word::CompletionHead),
            page.counter(Counter::Turns),
        ]
    }
}

impl fmt::Display for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = self.memory.control_page();
        for word in Word::ALL {
            let value = page.word(word);
            writeln!(f, "{:<20} {value}", format!("{word:?}"))?;
        }
        for counter in Counter::ALL {
            let value = page.counter(counter);
            writeln!(f, "{:<20} {value}", format!("{counter:?}"))?;
        }
        writeln!(f, "ready                {:?}", self.ready)?;
        match &self.poller {
            Some(poller) => writeln!(f, "poller               {poller}")?,
            None => writeln!(f, "poller               none: the runner is the driver")?,
        }
        writeln!(f, "calls                {}", self.call_queue)
    }
}
