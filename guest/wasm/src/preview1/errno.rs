//! The error numbers of preview 1.

use wakebox_guest::io::Status;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Errno {
    Badf = 8,
    Busy = 10,
    Dquot = 19,
    Exist = 20,
    Fault = 21,
    Fbig = 22,
    Ilseq = 25,
    Inval = 28,
    Io = 29,
    Isdir = 31,
    Loop = 32,
    Mfile = 33,
    Noent = 44,
    Nomem = 48,
    Nospc = 51,
    Notdir = 54,
    Notempty = 55,
    Notsock = 57,
    Notsup = 58,
    Perm = 63,
    Rofs = 69,
    Spipe = 70,
    Xdev = 75,
}

impl From<Status> for Errno {
    fn from(status: Status) -> Self {
        match status {
            Status::PermissionDenied => Self::Perm,
            Status::Unsupported => Self::Notsup,
            Status::InvalidInput => Self::Inval,
            Status::BadHandle => Self::Badf,
            Status::LimitReached => Self::Mfile,
            Status::NotFound => Self::Noent,
            Status::AlreadyExists => Self::Exist,
            Status::IsADirectory => Self::Isdir,
            Status::NotADirectory => Self::Notdir,
            Status::DirectoryNotEmpty => Self::Notempty,
            Status::ReadOnly => Self::Rofs,
            Status::StorageFull => Self::Nospc,
            Status::FileTooLarge => Self::Fbig,
            Status::InvalidData => Self::Ilseq,
            Status::OutOfMemory => Self::Nomem,
            Status::Busy => Self::Busy,
            Status::CrossesDevices => Self::Xdev,
            Status::TooManyLinks => Self::Loop,
            Status::QuotaExceeded => Self::Dquot,
            _ => Self::Io,
        }
    }
}
