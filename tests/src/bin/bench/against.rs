//! Two builds of the benchmarks in one run: `--against OTHER` runs each step of both in turns, and
//! compares those rows that both have.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::table::{Unit, median};

/// How often each of both measures a step. Each time is a median itself, of a process of its own.
pub(crate) const ROUNDS: usize = 5;

/// How much worse a row may be before the summary speaks of it.
const WORSE: f64 = 0.03;

/// The values of a row, one each round.
type Rows = BTreeMap<String, (Unit, Vec<f64>)>;

/// Runs the steps of this program and of another build of it in turns, prints how their rows compare, and
/// says at the end which have become worse.
///
/// # Errors
///
/// If one of them cannot be run, or says what is no report.
pub(crate) fn compare(other: &Path, steps: &[&str], rounds: usize) -> Result<()> {
    let own = std::env::current_exe().context("this program's own file")?;
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("rows");
    let mut worse = Vec::new();
    println!(
        "{:<60} {:>12} {:>12} {:>7} {:>7}",
        "what", "the other", "this", "ratio", "spread"
    );
    for step in steps {
        let (mut mine, mut theirs) = (Rows::new(), Rows::new());
        eprintln!("comparing {step} ...");
        for round in 0..rounds {
            let mut pair = [(&*own, &mut mine), (other, &mut theirs)];
            // What is measured first finds a machine that the other has not used yet.
            if round % 2 == 1 {
                pair.reverse();
            }
            for (program, rows) in pair {
                measure(program, step, &json, rows)
                    .with_context(|| format!("{}, step `{step}`", program.display()))?;
            }
        }
        for (what, (unit, values)) in mine {
            // A row of one of them alone has nothing to be compared with.
            let Some((_, before)) = theirs.remove(&what) else {
                continue;
            };
            let row = Compared::new(unit, before, values);
            println!("{what:<60} {row}");
            if row.worse > WORSE {
                worse.push((what, row.worse));
            }
        }
    }
    println!();
    match worse.is_empty() {
        true => println!("No row is worse by more than {:.0} %.", WORSE * 100.0),
        false => println!("Worse by more than {:.0} %:", WORSE * 100.0),
    }
    for (what, by) in worse {
        println!("  {what}: {:.1} %", by * 100.0);
    }
    Ok(())
}

/// Adds what a program measures of a step. A step that it does not have, it has no rows of.
fn measure(program: &Path, step: &str, json: &Path, rows: &mut Rows) -> Result<()> {
    let output = Command::new(program)
        .args(["--only", step, "--json"])
        .arg(json)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("`--only ") {
        return Ok(());
    }
    ensure!(output.status.success(), "{}: {said}", output.status);
    let report: Value = serde_json::from_slice(&std::fs::read(json)?)?;
    let failures = report["failures"].as_array().is_some_and(Vec::is_empty);
    ensure!(failures, "not measured: {}", report["failures"]);
    let all = report["rows"].as_array().context("a report without rows")?;
    // What a row is a part of stands above it.
    let mut above = "";
    for row in all {
        let what = row["what"].as_str().context("a row without a name")?;
        let unit = row["unit"].as_str().and_then(Unit::of_name);
        let (Some(unit), Some(ours)) = (unit, row["ours"].as_f64()) else {
            continue;
        };
        let name = match what.strip_prefix("    ") {
            None => {
                above = what;
                what.to_owned()
            }
            Some(part) => format!("{above}: {part}"),
        };
        let (_, values) = rows.entry(name).or_insert((unit, Vec::new()));
        values.push(ours);
    }
    Ok(())
}

/// A row of both.
struct Compared {
    unit: Unit,
    before: f64,
    now: f64,
    /// How far the values of both are from their middles, as a part of these, in the middle.
    spread: f64,
    /// So much worse, as a part of what it was; negative if it is better.
    worse: f64,
}

impl Compared {
    fn new(unit: Unit, before: Vec<f64>, now: Vec<f64>) -> Self {
        let middles = [median(before.clone()), median(now.clone())];
        let off = |values: Vec<f64>, middle: f64| {
            median(
                values
                    .iter()
                    .map(|value| (value / middle - 1.0).abs())
                    .collect(),
            )
        };
        let spread = off(before, middles[0]).max(off(now, middles[1]));
        let [before, now] = middles;
        let worse = match unit {
            Unit::PerSecond | Unit::BytesPerSecond => before / now - 1.0,
            // A cost is a part already, and may be next to nothing.
            Unit::Percent => (now - before) / 100.0,
            Unit::Nanoseconds | Unit::Bytes | Unit::Number => now / before - 1.0,
        };
        Self {
            unit,
            before,
            now,
            spread,
            worse,
        }
    }
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [before, now] = [self.before, self.now].map(|value| self.unit.show(value));
        let (ratio, spread) = (self.now / self.before, self.spread * 100.0);
        write!(f, "{before:>12} {now:>12} {ratio:>7.3} {spread:>5.1} %")
    }
}
