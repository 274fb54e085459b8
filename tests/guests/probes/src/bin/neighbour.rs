//! Sends back what it is sent, eight bytes at a time and each after a timer: `neighbour ADDRESS`.
//! A neighbour of guests that misbehave.
#![no_std]
#![no_main]

use core::time::Duration;

use wakebox_guest::io::Result;
use wakebox_guest::net::TcpStream;
use wakebox_guest::{env, time};

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let stream = TcpStream::connect(env::args().next().unwrap_or_default()).await?;
    let mut message = [0; 8];
    loop {
        stream.read_exact(&mut message).await?;
        time::sleep(Duration::from_micros(20)).await;
        stream.write_all(&message).await?;
    }
}
