//! What happens in a run of Wakebox, event by event, on both sides of the boundary; and what reads
//! it: [`json`] writes events to a file and reads them back, [`summary`] counts, [`lint`] judges,
//! [`timeline`] draws.
//!
//! The crate knows neither KVM nor Tokio: a tool that looks at recorded traces needs only this. The
//! crate `wakebox` makes the events and has all of this as `wakebox::trace`.
//!
//! # The events
//!
//! | event | side | says |
//! |---|---|---|
//! | `started`, `finished` | host | the first and the last event: wake mode, processors; outcome, losses |
//! | `restored` | host | the second event of a sandbox that was made of a template: what the guest's clock shows |
//! | `spawned`, `ended` | guest | a task's name, its location in the source, who made it; finished or aborted |
//! | `lives` | guest | a task that was there before anybody watched: its name |
//! | `poll_begin`, `poll_end` | guest | ready, or pending and on what |
//! | `cloned`, `dropped` | guest | the life of wakers |
//! | `woken` | guest | a waker was called: by which [`Cause`], and whether that queued the task |
//! | `timer_set` | guest | when it is due |
//! | `sleeps`, `awake` | guest | nothing to do: watching, `out`, `hlt`; what ended it |
//! | `submitted`, `cancel_asked` | guest | an operation: number, kind, bytes |
//! | `op_begins`, `op_ready`, `op_ends` | host | taken; what it waits for has come; status and bytes |
//! | `completion_written` | host | the completion stands where the guest can see it |
//! | `doorbell` | guest | `out`: submit, wait, exit, abort, start, nudge |
//! | `exited`, `entered` | host | why the guest was left; that it is entered |
//! | `interrupt_injected` | host | mode `irq` |
//! | `upcall_begin`, `upcall_end` | guest | urgent tasks have their turn: which poll that interrupts |
//! | `interrupt_taken` | guest | noticed by the guest, whose ring-0 stub counts them |
//! | `parked`, `resumed` | host | the sandbox holds no thread meanwhile |
//! | `detached`, `attached` | host | meanwhile its machine is another's |
//! | `lost`, `malformed` | guest | a full ring; what is no record |
//!
//! # Causes
//!
//! Every poll of a task after its first was made necessary by the last `woken` with `queued` before it.
//! Its [`Cause`] leads on: `op(n)` to the `completion_written`, `op_ends`, `op_ready`, `op_begins`
//! and `submitted` of operation `n`, the last of which stands in the poll that asked for it;
//! `task(n)` to the poll of that task in which the wake stands; `timer(n)` to its `timer_set`.
//!
//! # Several processors
//!
//! Each event has the number of its [processor](Event::processor). Numbers of tasks, operations and timers are those
//! of the whole guest. A wake stands where the waker was called, and the poll where the task is polled: between the
//! two, the other processor's `awake` says how it learnt of it. What stands on the way there is the caller's
//! `doorbell` with `nudge` (or `start`), and then `resumed`, `interrupt_injected` and `entered` of the other.
//!
//! # Trust
//!
//! What the guest writes is its own account. Times are forced into the order in which the host
//! found the records, and between the entry and the exit; what is no record is counted
//! ([`EventKind::Malformed`]); names are any text. A guest that lies spoils its own trace.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod event;
pub mod json;
pub mod lint;
mod processors;
mod sink;
pub mod summary;
mod tasks;
pub mod timeline;
pub mod units;
mod upcalls;

pub use self::event::{
    Awaited, Cause, Doorbell, Event, EventKind, ExitReason, Idle, OpId, OpKind, PollResult, Roused,
    Side, TaskId, TimerId, Track,
};
pub use self::sink::{Names, RECORDED, Recording, Shared, Sink};
pub use self::summary::Summary;
pub use self::tasks::{TASKS, Tasks};
