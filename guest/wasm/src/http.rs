//! HTTP/1.1 on a connection: heads, and bodies as they come.

mod head;
mod pipe;
mod wire;

pub(crate) use self::head::{Fields, Framing, RequestHead, ResponseHead, encode_request, is_hop};
pub(crate) use self::pipe::Pipe;
pub(crate) use self::wire::{Body, Wire, send_body};
