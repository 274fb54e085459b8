//! A guest's words where a person reads them.

use std::fmt::{self, Write as _};

use strsim::levenshtein;

/// A guest's text as it may appear on somebody's terminal, lines and columns as they are: other control
/// characters and those that mislead are escaped, and what is not UTF-8 is replaced.
pub(crate) fn printable(bytes: &[u8]) -> String {
    escape(&String::from_utf8_lossy(bytes), |c| c == '\n' || c == '\t')
}

/// A guest's text as it may appear in one line of somebody's terminal: control characters and
/// those that reorder what surrounds them are escaped.
#[must_use]
pub fn printable_line(text: &str) -> String {
    escape(text, |_| false)
}

fn escape(text: &str, is_harmless: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !is_harmless(c) || misleads(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Most bytes of a [`Quoted`] text.
const QUOTED_MAX: usize = 512;

/// A guest's words in a line that the host writes to a log or an error: whatever they are, escaped
/// and cut off where they are long. What is said of a guest goes through here or through
/// [`printable_line`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quoted<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut quoting = Quoting {
            to: f,
            left: QUOTED_MAX,
            is_cut: false,
        };
        let written = write!(quoting, "{}", self.0);
        match quoting.is_cut {
            true => f.write_str("..."),
            false => written,
        }
    }
}

/// Escapes what is written, up to where it is cut off.
struct Quoting<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    left: usize,
    is_cut: bool,
}

impl fmt::Write for Quoting<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let Some(left) = self.left.checked_sub(c.len_utf8()) else {
                // Ends the writing, so that no more is made of what is not shown.
                self.is_cut = true;
                return Err(fmt::Error);
            };
            self.left = left;
            if c.is_control() || misleads(c) {
                write!(self.to, "{}", c.escape_default())?;
            } else {
                self.to.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Whether a character changes how others are seen and is not seen itself, which hides what a text
/// says as well as a cursor does: marks of direction (Unicode Standard Annex 9, 2), separators of
/// lines and paragraphs, and what has no width.
fn misleads(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The word of a list that somebody may have meant who wrote another: a slip or two of the fingers away.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let near = |other: &&str| levenshtein(word, other);
    let best = known.iter().copied().min_by_key(near)?;
    (levenshtein(word, best) <= 1 + best.len() / 4).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_one_short_line() {
        let quoted = Quoted("a\x1b[2J\r\n\u{202e}b").to_string();
        assert_eq!(quoted, "a\\u{1b}[2J\\r\\n\\u{202e}b");
        let long = Quoted("é".repeat(1 << 20)).to_string();
        assert_eq!(long, "é".repeat(QUOTED_MAX / 2) + "...");
        let whole = "a".repeat(QUOTED_MAX);
        assert_eq!(Quoted(&whole).to_string(), whole);
    }

    #[test]
    fn last_words_cannot_move_the_cursor() {
        assert_eq!(printable(b"a\x1b[2Jb\xff\n"), "a\\u{1b}[2Jb\u{fffd}\n");
    }

    #[test]
    fn a_slip_of_the_fingers_is_understood() {
        let known = ["memory", "wall-clock", "log", "handles"];
        assert_eq!(nearest("memry", &known), Some("memory"));
        assert_eq!(nearest("wall-clok", &known), Some("wall-clock"));
        assert_eq!(nearest("lgo", &known), None);
        assert_eq!(nearest("lg", &known), Some("log"));
        assert_eq!(nearest("speed", &known), None);
        assert_eq!(nearest(&"m".repeat(1 << 20), &known), None);
        assert_eq!(nearest("x", &[]), None);
    }
}
