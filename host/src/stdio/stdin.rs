//! Standard input: at the pace of who writes it, and without loss.
//!
//! What a read took that nobody waits for any more is kept for the next one.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use wakebox_abi::status::Status;

use super::descriptor::Descriptor;
use super::{Input, Reader};
use crate::arena::ArenaSlice;
use crate::embedded::{Embedded, Home, Inside, Theirs};
use crate::limits::LimitKind;
use crate::meter::Meter;

/// Most bytes that one read gives.
const READ_MAX: usize = 64 << 10;

/// Where the input comes from.
enum From {
    Null,
    Inherited(Descriptor),
    Reader(Embedded<Reader>),
}

/// The source, and what was read from it and not given yet.
struct Source {
    from: From,
    read: Vec<u8>,
}

/// Standard input behind a fair lock: two reads at once get one piece each.
#[derive(Clone)]
pub(crate) struct Stdin {
    source: Arc<Mutex<Source>>,
    is_null: bool,
    home: Home,
}

impl Stdin {
    /// # Errors
    ///
    /// As [`Console::new`](super::Console::new).
    pub(crate) fn new(input: Input, home: &Home) -> io::Result<Self> {
        let is_null = matches!(input, Input::Null);
        let from = match input {
            Input::Null => From::Null,
            Input::Inherit => From::Inherited(Descriptor::new(rustix::stdio::stdin())?),
            Input::Reader(reader) => From::Reader(Embedded::new(reader, home.clone())),
        };
        let read = Vec::new();
        Ok(Self {
            source: Arc::new(Mutex::new(Source { from, read })),
            is_null,
            home: home.clone(),
        })
    }

    /// Whether it is at its end from the beginning.
    pub(crate) fn is_null(&self) -> bool {
        self.is_null
    }

    /// Reads what there is into a part of the arena. Dropping the future loses no bytes.
    pub(crate) fn read(
        &self,
        into: ArenaSlice,
        meter: Arc<Meter>,
    ) -> impl Future<Output = io::Result<usize>> + Send + use<> {
        let (source, home) = (self.source.clone(), self.home.clone());
        async move {
            let mut source = source.lock_owned().await;
            let wanted = into.len().min(READ_MAX);
            let taken = meter
                .take(LimitKind::Stdin, wanted)
                .map_err(io::Error::other)?;
            if source.read.is_empty() && taken.len() > 0 {
                source = fetch(source, taken.len(), &home).await?;
            }
            let count = taken.len().min(source.read.len());
            into.copy_in(&source.read[..count]).await;
            source.read.drain(..count);
            taken.keep(count);
            Ok(count)
        }
    }

    /// Lets go of what was given to read from, unless a read that is given up has it still: then it
    /// goes with that one.
    pub(crate) fn close(&self) {
        if let Ok(mut source) = self.source.try_lock() {
            source.from = From::Null;
        }
    }
}

/// Reads at most `most` bytes from the source, none at its end.
async fn fetch(
    mut source: OwnedMutexGuard<Source>,
    most: usize,
    home: &Home,
) -> io::Result<OwnedMutexGuard<Source>> {
    let (source, read) = match &source.from {
        From::Null => return Ok(source),
        From::Inherited(descriptor) => {
            let descriptor = descriptor.clone();
            let call = descriptor.start(move |wait| {
                let mut bytes = vec![0; most];
                let read = wait.read(&mut bytes);
                source.read.extend(&bytes[..*read.as_ref().unwrap_or(&0)]);
                (source, read)
            });
            call?.ended().await?
        }
        From::Reader(_) => {
            type Read = (OwnedMutexGuard<Source>, io::Result<usize>);
            let read = move |inside: Inside| -> Result<Theirs<Read>, Status> {
                Ok(Box::pin(async move {
                    let mut bytes = vec![0; most];
                    let read = match &mut source.from {
                        From::Reader(reader) => reader.get_mut(inside).read(&mut bytes).await,
                        _ => Ok(0),
                    };
                    // There before anybody may lose interest.
                    source.read.extend(&bytes[..*read.as_ref().unwrap_or(&0)]);
                    Ok((source, read))
                }))
            };
            let room = home.room(0).await;
            let task = home.run(room, read, None).map_err(io::Error::other)?;
            task.await.map_err(io::Error::other)?
        }
    };
    read.map(|_| source)
}

impl std::fmt::Debug for Stdin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stdin")
    }
}
