//! What the tasks of a guest wait for, asked while it runs and known when it was ended.
//!
//! A guest is looked at where it stands still: between two entries, or parked. Whoever asks pushes before
//! it wakes; the task that runs the guest registers its waker before it looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::Instant;

use futures_util::task::AtomicWaker;
use tokio::sync::oneshot;
use wakebox_abi::memory::{Control, Word};
use wakebox_vmm::clock::monotonic_ns;

use super::{Handle, Sandbox};
use crate::outcome::Outcome;
use crate::outside;
use crate::tasks::{self, Task};

/// Who has asked for the tasks; nobody any more, once the sandbox has ended.
#[derive(Debug)]
pub(super) struct Asked {
    waiting: Mutex<Option<Vec<oneshot::Sender<Vec<Task>>>>>,
    /// Whether there are any, for who looks often.
    any: AtomicBool,
    runner: AtomicWaker,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Some(Vec::new())),
            any: AtomicBool::new(false),
            runner: AtomicWaker::new(),
        }
    }
}

impl Asked {
    fn waiting(&self) -> MutexGuard<'_, Option<Vec<oneshot::Sender<Vec<Task>>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody waits.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Whether anybody waits; if not, the task is woken when somebody does.
    pub(super) fn any_else_wake(&self, context: &Context<'_>) -> bool {
        self.runner.register(context.waker());
        self.any()
    }

    /// Those who wait.
    fn take(&self) -> Vec<oneshot::Sender<Vec<Task>>> {
        let mut waiting = self.waiting();
        self.any.store(false, Ordering::Release);
        waiting.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The sandbox has ended: nobody is answered any more.
    pub(super) fn end(&self) {
        let waiting = self.waiting().take();
        drop(waiting);
    }
}

impl Handle {
    /// Whether the run has ended, or was dropped: nothing of the guest runs any more.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.live.asked.waiting().is_none()
    }

    /// The tasks of the guest that have not ended, oldest first and at most 256, and what each waits for.
    /// They are looked at when the guest stands still next, which takes a few milliseconds while it
    /// computes. `None` if the sandbox has ended, or never runs.
    ///
    /// What it costs is borne when somebody asks. A guest built with a library of its own, or with an
    /// older release, may show none.
    pub async fn tasks(&self) -> Option<Vec<Task>> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.live.asked.waiting();
            waiting.as_mut()?.push(answer);
            self.live.asked.any.store(true, Ordering::Release);
        }
        self.live
            .asked
            .runner
            .take()
            .into_iter()
            .for_each(outside::wake);
        answered.await.ok()
    }
}

impl Sandbox {
    /// The tasks that had not ended when the guest was stopped: by a limit, by a kill, or because all of
    /// them waited for each other. Empty otherwise. See [`Handle::tasks`] for what they are.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Answers whoever has asked.
    pub(super) fn tell_tasks(&mut self) {
        let waiting = self.live.asked.take();
        if waiting.iter().all(oneshot::Sender::is_closed) {
            return;
        }
        let tasks = self.look_at_tasks();
        for answer in waiting {
            // Perhaps nobody wants it any more.
            let _ = answer.send(tasks.clone());
        }
    }

    /// Keeps what is known of the tasks of a guest that was stopped.
    pub(super) fn keep_tasks(&mut self, outcome: &Outcome) {
        let was_stopped = matches!(
            outcome,
            Outcome::Deadlock | Outcome::Limit(_) | Outcome::Cancelled
        );
        if was_stopped && !self.is_alone && !self.machine.is_detached() {
            self.tasks = self.look_at_tasks();
        }
    }

    fn look_at_tasks(&mut self) -> Vec<Task> {
        let processors = self.memory.plan().processors();
        let all = (0..processors).flat_map(|processor| self.look_at_tasks_of(processor));
        tasks::oldest(all.collect())
    }

    fn look_at_tasks_of(&mut self, processor: u32) -> Vec<Task> {
        let control = self.memory.control_of(processor);
        let list = |low, high| control.load_address(low, high, Ordering::Relaxed);
        let own = list(Word::Tasks, Word::TasksHigh);
        let more = list(Word::MoreTasks, Word::MoreTasksHigh);
        let now = monotonic_ns(self.clocks.start(), Instant::now());
        let view = self.memory.view_of(processor);
        self.placement.with(|driver| {
            tasks::read(&view, own, more, now, |token| {
                driver.describe(driver.name_of(processor, token)?)
            })
        })
    }
}
