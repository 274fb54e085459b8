//! `wasi:filesystem`: what the policy grants is preopened, and each call is an operation of the ring. What
//! is not granted is `not-permitted`.

mod streams;
mod types;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use wakebox_guest::fs::ReadDir;
use wakebox_guest::io::Status;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream, Error as IoError};

use self::streams::{FileInput, FileOutput};
use self::types::{
    Advice, DescriptorFlags, DescriptorStat, DescriptorType, MetadataHash, NewTimestamp, OpenFlags,
    PathFlags,
};
pub(super) use self::types::{DirectoryEntry, ErrorCode};
use super::define::{Define, Linker, resource};
use super::transmit::Later;
use super::value::{Cx, New};
use crate::files::{self, Open};
use crate::platform::OneThread;

type Outcome<T> = core::result::Result<T, ErrorCode>;

/// What a descriptor names. A stream of it may outlive the descriptor.
#[derive(Clone)]
pub(super) struct Node(Arc<OneThread<Open>>);

impl Node {
    pub(super) fn new(open: Open) -> Self {
        Self(Arc::new(OneThread(open)))
    }
}

impl core::ops::Deref for Node {
    type Target = Open;

    fn deref(&self) -> &Open {
        &self.0.0
    }
}

pub(super) type Descriptor = Resource<Node>;

/// A directory that is being listed.
type Listing = OneThread<ReadDir>;

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "types" => {
            resource::<Listing>(instance, "directory-entry-stream")?;
            common(instance)?;
            bytes(instance)?;
            directories(instance)
        }
        "preopens" => instance.define_apart("get-directories", |_, ()| {
            Ok(Later::of(async {
                let granted = files::granted().await;
                let granted = granted.map_err(|status| wasmtime::format_err!("{status}"))?;
                let list = granted.into_iter().map(|open| {
                    let path = String::from(open.path());
                    (New(Node::new(open)), path)
                });
                Ok(list.collect::<Vec<_>>())
            }))
        }),
        _ => Ok(()),
    }
}

/// What both versions have.
pub(super) fn common(instance: &mut Linker<'_>) -> Result<()> {
    resource::<Node>(instance, "descriptor")?;
    whole(instance)?;
    paths(instance)?;
    times(instance)?;
    links(instance)
}

/// Defines a method of descriptors that awaits operations.
macro_rules! method {
    ($instance:ident, $name:literal, |$node:ident $(, $argument:ident: $ty:ty)*| $act:expr) => {
        $instance.define_apart(
            concat!("[method]descriptor.", $name),
            |cx: Cx<'_>, (this, $($argument,)*): (Descriptor, $($ty,)*)| {
                let $node = cx.data().table.get(&this)?.clone();
                Ok(Later::new(async move {
                    let outcome: files::Result<_> = $act.await;
                    outcome.map_err(ErrorCode::from)
                }))
            },
        )
    };
    (
        $define:ident, $instance:ident, $name:literal,
        |$node:ident $(, $argument:ident: $ty:ty)*| $act:expr
    ) => {
        $instance.$define(
            concat!("[method]descriptor.", $name),
            |cx: Cx<'_>, (this, $($argument,)*): (Descriptor, $($ty,)*)| {
                let node = cx.data().table.get(&this).cloned();
                Box::new(OneThread(async move {
                    let $node = node?;
                    let outcome: files::Result<_> = $act.await;
                    Ok((outcome.map_err(ErrorCode::from),))
                }))
            },
        )
    };
}

/// What is about a descriptor as a whole.
fn whole(instance: &mut Linker<'_>) -> Result<()> {
    method!(instance, "sync", |node| node.sync(false))?;
    method!(instance, "sync-data", |node| node.sync(true))?;
    method!(instance, "set-size", |node, size: u64| node
        .set_length(size))?;
    method!(instance, "stat", |node| async {
        Ok(DescriptorStat::of(&node.metadata().await?))
    })?;
    method!(instance, "metadata-hash", |node| async {
        Ok(MetadataHash::of(&node.metadata().await?))
    })?;
    method!(instance, "get-type", |node| async {
        Ok(match node.is_directory() {
            true => DescriptorType::Directory,
            false => DescriptorType::RegularFile,
        })
    })?;
    method!(instance, "get-flags", |node| async {
        Ok(DescriptorFlags::of(&node))
    })?;
    method!(
        instance,
        "advise",
        |node, _offset: u64, _length: u64, _advice: Advice| async {
            match node.is_directory() {
                true => Err(Status::BadHandle),
                false => Ok(()),
            }
        }
    )?;
    instance.define_apart(
        "[method]descriptor.is-same-object",
        |cx: Cx<'_>, (this, other): (Descriptor, Descriptor)| {
            let (this, other) = two(&cx, &this, &other)?;
            Ok(Later::new(async move {
                // What the host tells nothing of any more is the same as nothing.
                let (Ok(this), Ok(other)) = (this.metadata().await, other.metadata().await) else {
                    return false;
                };
                this.identity() == other.identity()
            }))
        },
    )
}

/// What two descriptors name.
fn two(cx: &Cx<'_>, this: &Descriptor, other: &Descriptor) -> Result<(Node, Node)> {
    let table = &cx.data().table;
    Ok((table.get(this)?.clone(), table.get(other)?.clone()))
}

/// What is about the bytes of a file.
fn bytes(instance: &mut Linker<'_>) -> Result<()> {
    // With their types, as a list of values is slow.
    method!(
        func_wrap_async,
        instance,
        "read",
        |node, length: u64, offset: u64| async {
            let bytes = node.read(length, offset).await?;
            let is_end = bytes.is_empty() && length > 0;
            Ok((bytes, is_end))
        }
    )?;
    method!(
        func_wrap_async,
        instance,
        "write",
        |node, bytes: Vec<u8>, offset: u64| async { Ok(node.write(&bytes, offset).await? as u64) }
    )?;
    instance.define(
        "[method]descriptor.read-via-stream",
        |mut cx: Cx<'_>, (this, offset): (Descriptor, u64)| {
            let table = &mut cx.data_mut().table;
            let node = table.get(&this)?.clone();
            if node.is_directory() || !node.reads {
                return Ok((Err(ErrorCode::not_a_file(&node)),));
            }
            let stream = Box::new(FileInput::new(node, offset)) as DynInputStream;
            Ok((Outcome::Ok(table.push(stream)?),))
        },
    )?;
    instance.define(
        "[method]descriptor.write-via-stream",
        |mut cx: Cx<'_>, (this, offset): (Descriptor, u64)| {
            let table = &mut cx.data_mut().table;
            let node = table.get(&this)?.clone();
            if node.is_directory() || !node.writes {
                return Ok((Err(ErrorCode::not_a_file(&node)),));
            }
            let stream = Box::new(FileOutput::new(node, offset)) as DynOutputStream;
            Ok((Outcome::Ok(table.push(stream)?),))
        },
    )?;
    instance.define_async(
        "[method]descriptor.append-via-stream",
        |mut cx: Cx<'_>, (this,): (Descriptor,)| {
            Box::new(OneThread(async move {
                let node = cx.data().table.get(&this)?.clone();
                let appending = match node.appending().await {
                    Ok(appending) => Node::new(appending),
                    Err(status) => return Ok((Err(status.into()),)),
                };
                let stream = Box::new(FileOutput::new(appending, 0)) as DynOutputStream;
                Ok((Outcome::Ok(cx.data_mut().table.push(stream)?),))
            }))
        },
    )?;
    let code_of = |cx: Cx<'_>, (error,): (Resource<IoError>,)| {
        let error = cx.data().table.get(&error)?;
        Ok((error.downcast_ref::<Status>().copied().map(ErrorCode::from),))
    };
    instance.define("filesystem-error-code", code_of)
}

/// What is about paths beneath a directory.
fn paths(instance: &mut Linker<'_>) -> Result<()> {
    method!(instance, "create-directory-at", |node, path: String| node
        .create_directory(&path))?;
    method!(instance, "remove-directory-at", |node, path: String| node
        .remove_directory(&path))?;
    method!(instance, "unlink-file-at", |node, path: String| node
        .remove_file(&path))?;
    method!(
        instance,
        "stat-at",
        |node, flags: PathFlags, path: String| async {
            let found = node.metadata_at(&path, flags.follows()).await?;
            Ok(DescriptorStat::of(&found))
        }
    )?;
    method!(
        instance,
        "metadata-hash-at",
        |node, flags: PathFlags, path: String| async {
            let found = node.metadata_at(&path, flags.follows()).await?;
            Ok(MetadataHash::of(&found))
        }
    )?;
    instance.define_apart(
        "[method]descriptor.rename-at",
        |cx: Cx<'_>, (this, from, other, to): (Descriptor, String, Descriptor, String)| {
            let (this, other) = two(&cx, &this, &other)?;
            Ok(Later::new(async move {
                let renamed = this.rename(&from, &other, &to).await;
                renamed.map_err(ErrorCode::from)
            }))
        },
    )?;
    instance.define_apart(
        "[method]descriptor.open-at",
        |cx: Cx<'_>,
         (this, at, path, open, flags): (
            Descriptor,
            PathFlags,
            String,
            OpenFlags,
            DescriptorFlags,
        )| {
            let node = cx.data().table.get(&this)?.clone();
            Ok(Later::new(async move {
                let opened = match types::how(at, open, flags) {
                    Ok(how) => node.open(&path, how).await,
                    Err(status) => Err(status),
                };
                let opened = opened.map(|open| New(Node::new(open)));
                opened.map_err(ErrorCode::from)
            }))
        },
    )
}

fn directories(instance: &mut Linker<'_>) -> Result<()> {
    instance.define_async(
        "[method]descriptor.read-directory",
        |mut cx: Cx<'_>, (this,): (Descriptor,)| {
            Box::new(OneThread(async move {
                let node = cx.data().table.get(&this)?.clone();
                Ok((match node.list().await {
                    Ok(list) => Ok(cx.data_mut().table.push(OneThread(list))?),
                    Err(status) => Err(ErrorCode::from(status)),
                },))
            }))
        },
    )?;
    instance.define_async(
        "[method]directory-entry-stream.read-directory-entry",
        |mut cx: Cx<'_>, (this,): (Resource<Listing>,)| {
            Box::new(OneThread(async move {
                let listing = &mut cx.data_mut().table.get_mut(&this)?.0;
                let next = listing.next_entry().await.map_err(files::status);
                let next = next.map(|entry| entry.as_ref().map(DirectoryEntry::of));
                Ok((next.map_err(ErrorCode::from),))
            }))
        },
    )
}

fn times(instance: &mut Linker<'_>) -> Result<()> {
    method!(
        instance,
        "set-times",
        |node, accessed: NewTimestamp, modified: NewTimestamp| async {
            node.set_times(accessed.into(), modified.into()).await
        }
    )?;
    method!(
        instance,
        "set-times-at",
        |node, flags: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp| async {
            let follow = flags.follows();
            node.set_times_at(&path, follow, accessed.into(), modified.into())
                .await
        }
    )
}

fn links(instance: &mut Linker<'_>) -> Result<()> {
    method!(
        instance,
        "symlink-at",
        |node, target: String, path: String| node.symlink(&target, &path)
    )?;
    method!(instance, "readlink-at", |node, path: String| node
        .read_link(&path))?;
    instance.define_apart(
        "[method]descriptor.link-at",
        |cx: Cx<'_>,
         (this, flags, from, other, to): (Descriptor, PathFlags, String, Descriptor, String)| {
            let (this, other) = two(&cx, &this, &other)?;
            Ok(Later::new(async move {
                if flags.follows() {
                    // A link itself gets a name, and not what it leads to.
                    return Err(ErrorCode::Invalid);
                }
                let linked = this.link(&from, &other, &to).await;
                linked.map_err(ErrorCode::from)
            }))
        },
    )
}
