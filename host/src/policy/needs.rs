//! What a policy takes of the process as a whole.

use std::collections::BTreeSet;

use super::grant::Hosts;
use super::{DirGrant, Policy};

/// Ports of one protocol and direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    Any,
    These(BTreeSet<u16>),
}

impl Ports {
    /// Whether there is no port.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::These(ports) if ports.is_empty())
    }
}

impl Policy {
    /// Ports of others to which TCP connections may be granted, whosever they are.
    pub(crate) fn connect_ports(&self) -> Ports {
        let ports: Option<BTreeSet<u16>> = self.connect.iter().map(|to| to.port).collect();
        ports.map_or(Ports::Any, Ports::These)
    }

    /// Own ports at which TCP connections may be taken; zero for ports of the host's choice.
    pub(crate) fn listen_ports(&self) -> BTreeSet<u16> {
        self.listen.iter().map(|on| on.0.port()).collect()
    }

    /// Whether datagrams are granted.
    pub(crate) fn has_udp(&self) -> bool {
        !self.udp.is_empty() || !self.udp_bind.is_empty()
    }

    /// Whether names may have to be resolved.
    pub(crate) fn has_names(&self) -> bool {
        let mut targets = self.connect.iter().chain(&self.udp);
        !self.resolve.is_empty() || targets.any(|to| matches!(to.hosts, Hosts::Names(_)))
    }

    /// Whether anything may be written to a directory.
    pub(crate) fn has_writable_dirs(&self) -> bool {
        self.dirs.iter().any(DirGrant::is_writable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_on_any_port_opens_all() {
        let one = Policy::new().allow_connect("10.0.0.0/8:80".parse().unwrap());
        assert_eq!(one.connect_ports(), Ports::These([80].into()));
        assert!(!one.has_names());
        let all = one.allow_connect("a.test".parse().unwrap());
        assert_eq!(all.connect_ports(), Ports::Any);
        assert!(all.has_names());
        assert!(Policy::new().connect_ports().is_none());
    }
}
