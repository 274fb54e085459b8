//! Connections that go from one processor to another.

use alloc::rc::Rc;
use core::fmt;
use core::marker::PhantomData;
use core::net::SocketAddr;

use super::{OwnedHandle, Stream};

/// A connection on its way to another processor: all that the host knows it by. It is closed when it is dropped.
///
/// ```ignore
/// let (stream, next) = (listener.accept().await?, (next + 1) % processor::count());
/// let movable = stream.into_movable().expect("nobody has read from it");
/// processor::spawn_on(next, move || serve(movable.into_stream()));
/// ```
pub struct Movable<K> {
    handle: OwnedHandle,
    peer: Option<SocketAddr>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Movable<K> {
    /// The connection, to be used on the processor that calls.
    #[must_use]
    pub fn into_stream(self) -> Stream<K> {
        Stream::of(self.handle, self.peer)
    }
}

impl<K> fmt::Debug for Movable<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Movable").field(&self.handle).finish()
    }
}

impl<K> Stream<K> {
    /// Takes the connection off this processor, so that another one can use it.
    ///
    /// # Errors
    ///
    /// The connection itself, if something of it belongs to this processor: a read under way that nobody waits for
    /// any more, bytes that were read and not yet taken, or bytes that wait to be sent.
    #[allow(
        clippy::result_large_err,
        reason = "it is the caller's own, given back"
    )]
    pub fn into_movable(self) -> Result<Movable<K>, Self> {
        if !self.is_idle() {
            return Err(self);
        }
        let (handle, peer) = (self.handle.clone(), self.peer);
        drop(self);
        match Rc::try_unwrap(handle) {
            Ok(handle) => Ok(Movable {
                handle,
                peer,
                kind: PhantomData,
            }),
            Err(_) => unreachable!("an idle connection has nobody else"),
        }
    }
}
