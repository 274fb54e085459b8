//! The values of `wasi:http`.

use alloc::string::String;

use wakebox_guest::io::Status;

use super::super::value::{record, variant};

variant! {
    #[derive(Clone)]
    pub(super) enum Method {
        Get = "get",
        Head = "head",
        Post = "post",
        Put = "put",
        Delete = "delete",
        Connect = "connect",
        Options = "options",
        Trace = "trace",
        Patch = "patch",
        Other(value: String) = "other",
    }
}

impl Method {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other(name) => name,
        }
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            other => Self::Other(other.into()),
        }
    }
}

variant! {
    #[derive(Clone)]
    pub(super) enum Scheme {
        Http = "HTTP",
        Https = "HTTPS",
        Other(value: String) = "other",
    }
}

variant! {
    #[derive(Clone)]
    pub(super) enum HeaderError {
        InvalidSyntax = "invalid-syntax",
        Forbidden = "forbidden",
        Immutable = "immutable",
    }
}

record! {
    #[derive(Clone, Debug)]
    pub(crate) struct DnsError {
        rcode: Option<String> = "rcode",
        info_code: Option<u16> = "info-code",
    }
}

record! {
    #[derive(Clone, Debug)]
    pub(crate) struct TlsAlert {
        id: Option<u8> = "alert-id",
        message: Option<String> = "alert-message",
    }
}

record! {
    #[derive(Clone, Debug)]
    pub(crate) struct FieldSize {
        name: Option<String> = "field-name",
        size: Option<u32> = "field-size",
    }
}

variant! {
    #[derive(Clone, Debug)]
    pub(crate) enum ErrorCode {
        DnsTimeout = "DNS-timeout",
        DnsError(value: DnsError) = "DNS-error",
        DestinationNotFound = "destination-not-found",
        DestinationUnavailable = "destination-unavailable",
        DestinationIpProhibited = "destination-IP-prohibited",
        DestinationIpUnroutable = "destination-IP-unroutable",
        ConnectionRefused = "connection-refused",
        ConnectionTerminated = "connection-terminated",
        ConnectionTimeout = "connection-timeout",
        ConnectionReadTimeout = "connection-read-timeout",
        ConnectionWriteTimeout = "connection-write-timeout",
        ConnectionLimitReached = "connection-limit-reached",
        TlsProtocolError = "TLS-protocol-error",
        TlsCertificateError = "TLS-certificate-error",
        TlsAlertReceived(value: TlsAlert) = "TLS-alert-received",
        HttpRequestDenied = "HTTP-request-denied",
        HttpRequestLengthRequired = "HTTP-request-length-required",
        HttpRequestBodySize(value: Option<u64>) = "HTTP-request-body-size",
        HttpRequestMethodInvalid = "HTTP-request-method-invalid",
        HttpRequestUriInvalid = "HTTP-request-URI-invalid",
        HttpRequestUriTooLong = "HTTP-request-URI-too-long",
        HttpRequestHeaderSectionSize(value: Option<u32>) = "HTTP-request-header-section-size",
        HttpRequestHeaderSize(value: Option<FieldSize>) = "HTTP-request-header-size",
        HttpRequestTrailerSectionSize(value: Option<u32>) = "HTTP-request-trailer-section-size",
        HttpRequestTrailerSize(value: FieldSize) = "HTTP-request-trailer-size",
        HttpResponseIncomplete = "HTTP-response-incomplete",
        HttpResponseHeaderSectionSize(value: Option<u32>) = "HTTP-response-header-section-size",
        HttpResponseHeaderSize(value: FieldSize) = "HTTP-response-header-size",
        HttpResponseBodySize(value: Option<u64>) = "HTTP-response-body-size",
        HttpResponseTrailerSectionSize(value: Option<u32>) = "HTTP-response-trailer-section-size",
        HttpResponseTrailerSize(value: FieldSize) = "HTTP-response-trailer-size",
        HttpResponseTransferCoding(value: Option<String>) = "HTTP-response-transfer-coding",
        HttpResponseContentCoding(value: Option<String>) = "HTTP-response-content-coding",
        HttpResponseTimeout = "HTTP-response-timeout",
        HttpUpgradeFailed = "HTTP-upgrade-failed",
        HttpProtocolError = "HTTP-protocol-error",
        LoopDetected = "loop-detected",
        ConfigurationError = "configuration-error",
        InternalError(value: Option<String>) = "internal-error",
    }
}

impl From<Status> for ErrorCode {
    fn from(status: Status) -> Self {
        match status {
            Status::PermissionDenied => Self::HttpRequestDenied,
            Status::NotFound => Self::DestinationNotFound,
            Status::ConnectionRefused => Self::ConnectionRefused,
            Status::ConnectionReset | Status::ConnectionAborted | Status::BrokenPipe => {
                Self::ConnectionTerminated
            }
            Status::NetworkUnreachable | Status::HostUnreachable => Self::DestinationIpUnroutable,
            Status::TimedOut => Self::ConnectionTimeout,
            Status::LimitReached => Self::ConnectionLimitReached,
            Status::InvalidInput => Self::HttpRequestUriInvalid,
            Status::InvalidData => Self::HttpProtocolError,
            Status::UnexpectedEof => Self::HttpResponseIncomplete,
            Status::MessageTooLarge => Self::HttpResponseHeaderSectionSize(None),
            Status::Unsupported => Self::HttpResponseTransferCoding(None),
            other => Self::InternalError(Some(other.text().into())),
        }
    }
}
