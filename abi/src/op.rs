//! The operations: what a guest can ask for.
//!
//! An operation is a row of the table at the end: a number, a name, what it takes the host and what
//! its value is, and typed parameters, each of which takes one word of the submission entry. To add
//! one, add a row, a file in the host's `ops/` and its use in the guest.
//!
//! Bytes never travel in entries. A [`Buf`] names a range of the I/O arena, which the
//! operation owns until its completion.

mod address;
mod call;
#[macro_use]
mod declare;
mod param;

pub use self::address::SocketAddress;
pub use self::call::CallHeader;
pub use self::param::*;
use crate::entry::{Submission, Token};
use crate::file::{FileTime, OpenFlags};
use crate::status::Status;

/// An operation with its parameters.
pub trait Operation: Copy {
    /// Its number.
    const OPCODE: Opcode;
    /// The parameters as words.
    fn to_params(self) -> [u64; Submission::PARAMS];
    /// The parameters in these words.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if a word has no value of its parameter's type.
    fn from_params(params: &[u64; Submission::PARAMS]) -> Result<Self, Malformed>;

    /// The whole entry.
    #[inline]
    fn submission(self, token: Token) -> Submission {
        Submission {
            opcode: Self::OPCODE as u16,
            deferrable: false,
            token,
            params: self.to_params(),
        }
    }
}

/// What it takes the host to begin an operation, besides moving its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Nothing of its kernel.
    Light,
    /// System calls, a few.
    Calls,
}

/// What the value of a completion is, if the operation has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A count of bytes.
    Bytes,
    /// The handle of something that was opened.
    Handle,
    /// A number of another kind, or zero.
    Number,
}

operations! {
    /// Completes at once, with the value zero: the price of the boundary itself.
    0 Nop: Light, Number {}

    /// Asks the host to end another operation early. Has no completion of its own; the
    /// other one completes with `Cancelled`, or as it would have if it was faster.
    1 Cancel: Light, Number {
        /// The operation to end.
        target: Token,
    }

    /// Completes when the monotonic clock of [`crate::boot::Clock`] has reached a time.
    2 Deadline: Light, Number {
        /// Nanoseconds on the monotonic clock.
        at_ns: u64,
    }

    /// Writes two `u64`, little endian: monotonic and wall-clock nanoseconds.
    /// For guests without a usable time-stamp counter.
    3 ReadClock: Light, Bytes {
        /// At least 16 bytes.
        into: Buf,
    }

    /// Fills a buffer with random bytes from the host's generator.
    4 Entropy: Calls, Bytes {
        /// Where to.
        into: Buf,
    }

    /// Writes to a standard stream. The value is the number of bytes taken: all of them.
    5 WriteConsole: Calls, Bytes {
        /// Which stream.
        stream: Stream,
        /// The bytes.
        from: Buf,
    }

    /// Reads from standard input. The value is the number of bytes; zero is the end.
    6 ReadStdin: Calls, Bytes {
        /// Where to.
        into: Buf,
    }

    /// Closes a handle. Operations in flight on it are cancelled.
    7 Close: Calls, Number {
        /// The resource.
        handle: Handle,
    }

    /// Connects to a TCP address. The value is the handle of a connection.
    8 TcpConnect: Calls, Handle {
        /// `host:port` in UTF-8; an IPv6 address stands in brackets.
        address: Buf,
    }

    /// Binds a TCP address and listens. The value is the handle of a listener.
    9 TcpListen: Calls, Handle {
        /// `address:port` in UTF-8; port 0 lets the host choose.
        address: Buf,
        /// Most connections that wait to be accepted.
        backlog: u32,
    }

    /// Accepts a connection. The value is its handle. At the limit of handles it waits until one is
    /// closed, and connections wait in the backlog meanwhile.
    10 TcpAccept: Calls, Handle {
        /// The listener.
        listener: Handle,
        /// Gets the [`SocketAddress`] of the other side, which takes [`SocketAddress::SIZE`] bytes, or is
        /// empty if nobody wants it.
        peer: Buf,
    }

    /// Writes a socket's address as [`SocketAddress`] bytes.
    11 SocketName: Calls, Bytes {
        /// The socket.
        socket: Handle,
        /// Which end of it.
        end: End,
        /// At least [`SocketAddress::SIZE`] bytes.
        into: Buf,
    }

    /// Reads what there is from a connection. The value is the number of bytes; zero is the end.
    12 ReadStream: Calls, Bytes {
        /// The connection.
        stream: Handle,
        /// Where to.
        into: Buf,
    }

    /// Writes to a connection. The value is the number of bytes taken.
    13 WriteStream: Calls, Bytes {
        /// The connection.
        stream: Handle,
        /// The bytes.
        from: Buf,
        /// How many of them, if the connection does not take all at once.
        amount: Amount,
    }

    /// Shuts down one or both directions of a connection.
    14 ShutdownStream: Calls, Number {
        /// The connection.
        stream: Handle,
        /// Which direction.
        how: Shutdown,
    }

    /// Changes a setting of a TCP connection.
    15 SetSocketOption: Calls, Number {
        /// The connection.
        socket: Handle,
        /// Which setting.
        option: SocketOption,
        /// Its value.
        value: u32,
    }

    /// Resolves a name. The value is the number of bytes written: a [`SocketAddress`] with port
    /// zero for each address of the host, as many as fit.
    16 Lookup: Calls, Bytes {
        /// The name in UTF-8, or an address, which stands for itself.
        name: Buf,
        /// Where to.
        into: Buf,
    }

    /// Binds a UDP socket. The value is its handle.
    17 UdpBind: Calls, Handle {
        /// `address:port` in UTF-8; port 0 lets the host choose.
        address: Buf,
    }

    /// Gives a UDP socket a peer: to it goes what is sent to nobody else, and only what comes from
    /// it is received.
    18 UdpConnect: Calls, Number {
        /// The socket.
        socket: Handle,
        /// `host:port` in UTF-8.
        address: Buf,
    }

    /// Sends a datagram. The value is the number of bytes sent: all of them.
    19 UdpSend: Calls, Bytes {
        /// The socket.
        socket: Handle,
        /// The bytes.
        from: Buf,
        /// A [`SocketAddress`], or empty for the socket's peer.
        to: Buf,
    }

    /// Receives a datagram. The buffer gets the sender's [`SocketAddress`] and, behind it, as much
    /// of the datagram as fits; the rest is lost. The value is the number of bytes of the datagram
    /// that the buffer got.
    20 UdpReceive: Calls, Bytes {
        /// The socket.
        socket: Handle,
        /// At least [`SocketAddress::SIZE`] bytes.
        into: Buf,
    }

    /// Connects to a Unix stream socket. The value is the handle of a connection.
    21 UnixConnect: Calls, Handle {
        /// Its absolute path on the host.
        path: Buf,
    }

    /// Opens a regular file. The value is its handle.
    22 OpenFile: Calls, Handle {
        /// Its path ([`crate::file::PATH_MAX`]).
        path: Buf,
        /// How.
        flags: OpenFlags,
    }

    /// Reads from a file. The value is the number of bytes, perhaps fewer than asked for; zero is
    /// the end.
    23 ReadFile: Calls, Bytes {
        /// The file.
        file: Handle,
        /// Where to.
        into: Buf,
        /// Bytes from the file's start.
        offset: u64,
    }

    /// Writes to a file. The value is the number of bytes taken, perhaps fewer than given.
    24 WriteFile: Calls, Bytes {
        /// The file.
        file: Handle,
        /// The bytes.
        from: Buf,
        /// Bytes from the file's start; of no effect if it was opened for appending.
        offset: u64,
    }

    /// Tells what an open file is, as [`crate::file::FileStat`] bytes.
    25 StatFile: Calls, Bytes {
        /// The file.
        file: Handle,
        /// At least [`crate::file::FileStat::LEAST`] bytes; [`crate::file::FileStat::SIZE`] for all.
        into: Buf,
    }

    /// Cuts a file off, or fills it up with zeroes.
    26 SetFileLength: Calls, Number {
        /// The file.
        file: Handle,
        /// Its new length in bytes.
        len: u64,
    }

    /// Waits until what was written to a file is on the disk.
    27 SyncFile: Calls, Number {
        /// The file.
        file: Handle,
        /// How much of it.
        what: Sync,
    }

    /// Tells what is at a path, as [`crate::file::FileStat`] bytes.
    28 StatPath: Calls, Bytes {
        /// The path.
        path: Buf,
        /// Whether to follow a symbolic link at its end.
        follow: Follow,
        /// At least [`crate::file::FileStat::LEAST`] bytes; [`crate::file::FileStat::SIZE`] for all.
        into: Buf,
    }

    /// Gives something another path, and replaces what is there.
    29 Rename: Calls, Number {
        /// The path that it has.
        from: Buf,
        /// The path that it gets.
        to: Buf,
    }

    /// Removes something that is not a directory.
    30 RemoveFile: Calls, Number {
        /// Its path.
        path: Buf,
    }

    /// Removes an empty directory.
    31 RemoveDirectory: Calls, Number {
        /// Its path.
        path: Buf,
    }

    /// Makes a directory.
    32 CreateDirectory: Calls, Number {
        /// Its path.
        path: Buf,
    }

    /// Opens a directory for listing. The value is its handle.
    33 OpenDirectory: Calls, Handle {
        /// Its path.
        path: Buf,
    }

    /// Lists the next entries of a directory. The value is the number of bytes of a batch of
    /// [`crate::file::DirectoryEntry`]s; zero is the end.
    34 ReadDirectory: Calls, Bytes {
        /// The directory.
        directory: Handle,
        /// At least [`crate::file::DirectoryEntry::BATCH_MIN`] bytes.
        into: Buf,
    }

    /// Lists the directories that the policy grants. The value is the number of bytes of a batch of
    /// [`crate::file::DirectoryEntry`]s, whose names are paths; zero is the end.
    35 ListMounts: Light, Bytes {
        /// How many are passed over.
        first: u32,
        /// More than [`crate::file::PATH_MAX`] bytes, by as many as stand before a name.
        into: Buf,
    }

    /// Gives a file a second name, in the same file system of the host. A symbolic link is not followed.
    36 HardLink: Calls, Number {
        /// The path that it has.
        from: Buf,
        /// The path that it gets besides, where nothing is yet.
        to: Buf,
    }

    /// Makes a symbolic link.
    37 SymbolicLink: Calls, Number {
        /// Where it leads to: a relative path, seen from the directory in which the link lies.
        target: Buf,
        /// Its own path, where nothing is yet.
        path: Buf,
    }

    /// Tells where a symbolic link leads to. The value is the number of bytes: as many of the target as
    /// fit.
    38 ReadLink: Calls, Bytes {
        /// The link's path.
        path: Buf,
        /// Where to.
        into: Buf,
    }

    /// Sets the times of what is at a path.
    39 SetPathTimes: Calls, Number {
        /// The path.
        path: Buf,
        /// Whether to follow a symbolic link at its end.
        follow: Follow,
        /// When it was read last.
        accessed: FileTime,
        /// When its bytes were changed last.
        modified: FileTime,
    }

    /// Calls a function of the embedding program. The value is the length of its reply, or
    /// [`OVERFLOW`] if that does not fit.
    40 CallHost: Calls, Bytes {
        /// The function's name in UTF-8.
        function: Buf,
        /// Its arguments, serialized.
        input: Buf,
        /// Where the reply goes.
        into: Buf,
        /// What the arguments are.
        form: CallForm,
    }

    /// Calls a function of the embedding program that gives a stream. The value is its handle.
    41 OpenHostStream: Calls, Handle {
        /// The function's name in UTF-8.
        function: Buf,
        /// Its arguments, serialized.
        input: Buf,
        /// What the arguments are.
        form: CallForm,
    }

    /// Waits for the next item of a stream. The value is the item's length plus one, zero at the
    /// end, or [`OVERFLOW`] if the item does not fit.
    42 NextItem: Calls, Bytes {
        /// The stream.
        stream: Handle,
        /// Where the item goes.
        into: Buf,
    }

    /// Copies a part of a message that was too large. The value is the number of bytes; zero is its
    /// end.
    43 ReadMessage: Calls, Bytes {
        /// The message.
        message: Handle,
        /// Bytes from its start.
        at: u32,
        /// Where to.
        into: Buf,
    }

    /// Waits until the embedding program calls a function of this guest, or takes a call back. The
    /// value is the length of a [`CallHeader`] and what follows it, or [`OVERFLOW`] if that does not
    /// fit. Ends with `NotConnected` when no more calls will come.
    44 NextCall: Calls, Bytes {
        /// Where the call goes.
        into: Buf,
    }

    /// Answers a call. A reply in several parts is sent in order, all but the last with
    /// [`ReplyKind::Part`].
    45 Reply: Calls, Number {
        /// Which call.
        call: u64,
        /// What this is.
        kind: ReplyKind,
        /// The reply, or a part of it, serialized.
        from: Buf,
    }

    /// Asks for a template of this sandbox, to be taken when the guest next sleeps. It ends in this
    /// sandbox with the value [`CONTINUED`], and in each that is made of the template with
    /// [`RESTORED`].
    46 Snapshot: Calls, Number {}

    /// Sets the times of an open file.
    47 SetFileTimes: Calls, Number {
        /// The file.
        file: Handle,
        /// When it was read last.
        accessed: FileTime,
        /// When its bytes were changed last.
        modified: FileTime,
    }

    /// Sends several datagrams of one length, of which the last may be shorter, to one address. The value is the
    /// number of bytes sent: those of some whole datagrams, of one at least.
    48 UdpSendMany: Calls, Bytes {
        /// The socket.
        socket: Handle,
        /// The datagrams, one behind the other. [`DATAGRAMS_MAX`] are sent at most.
        from: Buf,
        /// A [`SocketAddress`], or empty for the socket's peer.
        to: Buf,
        /// Bytes of each, at least one.
        each: u32,
    }

    /// Receives what datagrams are there, at least one and at most [`DATAGRAMS_MAX`]. Each takes so many bytes of the buffer, from
    /// its start: the sender's [`SocketAddress`], how many bytes follow, in four bytes, little endian, and as much of the
    /// datagram as fits. The value is the number of datagrams.
    49 UdpReceiveMany: Calls, Number {
        /// The socket.
        socket: Handle,
        /// At least as many bytes as one takes.
        into: Buf,
        /// Bytes that each takes: at least [`SocketAddress::SIZE`] and four.
        each: u32,
    }
}

/// Most datagrams of a [`UdpSendMany`] or [`UdpReceiveMany`].
pub const DATAGRAMS_MAX: usize = 64;

/// The value of a [`Snapshot`] in the sandbox of which the template was made.
pub const CONTINUED: u32 = 0;

/// The value of a [`Snapshot`] in a sandbox that was made of the template.
pub const RESTORED: u32 = 1;

/// The value of an operation whose message does not fit into its buffer. The first four bytes of the
/// buffer are then the [`Handle`] of the message, little endian, to be read with [`ReadMessage`] and
/// closed.
pub const OVERFLOW: u32 = u32::MAX;

#[cfg(test)]
mod tests;
