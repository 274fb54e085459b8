//! A trace as one page of HTML that needs nothing else: neither network nor server.
//!
//! The page is `timeline/page.html` with its style and its program; behind it stand the events, one a
//! line, as JSON. A page that was cut off shows what there is of it, because its program stands
//! before its data.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::event::Event;
use super::sink::Sink;
use super::summary::Summary;

/// Most events of a page, unless it is said: a browser still pans through twice as many.
pub const EVENTS: u64 = 500_000;

/// The page up to its data. The marks are replaced by the files beside it.
const PAGE: &str = include_str!("timeline/page.html");
const STYLE: &str = include_str!("timeline/style.css");
const PROGRAM: &str = include_str!("timeline/timeline.js");

/// The marks in `page.html`.
const STYLE_MARK: &str = "/* style.css */";
const PROGRAM_MARK: &str = "/* timeline.js */";

/// Writes a page.
///
/// What the guest wrote (names, messages) cannot leave the block of data: `<` is written as
/// `\u003c`, and the page's program puts text into the document only as text.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    line: Vec<u8>,
    begun: bool,
    most: u64,
    summary: Summary,
}

impl Writer<BufWriter<File>> {
    /// A writer of a file, which is emptied if it is there.
    ///
    /// # Errors
    ///
    /// What opening it says.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let file = File::create(path)?;
        Ok(Self::new(BufWriter::with_capacity(1 << 16, file)))
    }
}

impl<W: Write> Writer<W> {
    /// A writer to anything. It makes small writes: give it something buffered.
    pub fn new(out: W) -> Self {
        Self {
            out,
            line: Vec::new(),
            begun: false,
            most: EVENTS,
            summary: Summary::new(),
        }
    }

    /// With at most so many events on the page; of the later ones it only has the numbers.
    #[must_use]
    pub const fn most(mut self, events: u64) -> Self {
        self.most = events;
        self
    }

    fn begin(&mut self) -> io::Result<()> {
        self.begun = true;
        let mut rest = PAGE;
        for (mark, content) in [(STYLE_MARK, STYLE), (PROGRAM_MARK, PROGRAM)] {
            let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
            self.out.write_all(before.as_bytes())?;
            self.out.write_all(content.as_bytes())?;
            rest = after;
        }
        self.out.write_all(rest.trim_end().as_bytes())?;
        self.out
            .write_all(b"\n<script type=\"application/x-ndjson\" id=\"trace\">\n")
    }

    /// A line of data.
    fn line(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value)?;
        self.line.push(b'\n');
        // In JSON `<` stands only in strings.
        let mut pieces = self.line.split(|byte| *byte == b'<');
        self.out.write_all(pieces.next().unwrap_or_default())?;
        for piece in pieces {
            self.out.write_all(b"\\u003c")?;
            self.out.write_all(piece)?;
        }
        Ok(())
    }
}

/// The end of a poll that [`Summary::spurious`] counts, and what tells the page so.
#[derive(serde::Serialize)]
struct InVain<'a> {
    #[serde(flatten)]
    event: &'a Event,
    in_vain: bool,
}

impl<W: Write + Send> Sink for Writer<W> {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        if !self.begun {
            self.begin()?;
        }
        let before = self.summary.spurious;
        self.summary.count(event);
        if self.summary.events > self.most {
            return Ok(());
        }
        match self.summary.spurious > before {
            true => self.line(&InVain {
                event,
                in_vain: true,
            }),
            false => self.line(event),
        }
    }

    fn caught_up(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begin()?;
        }
        let left_out = self.summary.events.saturating_sub(self.most);
        let mut summary = std::mem::take(&mut self.summary);
        // The page counts for each task itself.
        summary.tasks.clear();
        self.line(&serde_json::json!({ "summary": summary, "left_out": left_out }))?;
        self.out.write_all(b"</script>\n</body>\n</html>\n")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cause, EventKind, PollResult, Side, TaskId};

    fn spawned(name: &str) -> Event {
        Event {
            time: 1,
            side: Side::Guest,
            processor: 0,
            kind: EventKind::Spawned {
                task: TaskId(1),
                by: None,
                name: name.into(),
                location: None,
            },
        }
    }

    fn page(events: &[Event], most: u64) -> String {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes).most(most);
        for event in events {
            writer.event(event).unwrap();
        }
        writer.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// Its data, line by line.
    fn data(page: &str) -> Vec<serde_json::Value> {
        let (_, data) = page.split_once("id=\"trace\">\n").unwrap();
        let (data, end) = data.split_once("</script>").unwrap();
        assert_eq!(end, "\n</body>\n</html>\n");
        data.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_name_cannot_leave_the_data() {
        let name = "</script><script>alert(1)</script><!--";
        let page = page(&[spawned(name)], 10);
        let lines = data(&page);
        assert_eq!(lines[0]["kind"]["spawned"]["name"], name);
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn events_beyond_the_most_are_counted_and_left_out() {
        let page = page(&[spawned("a"), spawned("b"), spawned("c")], 2);
        let lines = data(&page);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2]["left_out"], 1);
        assert_eq!(lines[2]["summary"]["events"], 3);
    }

    #[test]
    fn the_end_of_a_poll_in_vain_says_so() {
        let task = TaskId(1);
        let result = PollResult::Pending { on: None, and: 0 };
        let wake = EventKind::Woken {
            task,
            by: Cause::Itself,
            queued: true,
            consumed: false,
        };
        let (begin, end) = (
            EventKind::PollBegin { task },
            EventKind::PollEnd { task, result },
        );
        let kinds = [begin.clone(), end.clone(), wake, begin, end];
        let side = Side::Guest;
        let events = kinds.map(|kind| Event {
            time: 1,
            side,
            processor: 0,
            kind,
        });
        let lines = data(&page(&events, 10));
        let said: Vec<_> = lines.iter().map(|line| &line["in_vain"]).collect();
        assert_eq!(lines[4]["kind"], lines[1]["kind"]);
        assert!(said[..4].iter().all(|said| said.is_null()));
        assert_eq!(said[4], true);
    }

    #[test]
    fn the_page_names_no_other_place() {
        let page = page(&[], 0);
        for attribute in ["src=", "href=", "url(", "@import", "fetch(", "http"] {
            assert!(!page.contains(attribute), "the page has `{attribute}`");
        }
        assert!(!page.contains(STYLE_MARK) && !page.contains(PROGRAM_MARK));
    }
}
