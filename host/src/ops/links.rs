//! Links: second names of files, and symbolic links.
//!
//! Neither gives a guest a right that it has not. A second name lies where the first one may be changed as
//! well, so that what is granted for reading gets no name under which it could be written to. Where a
//! symbolic link leads to is the kernel's to find out each time it is followed, beneath what is
//! granted; it is the host's own programs that would follow one out of there, so making them is a
//! grant of its own.

use rustix::fs::{AtFlags, OFlags, linkat, symlinkat};
use wakebox_abi::op::{HardLink, ReadLink, SymbolicLink};
use wakebox_abi::status::Status;

use super::path::{failed, path};
use super::regular::ENTRY;
use super::{End, Start, Started, TokioBackend};
use crate::limits::LimitKind;

impl Start for HardLink {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let from = resources.mounts.resolve(path(resources, self.from)?)?;
        let to = resources.mounts.resolve(path(resources, self.to)?)?;
        let (from, to) = (from.for_change()?, to.for_change()?);
        let meter = resources.meter.clone();
        Ok(resources.disk.start(None, move || {
            let (old, old_name) = from.open_parent()?;
            // Of two errors, the kernel's first.
            from.open(OFlags::PATH | OFlags::NOFOLLOW)?;
            let (new, new_name) = to.open_parent()?;
            let entry = meter.take_whole(LimitKind::FilesOut, ENTRY)?;
            // Without flags, the kernel follows no link at the end.
            linkat(old, old_name, new, new_name, AtFlags::empty()).map_err(failed)?;
            entry.keep(ENTRY);
            Ok(End::OK)
        }))
    }
}

impl Start for SymbolicLink {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let target = path(resources, self.target)?;
        let resolved = resources.mounts.resolve(path(resources, self.path)?)?;
        let resolved = resolved.for_links()?;
        if target.starts_with('/') {
            // No guest could follow it.
            return Err(resolved.refuse());
        }
        let meter = resources.meter.clone();
        Ok(resources.disk.start(None, move || {
            let (parent, name) = resolved.open_parent()?;
            let entry = meter.take_whole(LimitKind::FilesOut, ENTRY)?;
            symlinkat(target, parent, name).map_err(failed)?;
            entry.keep(ENTRY);
            Ok(End::OK)
        }))
    }
}

impl Start for ReadLink {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let resolved = resources.mounts.resolve(path(resources, self.path)?)?;
        let disk = resources.disk.clone();
        let read = move || resolved.read_link();
        Ok(Started::pending(async move {
            match disk.run(read).await.flatten() {
                Ok(target) => End::bytes(into.fill(&target)),
                Err(status) => status.into(),
            }
        }))
    }
}
