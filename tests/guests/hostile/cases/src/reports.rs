//! Last words made to harm who reads them: lengths that lie, bytes that are no text, and text that
//! would move somebody's cursor.

use wakebox_abi::memory::Word;
use wakebox_abi::{layout, port, report};

use crate::case::{Args, Case, End, Modes};
use crate::guest::Guest;

/// Offsets of the page's lengths and of what they measure (`wakebox_abi::report`).
const LENGTHS: [u64; 4] = [0, 4, 8, 12];
const TASK: u64 = 288;
const FILE: u64 = 384;
const MESSAGE: u64 = 896;

fn word(at: u64, value: u32) {
    // SAFETY: the page is mapped for ever, and the offset lies in it.
    unsafe { ((layout::REPORT + at) as *mut u32).write_volatile(value) };
}

fn bytes(at: u64, bytes: &[u8]) {
    for (offset, byte) in bytes.iter().enumerate() {
        // SAFETY: as above.
        unsafe {
            ((layout::REPORT + at) as *mut u8)
                .add(offset)
                .write_volatile(*byte)
        };
    }
}

/// Text that must not reach a terminal as it is, and what comes of it.
pub(crate) const TEXTS: &[(&str, &[u8], &str)] = &[
    ("plain", b"plain", "plain"),
    ("clear-screen", b"\x1B[2Jx", "\\u{1b}[2Jx"),
    ("title", b"\x1B]0;owned\x07", "\\u{1b}]0;owned\\u{7}"),
    (
        "link",
        b"\x1B]8;;http://x\x1B\\y",
        "\\u{1b}]8;;http://x\\u{1b}\\y",
    ),
    ("device-control", b"\x1BP+q\x1B\\", "\\u{1b}P+q\\u{1b}\\"),
    ("eight-bit-controls", b"\xC2\x9B2J", "\\u{9b}2J"),
    ("raw-eight-bit-controls", b"\x9B2J", "\u{FFFD}2J"),
    ("backspace", b"a\x08b", "a\\u{8}b"),
    ("carriage-return", b"a\rb", "a\\rb"),
    ("nul", b"a\0b", "a\\u{0}b"),
    ("delete", b"a\x7Fb", "a\\u{7f}b"),
    ("turned-around", b"a\xE2\x80\xAEb", "a\\u{202e}b"),
    ("isolated", b"a\xE2\x81\xA6b", "a\\u{2066}b"),
    ("invisible", b"a\xE2\x80\x8Bb", "a\\u{200b}b"),
    ("separators", b"a\xE2\x80\xA8b", "a\\u{2028}b"),
    ("not-utf8", b"\xFF\xFE\xC0", "\u{FFFD}\u{FFFD}\u{FFFD}"),
    ("surrogate", b"\xED\xA0\x80", "\u{FFFD}\u{FFFD}\u{FFFD}"),
    ("cut-off", b"a\xE2\x82", "a\u{FFFD}"),
];

/// A text in all three places.
fn text(guest: &mut Guest, [which, ..]: Args) {
    let (_, text, _) = TEXTS[which as usize];
    for (length, place) in [(0, MESSAGE), (4, FILE), (12, TASK)] {
        word(length, text.len() as u32);
        bytes(place, text);
    }
    guest.ring(port::ABORT);
}

/// The page full of a byte, with these lengths.
fn lengths(guest: &mut Guest, [byte, length, ..]: Args) {
    for at in 0..report::SIZE as u64 {
        bytes(at, &[byte as u8]);
    }
    for at in LENGTHS {
        word(at, length as u32);
    }
    guest.ring(port::ABORT);
}

/// Writes the page on and on, with other content each time, while the host may read it.
fn scribble(guest: &mut Guest, _: Args) {
    for round in 0..50_u32 {
        for at in (0..report::SIZE as u64).step_by(4) {
            word(at, round.wrapping_mul(0x9E37_79B9));
        }
    }
    word(0, 0);
    guest.ring(port::ABORT);
}

/// An end with a code.
fn code(guest: &mut Guest, [code, ..]: Args) {
    guest.set(Word::ExitCode, code as u32);
    guest.end();
}

/// Standard output and error full of what a terminal would obey: they are the guest's own streams,
/// and arrive as they are.
fn console(guest: &mut Guest, _: Args) {
    use wakebox_abi::op::{Stream, WriteConsole};
    use wakebox_abi::status::Status;
    let from = guest.arena(0x1000, b"\x1B[2J\x1B]0;owned\x07\xFF\0\r\n");
    for stream in [Stream::Out, Stream::Err] {
        assert_eq!(
            guest.call(WriteConsole { stream, from }),
            (Status::Ok, from.len)
        );
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (index, (name, _, seen)) in TEXTS.iter().enumerate() {
        let case = Case::new(
            "reports",
            format_args!("text-{name}"),
            text,
            End::Panic(seen),
        );
        visit(case.with([index as u64, 0, 0, 0]));
    }
    for (name, byte, length, seen) in [
        ("nothing", 0, 0, ""),
        ("zeroes-max", 0, u64::from(u32::MAX), "\\u{0}"),
        ("ones-max", 0xFF, u64::from(u32::MAX), "\u{FFFD}"),
        ("ones-none", 0xFF, 0, ""),
        ("text-sign", b'a'.into(), 1 << 31, "aaaa"),
        ("text-over", b'a'.into(), 3201, "aaaa"),
        ("escapes-max", 0x1B, u64::from(u32::MAX), "\\u{1b}"),
    ] {
        let case = Case::new(
            "reports",
            format_args!("lengths-{name}"),
            lengths,
            End::Panic(seen),
        );
        visit(case.with([byte, length, 0, 0]).modes(Modes::All));
    }
    visit(Case::new("reports", "scribble", scribble, End::Panic("")).modes(Modes::All));
    for value in [0, 1, 255, 256, -1, i32::MIN, i32::MAX] {
        let case = Case::new(
            "reports",
            format_args!("exit-{value}"),
            code,
            End::Exit(value),
        );
        visit(case.with([value as u32 as u64, 0, 0, 0]));
    }
    visit(Case::new("reports", "console", console, End::Exit(0)).modes(Modes::All));
}
