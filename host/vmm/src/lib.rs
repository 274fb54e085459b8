//! The machines of Wakebox: a guest's memory, the processor that runs it, and why that was left, on
//! KVM.
//!
//! This crate knows no operations, no policy, no observer and no file of a guest: what a guest is made
//! of is given to it as [pages](plan::Pages), and whoever enters a processor is told by a value why it
//! was left ([`vcpu::Exit`]). It is a part of the library `wakebox`, and its interface changes with
//! that.
//!
//! [`plan`] says what lies where, [`memory`] is that, made of a [`backing`]. [`machine`] and [`vcpu`]
//! run it, and [`shutdown`] looks at a processor that gave up. [`kick`], [`signal`] and [`ticker`] make
//! a processor leave its guest. What is x86 about all of them lies in [`x86_64`].

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

pub mod backing;
pub mod clock;
mod counter;
mod detached;
mod error;
pub mod frozen;
mod hot;
mod image;
mod ioctl;
pub mod kick;
pub mod machine;
pub mod machines;
pub mod memory;
mod pages;
pub mod plan;
mod primitives;
pub mod process;
pub mod shutdown;
pub mod signal;
pub mod system;
pub mod thread;
pub mod ticker;
pub mod vcpu;
pub mod violation;
pub mod x86_64;

pub use error::{Error, Result};
