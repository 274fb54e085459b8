//! What went wrong, and with what.

use alloc::boxed::Box;
use core::fmt;

use wakebox_abi::status::Status;

/// What went wrong with an operation, and with which one.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    status: Status,
    /// What was tried, as in "connect to 127.0.0.1:9".
    what: Option<Box<str>>,
}

/// The result of an operation.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// An error with what was tried, as in "connect to 127.0.0.1:9".
    #[must_use]
    pub fn new(status: Status, what: impl Into<Box<str>>) -> Self {
        Self {
            status,
            what: Some(what.into()),
        }
    }

    /// What went wrong, for a program.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self { status, what: None }
    }
}

/// Says what was tried when a status becomes an error.
pub(crate) trait Context<T> {
    /// `what` is put before the status's own text.
    fn context(self, what: impl FnOnce() -> alloc::string::String) -> Result<T>;
}

impl<T> Context<T> for core::result::Result<T, Status> {
    fn context(self, what: impl FnOnce() -> alloc::string::String) -> Result<T> {
        self.map_err(|status| Error::new(status, what()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(what) = &self.what {
            write!(f, "{what}: ")?;
        }
        self.status.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({self})", self.status)
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_was_tried() {
        let error = Error::new(Status::ConnectionRefused, "connect to 127.0.0.1:9");
        assert_eq!(
            format!("{error}"),
            "connect to 127.0.0.1:9: the connection was refused"
        );
        assert_eq!(
            format!("{:?}", Error::from(Status::BrokenPipe)),
            "BrokenPipe (the other side is closed)"
        );
    }
}
