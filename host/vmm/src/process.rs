//! Which process this is. A child after `fork` has a copy of all that its parent has written down,
//! and none of the threads that the parent has started.
//!
//! The kernel tells them apart: a page that it empties in a child (`MADV_WIPEONFORK`, madvise(2),
//! Linux 4.14) holds the number of the process, counted from its first ancestor that asked. To look
//! costs a load; `getpid` would be a system call at every entry into a guest.

use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use wakebox_abi::layout;

/// A number that no ancestor of this process has.
pub fn generation() -> u32 {
    static PAGE: OnceLock<Option<Page>> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(1);

    let Some(page) = PAGE.get_or_init(Page::new) else {
        // A kernel that cannot empty a page. A process has its id.
        return std::process::id();
    };
    let number = page.number().load(Ordering::Relaxed);
    if number != 0 {
        return number;
    }
    // The count is a copy of the parent's, which is beyond all numbers of ancestors.
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let first = page
        .number()
        .compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed);
    first.map_or_else(|number| number, |_| next)
}

/// A page that is empty in a child. It is never unmapped.
struct Page(NonNull<AtomicU32>);

// SAFETY: what it points to is an atomic that lives as long as the process.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn new() -> Option<Self> {
        use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

        let len = layout::PAGE_SIZE as usize;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping wherever the kernel likes.
        let page =
            unsafe { mmap_anonymous(std::ptr::null_mut(), len, rights, MapFlags::PRIVATE) }.ok()?;
        // SAFETY: the range is the mapping just made, of which nobody else knows; it is as empty
        // in a child as it is now.
        if unsafe { madvise(page, len, Advice::LinuxWipeOnFork) }.is_err() {
            // SAFETY: as above.
            let _ = unsafe { munmap(page, len) };
            return None;
        }
        Some(Self(NonNull::new(page.cast())?))
    }

    fn number(&self) -> &AtomicU32 {
        // SAFETY: the page is mapped for ever, aligned, and zero is a value of the atomic.
        unsafe { self.0.as_ref() }
    }
}

/// A value of which each process has its own, made when it is first asked for. Nothing that a
/// parent's threads may have held when the child was made is touched in the child.
#[derive(Debug)]
pub struct PerProcess<T>(AtomicPtr<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: T,
}

impl<T: Send + Sync + 'static> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Send + Sync + 'static> PerProcess<T> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// This process's own. Of two that are made at the same time one counts.
    pub fn get_or_init(&'static self, make: impl FnOnce() -> T) -> &'static T {
        let generation = generation();
        // Partner: the exchange below, which publishes what the entry holds.
        let known = self.0.load(Ordering::Acquire);
        // SAFETY: null, or an entry that was leaked below: it lives as long as the process.
        let entry: Option<&'static Entry<T>> = unsafe { known.as_ref() };
        if let Some(entry) = entry.filter(|entry| entry.generation == generation) {
            return &entry.value;
        }
        // What a child finds here is its parent's, and is left alone.
        let value = make();
        let own = Box::into_raw(Box::new(Entry { generation, value }));
        let exchanged = self
            .0
            .compare_exchange(known, own, Ordering::AcqRel, Ordering::Acquire);
        let counts = match exchanged {
            Ok(_) => own,
            Err(first) => {
                // SAFETY: it was made above and given to nobody.
                drop(unsafe { Box::from_raw(own) });
                first
            }
        };
        // SAFETY: an entry that was leaked, here or by the thread that was first.
        unsafe { &(*counts).value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_number_and_one_value() {
        static VALUE: PerProcess<u64> = PerProcess::new();
        let first = generation();
        assert_eq!(*VALUE.get_or_init(|| 1), 1);
        assert_eq!((generation(), *VALUE.get_or_init(|| 2)), (first, 1));
    }

    #[test]
    fn a_child_has_another_number_and_a_value_of_its_own() {
        static VALUE: PerProcess<u64> = PerProcess::new();
        let own = generation();
        assert_eq!(*VALUE.get_or_init(|| 1), 1);
        // SAFETY: the child makes no call but those here, and ends without running anything else.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let differs = generation() != own && *VALUE.get_or_init(|| 2) == 2;
            // SAFETY: as above.
            unsafe { libc::_exit(i32::from(!differs)) };
        }
        let mut status = -1;
        // SAFETY: it writes a status that lives through the call.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child took its parent's");
        assert_eq!((generation(), *VALUE.get_or_init(|| 3)), (own, 1));
    }
}
