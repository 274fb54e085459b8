//! The open resources of a sandbox, by handle.
//!
//! A handle is an index and the count of times that its place was used before: a stale or
//! forged handle finds nothing, or the resource of the sandbox that forged it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Resource as Rlimit, getrlimit};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use wakebox_abi::entry::Token;
use wakebox_abi::op::Handle;
use wakebox_abi::status::Status;

use crate::account::Kept;
use crate::calls::host::ItemStream;
use crate::limits::{LimitKind, Limits};
use crate::ops::regular::Regular;
use crate::ops::stream::Stream;
use crate::ops::udp::Udp;

/// Something open.
#[derive(Clone, Debug)]
pub(crate) enum Resource {
    /// A connection, over TCP or a Unix socket.
    Stream(Arc<Stream>),
    /// A listening TCP socket.
    Listener(Arc<TcpListener>),
    /// A UDP socket.
    Udp(Arc<Udp>),
    /// A regular file.
    File(Arc<Regular>),
    /// A directory that is listed.
    Directory(Arc<OwnedFd>),
    /// A message that was too large for its reader's buffer.
    Message(Arc<Kept>),
    /// What a host function gives, item by item.
    HostStream(Arc<Mutex<ItemStream>>),
}

/// Bits of a handle that are the index; the others count uses.
const INDEX_BITS: u32 = 20;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

#[derive(Debug, Default)]
struct Place {
    uses: u32,
    resource: Option<Resource>,
    /// Operations in flight on the resource: a few at most.
    operations: Vec<Token>,
}

/// The table of open resources.
#[derive(Debug)]
pub(crate) struct Handles {
    places: Vec<Place>,
    free: Vec<u32>,
    most: u32,
    /// Places of what is about to be opened.
    reserved: Arc<AtomicU32>,
}

/// The place of something that is about to be opened, from before there is a descriptor of it: what
/// is under way counts as what is open. Given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved(Arc<AtomicU32>);

impl Drop for Reserved {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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
            places: Vec::new(),
            free: Vec::new(),
            most: most.min(INDEX_MASK),
            reserved: Arc::default(),
        }
    }

    /// Whether another resource would be one too many.
    fn is_full(&self) -> bool {
        let open = self.places.len() - self.free.len();
        // A count of what others drop; nothing else hangs on it.
        open as u32 + self.reserved.load(Ordering::Relaxed) >= self.most
    }

    /// Reserves a place for what is about to be opened.
    ///
    /// # Errors
    ///
    /// `LimitReached` if there are too many.
    pub(crate) fn reserve(&self) -> Result<Reserved, Status> {
        if self.is_full() {
            return Err(Status::LimitReached);
        }
        self.reserved.fetch_add(1, Ordering::Relaxed);
        Ok(Reserved(self.reserved.clone()))
    }

    /// Opens a handle, or gives the resource up if there are too many.
    pub(crate) fn open(&mut self, resource: Resource) -> Result<Handle, Status> {
        if self.is_full() {
            return Err(Status::LimitReached);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.resource = Some(resource);
        Ok(Handle(place.uses << INDEX_BITS | index))
    }

    fn place(&mut self, handle: Handle) -> Result<&mut Place, Status> {
        self.places
            .get_mut((handle.0 & INDEX_MASK) as usize)
            .filter(|place| place.uses == handle.0 >> INDEX_BITS && place.resource.is_some())
            .ok_or(Status::BadHandle)
    }

    /// The connection of a handle.
    pub(crate) fn stream(&mut self, handle: Handle) -> Result<&Arc<Stream>, Status> {
        match &self.place(handle)?.resource {
            Some(Resource::Stream(stream)) => Ok(stream),
            _ => Err(Status::BadHandle),
        }
    }

    /// The listener of a handle.
    pub(crate) fn listener(&mut self, handle: Handle) -> Result<&Arc<TcpListener>, Status> {
        match &self.place(handle)?.resource {
            Some(Resource::Listener(listener)) => Ok(listener),
            _ => Err(Status::BadHandle),
        }
    }

    /// The UDP socket of a handle.
    pub(crate) fn udp(&mut self, handle: Handle) -> Result<&Arc<Udp>, Status> {
        match &self.place(handle)?.resource {
            Some(Resource::Udp(udp)) => Ok(udp),
            _ => Err(Status::BadHandle),
        }
    }

    /// The file of a handle.
    pub(crate) fn file(&mut self, handle: Handle) -> Result<&Arc<Regular>, Status> {
        match &self.place(handle)?.resource {
            Some(Resource::File(file)) => Ok(file),
            _ => Err(Status::BadHandle),
        }
    }

    /// The directory of a handle.
    pub(crate) fn directory(&mut self, handle: Handle) -> Result<&Arc<OwnedFd>, Status> {
        match &self.place(handle)?.resource {
            Some(Resource::Directory(directory)) => Ok(directory),
            _ => Err(Status::BadHandle),
        }
    }

    /// The resource of a handle, of whichever kind.
    pub(crate) fn any(&mut self, handle: Handle) -> Result<&Resource, Status> {
        self.place(handle)?
            .resource
            .as_ref()
            .ok_or(Status::BadHandle)
    }

    /// Closes a handle. Returns the operations in flight on it, which are to be cancelled.
    pub(crate) fn close(&mut self, handle: Handle) -> Result<Vec<Token>, Status> {
        let place = self.place(handle)?;
        place.resource = None;
        place.uses = place.uses.wrapping_add(1) & (u32::MAX >> INDEX_BITS);
        let operations = std::mem::take(&mut place.operations);
        self.free.push(handle.0 & INDEX_MASK);
        Ok(operations)
    }

    /// Closes everything.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.free.clear();
    }

    /// Notes an operation in flight on a handle.
    pub(crate) fn started(&mut self, handle: Option<Handle>, token: Token) {
        if let Some(Ok(place)) = handle.map(|handle| self.place(handle)) {
            place.operations.push(token);
        }
    }

    /// Notes the end of an operation on a handle.
    pub(crate) fn ended(&mut self, handle: Option<Handle>, token: Token) {
        if let Some(Ok(place)) = handle.map(|handle| self.place(handle))
            && let Some(at) = place.operations.iter().position(|other| *other == token)
        {
            place.operations.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn listener() -> Resource {
        Resource::Listener(Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap()))
    }

    #[tokio::test]
    async fn a_closed_handle_is_not_the_next_one() {
        let mut handles = Handles::new(1);
        let first = handles.open(listener().await).unwrap();
        assert_eq!(handles.open(listener().await), Err(Status::LimitReached));
        let token = Token {
            slot: 1,
            generation: 1,
        };
        handles.started(Some(first), token);
        assert_eq!(handles.close(first), Ok(vec![token]));
        assert_eq!(handles.close(first), Err(Status::BadHandle));
        let second = handles.open(listener().await).unwrap();
        assert_ne!(first, second);
        assert!(handles.listener(first).is_err());
        assert!(handles.listener(second).is_ok());
        assert!(handles.stream(second).is_err());
    }

    #[tokio::test]
    async fn what_is_about_to_be_opened_has_its_place() {
        let mut handles = Handles::new(2);
        let (one, two) = (handles.reserve().unwrap(), handles.reserve().unwrap());
        assert_eq!(handles.reserve().unwrap_err(), Status::LimitReached);
        assert_eq!(handles.open(listener().await), Err(Status::LimitReached));
        drop(one);
        let open = handles.open(listener().await).unwrap();
        assert!(handles.reserve().is_err());
        drop(two);
        handles.open(listener().await).unwrap();
        assert!(handles.reserve().is_err());
        handles.close(open).unwrap();
        assert!(handles.reserve().is_ok());
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
