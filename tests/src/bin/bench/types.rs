//! What it costs that both sides of a call mean the same types: the record that follows each message.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use wakebox_typed::{Record, Typed, Watched};

use crate::table::{Bar, Row, Unit, median};

/// Of everything, in turns.
const ROUNDS: usize = 21;
/// Messages of a round.
const MESSAGES: u32 = 50_000;

/// What the record of a call's arguments and that of its result cost, written on one side and read on
/// the other: all four without the boundary, which would hide them.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let call = cost(&(1_u64, 2_u64))? + cost(&3_u64)?;
    let bytes = cost(&vec![7_u8; 1024])?;
    Ok(vec![
        Row::new(
            "types of `add(u64, u64) -> u64`, written and read",
            Unit::Nanoseconds,
            call,
        )
        .bar(Bar::AtMost(100.0)),
        Row::new("    of a list of 1,024 bytes", Unit::Nanoseconds, bytes),
    ])
}

/// Nanoseconds that a record adds to a value's way.
fn cost<T: Serialize + DeserializeOwned>(value: &T) -> Result<f64> {
    let (mut plain, mut typed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(each(value, &mut |value, buf| {
            let written = postcard::to_slice(value, buf).ok()?;
            postcard::from_bytes(black_box(written)).ok()
        })?);
        typed.push(each(value, &mut |value, buf| {
            let written = postcard::to_slice(&Typed(value), buf).ok()?;
            let (bytes, said) = Record::split(black_box(written))?;
            let (record, mut reader) = (Record::new(), postcard::Deserializer::from_bytes(bytes));
            let value = T::deserialize(Watched::new(&mut reader, &record)).ok()?;
            (record.to_bytes() == said).then_some(value)
        })?);
    }
    Ok(median(typed) - median(plain))
}

/// Nanoseconds of one of many.
fn each<T>(value: &T, way: &mut dyn FnMut(&T, &mut [u8]) -> Option<T>) -> Result<f64> {
    let mut buf = [0; 4096];
    ensure!(way(value, &mut buf).is_some(), "a value is not read");
    let start = Instant::now();
    for _ in 0..MESSAGES {
        black_box(way(black_box(value), &mut buf)).context("a value is not read")?;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(MESSAGES))
}
