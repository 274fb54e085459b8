//! Zones of IPv6 addresses: which network interface a link-local address is meant on (RFC 4007).

use std::net::Ipv6Addr;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

/// Bytes of an interface's name at most (`IFNAMSIZ` in `linux/if.h`, without the NUL).
const NAME_MAX: usize = 15;

/// The interfaces that there were when this process went to jail, where no socket can be had to ask.
static KEPT: OnceLock<Vec<(String, u32)>> = OnceLock::new();

/// Whether an address means something only together with a zone: link-local ones, and multicast ones
/// of that scope or smaller.
pub(super) fn needs_zone(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    first & 0xFFC0 == 0xFE80 || matches!(first & 0xFF0F, 0xFF01 | 0xFF02)
}

/// Whether a text can be a zone: a number other than zero, or the name of an interface.
pub(super) fn is_zone(text: &str) -> bool {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().is_ok_and(|index: u32| index > 0);
    }
    text.len() <= NAME_MAX
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"%/[]:".contains(&byte))
}

/// The number of a zone, as sockets have it. `None` if there is no such interface; for a number, nobody
/// is asked.
pub(crate) fn index_of(zone: &str) -> Option<u32> {
    if let Ok(index) = zone.parse() {
        return Some(index);
    }
    match KEPT.get() {
        Some(kept) => kept
            .iter()
            .find(|(name, _)| name == zone)
            .map(|(_, index)| *index),
        None => ask(zone).ok(),
    }
}

/// Takes note of the interfaces that there are, for a process that can ask no more from now on.
#[cfg(feature = "jail")]
pub(crate) fn keep() {
    KEPT.get_or_init(|| {
        let entries = std::fs::read_dir("/sys/class/net");
        let names = entries.into_iter().flatten().flatten();
        names
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let index = ask(&name).ok()?;
                Some((name, index))
            })
            .collect()
    });
}

fn ask(name: &str) -> Result<u32, Errno> {
    let any = |family| socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    let socket = any(AddressFamily::INET6).or_else(|_| any(AddressFamily::INET))?;
    netdevice::name_to_index(socket, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_numbers_and_names_of_interfaces() {
        for text in ["1", "4294967295", "lo", "eth0", "br-0a1b2c3d4e5f", "wg.0@x"] {
            assert!(is_zone(text), "{text}");
        }
        for text in [
            "",
            "0",
            "4294967296",
            "a b",
            "a/b",
            "a%b",
            "\0",
            "ü",
            "0123456789abcdef",
        ] {
            assert!(!is_zone(text), "{text:?}");
        }
        // Every machine has a loopback interface.
        let loopback = index_of("lo").expect("there is an interface `lo`");
        assert_eq!(index_of(&loopback.to_string()), Some(loopback));
        assert_eq!(index_of("no-such-one"), None);
    }

    #[test]
    fn only_what_is_meant_on_a_link_needs_a_zone() {
        for (ip, needs) in [
            ("fe80::1", true),
            ("febf::1", true),
            ("fec0::1", false),
            ("ff02::fb", true),
            ("ff01::1", true),
            ("ff12::1", true),
            ("ff05::1", false),
            ("::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(needs_zone(ip.parse().unwrap()), needs, "{ip}");
        }
    }
}
