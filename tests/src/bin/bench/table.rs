//! Rows of the report: what was measured, what the floor is, what was promised.

use std::fmt;

use serde_json::{Value, json};

/// What a row must reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bar {
    /// Ours, at most this.
    AtMost(f64),
    /// Ours, at least this.
    AtLeast(f64),
    /// Ours divided by the floor, at most this.
    Ratio(f64),
    /// Ours divided by the floor, at least this.
    RatioAtLeast(f64),
}

/// One measured quantity.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    what: String,
    unit: Unit,
    ours: f64,
    floor: Option<f64>,
    bar: Option<Bar>,
}

/// What numbers mean, and how they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Shown as ns, us or ms.
    Nanoseconds,
    /// Shown as KiB.
    Bytes,
    /// Things in a second.
    PerSecond,
    /// Shown as GiB in a second.
    BytesPerSecond,
    /// A plain number.
    Number,
    /// So much more than something else.
    Percent,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, unit: Unit, ours: f64) -> Self {
        Self {
            what: what.into(),
            unit,
            ours,
            floor: None,
            bar: None,
        }
    }

    pub(crate) fn called(mut self, what: String) -> Self {
        self.what = what;
        self
    }

    /// What the same takes without Wakebox, in the same unit.
    pub(crate) fn floor(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self
    }

    pub(crate) fn bar(mut self, bar: Bar) -> Self {
        self.bar = Some(bar);
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.ours / floor)
    }

    /// Whether the bar is reached; `None` without one.
    fn reached(&self) -> Option<bool> {
        Some(match self.bar? {
            Bar::AtMost(most) => self.ours <= most,
            Bar::AtLeast(least) => self.ours >= least,
            Bar::Ratio(most) => self.ratio()? <= most,
            Bar::RatioAtLeast(least) => self.ratio()? >= least,
        })
    }

    fn bar_text(&self) -> String {
        match self.bar {
            None => String::new(),
            Some(Bar::AtMost(most)) => format!("<= {}", self.unit.show(most)),
            Some(Bar::AtLeast(least)) => format!(">= {}", self.unit.show(least)),
            Some(Bar::Ratio(most)) => format!("ratio <= {most}"),
            Some(Bar::RatioAtLeast(least)) => format!("ratio >= {least}"),
        }
    }

    fn to_json(&self) -> Value {
        let (kind, limit) = match self.bar {
            None => (None, None),
            Some(Bar::AtMost(limit)) => (Some("at most"), Some(limit)),
            Some(Bar::AtLeast(limit)) => (Some("at least"), Some(limit)),
            Some(Bar::Ratio(limit)) => (Some("ratio at most"), Some(limit)),
            Some(Bar::RatioAtLeast(limit)) => (Some("ratio at least"), Some(limit)),
        };
        json!({
            "what": self.what,
            "unit": self.unit.name(),
            "ours": self.ours,
            "floor": self.floor,
            "ratio": self.ratio(),
            "bar": kind,
            "limit": limit,
            "reached": self.reached(),
        })
    }
}

impl Unit {
    const ALL: [Self; 6] = [
        Self::Nanoseconds,
        Self::Bytes,
        Self::PerSecond,
        Self::BytesPerSecond,
        Self::Number,
        Self::Percent,
    ];

    /// The unit of a name in a report.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Bytes => "bytes",
            Self::PerSecond => "per second",
            Self::BytesPerSecond => "bytes per second",
            Self::Number => "",
            Self::Percent => "%",
        }
    }

    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds if value < 1e3 => format!("{value:.1} ns"),
            Self::Nanoseconds if value < 1e6 => format!("{:.2} us", value / 1e3),
            Self::Nanoseconds => format!("{:.2} ms", value / 1e6),
            Self::Bytes => format!("{:.1} KiB", value / 1024.0),
            Self::PerSecond if value < 1e6 => format!("{:.0} k/s", value / 1e3),
            Self::PerSecond => format!("{:.2} M/s", value / 1e6),
            Self::BytesPerSecond => format!("{:.2} GiB/s", value / f64::from(1 << 30)),
            Self::Number if value < 0.1 => format!("{value:.5}"),
            Self::Number => format!("{value:.2}"),
            Self::Percent => format!("{value:.1} %"),
        }
    }
}

/// All rows of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// What could not be measured, and why.
    failures: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn extend(&mut self, what: &str, rows: anyhow::Result<Vec<Row>>) {
        match rows {
            Ok(rows) => self.rows.extend(rows),
            Err(error) => self.failures.push((what.to_owned(), format!("{error:#}"))),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
            "failures": self.failures,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.rows.iter().map(|row| row.what.len()).max();
        let width = widest.unwrap_or(0);
        writeln!(
            f,
            "{:width$}  {:>10}  {:>10}  {:>6}  {:<13}",
            "what", "ours", "floor", "ratio", "bar"
        )?;
        for row in &self.rows {
            let floor = row.floor.map(|floor| row.unit.show(floor));
            let ratio = row.ratio().map(|ratio| format!("{ratio:.2}"));
            let verdict = match row.reached() {
                None => "",
                Some(true) => "ok",
                Some(false) => "MISSED",
            };
            let line = format!(
                "{:width$}  {:>10}  {:>10}  {:>6}  {:<13} {verdict}",
                row.what,
                row.unit.show(row.ours),
                floor.unwrap_or_default(),
                ratio.unwrap_or_default(),
                row.bar_text(),
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        let verdicts: Vec<bool> = self.rows.iter().filter_map(Row::reached).collect();
        let missed = verdicts.iter().filter(|reached| !**reached).count();
        writeln!(f)?;
        for (what, why) in &self.failures {
            writeln!(f, "NOT MEASURED: {what}: {why}")?;
        }
        match missed {
            0 => write!(f, "All {} bars are reached.", verdicts.len()),
            _ => write!(f, "{missed} of {} bars are MISSED.", verdicts.len()),
        }
    }
}

/// The middle of some measurements, 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
