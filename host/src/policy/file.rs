//! Policies in TOML files.
//!
//! ```toml
//! connect = ["api.example.com:443", "10.0.0.0/8:5432"]
//! listen = ["127.0.0.1:8080"]
//! udp = ["1.1.1.1:53"]
//! udp-bind = ["0.0.0.0:5353"]
//! unix = ["/run/app.sock"]
//! resolve = ["*.example.com"]
//! dirs = ["./site:/site:ro", "./data:/data"]
//! env = ["LANG=C", "HOME"]
//! functions = ["kv.*"]
//!
//! [limits]
//! cpu-time = "2s"
//! memory = "64M"
//! handles = 100
//! log = "unlimited"
//! ```
//!
//! An entry is written as on the command line. Directories are relative to the file.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::{DirGrant, InvalidGrant, Policy};
use crate::error::Error;
use crate::limits::{InvalidLimit, Limits};
use crate::text::nearest;

/// Why a file is not a policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// It could not be read.
    #[error("cannot read the policy {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is not TOML, or has keys or types that a policy has not.
    #[error("{path} is not a policy: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        message: String,
    },
    /// An entry is not what it should be.
    #[error("{path}: in `{key}`: {why}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The key of the list.
        key: &'static str,
        /// What is wrong.
        why: InvalidGrant,
    },
    /// A limit is not what it should be.
    #[error("{path}: in `limits`: {why}")]
    Limit {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: InvalidLimit,
    },
    /// Entries contradict each other.
    #[error("{path}: {why}")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// How.
        why: Error,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    connect: Vec<String>,
    listen: Vec<String>,
    udp: Vec<String>,
    udp_bind: Vec<String>,
    unix: Vec<PathBuf>,
    resolve: Vec<String>,
    dirs: Vec<String>,
    env: Vec<String>,
    functions: Vec<String>,
    limits: BTreeMap<String, LimitValue>,
}

/// A limit: text with a unit, or a number where there is none.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text like \"10s\" or \"64M\", or a number")]
enum LimitValue {
    Text(String),
    Number(u64),
}

impl fmt::Display for LimitValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not a policy.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, PolicyFileError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| PolicyFileError::Read {
            path: path.into(),
            source,
        })?;
        Self::from_toml(&text, path)
    }

    /// The policy in a text, which `path` names in errors and as the place to which directories
    /// are relative.
    ///
    /// # Errors
    ///
    /// It is not a policy.
    pub fn from_toml(text: &str, path: impl AsRef<Path>) -> Result<Self, PolicyFileError> {
        let path = path.as_ref();
        let file: File = toml::from_str(text).map_err(|error| PolicyFileError::Syntax {
            path: path.into(),
            message: with_what_was_meant(error.to_string().trim_end()),
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let limits = file
            .limits
            .iter()
            .try_fold(Limits::new(), |limits, (key, value)| {
                let limit = |why| PolicyFileError::Limit {
                    path: path.into(),
                    why,
                };
                limits.set(&format!("{key}={value}")).map_err(limit)
            })?;
        let dirs: Vec<DirGrant> = entries(path, "dirs", &file.dirs)?;
        let policy = Self {
            connect: entries(path, "connect", &file.connect)?,
            listen: entries(path, "listen", &file.listen)?,
            udp: entries(path, "udp", &file.udp)?,
            udp_bind: entries(path, "udp-bind", &file.udp_bind)?,
            unix: file.unix,
            resolve: entries(path, "resolve", &file.resolve)?,
            dirs: dirs.into_iter().map(|dir| dir.relative_to(base)).collect(),
            env: entries(path, "env", &file.env)?,
            functions: entries(path, "functions", &file.functions)?,
            limits,
        };
        policy
            .validate()
            .map_err(|why| PolicyFileError::Contradiction {
                path: path.into(),
                why,
            })?;
        Ok(policy)
    }
}

/// What the parser says, and of a key that there is not, which one was meant.
fn with_what_was_meant(message: &str) -> String {
    let slip = message.split_once("unknown field `");
    let slip = slip.and_then(|(_, rest)| rest.split_once("`, expected"));
    let meant = slip.and_then(|(key, expected)| {
        let known: Vec<_> = expected.split('`').skip(1).step_by(2).collect();
        // On the command line they are options.
        nearest(key.trim_start_matches("allow-"), &known).map(str::to_owned)
    });
    match meant {
        Some(meant) => format!("{message}\ndid you mean `{meant}`?"),
        None => message.to_owned(),
    }
}

fn entries<T>(path: &Path, key: &'static str, texts: &[String]) -> Result<Vec<T>, PolicyFileError>
where
    T: FromStr<Err = InvalidGrant>,
{
    texts
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()
        .map_err(|why| PolicyFileError::Entry {
            path: path.into(),
            key,
            why,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(text: &str) -> Result<Policy, String> {
        Policy::from_toml(text, "/etc/app/policy.toml").map_err(|error| error.to_string())
    }

    #[test]
    fn a_misspelled_key_is_answered_with_the_one_that_was_meant() {
        for (slip, meant) in [
            ("conect", "connect"),
            ("allow-listen", "listen"),
            ("udp-bid", "udp-bind"),
        ] {
            let error = read(&format!("{slip} = []")).unwrap_err();
            assert!(
                error.ends_with(&format!("did you mean `{meant}`?")),
                "{error}"
            );
        }
        let error = read("colour = []").unwrap_err();
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn a_file_says_what_the_options_say() {
        let text = r#"
            connect = ["a.test:443", "10.0.0.0/8"]
            listen = ["127.0.0.1:80"]
            udp = ["1.1.1.1:53"]
            udp-bind = ["0.0.0.0:5353"]
            unix = ["/run/a.sock"]
            resolve = ["*.test"]
            dirs = ["data:/data", "/srv:/srv:ro"]
            env = ["A=1"]
            functions = ["kv.*"]
            [limits]
            cpu-time = "2s"
            handles = 100
            log = "unlimited"
        "#;
        let policy = Policy::new()
            .allow_connect("a.test:443".parse().unwrap())
            .allow_connect("10.0.0.0/8".parse().unwrap())
            .allow_listen("127.0.0.1:80".parse().unwrap())
            .allow_udp("1.1.1.1:53".parse().unwrap())
            .allow_udp_bind("0.0.0.0:5353".parse().unwrap())
            .allow_unix("/run/a.sock")
            .allow_resolve("*.test".parse().unwrap())
            .allow_dir("/etc/app/data:/data".parse().unwrap())
            .allow_dir("/srv:/srv:ro".parse().unwrap())
            .allow_env("A=1".parse().unwrap())
            .allow_fn("kv.*".parse().unwrap())
            .limit(
                Limits::new()
                    .cpu_time(Duration::from_secs(2))
                    .handles(100)
                    .log(None),
            );
        assert_eq!(read(text), Ok(policy));
        assert_eq!(read(""), Ok(Policy::new()));
    }

    #[test]
    fn what_is_no_policy_is_refused_with_the_place() {
        for (text, words) in [
            ("connect = [", &["policy.toml", "line 1"][..]),
            ("conect = []", &["conect", "connect"]),
            ("connect = 'a'", &["sequence"]),
            ("connect = ['a b']", &["connect", "`a b`"]),
            ("listen = ['localhost:80']", &["listen", "number"]),
            ("dirs = ['data']", &["dirs", "HOST:GUEST"]),
            ("dirs = ['a:/x', 'b:/x']", &["two directories", "/x"]),
            ("unix = ['a.sock']", &["a.sock", "absolute"]),
            ("limits.speed = 1", &["limits", "speed", "cpu-time"]),
            ("limits.cpu-time = 5", &["limits", "cpu-time", "500ms"]),
            ("limits.log = [1]", &["policy.toml", "64M"]),
        ] {
            let error = read(text).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{word}: {error}");
            }
        }
    }
}
