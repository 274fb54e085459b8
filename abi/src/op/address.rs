//! A socket's address in the arena.

/// A socket's address in the arena: 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketAddress(pub core::net::SocketAddr);

impl SocketAddress {
    /// Bytes of an encoded address.
    pub const SIZE: usize = 24;

    /// `version (4 or 6), 0, port, scope id, 16 bytes of address`, little endian except the address.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        use core::net::SocketAddr::{V4, V6};
        let (version, scope, ip) = match self.0 {
            V4(v4) => {
                let [a, b, c, d] = v4.ip().octets();
                (4, 0, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            }
            V6(v6) => (6, v6.scope_id(), v6.ip().octets()),
        };
        let mut bytes = [0; Self::SIZE];
        let [low, high] = self.0.port().to_le_bytes();
        let parts = [version, 0, low, high]
            .into_iter()
            .chain(scope.to_le_bytes())
            .chain(ip);
        for (to, byte) in bytes.iter_mut().zip(parts) {
            *to = byte;
        }
        bytes
    }

    /// The address in these bytes, or `None` if its version is neither 4 nor 6.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
        let (head, ip) = bytes.split_first_chunk::<8>()?;
        let [version, _, low, high, s0, s1, s2, s3] = *head;
        let port = u16::from_le_bytes([low, high]);
        let ip: [u8; 16] = ip.try_into().ok()?;
        match version {
            4 => {
                let [a, b, c, d, ..] = ip;
                Some(Self(SocketAddr::from((Ipv4Addr::new(a, b, c, d), port))))
            }
            6 => {
                let scope = u32::from_le_bytes([s0, s1, s2, s3]);
                Some(Self(SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(ip),
                    port,
                    0,
                    scope,
                ))))
            }
            _ => None,
        }
    }
}
