//! Names that a name server knows. It is the test's own, on port 53 of a loopback address, and the
//! command that asks it has a `/etc/resolv.conf` of its own, in a mount namespace: one has to be
//! root.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::thread::UnshareFlags;
use wakebox_tests::programs::output;
use wakebox_tests::{guest, kvm_test};

/// Where the name server is.
const SERVER: &str = "127.0.0.77";

/// What it knows.
const NAMES: [(&str, Ipv4Addr); 2] = [
    ("here.wakebox.test", Ipv4Addr::LOCALHOST),
    // TEST-NET-1 (RFC 5737): no private address, and nobody is there.
    ("far.wakebox.test", Ipv4Addr::new(192, 0, 2, 1)),
];

/// The name of a question behind the header, and where it ends (RFC 1035, 4.1.2).
fn question(query: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
        at = end;
    }
    (labels.join("."), at + 1)
}

/// The answer to a query (RFC 1035, 4.1): an address, none of this type, or no such name.
fn answer(query: &[u8]) -> Vec<u8> {
    let (name, end) = question(query);
    let is_address = query[end..end + 4] == [0, 1, 0, 1];
    let known = NAMES.iter().find(|(known, _)| *known == name);
    let found = known.filter(|_| is_address);
    let code = if known.is_some() { 0 } else { 3 };
    let mut answer = query[..2].to_vec();
    // A response with recursion, one question, and as many answers as were found.
    answer.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::from(found.is_some()),
        0,
        0,
        0,
        0,
    ]);
    answer.extend(&query[12..end + 4]);
    if let Some((_, address)) = found {
        // The name of the question, an address, for a minute.
        answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

/// What the probe `sockets` says to commands with these grants, if names are asked of the server.
fn said(grants: &[&str], commands: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let resolv = folder.path().join("resolv.conf");
    std::fs::write(&resolv, format!("nameserver {SERVER}\n")).unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
        .arg(resolv)
        .arg(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("run")
        .arg(guest("sockets"))
        .args(grants.iter().flat_map(|grant| ["--allow-connect", grant]))
        .arg("--")
        .args(commands);
    String::from_utf8(output(&mut command)).expect("text")
}

#[kvm_test]
fn a_name_server_is_asked_and_does_not_lead_where_nothing_is_granted() {
    let socket = UdpSocket::bind((SERVER, 53))
        .unwrap_or_else(|error| panic!("{SERVER}:53: {error}. This test has to be run as root"));
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut query) {
            let _ = socket.send_to(&answer(&query[..len]), from);
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let here = format!("here.wakebox.test:{port}");
    let everybody = format!("*.wakebox.test:{port}");
    let connect = format!("tcp {here}");
    let commands = [
        "lookup here.wakebox.test",
        "lookup far.wakebox.test",
        "lookup nobody.wakebox.test",
        "lookup here.elsewhere.test",
        &connect,
    ];
    // The address is loopback: it has to be granted as well.
    assert_eq!(
        said(&[&everybody], &commands),
        "ok [127.0.0.1]\nok [192.0.2.1]\nNotFound\nPermissionDenied\nPermissionDenied\n"
    );
    let both = said(&[&here, "127.0.0.0/8"], &[&connect]);
    assert_eq!(both, "ok\n");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_ok(), "it was reached");
    assert!(listener.accept().is_err(), "once");
}

/// Makes this thread one of a network of its own, where the loopback interface, number one, has a
/// link-local address.
fn enter_a_network_with(address: Ipv6Addr) {
    // SAFETY: what is unshared is no descriptor table, so each thread's descriptors stay its own.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .unwrap_or_else(|error| panic!("unshare: {error}. This test has to be run as root"));
    let address = format!("{address}/64");
    for arguments in [
        &["link", "set", "lo", "up"][..],
        &["-6", "address", "add", &address, "dev", "lo", "nodad"],
    ] {
        output(Command::new("ip").args(arguments));
    }
}

/// Waits until the kernel has the way to an address that an interface was given: it makes that a little
/// later, and one can bind to the address before.
fn wait_until_reachable(to: SocketAddr) {
    let socket = UdpSocket::bind("[::]:0").expect("a socket");
    while let Err(error) = socket.connect(to) {
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{to}: {error}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[kvm_test]
fn a_link_local_address_is_reached_on_the_interface_that_is_granted() {
    let there = thread::spawn(|| {
        let address: Ipv6Addr = "fe80::77".parse().expect("an address");
        enter_a_network_with(address);
        let listener = TcpListener::bind(SocketAddrV6::new(address, 0, 0, 1)).expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let udp = UdpSocket::bind(SocketAddrV6::new(address, 0, 0, 1)).expect("a socket");
        let peer = udp.local_addr().expect("its address");
        wait_until_reachable(peer);
        thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok((len, from)) = udp.recv_from(&mut bytes) {
                let _ = udp.send_to(&bytes[..len], from);
            }
        });
        let to = |host: &str| format!("[{host}]:{port}");
        let asked = [
            "fe80::77%lo",
            "fe80::77%1",
            "fe80::77%7",
            "fe80::77",
            "fe80::77%none",
        ];
        let commands = asked.map(|host| format!("tcp {}", to(host)));
        let commands = commands.each_ref().map(String::as_str);
        let run = |option: &str, grant: &str, commands: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
            command.args(["run", option, grant]).arg(guest("sockets"));
            let output = output(command.arg("--").args(commands));
            String::from_utf8(output).expect("text")
        };
        // By name in the jail, where no interface can be asked for.
        for grant in ["fe80::77%lo", "fe80::77%1"] {
            let said = loop {
                let said = run("--allow-connect", &to(grant), &commands);
                // The kernel may take the way back once more, for a moment, when it hears that the
                // interface has a carrier.
                if !said.contains("NetworkUnreachable") {
                    break said;
                }
            };
            let no = "PermissionDenied\n".repeat(3);
            assert_eq!(said, format!("ok\nok\n{no}"), "{grant}");
        }
        // Without a zone, on any: the kernel says what it finds there.
        let said = run("--allow-connect", &to("fe80::77"), &commands);
        assert!(
            said.starts_with("ok\nok\n") && said.ends_with("NotFound\n"),
            "{said}"
        );
        assert!(!said.contains("PermissionDenied"), "{said}");
        // Listening: one that is granted by its name, asked for by its number.
        let on = [
            "listen [fe80::77%1]:0",
            "listen [fe80::77%7]:0",
            "listen [fe80::77%none]:0",
        ];
        let said = run("--allow-listen", "[fe80::77%lo]:0", &on);
        assert_eq!(said, "ok\nPermissionDenied\nInvalidInput\n");
        let said = run(
            "--allow-udp",
            "[fe80::77%lo]",
            &[&format!("udp-zone [::]:0 {peer}")],
        );
        assert_eq!(said, "ok true\n");
    });
    if let Err(panic) = there.join() {
        std::panic::resume_unwind(panic);
    }
}
