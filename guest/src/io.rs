//! Input, output and their errors.

mod error;
mod reader;
mod stdin;

pub use self::error::{Error, Result};
pub(crate) use self::reader::Reader;
pub(crate) use self::stdin::Stdin;
pub use self::stdin::{LINE_MAX, Lines, StdinHandle, stdin};
pub use crate::buf::IoBuf;
pub use wakebox_abi::status::Status;
