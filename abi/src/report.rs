//! A guest's last words: what the report page says when [`crate::port::ABORT`] rings.
//!
//! A panicking guest may have no heap left, so the page has a fixed shape that can be
//! filled without one. The host copies it out whole and reads the copy. Where the guest was, the
//! host reads off its registers and its stack.
//!
//! ```text
//! 0     u32  length of the message       16    u32  line
//! 4     u32  length of the file name     20    u32  column
//! 8     (reserved)                       24    (reserved)
//! 12    u32  length of the task's name
//! 288   task name, at most 96 bytes
//! 384   file name, at most 512 bytes
//! 896   message, at most 3200 bytes
//! ```

use core::fmt;

use crate::layout::PAGE_SIZE;

/// Bytes of the page.
pub const SIZE: usize = PAGE_SIZE as usize;

const TASK: Field = Field {
    len_at: 12,
    at: 288,
    max: 96,
};
const FILE: Field = Field {
    len_at: 4,
    at: 384,
    max: 512,
};
const MESSAGE: Field = Field {
    len_at: 0,
    at: 896,
    max: 3200,
};
const LINE: usize = 16;
const COLUMN: usize = 20;

const _: () = {
    assert!(TASK.at + TASK.max == FILE.at);
    assert!(FILE.at + FILE.max == MESSAGE.at && MESSAGE.at + MESSAGE.max == SIZE);
};

#[derive(Clone, Copy)]
struct Field {
    len_at: usize,
    at: usize,
    max: usize,
}

/// Writes a report page; text that does not fit is cut off.
#[derive(Debug)]
pub struct Writer<'a> {
    page: &'a mut [u8; SIZE],
    message: usize,
}

impl<'a> Writer<'a> {
    /// Starts over on a page.
    pub fn new(page: &'a mut [u8; SIZE]) -> Self {
        page.fill(0);
        Self { page, message: 0 }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, byte) in self.page.iter_mut().skip(at).zip(bytes) {
            *to = *byte;
        }
    }

    fn text(&mut self, field: Field, text: &str) {
        let len = text.floor_char_boundary(field.max);
        self.put(field.at, text.as_bytes().get(..len).unwrap_or_default());
        self.put(field.len_at, &(len as u32).to_le_bytes());
    }

    /// Where it happened.
    pub fn location(&mut self, file: &str, line: u32, column: u32) {
        self.text(FILE, file);
        self.put(LINE, &line.to_le_bytes());
        self.put(COLUMN, &column.to_le_bytes());
    }

    /// In which task.
    pub fn task(&mut self, name: &str) {
        self.text(TASK, name);
    }
}

/// Appends to the message.
impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let len = text.floor_char_boundary(MESSAGE.max - self.message);
        let bytes = text.as_bytes().get(..len).unwrap_or_default();
        self.put(MESSAGE.at + self.message, bytes);
        self.message += len;
        self.put(MESSAGE.len_at, &(self.message as u32).to_le_bytes());
        Ok(())
    }
}

/// Reads a copy of a report page. Any bytes will do: lengths are clamped.
#[derive(Debug)]
pub struct Reader<'a> {
    page: &'a [u8; SIZE],
}

impl<'a> Reader<'a> {
    /// A reader of a page.
    #[must_use]
    pub fn new(page: &'a [u8; SIZE]) -> Self {
        Self { page }
    }

    fn u32(&self, at: usize) -> u32 {
        let bytes = self
            .page
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    }

    fn bytes(&self, field: Field) -> &'a [u8] {
        let len = (self.u32(field.len_at) as usize).min(field.max);
        self.page.get(field.at..field.at + len).unwrap_or_default()
    }

    /// The message, as bytes that may not be UTF-8.
    #[must_use]
    pub fn message(&self) -> &'a [u8] {
        self.bytes(MESSAGE)
    }

    /// The file name, as bytes that may not be UTF-8; empty if unknown.
    #[must_use]
    pub fn file(&self) -> &'a [u8] {
        self.bytes(FILE)
    }

    /// The task's name, as bytes that may not be UTF-8; empty if it had none.
    #[must_use]
    pub fn task(&self) -> &'a [u8] {
        self.bytes(TASK)
    }

    /// Line in the file, from 1; 0 if unknown.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.u32(LINE)
    }

    /// Column in the line, from 1; 0 if unknown.
    #[must_use]
    pub fn column(&self) -> u32 {
        self.u32(COLUMN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn last_words_are_read_as_written() {
        let mut page = [0xAA; SIZE];
        let mut writer = Writer::new(&mut page);
        writer.location("src/main.rs", 12, 5);
        writer.task("fetch-2");
        write!(writer, "index {} out of range", 7).unwrap();
        let reader = Reader::new(&page);
        assert_eq!(reader.message(), b"index 7 out of range");
        assert_eq!(
            (reader.file(), reader.line(), reader.column()),
            (&b"src/main.rs"[..], 12, 5)
        );
        assert_eq!(reader.task(), b"fetch-2");
    }

    #[test]
    fn too_long_a_message_is_cut_at_a_character() {
        let mut page = [0; SIZE];
        let mut writer = Writer::new(&mut page);
        write!(writer, "{}", "é".repeat(3000)).unwrap();
        write!(writer, "more").unwrap();
        let message = Reader::new(&page).message();
        assert_eq!(message.len(), MESSAGE.max);
        assert!(core::str::from_utf8(message).is_ok());
    }

    #[test]
    fn any_bytes_can_be_read() {
        let page = [0xFF; SIZE];
        let reader = Reader::new(&page);
        assert_eq!(reader.message().len(), MESSAGE.max);
        assert_eq!(reader.line(), u32::MAX);
    }
}
