//! What the guest's tasks wait for, on standard error.

use std::time::Duration;

use wakebox::{Sandbox, Stats, Task, Waits};

use super::say::{note, remark};
use super::signals;
use super::style::Style;

/// Most tasks that are told; a report has more.
const MOST: usize = 32;

/// How long a guest may take to be found where it stands still.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells them, if any are known.
pub(super) fn tell(tasks: &[Task], stats: &Stats, style: Style) {
    if tasks.is_empty() {
        return;
    }
    note!("{}", style.strong("tasks:"));
    for task in tasks.iter().take(MOST) {
        note!("  {task}");
    }
    let all = stats.guest.spawned.saturating_sub(stats.guest.completed);
    let told = tasks.len().min(MOST) as u64;
    if all > told {
        note!("  and {} more", all - told);
    }
}

/// Looks for a moment whether all that the guest does is wait for calls, which `wakebox run` makes none of,
/// and says so.
pub(super) fn tell_if_it_serves(sandbox: &Sandbox) {
    let handle = sandbox.handle();
    tokio::spawn(async move {
        // A guest may serve after a while; one that does not in this time is taken to do other things.
        for _ in 0..LOOKS {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            let counts = handle.stats().operations;
            if !counts
                .iter()
                .any(|(name, count)| *name == NEXT_CALL && *count > 0)
            {
                continue;
            }
            match handle.tasks().await {
                Some(tasks) if tasks.iter().all(serves) => {
                    remark!(
                        "{}: the guest serves calls, and nobody makes one here: \
                         `wakebox call FILE` lists them; Ctrl-C ends it",
                        Style::of_stderr().strong("note")
                    );
                    return;
                }
                Some(_) => {}
                None => return,
            }
        }
    });
}

/// The operation that waits for a call.
const NEXT_CALL: &str = "NextCall";
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// Whether a task waits for calls, or for one that does.
fn serves(task: &Task) -> bool {
    match &task.waits {
        Waits::Operation { what, .. } => what.starts_with(NEXT_CALL),
        Waits::Task { .. } => true,
        _ => false,
    }
}

/// Tells them whenever SIGQUIT comes (Ctrl-\\ on a terminal), on a task of its own.
pub(super) fn tell_when_asked(sandbox: &Sandbox) {
    let handle = sandbox.handle();
    tokio::spawn(async move {
        let style = Style::of_stderr();
        loop {
            signals::question().await;
            match tokio::time::timeout(PATIENCE, handle.tasks()).await {
                Ok(Some(tasks)) if !tasks.is_empty() => tell(&tasks, &handle.stats(), style),
                Ok(Some(_)) => note!("the guest has no tasks that it tells of"),
                Ok(None) => return,
                Err(_) => note!("the guest did not stand still for a second"),
            }
        }
    });
}
