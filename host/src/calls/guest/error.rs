//! Why a call to a guest gave no result.

use std::sync::Arc;

use crate::calls::MESSAGE_MAX;
use crate::outcome::Outcome;
use crate::text::Quoted;

/// Bytes of a guest's words that are looked at for an error, of which it has fewer.
const WORDS_MAX: usize = 1024;

/// Why a call to a guest gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The guest takes no more calls; and why.
    #[error("the guest takes no more calls: {0}")]
    Ended(GuestEnd),
    /// [`Sandbox::start`](crate::Sandbox::start) was called outside a Tokio runtime.
    #[error(
        "the guest does not run: no Tokio runtime was there when it was started. Call \
         `Sandbox::start` inside one that has I/O and time enabled"
    )]
    NoRuntime,
    /// The guest has no function of this name.
    #[error("the guest exports no function `{0}`")]
    NoSuchFunction(String),
    /// The arguments are not what the function takes.
    #[error("the function `{}` of the guest takes other arguments than it was given{}", .0.function, .0)]
    BadInput(Box<Mismatch>),
    /// The result is not what the caller expects.
    #[error("the function `{}` of the guest gave a result of another type than is expected{}", .0.function, .0)]
    BadOutput(Box<Mismatch>),
    /// The arguments or the result are too large, or cannot be serialized.
    #[error("the arguments or the result of `{0}` are larger than {MESSAGE_MAX} bytes")]
    TooLarge(String),
    /// A limit on the guest's messages is reached: [`Limits::calls_in`](crate::Limits::calls_in),
    /// [`Limits::calls_out`](crate::Limits::calls_out), or what the host keeps for it,
    /// [`Limits::host_memory`](crate::Limits::host_memory).
    #[error(
        "a limit of the guest (calls-in, calls-out or host-memory) does not allow the call of `{0}`"
    )]
    LimitReached(String),
}

impl CallError {
    /// With what the caller has called, if it is about types.
    pub(super) fn called_as(mut self, types: impl FnOnce() -> Option<String>) -> Self {
        if let Self::BadInput(mismatch) | Self::BadOutput(mismatch) = &mut self {
            mismatch.caller = types();
        }
        self
    }
}

/// What both sides say that the types of a function are: see
/// [`Caller::call`](crate::Caller::call) for what is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The name of the function.
    pub function: String,
    /// What the caller has called, as in `u32 -> Option<Page>`: the arguments, a tuple if they are
    /// several, and the result. `None` if the call was one without types.
    pub caller: Option<String>,
    /// What the guest has, in its own words: escaped, and cut off if they are long. `None` if it
    /// does not say.
    pub guest: Option<String>,
    /// What the guest says about arguments in JSON that it cannot read, in its own words: escaped, and
    /// cut off if they are long.
    pub reason: Option<String>,
}

impl Mismatch {
    pub(super) fn new(function: &str) -> Self {
        Self {
            function: function.into(),
            caller: None,
            guest: None,
            reason: None,
        }
    }

    /// Adds what the guest has replied: its types, and behind a line end the reason.
    pub(super) fn told(mut self, reply: &[u8]) -> Self {
        let mut parts = reply.splitn(2, |byte| *byte == b'\n');
        let mut next = || parts.next().filter(|part| !part.is_empty()).map(words);
        self.guest = next();
        self.reason = next();
        self
    }
}

/// What a guest says in an error: no more of it is looked at than is quoted.
pub(super) fn words(bytes: &[u8]) -> String {
    let bytes = bytes.get(..WORDS_MAX).unwrap_or(bytes);
    Quoted(String::from_utf8_lossy(bytes)).to_string()
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(guest) = &self.guest {
            write!(f, "; in the guest it is `{guest}`")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        match &self.caller {
            Some(caller) => write!(f, "; it was called as `{caller}`"),
            None => Ok(()),
        }
    }
}

/// Why a guest takes no more calls.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestEnd {
    /// It was told that no more will come: [`Caller::close`](crate::Caller::close), [`Running::close`](crate::Running::close).
    #[error("it was closed")]
    Closed,
    /// It has ended so: with a panic, at a limit, by itself. A panic or a fault is without its
    /// backtrace, which [`Sandbox::run`](crate::Sandbox::run) returns.
    #[error("{0}")]
    Outcome(Arc<Outcome>),
    /// The host could not go on: the text of what [`Sandbox::run`](crate::Sandbox::run) returns.
    #[error("{0}")]
    Failed(Arc<str>),
    /// Its sandbox, or the future of its run, was dropped.
    #[error("its sandbox was dropped")]
    Dropped,
}

impl GuestEnd {
    /// How a run ended.
    pub(crate) fn of(result: &crate::Result<Outcome>) -> Self {
        match result {
            Ok(outcome) => Self::Outcome(Arc::new(outcome.clone())),
            Err(error) => Self::Failed(error.to_string().into()),
        }
    }
}
