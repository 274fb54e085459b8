//! What a person needs to find a guest's mistake: where it was ([`backtrace`]), how it came
//! there ([`unwind`]), how those places are called in the source ([`symbols`]), and a file for a
//! debugger ([`dump`]).
//!
//! All of it reads two hostile things: the guest's memory, through checked copies, and the
//! guest's ELF file with its debug information ([`crate::elf`], [`dwarf`]). Each step of that costs
//! [fuel](crate::elf::fuel): however the tables refer to each other, the work ends. Nothing recurs
//! over them, and what is kept does not grow with what they say. Nothing here happens before a guest
//! has ended; its calls are looked for then, and their names only when somebody asks for them.

pub(crate) mod backtrace;
pub(crate) mod dump;
pub(crate) mod dwarf;
#[cfg(feature = "gdb")]
pub(crate) mod gdb;
pub(crate) mod symbols;
pub(crate) mod unwind;
