//! `wasi:cli` 0.3: the three streams.

use alloc::boxed::Box;
use alloc::vec::Vec;

use wakebox_guest::io::{self, Status};
use wasmtime::Result;

use super::super::cli;
use super::super::define::{Define, Linker};
use super::super::transmit::{Incoming, Outgoing, ending};
use super::super::value::{Cx, cases};

cases! {
    enum ErrorCode {
        Io = "io",
        IllegalByteSequence = "illegal-byte-sequence",
        Pipe = "pipe",
    }
}

impl From<Status> for ErrorCode {
    fn from(status: Status) -> Self {
        match status {
            Status::InvalidData => Self::IllegalByteSequence,
            Status::BrokenPipe => Self::Pipe,
            _ => Self::Io,
        }
    }
}

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "environment" => cli::environment(instance, "get-initial-cwd"),
        "stdin" => instance.define("read-via-stream", |cx: Cx<'_>, ()| {
            let input = cx.data().input.clone();
            let (stream, verdict) = Incoming::new(move |most| {
                let input = input.clone();
                Box::pin(async move { Ok(input.next(most).await) })
            });
            Ok(((stream, ending::<ErrorCode>(verdict)),))
        }),
        "stdout" => output(instance, io::write_stdout),
        "stderr" => output(instance, io::write_stderr),
        other => cli::provide(instance, other),
    }
}

fn output(instance: &mut Linker<'_>, write: fn(&[u8])) -> Result<()> {
    instance.define(
        "write-via-stream",
        move |mut cx: Cx<'_>, (data,): (Outgoing,)| {
            let verdict = data.pipe(&mut cx, move |bytes: Vec<u8>| {
                write(&bytes);
                Box::pin(core::future::ready(Ok(())))
            })?;
            Ok((ending::<ErrorCode>(verdict),))
        },
    )
}
