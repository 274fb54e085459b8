//! What a sandbox may reach, which is nothing unless it is granted, and how much it may use.
//!
//! A [`Policy`] is a value: built in code, read from a file (`file.rs`), or made of the
//! command's options. How a running sandbox's requests are held against it, and refusals
//! counted, is `check.rs`.

pub(crate) mod check;
mod describe;
#[cfg(feature = "policy-file")]
mod file;
mod grant;
#[cfg(feature = "jail")]
pub(crate) mod needs;
pub(crate) mod zone;

use std::path::{Component, PathBuf};

use crate::error::{Error, Result};
use crate::limits::Limits;

#[cfg(feature = "policy-file")]
pub use self::file::PolicyFileError;
pub use self::grant::{
    DirGrant, FunctionPattern, HostPort, InvalidGrant, LocalAddress, NamePattern, Target, Variable,
};

/// What a sandbox may reach, and how much it may use. The default grants nothing.
///
/// Grants only add: what one allows, no other takes away. [`Limits`] have defaults.
///
/// ```
/// # fn main() -> Result<(), wakebox::policy::InvalidGrant> {
/// let policy = wakebox::Policy::new()
///     .allow_connect("api.example.com:443".parse()?)
///     .allow_listen("127.0.0.1:8080".parse()?)
///     .allow_dir("/srv/site:/site:ro".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    connect: Vec<Target>,
    listen: Vec<LocalAddress>,
    udp: Vec<Target>,
    udp_bind: Vec<LocalAddress>,
    unix: Vec<PathBuf>,
    resolve: Vec<NamePattern>,
    dirs: Vec<DirGrant>,
    env: Vec<Variable>,
    functions: Vec<FunctionPattern>,
    limits: Limits,
}

impl Policy {
    /// Grants nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Grants TCP connections to these hosts. See [`Target`] for what a name covers.
    #[must_use]
    pub fn allow_connect(mut self, to: Target) -> Self {
        self.connect.push(to);
        self
    }

    /// Grants listening on this TCP address; port 0 grants ports of the host's choice.
    #[must_use]
    pub fn allow_listen(mut self, on: LocalAddress) -> Self {
        self.listen.push(on);
        self
    }

    /// Grants UDP datagrams to and from these hosts. Datagrams from others are dropped, whatever
    /// the socket. With any such grant the guest may bind ports of the host's choice.
    #[must_use]
    pub fn allow_udp(mut self, with: Target) -> Self {
        self.udp.push(with);
        self
    }

    /// Grants binding this UDP address and port. With whom the guest may exchange datagrams there
    /// is for [`Self::allow_udp`] to say.
    #[must_use]
    pub fn allow_udp_bind(mut self, on: LocalAddress) -> Self {
        self.udp_bind.push(on);
        self
    }

    /// Grants connections to the Unix stream socket at this absolute path of the host. The way to it
    /// must not lead through a directory that is granted for writing, where the guest could put
    /// another socket in its place: that is an error when the sandbox is built.
    #[must_use]
    pub fn allow_unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix.push(path.into());
        self
    }

    /// Grants resolving these names, also if no connection to them is granted.
    #[must_use]
    pub fn allow_resolve(mut self, names: NamePattern) -> Self {
        self.resolve.push(names);
        self
    }

    /// Grants a directory of the host. Where paths of the guest lie in one another, the longest
    /// counts.
    ///
    /// When the sandbox is built, these are errors: two directories at the same path; a directory for
    /// reading only that lies in one for writing, or is that one, however they are called; a path
    /// under which another grant has something else already, other than an empty directory. A
    /// directory for writing may lie in one for reading only.
    #[must_use]
    pub fn allow_dir(mut self, directory: DirGrant) -> Self {
        self.dirs.push(directory);
        self
    }

    /// Puts a variable into the guest's environment. The last one of a name counts.
    #[must_use]
    pub fn allow_env(mut self, variable: Variable) -> Self {
        self.env.push(variable);
        self
    }

    /// Narrows the host functions that may be called to these. Giving a function to a sandbox
    /// ([`Builder::host_fn`](crate::Builder::host_fn)) is a grant by itself, as long as the policy
    /// names none.
    #[must_use]
    pub fn allow_fn(mut self, functions: FunctionPattern) -> Self {
        self.functions.push(functions);
        self
    }

    /// Limits how much the sandbox may use. Of two that are given, the stricter counts.
    #[must_use]
    pub fn limit(mut self, limits: Limits) -> Self {
        self.limits = self.limits.and(&limits);
        self
    }

    /// How much the sandbox may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Adds all that another policy grants, and limits what either limits.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.connect.extend(other.connect);
        self.listen.extend(other.listen);
        self.udp.extend(other.udp);
        self.udp_bind.extend(other.udp_bind);
        self.unix.extend(other.unix);
        self.resolve.extend(other.resolve);
        self.dirs.extend(other.dirs);
        self.env.extend(other.env);
        self.functions.extend(other.functions);
        self.limits = self.limits.and(&other.limits);
        self
    }

    /// Whether a host function of this name may be called.
    #[must_use]
    pub fn may_call(&self, function: &str) -> bool {
        let mut named = self.functions.iter();
        self.functions.is_empty() || named.any(|pattern| pattern.matches(function))
    }

    /// Looks for grants that contradict each other or cannot be.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with a sentence.
    pub fn validate(&self) -> Result<()> {
        for (index, one) in self.dirs.iter().enumerate() {
            if let Some(other) = self.dirs[..index]
                .iter()
                .find(|other| other.guest() == one.guest())
            {
                return Err(Error::Setting(format!(
                    "two directories are granted as {}: {} and {}",
                    one.guest(),
                    other.host().display(),
                    one.host().display()
                )));
            }
        }
        for path in &self.unix {
            let is_plain = path.is_absolute()
                && path
                    .components()
                    .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            if !is_plain || path.to_str().is_none_or(|path| path.contains('\0')) {
                return Err(Error::Setting(format!(
                    "{} is not the path of a socket: it is absolute and has no part `..`",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// The directories that are granted.
    pub(crate) fn dirs(&self) -> &[DirGrant] {
        &self.dirs
    }

    /// Unix sockets that may be connected to.
    pub(crate) fn unix(&self) -> &[PathBuf] {
        &self.unix
    }

    /// The guest's environment.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`]: a variable is to have the host's value, and the host has none that is
    /// text.
    pub fn environment(&self) -> Result<Vec<(String, String)>> {
        let mut variables: Vec<(String, String)> = Vec::new();
        for Variable { name, value } in &self.env {
            let value = match value {
                Some(value) => value.clone(),
                None => std::env::var(name).map_err(|error| {
                    Error::Setting(format!("the variable {name} cannot be passed on: {error}"))
                })?,
            };
            variables.retain(|(known, _)| known != name);
            variables.push((name.clone(), value));
        }
        Ok(variables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_grants_at_one_path_are_an_error_and_nested_ones_are_not() {
        let dir = |text: &str| text.parse::<DirGrant>().unwrap();
        let nested = Policy::new()
            .allow_dir(dir("a:/data"))
            .allow_dir(dir("b:/data/b:ro"));
        assert!(nested.validate().is_ok());
        let error = nested.allow_dir(dir("c:/data/b/")).validate().unwrap_err();
        assert!(error.to_string().contains("/data/b"), "{error}");
    }

    #[test]
    fn a_unix_socket_is_granted_by_an_absolute_path() {
        for path in ["run/a.sock", "/run/../a.sock", ""] {
            assert!(Policy::new().allow_unix(path).validate().is_err(), "{path}");
        }
        assert!(Policy::new().allow_unix("/run/a.sock").validate().is_ok());
    }

    #[test]
    fn the_last_variable_of_a_name_counts() {
        let policy = Policy::new()
            .allow_env("A=1".parse().unwrap())
            .allow_env("A=2".parse().unwrap());
        assert_eq!(policy.environment().unwrap(), [("A".into(), "2".into())]);
        let missing = Policy::new().allow_env("WAKEBOX_NO_SUCH_VARIABLE".parse().unwrap());
        let error = missing.environment().unwrap_err().to_string();
        assert!(error.contains("WAKEBOX_NO_SUCH_VARIABLE"), "{error}");
    }

    #[test]
    fn functions_are_granted_by_name() {
        let policy = Policy::new().allow_fn("kv.*".parse().unwrap());
        assert!(policy.may_call("kv.get") && !policy.may_call("exec"));
        assert!(Policy::new().may_call("whatever the program gives"));
    }
}
