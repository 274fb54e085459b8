//! A sandbox that does I/O, and what it is asked.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wakebox::{Policy, Running, Sandbox, WakeMode};

/// A neighbour that has not answered by then never will.
const NEVER: Duration = Duration::from_secs(60);

/// A sandbox that sends back what it is sent.
#[derive(Debug)]
pub(super) struct Neighbour {
    mode: WakeMode,
    stream: TcpStream,
    sent: u64,
    _running: Running,
}

impl Neighbour {
    /// Starts one.
    pub(super) async fn start(mode: WakeMode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let sandbox = Sandbox::builder()
            .guest(crate::guest("neighbour"))
            .args([&address])
            .policy(Policy::new().allow_connect(address.parse().expect("a target")))
            .wake(mode)
            .memory(4 << 20)
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        let running = sandbox.start();
        let (stream, _) = listener.accept().await.expect("the neighbour connects");
        stream.set_nodelay(true).expect("a socket");
        Self {
            mode,
            stream,
            sent: 0,
            _running: running,
        }
    }

    /// Sends a message and waits for it to come back, and nothing else.
    pub(super) async fn exchange(&mut self) -> Result<(), String> {
        self.sent += 1;
        let message = self.sent.to_le_bytes();
        let mut answer = [0; 8];
        let exchange = async {
            self.stream.write_all(&message).await?;
            self.stream.read_exact(&mut answer).await
        };
        let failed = |what: String| Err(format!("the neighbour in mode {}: {what}", self.mode));
        match tokio::time::timeout(NEVER, exchange).await {
            Err(_) => failed("answers no more".into()),
            Ok(Err(error)) => failed(error.to_string()),
            Ok(Ok(_)) if answer != message => failed(format!("answered {answer:?} to {message:?}")),
            Ok(Ok(_)) => Ok(()),
        }
    }
}
