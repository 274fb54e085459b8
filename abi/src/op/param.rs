//! What travels in the parameter words of an operation.

use crate::entry::Token;

/// A parameter that cannot be: the entry is refused with [`crate::status::Status::InvalidInput`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A value that travels in one parameter word.
pub trait Param: Copy {
    /// The word.
    fn to_word(self) -> u64;
    /// Bytes of the arena that the value names.
    #[inline]
    fn arena_bytes(self) -> u32 {
        0
    }
    /// The value of a word.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if no value has this word.
    fn from_word(word: u64) -> Result<Self, Malformed>;
}

impl Param for u64 {
    #[inline]
    fn to_word(self) -> u64 {
        self
    }
    #[inline]
    fn from_word(word: u64) -> Result<Self, Malformed> {
        Ok(word)
    }
}

impl Param for u32 {
    #[inline]
    fn to_word(self) -> u64 {
        u64::from(self)
    }
    #[inline]
    fn from_word(word: u64) -> Result<Self, Malformed> {
        Self::try_from(word).map_err(|_| Malformed)
    }
}

impl Param for Token {
    #[inline]
    fn to_word(self) -> u64 {
        Token::to_word(self)
    }
    #[inline]
    fn from_word(word: u64) -> Result<Self, Malformed> {
        Ok(Token::from_word(word))
    }
}

/// A range of the I/O arena. Whether it lies inside is the host's to check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buf {
    /// Bytes from the arena's start.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Buf {
    /// Whether it lies inside an arena of `len` bytes.
    #[inline]
    #[must_use]
    pub const fn lies_in(self, len: u64) -> bool {
        // Two numbers of 32 bits: the sum does not overflow.
        self.offset as u64 + self.len as u64 <= len
    }

    /// Its first `most` bytes, or all of them.
    #[inline]
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        Self {
            len: self.len.min(u32::try_from(most).unwrap_or(u32::MAX)),
            ..self
        }
    }

    /// What follows its first `count` bytes, which may be nothing. For one that lies in an arena.
    #[inline]
    #[must_use]
    pub fn behind(self, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(self.len);
        Self {
            offset: self.offset + count,
            len: self.len - count,
        }
    }
}

impl Param for Buf {
    #[inline]
    fn to_word(self) -> u64 {
        u64::from(self.len) << 32 | u64::from(self.offset)
    }
    #[inline]
    fn arena_bytes(self) -> u32 {
        self.len
    }
    #[inline]
    fn from_word(word: u64) -> Result<Self, Malformed> {
        Ok(Self {
            offset: word as u32,
            len: (word >> 32) as u32,
        })
    }
}

/// Names an open resource of the sandbox. Given out by the host, never reused soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u32);

impl Param for Handle {
    #[inline]
    fn to_word(self) -> u64 {
        u64::from(self.0)
    }
    #[inline]
    fn from_word(word: u64) -> Result<Self, Malformed> {
        u32::from_word(word).map(Self)
    }
}

/// Declares an enum that travels in one parameter word.
macro_rules! param_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $code,)*
        }

        impl Param for $name {
            #[inline]
            fn to_word(self) -> u64 {
                self as u64
            }
            #[inline]
            fn from_word(word: u64) -> Result<Self, Malformed> {
                match word {
                    $($code => Ok(Self::$variant),)*
                    _ => Err(Malformed),
                }
            }
        }
    };
}

param_enum! {
    /// A standard stream that takes output.
    Stream {
        /// Standard output.
        Out = 1,
        /// Standard error.
        Err = 2,
    }
}

param_enum! {
    /// Which direction of a connection to shut down.
    Shutdown {
        /// No more reads.
        Read = 0,
        /// No more writes: the peer reads to its end.
        Write = 1,
        /// Neither.
        Both = 2,
    }
}

param_enum! {
    /// How much is to be done before an operation ends.
    Amount {
        /// What can be at once, at least a byte.
        Some = 0,
        /// All of it. A host that does not know this does some.
        All = 1,
    }
}

param_enum! {
    /// Which end of a socket.
    End {
        /// This side.
        Local = 0,
        /// The other side.
        Peer = 1,
    }
}

param_enum! {
    /// A setting of a socket.
    SocketOption {
        /// Whether small writes leave at once (1) or wait for company (0).
        NoDelay = 1,
        /// Seconds without traffic after which the peer is asked whether it is still there, and
        /// between two such questions; zero never asks.
        KeepAlive = 2,
    }
}

param_enum! {
    /// What a symbolic link at the end of a path stands for.
    Follow {
        /// Itself.
        No = 0,
        /// What it points to.
        Yes = 1,
    }
}

param_enum! {
    /// What has to be on the disk before an operation is done.
    Sync {
        /// The file's bytes, and what is needed to read them.
        Data = 0,
        /// All of it.
        All = 1,
    }
}

param_enum! {
    /// What a [`CallHeader`](super::CallHeader) announces.
    CallKind {
        /// A call.
        Call = 0,
        /// Its caller no longer waits for it.
        Cancel = 1,
        /// A call whose arguments and result are JSON text: for callers without the types.
        Json = 2,
        /// A call whose arguments are typed: the record of their types follows them, as the crate
        /// `wakebox-typed` makes it.
        Typed = 3,
        /// Not a call: the result is to be the types of the function, in words.
        Signature = 4,
    }
}

param_enum! {
    /// What a guest gives a function of the host.
    CallForm {
        /// Arguments.
        Plain = 0,
        /// Typed arguments, as [`CallKind::Typed`]; the result, or each item of a stream, is to be
        /// typed too.
        Typed = 1,
        /// Nothing: the result is to be the types of the function, in words.
        Signature = 2,
        /// JSON text, and so is the result. A function that takes nothing else answers the other forms with
        /// [`Status::WantsJson`](crate::status::Status::WantsJson).
        Json = 3,
        /// Bytes that mean something to the two sides alone, and so is the result.
        Bytes = 4,
    }
}

param_enum! {
    /// What a [`Reply`](super::Reply) holds.
    ReplyKind {
        /// The last part of the result, or all of it.
        Result = 0,
        /// A part of the result; more follow.
        Part = 1,
        /// Nothing: there is no function of that name.
        NoSuchFunction = 2,
        /// The arguments are not what the function takes: its types, in words, or nothing.
        BadInput = 3,
        /// As `Result`, and at its end the record of its types.
        Typed = 4,
        /// The last part of an item, or all of it, of a function that gives a stream; in the form in which the
        /// function was called. The operation ends when the caller has room for more.
        Item = 5,
        /// Nothing: the stream has ended.
        End = 6,
    }
}
