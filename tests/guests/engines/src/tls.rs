//! TLS by two crates, unchanged: says a line to a server that gives it back reversed, by `rustls` without buffers of its
//! own and with `ring`, and by `embedded-tls`. Arguments: the server's address, and the file with the certificate of
//! who has signed its own.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use embedded_tls::pki::CertVerifier;
use embedded_tls::{
    Aes128GcmSha256, Certificate, CryptoProvider, CryptoRngCore, TlsClock, TlsConfig,
    TlsConnection, TlsContext, TlsError, TlsVerifier,
};
use rand_core::OsRng;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, RootCertStore};
use wakebox_guest::net::TcpStream;
use wakebox_guest::{env, fs, println, time};

const LINE: &[u8] = b"by way of TLS\n";

#[wakebox_guest::main]
async fn main() {
    let mut args = env::args();
    let (Some(address), Some(file)) = (args.next(), args.next()) else {
        panic!("an address and a file");
    };
    let authority = fs::read(file).await.unwrap();
    println!("rustls {}", by_rustls(address, &authority).await);
    println!(
        "embedded-tls {}",
        by_embedded_tls(address, &authority).await
    );
}

/// The guest's clock.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(time::unix_time()))
    }
}

impl TlsClock for Clock {
    fn now() -> Option<u64> {
        Some(time::unix_time().as_secs())
    }
}

/// The line as it comes back.
async fn by_rustls(address: &str, authority: &[u8]) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(Clock))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = UnbufferedClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();

    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    let (mut is_said, mut answer) = (false, Vec::new());
    loop {
        let UnbufferedStatus { mut discard, state } = client.process_tls_records(&mut incoming);
        let wants_more = match state.unwrap() {
            ConnectionState::EncodeTlsData(mut data) => {
                let at = outgoing.len();
                outgoing.resize(at + 16384, 0);
                let len = data.encode(&mut outgoing[at..]).unwrap();
                outgoing.truncate(at + len);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                stream.write_all(&outgoing).await.unwrap();
                outgoing.clear();
                data.done();
                false
            }
            ConnectionState::WriteTraffic(mut data) if !is_said => {
                let mut record = vec![0; 16384];
                let len = data.encrypt(LINE, &mut record).unwrap();
                stream.write_all(&record[..len]).await.unwrap();
                is_said = true;
                false
            }
            ConnectionState::ReadTraffic(mut data) => {
                while let Some(record) = data.next_record() {
                    let record = record.unwrap();
                    discard += record.discard;
                    answer.extend_from_slice(record.payload);
                }
                false
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
            other => panic!("{other:?}"),
        };
        incoming.drain(..discard);
        if answer.len() >= LINE.len() {
            return String::from_utf8_lossy(answer.trim_ascii()).into_owned();
        }
        if wants_more {
            let mut piece = [0; 4096];
            let len = stream.read(&mut piece).await.unwrap();
            assert!(len > 0, "the server has ended the connection");
            incoming.extend_from_slice(&piece[..len]);
        }
    }
}

/// What the other crate wants to be given.
struct Provider<'a> {
    verifier: CertVerifier<'a, Aes128GcmSha256, Clock, 4096>,
    random: OsRng,
}

impl CryptoProvider for Provider<'_> {
    type CipherSuite = Aes128GcmSha256;
    type Signature = &'static [u8];

    fn rng(&mut self) -> impl CryptoRngCore {
        &mut self.random
    }

    fn verifier(&mut self) -> Result<&mut impl TlsVerifier<Aes128GcmSha256>, TlsError> {
        Ok(&mut self.verifier)
    }
}

async fn by_embedded_tls(address: &str, authority: &[u8]) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut incoming, mut outgoing) = (vec![0; 17 << 10], vec![0; 17 << 10]);
    let mut tls = TlsConnection::new(stream, &mut incoming, &mut outgoing);
    let config = TlsConfig::new().with_server_name("localhost");
    let provider = Provider {
        verifier: CertVerifier::new(Certificate::X509(authority)),
        random: OsRng,
    };
    tls.open(TlsContext::new(&config, provider)).await.unwrap();
    let mut rest = LINE;
    while !rest.is_empty() {
        let len = tls.write(rest).await.unwrap();
        rest = &rest[len..];
    }
    tls.flush().await.unwrap();
    let mut answer = Vec::new();
    while answer.len() < LINE.len() {
        let mut piece = [0; 64];
        let len = tls.read(&mut piece).await.unwrap();
        answer.extend_from_slice(&piece[..len]);
    }
    String::from_utf8_lossy(answer.trim_ascii()).into_owned()
}
