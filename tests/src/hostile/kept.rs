//! Functions for the group `kept`, whose arguments the host is made to keep.

use futures_util::stream;
use wakebox::Builder;

/// Small in a message, and large in memory.
#[derive(serde::Deserialize)]
#[expect(
    dead_code,
    clippy::large_enum_variant,
    reason = "read and dropped, and as large as it is meant to be"
)]
enum Large {
    Small,
    Big([u64; 32]),
}

/// Adds them.
pub(super) fn functions(builder: Builder) -> Builder {
    builder
        .host_fn("options", async |_, _: Vec<Option<[u64; 32]>>| ())
        .host_fn("boxes", async |_, _: Vec<Box<Large>>| ())
        .host_fn("lists", async |_, _: Vec<Vec<u8>>| ())
        .host_fn("texts", async |_, _: Vec<String>| ())
        .host_fn("units", async |_, _: Vec<()>| ())
        .host_fn("bytes", async |_, _: Vec<u8>| ())
        .host_fn("large", async |_, ()| vec![7_u8; 150_000])
        .host_fn("hold", async |_, bytes: Vec<u8>| {
            std::future::pending::<()>().await;
            drop(bytes);
        })
        .host_stream("hold-stream", |_, bytes: Vec<u8>| {
            stream::once(async move { bytes })
        })
}
