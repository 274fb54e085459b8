//! The heads of requests and responses.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use httparse::{Header, Status as Parsed};
use wakebox_guest::io::Status;

use crate::flight::Result;

/// Most header fields of a head.
const FIELDS_MAX: usize = 128;

/// Header fields, in their order.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

pub(crate) struct RequestHead {
    pub(crate) method: String,
    /// What stands between method and version.
    pub(crate) target: String,
    /// Whether it is of HTTP/1.1, and not of 1.0.
    pub(crate) is_current: bool,
    pub(crate) fields: Fields,
}

pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
}

/// How long a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    /// As long as the connection is.
    ToEnd,
}

impl RequestHead {
    /// The head that bytes begin with, and its length, when all of it is there.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let Parsed::Complete(length) = request.parse(bytes).map_err(status)? else {
            return Ok(None);
        };
        let head = Self {
            method: request.method.unwrap_or_default().into(),
            target: request.path.unwrap_or_default().into(),
            is_current: request.version == Some(1),
            fields: owned(request.headers),
        };
        Ok(Some((head, length)))
    }

    /// How long the body is.
    pub(crate) fn framing(&self) -> Result<Framing> {
        Ok(framing(&self.fields)?.unwrap_or(Framing::Length(0)))
    }

    /// Whether the connection may have another request.
    pub(crate) fn keeps(&self) -> bool {
        self.is_current && !has_word(&self.fields, "connection", "close")
    }

    pub(crate) fn wants_continue(&self) -> bool {
        has_word(&self.fields, "expect", "100-continue")
    }
}

impl ResponseHead {
    /// As [`RequestHead::parse`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let Parsed::Complete(length) = response.parse(bytes).map_err(status)? else {
            return Ok(None);
        };
        let head = Self {
            status: response.code.unwrap_or_default(),
            fields: owned(response.headers),
        };
        Ok(Some((head, length)))
    }

    /// How long the body of an answer to such a request is.
    pub(crate) fn framing(&self, method: &str) -> Result<Framing> {
        if method == "HEAD" || has_no_body(self.status) {
            return Ok(Framing::Length(0));
        }
        Ok(framing(&self.fields)?.unwrap_or(Framing::ToEnd))
    }

    /// The head as it is sent, and how the body is.
    pub(crate) fn encode(&self, to: &RequestHead, keeps: bool) -> Result<(Vec<u8>, Framing)> {
        let mut text = String::new();
        let _ = write!(text, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let own = framing(&self.fields)?;
        let framing = match own {
            _ if to.method == "HEAD" || has_no_body(self.status) => Framing::Length(0),
            Some(own) => own,
            None if to.is_current => Framing::Chunked,
            None => Framing::ToEnd,
        };
        if own.is_none() && framing == Framing::Chunked {
            text.push_str("transfer-encoding: chunked\r\n");
        }
        if !keeps || framing == Framing::ToEnd {
            text.push_str("connection: close\r\n");
        }
        Ok((with_fields(text, &self.fields), framing))
    }
}

/// A request's head as it is sent: the only one of its connection. Its body is in chunks, unless it says how
/// long it is.
pub(crate) fn encode_request(
    method: &str,
    target: &str,
    host: &str,
    fields: &Fields,
    has_body: bool,
) -> Result<(Vec<u8>, Framing)> {
    let mut text = String::new();
    let _ = write!(
        text,
        "{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
    );
    let own = framing(fields)?;
    let framing = match own {
        Some(own) => own,
        None if has_body => Framing::Chunked,
        None => Framing::Length(0),
    };
    if own.is_none() && has_body {
        text.push_str("transfer-encoding: chunked\r\n");
    }
    Ok((with_fields(text, fields), framing))
}

fn with_fields(text: String, fields: &Fields) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    encode_fields(&mut bytes, fields);
    bytes
}

/// Writes fields, and the empty line behind them.
pub(super) fn encode_fields(into: &mut Vec<u8>, fields: &Fields) {
    for (name, value) in fields {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            into.extend_from_slice(part);
        }
    }
    into.extend_from_slice(b"\r\n");
}

fn status(error: httparse::Error) -> Status {
    match error {
        httparse::Error::TooManyHeaders => Status::MessageTooLarge,
        _ => Status::InvalidData,
    }
}

pub(super) fn owned(fields: &[Header<'_>]) -> Fields {
    let fields = fields.iter();
    fields
        .map(|field| (field.name.to_string(), field.value.to_vec()))
        .collect()
}

/// What fields say of the length of a body. Those that contradict each other are refused: whoever stands between may
/// have believed the other.
fn framing(fields: &Fields) -> Result<Option<Framing>> {
    let mut framing = None;
    for (name, value) in fields {
        let this = if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Status::Unsupported);
            }
            Framing::Chunked
        } else if name.eq_ignore_ascii_case("content-length") {
            let text = core::str::from_utf8(value).ok();
            let is_number = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
            let length = text.filter(is_number).and_then(|text| text.parse().ok());
            Framing::Length(length.ok_or(Status::InvalidData)?)
        } else {
            continue;
        };
        if framing.is_some_and(|other| other != this) {
            return Err(Status::InvalidData);
        }
        framing = Some(this);
    }
    Ok(framing)
}

/// Whether one of the words of a field is this one.
fn has_word(fields: &Fields, name: &str, word: &str) -> bool {
    let values = fields
        .iter()
        .filter(|(own, _)| own.eq_ignore_ascii_case(name));
    let mut words = values.flat_map(|(_, value)| value.split(|byte| *byte == b','));
    words.any(|own| own.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn has_no_body(status: u16) -> bool {
    matches!(status, 100..=199 | 204 | 304)
}

/// Whether a field is about a connection, and not for whoever asks or answers.
pub(crate) fn is_hop(name: &str) -> bool {
    const HOP: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "host",
        "http2-settings",
    ];
    HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop))
}

/// For people.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "",
    }
}
