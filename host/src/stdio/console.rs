//! Standard output and error: in order, at the pace of who reads, and counted.
//!
//! What a guest writes has left, as far as its reader takes it, when its operation completes; no
//! buffer of ours lies between. Writers of the embedding program are polled by tasks of its own
//! runtime: what they do, block or panic, is done to nobody else.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use wakebox_abi::op::Stream;
use wakebox_abi::status::Status;

use super::descriptor::Descriptor;
use super::ledger::{Accepted, Ledger, index};
use super::{Captured, Output, Writer};
use crate::account::Account;
use crate::allowance;
use crate::arena::ArenaSlice;
use crate::embedded::{Embedded, Home, Inside, Theirs};
use crate::error::LostOutput;

/// Where a stream leads.
enum Sink {
    Null,
    Captured(Captured),
    Inherited(Descriptor),
    Writer(Embedded<Writer>),
}

impl Sink {
    fn open(output: Output, stream: Stream, home: &Home) -> io::Result<Self> {
        Ok(match output {
            Output::Null => Self::Null,
            Output::Capture(captured) => Self::Captured(captured),
            Output::Writer(writer) => Self::Writer(Embedded::new(writer, home.clone())),
            Output::Inherit => Self::Inherited(Descriptor::new(match stream {
                Stream::Out => rustix::stdio::stdout(),
                Stream::Err => rustix::stdio::stderr(),
            })?),
        })
    }
}

type Sinks = [Sink; 2];

/// A piece on its way: who has the streams meanwhile, and what is left to write.
type Turn = (OwnedMutexGuard<Sinks>, Accepted);

/// Both output streams, behind one fair lock: what a guest writes to either comes out in the
/// order in which it was written, and a slow reader slows the guest that writes to it.
#[derive(Clone)]
pub(crate) struct Console {
    sinks: Arc<Mutex<Sinks>>,
    /// Of which of them nothing is ever seen.
    is_null: [bool; 2],
    ledger: Arc<Ledger>,
    home: Home,
    account: Account,
}

impl Console {
    /// # Errors
    ///
    /// A stream of this process takes a descriptor besides its own, and there is none left.
    pub(crate) fn new(
        out: Output,
        err: Output,
        home: &Home,
        account: &Account,
    ) -> io::Result<Self> {
        let is_null = [&out, &err].map(|output| matches!(output, Output::Null));
        let sinks = [
            Sink::open(out, Stream::Out, home)?,
            Sink::open(err, Stream::Err, home)?,
        ];
        Ok(Self {
            sinks: Arc::new(Mutex::new(sinks)),
            is_null,
            ledger: Arc::default(),
            home: home.clone(),
            account: account.clone(),
        })
    }

    /// Whether what is written there need not be looked at.
    pub(crate) fn is_null(&self, stream: Stream) -> bool {
        self.is_null[index(stream)]
    }

    /// Writes all of a part of the arena.
    pub(crate) fn write(
        &self,
        stream: Stream,
        from: ArenaSlice,
    ) -> impl Future<Output = io::Result<usize>> + Send + use<> {
        let accepted = self.ledger.accept(stream, from.len());
        let sinks = self.sinks.clone();
        let (home, account) = (self.home.clone(), self.account.clone());
        async move {
            let mut turn = (sinks.lock_owned().await, accepted);
            for piece in from.pieces() {
                allowance::give_way().await;
                let bytes = piece.copied().map_err(io::Error::other)?;
                turn = write(turn, stream, bytes, &home, &account).await?;
            }
            Ok(from.len())
        }
    }

    /// Waits until everything that was taken has left, or cannot.
    pub(crate) async fn idle(&self) {
        self.ledger.idle().await;
    }

    /// What was taken and has not left.
    pub(crate) fn lost(&self) -> Vec<LostOutput> {
        self.ledger.lost()
    }

    /// Lets go of what was given to write to, unless a write that is given up has it still: then it
    /// goes with that one.
    pub(crate) fn close(&self) {
        if let Ok(mut sinks) = self.sinks.try_lock() {
            *sinks = [Sink::Null, Sink::Null];
        }
    }
}

/// Writes a piece.
///
/// # Errors
///
/// What the writer or the kernel says; all that is left is lost then.
async fn write(
    (mut sinks, mut accepted): Turn,
    stream: Stream,
    piece: Vec<u8>,
    home: &Home,
    account: &Account,
) -> io::Result<Turn> {
    let (turn, wrote) = match &mut sinks[index(stream)] {
        Sink::Null => {
            accepted.wrote(piece.len());
            return Ok((sinks, accepted));
        }
        Sink::Captured(captured) => {
            let wrote = captured.append(&piece, account);
            accepted.wrote(wrote.as_ref().map_or(0, |()| piece.len()));
            ((sinks, accepted), wrote)
        }
        Sink::Inherited(descriptor) => {
            let descriptor = descriptor.clone();
            let call = descriptor.start(move |wait| {
                let wrote = wait.write_all(&piece, |count| accepted.wrote(count));
                ((sinks, accepted), wrote)
            });
            call?.ended().await?
        }
        Sink::Writer(_) => {
            let write = move |inside: Inside| -> Result<Theirs<(Turn, io::Result<()>)>, Status> {
                Ok(Box::pin(async move {
                    let wrote = match &mut sinks[index(stream)] {
                        Sink::Writer(writer) => write_theirs(writer.get_mut(inside), &piece).await,
                        _ => Ok(()),
                    };
                    accepted.wrote(wrote.as_ref().map_or(0, |()| piece.len()));
                    Ok(((sinks, accepted), wrote))
                }))
            };
            let room = home.room(0).await;
            let task = home.run(room, write, None).map_err(io::Error::other)?;
            task.await.map_err(io::Error::other)?
        }
    };
    match wrote {
        Ok(()) => Ok(turn),
        Err(error) => {
            turn.1.failed(&error);
            Err(error)
        }
    }
}

/// Writes a piece to what the embedder has given, and sees it off.
async fn write_theirs(writer: &mut Writer, piece: &[u8]) -> io::Result<()> {
    writer.write_all(piece).await?;
    writer.flush().await
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Console")
    }
}
