//! Every byte around the end of a memory.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use wakebox_wasm::Bounds;

use crate::Guest;
use crate::spec::encoded_text;
use crate::words::{Command, Value};

/// Memory of the guest, in bytes.
const MEMORY: u64 = 64 << 20;
/// Bytes of a page of WebAssembly.
const PAGE: u64 = 64 << 10;

/// Loads and stores, how many bytes each reaches, and what a store stores.
const ACCESSES: [(&str, u64, &str); 10] = [
    ("i32.load8_u", 1, ""),
    ("i32.load16_u", 2, ""),
    ("i32.load", 4, ""),
    ("i64.load", 8, ""),
    ("v128.load", 16, ""),
    ("i32.store8", 1, "(i32.const 1)"),
    ("i32.store16", 2, "(i32.const 1)"),
    ("i32.store", 4, "(i32.const 1)"),
    ("i64.store", 8, "(i64.const 1)"),
    ("v128.store", 16, "(v128.const i64x2 1 1)"),
];

/// Static offsets: none, small ones, a page, over the guard of Wasmtime's own settings, and up to the largest.
const OFFSETS: [u64; 8] = [
    0,
    1,
    15,
    PAGE,
    33 << 20,
    0x7FFF_FFFF,
    0xFFFF_FFF0,
    0xFFFF_FFFF,
];

/// How much a memory of one page grows, in pages, one time after the other.
const GROWTH: [u64; 4] = [0, 1, 3, 30];

/// Exports a function for each access with each offset, whose argument is the address, and `grow`.
fn module() -> String {
    let mut functions = String::new();
    for (access, (name, _, value)) in ACCESSES.iter().enumerate() {
        for (number, offset) in OFFSETS.iter().enumerate() {
            let reached = format!("({name} offset={offset} (local.get 0) {value})");
            let body = match value.is_empty() {
                true => format!("(drop {reached})"),
                false => reached,
            };
            let _ = write!(
                functions,
                "(func (export \"{access}-{number}\") (param i32) {body})"
            );
        }
    }
    format!(
        "(module (memory (export \"memory\") 1) {functions}
          (func (export \"grow\") (param i32) (result i32) (memory.grow (local.get 0))))"
    )
}

/// Addresses at which an access of so many bytes reaches just what there is and just beyond, and some far away.
fn addresses(size: u64, offset: u64, len: u64) -> BTreeSet<u32> {
    let around = (0..=len + 2).filter_map(|ahead| (size + 1 + ahead).checked_sub(offset + len + 1));
    let far = [0, 1, size, 1 << 31, 0xFFFF_FFF0, 0xFFFF_FFFF];
    let all = around.chain(far);
    all.filter_map(|at| u32::try_from(at).ok()).collect()
}

/// Touches them, after each growth. Gives how many accesses there were, and how many of them trapped.
///
/// # Panics
///
/// If one traps that should not, or does not that should, or traps in another way.
pub async fn around_the_end(bounds: Bounds) -> (usize, usize) {
    let module = encoded_text(&module()).expect("it is a module");
    let guest = Guest::start(&[module], MEMORY, bounds).await;
    let mut guest = guest.expect("it can be compiled");
    let made = guest.ask(Command::Instantiate(0)).await;
    made.expect("there is room");
    let (mut size, mut tried, mut trapped) = (PAGE, 0, 0);
    for more in GROWTH {
        let grow = Command::Invoke(0, "grow".into(), vec![Value::I32(more as u32)]);
        let before = Value::I32((size / PAGE) as u32);
        assert_eq!(guest.ask(grow).await, Ok(vec![before]));
        size += more * PAGE;
        for (access, (name, len, _)) in ACCESSES.iter().enumerate() {
            for (number, offset) in OFFSETS.iter().enumerate() {
                for at in addresses(size, *offset, *len) {
                    let touch = format!("{access}-{number}");
                    let touch = Command::Invoke(0, touch, vec![Value::I32(at)]);
                    let touched = guest.ask(touch).await;
                    let what =
                        format!("{name} offset={offset} at {at:#x} of {size:#x}, {bounds:?}");
                    let fits = u64::from(at) + offset + len <= size;
                    match touched {
                        Ok(_) => assert!(fits, "{what} went well"),
                        Err(why) => {
                            assert!(!fits, "{what}: {why}");
                            assert!(why.contains("out of bounds memory access"), "{what}: {why}");
                            trapped += 1;
                        }
                    }
                    tried += 1;
                }
            }
        }
    }
    guest.end().await;
    (tried, trapped)
}
