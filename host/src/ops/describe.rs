//! What an operation in flight is, in words, for whoever asks what a guest waits for.

use std::time::Duration;

use wakebox_abi::entry::Token;
use wakebox_abi::op::{Buf, Request};

use super::handles::Resource;
use super::stream::{Socket, Stream};
use super::{Pending, TokioBackend};
use crate::driver::Driver;
use crate::text::Quoted;

/// Longest text of the guest's that is looked at, in bytes.
const TEXT_MAX: usize = 512;

impl Driver<TokioBackend> {
    /// An operation, if it is in flight, and for how long it has been.
    pub(crate) fn describe(&mut self, token: Token) -> Option<(String, Duration)> {
        let (request, operation, since) = self.inflight.find(token)?;
        Some((self.backend.describe(request, operation), since))
    }
}

impl TokioBackend {
    /// As in `ReadStream #65 on 127.0.0.1:80` or `TcpConnect to 127.0.0.1:80`.
    fn describe(&mut self, request: &Request, operation: &Pending) -> String {
        let name = request.opcode().name();
        let target = match request {
            Request::TcpConnect(connect) => self.quoted(" to ", connect.address),
            Request::UnixConnect(connect) => self.quoted(" to ", connect.path),
            Request::Lookup(lookup) => self.quoted(" of ", lookup.name),
            Request::CallHost(call) => self.quoted(" of ", call.function),
            _ => String::new(),
        };
        let Some(handle) = operation.handle else {
            return format!("{name}{target}");
        };
        let place = match self.handles.any(handle) {
            Ok(Resource::Stream(stream)) => peer(stream).map(|peer| format!(" on {peer}")),
            Ok(Resource::Listener(listener)) => listener
                .local_addr()
                .ok()
                .map(|address| format!(" on {address}")),
            _ => None,
        };
        format!("{name} #{}{}", handle.0, place.unwrap_or_default())
    }

    /// A text of the guest's, which may have written another since it asked.
    fn quoted(&self, before: &str, text: Buf) -> String {
        match self.text(text, TEXT_MAX) {
            Ok(text) => format!("{before}{}", Quoted(&*text)),
            Err(_) => String::new(),
        }
    }
}

fn peer(stream: &Stream) -> Option<String> {
    match &stream.socket {
        Socket::Tcp(stream) => stream.peer_addr().ok().map(|peer| peer.to_string()),
        Socket::Unix(stream) => {
            let peer = stream.peer_addr().ok()?;
            let path = peer.as_pathname()?.display().to_string();
            Some(path)
        }
    }
}
