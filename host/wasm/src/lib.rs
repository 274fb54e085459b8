//! WebAssembly components, and core modules with WASI preview 1, as guests.
//!
//! ```no_run
//! # fn example() -> anyhow::Result<()> {
//! let component = std::fs::read("app.wasm")?;
//! let image = wakebox_wasm::image(&component)?;      // for `Sandbox::builder().guest_bytes(image)`
//! # Ok(())
//! # }
//! ```
//!
//! A component is compiled ahead of time, on the host, and its code becomes segments of the image behind
//! those of the runtime guest: `r-x` pages that nobody ever writes. It runs in ring 3 with the rights of
//! any guest, so it needs no more trust than one. What compiles it does: compile what a stranger wrote in
//! a process of its own with limits, as the command `wakebox-wasm` does.

mod attach;
mod cache;
mod compile;
mod component;
// What both sides of an image agree on.
#[path = "../../../guest/wasm/src/head.rs"]
mod head;
mod inspect;
#[path = "../../cli/src/known.rs"]
mod known;

pub use self::cache::{Cache, read_component};
pub use self::compile::{Bounds, compile, compile_with};
pub use self::component::component;
pub use self::inspect::inspect;

/// The runtime guest, which is built with this crate.
pub const RUNTIME: &[u8] = include_bytes!(env!("WAKEBOX_WASM_RUNTIME"));

/// The guest that runs a component or a core module, given in binary or as text.
///
/// # Errors
///
/// As [`compile`]; if the compiled code is too large for a guest's image.
pub fn image(component: &[u8]) -> anyhow::Result<Vec<u8>> {
    image_with(component, Bounds::default())
}

/// The same, with code that sees to bounds so.
///
/// # Errors
///
/// As [`image()`].
pub fn image_with(component: &[u8], bounds: Bounds) -> anyhow::Result<Vec<u8>> {
    attach::attach(RUNTIME, &compile_with(component, bounds)?, bounds)
}
