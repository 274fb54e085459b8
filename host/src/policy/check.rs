//! A sandbox's requests, held against its policy.
//!
//! # Names and addresses
//!
//! A name means what somebody else's name server says, so a grant for a name is a grant for the
//! *public* addresses behind it, and the address that a connection goes to is checked after
//! it was resolved, by whoever connects to it: there is no second resolution in between.
//!
//! Many libraries resolve a name first and connect to a number afterwards. So an address that was
//! resolved for a name, in this sandbox, counts as that name: it can be reached under the
//! name's grants, and the rules for names apply to it.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use wakebox_abi::status::Status;

use super::{LocalAddress, Policy, Target};
use crate::text::Quoted;

/// Declares [`Refusal`] with its names.
macro_rules! refusals {
    ($($(#[$doc:meta])* $kind:ident $name:literal,)*) => {
        /// A kind of request that can be refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Refusal {
            $($(#[$doc])* $kind,)*
        }

        impl Refusal {
            /// All kinds, in the order of their numbers.
            const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// The name, as statistics and events have it.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

refusals! {
    /// A TCP connection.
    Connect "connect",
    /// Listening for TCP connections.
    Listen "listen",
    /// A UDP datagram to or from somebody.
    Udp "udp",
    /// Binding a UDP port.
    UdpBind "udp bind",
    /// A connection to a Unix socket.
    Unix "unix",
    /// Resolving a name.
    Resolve "resolve",
    /// Something with a path.
    File "file",
    /// A call of a host function.
    Call "call",
}

/// Which list of [`Target`]s counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// Most refusals of a sandbox that are said: a guest can ask for what it does not get as often as it
/// likes.
const TOLD_MAX: u64 = 256;

/// Most resolved addresses that are remembered; the oldest are forgotten.
const LEARNED_MAX: usize = 512;

/// A policy at work in one sandbox.
#[derive(Debug)]
pub(crate) struct Guard {
    policy: Policy,
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// Those that were said.
    told: AtomicU64,
    /// Addresses that were resolved, with the names that they were resolved for.
    learned: Mutex<VecDeque<(IpAddr, String)>>,
}

impl Guard {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            refusals: [const { AtomicU64::new(0) }; Refusal::ALL.len()],
            told: AtomicU64::new(0),
            learned: Mutex::default(),
        }
    }

    /// Counts a refusal and says so, unless it has said so often enough; returns what the guest is
    /// told.
    pub(crate) fn refuse(&self, kind: Refusal, target: impl fmt::Display) -> Status {
        self.refusals[kind as usize].fetch_add(1, Ordering::Relaxed);
        let kind_name = kind.name();
        match self.told.fetch_add(1, Ordering::Relaxed) {
            told if told < TOLD_MAX => {
                let target = Quoted(target);
                tracing::info!(target: "wakebox::policy", kind = kind_name, %target, "refused by policy");
            }
            TOLD_MAX => {
                tracing::info!(target: "wakebox::policy", "further refusals are only counted");
            }
            _ => {}
        }
        crate::telemetry::refused(kind.name());
        Status::PermissionDenied
    }

    /// Whether a host function of this name may be called.
    pub(crate) fn may_call(&self, function: &str) -> bool {
        self.policy.may_call(function)
    }

    /// Refusals so far, by kind; only kinds that occurred.
    pub(crate) fn refusals(&self) -> Vec<(&'static str, u64)> {
        Refusal::ALL
            .iter()
            .map(|kind| {
                (
                    kind.name(),
                    self.refusals[*kind as usize].load(Ordering::Relaxed),
                )
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    fn targets(&self, protocol: Protocol) -> &[Target] {
        match protocol {
            Protocol::Tcp => &self.policy.connect,
            Protocol::Udp => &self.policy.udp,
        }
    }

    /// Whether anybody may be reached.
    pub(crate) fn grants_any(&self, protocol: Protocol) -> bool {
        !self.targets(protocol).is_empty()
    }

    /// Whether a name may be resolved: a connection to it could be allowed, or resolving is granted.
    pub(crate) fn may_resolve(&self, name: &str) -> bool {
        self.policy
            .resolve
            .iter()
            .any(|pattern| pattern.matches(name))
            || [Protocol::Tcp, Protocol::Udp]
                .iter()
                .any(|protocol| self.targets(*protocol).iter().any(|to| to.names(name)))
    }

    /// Takes note of what a name was resolved to.
    pub(crate) fn learn(&self, name: &str, addresses: &[IpAddr]) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        for ip in addresses.iter().map(IpAddr::to_canonical) {
            learned.retain(|(known, of)| (*known, of.as_str()) != (ip, name));
            learned.push_back((ip, name.into()));
        }
        let too_many = learned.len().saturating_sub(LEARNED_MAX);
        learned.drain(..too_many);
    }

    /// Whether an address may be reached, to which `name` was resolved or, without one, which the
    /// guest has named itself.
    pub(crate) fn may_reach(
        &self,
        protocol: Protocol,
        name: Option<&str>,
        address: SocketAddr,
    ) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let targets = self.targets(protocol);
        if targets.iter().any(|target| target.covers(address)) {
            return true;
        }
        let covered = |name: &str| {
            name_may_mean(name, ip) && targets.iter().any(|to| to.covers_name(name, port))
        };
        match name {
            Some(name) => covered(name),
            None => {
                let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
                learned
                    .iter()
                    .any(|(known, name)| *known == ip && covered(name))
            }
        }
    }

    /// Whether anything may be listened on by TCP.
    pub(crate) fn grants_listening(&self) -> bool {
        !self.policy.listen.is_empty()
    }

    /// Whether any UDP address may be bound.
    pub(crate) fn grants_binding(&self) -> bool {
        self.grants_any(Protocol::Udp) || !self.policy.udp_bind.is_empty()
    }

    /// Whether a TCP address may be listened on.
    pub(crate) fn may_listen(&self, on: LocalAddress) -> bool {
        self.policy.listen.contains(&on)
    }

    /// Whether a UDP address may be bound.
    pub(crate) fn may_bind_udp(&self, on: LocalAddress) -> bool {
        let any_port = on.0.port() == 0 && self.grants_any(Protocol::Udp);
        any_port || self.policy.udp_bind.contains(&on)
    }

    /// Whether a Unix socket may be connected to.
    pub(crate) fn may_connect_unix(&self, path: &str) -> bool {
        // Compared as text: what the path means was the grantor's to know.
        self.policy
            .unix
            .iter()
            .any(|granted| granted.as_path() == Path::new(path))
    }

    /// What is granted.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// Whether a granted name may stand for an address: a public one, or a loopback address for a
/// name that never means anything else (RFC 6761, 6.3).
fn name_may_mean(name: &str, ip: IpAddr) -> bool {
    let is_local = name == "localhost" || name.ends_with(".localhost");
    is_public(ip) || is_local && ip.is_loopback()
}

/// Whether an address is one of the Internet at large: in none of the special-purpose ranges of
/// the IANA registries (RFC 6890), and no IPv6 form of an IPv4 address in one.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match embedded_v4(ip) {
            Some(inner) => is_public_v4(inner),
            None => is_public_v6(ip),
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)    // this network, private, loopback, multicast, reserved
            | (100, 64..=127, _)            // shared by carriers
            | (169, 254, _)                 // link-local, where clouds keep credentials
            | (172, 16..=31, _)             // private
            | (192, 168, _)                 // private
            | (192, 0, 0 | 2)               // protocol assignments, documentation
            | (192, 88, 99)                 // 6to4 relays
            | (198, 18..=19, _)             // benchmarks
            | (198, 51, 100)                // documentation
            | (203, 0, 113) // documentation
    );
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    // All global unicast addresses begin with 001.
    let [first, second, ..] = ip.segments();
    let global = first & 0xE000 == 0x2000;
    let special = matches!(
        (first, second),
        (0x2001, 0..=0x1FF | 0xDB8) | (0x3FFF, 0..=0xFFF)
    );
    global && !special
}

/// The IPv4 address that packets to an IPv6 address end up at, if a translator stands between:
/// 64:ff9b::/96 (RFC 6052), 2002::/16 (RFC 3056), ::ffff:0:0/96.
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0x64, 0xFF9B, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0xFFFF, high, low] => {
            Some(from(high, low))
        }
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::HostPort;

    fn guard(connect: &[&str]) -> Guard {
        let policy = connect.iter().fold(Policy::new(), |policy, text| {
            policy.allow_connect(text.parse().unwrap())
        });
        Guard::new(policy)
    }

    /// Whether a request that was resolved to an address is allowed.
    fn may(guard: &Guard, requested: &str, ip: &str) -> bool {
        let requested: HostPort = requested.parse().unwrap();
        let name = requested.ip().is_none().then_some(&*requested.host);
        let address = SocketAddr::new(ip.parse().unwrap(), requested.port);
        guard.may_reach(Protocol::Tcp, name, address)
    }

    #[test]
    fn what_is_not_granted_is_refused() {
        let guard = guard(&["example.com:80", "1.2.3.4:80", "5.0.0.0/8"]);
        assert!(may(&guard, "EXAMPLE.com:80", "9.9.9.9"));
        assert!(!may(&guard, "example.com:81", "9.9.9.9"));
        assert!(!may(&guard, "evil.example.com:80", "9.9.9.9"));
        assert!(!may(&guard, "example.com.evil:80", "9.9.9.9"));
        assert!(!may(&guard, "9.9.9.9:80", "9.9.9.9"));
        assert!(may(&guard, "1.2.3.4:80", "1.2.3.4"));
        assert!(!may(&guard, "1.2.3.4:81", "1.2.3.4"));
        assert!(may(&guard, "5.6.7.8:1", "5.6.7.8"));
        // A grant for addresses holds under every name that is resolved to them.
        assert!(may(&guard, "whoever.test:80", "5.6.7.8"));
    }

    #[test]
    fn a_name_does_not_open_what_is_not_public() {
        let guard = guard(&["example.com"]);
        for ip in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.31.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!may(&guard, "example.com:80", ip), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2606:4700::1111",
            "2a00::1",
        ] {
            assert!(may(&guard, "example.com:80", ip), "{ip}");
        }
    }

    #[test]
    fn a_zone_is_one_interface_and_none_is_any() {
        let guard = guard(&["[fe80::1%lo]:80", "[fe80::2%3]:80", "[fe80::3]:80"]);
        let loopback = crate::policy::zone::index_of("lo").unwrap();
        let may = |ip: &str, scope| {
            let address = std::net::SocketAddrV6::new(ip.parse().unwrap(), 80, 0, scope);
            guard.may_reach(Protocol::Tcp, None, address.into())
        };
        assert!(may("fe80::1", loopback) && may("fe80::2", 3));
        assert!(may("fe80::3", 0) && may("fe80::3", 3));
        assert!(!may("fe80::1", 0) && !may("fe80::1", loopback + 1));
        assert!(!may("fe80::2", 0) && !may("fe80::2", 2));
    }

    #[test]
    fn what_is_not_public_is_reached_by_a_name_if_it_is_granted_too() {
        let guard = guard(&["db.internal:5432", "10.0.0.0/8:5432"]);
        assert!(may(&guard, "db.internal:5432", "10.1.2.3"));
        assert!(!may(&guard, "db.internal:5432", "192.168.1.1"));
    }

    #[test]
    fn localhost_means_loopback_and_nothing_else_local() {
        let guard = guard(&["localhost:80", "*.localhost:81"]);
        assert!(may(&guard, "localhost:80", "127.0.0.1"));
        assert!(may(&guard, "localhost:80", "::1"));
        assert!(may(&guard, "app.localhost:81", "127.0.0.1"));
        assert!(!may(&guard, "localhost:81", "127.0.0.1"));
        assert!(!may(&guard, "localhost:80", "10.0.0.1"));
        assert!(!may(&guard, "127.0.0.1:80", "127.0.0.1"));
    }

    #[test]
    fn an_ipv4_address_in_the_clothes_of_ipv6_is_that_address() {
        let guard = guard(&["127.0.0.1:80", "[2606::]/16:80"]);
        assert!(may(&guard, "[::ffff:127.0.0.1]:80", "::ffff:127.0.0.1"));
        assert!(!may(&guard, "[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1"));
        assert!(may(&guard, "[2606::1]:80", "2606::1"));
    }

    #[test]
    fn a_resolved_address_counts_as_its_name() {
        let guard = guard(&["example.com:80", "localhost:90"]);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(!may(&guard, "9.9.9.9:80", "9.9.9.9"));
        guard.learn("example.com", &[ip("9.9.9.9"), ip("127.0.0.1")]);
        assert!(may(&guard, "9.9.9.9:80", "9.9.9.9"));
        assert!(!may(&guard, "9.9.9.9:81", "9.9.9.9"));
        assert!(!may(&guard, "127.0.0.1:80", "127.0.0.1"));
        guard.learn("other.test", &[ip("8.8.8.8")]);
        assert!(!may(&guard, "8.8.8.8:80", "8.8.8.8"));
        guard.learn("localhost", &[ip("127.0.0.1")]);
        assert!(may(&guard, "127.0.0.1:90", "127.0.0.1"));
        // What is learned is bounded, and the oldest goes first.
        for index in 0..LEARNED_MAX as u32 {
            guard.learn(
                "many.test",
                &[Ipv4Addr::from_bits(0x0B00_0000 + index).into()],
            );
        }
        assert!(!may(&guard, "9.9.9.9:80", "9.9.9.9"));
        assert_eq!(guard.learned.lock().unwrap().len(), LEARNED_MAX);
    }

    #[test]
    fn a_name_is_resolved_only_if_it_could_be_reached_or_that_is_granted() {
        let policy = Policy::new()
            .allow_connect("a.test:80".parse().unwrap())
            .allow_connect("10.0.0.0/8".parse().unwrap())
            .allow_udp("b.test".parse().unwrap())
            .allow_resolve("*.c.test".parse().unwrap());
        let guard = Guard::new(policy);
        for name in ["a.test", "b.test", "x.c.test"] {
            assert!(guard.may_resolve(name), "{name}");
        }
        for name in ["c.test", "d.test", "secret.a.test"] {
            assert!(!guard.may_resolve(name), "{name}");
        }
    }

    #[test]
    fn udp_has_grants_of_its_own() {
        let local = |text: &str| text.parse::<LocalAddress>().unwrap();
        let none = guard(&["1.2.3.4"]);
        let server = "1.2.3.4:53".parse().unwrap();
        assert!(!none.may_reach(Protocol::Udp, None, server));
        assert!(!none.may_bind_udp(local("0.0.0.0:0")));
        let policy = Policy::new()
            .allow_udp("1.2.3.4:53".parse().unwrap())
            .allow_udp_bind(local("127.0.0.1:5353"));
        let some = Guard::new(policy);
        assert!(some.may_reach(Protocol::Udp, None, server));
        assert!(some.may_bind_udp(local("0.0.0.0:0")));
        assert!(some.may_bind_udp(local("127.0.0.1:5353")));
        assert!(!some.may_bind_udp(local("0.0.0.0:5353")));
    }

    /// Keeps what is said.
    #[derive(Clone, Default)]
    struct Listener(std::sync::Arc<Mutex<Vec<String>>>);

    impl tracing::field::Visit for Listener {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
            let mut said = self.0.lock().unwrap();
            said.last_mut()
                .unwrap()
                .push_str(&format!("{field}={value:?} "));
        }
    }

    impl tracing::Subscriber for Listener {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn event(&self, event: &tracing::Event<'_>) {
            self.0.lock().unwrap().push(String::new());
            event.record(&mut self.clone());
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn refusals_are_said_so_often_and_escaped() {
        let listener = Listener::default();
        let guard = guard(&[]);
        tracing::subscriber::with_default(listener.clone(), || {
            for _ in 0..10 * TOLD_MAX {
                guard.refuse(Refusal::File, "/a\x1b[2J\n");
            }
        });
        let said = listener.0.lock().unwrap();
        assert_eq!(said.len() as u64, TOLD_MAX + 1);
        assert!(said[0].contains("target=/a\\u{1b}[2J\\n "), "{}", said[0]);
        assert!(said[TOLD_MAX as usize].contains("only counted"));
        assert_eq!(guard.refusals(), [("file", 10 * TOLD_MAX)]);
    }

    #[test]
    fn refusals_are_counted_by_kind() {
        let guard = guard(&[]);
        assert_eq!(guard.refuse(Refusal::File, "/x"), Status::PermissionDenied);
        guard.refuse(Refusal::Connect, "a:1");
        guard.refuse(Refusal::File, "/y");
        assert_eq!(guard.refusals(), [("connect", 1), ("file", 2)]);
    }
}
