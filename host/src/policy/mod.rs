//! What a sandbox may reach. Nothing, unless it is granted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use wakebox_abi::status::Status;

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A DNS name in lower case, or an IP address in its shortest form, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Text that is not `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not HOST:PORT: {why}")]
pub struct InvalidHostPort {
    text: String,
    why: &'static str,
}

impl FromStr for HostPort {
    type Err = InvalidHostPort;

    fn from_str(text: &str) -> Result<Self, InvalidHostPort> {
        let wrong = |why| InvalidHostPort {
            text: text.escape_debug().to_string(),
            why,
        };
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("there is no port; write it like localhost:8080"))?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = digits
            .then(|| port.parse().ok())
            .flatten()
            .ok_or_else(|| wrong("the port is a number from 0 to 65535"))?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) => match inner.parse() {
                Ok(IpAddr::V6(ip)) => ip.to_string(),
                _ => return Err(wrong("in brackets stands an IPv6 address")),
            },
            None if host.is_empty() => return Err(wrong("there is no host before the colon")),
            None if host.contains(':') => {
                return Err(wrong("an IPv6 address stands in brackets, like [::1]:80"));
            }
            None => match host.parse::<IpAddr>() {
                Ok(ip) => ip.to_string(),
                Err(_) if is_name(host) => host.to_ascii_lowercase(),
                Err(_) => return Err(wrong("the host is neither a name nor an address")),
            },
        };
        Ok(Self { host, port })
    }
}

/// Letters, digits, hyphens, underscores and dots, at most 253 of them. A name made of digits
/// and dots alone would be read as a number by some resolvers, and is none.
fn is_name(host: &str) -> bool {
    host.len() <= 253
        && host
            .split('.')
            .all(|label| !label.is_empty() && label.len() <= 63)
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a sandbox may reach. The default grants nothing.
///
/// ```
/// # fn main() -> Result<(), wakebox::policy::InvalidHostPort> {
/// let policy = wakebox::Policy::new()
///     .allow_connect("api.example.com:443".parse()?)
///     .allow_listen("127.0.0.1:8080".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Policy {
    connect: Vec<HostPort>,
    listen: Vec<HostPort>,
    refusals: AtomicU64,
}

impl Clone for Policy {
    /// The same grants, with no refusals counted.
    fn clone(&self) -> Self {
        Self {
            connect: self.connect.clone(),
            listen: self.listen.clone(),
            refusals: AtomicU64::new(0),
        }
    }
}

impl Policy {
    /// Grants nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Grants TCP connections to this host and port. The guest must name the host as the grant
    /// does: a grant for a name is none for the addresses that it stands for.
    #[must_use]
    pub fn allow_connect(mut self, to: HostPort) -> Self {
        self.connect.push(to);
        self
    }

    /// Grants listening on this address and port; port 0 grants ports of the host's choice.
    #[must_use]
    pub fn allow_listen(mut self, on: HostPort) -> Self {
        self.listen.push(on);
        self
    }

    pub(crate) fn may_connect(&self, to: &HostPort) -> bool {
        self.connect.contains(to)
    }

    pub(crate) fn may_listen(&self, on: &HostPort) -> bool {
        self.listen.contains(on)
    }

    /// Counts a refusal and says so; returns what the guest is told.
    pub(crate) fn refused(&self, what: &str, target: &HostPort) -> Status {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        tracing::info!(what, %target, "refused by policy");
        Status::PermissionDenied
    }

    /// Refusals so far.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_in_one_form() {
        for (text, shown) in [
            ("Example.COM:80", "example.com:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[0:0::1]:65535", "[::1]:65535"),
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            ":",
            "host",
            "host:",
            ":80",
            "host:65536",
            "host:-1",
            "host:+1",
            "::1:80",
            "[127.0.0.1]:80",
            "a b:80",
            "a..b:80",
            "1.2.3:80",
            "host:80:90",
            "\0:1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_granted_is_refused() {
        let policy = Policy::new()
            .allow_connect("localhost:80".parse().unwrap())
            .allow_listen("127.0.0.1:80".parse().unwrap());
        let may = |text: &str| policy.may_connect(&text.parse().unwrap());
        assert!(may("LOCALHOST:80"));
        assert!(!may("localhost:81") && !may("127.0.0.1:80") && !may("localhost.evil:80"));
        assert!(!policy.may_listen(&"0.0.0.0:80".parse().unwrap()));
    }
}
