//! The open resources of a sandbox, by handle.
//!
//! A handle is an index and the count of times that its entry was used before: a stale or
//! forged handle finds nothing, or the resource of the sandbox that forged it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Resource as Rlimit, getrlimit};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use wakebox_abi::entry::Token;
use wakebox_abi::op::Handle;
use wakebox_abi::status::Status;

use super::regular::Regular;
use super::stream::Stream;
use super::tcp::Listener;
use super::udp::Udp;
use crate::account::Kept;
use crate::calls::host::ItemStream;
use crate::later::{Heavy, Later};
use crate::limits::{LimitKind, Limits};

/// Something open.
#[derive(Clone, Debug)]
pub(crate) enum Resource {
    /// A connection, over TCP or a Unix socket.
    Stream(Arc<Stream>),
    /// A listening TCP socket.
    Listener(Arc<Listener>),
    /// A UDP socket.
    Udp(Arc<Udp>),
    /// A regular file.
    File(Arc<Later<Regular>>),
    /// A directory that is listed.
    Directory(Arc<OwnedFd>),
    /// A message that was too large for its reader's buffer.
    Message(Arc<Kept>),
    /// What a host function gives, item by item.
    HostStream(Arc<Mutex<ItemStream>>),
}

impl Resource {
    /// The word for many of its kind.
    fn kind(&self) -> &'static str {
        match self {
            Self::Stream(_) => "connections",
            Self::Listener(_) => "listeners",
            Self::Udp(_) => "UDP sockets",
            Self::File(_) => "files",
            Self::Directory(_) => "directories",
            Self::Message(_) => "long messages",
            Self::HostStream(_) => "streams of host functions",
        }
    }
}

/// A handle that was closed.
#[derive(Debug)]
pub(crate) struct Closed {
    /// The operations that are in flight on it.
    pub(crate) operations: Vec<Token>,
    /// What it was of, if it takes long to let go of that.
    pub(crate) file: Option<Later<HeavyFile>>,
}

/// A file with its handle's entry, which is free when the descriptor is closed: a guest that opens and
/// closes faster than that has no more of them at once than one that waits.
#[derive(Debug)]
pub(crate) struct HeavyFile(
    Arc<Later<Regular>>,
    #[allow(dead_code, reason = "held")] Vacancy,
);

impl Heavy for HeavyFile {
    fn is_heavy(&self) -> bool {
        self.0.is_heavy()
    }
}

/// Bits of a handle that are the index; the others count uses.
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

#[derive(Debug, Default)]
struct Entry {
    uses: u32,
    /// With the vacancy that it fills.
    resource: Option<(Resource, Vacancy)>,
    /// Operations in flight on the resource: a few at most.
    operations: Vec<Token>,
}

/// An entry in the table for something that is yet to be opened. Given back when it is dropped.
///
/// Whatever opens something takes one *before* it begins: a connection that is accepted, or a file
/// that is made, when there is no handle left for it, would be lost.
#[derive(Debug)]
pub(crate) struct Vacancy {
    _permit: OwnedSemaphorePermit,
}

/// The entries that are left in a table. Clones are about the same table.
#[derive(Clone, Debug)]
pub(crate) struct Vacancies(Arc<Semaphore>);

impl Vacancies {
    /// Takes an entry.
    ///
    /// # Errors
    ///
    /// `LimitReached` if there is none.
    pub(crate) fn take(&self) -> Result<Vacancy, Status> {
        match self.0.clone().try_acquire_owned() {
            Ok(permit) => Ok(Vacancy { _permit: permit }),
            Err(_) => Err(Status::LimitReached),
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.0.available_permits()
    }

    /// Takes an entry as soon as there is one; first come, first served.
    pub(crate) async fn wait(&self) -> Vacancy {
        let permit = self.0.clone().acquire_owned().await;
        Vacancy {
            _permit: permit.expect("nobody closes the semaphore"),
        }
    }
}

/// The table of open resources.
#[derive(Debug)]
pub(crate) struct Handles {
    entries: Vec<Entry>,
    free: Vec<u32>,
    vacancies: Vacancies,
}

/// Most handles of a sandbox, unless its policy says how many: a quarter of the descriptors that this
/// process may have now, so that no guest takes them all, and [`LimitKind::Handles`]'s default at
/// most.
pub(crate) fn most(limits: &Limits) -> u32 {
    let most = limits.count(LimitKind::Handles);
    if limits.is_set(LimitKind::Handles) {
        return most;
    }
    let descriptors = getrlimit(Rlimit::Nofile).current.unwrap_or(u64::MAX);
    most.min(u32::try_from(descriptors / 4).unwrap_or(u32::MAX))
}

impl Handles {
    /// An empty table of at most `most` resources.
    pub(crate) fn new(most: u32) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            vacancies: Vacancies(Arc::new(Semaphore::new(most.min(INDEX_MASK) as usize))),
        }
    }

    /// An empty table whose entries have been used so often: no handle of then is given out again soon.
    pub(crate) fn resuming(most: u32, uses: &[u32]) -> Self {
        let mut table = Self::new(most);
        table.entries.extend(uses.iter().map(|uses| Entry {
            uses: *uses & (u32::MAX >> INDEX_BITS),
            ..Entry::default()
        }));
        table.free.extend((0..table.entries.len() as u32).rev());
        table
    }

    /// By index, how often each entry has been used, with what is open now.
    pub(crate) fn uses(&self) -> Vec<u32> {
        let used = |entry: &Entry| entry.uses.wrapping_add(u32::from(entry.resource.is_some()));
        self.entries.iter().map(used).collect()
    }

    /// What is open, in words for many of its kind.
    pub(crate) fn open_kinds(&self) -> impl Iterator<Item = &'static str> {
        let open = self
            .entries
            .iter()
            .filter_map(|entry| entry.resource.as_ref());
        open.map(|(resource, _)| resource.kind())
    }

    /// The entries that are left.
    pub(crate) fn vacancies(&self) -> &Vacancies {
        &self.vacancies
    }

    /// Gives a resource a handle, in the entry that was taken for it.
    pub(crate) fn open(&mut self, resource: Resource, vacancy: Vacancy) -> Handle {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[index as usize];
        entry.resource = Some((resource, vacancy));
        Handle(entry.uses << INDEX_BITS | index)
    }

    fn entry(&mut self, handle: Handle) -> Result<&mut Entry, Status> {
        self.entries
            .get_mut((handle.0 & INDEX_MASK) as usize)
            .filter(|entry| entry.uses == handle.0 >> INDEX_BITS && entry.resource.is_some())
            .ok_or(Status::BadHandle)
    }

    /// The connection of a handle.
    pub(crate) fn stream(&mut self, handle: Handle) -> Result<&Arc<Stream>, Status> {
        match self.any(handle)? {
            Resource::Stream(stream) => Ok(stream),
            _ => Err(Status::BadHandle),
        }
    }

    /// The listener of a handle.
    pub(crate) fn listener(&mut self, handle: Handle) -> Result<&Arc<Listener>, Status> {
        match self.any(handle)? {
            Resource::Listener(listener) => Ok(listener),
            _ => Err(Status::BadHandle),
        }
    }

    /// The UDP socket of a handle.
    pub(crate) fn udp(&mut self, handle: Handle) -> Result<&Arc<Udp>, Status> {
        match self.any(handle)? {
            Resource::Udp(udp) => Ok(udp),
            _ => Err(Status::BadHandle),
        }
    }

    /// The file of a handle.
    pub(crate) fn file(&mut self, handle: Handle) -> Result<&Arc<Later<Regular>>, Status> {
        match self.any(handle)? {
            Resource::File(file) => Ok(file),
            _ => Err(Status::BadHandle),
        }
    }

    /// The directory of a handle.
    pub(crate) fn directory(&mut self, handle: Handle) -> Result<&Arc<OwnedFd>, Status> {
        match self.any(handle)? {
            Resource::Directory(directory) => Ok(directory),
            _ => Err(Status::BadHandle),
        }
    }

    /// The resource of a handle, of whichever kind.
    pub(crate) fn any(&mut self, handle: Handle) -> Result<&Resource, Status> {
        match &self.entry(handle)?.resource {
            Some((resource, _)) => Ok(resource),
            None => Err(Status::BadHandle),
        }
    }

    /// Closes a handle. Returns the operations in flight on it, which are to be cancelled, and what is
    /// to be dropped then.
    pub(crate) fn close(&mut self, handle: Handle) -> Result<Closed, Status> {
        let entry = self.entry(handle)?;
        let file = match entry.resource.take() {
            Some((Resource::File(file), vacancy)) if file.is_heavy() => {
                Some(Later::new(HeavyFile(file, vacancy)))
            }
            _ => None,
        };
        entry.uses = entry.uses.wrapping_add(1) & (u32::MAX >> INDEX_BITS);
        let operations = std::mem::take(&mut entry.operations);
        self.free.push(handle.0 & INDEX_MASK);
        Ok(Closed { operations, file })
    }

    /// Everything that is open, in the order in which it was opened but for entries that were used
    /// again. Closed when it is dropped.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = (Resource, Vacancy)> + Send + use<> {
        self.free.clear();
        let entries = std::mem::take(&mut self.entries).into_iter();
        entries.filter_map(|entry| entry.resource)
    }

    /// Notes an operation in flight on a handle.
    pub(crate) fn started(&mut self, handle: Option<Handle>, token: Token) {
        if let Some(Ok(entry)) = handle.map(|handle| self.entry(handle)) {
            entry.operations.push(token);
        }
    }

    /// Notes the end of an operation on a handle.
    pub(crate) fn ended(&mut self, handle: Option<Handle>, token: Token) {
        if let Some(Ok(entry)) = handle.map(|handle| self.entry(handle))
            && let Some(at) = entry.operations.iter().position(|other| *other == token)
        {
            entry.operations.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn listener() -> Resource {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Resource::Listener(Arc::new(Listener::new(socket)))
    }

    #[tokio::test]
    async fn a_closed_handle_is_not_the_next_one() {
        let mut handles = Handles::new(1);
        let vacancy = handles.vacancies().take().unwrap();
        assert_eq!(handles.vacancies().take().err(), Some(Status::LimitReached));
        let first = handles.open(listener(), vacancy);
        assert_eq!(handles.vacancies().take().err(), Some(Status::LimitReached));
        let token = Token {
            slot: 1,
            generation: 1,
        };
        handles.started(Some(first), token);
        assert_eq!(handles.close(first).unwrap().operations, [token]);
        assert_eq!(handles.close(first).err(), Some(Status::BadHandle));
        let vacancy = handles.vacancies().take().unwrap();
        let second = handles.open(listener(), vacancy);
        assert_ne!(first, second);
        assert!(handles.listener(first).is_err());
        assert!(handles.listener(second).is_ok());
        assert!(handles.stream(second).is_err());
    }

    #[tokio::test]
    async fn an_entry_goes_to_whoever_waits_for_it_longest() {
        let mut handles = Handles::new(1);
        let vacancy = handles.vacancies().take().unwrap();
        let handle = handles.open(listener(), vacancy);
        let vacancies = handles.vacancies().clone();
        let (mut first, mut second) = (Box::pin(vacancies.wait()), Box::pin(vacancies.wait()));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        handles.close(handle).unwrap();
        // Nobody else takes it meanwhile, and whoever gives up hands it on.
        assert!(vacancies.take().is_err());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        assert!((&mut second).now_or_never().is_some());
    }

    #[test]
    fn a_share_of_the_descriptors_is_the_default_and_a_limit_is_what_it_says() {
        let descriptors = getrlimit(Rlimit::Nofile).current.unwrap_or(u64::MAX);
        let share = most(&Limits::new());
        assert!(u64::from(share) <= descriptors / 4 && share <= 1 << 16);
        assert!(u64::from(share) >= (descriptors / 4).min(1 << 16));
        assert_eq!(most(&Limits::new().handles(1_000_000)), 1_000_000);
        assert_eq!(most(&Limits::new().handles(None)), u32::MAX);
    }
}
