//! The page of `--timeline` in a browser: how soon it is there, and how it moves.

use std::fs::File;
use std::io::BufWriter;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use fantoccini::wd::TimeoutConfiguration;
use tokio::runtime::Runtime;
use wakebox::trace::{Sink, timeline};
use wakebox_tests::browser::Browser;
use wakebox_tests::{made_up, programs};

use crate::table::{Bar, Row, Unit, median};

/// Events of the page.
const EVENTS: usize = 200_000;
/// As many as one sees at once, whose rows are full then; and a long list of them.
const TASKS: [u32; 2] = [40, 10_000];
/// How often each page is opened and moved.
const ROUNDS: usize = 3;
/// Nanoseconds in which a page of them is to be drawn, from the moment at which the browser sets out.
const OPENS: f64 = 3e9;
/// Nanoseconds for which the picture may stand still while one pans and zooms. What answers within
/// 100 ms seems to follow the hand at once; beyond that one waits
/// (<https://www.nngroup.com/articles/response-times-3-important-limits/>).
const STANDS_STILL: f64 = 100e6;
/// For all moves, which take five seconds if every frame is drawn in time.
const PATIENCE: Duration = Duration::from_secs(120);
/// A move a frame, through the page's own handlers; answers with the time between frames in
/// milliseconds.
const MOVES: &str = include_str!("page.js");

/// What a browser said of a page.
#[derive(Default)]
struct Seen {
    opens: Vec<f64>,
    /// Of each round: the middle and the longest time between two frames.
    middles: Vec<f64>,
    longest: Vec<f64>,
}

pub(crate) fn measure(runtime: &Runtime) -> Result<Vec<Row>> {
    for name in ["chromium", "chromedriver"] {
        if let Some(package) = programs::missing(name) {
            bail!("`{name}` is not installed. On Debian: apt-get install {package}");
        }
    }
    let folder = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for tasks in TASKS {
        let path = folder.path().join(format!("{tasks}.html"));
        let mut writer = timeline::Writer::new(BufWriter::new(File::create(&path)?));
        for event in made_up::server(tasks, EVENTS) {
            writer.event(&event)?;
        }
        writer.end()?;
        let mut seen = Seen::default();
        for _ in 0..ROUNDS {
            runtime.block_on(async {
                // A browser that has seen nothing yet, as when one opens a file.
                let browser = Browser::start(1400, 900).await;
                browser.open(&path).await;
                seen.look(&browser).await
            })?;
        }
        let row = |what: &str, nanoseconds| {
            let what = format!("{what}, {EVENTS} events of {tasks} tasks");
            Row::new(what, Unit::Nanoseconds, nanoseconds)
        };
        rows.extend([
            row("page: opened and drawn", median(seen.opens)).bar(Bar::AtMost(OPENS)),
            row(
                "page: longest frame in panning and zooming",
                median(seen.longest),
            )
            .bar(Bar::AtMost(STANDS_STILL)),
            row("    the middle of all frames", median(seen.middles)),
        ]);
    }
    Ok(rows)
}

impl Seen {
    async fn look(&mut self, browser: &Browser) -> Result<()> {
        let drawn = browser.eval("wakebox.drawnAfter").await;
        self.opens.push(drawn.as_f64().context("a time")? * 1e6);
        let patience = TimeoutConfiguration::new(Some(PATIENCE), None, None);
        browser.client.update_timeouts(patience).await?;
        let frames = browser.client.execute_async(MOVES, Vec::new()).await?;
        let said = frames.to_string();
        let frames: Vec<f64> = serde_json::from_value(frames).context(said)?;
        ensure!(frames.len() > 100, "only {} frames", frames.len());
        let longest = frames.iter().copied().fold(0.0, f64::max);
        self.longest.push(longest * 1e6);
        self.middles.push(median(frames) * 1e6);
        Ok(())
    }
}
