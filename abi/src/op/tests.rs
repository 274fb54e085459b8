use super::*;

fn survives<O: Operation + PartialEq + core::fmt::Debug>(operation: O) {
    assert_eq!(O::from_params(&operation.to_params()), Ok(operation));
    assert_eq!(Opcode::from_code(O::OPCODE as u16), Some(O::OPCODE));
}

#[test]
fn every_operation_survives_the_round_trip() {
    let buf = Buf {
        offset: u32::MAX,
        len: 5,
    };
    let handle = Handle(6);
    survives(Nop {});
    survives(Cancel {
        target: Token {
            slot: 1,
            generation: 2,
        },
    });
    survives(Deadline { at_ns: u64::MAX });
    survives(ReadClock { into: buf });
    survives(Entropy { into: buf });
    survives(WriteConsole {
        stream: Stream::Err,
        from: buf,
    });
    survives(ReadStdin { into: buf });
    survives(Close { handle });
    survives(TcpConnect { address: buf });
    survives(TcpListen {
        address: buf,
        backlog: 128,
    });
    survives(TcpAccept {
        listener: handle,
        peer: buf,
    });
    survives(SocketName {
        socket: handle,
        end: End::Peer,
        into: buf,
    });
    survives(ReadStream {
        stream: handle,
        into: buf,
    });
    survives(WriteStream {
        stream: handle,
        from: buf,
        amount: Amount::All,
    });
    survives(ShutdownStream {
        stream: handle,
        how: Shutdown::Both,
    });
    survives(SetSocketOption {
        socket: handle,
        option: SocketOption::KeepAlive,
        value: u32::MAX,
    });
    survives(Lookup {
        name: buf,
        into: buf,
    });
    survives(UdpBind { address: buf });
    survives(UdpConnect {
        socket: handle,
        address: buf,
    });
    survives(UdpSend {
        socket: handle,
        from: buf,
        to: Buf::default(),
    });
    survives(UdpReceive {
        socket: handle,
        into: buf,
    });
    survives(UdpSendMany {
        socket: handle,
        from: buf,
        to: Buf::default(),
        each: u32::MAX,
    });
    survives(UdpReceiveMany {
        socket: handle,
        into: buf,
        each: 1,
    });
    survives(UnixConnect { path: buf });
    survives(OpenFile {
        path: buf,
        flags: OpenFlags(OpenFlags::READ),
    });
    survives(ReadFile {
        file: handle,
        into: buf,
        offset: u64::MAX,
    });
    survives(WriteFile {
        file: handle,
        from: buf,
        offset: 1,
    });
    survives(StatFile {
        file: handle,
        into: buf,
    });
    survives(SetFileLength {
        file: handle,
        len: u64::MAX,
    });
    survives(SyncFile {
        file: handle,
        what: Sync::All,
    });
    survives(StatPath {
        path: buf,
        follow: Follow::Yes,
        into: buf,
    });
    survives(Rename {
        from: buf,
        to: Buf::default(),
    });
    survives(RemoveFile { path: buf });
    survives(RemoveDirectory { path: buf });
    survives(CreateDirectory { path: buf });
    survives(OpenDirectory { path: buf });
    survives(ReadDirectory {
        directory: handle,
        into: buf,
    });
    survives(ListMounts {
        first: 7,
        into: buf,
    });
    survives(HardLink { from: buf, to: buf });
    survives(SymbolicLink {
        target: buf,
        path: buf,
    });
    survives(ReadLink {
        path: buf,
        into: buf,
    });
    survives(SetPathTimes {
        path: buf,
        follow: Follow::No,
        accessed: FileTime::Keep,
        modified: FileTime::At(-1),
    });
    survives(SetFileTimes {
        file: handle,
        accessed: FileTime::At(i64::MAX),
        modified: FileTime::Now,
    });
    survives(CallHost {
        function: buf,
        input: Buf::default(),
        into: buf,
        form: CallForm::Typed,
    });
    survives(OpenHostStream {
        function: buf,
        input: buf,
        form: CallForm::Plain,
    });
    survives(NextItem {
        stream: handle,
        into: buf,
    });
    survives(ReadMessage {
        message: handle,
        at: 7,
        into: buf,
    });
    survives(NextCall { into: buf });
    survives(Reply {
        call: u64::MAX,
        kind: ReplyKind::Part,
        from: buf,
    });
    survives(Snapshot {});
}

#[test]
fn a_word_without_a_value_is_malformed() {
    assert_eq!(Stream::from_word(0), Err(Malformed));
    assert_eq!(Stream::from_word(3), Err(Malformed));
    assert_eq!(Handle::from_word(1 << 32), Err(Malformed));
    assert_eq!(End::from_word(u64::MAX), Err(Malformed));
}

#[test]
fn socket_addresses_survive_the_round_trip() {
    for text in ["127.0.0.1:80", "[::1]:65535", "[fe80::1%3]:1"] {
        let address = SocketAddress(text.parse().unwrap());
        assert_eq!(
            SocketAddress::from_bytes(&address.to_bytes()),
            Some(address),
            "{text}"
        );
    }
    assert_eq!(SocketAddress::from_bytes(&[0; SocketAddress::SIZE]), None);
}
