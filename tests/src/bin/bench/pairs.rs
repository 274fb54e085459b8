//! What something costs a no-op: the probe with it and without it, in turns.

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use wakebox::{Builder, Sandbox, WakeMode};
use wakebox_tests::guest;

use crate::run::run;
use crate::table::{Bar, Row, Unit, median};

/// Where both a completion without an exit and one with two can be seen.
pub(crate) const MODES: [WakeMode; 2] = [WakeMode::Out, WakeMode::Poll];
/// Operations of the probe, one in flight; more where more are in flight.
const OPERATIONS: u32 = 2_000;
/// Fewest and most rounds. In between, it is enough as soon as the noise allows to judge.
const ROUNDS: std::ops::RangeInclusive<usize> = 7..=61;

/// What a probe says of itself.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    /// Mean of the middle fifth of the round trips of one no-op, in nanoseconds.
    trip: f64,
    /// No-ops a second, 256 in flight.
    rate: f64,
}

impl Said {
    /// Nanoseconds for an operation, one in flight.
    fn alone(&self) -> f64 {
        self.trip
    }

    /// Nanoseconds for an operation, 256 in flight.
    pub(crate) fn together(&self) -> f64 {
        1e9 / self.rate
    }
}

/// A probe that does no-ops.
pub(crate) fn noops(probe: &str, mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest(probe))
        .wake(mode)
        .args([OPERATIONS.to_string(), "nop".into()])
}

/// Runs a probe and reads what it says.
pub(crate) fn probe(runtime: &Runtime, builder: Builder) -> Result<Said> {
    let (text, _) = run(runtime, builder)?;
    let value = |key: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let value = line.with_context(|| format!("the probe said no `{key}`"))?;
        Ok(value.trim().parse()?)
    };
    Ok(Said {
        trip: value("nop_middle_ns ")?,
        rate: value("ops_per_second_256 ")?,
    })
}

/// Pairs of runs, one right after the other: what slows one for a while slows both.
#[derive(Default)]
pub(crate) struct Costs {
    without: Vec<Said>,
    with: Vec<Said>,
}

impl Costs {
    pub(crate) fn add(&mut self, without: Said, with: Said) {
        self.without.push(without);
        self.with.push(with);
    }

    /// What came to the time of an operation in each pair, in percent.
    fn percents(&self, time: fn(&Said) -> f64) -> Vec<f64> {
        let pairs = self.without.iter().zip(&self.with);
        pairs
            .map(|(without, with)| (time(with) / time(without) - 1.0) * 100.0)
            .collect()
    }

    /// Whether the standard error of the middle of all pairs is below so many percent, or there have
    /// been enough of them.
    pub(crate) fn are_known_to(&self, percent: f64) -> bool {
        let count = self.with.len();
        if !ROUNDS.contains(&count) || count == *ROUNDS.end() {
            return count >= *ROUNDS.end();
        }
        let percents = self.percents(Said::alone);
        let middle = median(percents.clone());
        let off = median(percents.iter().map(|cost| (cost - middle).abs()).collect());
        // For a normal distribution: from the median deviation to the standard deviation, and
        // from that of one to that of the median of all.
        1.4826 * off * 1.2533 / (count as f64).sqrt() < percent
    }

    /// What it costs, and what it is a part of. The bars are percents: for one no-op at a time, and
    /// for 256 in flight.
    pub(crate) fn rows(
        &self,
        what: &str,
        mode: WakeMode,
        alone: f64,
        together: Option<f64>,
    ) -> [Row; 4] {
        let cost = |time| Row::new("", Unit::Percent, median(self.percents(time)));
        let times = |part: &str, time: fn(&Said) -> f64| {
            let of = |said: &[Said]| median(said.iter().map(time).collect());
            let what = format!("    {part}, with and without");
            Row::new(what, Unit::Nanoseconds, of(&self.with)).floor(of(&self.without))
        };
        let mut crowd = cost(Said::together);
        if let Some(most) = together {
            crowd = crowd.bar(Bar::AtMost(most));
        }
        [
            cost(Said::alone)
                .bar(Bar::AtMost(alone))
                .called(format!("{what}: cost of a no-op, mode {mode}")),
            times("its round trip", Said::alone),
            crowd.called(format!("{what}: cost of one of 256 in flight, mode {mode}")),
            times("its share of the time", Said::together),
        ]
    }
}
