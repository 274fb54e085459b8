//! A server of `picoserve` whose answers are never flushed by hand: `web ADDRESS`.
//!
//! - `/three`: three events, and the end.
//! - `/waiting`: three events, of which each is followed by a wait, the last one without end.
//! - `/socket`: a WebSocket that greets, and sends back each text.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec;

use picoserve::futures::Either;
use picoserve::io::{Read, Write};
use picoserve::response::sse::{EventSource, EventStream, EventWriter};
use picoserve::response::ws::{Message, SocketRx, SocketTx, WebSocketCallback, WebSocketUpgrade};
use picoserve::routing::get;
use picoserve::time::Duration;
use picoserve::{Config, Router, Server, Timeouts};
use wakebox_guest::io::Result;
use wakebox_guest::net::TcpListener;
use wakebox_guest::net::picoserve::Timer;
use wakebox_guest::{env, println, spawn, time};

const CONFIG: Config = Config::new(Timeouts {
    start_read_request: Duration::from_secs(600),
    persistent_start_read_request: Duration::from_secs(600),
    read_request: Duration::from_secs(600),
    write: Duration::from_secs(600),
});

struct Events {
    waits: bool,
}

impl EventSource for Events {
    async fn write_events<W: Write>(
        self,
        mut writer: EventWriter<'_, W>,
    ) -> core::result::Result<(), W::Error> {
        for number in ["one", "two", "three"] {
            writer.write_event("number", number).await?;
            if self.waits {
                time::sleep(time::Duration::from_millis(1)).await;
            }
        }
        if self.waits {
            core::future::pending::<()>().await;
        }
        Ok(())
    }
}

struct Echo;

impl WebSocketCallback for Echo {
    async fn run<R: Read, W: Write<Error = R::Error>>(
        self,
        mut rx: SocketRx<R>,
        mut tx: SocketTx<W>,
    ) -> core::result::Result<(), W::Error> {
        tx.send_text("hello").await?;
        let mut buffer = [0; 128];
        loop {
            let next = rx.next_message(&mut buffer, core::future::pending::<()>());
            match next.await? {
                Either::First(Ok(Message::Text(text))) => tx.send_text(text).await?,
                // The last word, after which everything is dropped.
                Either::First(_) => return tx.send_text("goodbye").await,
                Either::Second(()) => {}
            }
        }
    }
}

#[wakebox_guest::main]
async fn main() -> Result<()> {
    let address = env::args().next().unwrap_or("127.0.0.1:0");
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr().await?);
    let site = Router::new()
        .route("/three", get(async || EventStream(Events { waits: false })))
        .route(
            "/waiting",
            get(async || EventStream(Events { waits: true })),
        )
        .route(
            "/socket",
            get(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(Echo)),
        );
    let site = Rc::new(site);
    loop {
        let stream = listener.accept().await?;
        let site = site.clone();
        spawn(async move {
            let mut buffer = vec![0; 2048];
            let server = Server::custom(&site, Timer, &CONFIG, &mut buffer);
            let _ = server.serve(stream).await;
        });
    }
}
