//! The parts of a policy, and how they are written.
//!
//! Every part has one written form, which is that of the command's options, of policy files
//! and of error messages.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;

use super::zone;

/// Text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {form}: {why}")]
pub struct InvalidGrant {
    text: String,
    form: &'static str,
    why: &'static str,
}

/// Makes errors about one text.
fn wrong(text: &str, form: &'static str) -> impl Fn(&'static str) -> InvalidGrant {
    move |why| InvalidGrant {
        text: text.escape_debug().to_string(),
        form,
        why,
    }
}

const NO_PORT: &str = "the port is a number from 0 to 65535";
const NO_HOST: &str = "there is no host before the colon";
const NO_NAME: &str = "the host is neither a name nor an address";
const NO_BRACKETS: &str = "an IPv6 address stands in brackets, like [::1]:80";
const BAD_BRACKETS: &str = "in brackets stands an IPv6 address";
const BAD_ZONE: &str = "a zone is the name or number of an interface, as in [fe80::1%eth0]:80";

/// A host, by name or number, and a port: what a guest asks to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A DNS name in lower case without a dot at its end, or an IP address in its shortest form, without
    /// brackets. A link-local address may have a zone, as in `fe80::1%eth0`; with others a zone means
    /// nothing, and is left out.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// The host as an address, if it is not a name. An IPv6 address that stands for an IPv4 address
    /// is that.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let ip = self.host.split('%').next().unwrap_or_default();
        let ip: IpAddr = ip.parse().ok()?;
        Some(ip.to_canonical())
    }

    /// The zone of an address that has one: the name of a network interface, or its number.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.host.split_once('%').map(|(_, zone)| zone)
    }
}

impl FromStr for HostPort {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let wrong = wrong(text, "HOST:PORT");
        let (host, port) = text
            .rsplit_once(':')
            .ok_or_else(|| wrong("there is no port; write it like localhost:8080"))?;
        let port = parse_port(port).ok_or_else(|| wrong(NO_PORT))?;
        let host = parse_host(host).map_err(wrong)?;
        Ok(Self { host, port })
    }
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

fn parse_port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A name, an IPv4 address, or an IPv6 address in brackets, in the form that is compared.
fn parse_host(host: &str) -> Result<String, &'static str> {
    if let Some(inner) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        let (ip, zone) = match inner.split_once('%') {
            Some((ip, zone)) => (ip, Some(zone)),
            None => (inner, None),
        };
        let ip: Ipv6Addr = ip.parse().map_err(|_| BAD_BRACKETS)?;
        return match zone {
            Some(zone) if !zone::is_zone(zone) => Err(BAD_ZONE),
            Some(zone) if zone::needs_zone(ip) => Ok(format!("{ip}%{zone}")),
            _ => Ok(ip.to_string()),
        };
    }
    if host.is_empty() {
        return Err(NO_HOST);
    }
    if host.contains(':') {
        return Err(NO_BRACKETS);
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let name = without_dot(host);
    match is_name(name) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(NO_NAME),
    }
}

/// A name without the dot at its end that says that nothing is to be added: it is the same name.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Letters, digits, hyphens, underscores and dots, at most 253 of them. A name made of digits
/// and dots alone would be read as a number by some resolvers, and is none.
pub(super) fn is_name(host: &str) -> bool {
    host.len() <= 253
        && host
            .split('.')
            .all(|label| !label.is_empty() && label.len() <= 63)
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && host.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Names of hosts: `example.com`, `*.example.com` for all names beneath it but not itself, or
/// `*` for all names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether a name in lower case is one of them.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let name = without_dot(name);
        match self.0.strip_prefix('*') {
            Some("") => true,
            // The rest begins with a dot, and names do not.
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => self.0 == name,
        }
    }
}

impl FromStr for NamePattern {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let lower = match text {
            "*." => text.into(),
            text => without_dot(text).to_ascii_lowercase(),
        };
        if lower == "*" || is_name(lower.strip_prefix("*.").unwrap_or(&lower)) {
            Ok(Self(lower))
        } else {
            let why =
                "a pattern is a name like example.com, *.example.com for all beneath it, or *";
            Err(wrong(text, "PATTERN")(why))
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which hosts a [`Target`] covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Hosts {
    /// Those that the guest calls by these names, at public addresses.
    Names(NamePattern),
    /// Those with these addresses, however the guest calls them, on whichever interface.
    Network(IpNet),
    /// The one with a link-local address on an interface, by its name or number.
    Zone(Ipv6Addr, String),
}

/// Hosts and a port, or all ports: `example.com:443`, `*.example.com`, `10.0.0.0/8:5432`,
/// `127.0.0.1`, `[::1]:80`, `fd00::/8`, `[fe80::1%eth0]:80`.
///
/// A link-local address without a zone is that address on every interface.
///
/// A grant for a name covers the addresses that the host's resolver gives for it, if they are
/// public. One that is not (loopback, private, link-local, multicast and the like) has to be
/// granted itself, so that whoever runs a name server cannot point a granted name into the
/// host's own network. The names `localhost` and `*.localhost` cover loopback addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pub(super) hosts: Hosts,
    pub(super) port: Option<u16>,
}

impl Target {
    /// Whether it covers an address. One of IPv6 that stands for one of IPv4 is that.
    pub(super) fn covers(&self, address: SocketAddr) -> bool {
        let covers = match (&self.hosts, address) {
            (Hosts::Network(net), _) => net.contains(&address.ip().to_canonical()),
            (Hosts::Zone(ip, zone), SocketAddr::V6(address)) => {
                address.ip() == ip && zone::index_of(zone) == Some(address.scope_id())
            }
            _ => false,
        };
        covers && self.covers_port(address.port())
    }

    /// Whether it covers a name with this port.
    pub(super) fn covers_name(&self, name: &str, port: u16) -> bool {
        self.covers_port(port) && self.names(name)
    }

    /// Whether it covers a name with any port.
    pub(super) fn names(&self, name: &str) -> bool {
        matches!(&self.hosts, Hosts::Names(pattern) if pattern.matches(name))
    }

    fn covers_port(&self, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
    }
}

impl FromStr for Target {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let wrong = wrong(text, "HOST[:PORT] or CIDR[:PORT]");
        if let Some((ip, rest)) = text.split_once('/') {
            let (bits, port) = split_port(rest).map_err(&wrong)?;
            let ip = ip
                .strip_prefix('[')
                .and_then(|ip| ip.strip_suffix(']'))
                .unwrap_or(ip);
            let net = ip
                .parse::<IpAddr>()
                .ok()
                .zip(bits.parse().ok())
                .and_then(|(ip, bits)| IpNet::new(ip, bits).ok())
                .ok_or_else(|| wrong("a network is written like 10.0.0.0/8 or fd00::/8"))?;
            let hosts = Hosts::Network(net.trunc());
            return Ok(Self { hosts, port });
        }
        let (host, port) = match text.rfind(']') {
            Some(end) if text.starts_with('[') => {
                let (host, rest) = text.split_at(end + 1);
                match split_port(rest).map_err(&wrong)? {
                    ("", port) => (host, port),
                    _ => return Err(wrong(BAD_BRACKETS)),
                }
            }
            _ if text.matches(':').count() > 1 => return Err(wrong(NO_BRACKETS)),
            _ => split_port(text).map_err(&wrong)?,
        };
        let hosts = if host.starts_with("*.") {
            Hosts::Names(host.parse().map_err(|_| wrong(NO_NAME))?)
        } else {
            let host = parse_host(host).map_err(&wrong)?;
            let zoned = host.split_once('%');
            match (
                zoned.map(|(ip, zone)| (ip.parse(), zone)),
                host.parse::<IpAddr>(),
            ) {
                (Some((Ok(ip), zone)), _) => Hosts::Zone(ip, zone.into()),
                (_, Ok(ip)) => Hosts::Network(ip.to_canonical().into()),
                (_, Err(_)) => Hosts::Names(NamePattern(host)),
            }
        };
        Ok(Self { hosts, port })
    }
}

/// What stands before a colon, and the port behind it.
fn split_port(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((before, port)) => Ok((before, Some(parse_port(port).ok_or(NO_PORT)?))),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Names(pattern) => write!(f, "{pattern}")?,
            Hosts::Zone(ip, zone) => write!(f, "[{ip}%{zone}]")?,
            Hosts::Network(net) => {
                let single = net.prefix_len() == net.max_prefix_len();
                match (net.addr(), single) {
                    (IpAddr::V4(ip), true) => write!(f, "{ip}")?,
                    (IpAddr::V6(ip), true) => write!(f, "[{ip}]")?,
                    _ => write!(f, "{net}")?,
                }
            }
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// An address of this host and a port: `127.0.0.1:8080`, `[::]:53`. Port 0 stands for ports of
/// the host's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddress(pub SocketAddr);

impl FromStr for LocalAddress {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        const FORM: &str = "ADDR:PORT";
        let wrong = wrong(text, FORM);
        let on: HostPort = text.parse().map_err(|error| InvalidGrant {
            form: FORM,
            ..error
        })?;
        let ip = on.ip();
        let ip = ip.ok_or_else(|| wrong("the address is a number, like 127.0.0.1"))?;
        Ok(Self(match (ip, on.zone()) {
            (IpAddr::V6(ip), Some(zone)) => {
                let index = zone::index_of(zone);
                let index = index.ok_or_else(|| wrong("there is no such network interface"))?;
                SocketAddrV6::new(ip, on.port, 0, index).into()
            }
            _ => SocketAddr::new(ip, on.port),
        }))
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A directory of the host that the guest sees under a path of its own: `HOST:GUEST`,
/// `HOST:GUEST:ro` for reading only, or `HOST:GUEST:links` in which it may make symbolic links, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirGrant {
    host: PathBuf,
    guest: String,
    changes: Changes,
}

/// What a guest may change in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Changes {
    Nothing,
    Files,
    FilesAndLinks,
}

impl Changes {
    /// How each is written, the usual one without.
    const ENDS: [(&str, Self); 3] = [
        (":ro", Self::Nothing),
        (":rw", Self::Files),
        (":links", Self::FilesAndLinks),
    ];
}

impl DirGrant {
    /// A directory for reading and writing. The guest's path is absolute.
    ///
    /// # Errors
    ///
    /// The guest's path is not absolute, or has a component `.` or `..` or a NUL.
    pub fn new(host: impl Into<PathBuf>, guest: &str) -> Result<Self, InvalidGrant> {
        let wrong = wrong(guest, "a path for the guest");
        if !guest.starts_with('/') {
            return Err(wrong("it begins with a slash, like /data"));
        }
        let mut path = String::new();
        for part in guest.split('/').filter(|part| !part.is_empty()) {
            if matches!(part, "." | "..") || part.contains('\0') {
                return Err(wrong("it has no part `.` or `..`, and no NUL"));
            }
            path.push('/');
            path.push_str(part);
        }
        Ok(Self {
            host: host.into(),
            guest: path,
            changes: Changes::Files,
        })
    }

    /// The same for reading only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.changes = Changes::Nothing;
        self
    }

    /// The same for reading and writing, with symbolic links. None leads a guest to what is not granted; but
    /// programs of the host that read the directory follow them wherever they lead.
    #[must_use]
    pub fn with_links(mut self) -> Self {
        self.changes = Changes::FilesAndLinks;
        self
    }

    /// The directory.
    #[must_use]
    pub fn host(&self) -> &Path {
        &self.host
    }

    /// The guest's path for it, without a slash at the end: empty for the root.
    #[must_use]
    pub(crate) fn prefix(&self) -> &str {
        &self.guest
    }

    /// The guest's path for it.
    #[must_use]
    pub fn guest(&self) -> &str {
        if self.guest.is_empty() {
            "/"
        } else {
            &self.guest
        }
    }

    /// Whether the guest may change what is in it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.changes != Changes::Nothing
    }

    /// Whether the guest may make symbolic links in it.
    #[must_use]
    pub fn has_links(&self) -> bool {
        self.changes == Changes::FilesAndLinks
    }

    /// The same, with a relative path of the host taken from `base`.
    #[cfg(feature = "policy-file")]
    #[must_use]
    pub(crate) fn relative_to(mut self, base: &Path) -> Self {
        self.host = base.join(self.host);
        self
    }
}

impl FromStr for DirGrant {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        const FORM: &str = "HOST:GUEST[:ro|:links]";
        let wrong = wrong(text, FORM);
        let mut ends = Changes::ENDS.iter();
        let end = ends.find_map(|(end, changes)| Some((text.strip_suffix(end)?, *changes)));
        let (paths, changes) = end.unwrap_or((text, Changes::Files));
        let (host, guest) = paths
            .rsplit_once(':')
            .ok_or_else(|| wrong("write it like ./data:/data or /etc/app:/config:ro"))?;
        if host.is_empty() {
            return Err(wrong("there is no directory before the colon"));
        }
        let grant = Self::new(host, guest).map_err(|error| wrong(error.why))?;
        Ok(Self { changes, ..grant })
    }
}

impl fmt::Display for DirGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.changes {
            Changes::Nothing => ":ro",
            Changes::Files => "",
            Changes::FilesAndLinks => ":links",
        };
        write!(f, "{}:{}{end}", self.host.display(), self.guest())
    }
}

/// A variable for the guest's environment: `NAME=value`, or `NAME` alone for the value that it has
/// here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variable {
    pub(super) name: String,
    /// `None` takes the host's.
    pub(super) value: Option<String>,
}

impl FromStr for Variable {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.into())),
            None => (text, None),
        };
        if name.is_empty() || text.contains('\0') {
            return Err(wrong(text, "NAME[=VALUE]")(
                "a variable has a name, and no NUL",
            ));
        }
        Ok(Self {
            name: name.into(),
            value,
        })
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Names of host functions: `kv.get`, or all that begin alike: `kv.*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FunctionPattern(String);

impl FunctionPattern {
    /// Whether a name is one of them.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => self.0 == name,
        }
    }
}

impl FromStr for FunctionPattern {
    type Err = InvalidGrant;

    fn from_str(text: &str) -> Result<Self, InvalidGrant> {
        let beginning = text.strip_suffix('*').unwrap_or(text);
        if text.is_empty() || beginning.contains(['*', '\0']) {
            return Err(wrong(text, "a function's name")(
                "write it like kv.get, or kv.* for all that begin with `kv.`",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for FunctionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
