//! What a guest is told of an error of the host's.

use std::io;

use wakebox_abi::status::Status;

/// The status that tells a guest of an error.
pub(crate) fn status_of(error: &io::Error) -> Status {
    use io::ErrorKind as Kind;
    if let Some(status) = error.get_ref().and_then(|error| error.downcast_ref()) {
        // One that this program has put there.
        return *status;
    }
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => {
            return Status::OutOfMemory;
        }
        Some(libc::EADDRNOTAVAIL) => return Status::AddrNotAvailable,
        Some(libc::EAFNOSUPPORT | libc::ENAMETOOLONG) => return Status::InvalidInput,
        Some(libc::EBADF) => return Status::BadHandle,
        Some(libc::EDESTADDRREQ) => return Status::NotConnected,
        Some(libc::ELOOP) => return Status::TooManyLinks,
        Some(libc::EMSGSIZE) => return Status::MessageTooLarge,
        Some(libc::ETXTBSY) => return Status::Busy,
        Some(libc::EXDEV) => return Status::CrossesDevices,
        _ => {}
    }
    match error.kind() {
        Kind::NotFound => Status::NotFound,
        Kind::PermissionDenied => Status::PermissionDenied,
        Kind::ConnectionRefused => Status::ConnectionRefused,
        Kind::ConnectionReset => Status::ConnectionReset,
        Kind::ConnectionAborted => Status::ConnectionAborted,
        Kind::NotConnected => Status::NotConnected,
        Kind::AddrInUse => Status::AddrInUse,
        Kind::AddrNotAvailable => Status::AddrNotAvailable,
        Kind::NetworkUnreachable | Kind::NetworkDown => Status::NetworkUnreachable,
        Kind::HostUnreachable => Status::HostUnreachable,
        Kind::BrokenPipe | Kind::WriteZero => Status::BrokenPipe,
        Kind::TimedOut => Status::TimedOut,
        Kind::AlreadyExists => Status::AlreadyExists,
        Kind::IsADirectory => Status::IsADirectory,
        Kind::NotADirectory => Status::NotADirectory,
        Kind::DirectoryNotEmpty => Status::DirectoryNotEmpty,
        Kind::ReadOnlyFilesystem => Status::ReadOnly,
        Kind::StorageFull | Kind::QuotaExceeded => Status::StorageFull,
        Kind::FileTooLarge => Status::FileTooLarge,
        Kind::InvalidInput => Status::InvalidInput,
        Kind::InvalidData => Status::InvalidData,
        Kind::UnexpectedEof => Status::UnexpectedEof,
        Kind::OutOfMemory => Status::OutOfMemory,
        Kind::ResourceBusy => Status::Busy,
        Kind::Unsupported => Status::Unsupported,
        _ => Status::Other,
    }
}
