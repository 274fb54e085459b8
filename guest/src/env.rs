//! What the guest was started with, or restored with: a sandbox that is made of a template has arguments
//! and an environment of its own.

use alloc::vec::Vec;

use wakebox_abi::boot::Range;

use crate::mask;
use crate::runtime::runtime;

/// The arguments that the guest was started or last restored with. The name of the program is not among them.
pub fn args() -> impl Iterator<Item = &'static str> {
    strings(words().args)
}

/// The value of an environment variable.
#[must_use]
pub fn var(name: &str) -> Option<&'static str> {
    vars().find_map(|(key, value)| (key == name).then_some(value))
}

/// All environment variables with their values.
pub fn vars() -> impl Iterator<Item = (&'static str, &'static str)> {
    strings(words().env).filter_map(|string| string.split_once('='))
}

/// Arguments and environment of one instance.
///
/// These are copies, which are never freed: what a program has been given stays as it is while the
/// host puts other words in their place. A restore begins with the memory of its template, so there is
/// one copy for each template on the way to this sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words {
    /// Of which instance.
    generation: [u64; 2],
    args: &'static [u8],
    env: &'static [u8],
}

/// The words of now.
fn words() -> Words {
    let runtime = runtime();
    let _masked = mask::mask();
    let generation = runtime.instance.generation();
    match runtime.words.get() {
        Some(words) if words.generation == generation => words,
        _ => {
            let identity = runtime.instance.read();
            let words = Words {
                generation,
                args: copy(identity.args),
                env: copy(identity.env),
            };
            runtime.words.set(Some(words));
            words
        }
    }
}

/// A copy of what an instance names.
fn copy(range: Range) -> &'static [u8] {
    if range.len == 0 {
        return &[];
    }
    let start = core::ptr::with_exposed_provenance::<u8>(range.start as usize);
    // SAFETY: the instance page names a range that is mapped for ever, and changes only while the
    // guest sleeps, which it does not before the copy is made.
    let bytes = unsafe { core::slice::from_raw_parts(start, range.len as usize) };
    Vec::leak(bytes.to_vec())
}

/// The strings in these bytes.
fn strings(bytes: &'static [u8]) -> impl Iterator<Item = &'static str> {
    let without_last = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    without_last
        .split(|&byte| byte == 0)
        .filter(move |_| !bytes.is_empty())
        .map(|string| core::str::from_utf8(string).unwrap_or("\u{FFFD}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Vec<&'static str> {
        strings(bytes).collect()
    }

    #[test]
    fn strings_end_at_their_zeros_and_may_be_empty() {
        assert_eq!(read(b""), [""; 0]);
        assert_eq!(read(b"\0"), [""]);
        assert_eq!(read(b"one\0\0three\0"), ["one", "", "three"]);
    }
}
