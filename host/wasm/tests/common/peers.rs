//! Whom components talk to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
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

/// Who gives two datagrams back to whom they came from, at a port of its own; and the socket of somebody else.
pub fn udp_peers() -> (u16, UdpSocket, JoinHandle<()>) {
    let [echo, stranger] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = echo.local_addr().unwrap().port();
    let echoes = spawn(move || {
        for _ in 0..2 {
            let mut bytes = [0; 100];
            let (count, from) = echo.recv_from(&mut bytes).unwrap();
            echo.send_to(&bytes[..count], from).unwrap();
        }
    });
    (port, stranger, echoes)
}

/// Who calls at a port as soon as a component says it, says hello, and hears what it says to the end.
#[derive(Clone, Default)]
pub struct Callers(Arc<Mutex<Vec<JoinHandle<String>>>>);

impl Callers {
    /// For each number that a component says.
    pub fn hear(&self, number: i32) {
        if number < 1024 {
            return;
        }
        self.0.lock().unwrap().push(spawn(move || {
            let mut peer = TcpStream::connect(("127.0.0.1", number as u16)).unwrap();
            peer.write_all(b"hello").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            let mut heard = String::new();
            peer.read_to_string(&mut heard).unwrap();
            heard
        }));
    }

    /// What each has heard.
    pub fn heard(&self) -> Vec<String> {
        let callers = std::mem::take(&mut *self.0.lock().unwrap());
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    }
}
