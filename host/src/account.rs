//! What the host keeps in its own memory on behalf of one sandbox.
//!
//! There is one account for a sandbox, with the limit
//! [`LimitKind::HostMemory`](crate::LimitKind::HostMemory). Whatever the host holds because a guest
//! wants it, or because somebody wants something of the guest, is charged to it before it is
//! allocated: messages, parts of replies, calls that wait, paths, values that messages were read
//! into. A [`Charge`] is given back when it is dropped, and [`Charged`] ties one to what it is for, so
//! that neither outlives the other.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wakebox_abi::status::Status;

use crate::allowance::PIECE;

/// Bytes that every charge counts besides what it is for: the allocation's own cost, the charge, and
/// the place in a queue or table where it lies. So nothing is free because it is empty.
pub(crate) const EACH: usize = 128;

/// What the host keeps for one sandbox, in bytes. Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Account(Arc<Books>);

#[derive(Debug)]
struct Books {
    most: u64,
    kept: AtomicU64,
    peak: AtomicU64,
}

impl Account {
    /// An account of at most `most` bytes.
    pub(crate) fn new(most: u64) -> Self {
        Self(Arc::new(Books {
            most,
            kept: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }))
    }

    /// Charges so many bytes, and [`EACH`], for as long as the value lives.
    ///
    /// # Errors
    ///
    /// `LimitReached` if that is more than is left; then nothing is charged.
    pub(crate) fn charge(&self, bytes: usize) -> Result<Charge, Status> {
        let bytes = (bytes as u64).saturating_add(EACH as u64);
        self.0.add(bytes)?;
        Ok(Charge {
            books: self.0.clone(),
            bytes,
        })
    }

    /// Charges an empty buffer with room for so many bytes, and allocates it.
    ///
    /// # Errors
    ///
    /// `LimitReached`, as [`Self::charge`]; `OutOfMemory` if the host has none.
    pub(crate) fn room(&self, len: usize) -> Result<Kept, Status> {
        let charge = self.charge(len)?;
        let mut value = Vec::new();
        value
            .try_reserve_exact(len)
            .map_err(|_| Status::OutOfMemory)?;
        Ok(Charged { value, charge })
    }

    /// Charges a message made of these parts, and copies them.
    ///
    /// # Errors
    ///
    /// As [`Self::room`].
    pub(crate) fn concat(&self, parts: &[&[u8]]) -> Result<Kept, Status> {
        let mut kept = self.room(parts.iter().map(|part| part.len()).sum())?;
        for part in parts {
            kept.value.extend_from_slice(part);
        }
        Ok(kept)
    }

    /// Charges a buffer that is there already: one that the embedding program has made.
    ///
    /// # Errors
    ///
    /// As [`Self::charge`].
    pub(crate) fn keep(&self, value: Vec<u8>) -> Result<Kept, Status> {
        let charge = self.charge(value.capacity())?;
        Ok(Charged { value, charge })
    }

    /// Bytes that are kept now.
    pub(crate) fn kept(&self) -> u64 {
        // A count; readers want no order, here and below.
        self.0.kept.load(Ordering::Relaxed)
    }

    /// The most that were kept at any time.
    pub(crate) fn peak(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }
}

impl Books {
    fn add(&self, bytes: u64) -> Result<(), Status> {
        let add = |kept: u64| kept.checked_add(bytes).filter(|sum| *sum <= self.most);
        let before = self
            .kept
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .map_err(|_| Status::LimitReached)?;
        self.peak.fetch_max(before + bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// A part of an [`Account`], given back when it is dropped.
#[derive(Debug)]
#[must_use = "what was charged is given back when this is dropped"]
pub(crate) struct Charge {
    books: Arc<Books>,
    bytes: u64,
}

impl Charge {
    /// Charges so many bytes more.
    ///
    /// # Errors
    ///
    /// `LimitReached` if that is more than is left; the charge stays as it was.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Status> {
        self.books.add(more as u64)?;
        self.bytes = self.bytes.saturating_add(more as u64);
        Ok(())
    }

    /// Takes another one of the same account in.
    fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Ties the charge to what it is for.
    pub(crate) fn on<T>(self, value: T) -> Charged<T> {
        Charged {
            value,
            charge: self,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.books.kept.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Something that the host keeps, with its charge.
#[derive(Debug)]
pub(crate) struct Charged<T> {
    // Dropped in this order: it is charged for as long as it is there.
    value: T,
    charge: Charge,
}

/// Bytes that the host keeps.
pub(crate) type Kept = Charged<Vec<u8>>;

/// A message that comes in parts. Adding one moves no more bytes than a piece has, however many there
/// are already.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    chunks: Vec<Kept>,
    len: usize,
}

impl Parts {
    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a part. A small one goes behind others.
    ///
    /// # Errors
    ///
    /// As [`Account::room`]; then it is left out.
    pub(crate) fn add(&mut self, part: Kept) -> Result<(), Status> {
        let len = part.len();
        match self.chunks.last_mut() {
            Some(last) if last.len() + len <= PIECE => last.append(&part)?,
            _ => {
                let room = self.chunks.try_reserve(1);
                room.map_err(|_| Status::OutOfMemory)?;
                self.chunks.push(part);
            }
        }
        self.len += len;
        Ok(())
    }

    /// All of it, copied.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        for chunk in &self.chunks {
            bytes.extend_from_slice(chunk);
        }
        bytes
    }

    /// All of it in one. Each part goes as soon as it has been copied, and its charge stays.
    ///
    /// # Errors
    ///
    /// As [`Account::room`].
    pub(crate) fn join(mut self, account: &Account) -> Result<Kept, Status> {
        if self.chunks.len() == 1
            && let Some(whole) = self.chunks.pop()
        {
            return Ok(whole);
        }
        let mut joined = account.room(0)?;
        let room = joined.value.try_reserve_exact(self.len);
        room.map_err(|_| Status::OutOfMemory)?;
        for chunk in self.chunks {
            joined.value.extend_from_slice(&chunk);
            let (bytes, charge) = chunk.split();
            drop(bytes);
            joined.charge.merge(charge);
        }
        Ok(joined)
    }
}

impl<T> Charged<T> {
    /// Makes it something else of about the same size, which has the same charge.
    ///
    /// # Errors
    ///
    /// Those of `make`; then it is given back.
    pub(crate) fn try_map<U, E>(
        self,
        make: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<Charged<U>, E> {
        let value = make(self.value)?;
        Ok(self.charge.on(value))
    }

    /// Both apart. Who takes them keeps the charge for as long as it keeps the value.
    pub(crate) fn split(self) -> (T, Charge) {
        (self.value, self.charge)
    }

    /// Gives it to the embedding program, in whose hands it is not the sandbox's any more.
    pub(crate) fn hand_over(self) -> T {
        self.value
    }
}

impl<T> Deref for Charged<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> AsMut<T> for Charged<T> {
    /// It must stay in the room that it has, for which it is charged.
    fn as_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl Kept {
    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// As [`Account::room`]; then it is as it was.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let value = &mut self.value;
        let len = value.len().saturating_add(bytes.len());
        let capacity = value.capacity();
        if len > capacity {
            // At least doubled, so that many small pieces are not copied again and again.
            let wanted = len.max(capacity.saturating_mul(2));
            self.charge.grow(wanted - capacity)?;
            value
                .try_reserve_exact(wanted - value.len())
                .map_err(|_| Status::OutOfMemory)?;
        }
        value.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_in_order_and_no_more_than_a_piece_is_moved_for_one() {
        let account = Account::new(64 << 20);
        let mut parts = Parts::default();
        let mut expected = Vec::new();
        for at in 0..2_000_usize {
            let len = [1, 100, 0, 7_000][at % 4];
            let bytes: Vec<u8> = (at..at + len).map(|at| at as u8).collect();
            expected.extend_from_slice(&bytes);
            let places = |parts: &Parts| -> Vec<_> {
                let chunks = parts.chunks.iter();
                chunks.map(|chunk| chunk.as_ptr()).collect()
            };
            let before = places(&parts);
            let part = account.concat(&[&bytes]).unwrap();
            parts.add(part).unwrap();
            let full = before.len().saturating_sub(1);
            assert_eq!(places(&parts)[..full], before[..full]);
        }
        assert!(parts.chunks.iter().all(|chunk| chunk.len() <= PIECE));
        assert!(parts.chunks.len() < 2 * expected.len() / PIECE);
        let kept = account.kept();
        assert!(kept < 2 * expected.len() as u64 + PIECE as u64);
        let joined = parts.join(&account).unwrap();
        assert_eq!(*joined, expected);
        assert_eq!(account.kept(), kept + EACH as u64);
        drop(joined);
        assert_eq!(account.kept(), 0);
    }

    #[test]
    fn nothing_more_is_kept_than_the_limit_and_what_goes_is_given_back() {
        let account = Account::new(10_000);
        let kept: Vec<_> = std::iter::from_fn(|| account.room(1_000).ok()).collect();
        assert_eq!(kept.len(), 10_000 / (1_000 + EACH));
        assert_eq!(account.charge(1_000).unwrap_err(), Status::LimitReached);
        let most = account.kept();
        drop(kept);
        assert_eq!((account.kept(), account.peak()), (0, most));
        assert!(account.room(9_000).is_ok());
    }

    #[test]
    fn what_is_empty_is_not_free() {
        let account = Account::new(1_000_000);
        let kept: Vec<_> = std::iter::from_fn(|| account.concat(&[]).ok()).collect();
        assert_eq!(kept.len(), 1_000_000 / EACH);
    }

    #[test]
    fn what_comes_in_parts_is_charged_for_the_room_that_it_has() {
        let account = Account::new(10_000);
        let mut parts = Parts::default();
        let pieces = std::iter::from_fn(|| {
            let part = account.concat(&[&[0; 10]]).ok()?;
            parts.add(part).ok()
        });
        let pieces = pieces.count();
        assert!(pieces >= 300, "{pieces}");
        assert_eq!(parts.len(), 10 * pieces);
        let each = |chunk: &Kept| (chunk.value.capacity() + EACH) as u64;
        assert_eq!(account.kept(), parts.chunks.iter().map(each).sum::<u64>());
        assert!(account.peak() <= 10_000);
        drop(parts);
        assert_eq!(account.kept(), 0);
    }

    #[test]
    fn a_charge_follows_what_it_is_for() {
        let account = Account::new(1_000);
        let kept = account.concat(&[b"name"]).unwrap();
        let text = kept.try_map(String::from_utf8).unwrap();
        assert_eq!((text.as_str(), account.kept()), ("name", 4 + EACH as u64));
        let bad = account.concat(&[b"\xFF"]).unwrap();
        assert!(bad.try_map(String::from_utf8).is_err());
        let (text, charge) = text.split();
        assert_eq!((text.len(), account.kept()), (4, 4 + EACH as u64));
        drop(charge);
        assert_eq!(account.kept(), 0);
    }

    #[test]
    fn a_size_that_cannot_be_is_refused() {
        let account = Account::new(u64::MAX);
        let _some = account.charge(1).unwrap();
        assert_eq!(
            account.charge(usize::MAX).unwrap_err(),
            Status::LimitReached
        );
        assert_eq!(account.room(1 << 62).unwrap_err(), Status::OutOfMemory);
    }
}
