//! Which directories are granted.

use alloc::string::String;
use alloc::vec::Vec;

use wakebox_abi::file::{DirectoryEntry, PATH_MAX};
use wakebox_abi::op::ListMounts;
use wakebox_abi::status::Status;

use crate::buf::IoBuf;
use crate::io::Result;
use crate::op::Op;

/// The paths of the directories that the policy grants, those that lie deepest first. Nothing says that they
/// may be written to, but trying. Cancel-safe.
///
/// # Errors
///
/// Those of the host.
pub async fn mounts() -> Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut buf = IoBuf::with_capacity(2 * PATH_MAX).await?;
    loop {
        let operation = ListMounts {
            first: paths.len() as u32,
            into: buf.whole(),
        };
        let (outcome, filled) = Op::with_buf(operation, buf).await;
        buf = filled.unwrap_or_else(|| unreachable!("a list has a buffer"));
        let count = outcome? as usize;
        buf.set_len(count.min(buf.capacity()));
        let before = paths.len();
        let mut batch = &*buf;
        while let Some((entry, rest)) = DirectoryEntry::split(batch) {
            let path = core::str::from_utf8(entry.name).map_err(|_| Status::InvalidData)?;
            paths.push(path.into());
            batch = rest;
        }
        if paths.len() == before {
            return Ok(paths);
        }
    }
}
