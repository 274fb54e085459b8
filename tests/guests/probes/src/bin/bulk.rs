//! `bulk send COUNT ADDRESS [PIECE]` sends so many bytes over a connection, so many with each operation, `bulk receive ADDRESS`
//! takes all that comes, and `bulk take COUNT ADDRESS` so many, in reads of a mebibyte.
#![no_std]
#![no_main]

use wakebox_guest::env;
use wakebox_guest::io::{IoBuf, Result};
use wakebox_guest::net::TcpStream;

/// Bytes of an operation.
const PIECE: usize = 256 << 10;

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut args = env::args();
    let what = args.next().expect("what to do");
    let mut next = || args.next().expect("another argument");
    let mut buf = IoBuf::with_capacity(PIECE).await?;
    if what == "receive" {
        let stream = TcpStream::connect(next()).await?;
        loop {
            let (count, full) = stream.read_buf(buf).await;
            if count? == 0 {
                return Ok(());
            }
            buf = full;
            buf.clear();
        }
    }
    if what == "take" {
        let count: usize = next().parse().expect("a number");
        let stream = TcpStream::connect(next()).await?;
        let (mut buf, mut taken) = (IoBuf::with_capacity(1 << 20).await?, 0);
        while taken < count {
            let (read, full) = stream.read_buf(buf).await;
            taken += read?;
            buf = full;
            buf.clear();
        }
        return Ok(());
    }
    let mut left: usize = next().parse().expect("a number");
    let stream = TcpStream::connect(next()).await?;
    let piece = args
        .next()
        .map_or(PIECE, |piece| piece.parse().expect("a number"));
    if piece > PIECE {
        buf = IoBuf::with_capacity(piece).await?;
    }
    while left > 0 && piece <= PIECE {
        // What it is does not matter. The next is submitted before this one has ended.
        buf.set_len(piece.min(left));
        left -= buf.len();
        stream.post(buf).await?;
        buf = IoBuf::with_capacity(PIECE).await?;
    }
    while left > 0 {
        buf.set_len(piece.min(left));
        let (written, same) = stream.write_all_buf(buf).await;
        written?;
        left -= same.len();
        buf = same;
    }
    Ok(())
}
