//! Input, output and their errors.

#[cfg(feature = "embedded-io-async")]
mod embedded;
mod error;
mod reader;
mod stdin;

#[cfg(feature = "embedded-io-async")]
pub use self::embedded::BufReader;
pub use self::error::{Error, Result};
pub(crate) use self::reader::Reader;
pub(crate) use self::stdin::Stdin;
pub use self::stdin::{LINE_MAX, Lines, StdinHandle, stdin};
pub use crate::buf::IoBuf;
pub use crate::console::{write_stderr, write_stdout};
pub use wakebox_abi::status::Status;
