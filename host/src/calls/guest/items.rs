//! Items of a function of the guest that gives a stream: what has come, and who may send more.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::queue::{CallQueue, Entry, Pending, State, Waiting};
use crate::account::Parts;
use crate::outside;

/// Most items that lie there before the guest has to wait,
const ITEMS_MAX: usize = 64;

/// and most bytes of them, but for the last.
const BYTES_MAX: usize = 64 << 10;

/// What the guest has sent and the caller has not taken.
#[derive(Debug, Default)]
pub(super) struct Items {
    ready: VecDeque<Parts>,
    bytes: usize,
    /// Operations of the guest that wait for room.
    senders: Waiting,
}

impl Items {
    /// Bytes that it takes itself, when it is full.
    pub(super) const SIZE: usize = size_of::<Self>() + ITEMS_MAX * size_of::<Parts>();

    pub(super) fn push(&mut self, item: Parts) {
        self.bytes += item.len();
        self.ready.push_back(item);
    }

    /// The next one, and whether somebody may send another for it.
    pub(super) fn pop(&mut self) -> Option<Parts> {
        let item = self.ready.pop_front()?;
        self.bytes -= item.len();
        Some(item)
    }

    fn has_room(&self) -> bool {
        self.ready.len() < ITEMS_MAX && self.bytes < BYTES_MAX
    }

    /// Who is to send next, if there is room.
    pub(super) fn next_sender(&mut self) -> Option<std::task::Waker> {
        self.has_room().then(|| self.senders.pop())?
    }

    /// All who wait to send: nobody takes any more.
    pub(super) fn into_senders(mut self) -> Vec<std::task::Waker> {
        self.senders.drain().collect()
    }
}

/// The items of a call, if it has a caller who takes some and has no room for them.
fn full(state: &mut State, call: u64) -> Option<&mut Items> {
    match state.pending.get_mut(&call)? {
        Entry {
            pending: Pending::Waiting { .. },
            items: Some(items),
            ..
        } if !items.has_room() => Some(items),
        _ => None,
    }
}

impl CallQueue {
    /// Waits until an item of this call may be sent; nothing if that is now.
    pub(crate) fn room_for_item(self: &Arc<Self>, call: u64) -> Option<RoomForItem> {
        full(&mut self.lock(), call)?;
        Some(RoomForItem {
            call_queue: self.clone(),
            call,
            ticket: None,
        })
    }
}

/// Waits until there is room for an item, or nobody takes any.
#[derive(Debug)]
pub(crate) struct RoomForItem {
    call_queue: Arc<CallQueue>,
    call: u64,
    ticket: Option<u64>,
}

impl Future for RoomForItem {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let call_queue = self.call_queue.clone();
        let mut queue = call_queue.lock();
        match full(&mut queue, self.call) {
            Some(items) => {
                items.senders.wait(&mut self.ticket, context.waker());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for RoomForItem {
    fn drop(&mut self) {
        let next = {
            let mut queue = self.call_queue.lock();
            let items = queue.pending.get_mut(&self.call);
            items
                .and_then(|entry| entry.items.as_mut())
                .and_then(|items| {
                    let was_woken = items.senders.leave(&mut self.ticket);
                    // Where there was room for one there may be room for another, or this one has sent nothing.
                    was_woken.then(|| items.next_sender())?
                })
        };
        next.into_iter().for_each(outside::wake);
    }
}
