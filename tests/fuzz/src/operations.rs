//! Each operation, with any arguments, over an arena of any content.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use wakebox::Policy;
use wakebox::proof::{ARENA, Bench, SLOTS};
use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::op::{Buf, Opcode, Param, SocketAddress};
use wakebox_proofs::{Any, Bytes, Random};

use crate::generate;

/// Bytes at the arena's beginning of which each piece means something to some operation.
const WORDS: [&[u8]; 14] = [
    b"127.0.0.1:0",
    b"127.0.0.1:1",
    b"localhost:1",
    b"localhost",
    b"/dir/file",
    b"/dir/sub",
    b"/dir/sub/../../file",
    b"/dir",
    b"/read/file",
    b"echo",
    b"count",
    b"\x03hey",
    b"\x05",
    b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01",
];

/// Bytes of an input that stand in the arena as they are; the rest says what is submitted.
const RAW: usize = 64;

/// What a guest may do here: nothing that anybody else would notice.
struct Place {
    bench: Bench,
    folder: TempDir,
    arena: Vec<u8>,
    words: Vec<u64>,
}

impl Place {
    fn new() -> Self {
        // In memory, if that is possible: it is emptied after each input.
        let memory = Some(Path::new("/dev/shm")).filter(|path| path.is_dir());
        let folder = match memory {
            Some(memory) => TempDir::new_in(memory),
            None => TempDir::new(),
        };
        let folder = folder.expect("a folder for the guest's files");
        for name in ["dir", "read"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder in it");
        }
        std::fs::write(folder.path().join("read/file"), "content").expect("a file in it");
        let host = folder.path().display();
        let policy = Policy::new()
            .allow_connect("127.0.0.1:1".parse().expect("a target"))
            .allow_listen("127.0.0.1:0".parse().expect("an address"))
            .allow_udp("127.0.0.1:1".parse().expect("a target"))
            .allow_udp_bind("127.0.0.1:0".parse().expect("an address"))
            .allow_dir(format!("{host}/dir:/dir").parse().expect("a directory"))
            .allow_dir(
                format!("{host}/read:/read:ro")
                    .parse()
                    .expect("a directory"),
            )
            .allow_fn("*".parse().expect("a pattern"));
        let mut arena = vec![0; RAW];
        let mut words = vec![0, range(0, RAW), range(0, 24), range(RAW, ARENA - RAW)];
        let nowhere = SocketAddress(([127, 0, 0, 1], 1).into()).to_bytes();
        for word in WORDS.iter().copied().chain([&nowhere[..]]) {
            words.push(range(arena.len(), word.len()));
            arena.extend(word);
        }
        words.extend([range(1024, 512), range(2048, 4), range(ARENA - 1, 1)]);
        words.extend([
            range(ARENA, 0),
            range(ARENA, 1),
            range(ARENA - 1, 2),
            u64::MAX,
        ]);
        Self {
            bench: Bench::new(policy),
            folder,
            arena,
            words,
        }
    }

    /// Takes away what the guest has made.
    fn tidy(&self) {
        let made: Vec<PathBuf> = std::fs::read_dir(self.folder.path().join("dir"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        for path in made {
            // A call that is still under way may have been faster.
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
    }
}

fn range(offset: usize, len: usize) -> u64 {
    let (offset, len) = (offset as u32, len as u32);
    Buf { offset, len }.to_word()
}

/// Has the operations done that these bytes describe. Returns how many were completed.
pub fn run(data: &[u8]) -> u64 {
    thread_local! {
        static PLACE: Place = Place::new();
    }
    PLACE.with(|place| {
        let (raw, rest) = data.split_at(data.len().min(RAW));
        let mut arena = place.arena.clone();
        arena[..raw.len()].copy_from_slice(raw);
        let mut any = Bytes::new(rest);
        let mut entries = Vec::new();
        while entries.len() < 16 && (entries.is_empty() || any.goes_on()) {
            let slot = entries.len() as u32;
            entries.push(entry(&mut any, slot, &place.words));
        }
        let completed = place.bench.operations(&arena, &entries);
        place.tidy();
        completed.unwrap_or(0) as u64
    })
}

fn entry(any: &mut Bytes<'_>, slot: u32, words: &[u64]) -> Submission {
    let mut params = [0; Submission::PARAMS];
    let opcode = any.one_of(Opcode::ALL) as u16;
    for param in &mut params[..3] {
        *param = match any.below(4) {
            // A range that means something; a handle, a flag or a small number; any word.
            0 | 1 => any.one_of(words),
            2 => any.u64(&[0, 1, 2, 3, 9, 1 << 20, 1 << 32]),
            _ => any.u64(&[u32::MAX.into(), 1 << 63, u64::MAX]),
        };
    }
    Submission {
        opcode,
        deferrable: any.below(2) == 0,
        token: Token {
            slot: any.u32_mostly(&[slot], &[0, SLOTS]),
            generation: any.below(2),
        },
        params,
    }
}

/// Bytes that [`run`] reads as it likes.
pub fn make(random: &mut Random, _: &[Vec<u8>]) -> Vec<u8> {
    let mut input = vec![0; RAW];
    input.extend(generate::bytes(random, 60));
    if random.bool() {
        input[..RAW].fill_with(|| random.word() as u8);
    }
    input
}
