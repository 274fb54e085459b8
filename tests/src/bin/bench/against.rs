//! Two builds of the benchmarks: `--against OTHER` runs each step of both in turns, in one run, and compares those rows that both
//! have. `--compare FILE` compares with what an earlier run has written (`--json FILE`), or several have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::table::{Unit, median};

/// How often each of both measures a step. Each time is a median itself, of a process of its own.
pub(crate) const ROUNDS: usize = 5;

/// How far a row may move before the summary speaks of it.
const MOVED: f64 = 0.03;

/// The values of a row, one each round.
type Rows = BTreeMap<String, (Unit, Vec<f64>)>;

/// What of a row is compared.
#[derive(Clone, Copy)]
enum What {
    /// What was measured.
    Ours,
    /// The same beside what was measured as its floor in the same run, if there is one: another day the machine is another.
    Ratio,
}

/// Runs the steps of this program and of another build of it in turns, prints how their rows compare, and
/// says at the end which have moved beyond their noise: the same way in each round.
///
/// # Errors
///
/// If one of them cannot be run, or says what is no report.
pub(crate) fn compare(other: &Path, steps: &[&str], rounds: usize) -> Result<()> {
    let own = std::env::current_exe().context("this program's own file")?;
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("rows");
    let mut table = Table::new("the other", "this");
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
                measure(program, step, What::Ours, &json, rows)
                    .with_context(|| format!("{}, step `{step}`", program.display()))?;
            }
        }
        for (what, (unit, values)) in mine {
            // A row of one of them alone has nothing to be compared with.
            let Some((_, before)) = theirs.remove(&what) else {
                continue;
            };
            table.add(what, &Compared::new(unit, &before, &values, Pairs::Rounds));
        }
    }
    table.tell(&format!("in each of {rounds} rounds"));
    Ok(())
}

/// Runs the steps of this program so often, and prints how their rows compare with those in the files of earlier runs, and which
/// have moved beyond the noise of both: each value of one is on the same side of each of the other. A row that has a floor is
/// compared by its ratio to that.
///
/// # Errors
///
/// If it cannot be run, or a file is no report.
pub(crate) fn compare_with_files(files: &[PathBuf], steps: &[&str], rounds: usize) -> Result<()> {
    let own = std::env::current_exe().context("this program's own file")?;
    let mut before = Rows::new();
    for file in files {
        read(file, What::Ratio, &mut before).with_context(|| file.display().to_string())?;
    }
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("rows");
    let mut table = Table::new("before", "now");
    for step in steps {
        let mut now = Rows::new();
        eprintln!("comparing {step} ...");
        for _ in 0..rounds {
            measure(&own, step, What::Ratio, &json, &mut now)
                .with_context(|| format!("step `{step}`"))?;
        }
        for (what, (unit, values)) in now {
            let Some((_, before)) = before.get(&what) else {
                continue;
            };
            table.add(what, &Compared::new(unit, before, &values, Pairs::All));
        }
    }
    let before = files.len();
    table.tell(&format!(
        "in each of {rounds} rounds, beside {before} before"
    ));
    Ok(())
}

/// Rows that are printed as they come.
struct Table {
    /// Those that have moved, and by which part: negative is better.
    moved: Vec<(String, f64)>,
}

impl Table {
    /// Its head, with what is compared.
    fn new(one: &str, other: &str) -> Self {
        println!(
            "{:<60} {one:>12} {other:>12} {:>7} {:>7}",
            "what", "ratio", "spread"
        );
        Self { moved: Vec::new() }
    }

    fn add(&mut self, what: String, row: &Compared) {
        println!("{what:<60} {row}");
        if row.has_moved() {
            self.moved.push((what, row.worse));
        }
    }

    /// Says which rows have moved.
    fn tell(self, when: &str) {
        println!();
        let (worse, better): (Vec<_>, Vec<_>) =
            self.moved.into_iter().partition(|(_, by)| *by > 0.0);
        for (how, rows) in [("worse", worse), ("better", better)] {
            let part = MOVED * 100.0;
            println!("{how} by more than {part:.0} %, and {when}: {}", rows.len());
            for (what, by) in rows {
                println!("  {what}: {:.1} %", by.abs() * 100.0);
            }
        }
    }
}

/// Adds what a program measures of a step. A step that it does not have, it has no rows of.
fn measure(program: &Path, step: &str, what: What, json: &Path, rows: &mut Rows) -> Result<()> {
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
    read(json, what, rows)
}

/// Adds the rows of a report.
fn read(json: &Path, taken: What, rows: &mut Rows) -> Result<()> {
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
        let value = match taken {
            What::Ours => ours,
            What::Ratio => row["ratio"].as_f64().unwrap_or(ours),
        };
        let name = match what.strip_prefix("    ") {
            None => {
                above = what;
                what.to_owned()
            }
            Some(part) => format!("{above}: {part}"),
        };
        let (_, values) = rows.entry(name).or_insert((unit, Vec::new()));
        values.push(value);
    }
    Ok(())
}

/// Which values are compared.
#[derive(Clone, Copy)]
enum Pairs {
    /// Those of the same round.
    Rounds,
    /// Each with each.
    All,
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
    /// Whether it was so in each round.
    is_certain: bool,
}

impl Compared {
    /// Of what each of both has measured, round by round.
    fn new(unit: Unit, before: &[f64], now: &[f64], pairs: Pairs) -> Self {
        let worse = |before: f64, now: f64| match unit {
            Unit::PerSecond | Unit::BytesPerSecond => before / now - 1.0,
            // A cost is a part already, and may be next to nothing.
            Unit::Percent => (now - before) / 100.0,
            Unit::Nanoseconds | Unit::Bytes | Unit::Number => now / before - 1.0,
        };
        let each: Vec<f64> = match pairs {
            Pairs::Rounds => (before.iter().zip(now))
                .map(|(before, now)| worse(*before, *now))
                .collect(),
            Pairs::All => (before.iter())
                .flat_map(|before| now.iter().map(|now| worse(*before, *now)))
                .collect(),
        };
        let is_certain = (each.windows(2)).all(|two| two[0].signum() == two[1].signum());
        let middles = [before, now].map(|values| median(values.to_vec()));
        let off = |values: &[f64], middle: f64| {
            let off = values.iter().map(|value| (value / middle - 1.0).abs());
            median(off.collect())
        };
        let spread = off(before, middles[0]).max(off(now, middles[1]));
        let [before, now] = middles;
        Self {
            unit,
            before,
            now,
            spread,
            worse: worse(before, now),
            is_certain,
        }
    }

    /// Whether it has moved beyond its noise.
    fn has_moved(&self) -> bool {
        self.is_certain && self.worse.abs() > MOVED
    }
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [before, now] = [self.before, self.now].map(|value| self.unit.show(value));
        let (ratio, spread) = (self.now / self.before, self.spread * 100.0);
        write!(f, "{before:>12} {now:>12} {ratio:>7.3} {spread:>5.1} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_moved_if_it_did_in_each_round() {
        let moved = |unit, before: &[f64], now: &[f64]| {
            let row = Compared::new(unit, before, now, Pairs::Rounds);
            row.has_moved().then_some(row.worse > 0.0)
        };
        let ns = Unit::Nanoseconds;
        assert_eq!(
            moved(ns, &[100.0, 200.0, 100.0], &[110.0, 220.0, 112.0]),
            Some(true)
        );
        assert_eq!(
            moved(ns, &[100.0, 100.0, 100.0], &[110.0, 99.0, 112.0]),
            None
        );
        assert_eq!(
            moved(ns, &[100.0, 100.0, 100.0], &[101.0, 102.0, 101.0]),
            None
        );
        assert_eq!(
            moved(Unit::PerSecond, &[100.0, 100.0], &[110.0, 120.0]),
            Some(false)
        );
        assert_eq!(moved(Unit::Percent, &[0.0, 0.1], &[5.0, 4.0]), Some(true));
    }

    #[test]
    fn beside_earlier_runs_a_row_has_moved_if_all_of_one_are_on_a_side_of_all_of_the_other() {
        let moved = |before: &[f64], now: &[f64]| {
            Compared::new(Unit::Nanoseconds, before, now, Pairs::All).has_moved()
        };
        assert!(moved(&[100.0, 110.0], &[120.0, 115.0, 130.0]));
        assert!(moved(&[100.0], &[120.0, 115.0, 130.0]));
        // Pair by pair, each is worse.
        assert!(!moved(&[100.0, 116.0], &[115.0, 130.0]));
        assert!(!moved(&[100.0], &[101.0, 102.0]));
    }

    #[test]
    fn a_row_with_a_floor_is_read_as_its_ratio() {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("rows");
        let report = serde_json::json!({"failures": [], "rows": [
            {"what": "with", "unit": "ns", "ours": 30.0, "floor": 10.0, "ratio": 3.0},
            {"what": "    part", "unit": "ns", "ours": 7.0, "floor": null, "ratio": null},
        ]});
        std::fs::write(&json, report.to_string()).unwrap();
        let read = |what| {
            let mut rows = Rows::new();
            read(&json, what, &mut rows).unwrap();
            let values = rows
                .into_iter()
                .map(|(name, (_, values))| (name, values[0]));
            values.collect::<Vec<_>>()
        };
        let part = ("with: part".to_owned(), 7.0);
        assert_eq!(read(What::Ratio), [("with".to_owned(), 3.0), part.clone()]);
        assert_eq!(read(What::Ours), [("with".to_owned(), 30.0), part]);
    }
}
