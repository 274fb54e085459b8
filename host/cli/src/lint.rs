//! `wakebox lint`, and what it says.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use super::say::{note, try_to_output};
use super::streams;
use super::style::Style;
use wakebox::printable_line;
use wakebox::trace::lint::{Finding, Lint, Report, Thresholds};
use wakebox::units;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 if nothing was found, 1 if something was, 2 if the file cannot be read or what \
was found cannot be written. Example:
  wakebox run target/release/hello --trace run.json
  wakebox lint run.json")]
pub(super) struct Args {
    /// A trace that `wakebox run --trace` wrote; `-` is standard input
    file: PathBuf,

    /// Print what was found in JSON
    #[arg(long)]
    json: bool,

    /// A poll that computes for longer is a finding
    #[arg(long, value_name = "DUR", default_value = "50ms", value_parser = duration)]
    long_poll: Duration,

    /// More wakes of a task than this between two of its polls are
    #[arg(long, value_name = "N", default_value_t = Thresholds::default().wakes)]
    wake_storm: u64,

    /// More polls in vain than this are, in percent of a task's polls
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    spurious: u8,

    /// ... of tasks with at least so many polls
    #[arg(long, value_name = "N", default_value_t = Thresholds::default().spurious_polls)]
    spurious_polls: u64,

    /// ... which are no longer than this on average
    #[arg(long, value_name = "DUR", default_value = "20us", value_parser = duration)]
    spurious_length: Duration,

    /// More polls in a row than this, of tasks that wake each other while nothing else happens, are
    #[arg(long, value_name = "N", default_value_t = Thresholds::default().circle)]
    wake_circle: u64,

    /// A timer that polls make later than this is, or the host ten times later
    #[arg(long, value_name = "DUR", default_value = "100ms", value_parser = duration)]
    late_timer: Duration,

    /// A task that waited for longer than this for something of the guest's own making when the run
    /// ended is [default: never]
    #[arg(long, value_name = "DUR", value_parser = duration)]
    unwoken: Option<Duration>,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 20us, 10ms or 2s"))
}

/// Exit status when the file cannot be read, or nothing be said of it: to be told from findings.
const UNREADABLE: u8 = 2;

pub(super) fn run(args: &Args) -> ExitCode {
    let is_json = args.json;
    let report = match look(args) {
        Ok(report) => report,
        Err(error) => {
            note!("{}: {error:#}", Style::of_stderr().error("error"));
            return ExitCode::from(UNREADABLE);
        }
    };
    let said = if is_json {
        serde_json::to_string_pretty(&report).map_err(std::io::Error::from)
    } else {
        Ok(describe(&report, Style::of_stdout()))
    };
    let said = said.and_then(|text| try_to_output(format_args!("{}", text.trim_end())));
    if let Err(error) = said
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        note!("standard output: {error}");
        return ExitCode::from(UNREADABLE);
    }
    ExitCode::from(u8::from(!report.is_clean()))
}

fn look(args: &Args) -> Result<Report> {
    let mut thresholds = Thresholds::default();
    thresholds.poll = args.long_poll;
    thresholds.wakes = args.wake_storm;
    thresholds.spurious = f64::from(args.spurious) / 100.0;
    thresholds.spurious_polls = args.spurious_polls;
    thresholds.spurious_length = args.spurious_length;
    thresholds.circle = args.wake_circle;
    thresholds.late = args.late_timer;
    thresholds.unwoken = args.unwoken;
    let mut lint = Lint::new(thresholds);
    let file = || args.file.display().to_string();
    for event in streams::trace(&args.file).with_context(file)? {
        lint.look(&event.with_context(file)?);
    }
    Ok(lint.report())
}

/// A report for a person.
pub(super) fn describe(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let wrote = write_finding(&mut text, finding, style);
        debug_assert!(wrote.is_ok(), "strings can be written to");
    }
    let mut notes = Vec::new();
    if report.omitted > 0 {
        notes.push(format!(
            "{} more findings of other locations are left out",
            units::count(report.omitted)
        ));
    }
    if report.unwatched > 0 {
        notes.push(format!(
            "{} tasks were not looked at, because too many others lived",
            units::count(report.unwatched)
        ));
    }
    if report.lost > 0 {
        notes.push(format!(
            "the trace has lost {} events; what rests on the absence of one is not said of tasks \
             that lived then",
            units::count(report.lost)
        ));
    }
    if !report.whole {
        notes.push(
            "the trace ends before the run did; nothing is said of tasks that wait at the end"
                .into(),
        );
    }
    for note in notes {
        text.push_str(&format!("{}: {note}\n", style.strong("note")));
    }
    let events = units::count(report.events);
    match report.findings.len() {
        0 => text.push_str(&format!(
            "{} in {events} events\n",
            style.good("nothing found")
        )),
        found => text.push_str(&format!("found {found} in {events} events\n")),
    }
    text
}

fn write_finding(text: &mut String, finding: &Finding, style: Style) -> std::fmt::Result {
    let name = printable_line(&finding.name);
    let kind = style.bad(finding.kind.name());
    let headline = format!("task `{name}` {}", finding.what);
    writeln!(text, "{kind}: {}", style.strong(&headline))?;
    if let Some(location) = &finding.location {
        writeln!(
            text,
            "  {} {}",
            style.faint("-->"),
            printable_line(location)
        )?;
    }
    let time = units::duration(Duration::from_nanos(finding.time));
    let more = match finding.count {
        1 => String::new(),
        count => format!("; {} times in all, this is the worst", units::count(count)),
    };
    let mark = style.faint("=");
    writeln!(text, "  {mark} at {time}{more}")?;
    writeln!(text, "  {mark} {}\n", finding.advice)
}
