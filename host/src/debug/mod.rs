//! What a person needs to find a guest's mistake: where it was ([`backtrace`]), how it came
//! there ([`unwind`]), how those places are called in the source ([`symbols`]), and a file for a
//! debugger ([`dump`]).
//!
//! All of it reads two hostile things: the guest's memory, through checked copies, and the
//! guest's ELF file with its debug information. The latter is read by well-known libraries
//! through a reader that meters them ([`fuel`]): however the tables refer to each other, the
//! work ends, and with it the memory that it takes. Nothing here happens before a guest has
//! ended, and names are looked up only when somebody asks for them.

pub(crate) mod backtrace;
pub(crate) mod dump;
pub(crate) mod elf;
pub(crate) mod fuel;
pub(crate) mod symbols;
pub(crate) mod unwind;
