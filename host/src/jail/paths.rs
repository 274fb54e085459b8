//! Landlock: which files can be opened, and which TCP ports used.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope, make_bitflags,
    path_beneath_rules,
};

use super::Jail;
use crate::policy::needs::Ports;

/// What is refused unless a rule allows it, as far as the kernel knows it. Later versions of
/// Landlock can refuse more; what they would is taken up here when it has been tried.
const KNOWN: ABI = ABI::V6;

/// What reading takes. Nothing may be executed.
fn reading() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

/// What reading and changing takes: guests make regular files and directories.
fn changing() -> BitFlags<AccessFs> {
    reading()
        | make_bitflags!(AccessFs::{
            WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer
        })
}

/// What KVM's device takes, if it has to be opened again.
fn device() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev})
}

/// Files by which the C library resolves names, if they are there.
const RESOLVING: [&str; 6] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/services",
];

/// The port of name servers, which are asked by TCP when an answer is long.
const DOMAIN: u16 = 53;

/// Restricts this thread, and those that it starts, to what a jail grants.
///
/// # Errors
///
/// What the kernel says of a rule that it should know.
pub(super) fn restrict(jail: &Jail) -> Result<(), RulesetError> {
    let connect = jail.policy.connect_ports();
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(KNOWN))?;
    if connect != Ports::Any {
        rules = rules.handle_access(AccessNet::ConnectTcp)?;
    }
    let mut rules = rules.create()?;
    rules = beneath(rules, ["/dev/kvm"], device())?;
    rules = beneath(rules, &jail.read, reading())?;
    rules = beneath(rules, &jail.write, changing())?;
    for dir in jail.policy.dirs() {
        let access = match (dir.is_writable(), dir.has_links()) {
            (false, _) => reading(),
            (true, false) => changing(),
            (true, true) => changing() | AccessFs::MakeSym,
        };
        rules = beneath(rules, [dir.host()], access)?;
    }
    if jail.policy.has_names() {
        rules = beneath(rules, RESOLVING, reading())?;
        rules = beneath(rules, resolver_directory(), reading())?;
    }
    for port in jail.policy.listen_ports() {
        rules = rules.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    if let Ports::These(mut ports) = connect {
        if jail.policy.has_names() {
            ports.insert(DOMAIN);
        }
        for port in ports {
            rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
    }
    // What is in force is what the kernel has: `Kernel::missing` says so from the same version.
    rules.restrict_self()?;
    Ok(())
}

/// Grants these paths, if they are there. Rights that only directories have are left out for files.
fn beneath(
    rules: RulesetCreated,
    paths: impl IntoIterator<Item = impl AsRef<Path>>,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    rules.add_rules(path_beneath_rules(paths, access))
}

/// The directory beneath `/run` where a service keeps `resolv.conf`, if that is a link. Such services put a new file into
/// its place now and then, which a grant for the old one would not cover.
fn resolver_directory() -> Option<PathBuf> {
    let file = fs::canonicalize("/etc/resolv.conf").ok()?;
    let directory = file.parent()?;
    let is_its_own = directory.parent()?.starts_with("/run");
    is_its_own.then(|| directory.to_owned())
}
