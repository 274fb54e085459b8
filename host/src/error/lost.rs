//! Output that did not arrive.

use std::fmt;

use serde::Serialize;

use crate::units;

/// Output of a guest that did not arrive where it was to go:
/// [`Sandbox::lost_output`](crate::Sandbox::lost_output).
///
/// `Display` says it in a sentence, without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct LostOutput {
    /// Whether it was written to standard error, else to standard output.
    pub is_stderr: bool,
    /// How many bytes. What was under way when the run ended counts as lost, unless it was known to
    /// have left.
    pub bytes: u64,
    /// What the first write said that failed; `None` if the run ended before all was written.
    pub error: Option<String>,
}

impl fmt::Display for LostOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = if self.is_stderr { "error" } else { "output" };
        let bytes = match self.bytes {
            1 => "1 byte".into(),
            bytes => format!("{} bytes", units::count(bytes)),
        };
        write!(
            f,
            "{bytes} of the guest's standard {stream} did not arrive: "
        )?;
        match &self.error {
            Some(error) => f.write_str(error),
            None => f.write_str("the run ended before they were taken"),
        }
    }
}
