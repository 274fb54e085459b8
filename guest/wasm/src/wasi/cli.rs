//! `wasi:cli`: arguments, environment, exit and the three streams. There are no terminals.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::RefCell;

use wakebox_guest::{env, io, process};
use wasmtime::Result;
use wasmtime::component::{Resource, ResourceType};
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::bytes::{Bytes, BytesMut};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, StreamError, StreamResult,
};

use super::define::{Define, Linker};
use super::value::Cx;
use crate::platform::OneThread;

/// Bytes that are read, or may be written, at once.
const CHUNK: usize = 16 << 10;

/// What has been read of standard input and not been taken; all its streams share it.
#[derive(Clone, Default)]
pub(crate) struct Input(Arc<OneThread<RefCell<Read>>>);

#[derive(Default)]
struct Read {
    bytes: BytesMut,
    has_ended: bool,
}

impl Default for OneThread<RefCell<Read>> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        let is_ready = |read: &Read| read.has_ended || !read.bytes.is_empty();
        if is_ready(&self.0.0.borrow()) {
            return;
        }
        let mut chunk = alloc::vec![0; CHUNK];
        let count = OneThread(io::stdin().read(&mut chunk)).await.unwrap_or(0);
        let mut read = self.0.0.borrow_mut();
        read.has_ended |= count == 0;
        read.bytes.extend_from_slice(&chunk[..count]);
    }
}

impl Input {
    /// Some bytes, up to so many; none are the end.
    pub(super) async fn next(mut self, most: usize) -> Vec<u8> {
        self.ready().await;
        InputStream::read(&mut self, most).map_or_else(|_| Vec::new(), Vec::from)
    }
}

#[async_trait]
impl InputStream for Input {
    fn read(&mut self, most: usize) -> StreamResult<Bytes> {
        let mut read = self.0.0.borrow_mut();
        if read.bytes.is_empty() && read.has_ended {
            return Err(StreamError::Closed);
        }
        let count = most.min(read.bytes.len());
        Ok(read.bytes.split_to(count).freeze())
    }
}

/// Standard output, or standard error.
struct Output(fn(&[u8]));

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        (self.0)(&bytes);
        Ok(())
    }
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }
    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

/// A terminal, of which there is none.
struct Terminal;

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "environment" => environment(instance, "initial-cwd"),
        "exit" => {
            instance.define(
                "exit",
                |_: Cx<'_>, (status,): (core::result::Result<(), ()>,)| {
                    process::exit(i32::from(status.is_err()));
                    #[allow(unreachable_code, reason = "says what the function gives")]
                    Ok(())
                },
            )?;
            instance.define("exit-with-code", |_: Cx<'_>, (code,): (u8,)| {
                process::exit(i32::from(code));
                #[allow(unreachable_code, reason = "says what the function gives")]
                Ok(())
            })
        }
        "stdin" => instance.define("get-stdin", |mut cx: Cx<'_>, ()| {
            let state = cx.data_mut();
            let input = Box::new(state.input.clone()) as DynInputStream;
            Ok((state.table.push(input)?,))
        }),
        "stdout" => output(instance, "get-stdout", io::write_stdout),
        "stderr" => output(instance, "get-stderr", io::write_stderr),
        "terminal-input" | "terminal-output" => {
            instance.resource(interface, ResourceType::host::<Terminal>(), |_, _| Ok(()))
        }
        "terminal-stdin" => no_terminal(instance, "get-terminal-stdin"),
        "terminal-stdout" => no_terminal(instance, "get-terminal-stdout"),
        "terminal-stderr" => no_terminal(instance, "get-terminal-stderr"),
        _ => Ok(()),
    }
}

/// The environment; versions call one function otherwise.
pub(super) fn environment(instance: &mut Linker<'_>, cwd: &str) -> Result<()> {
    instance.define("get-environment", |_: Cx<'_>, ()| {
        let vars = env::vars().map(|(name, value)| (name.to_string(), value.to_string()));
        Ok((vars.collect::<Vec<_>>(),))
    })?;
    instance.define("get-arguments", |_: Cx<'_>, ()| {
        // A program's first argument is its name.
        let args = core::iter::once("app").chain(env::args());
        Ok((args.map(ToString::to_string).collect::<Vec<_>>(),))
    })?;
    instance.define(cwd, |_: Cx<'_>, ()| Ok((None::<String>,)))
}

fn output(instance: &mut Linker<'_>, function: &str, write: fn(&[u8])) -> Result<()> {
    instance.define(function, move |mut cx: Cx<'_>, ()| {
        let output = Box::new(Output(write)) as DynOutputStream;
        Ok((cx.data_mut().table.push(output)?,))
    })
}

fn no_terminal(instance: &mut Linker<'_>, function: &str) -> Result<()> {
    instance.define(function, |_: Cx<'_>, ()| Ok((None::<Resource<Terminal>>,)))
}
