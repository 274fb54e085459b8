//! What the guest's tasks wait for, on standard error.

use std::time::Duration;

use wakebox::{Sandbox, Stats, Task};

use super::say::note;
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
