//! Handles: every operation that takes one is given those of all other kinds, and some that were
//! never given out.

use wakebox_abi::file::OpenFlags;
use wakebox_abi::op::{self, Buf, Handle, Operation, SocketAddress};
use wakebox_abi::status::Status;

use crate::case::{Args, Case, End, Modes, Name};
use crate::guest::Guest;
use crate::machine;

/// A kind of open resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Listener,
    Stream,
    Udp,
    HostStream,
    Message,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::File,
        Self::Directory,
        Self::Listener,
        Self::Stream,
        Self::Udp,
        Self::HostStream,
        Self::Message,
    ];

    /// Opens one. Uses the arena below 0x1000.
    pub(crate) fn open(self, guest: &mut Guest) -> Handle {
        let text = |guest: &Guest, text: &str| guest.arena(0, text.as_bytes());
        match self {
            Self::File => {
                let path = text(guest, "/data/file");
                let flags = OpenFlags(OpenFlags::READ | OpenFlags::WRITE);
                guest.open(op::OpenFile { path, flags })
            }
            Self::Directory => {
                let path = text(guest, "/data");
                guest.open(op::OpenDirectory { path })
            }
            Self::Listener => {
                let address = text(guest, "127.0.0.1:0");
                guest.open(op::TcpListen {
                    address,
                    backlog: 8,
                })
            }
            Self::Stream => {
                let socket = Self::Listener.open(guest);
                let into = Buf {
                    offset: 0,
                    len: SocketAddress::SIZE as u32,
                };
                let end = op::End::Local;
                let (status, _) = guest.call(op::SocketName { socket, end, into });
                assert_eq!(status, Status::Ok);
                let bytes = core::array::from_fn(|at| guest.peek(at as u32));
                let local = SocketAddress::from_bytes(&bytes).expect("an address");
                let address = text(guest, Name::new(format_args!("{}", local.0)).as_str());
                guest.open(op::TcpConnect { address })
            }
            Self::Udp => {
                let address = text(guest, "127.0.0.1:0");
                guest.open(op::UdpBind { address })
            }
            Self::HostStream => {
                let function = text(guest, "numbers");
                let input = Buf::default();
                guest.open(op::OpenHostStream {
                    form: op::CallForm::Plain,
                    function,
                    input,
                })
            }
            Self::Message => {
                let function = text(guest, "big");
                let into = Buf {
                    offset: 0x100,
                    len: 8,
                };
                let input = Buf::default();
                let (status, value) = guest.call(op::CallHost {
                    form: op::CallForm::Plain,
                    function,
                    input,
                    into,
                });
                assert_eq!((status, value), (Status::Ok, op::OVERFLOW));
                let bytes = core::array::from_fn(|at| guest.peek(0x100 + at as u32));
                Handle(u32::from_le_bytes(bytes))
            }
        }
    }

    /// Opens one of another kind.
    pub(crate) fn another(self, guest: &mut Guest) -> Handle {
        let other = match self {
            Self::Udp => Self::File,
            _ => Self::Udp,
        };
        other.open(guest)
    }
}

/// An operation on a handle, by number: its name, and the kinds that it is for.
const USES: [(&str, &[Kind]); 17] = [
    ("TcpAccept", &[Kind::Listener]),
    ("SocketName", &[Kind::Listener, Kind::Stream, Kind::Udp]),
    ("ReadStream", &[Kind::Stream]),
    ("WriteStream", &[Kind::Stream]),
    ("ShutdownStream", &[Kind::Stream]),
    ("SetSocketOption", &[Kind::Stream]),
    ("UdpConnect", &[Kind::Udp]),
    ("UdpSend", &[Kind::Udp]),
    ("UdpReceive", &[Kind::Udp]),
    ("ReadFile", &[Kind::File]),
    ("WriteFile", &[Kind::File]),
    ("StatFile", &[Kind::File]),
    ("SetFileLength", &[Kind::File]),
    ("SyncFile", &[Kind::File]),
    ("ReadDirectory", &[Kind::Directory]),
    ("NextItem", &[Kind::HostStream]),
    ("ReadMessage", &[Kind::Message]),
];

/// Has the operation of a number done on a handle.
fn on(guest: &mut Guest, number: u64, handle: Handle) -> Status {
    let into = Buf {
        offset: 0x1000,
        len: 0x1000,
    };
    let from = Buf {
        offset: 0x1000,
        len: 4,
    };
    let empty = Buf::default();
    let address = guest.arena(0x800, b"127.0.0.1:9");
    let done = match number {
        0 => guest.call(op::TcpAccept {
            listener: handle,
            peer: empty,
        }),
        1 => guest.call(op::SocketName {
            socket: handle,
            end: op::End::Local,
            into,
        }),
        2 => guest.call(op::ReadStream {
            stream: handle,
            into,
        }),
        3 => guest.call(op::WriteStream {
            stream: handle,
            from,
            amount: op::Amount::All,
        }),
        4 => guest.call(op::ShutdownStream {
            stream: handle,
            how: op::Shutdown::Both,
        }),
        5 => guest.call(op::SetSocketOption {
            socket: handle,
            option: op::SocketOption::NoDelay,
            value: 1,
        }),
        6 => guest.call(op::UdpConnect {
            socket: handle,
            address,
        }),
        7 => guest.call(op::UdpSend {
            socket: handle,
            from,
            to: empty,
        }),
        8 => guest.call(op::UdpReceive {
            socket: handle,
            into,
        }),
        9 => guest.call(op::ReadFile {
            file: handle,
            into,
            offset: 0,
        }),
        10 => guest.call(op::WriteFile {
            file: handle,
            from,
            offset: 0,
        }),
        11 => guest.call(op::StatFile { file: handle, into }),
        12 => guest.call(op::SetFileLength {
            file: handle,
            len: 0,
        }),
        13 => guest.call(op::SyncFile {
            file: handle,
            what: op::Sync::All,
        }),
        14 => guest.call(op::ReadDirectory {
            directory: handle,
            into,
        }),
        15 => guest.call(op::NextItem {
            stream: handle,
            into,
        }),
        _ => guest.call(op::ReadMessage {
            message: handle,
            at: 0,
            into,
        }),
    };
    done.0
}

fn other_kinds(guest: &mut Guest, [number, kind, ..]: Args) {
    let handle = Kind::ALL[kind as usize].open(guest);
    let status = on(guest, number, handle);
    guest.exit_with(status);
}

fn never_given(guest: &mut Guest, [number, ..]: Args) {
    for handle in (0..40).chain([1 << 20, 1 << 31, u32::MAX - 1, u32::MAX]) {
        let status = on(guest, number, Handle(handle));
        assert_eq!(status, Status::BadHandle, "handle {handle:#x}");
    }
}

fn closed(guest: &mut Guest, [number, ..]: Args) {
    for kind in Kind::ALL {
        let handle = kind.open(guest);
        assert_eq!(guest.call(op::Close { handle }).0, Status::Ok);
        assert_eq!(on(guest, number, handle), Status::BadHandle, "{kind:?}");
    }
}

fn close_twice(guest: &mut Guest, [kind, ..]: Args) {
    let handle = Kind::ALL[kind as usize].open(guest);
    assert_eq!(guest.call(op::Close { handle }).0, Status::Ok);
    let (status, _) = guest.call(op::Close { handle });
    guest.exit_with(status);
}

/// Closes what an operation is in flight on: that one ends, and once.
fn close_under(guest: &mut Guest, [kind, ..]: Args) {
    let kind = Kind::ALL[kind as usize];
    let handle = kind.open(guest);
    let into = Buf {
        offset: 0x1000,
        len: 64,
    };
    let waits = guest.token(5);
    let entry = match kind {
        Kind::Listener => op::TcpAccept {
            listener: handle,
            peer: into,
        }
        .submission(waits),
        Kind::Udp => op::UdpReceive {
            socket: handle,
            into,
        }
        .submission(waits),
        _ => op::ReadStream {
            stream: handle,
            into,
        }
        .submission(waits),
    };
    let closes = guest.token(6);
    guest.submit(&[entry, op::Close { handle }.submission(closes)]);
    let (first, second) = (guest.wait(), guest.wait());
    assert_eq!((first.token, first.status), (waits, Status::Cancelled));
    assert_eq!((second.token, second.status), (closes, Status::Ok));
    assert!(guest.take().is_none());
    let (status, _) = guest.call(op::Close { handle });
    guest.exit_with(status);
}

/// Opens more than it may have.
fn too_many(guest: &mut Guest, [kind, ..]: Args) {
    let kind = Kind::ALL[kind as usize];
    let mut opened = 0;
    // Nothing opens two at a time but a stream, whose listener stays.
    let a_piece = if kind == Kind::Stream { 2 } else { 1 };
    while opened + a_piece <= machine::HANDLES {
        kind.open(guest);
        opened += a_piece;
    }
    let path = guest.arena(0, b"/data");
    for _ in 0..10 {
        let (status, _) = guest.call(op::OpenDirectory { path });
        assert_eq!(status, Status::LimitReached);
    }
    guest.exit_with(Status::LimitReached);
}

/// Opens and closes the same place more often than a handle counts.
fn wear_out(guest: &mut Guest, _: Args) {
    let address = guest.arena(0, b"127.0.0.1:0");
    let first = guest.open(op::UdpBind { address });
    assert_eq!(guest.call(op::Close { handle: first }).0, Status::Ok);
    let mut seen_again = 0;
    for _ in 0..4200 {
        let handle = guest.open(op::UdpBind { address });
        seen_again += u32::from(handle == first);
        assert_eq!(guest.call(op::Close { handle }).0, Status::Ok);
    }
    // Once in 4,096 uses, and then it is its own resource all the same.
    assert_eq!(seen_again, 1);
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    for (number, (name, kinds)) in USES.iter().enumerate() {
        let number = number as u64;
        for (index, kind) in Kind::ALL.iter().enumerate() {
            if !kinds.contains(kind) {
                let name = format_args!("{name}-of-{kind:?}");
                let case = Case::new("handles", name, other_kinds, Status::BadHandle);
                visit(case.with([number, index as u64, 0, 0]));
            }
        }
        let case = |what, act| {
            Case::new(
                "handles",
                format_args!("{name}-of-{what}"),
                act,
                End::Exit(0),
            )
        };
        visit(
            case("none", never_given)
                .with([number, 0, 0, 0])
                .modes(Modes::All),
        );
        visit(case("closed", closed).with([number, 0, 0, 0]));
    }
    for (index, kind) in Kind::ALL.iter().enumerate() {
        let args = [index as u64, 0, 0, 0];
        let name = format_args!("close-twice-{kind:?}");
        visit(Case::new("handles", name, close_twice, Status::BadHandle).with(args));
        let name = format_args!("too-many-{kind:?}");
        visit(Case::new("handles", name, too_many, Status::LimitReached).with(args));
    }
    for kind in [Kind::Listener, Kind::Stream, Kind::Udp] {
        let index = Kind::ALL
            .iter()
            .position(|other| *other == kind)
            .unwrap_or(0);
        let name = format_args!("close-under-{kind:?}");
        let case = Case::new("handles", name, close_under, Status::BadHandle);
        visit(case.with([index as u64, 0, 0, 0]).modes(Modes::All));
    }
    visit(Case::new("handles", "wear-out", wear_out, End::Exit(0)));
}
