//! A connection that carries HTTP/1.1, and the bodies on it.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use httparse::Status as Parsed;
use wakebox_guest::io::Status;
use wakebox_guest::net::TcpStream;

use super::head::{encode_fields, owned};
use super::{Fields, Framing, Pipe};
use crate::files::status;
use crate::flight::Result;

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;

/// Most bytes of a head, or of trailers.
const HEAD_MAX: usize = 64 << 10;

/// Most trailers.
const TRAILERS_MAX: usize = 32;

/// What bytes begin with, and its length, when all of it is there.
type Parse<T> = Result<Option<(T, usize)>>;

pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    /// What was read, and belongs to nothing yet.
    rest: RefCell<Vec<u8>>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Rc<Self> {
        let rest = RefCell::default();
        Rc::new(Self { stream, rest })
    }

    /// Reads some bytes more; gives whether there are any.
    async fn fill(&self) -> Result<bool> {
        let mut bytes = alloc::vec![0; CHUNK];
        let count = self.stream.read(&mut bytes).await.map_err(status)?;
        self.rest.borrow_mut().extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }

    /// The next head, or nothing if the peer has ended.
    pub(crate) async fn head<T>(&self, parse: fn(&[u8]) -> Parse<T>) -> Result<Option<T>> {
        loop {
            let parsed = parse(&self.rest.borrow())?;
            if let Some((head, length)) = parsed {
                self.rest.borrow_mut().drain(..length);
                return Ok(Some(head));
            }
            if self.rest.borrow().len() > HEAD_MAX {
                return Err(Status::MessageTooLarge);
            }
            if !self.fill().await? {
                return match self.rest.borrow().is_empty() {
                    true => Ok(None),
                    false => Err(Status::UnexpectedEof),
                };
            }
        }
    }

    /// Up to so many bytes that have been read.
    fn take(&self, most: u64) -> Vec<u8> {
        let mut rest = self.rest.borrow_mut();
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(rest.len());
        rest.drain(..count).collect()
    }
}

/// A body that comes.
pub(crate) struct Body {
    wire: Rc<Wire>,
    stage: Cell<Stage>,
    trailers: RefCell<Fields>,
}

#[derive(Clone, Copy)]
enum Stage {
    /// So many bytes, and then the end.
    Length(u64),
    ToEnd,
    /// The size of a chunk.
    Size,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// What is behind a chunk's bytes.
    Behind,
    Trailers,
    Done,
}

impl Body {
    pub(crate) fn new(wire: Rc<Wire>, framing: Framing) -> Rc<Self> {
        Rc::new(Self {
            wire,
            stage: Cell::new(match framing {
                Framing::Length(length) => Stage::Length(length),
                Framing::Chunked => Stage::Size,
                Framing::ToEnd => Stage::ToEnd,
            }),
            trailers: RefCell::default(),
        })
    }

    pub(crate) fn trailers(&self) -> Fields {
        self.trailers.take()
    }

    /// Some bytes; none is the end.
    pub(crate) async fn read(&self) -> Result<Vec<u8>> {
        loop {
            let (bytes, stage) = match self.stage.get() {
                Stage::Done | Stage::Length(0) => (Vec::new(), Stage::Done),
                Stage::Chunk(0) => {
                    self.stage.set(Stage::Behind);
                    continue;
                }
                Stage::Length(left) => {
                    let bytes = self.wire.take(left);
                    let left = left - bytes.len() as u64;
                    (bytes, Stage::Length(left))
                }
                Stage::Chunk(left) => {
                    let bytes = self.wire.take(left);
                    let left = left - bytes.len() as u64;
                    (bytes, Stage::Chunk(left))
                }
                Stage::ToEnd => (self.wire.take(u64::MAX), Stage::ToEnd),
                stage if !self.between()? => (Vec::new(), stage),
                _ => continue,
            };
            self.stage.set(stage);
            if !bytes.is_empty() || matches!(stage, Stage::Done) {
                return Ok(bytes);
            }
            if !self.wire.fill().await? {
                match stage {
                    Stage::ToEnd => self.stage.set(Stage::Done),
                    _ => return Err(Status::UnexpectedEof),
                }
            }
        }
    }

    /// Passes over what is between the bytes of chunks, if all of it is there.
    fn between(&self) -> Result<bool> {
        let mut rest = self.wire.rest.borrow_mut();
        let parsed = match self.stage.get() {
            Stage::Size => match httparse::parse_chunk_size(&rest) {
                Ok(Parsed::Complete((length, 0))) => Some((length, Stage::Trailers)),
                Ok(Parsed::Complete((length, size))) => Some((length, Stage::Chunk(size))),
                Ok(Parsed::Partial) => None,
                Err(_) => return Err(Status::InvalidData),
            },
            Stage::Behind if rest.len() >= 2 => {
                if !rest.starts_with(b"\r\n") {
                    return Err(Status::InvalidData);
                }
                Some((2, Stage::Size))
            }
            Stage::Trailers => {
                let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
                match httparse::parse_headers(&rest, &mut fields) {
                    Ok(Parsed::Complete((length, fields))) => {
                        *self.trailers.borrow_mut() = owned(fields);
                        Some((length, Stage::Done))
                    }
                    Ok(Parsed::Partial) => None,
                    Err(_) => return Err(Status::InvalidData),
                }
            }
            _ => None,
        };
        match parsed {
            Some((length, stage)) => {
                rest.drain(..length);
                self.stage.set(stage);
                Ok(true)
            }
            None if rest.len() > HEAD_MAX => Err(Status::MessageTooLarge),
            None => Ok(false),
        }
    }

    /// Whether it is known that nothing comes.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.stage.get(), Stage::Length(0) | Stage::Done)
    }

    /// Passes over what nobody has read, if that is not much: whether the next head follows.
    pub(crate) async fn is_over(&self) -> bool {
        let mut passed = 0;
        loop {
            match self.read().await {
                Ok(bytes) if bytes.is_empty() => return true,
                Ok(bytes) if passed < HEAD_MAX => passed += bytes.len(),
                _ => return false,
            }
        }
    }
}

/// Sends a head and the body behind it, all that is there at once.
///
/// # Errors
///
/// `InvalidData` if the body is not as long as the head says; `UnexpectedEof` if it was cut off; those of the connection.
pub(crate) async fn send_body(
    wire: &Wire,
    head: Vec<u8>,
    framing: Framing,
    pipe: &Pipe,
) -> Result<()> {
    let mut out = head;
    let mut left = match framing {
        Framing::Length(length) => length,
        _ => u64::MAX,
    };
    loop {
        let bytes = pipe.take();
        left = left
            .checked_sub(bytes.len() as u64)
            .ok_or(Status::InvalidData)?;
        let in_chunks = framing == Framing::Chunked && !bytes.is_empty();
        if in_chunks {
            out.extend_from_slice(alloc::format!("{:x}\r\n", bytes.len()).as_bytes());
        }
        out.extend_from_slice(&bytes);
        if in_chunks {
            out.extend_from_slice(b"\r\n");
        }
        let trailers = pipe.trailers()?;
        match &trailers {
            Some(_) if matches!(framing, Framing::Length(_)) && left > 0 => {
                return Err(Status::UnexpectedEof);
            }
            Some(trailers) if framing == Framing::Chunked => {
                out.extend_from_slice(b"0\r\n");
                encode_fields(&mut out, trailers);
            }
            _ => {}
        }
        // What is there at once goes in one write.
        wire.stream.write_all(&out).await.map_err(status)?;
        if trailers.is_some() {
            return Ok(());
        }
        out.clear();
        pipe.filled().await;
    }
}
