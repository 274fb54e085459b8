//! `wakebox timeline`: the page of a run that was recorded before.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use wakebox::trace::json::Reader;
use wakebox::trace::{Sink as _, timeline};
use wakebox::units;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  wakebox run target/release/hello --trace run.json
  wakebox timeline run.json               # writes run.html")]
pub(super) struct Args {
    /// A trace that `wakebox run --trace` wrote
    file: PathBuf,

    /// Where the page goes [default: beside the trace, with the ending `.html`]
    page: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let file = || args.file.display().to_string();
    // Before the page is touched: a file that is no trace leaves an older page as it is.
    let mut trace = Reader::open(&args.file).with_context(file)?;
    let beside = || args.file.with_extension("html");
    let page = args.page.clone().unwrap_or_else(beside);
    ensure!(
        !is_same(&args.file, &page),
        "the page would replace the trace {}; name another file for it",
        page.display()
    );
    let unwritten = || format!("cannot write the timeline to {}", page.display());
    let mut writer = timeline::Writer::create(&page).with_context(unwritten)?;
    for event in trace.by_ref() {
        writer
            .event(&event.with_context(file)?)
            .with_context(unwritten)?;
    }
    writer.end().with_context(unwritten)?;

    let events = units::count(trace.events_read());
    let end = match trace.is_whole() {
        true => "",
        false => "; the trace ends before the run did",
    };
    let said = format!("{}: {events} events{end}\n", page.display());
    // Whoever does not want to read it has the page all the same.
    let _ = std::io::stdout().write_all(said.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Whether two names are those of one file that is there.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}
