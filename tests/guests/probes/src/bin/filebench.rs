//! Reads a file whose every eight bytes hold their own offset, and says how many reads a second:
//! `filebench PATH random|sequential SIZE BLOCK READS AT_ONCE`.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;

use wakebox_guest::fs::File;
use wakebox_guest::io::{IoBuf, Result};
use wakebox_guest::{env, println, spawn, time};

#[derive(Clone, Copy)]
struct Reads {
    random: bool,
    size: u64,
    block: u64,
    count: u64,
    at_once: u64,
}

impl Reads {
    /// Where the read of a number begins. The benchmark on the host does the same.
    fn offset(self, number: u64) -> u64 {
        let block = match self.random {
            true => number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32,
            false => number,
        };
        block % (self.size / self.block) * self.block
    }

    async fn all(self, file: &Rc<File>) -> Result<()> {
        let readers: Vec<_> = (0..self.at_once)
            .map(|first| spawn(self.some(file.clone(), first)))
            .collect();
        for reader in readers {
            reader.await.expect("not aborted")?;
        }
        Ok(())
    }

    async fn some(self, file: Rc<File>, first: u64) -> Result<()> {
        let mut buf = IoBuf::with_capacity(self.block as usize).await?;
        for number in (first..self.count).step_by(self.at_once as usize) {
            let start = self.offset(number);
            let mut offset = start;
            // Now and then the kernel gives a part of it only; then there is another read.
            while offset < start + self.block {
                let count;
                (count, buf) = file.read_buf_at(buf, offset).await;
                assert_eq!(buf[..8], offset.to_le_bytes(), "a read from elsewhere");
                offset += count? as u64;
            }
        }
        Ok(())
    }
}

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let mut args = env::args();
    let path = args.next().expect("a path");
    let random = args.next() == Some("random");
    let mut number = || {
        args.next()
            .and_then(|arg| arg.parse().ok())
            .expect("a number")
    };
    let reads = Reads {
        random,
        size: number(),
        block: number(),
        count: number(),
        at_once: number(),
    };
    let file = Rc::new(File::open(path).await?);
    reads.all(&file).await?;
    let start = time::now();
    reads.all(&file).await?;
    println!("{}", reads.count as f64 / start.elapsed().as_secs_f64());
    Ok(())
}
