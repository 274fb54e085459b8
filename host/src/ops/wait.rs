//! What operations on sockets wait for.
//!
//! A socket that has failed is said to be neither readable nor writable unless the kernel says so
//! besides: a connected UDP socket whose peer is gone only has an error condition (`EPOLLERR`), and
//! who waits for input alone waits for ever. So whoever waits for a socket waits for these. The
//! call that follows takes the error (`SO_ERROR`) and returns it.

use std::io;
use std::net::TcpListener;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Input, or an error.
pub(super) const FOR_INPUT: Interest = Interest::READABLE.add(Interest::ERROR);

/// Room for output, or an error.
pub(super) const FOR_OUTPUT: Interest = Interest::WRITABLE.add(Interest::ERROR);

/// What such a wait is for, without errors: a call of Tokio's `try_io` is made if it is known to be there, and for a sum of
/// interests never.
pub(super) const fn alone(interest: Interest) -> Interest {
    if interest.is_writable() {
        Interest::WRITABLE
    } else {
        Interest::READABLE
    }
}

/// Lets a listening socket that does not block be waited for.
pub(super) fn register(socket: TcpListener) -> io::Result<AsyncFd<TcpListener>> {
    // SAFETY: a `TcpListener` owns its descriptor, names the same one all its life, and closes it
    // only when it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(socket, FOR_INPUT) };
    Ok(registered?)
}
