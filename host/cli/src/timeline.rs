//! `wakebox timeline`: the page of a run that was recorded before.

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::output::{Outputs, Readers};
use super::say::{remark, say};
use super::streams;

use wakebox::trace::{Sink as _, timeline};
use wakebox::units;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  wakebox run target/release/hello --trace run.json
  wakebox timeline run.json               # writes run.html")]
pub(super) struct Args {
    /// A trace that `wakebox run --trace` wrote; `-` is standard input
    file: PathBuf,

    /// Where the page goes; `-` is standard output [default: beside the trace, with the ending `.html`]
    page: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let file = || args.file.display().to_string();
    // Before the page is opened: a file that is no trace leaves an older page as it is.
    let mut trace = streams::trace(&args.file).with_context(file)?;
    let beside = || match streams::is_standard(&args.file) {
        true => args.file.clone(),
        false => args.file.with_extension("html"),
    };
    let path = args.page.clone().unwrap_or_else(beside);
    let mut outputs = Outputs::besides([(&*args.file, "the trace")]);
    let page = outputs.open(&path, Readers::Usual, "the timeline")?;
    outputs.seal()?;
    let mut unread = None;
    page.write(|page| {
        let mut writer = timeline::Writer::new(BufWriter::new(page));
        for event in trace.by_ref() {
            match event {
                Ok(event) => writer.event(&event)?,
                Err(error) => {
                    unread = Some(error);
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        writer.end()
    })
    .or_else(|error| match unread {
        Some(unread) => Err(unread).with_context(file),
        None => Err(error),
    })?;

    let events = units::count(trace.events_read());
    let end = match trace.is_whole() {
        true => "",
        false => "; the trace ends before the run did",
    };
    match streams::is_standard(&path) {
        true => remark!("{events} events{end}"),
        false => say!("{}: {events} events{end}", path.display()),
    }
    Ok(ExitCode::SUCCESS)
}
