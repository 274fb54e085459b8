//! Whom components talk to.

use std::net::TcpListener;
use std::thread::{JoinHandle, spawn};

use wakebox::Policy;

/// A server on a port of its own, which does that.
pub fn server<T: Send + 'static>(
    act: impl FnOnce(TcpListener) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, spawn(move || act(listener)))
}

pub fn to_port(port: u16) -> Policy {
    Policy::new().allow_connect(format!("127.0.0.1:{port}").parse().unwrap())
}
