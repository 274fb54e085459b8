//! Every field of every operation, wrong, in turn and in pairs.
//!
//! For each operation the table below has an entry that is right. A case takes it, puts a wrong value
//! into one field, and ends with the status that the host gives. In pairs, all wrong values of
//! two fields are tried in one guest, which checks the statuses itself.

use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::file::OpenFlags;
use wakebox_abi::op::{self, Buf, Operation as _, Param, SocketAddress};
use wakebox_abi::status::Status;

use crate::case::{Args, Case, End, Modes, Violated};
use crate::guest::Guest;
use crate::handles::Kind;
use crate::machine;

/// What a field holds when it is right.
#[derive(Clone, Copy, Debug)]
enum Field {
    /// Text in the arena.
    Text(&'static str),
    /// The path of the socket that is granted.
    UnixPath,
    /// Bytes in the arena.
    Bytes(&'static [u8]),
    /// The address of a datagram's receiver.
    Address,
    /// Room of so many bytes in the arena.
    Room(u32),
    /// An open resource of this kind.
    Handle(Kind),
    /// A number of 32 bits.
    U32(u32),
    /// A number of 64 bits.
    U64(u64),
    /// One of a few numbers: a right one, and two that are none.
    Choice(u64, [u64; 2]),
    /// How a file is opened.
    Flags,
}

use Field::{Address, Bytes, Choice, Flags, Room, Text, U32, U64, UnixPath};

/// An operation with its fields in order.
struct Row {
    opcode: op::Opcode,
    fields: &'static [(&'static str, Field)],
    /// How the right entry ends; `None` if that would take for ever.
    end: Option<Status>,
}

const fn row(
    opcode: op::Opcode,
    fields: &'static [(&'static str, Field)],
    end: Option<Status>,
) -> Row {
    Row {
        opcode,
        fields,
        end,
    }
}

const OK: Option<Status> = Some(Status::Ok);

const ROWS: &[Row] = &[
    row(op::Opcode::Nop, &[], OK),
    row(op::Opcode::Deadline, &[("at_ns", U64(0))], OK),
    row(op::Opcode::ReadClock, &[("into", Room(16))], OK),
    row(op::Opcode::Entropy, &[("into", Room(16))], OK),
    row(
        op::Opcode::WriteConsole,
        &[("stream", Choice(1, [0, 3])), ("from", Bytes(b"text"))],
        OK,
    ),
    row(op::Opcode::ReadStdin, &[("into", Room(16))], OK),
    row(
        op::Opcode::Close,
        &[("handle", Field::Handle(Kind::File))],
        OK,
    ),
    row(
        op::Opcode::TcpConnect,
        &[("address", Text("127.0.0.1:1"))],
        Some(Status::ConnectionRefused),
    ),
    row(
        op::Opcode::TcpListen,
        &[("address", Text("127.0.0.1:0")), ("backlog", U32(1))],
        OK,
    ),
    row(
        op::Opcode::TcpAccept,
        &[
            ("listener", Field::Handle(Kind::Listener)),
            ("peer", Room(24)),
        ],
        None,
    ),
    row(
        op::Opcode::SocketName,
        &[
            ("socket", Field::Handle(Kind::Udp)),
            ("end", Choice(0, [2, 3])),
            ("into", Room(24)),
        ],
        OK,
    ),
    row(
        op::Opcode::ReadStream,
        &[("stream", Field::Handle(Kind::Stream)), ("into", Room(16))],
        None,
    ),
    row(
        op::Opcode::WriteStream,
        &[
            ("stream", Field::Handle(Kind::Stream)),
            ("from", Bytes(b"text")),
            ("amount", Choice(0, [2, 3])),
        ],
        OK,
    ),
    row(
        op::Opcode::ShutdownStream,
        &[
            ("stream", Field::Handle(Kind::Stream)),
            ("how", Choice(1, [3, 4])),
        ],
        OK,
    ),
    row(
        op::Opcode::SetSocketOption,
        &[
            ("socket", Field::Handle(Kind::Stream)),
            ("option", Choice(1, [0, 3])),
            ("value", U32(1)),
        ],
        OK,
    ),
    row(
        op::Opcode::Lookup,
        &[("name", Text("127.0.0.1")), ("into", Room(64))],
        OK,
    ),
    row(op::Opcode::UdpBind, &[("address", Text("127.0.0.1:0"))], OK),
    row(
        op::Opcode::UdpConnect,
        &[
            ("socket", Field::Handle(Kind::Udp)),
            ("address", Text("127.0.0.1:9")),
        ],
        OK,
    ),
    row(
        op::Opcode::UdpSend,
        &[
            ("socket", Field::Handle(Kind::Udp)),
            ("from", Bytes(b"text")),
            ("to", Address),
        ],
        OK,
    ),
    row(
        op::Opcode::UdpReceive,
        &[("socket", Field::Handle(Kind::Udp)), ("into", Room(64))],
        None,
    ),
    row(op::Opcode::UnixConnect, &[("path", UnixPath)], OK),
    row(
        op::Opcode::OpenFile,
        &[("path", Text("/data/file")), ("flags", Flags)],
        OK,
    ),
    row(
        op::Opcode::ReadFile,
        &[
            ("file", Field::Handle(Kind::File)),
            ("into", Room(16)),
            ("offset", U64(0)),
        ],
        OK,
    ),
    row(
        op::Opcode::WriteFile,
        &[
            ("file", Field::Handle(Kind::File)),
            ("from", Bytes(b"text")),
            ("offset", U64(0)),
        ],
        OK,
    ),
    row(
        op::Opcode::StatFile,
        &[("file", Field::Handle(Kind::File)), ("into", Room(64))],
        OK,
    ),
    row(
        op::Opcode::SetFileLength,
        &[("file", Field::Handle(Kind::File)), ("len", U64(10))],
        OK,
    ),
    row(
        op::Opcode::SyncFile,
        &[
            ("file", Field::Handle(Kind::File)),
            ("what", Choice(0, [2, 3])),
        ],
        OK,
    ),
    row(
        op::Opcode::StatPath,
        &[
            ("path", Text("/data/file")),
            ("follow", Choice(1, [2, 3])),
            ("into", Room(64)),
        ],
        OK,
    ),
    row(
        op::Opcode::Rename,
        &[("from", Text("/data/file")), ("to", Text("/data/new"))],
        OK,
    ),
    row(op::Opcode::RemoveFile, &[("path", Text("/data/file"))], OK),
    row(
        op::Opcode::RemoveDirectory,
        &[("path", Text("/data/dir"))],
        OK,
    ),
    row(
        op::Opcode::CreateDirectory,
        &[("path", Text("/data/new"))],
        OK,
    ),
    row(op::Opcode::OpenDirectory, &[("path", Text("/data"))], OK),
    row(
        op::Opcode::ReadDirectory,
        &[
            ("directory", Field::Handle(Kind::Directory)),
            ("into", Room(4096)),
        ],
        OK,
    ),
    row(
        op::Opcode::ListMounts,
        &[("first", U32(0)), ("into", Room(8192))],
        OK,
    ),
    row(
        op::Opcode::HardLink,
        &[("from", Text("/data/file")), ("to", Text("/data/new"))],
        OK,
    ),
    row(
        op::Opcode::SymbolicLink,
        &[("target", Text("file")), ("path", Text("/data/new"))],
        OK,
    ),
    row(
        op::Opcode::ReadLink,
        &[("path", Text("/data/link")), ("into", Room(64))],
        OK,
    ),
    row(
        op::Opcode::SetPathTimes,
        &[
            ("path", Text("/data/file")),
            ("follow", Choice(1, [2, 3])),
            ("accessed", U64(1)),
            ("modified", U64(2)),
        ],
        OK,
    ),
    row(
        op::Opcode::CallHost,
        &[
            ("function", Text("echo")),
            ("input", Bytes(b"\x01x")),
            ("into", Room(64)),
            ("form", Choice(0, [5, 255])),
        ],
        OK,
    ),
    row(
        op::Opcode::OpenHostStream,
        &[
            ("function", Text("numbers")),
            ("input", Bytes(b"")),
            ("form", Choice(0, [5, 255])),
        ],
        OK,
    ),
    row(
        op::Opcode::NextItem,
        &[
            ("stream", Field::Handle(Kind::HostStream)),
            ("into", Room(64)),
        ],
        OK,
    ),
    row(
        op::Opcode::ReadMessage,
        &[
            ("message", Field::Handle(Kind::Message)),
            ("at", U32(0)),
            ("into", Room(64)),
        ],
        OK,
    ),
    row(op::Opcode::NextCall, &[("into", Room(64))], None),
    row(
        op::Opcode::Reply,
        &[
            ("call", U64(0)),
            ("kind", Choice(0, [7, 8])),
            ("from", Bytes(b"text")),
        ],
        OK,
    ),
    row(op::Opcode::Snapshot, &[], OK),
    row(
        op::Opcode::SetFileTimes,
        &[
            ("file", Field::Handle(Kind::File)),
            ("accessed", U64(0)),
            ("modified", U64(0)),
        ],
        OK,
    ),
    row(
        op::Opcode::UdpSendMany,
        &[
            ("socket", Field::Handle(Kind::Udp)),
            ("from", Bytes(b"text")),
            ("to", Address),
            ("each", U32(2)),
        ],
        OK,
    ),
    row(
        op::Opcode::UdpReceiveMany,
        &[
            ("socket", Field::Handle(Kind::Udp)),
            ("into", Room(64)),
            ("each", U32(32)),
        ],
        None,
    ),
];

const fn buf(offset: u64, len: u64) -> u64 {
    len << 32 | offset
}

/// Buffers that do not lie in the arena.
const BUFS: [(&str, u64); 7] = [
    ("past-the-end", buf(machine::ARENA, 1)),
    ("over-the-end", buf(machine::ARENA - 8, 9)),
    ("longer-than-the-arena", buf(0, machine::ARENA + 1)),
    ("offset-max", buf(u32::MAX as u64, 1)),
    ("length-max", buf(0, u32::MAX as u64)),
    ("sign", buf(1 << 31, 16)),
    ("max", u64::MAX),
];

/// Numbers that do not fit into 32 bits.
const WIDE: [(&str, u64); 3] = [("33-bits", 1 << 32), ("sign", 1 << 63), ("max", u64::MAX)];

/// How no file can be opened.
const BAD_FLAGS: [(&str, u64); 8] = [
    ("none", 0),
    ("unknown", 1 | 1 << 8),
    ("create-only", OpenFlags::CREATE as u64),
    (
        "truncate-read",
        (OpenFlags::READ | OpenFlags::TRUNCATE) as u64,
    ),
    (
        "truncate-append",
        (OpenFlags::APPEND | OpenFlags::TRUNCATE) as u64,
    ),
    ("max-32", u32::MAX as u64),
    ("33-bits", 1 | 1 << 32),
    ("max", u64::MAX),
];

/// Handles that are none of this kind.
const HANDLES: [&str; 8] = [
    "stale",
    "next",
    "other-use",
    "other-kind",
    "max-32",
    "33-bits",
    "sign",
    "max",
];

impl Field {
    /// How many wrong values it has.
    fn wrongs(self) -> usize {
        match self {
            Text(_) | UnixPath | Bytes(_) | Address | Room(_) => BUFS.len(),
            Field::Handle(_) => HANDLES.len(),
            U32(_) => WIDE.len(),
            U64(_) => 0,
            Choice(..) => 2 + WIDE.len(),
            Flags => BAD_FLAGS.len(),
        }
    }

    /// The name of a wrong value, and the status that it gets.
    fn wrong(self, index: usize) -> (&'static str, Status) {
        let invalid = Status::InvalidInput;
        match self {
            Text(_) | UnixPath | Bytes(_) | Address | Room(_) => (BUFS[index].0, invalid),
            Field::Handle(_) if index < 5 => (HANDLES[index], Status::BadHandle),
            Field::Handle(_) => (HANDLES[index], invalid),
            U32(_) | U64(_) => (WIDE[index].0, invalid),
            Choice(..) if index < 2 => (["one-none", "other-none"][index], invalid),
            Choice(..) => (WIDE[index - 2].0, invalid),
            Flags => (BAD_FLAGS[index].0, invalid),
        }
    }

    /// The right value; `place` is the field's own part of the arena.
    fn right(self, guest: &mut Guest, place: u32) -> u64 {
        match self {
            Text(text) => guest.arena(place, text.as_bytes()).to_word(),
            UnixPath => guest.arena(place, guest.unix_path.as_bytes()).to_word(),
            Bytes(bytes) => guest.arena(place, bytes).to_word(),
            Address => {
                let to = core::net::SocketAddr::from(([127, 0, 0, 1], 9));
                guest.arena(place, &SocketAddress(to).to_bytes()).to_word()
            }
            Room(len) => Buf { offset: place, len }.to_word(),
            Field::Handle(kind) => kind.open(guest).to_word(),
            U32(value) => value.into(),
            U64(value) | Choice(value, _) => value,
            Flags => (OpenFlags::READ | OpenFlags::WRITE).into(),
        }
    }

    /// A wrong value, made from the right one.
    fn made_wrong(self, guest: &mut Guest, right: u64, index: usize) -> u64 {
        match self {
            Text(_) | UnixPath | Bytes(_) | Address | Room(_) => BUFS[index].1,
            Field::Handle(kind) => match index {
                0 => {
                    let stale = kind.open(guest);
                    assert_eq!(guest.call(op::Close { handle: stale }).0, Status::Ok);
                    stale.to_word()
                }
                1 => right + 9,
                2 => right + (1 << 20),
                3 => kind.another(guest).to_word(),
                4 => u32::MAX.into(),
                wide => WIDE[wide - 5].1 | right,
            },
            U32(_) | U64(_) => WIDE[index].1,
            Choice(_, wrong) if index < 2 => wrong[index],
            Choice(..) => WIDE[index - 2].1,
            Flags => BAD_FLAGS[index].1,
        }
    }
}

/// Longest path that a host takes, in bytes.
const LONG_PATH: u32 = wakebox_abi::file::PATH_MAX as u32;

/// Longest datagram over IPv4, in bytes.
const LONG_DATAGRAM: u32 = 65_507;

impl Field {
    /// The right value that gives the host most to do; `place` is the field's own part of the arena.
    fn worst(self, guest: &mut Guest, opcode: op::Opcode, place: u32) -> u64 {
        let arena = guest.boot.arena.len as u32;
        match self {
            Text(text) if text.starts_with("/data/") => {
                let (folder, name) = text.split_at("/data".len());
                let mut path = guest.arena(place, folder.as_bytes());
                while path.len + 2 + (name.len() as u32) < LONG_PATH {
                    path.len += guest.arena(place + path.len, b"/.").len;
                }
                path.len += guest.arena(place + path.len, name.as_bytes()).len;
                path.to_word()
            }
            Bytes(_) | Room(_) => {
                let most = match opcode {
                    op::Opcode::UdpSend => LONG_DATAGRAM,
                    _ => u32::MAX,
                };
                let len = most.min(arena - place);
                Buf { offset: place, len }.to_word()
            }
            Field::Handle(Kind::File) => {
                let file = Kind::File.open(guest);
                let len = arena.into();
                assert_eq!(guest.call(op::SetFileLength { file, len }).0, Status::Ok);
                file.to_word()
            }
            U64(_) if opcode == op::Opcode::SetFileLength => arena.into(),
            other => other.right(guest, place),
        }
    }
}

/// The row of an operation.
pub(crate) fn row_of(opcode: op::Opcode) -> Option<usize> {
    ROWS.iter().position(|row| row.opcode == opcode)
}

/// The entry of a row that gives the host most to do, and whether it ends by itself.
pub(crate) fn worst(guest: &mut Guest, row: usize) -> ([u64; Submission::WORDS], bool) {
    let row = &ROWS[row];
    let mut words = [0; Submission::WORDS];
    words[0] = row.opcode as u64;
    for (index, (_, field)) in row.fields.iter().enumerate() {
        words[2 + index] = field.worst(guest, row.opcode, 0x8000 + index as u32 * 0x2000);
    }
    (words, row.end.is_some())
}

/// The right entry of a row.
fn right(guest: &mut Guest, row: &Row) -> [u64; Submission::WORDS] {
    let mut words = [0; Submission::WORDS];
    words[0] = row.opcode as u64;
    for (index, (_, field)) in row.fields.iter().enumerate() {
        words[2 + index] = field.right(guest, 0x8000 + index as u32 * 0x2000);
    }
    words
}

/// Has an entry done, and gives its status.
fn submit(guest: &mut Guest, mut words: [u64; Submission::WORDS]) -> Status {
    let token = guest.token(1);
    words[1] = token.to_word();
    guest.submit_words(words);
    let completion = guest.wait();
    assert_eq!(completion.token, token, "a completion of something else");
    completion.status
}

fn all_right(guest: &mut Guest, [row, ..]: Args) {
    let words = right(guest, &ROWS[row as usize]);
    let status = submit(guest, words);
    guest.exit_with(status);
}

/// Has an entry done of whose end the host may tell later, and asks for that by a no-op.
fn deferrable(guest: &mut Guest, [row, ..]: Args) {
    let mut words = right(guest, &ROWS[row as usize]);
    let (token, behind) = (guest.token(1), guest.token(2));
    words[0] |= 1 << 16;
    words[1] = token.to_word();
    guest.submit_words(words);
    guest.submit(&[op::Nop {}.submission(behind)]);
    let ends = [guest.wait(), guest.wait()];
    let find = |token| ends.iter().find(|end| end.token == token);
    match (find(token), find(behind)) {
        (Some(end), Some(_)) => guest.exit_with(end.status),
        _ => panic!("both end: {ends:?}"),
    }
}

fn one_wrong(guest: &mut Guest, [row, field, value, ..]: Args) {
    let row = &ROWS[row as usize];
    let mut words = right(guest, row);
    let place = &mut words[2 + field as usize];
    *place = row.fields[field as usize]
        .1
        .made_wrong(guest, *place, value as usize);
    let status = submit(guest, words);
    guest.exit_with(status);
}

fn two_wrong(guest: &mut Guest, [row, first, second, ..]: Args) {
    let row = &ROWS[row as usize];
    let words = right(guest, row);
    let fields = [first as usize, second as usize].map(|index| (2 + index, row.fields[index].1));
    let [(first, first_field), (second, second_field)] = fields;
    for x in 0..first_field.wrongs() {
        for y in 0..second_field.wrongs() {
            let mut wrong = words;
            wrong[first] = first_field.made_wrong(guest, words[first], x);
            wrong[second] = second_field.made_wrong(guest, words[second], y);
            let status = submit(guest, wrong);
            // What cannot be read is noticed before a handle is looked for.
            let (first, second) = (first_field.wrong(x).1, second_field.wrong(y).1);
            let expected = match first {
                Status::InvalidInput => first,
                _ => second,
            };
            assert_eq!(status, expected, "values {x} and {y}");
        }
    }
}

/// Words of the entry beyond its parameters are nobody's business.
fn unused_words(guest: &mut Guest, [row, ..]: Args) {
    let row = &ROWS[row as usize];
    let mut words = right(guest, row);
    for word in &mut words[2 + row.fields.len()..] {
        *word = u64::MAX;
    }
    let status = submit(guest, words);
    guest.exit_with(status);
}

/// Bits of the first word that must be zero.
fn reserved_bits(guest: &mut Guest, [row, ..]: Args) {
    let words = right(guest, &ROWS[row as usize]);
    // The one before is that of what may be told later.
    for bit in 17..64 {
        let mut wrong = words;
        wrong[0] |= 1 << bit;
        assert_eq!(submit(guest, wrong), Status::Unsupported, "bit {bit}");
    }
    guest.exit_with(Status::Unsupported);
}

/// A token with a slot that does not exist.
fn wrong_slot(guest: &mut Guest, [row, slot, ..]: Args) {
    let mut words = right(guest, &ROWS[row as usize]);
    let token = Token {
        slot: slot as u32,
        generation: 3,
    };
    words[1] = token.to_word();
    guest.submit_words(words);
    guest.wait();
}

/// Operations that do not exist.
fn unknown(guest: &mut Guest, [opcode, ..]: Args) {
    let status = submit(guest, [opcode, 0, 0, 0, 0, 0, 0, 0]);
    guest.exit_with(status);
}

fn is_unknown(opcode: u64) -> bool {
    let number = u16::try_from(opcode).ok();
    number.and_then(op::Opcode::from_code).is_none()
}

/// Numbers that can be read, and what a particular operation makes of them.
fn edge(guest: &mut Guest, [row, field, value, ..]: Args) {
    let mut words = right(guest, &ROWS[row as usize]);
    words[2 + field as usize] = value;
    let status = submit(guest, words);
    guest.exit_with(status);
}

/// An operation of random words in every field, a thousand times over: whatever it is, it is
/// answered or cancelled.
fn garbage(guest: &mut Guest, [seed, ..]: Args) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300_u32 {
        let mut words = [0; Submission::WORDS];
        for word in &mut words {
            let bits = random();
            *word = match bits >> 60 {
                0..4 => bits & 0x7F,
                4..8 => bits & 0xFFFF_FFFF,
                8..12 => buf(bits & 0x1FFFF, bits >> 40 & 0xFFF),
                _ => bits,
            };
        }
        // Mostly operations that exist. A cancellation has no completion; it is submitted below.
        words[0] = 2 + random() % 50;
        let token = guest.token(round % 32);
        words[1] = token.to_word();
        guest.submit_words(words);
        // What waits is taken back: either end is one.
        let cancel = op::Cancel { target: token };
        let entry = op::Operation::submission(
            cancel,
            Token {
                slot: 40,
                generation: round,
            },
        );
        guest.submit(&[entry]);
        let completion = guest.wait();
        assert_eq!(completion.token, token, "a completion of something else");
    }
}

/// The row of an operation.
fn index_of(opcode: op::Opcode) -> u64 {
    ROWS.iter()
        .position(|row| row.opcode == opcode)
        .unwrap_or(0) as u64
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (index, row) in ROWS.iter().enumerate() {
        of_row(index as u64, row, visit);
    }
    let numbers = [1 << 17, 60, 61, 63, 64, 255, 256, 0x7FFF, 0x8000, 0xFFFF];
    // Of those that may become operations, some have.
    for opcode in numbers.into_iter().filter(|number| is_unknown(*number)) {
        let case = Case::new(
            "entries",
            format_args!("unknown-{opcode:#x}"),
            unknown,
            Status::Unsupported,
        );
        visit(case.with([opcode, 0, 0, 0]).modes(Modes::All));
    }
    edges(visit);
    for seed in 0..12 {
        let case = Case::new(
            "entries",
            format_args!("garbage-{seed}"),
            garbage,
            End::Exit(0),
        );
        visit(case.with([seed + 1, 0, 0, 0]).modes(Modes::All));
    }
}

fn of_row(index: u64, row: &Row, visit: &mut dyn FnMut(Case)) {
    let name = row.opcode.name();
    if let Some(end) = row.end {
        let case = |what, act| {
            Case::new("entries", format_args!("{name}{what}"), act, end).with([index, 0, 0, 0])
        };
        visit(case("", all_right).modes(Modes::All));
        if row.fields.len() < Submission::PARAMS {
            visit(case(".unused", unused_words));
        }
        visit(case(".deferrable", deferrable).modes(Modes::All));
    }
    let reserved = format_args!("{name}.reserved");
    let case = Case::new("entries", reserved, reserved_bits, Status::Unsupported);
    visit(case.with([index, 0, 0, 0]));
    for slot in [machine::IN_FLIGHT, u32::MAX] {
        let name = format_args!("{name}.slot={slot:#x}");
        let case = Case::new(
            "entries",
            name,
            wrong_slot,
            End::Violation(Violated::NoSuchSlot),
        );
        visit(case.with([index, slot.into(), 0, 0]));
    }
    for (first, (first_name, field)) in row.fields.iter().enumerate() {
        for value in 0..field.wrongs() {
            let (value_name, status) = field.wrong(value);
            let closes = row.opcode == op::Opcode::Close && value_name == "other-kind";
            let status = if closes { Status::Ok } else { status };
            let name = format_args!("{name}.{first_name}={value_name}");
            let case = Case::new("entries", name, one_wrong, status);
            visit(case.with([index, first as u64, value as u64, 0]));
        }
        for (second, (second_name, other)) in row.fields.iter().enumerate().skip(first + 1) {
            if field.wrongs() > 0 && other.wrongs() > 0 {
                let name = format_args!("{name}.{first_name}+{second_name}");
                let case = Case::new("entries", name, two_wrong, End::Exit(0)).modes(Modes::All);
                visit(case.with([index, first as u64, second as u64, 0]));
            }
        }
    }
}

fn edges(visit: &mut dyn FnMut(Case)) {
    use op::Opcode;
    let most = i64::MAX as u64;
    let empty = buf(0, 0);
    let at_the_end = buf(machine::ARENA, 0);
    let last = buf(machine::ARENA - 1, 1);
    let edges = [
        (Opcode::Deadline, 0, "one", 1, Status::Ok),
        (
            Opcode::ReadClock,
            0,
            "short",
            buf(0, 15),
            Status::InvalidInput,
        ),
        (
            Opcode::ReadClock,
            0,
            "last",
            buf(machine::ARENA - 16, 16),
            Status::Ok,
        ),
        (Opcode::Entropy, 0, "empty", empty, Status::Ok),
        (Opcode::Entropy, 0, "at-the-end", at_the_end, Status::Ok),
        (Opcode::Entropy, 0, "last", last, Status::Ok),
        (
            Opcode::Entropy,
            0,
            "all",
            buf(0, machine::ARENA),
            Status::Ok,
        ),
        (Opcode::WriteConsole, 1, "empty", empty, Status::Ok),
        (
            Opcode::WriteConsole,
            1,
            "at-the-end",
            at_the_end,
            Status::Ok,
        ),
        (
            Opcode::WriteConsole,
            1,
            "all",
            buf(0, machine::ARENA),
            Status::Ok,
        ),
        (Opcode::ReadStdin, 0, "empty", empty, Status::Ok),
        (
            Opcode::ReadStdin,
            0,
            "all",
            buf(0, machine::ARENA),
            Status::Ok,
        ),
        (Opcode::TcpListen, 1, "zero", 0, Status::Ok),
        (Opcode::TcpListen, 1, "max-32", u32::MAX.into(), Status::Ok),
        (Opcode::TcpListen, 0, "empty", empty, Status::InvalidInput),
        (Opcode::TcpConnect, 0, "empty", empty, Status::InvalidInput),
        (
            Opcode::TcpAccept,
            1,
            "short",
            buf(0, 23),
            Status::InvalidInput,
        ),
        (
            Opcode::SocketName,
            2,
            "short",
            buf(0, 23),
            Status::InvalidInput,
        ),
        (Opcode::WriteStream, 1, "empty", empty, Status::Ok),
        (Opcode::SetSocketOption, 2, "two", 2, Status::InvalidInput),
        (
            Opcode::SetSocketOption,
            2,
            "max-32",
            u32::MAX.into(),
            Status::InvalidInput,
        ),
        (Opcode::Lookup, 1, "empty", empty, Status::Ok),
        (
            Opcode::UdpSend,
            1,
            "all",
            buf(0, machine::ARENA),
            Status::MessageTooLarge,
        ),
        (Opcode::UdpSend, 2, "empty", empty, Status::NotConnected),
        (
            Opcode::UdpSend,
            2,
            "short",
            buf(0, 23),
            Status::InvalidInput,
        ),
        (
            Opcode::UdpReceive,
            1,
            "short",
            buf(0, 23),
            Status::InvalidInput,
        ),
        (Opcode::UdpSendMany, 1, "empty", empty, Status::InvalidInput),
        (Opcode::UdpSendMany, 2, "empty", empty, Status::NotConnected),
        (Opcode::UdpSendMany, 3, "zero", 0, Status::InvalidInput),
        (Opcode::UdpSendMany, 3, "one", 1, Status::Ok),
        (
            Opcode::UdpSendMany,
            3,
            "max-32",
            u32::MAX.into(),
            Status::Ok,
        ),
        (
            Opcode::UdpReceiveMany,
            1,
            "short",
            buf(0, 31),
            Status::InvalidInput,
        ),
        (Opcode::UdpReceiveMany, 2, "short", 27, Status::InvalidInput),
        (
            Opcode::UdpReceiveMany,
            2,
            "max-32",
            u32::MAX.into(),
            Status::InvalidInput,
        ),
        (Opcode::UnixConnect, 0, "empty", empty, Status::InvalidInput),
        (
            Opcode::UnixConnect,
            0,
            "all",
            buf(0, machine::ARENA),
            Status::InvalidInput,
        ),
        (Opcode::ReadFile, 1, "empty", empty, Status::Ok),
        (
            Opcode::ReadFile,
            1,
            "all",
            buf(0, machine::ARENA),
            Status::Ok,
        ),
        (Opcode::ReadFile, 2, "most", most, Status::InvalidInput),
        (Opcode::ReadFile, 2, "sign", 1 << 63, Status::InvalidInput),
        (Opcode::ReadFile, 2, "max", u64::MAX, Status::InvalidInput),
        (Opcode::WriteFile, 1, "empty", empty, Status::Ok),
        (Opcode::WriteFile, 2, "most", most, Status::InvalidInput),
        (Opcode::WriteFile, 2, "sign", 1 << 63, Status::InvalidInput),
        (Opcode::WriteFile, 2, "max", u64::MAX, Status::InvalidInput),
        (
            Opcode::StatFile,
            1,
            "short",
            buf(0, 39),
            Status::InvalidInput,
        ),
        (
            Opcode::SetFileLength,
            1,
            "sign",
            1 << 63,
            Status::InvalidInput,
        ),
        (
            Opcode::SetFileLength,
            1,
            "max",
            u64::MAX,
            Status::InvalidInput,
        ),
        (
            Opcode::StatPath,
            2,
            "short",
            buf(0, 39),
            Status::InvalidInput,
        ),
        (Opcode::OpenFile, 0, "empty", empty, Status::InvalidInput),
        (
            Opcode::OpenFile,
            0,
            "zeroes",
            buf(0x4000, 8),
            Status::InvalidInput,
        ),
        (
            Opcode::OpenFile,
            0,
            "too-long",
            buf(0, 4097),
            Status::InvalidInput,
        ),
        (
            Opcode::ReadDirectory,
            1,
            "empty",
            empty,
            Status::InvalidInput,
        ),
        (Opcode::HardLink, 0, "empty", empty, Status::InvalidInput),
        (
            Opcode::SymbolicLink,
            0,
            "too-long",
            buf(0, 4097),
            Status::InvalidInput,
        ),
        (Opcode::SymbolicLink, 0, "empty", empty, Status::NotFound),
        (Opcode::ReadLink, 1, "empty", empty, Status::Ok),
        (
            Opcode::ReadLink,
            1,
            "all",
            buf(0, machine::ARENA),
            Status::Ok,
        ),
        (Opcode::SetPathTimes, 2, "keep", 1 << 63, Status::Ok),
        (Opcode::SetPathTimes, 3, "now", 1 << 63 | 1, Status::Ok),
        (Opcode::SetPathTimes, 3, "most", most, Status::Ok),
        (Opcode::SetPathTimes, 2, "max", u64::MAX, Status::Ok),
        (Opcode::SetFileTimes, 1, "earliest", 1 << 63 | 2, Status::Ok),
        (Opcode::CallHost, 0, "empty", empty, Status::NotFound),
        (
            Opcode::CallHost,
            0,
            "all",
            buf(0, machine::ARENA),
            Status::InvalidInput,
        ),
        (Opcode::CallHost, 1, "empty", empty, Status::InvalidData),
        (Opcode::CallHost, 2, "empty", empty, Status::MessageTooLarge),
        (Opcode::NextItem, 1, "empty", empty, Status::MessageTooLarge),
        (
            Opcode::ReadMessage,
            1,
            "max-32",
            u32::MAX.into(),
            Status::Ok,
        ),
        (Opcode::ReadMessage, 2, "empty", empty, Status::Ok),
        (Opcode::Reply, 0, "max", u64::MAX, Status::Ok),
        (Opcode::Reply, 2, "all", buf(0, machine::ARENA), Status::Ok),
    ];
    for (opcode, field, what, value, status) in edges {
        let index = index_of(opcode);
        let field_name = ROWS[index as usize].fields[field].0;
        let name = format_args!("{}.{field_name}={what}", opcode.name());
        let case = Case::new("entries", name, edge, status);
        visit(case.with([index, field as u64, value, 0]));
    }
}

/// Keeps the table whole: every operation has a row, or a group of its own.
const _: () = assert!(
    ROWS.len() + 1 == op::Opcode::ALL.len(),
    "an operation has no row here (cancelling is in rings.rs)"
);
