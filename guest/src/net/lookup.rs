//! Resolving names.

use alloc::vec::Vec;
use core::net::IpAddr;

use wakebox_abi::op::{Buf, Lookup, SocketAddress};

use crate::buf::IoBuf;
use crate::io::{Error, Result};
use crate::op::Op;
#[cfg(any(feature = "edge-nal", feature = "embedded-nal-async"))]
use wakebox_abi::status::Status;

/// Most addresses that are asked for.
const ADDRESSES: usize = 32;

/// The addresses of a host, as the host's resolver has them: at least one, in its order of
/// preference, at most 32. An address stands for itself.
///
/// A connection to one of them is allowed as one to the name would be. Cancel-safe.
///
/// # Errors
///
/// `PermissionDenied` if no policy entry is about the name, `NotFound` if nobody has it.
pub async fn lookup(name: impl AsRef<str>) -> Result<Vec<IpAddr>> {
    let name = name.as_ref();
    let room = ADDRESSES * SocketAddress::SIZE;
    let mut buf = IoBuf::with_capacity(room + name.len()).await?;
    buf.extend_from_slice(name.as_bytes());
    let text = buf.filled();
    let into = Buf {
        offset: text.offset + text.len,
        len: room as u32,
    };
    let (outcome, buf) = Op::with_buf(Lookup { name: text, into }, buf).await;
    let count =
        outcome.map_err(|status| Error::new(status, alloc::format!("look up {name}")))? as usize;
    let mut buf = buf.unwrap_or_else(|| unreachable!("a lookup has a buffer"));
    buf.set_len(name.len() + count.min(room));
    let (addresses, _) = buf[name.len()..].as_chunks();
    Ok(addresses
        .iter()
        .filter_map(SocketAddress::from_bytes)
        .map(|address| address.0.ip())
        .collect())
}

/// The first address of a host that is of a kind, which goes into the error.
///
/// # Errors
///
/// As [`lookup`]; `NotFound` also if it has none of that kind.
#[cfg(any(feature = "edge-nal", feature = "embedded-nal-async"))]
pub(super) async fn lookup_one(
    host: &str,
    is_wanted: fn(&IpAddr) -> bool,
    kind: impl core::fmt::Debug,
) -> Result<IpAddr> {
    let mut addresses = lookup(host).await?.into_iter();
    addresses.find(is_wanted).ok_or_else(|| {
        let what = alloc::format!("look up {host} ({kind:?})");
        Error::new(Status::NotFound, what)
    })
}
