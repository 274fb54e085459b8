//! How an operation ended.

/// Declares [`Status`] from one table of code, name and sentence.
macro_rules! statuses {
    ($($code:literal $name:ident $text:literal,)*) => {
        /// How an operation ended, as it stands in a completion entry.
        ///
        /// The names are those of `std::io::ErrorKind` where one fits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum Status {
            $(#[doc = concat!("\"", $text, "\"")] $name = $code,)*
        }

        impl Status {
            /// Every status, in the order of the codes.
            pub const ALL: &'static [Status] = &[$(Status::$name,)*];

            /// The status of a code; [`Status::Other`] for one that this version does not know.
            #[must_use]
            pub const fn from_code(code: u32) -> Self {
                match code {
                    $($code => Self::$name,)*
                    _ => Self::Other,
                }
            }

            /// The name, as in the table.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// A short sentence for people, without a full stop.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    0 Ok "done",
    1 Cancelled "the operation was cancelled",
    2 PermissionDenied "the policy or the host does not permit this",
    3 Unsupported "the host does not know this operation",
    4 InvalidInput "a parameter is out of range",
    5 BadHandle "no open resource of this kind has that handle",
    6 LimitReached "a limit of the sandbox is reached",
    7 NotFound "there is no such thing",
    8 ConnectionRefused "the connection was refused",
    9 ConnectionReset "the connection was reset",
    10 ConnectionAborted "the connection was aborted",
    11 NotConnected "the socket is not connected",
    12 AddrInUse "the address is in use",
    13 AddrNotAvailable "the address is not available",
    14 NetworkUnreachable "the network is unreachable",
    15 HostUnreachable "the host is unreachable",
    16 BrokenPipe "the other side is closed",
    17 TimedOut "it took too long",
    18 AlreadyExists "it exists already",
    19 IsADirectory "it is a directory",
    20 NotADirectory "it is not a directory",
    21 DirectoryNotEmpty "the directory is not empty",
    22 ReadOnly "it is read-only",
    23 StorageFull "there is no space left",
    24 FileTooLarge "the file is too large",
    25 InvalidData "the data is not valid",
    26 UnexpectedEof "the data ended early",
    27 OutOfMemory "the host is out of memory or descriptors",
    28 Busy "the resource is busy",
    29 Panicked "the function panicked",
    30 MessageTooLarge "the message is too large",
    31 CrossesDevices "the two are on different file systems",
    32 TooManyLinks "there are too many symbolic links on the way",
    33 QuotaExceeded "a quota of the sandbox is used up",
    34 Restored "the sandbox was restored from a template: what this belonged to does not exist here",
    35 WantsJson "the function takes JSON, and nothing else",
    0xFFFF Other "the host reported an error of another kind",
}

impl Status {
    /// The code in a completion entry.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// `Ok(())` for [`Status::Ok`], else the status as the error.
    ///
    /// # Errors
    ///
    /// The status itself, when it is not [`Status::Ok`].
    pub const fn into_result(self) -> Result<(), Self> {
        match self {
            Self::Ok => Ok(()),
            other => Err(other),
        }
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.text())
    }
}

impl core::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_round_trip() {
        for &status in Status::ALL {
            assert_eq!(Status::from_code(status.code()), status);
        }
        assert_eq!(Status::from_code(0xDEAD), Status::Other);
    }
}
