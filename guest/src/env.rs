//! What the guest was started with.

use wakebox_abi::boot::Range;

use crate::runtime::runtime;

/// The arguments that the guest was started with. The name of the program is not among them.
pub fn args() -> impl Iterator<Item = &'static str> {
    strings(runtime().boot.args)
}

/// The value of an environment variable.
#[must_use]
pub fn var(name: &str) -> Option<&'static str> {
    vars().find_map(|(key, value)| (key == name).then_some(value))
}

/// All environment variables with their values.
pub fn vars() -> impl Iterator<Item = (&'static str, &'static str)> {
    strings(runtime().boot.env).filter_map(|string| string.split_once('='))
}

/// The strings of a range of the boot pages.
fn strings(range: Range) -> impl Iterator<Item = &'static str> {
    let start = core::ptr::with_exposed_provenance::<u8>(range.start as usize);
    let bytes: &'static [u8] = if range.len == 0 {
        &[]
    } else {
        // SAFETY: the boot page names a range that is mapped read-only, for ever.
        unsafe { core::slice::from_raw_parts(start, range.len as usize) }
    };
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
        let start = bytes.as_ptr().expose_provenance() as u64;
        let len = bytes.len() as u64;
        strings(Range { start, len }).collect()
    }

    #[test]
    fn strings_end_at_their_zeros_and_may_be_empty() {
        assert_eq!(read(b""), [""; 0]);
        assert_eq!(read(b"\0"), [""]);
        assert_eq!(read(b"one\0\0three\0"), ["one", "", "three"]);
    }
}
