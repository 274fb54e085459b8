//! `wasi:filesystem` 0.3: files and directories as streams. The rest is that of 0.2.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use wakebox_guest::io::Status;
use wasmtime::Result;

use super::super::define::{Define, Linker};
use super::super::filesystem::{self, Descriptor, DirectoryEntry, ErrorCode, Node};
use super::super::transmit::{Incoming, Items, Outgoing, ending, item};
use super::super::value::Cx;
use crate::files;
use crate::flight::Verdict;

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    if interface != "types" {
        return filesystem::provide(instance, interface);
    }
    filesystem::common(instance)?;
    instance.define(
        "[method]descriptor.read-via-stream",
        |cx: Cx<'_>, (this, offset): (Descriptor, u64)| {
            let node = cx.data().table.get(&this)?.clone();
            let offset = Rc::new(Cell::new(offset));
            let error = match (node.is_directory(), node.reads) {
                (true, _) => Some(Status::IsADirectory),
                (false, reads) => (!reads).then_some(Status::BadHandle),
            };
            let (stream, verdict) = Incoming::new(move |most| {
                let (node, offset) = (node.clone(), offset.clone());
                Box::pin(async move {
                    let bytes = node.read(most as u64, offset.get()).await?;
                    offset.set(offset.get() + bytes.len() as u64);
                    Ok(bytes)
                })
            });
            // That is known whether anybody reads or not.
            if let Some(status) = error {
                verdict.settle(Err(status));
            }
            Ok(((stream, ending::<ErrorCode>(verdict)),))
        },
    )?;
    writes(instance)?;
    instance.define(
        "[method]descriptor.read-directory",
        |cx: Cx<'_>, (this,): (Descriptor,)| {
            let node = cx.data().table.get(&this)?.clone();
            let listing = Rc::new(RefCell::new(None));
            let (stream, verdict) = Items::new(move || {
                let (node, listing) = (node.clone(), listing.clone());
                Box::pin(async move {
                    let listed = listing.take();
                    let mut listed = match listed {
                        Some(listed) => listed,
                        None => node.list().await?,
                    };
                    let entry = listed.next_entry().await.map_err(files::status)?;
                    listing.replace(Some(listed));
                    Ok(entry.map(|entry| item(DirectoryEntry::of(&entry))))
                })
            });
            Ok(((stream, ending::<ErrorCode>(verdict)),))
        },
    )
}

fn writes(instance: &mut Linker<'_>) -> Result<()> {
    instance.define(
        "[method]descriptor.write-via-stream",
        |mut cx: Cx<'_>, (this, data, offset): (Descriptor, Outgoing, u64)| {
            let node = cx.data().table.get(&this)?.clone();
            let verdict = match (node.is_directory(), node.writes) {
                (true, _) => data.refuse(&mut cx, Status::IsADirectory)?,
                (false, false) => data.refuse(&mut cx, Status::BadHandle)?,
                (false, true) => write(&mut cx, data, node, offset)?,
            };
            Ok((ending::<ErrorCode>(verdict),))
        },
    )?;
    instance.define_async(
        "[method]descriptor.append-via-stream",
        |mut cx: Cx<'_>, (this, data): (Descriptor, Outgoing)| {
            Box::new(crate::platform::OneThread(async move {
                let node = cx.data().table.get(&this)?.clone();
                let verdict = match node.appending().await {
                    Ok(appending) => write(&mut cx, data, Node::new(appending), 0)?,
                    Err(status) => data.refuse(&mut cx, status)?,
                };
                Ok((ending::<ErrorCode>(verdict),))
            }))
        },
    )
}

/// Writes what comes, from an offset on.
fn write(cx: &mut Cx<'_>, data: Outgoing, node: Node, mut offset: u64) -> Result<Rc<Verdict>> {
    data.pipe(cx, move |bytes: Vec<u8>| {
        let (node, at) = (node.clone(), offset);
        offset += bytes.len() as u64;
        Box::pin(async move { node.write_all(&bytes, at).await })
    })
}
