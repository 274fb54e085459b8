//! A command line, taken apart bit by bit; what is left over is an error.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// The arguments that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Args {
    own: Vec<String>,
    /// Everything after `--`, for the program that is run.
    pub(crate) rest: Vec<String>,
}

impl Args {
    pub(crate) fn from_env() -> Self {
        Self::new(std::env::args().skip(1).collect())
    }

    fn new(mut own: Vec<String>) -> Self {
        let rest = match own.iter().position(|arg| arg == "--") {
            Some(at) => own.split_off(at).split_off(1),
            None => Vec::new(),
        };
        Self { own, rest }
    }

    /// Takes a flag; whether it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.own.len();
        self.own.retain(|arg| arg != name);
        self.own.len() != before
    }

    /// Takes `name VALUE` or `name=VALUE`.
    ///
    /// # Errors
    ///
    /// If the value is missing or cannot be parsed.
    pub(crate) fn option<T>(&mut self, name: &str) -> Result<Option<T>>
    where
        T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        let is_it = |arg: &String| arg.split('=').next() == Some(name);
        let Some(at) = self.own.iter().position(is_it) else {
            return Ok(None);
        };
        let arg = self.own.remove(at);
        let value = match arg.split_once('=') {
            Some((_, value)) => value.to_owned(),
            None if at < self.own.len() => self.own.remove(at),
            None => bail!("{name} wants a value"),
        };
        let parsed = value.parse().with_context(|| format!("{name} {value}"))?;
        Ok(Some(parsed))
    }

    /// Takes the first argument that is not an option.
    pub(crate) fn positional(&mut self) -> Option<String> {
        let at = self.own.iter().position(|arg| !arg.starts_with('-'))?;
        Some(self.own.remove(at))
    }

    /// Says that nothing more is expected.
    ///
    /// # Errors
    ///
    /// If there is more.
    pub(crate) fn done(&self) -> Result<()> {
        match self.own.first() {
            Some(arg) => bail!("unexpected `{arg}`; see `cargo xtask --help`"),
            None => Ok(()),
        }
    }

    /// As [`Self::done`], for a task that runs nothing which could take arguments.
    ///
    /// # Errors
    ///
    /// If there is more, before or after `--`.
    pub(crate) fn all_done(self) -> Result<()> {
        self.done()?;
        match self.rest.first() {
            Some(arg) => bail!("unexpected `-- {arg}`: this task passes no arguments on"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(String::from).collect())
    }

    #[test]
    fn options_may_stand_anywhere_before_the_dashes() {
        let mut args = args("run --wake irq echo --debug -- --selftest --wake x");
        assert_eq!(args.option::<String>("--wake").unwrap().unwrap(), "irq");
        assert!(args.flag("--debug"));
        assert_eq!(args.positional().as_deref(), Some("run"));
        assert_eq!(args.positional().as_deref(), Some("echo"));
        args.done().unwrap();
        assert_eq!(args.rest, ["--selftest", "--wake", "x"]);
    }

    #[test]
    fn a_value_may_follow_an_equals_sign() {
        assert_eq!(args("--depth=7").option("--depth").unwrap(), Some(7_u32));
    }

    #[test]
    fn a_missing_or_malformed_value_is_named() {
        let missing = args("--depth").option::<u32>("--depth").unwrap_err();
        assert_eq!(format!("{missing:#}"), "--depth wants a value");
        let malformed = args("--depth x").option::<u32>("--depth").unwrap_err();
        assert!(format!("{malformed:#}").starts_with("--depth x: "));
    }

    #[test]
    fn what_nobody_took_is_an_error() {
        assert!(args("--colour").done().is_err());
        assert!(args("-- x").all_done().is_err());
    }
}
