//! Connections in two halves, of which one reads and the other writes.

use alloc::rc::Rc;
use core::fmt;

use super::{Stream, Tcp};
use crate::buf::IoBuf;
use crate::io::Result;

impl<K> Stream<K> {
    /// Splits the connection into two halves that lie beside each other in one task.
    pub fn split(&mut self) -> (ReadHalf<'_, K>, WriteHalf<'_, K>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Splits the connection into two halves that tasks of their own may have.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf<K>, OwnedWriteHalf<K>) {
        let stream = Rc::new(self);
        (OwnedReadHalf(stream.clone()), OwnedWriteHalf(stream, true))
    }
}

/// The reading half of a connection; see [`Stream::split`].
pub struct ReadHalf<'a, K = Tcp>(&'a Stream<K>);

/// The writing half of a connection; see [`Stream::split`].
pub struct WriteHalf<'a, K = Tcp>(&'a Stream<K>);

/// The reading half of a connection; see [`Stream::into_split`].
pub struct OwnedReadHalf<K = Tcp>(Rc<Stream<K>>);

/// The writing half of a connection; see [`Stream::into_split`]. When it is dropped, the peer
/// reads to its end.
pub struct OwnedWriteHalf<K = Tcp>(Rc<Stream<K>>, IsLast);

/// Whether writing ends with the half.
type IsLast = bool;

/// What two halves that were put together belong to: not one connection.
#[derive(Debug)]
pub struct NotOne<K>(pub OwnedReadHalf<K>, pub OwnedWriteHalf<K>);

impl<K> OwnedReadHalf<K> {
    /// Puts two halves of one connection together again.
    ///
    /// # Errors
    ///
    /// The halves, if they are not of the same connection.
    pub fn reunite(
        self,
        mut other: OwnedWriteHalf<K>,
    ) -> core::result::Result<Stream<K>, NotOne<K>> {
        if !Rc::ptr_eq(&self.0, &other.0) {
            return Err(NotOne(self, other));
        }
        other.1 = false;
        drop(other);
        match Rc::try_unwrap(self.0) {
            Ok(stream) => Ok(stream),
            Err(_) => unreachable!("a connection has two halves"),
        }
    }
}

impl<K> Drop for OwnedWriteHalf<K> {
    fn drop(&mut self) {
        if self.1 {
            self.0.finish();
        }
    }
}

/// The methods of both kinds of reading half.
macro_rules! reading {
    ($half:ident $(<$life:lifetime>)?) => {
        impl<$($life,)? K> $half<$($life,)? K> {
            /// See [`Stream::read`]: cancel-safe.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn read(&mut self, into: &mut [u8]) -> Result<usize> {
                self.0.read(into).await
            }

            /// See [`Stream::readable`]: cancel-safe.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn readable(&self) -> Result<()> {
                self.0.readable().await
            }

            /// See [`Stream::read_vectored`]: cancel-safe.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn read_vectored(&mut self, into: &mut [&mut [u8]]) -> Result<usize> {
                self.0.read_vectored(into).await
            }

            /// See [`Stream::read_exact`]: not cancel-safe.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn read_exact(&mut self, into: &mut [u8]) -> Result<()> {
                self.0.read_exact(into).await
            }

            /// See [`Stream::read_buf`]: cancel-safe as to bytes.
            pub async fn read_buf(&mut self, into: IoBuf) -> (Result<usize>, IoBuf) {
                self.0.read_buf(into).await
            }
        }
        debug!($half $(<$life>)?);
    };
}

/// The methods of both kinds of writing half.
macro_rules! writing {
    ($half:ident $(<$life:lifetime>)?) => {
        impl<$($life,)? K> $half<$($life,)? K> {
            /// See [`Stream::write`]: cancel-safe.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn write(&mut self, bytes: &[u8]) -> Result<usize> {
                self.0.write(bytes).await
            }

            /// See [`Stream::write_vectored`]: cancel-safe.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn write_vectored(&mut self, slices: &[&[u8]]) -> Result<usize> {
                self.0.write_vectored(slices).await
            }

            /// See [`Stream::write_all`]: not cancel-safe.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
                self.0.write_all(bytes).await
            }

            /// See [`Stream::post`]: cancel-safe, but the buffer is gone with the future.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn post(&mut self, buf: IoBuf) -> Result<()> {
                self.0.post(buf).await
            }

            /// See [`Stream::flush`]: cancel-safe.
            ///
            /// # Errors
            ///
            /// As there.
            pub async fn flush(&mut self) -> Result<()> {
                self.0.flush().await
            }

            /// See [`Stream::write_buf`]: not cancel-safe.
            pub async fn write_buf(&mut self, buf: IoBuf) -> (Result<usize>, IoBuf) {
                self.0.write_buf(buf).await
            }

            /// See [`Stream::write_all_buf`]: not cancel-safe.
            pub async fn write_all_buf(&mut self, buf: IoBuf) -> (Result<()>, IoBuf) {
                self.0.write_all_buf(buf).await
            }
        }
        debug!($half $(<$life>)?);
    };
}

macro_rules! debug {
    ($half:ident $(<$life:lifetime>)?) => {
        impl<$($life,)? K> fmt::Debug for $half<$($life,)? K> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($half)).field(&self.0).finish()
            }
        }
    };
}

reading!(ReadHalf<'a>);
reading!(OwnedReadHalf);
writing!(WriteHalf<'a>);
writing!(OwnedWriteHalf);
