//! Larger crates that work in guests unchanged: a script engine, a WebAssembly interpreter, a codec of DNS, cryptography in
//! assembly, and, with the address of a broker, a client of MQTT.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
use ring::{digest, hmac};
use rust_mqtt::Bytes;
use rust_mqtt::buffer::AllocBuffer;
use rust_mqtt::client::Client;
use rust_mqtt::client::event::Event;
use rust_mqtt::client::options::{
    ConnectOptions, PublicationOptions, SubscriptionOptions, TopicReference,
};
use rust_mqtt::types::{MqttString, TopicFilter, TopicName};
use wakebox_guest::net::TcpStream;
use wakebox_guest::{env, println, task};

/// `(module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))`
const ADD: &[u8] = b"\0asm\x01\0\0\0\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f\x03\x02\x01\0\
    \x07\x07\x01\x03add\0\0\x0a\x09\x01\x07\0\x20\0\x20\x01\x6a\x0b";

#[wakebox_guest::main]
async fn main() {
    scripts();
    wasm();
    names();
    hashes();
    if let Some(broker) = env::args().next() {
        println!("rust-mqtt {}", message(broker).await);
    }
}

/// Says something to itself by way of a broker.
async fn message(broker: &str) -> String {
    let mut buffer = AllocBuffer;
    let mut client = Client::<'_, '_, _, _, 1, 1, 1, 1, 16, 0, 1>::new(&mut buffer);
    let stream = TcpStream::connect(broker).await.unwrap();
    let id = MqttString::try_from("guest").unwrap();
    let options = ConnectOptions::new().clean_start();
    client.connect(stream, &options, Some(id)).await.unwrap();
    let topic = MqttString::try_from("guests/speak").unwrap();
    let filter = TopicFilter::new(topic.as_borrowed()).unwrap();
    let subscription = SubscriptionOptions::new().at_least_once();
    client
        .subscribe(filter.as_borrowed(), &subscription)
        .await
        .unwrap();
    let name = TopicName::new(topic.as_borrowed()).unwrap();
    let mut said = false;
    loop {
        match client.poll().await.unwrap() {
            Event::Suback(_) if !said => {
                said = true;
                let reference = TopicReference::Name(name.as_borrowed());
                let options = PublicationOptions::new(reference).at_least_once();
                client
                    .publish(&options, Bytes::from(&b"by way of a broker"[..]))
                    .await
                    .unwrap();
            }
            Event::Publish(message) => {
                return String::from_utf8_lossy(message.message.as_ref()).into_owned();
            }
            _ => {}
        }
    }
}

/// A script calls a function that waits for the host, which a script engine cannot.
fn scripts() {
    let mut engine = rhai::Engine::new();
    engine.register_fn("nap", |millis: rhai::INT| {
        task::block_on(wakebox_guest::time::sleep(
            core::time::Duration::from_millis(millis as u64),
        ));
        millis
    });
    let script = "let sum = 0; for n in 0..10 { sum += n; } sum + nap(2)";
    println!("rhai {}", engine.eval::<rhai::INT>(script).unwrap());
}

fn wasm() {
    let engine = wasmi::Engine::default();
    let module = wasmi::Module::new(&engine, ADD).unwrap();
    let mut store = wasmi::Store::new(&engine, ());
    let linker = wasmi::Linker::<()>::new(&engine);
    let instance = linker.instantiate_and_start(&mut store, &module).unwrap();
    let add = instance
        .get_typed_func::<(i32, i32), i32>(&store, "add")
        .unwrap();
    println!("wasmi {}", add.call(&mut store, (40, 2)).unwrap());
}

fn names() {
    let name = Name::from_str("example.org.").unwrap();
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name, RecordType::AAAA));
    let bytes = message.to_bytes().unwrap();
    let read = Message::from_bytes(&bytes).unwrap();
    println!("hickory-proto {} {}", bytes.len(), read.queries[0].name());
}

fn hashes() {
    let hash = digest::digest(&digest::SHA256, b"abc");
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .take(4)
            .map(|byte| alloc::format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .concat()
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
    let tag = hmac::sign(&key, b"The quick brown fox jumps over the lazy dog");
    println!("ring {} {}", hex(hash.as_ref()), hex(tag.as_ref()));
}
