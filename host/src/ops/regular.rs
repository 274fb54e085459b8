//! An open regular file, and what of a quota its changes take.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, OFlags, StatxFlags, statx};
use wakebox_abi::status::Status;

use crate::later::Heavy;
use crate::limits::LimitKind;
use crate::meter::{Meter, Taken};

/// Bytes of the quota that a new file or directory takes: what its name, its own record and its first
/// block take on most disks. For a file, they are its first bytes besides.
pub(crate) const ENTRY: usize = 4096;

/// Blocks of 512 bytes that a file has at most of which the last descriptor may be closed in a turn: a
/// megabyte.
const LIGHT: u64 = 2048;

/// An open regular file.
#[derive(Debug)]
pub(crate) struct Regular {
    pub(super) file: File,
    /// Opened for appending: what is written goes to its end, wherever it was to go.
    appends: bool,
    /// Bytes of the quota that were taken when the file was made, and are not written yet.
    prepaid: AtomicU64,
    /// Whether it was opened for writing.
    changes: bool,
    /// Whether each write waits for a disk.
    pub(super) synced: bool,
    /// Whether it lies in what is granted for writing, however it was opened.
    pub(super) may_change: bool,
}

/// One that may be written to may be flushed when it is closed, and the blocks of one that has no name
/// any more are freed then.
impl Heavy for Regular {
    fn is_heavy(&self) -> bool {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        self.changes
            || statx(&self.file, "", flags, StatxFlags::BLOCKS)
                .map_or(true, |known| known.stx_blocks > LIGHT)
    }
}

impl Regular {
    pub(super) fn new(file: File, flags: OFlags, is_new: bool, may_change: bool) -> Self {
        let appends = flags.contains(OFlags::APPEND);
        Self {
            file,
            appends,
            synced: flags.intersects(OFlags::SYNC | OFlags::DSYNC),
            may_change,
            changes: flags.intersects(OFlags::RDWR | OFlags::WRONLY),
            prepaid: AtomicU64::new(if is_new { ENTRY as u64 } else { 0 }),
        }
    }

    /// By how much the file grows, besides what is written, if that begins at `offset`.
    pub(super) fn gap_before(&self, offset: u64) -> io::Result<u64> {
        if self.appends {
            return Ok(0);
        }
        self.growth_to(offset)
    }

    /// By how much the file grows if its length becomes at least `len`.
    pub(super) fn growth_to(&self, len: u64) -> io::Result<u64> {
        if len == 0 {
            return Ok(0);
        }
        // What is known here will do: nobody asks a server.
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let known = statx(&self.file, "", flags, StatxFlags::SIZE)?;
        Ok(len.saturating_sub(known.stx_size))
    }

    /// Takes of the quota what bringing in `gap` bytes and then up to `wanted` others takes: all of
    /// the gap, and at least one of the others if any is wanted.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if less is left.
    pub(super) fn pay<'a>(
        &'a self,
        meter: &'a Meter,
        gap: u64,
        wanted: usize,
    ) -> Result<Paid<'a>, Status> {
        let whole = gap.saturating_add(wanted as u64);
        let mut credit = Credit::take(&self.prepaid, whole);
        let least = gap.saturating_add(wanted.min(1) as u64);
        let missing = usize::try_from(whole - credit.0).map_err(|_| Status::QuotaExceeded)?;
        let taken = match meter.take(LimitKind::FilesOut, missing) {
            // What is prepaid may do.
            Err(_) if credit.0 >= least => None,
            taken => Some(taken?),
        };
        let paid = credit.0 + taken.as_ref().map_or(0, |taken| taken.len() as u64);
        if paid < least {
            return Err(Status::QuotaExceeded);
        }
        credit.0 = credit.0.min(whole);
        Ok(Paid {
            gap,
            len: (paid - gap) as usize,
            credit,
            taken,
        })
    }
}

impl AsFd for Regular {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Something of what is prepaid. What is left of it goes back.
#[derive(Debug)]
struct Credit<'a>(u64, &'a AtomicU64);

impl<'a> Credit<'a> {
    fn take(prepaid: &'a AtomicU64, wanted: u64) -> Self {
        // A count; readers want no order, here and below.
        let take = |left: u64| Some(left - left.min(wanted));
        let before = match prepaid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(before) | Err(before) => before,
        };
        Self(before.min(wanted), prepaid)
    }
}

impl Drop for Credit<'_> {
    fn drop(&mut self) {
        if self.0 > 0 {
            self.1.fetch_add(self.0, Ordering::Relaxed);
        }
    }
}

/// What was taken for a change of a file. What is not [kept](Self::keep) goes back.
#[derive(Debug)]
pub(super) struct Paid<'a> {
    gap: u64,
    len: usize,
    credit: Credit<'a>,
    taken: Option<Taken<'a>>,
}

impl Paid<'_> {
    /// Bytes that may be written behind the gap.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The file was changed, and so many bytes were written behind the gap.
    pub(super) fn keep(mut self, written: usize) {
        let whole = self.gap.saturating_add(written as u64);
        let from_credit = self.credit.0.min(whole);
        self.credit.0 -= from_credit;
        if let Some(taken) = self.taken.take() {
            taken.keep((whole - from_credit) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn file(is_new: bool) -> Regular {
        Regular::new(tempfile::tempfile().unwrap(), OFlags::RDWR, is_new, true)
    }

    #[test]
    fn the_first_bytes_of_a_new_file_are_paid_with_its_entry() {
        let meter = Meter::new(Limits::new().files_out(10));
        let new = file(true);
        new.pay(&meter, 0, 4000).unwrap().keep(4000);
        // 96 are prepaid, 10 are left.
        let paid = new.pay(&meter, 0, 1000).unwrap();
        assert_eq!(paid.len(), 106);
        drop(paid);
        new.pay(&meter, 0, 100).unwrap().keep(97);
        assert_eq!(new.pay(&meter, 0, 100).unwrap().len(), 9);
        assert_eq!(file(false).pay(&meter, 0, 100).unwrap().len(), 9);
        assert_eq!(new.pay(&meter, 0, 0).unwrap().len(), 0);
    }

    #[test]
    fn a_gap_is_paid_whole_and_before_what_follows() {
        let meter = Meter::new(Limits::new().files_out(10));
        let old = file(false);
        assert_eq!(old.pay(&meter, 8, 5).unwrap().len(), 2);
        for gap in [10, 11, u64::MAX] {
            let refused = old.pay(&meter, gap, 1).err();
            assert_eq!(refused, Some(Status::QuotaExceeded), "{gap}");
        }
        old.pay(&meter, 8, 5).unwrap().keep(1);
        assert_eq!(old.pay(&meter, 0, 5).unwrap().len(), 1);
        let new = file(true);
        assert_eq!(new.pay(&meter, 4090, 100).unwrap().len(), 7);
        let none = Meter::new(Limits::new().files_out(0));
        assert_eq!(new.pay(&none, 4090, 100).unwrap().len(), 6);
        assert_eq!(old.pay(&none, 0, 1).err(), Some(Status::QuotaExceeded));
    }

    #[test]
    fn where_a_write_begins_says_how_much_the_file_grows() {
        let old = file(false);
        old.file.set_len(100).unwrap();
        for (offset, gap) in [(0, 0), (100, 0), (101, 1), (1 << 40, (1 << 40) - 100)] {
            assert_eq!(old.gap_before(offset).unwrap(), gap, "{offset}");
        }
        let appended = Regular::new(
            tempfile::tempfile().unwrap(),
            OFlags::RDWR | OFlags::APPEND,
            false,
            true,
        );
        assert_eq!(appended.gap_before(1 << 40).unwrap(), 0);
    }
}
