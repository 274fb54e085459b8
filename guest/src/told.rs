//! What a task tells of itself for whoever looks what a guest waits for ([`wakebox_abi::task`]), and the lists of
//! tasks that have not ended: of an executor, or of those that a processor has made for any.
//!
//! The lists are intrusive, so that a spawn allocates nothing for them. Whoever has a list says when two may use it
//! at once: an executor's is used at home, a common one under a lock. What a task waits for is written by whoever polls it.

use core::cell::Cell;
use core::panic::Location;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use wakebox_abi::task::{Entry, List, MORE_SHIFT, SINCE, State, TYPE_NAME};

/// What a task tells: an [`Entry`], and what the list needs besides. It is the first field of whatever is in a list.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Told {
    /// The neighbour among all tasks.
    newer: Cell<Option<NonNull<Self>>>,
    /// The name and the file: what they point to outlives the task's time in a list.
    name: *const u8,
    file: *const u8,
    detail: Cell<u64>,
    name_len: u32,
    file_len: u32,
    line: u32,
    column: u32,
    number: u32,
    state: Cell<u32>,
    /// When it was last polled, as far as the guest knew how late it was: [`SINCE`].
    since: Cell<u64>,
    // The host does not read what follows.
    older: Cell<Option<NonNull<Self>>>,
}

const _: () = {
    use core::mem::offset_of;
    assert!(
        offset_of!(Told, since) == Entry::SIZE
            && offset_of!(Told, newer) == offset_of!(Entry, next)
            && offset_of!(Told, name) == offset_of!(Entry, name)
            && offset_of!(Told, file) == offset_of!(Entry, file)
            && offset_of!(Told, detail) == offset_of!(Entry, detail)
            && offset_of!(Told, name_len) == offset_of!(Entry, name_len)
            && offset_of!(Told, file_len) == offset_of!(Entry, file_len)
            && offset_of!(Told, line) == offset_of!(Entry, line)
            && offset_of!(Told, column) == offset_of!(Entry, column)
            && offset_of!(Told, number) == offset_of!(Entry, number)
            && offset_of!(Told, state) == offset_of!(Entry, state)
            && size_of::<Option<NonNull<Told>>>() == size_of::<u64>(),
        "the host reads a task as abi/src/task.rs says"
    );
    assert!(
        offset_of!(Tasks, oldest) == offset_of!(List, oldest)
            && offset_of!(Tasks, next) == offset_of!(List, next),
        "the host reads a list as abi/src/task.rs says"
    );
};

/// Bits of [`Told::state`] that never change.
const FIXED: u32 = TYPE_NAME | SINCE;

/// The time of the guest's clock when somebody last looked at it. Whoever polls writes it down with the task: a look
/// at the clock for each poll would take as long as the poll.
static LAST_LOOK: AtomicU64 = AtomicU64::new(0);

/// Somebody has looked at the clock.
#[inline(always)]
pub(crate) fn clock_shows(ns: u64) {
    LAST_LOOK.store(ns, Ordering::Relaxed);
}

impl Told {
    /// Of a task that is made there, by a task or, without a place, by the runtime.
    #[inline(always)]
    pub(crate) fn new(
        number: u32,
        name: Option<&str>,
        type_name: &'static str,
        place: Option<&'static Location<'static>>,
    ) -> Self {
        let (name, state) = match name {
            Some(name) => (name, SINCE),
            None => (type_name, SINCE | TYPE_NAME),
        };
        let (file, line, column) = match place {
            Some(place) => (place.file(), place.line(), place.column()),
            None => ("", 0, 0),
        };
        Self {
            newer: Cell::new(None),
            name: name.as_ptr(),
            file: file.as_ptr(),
            detail: Cell::new(0),
            name_len: name.len() as u32,
            file_len: file.len() as u32,
            line,
            column,
            number,
            state: Cell::new(state),
            since: Cell::new(LAST_LOOK.load(Ordering::Relaxed)),
            older: Cell::new(None),
        }
    }

    /// The name of the type that the task's future has, or of what it was made by, if it was given no name.
    #[inline(always)]
    pub(crate) fn type_name(&self) -> Option<&'static str> {
        (self.state.get() & TYPE_NAME != 0).then(|| {
            // SAFETY: `new` has noted a `&'static str` if the bit is set, which never changes.
            unsafe {
                let bytes = core::slice::from_raw_parts(self.name, self.name_len as usize);
                core::str::from_utf8_unchecked(bytes)
            }
        })
    }

    /// The task's number.
    #[inline(always)]
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// Notes what it waits for. The first thing stays, and others are counted.
    #[inline(always)]
    pub(crate) fn wait(&self, what: State, detail: u64) {
        let state = self.state.get();
        if state as u8 == State::Polled as u8 {
            self.state.set(state & FIXED | what as u32);
            self.detail.set(detail);
        } else {
            let most = u32::MAX << MORE_SHIFT;
            let more = (state & most).saturating_add(1 << MORE_SHIFT) & most;
            self.state.set(state & !most | more);
        }
    }

    #[inline(always)]
    pub(crate) fn poll_begins(&self) {
        let state = self.state.get();
        self.state.set(state & FIXED | State::Polled as u32);
    }

    #[inline(always)]
    pub(crate) fn poll_ends(&self) {
        let state = self.state.get();
        if state as u8 == State::Polled as u8 {
            self.state.set(state & FIXED);
        }
        self.since.set(LAST_LOOK.load(Ordering::Relaxed));
    }
}

/// Tasks that have not ended, oldest first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Tasks {
    oldest: Cell<Option<NonNull<Told>>>,
    /// The address of another list, or zero.
    next: Cell<usize>,
    newest: Cell<Option<NonNull<Told>>>,
}

// SAFETY: pointers to tasks, which whoever has the list may use wherever he may use that.
unsafe impl Send for Tasks {}

impl Tasks {
    pub(crate) const fn new() -> Self {
        Self {
            oldest: Cell::new(None),
            next: Cell::new(0),
            newest: Cell::new(None),
        }
    }

    /// Where the host finds it.
    pub(crate) fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Has the host find another list behind this one, by its address; zero if there is none.
    pub(crate) fn is_followed_by(&self, other: usize) {
        self.next.set(other);
    }

    pub(crate) fn first(&self) -> Option<NonNull<Told>> {
        self.oldest.get()
    }

    /// Adds a task.
    ///
    /// # Safety
    ///
    /// The task is in no list, and is there until it is removed.
    #[inline(always)]
    pub(crate) unsafe fn add(&self, task: NonNull<Told>) {
        let newest = self.newest.replace(Some(task));
        // SAFETY: the caller's promise.
        unsafe { task.as_ref() }.older.set(newest);
        match newest {
            // SAFETY: what is in the list is there, as whoever added it has promised.
            Some(newest) => unsafe { newest.as_ref() }.newer.set(Some(task)),
            None => self.oldest.set(Some(task)),
        }
    }

    /// Removes a task. Returns whether it was in the list.
    ///
    /// # Safety
    ///
    /// The task is there, and in no other list.
    #[inline(always)]
    pub(crate) unsafe fn remove(&self, task: NonNull<Told>) -> bool {
        // SAFETY: the caller's promise.
        let told = unsafe { task.as_ref() };
        let older = told.older.take();
        let newer = told.newer.take();
        match older {
            // SAFETY: what is in the list is there, as whoever added it has promised.
            Some(older) => unsafe { older.as_ref() }.newer.set(newer),
            None if self.oldest.get() == Some(task) => self.oldest.set(newer),
            None => return false,
        }
        match newer {
            // SAFETY: as above.
            Some(newer) => unsafe { newer.as_ref() }.older.set(older),
            None => self.newest.set(older),
        }
        true
    }

    /// All of them. None may be removed meanwhile.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NonNull<Told>> + use<> {
        core::iter::successors(self.first(), |task| {
            // SAFETY: what is in the list is there, as whoever added it has promised.
            unsafe { task.as_ref() }.newer.get()
        })
    }
}
