//! A logger for the `log` crate: lines on standard error.
//!
//! The level is the value of the variable `WAKEBOX_LOG`, else of `RUST_LOG`: one of off, error,
//! warn, info, debug, trace. Without either, or with another value, it is info.

use log::{LevelFilter, Log, Metadata, Record};

use crate::{env, eprintln};

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!(
                "{:5} {}: {}",
                record.level(),
                record.target(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}

/// Makes it the logger of the guest.
pub(crate) fn install() {
    let level = env::var("WAKEBOX_LOG")
        .or_else(|| env::var("RUST_LOG"))
        .and_then(|name| name.parse().ok())
        .unwrap_or(LevelFilter::Info);
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level);
    }
}
