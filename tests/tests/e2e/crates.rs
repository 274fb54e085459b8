//! Crates that work in guests unchanged and are to stay so, and a guest in C. They are built here, so that nobody
//! else waits for them.

use std::path::{Path, PathBuf};
use std::process::Command;

use wakebox::{Outcome, Policy, Sandbox, WakeMode};
use wakebox_tests::programs::{Server, output, program};
use wakebox_tests::{Ended, guest, guest_debug, kvm_test, root, run};

/// Builds a package of guests.
fn build(package: &str, options: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args("build --quiet --locked --package".split(' '));
    build.arg(package).args(options);
    build
        .current_dir(root().join("tests/guests"))
        .env("CARGO_TARGET_DIR", root().join("target/guests"))
        // It would hide the flags in the workspace's own configuration.
        .env_remove("RUSTFLAGS");
    output(&mut build);
}

#[kvm_test]
fn crates_of_the_ecosystem_work_in_a_guest_as_they_are() {
    build("wakebox-crates", &["--release"]);
    for mode in WakeMode::ALL {
        let ended = run(Sandbox::builder().guest(guest("crates")).wake(mode));
        let expected = [
            "embassy-futures 1",
            "futures-concurrency [2, 1]",
            "futures-concurrency race 1",
            "event-listener 3",
            "maitake-sync Ok(true)",
            "thingbuf 10",
            "regex colour 42",
            "sha2 ba7816bf",
        ];
        assert_eq!(ended.success().lines(), expected, "mode {mode}");
    }
}

#[kvm_test]
fn tasks_of_embassy_run_beside_those_of_the_guest_and_are_woken() {
    build("wakebox-crates", &["--release"]);
    for mode in WakeMode::ALL {
        let ended = run(Sandbox::builder().guest(guest("embassy")).wake(mode));
        let expected = [
            "embassy-executor 12",
            "beside it a timer of the guest",
            "another executor 42",
        ];
        assert_eq!(ended.success().lines(), expected, "mode {mode}");
    }
}

/// A guest of the package `wakebox-engines`: without optimization, for they are large.
fn engine(name: &str) -> PathBuf {
    build("wakebox-engines", &[]);
    guest_debug(name)
}

#[kvm_test]
fn engines_codecs_cryptography_and_a_client_of_mqtt_work_in_a_guest_as_they_are() {
    let broker = Server::start(|folder, address| {
        let config = folder.join("mosquitto.conf");
        let lines = format!(
            "listener {} {}\nallow_anonymous true\npersistence false\nlog_type error\n",
            address.port(),
            address.ip()
        );
        std::fs::write(&config, lines).expect("the configuration is written");
        let mut command = program("mosquitto");
        command.arg("-c").arg(config);
        command
    });
    let address = broker.address().to_string();
    let policy = Policy::new().allow_connect(address.parse().unwrap());
    let builder = Sandbox::builder().guest(engine("engines"));
    let ended = run(builder.policy(policy).args([&*address]));
    let expected = [
        "rhai 47",
        "wasmi 42",
        "hickory-proto 29 example.org.",
        "ring ba7816bf f7bc83f4",
        "rust-mqtt by way of a broker",
    ];
    assert_eq!(ended.success().lines(), expected);
}

#[kvm_test]
fn a_guest_in_c_does_input_and_output_by_callbacks_and_finds_a_smashed_frame() {
    let file = engine("in-c");
    let echo = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = echo.local_addr().unwrap().to_string();
    let back = std::thread::spawn(move || {
        for stream in echo.incoming().take(WakeMode::ALL.len()) {
            let stream = stream.unwrap();
            std::io::copy(&mut &stream, &mut &stream).unwrap();
        }
    });
    for mode in WakeMode::ALL {
        let policy = Policy::new().allow_connect(address.parse().unwrap());
        let builder = Sandbox::builder().guest(&file).policy(policy).wake(mode);
        let ended = run(builder.args([&*address]));
        assert_eq!(ended.success().lines(), ["from C"], "mode {mode}");
    }
    back.join().unwrap();
    let ended: Ended = run(Sandbox::builder().guest(&file).args(["smash"]));
    let Outcome::Panic(panic) = ended.outcome else {
        panic!("{:?}", ended.outcome);
    };
    assert!(
        panic.message.contains("beyond its stack frame"),
        "{panic:?}"
    );
}

/// Makes an authority and what it signs, with `openssl`: `NAME.key`, `NAME.pem` and `NAME.der` in the folder.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let mut command = program("openssl");
        output(command.current_dir(folder).args(arguments.split(' ')));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    for name in ["authority", "stranger"] {
        openssl(&format!(
            "req -x509 {key} -keyout {name}.key -out {name}.pem -subj /CN={name} -addext \
             basicConstraints=critical,CA:TRUE"
        ));
        openssl(&format!("x509 -in {name}.pem -outform DER -out {name}.der"));
    }
    openssl(&format!(
        "req -new {key} -keyout server.key -out server.csr -subj /CN=localhost -addext \
         subjectAltName=DNS:localhost"
    ));
    openssl(
        "x509 -req -in server.csr -CA authority.pem -CAkey authority.key -CAcreateserial -out \
         server.pem -days 2 -copy_extensions copy",
    );
}

/// By `rustls` with `ring` and by `embedded-tls`, which draw their randomness by `getrandom` 0.2.
#[kvm_test]
fn guests_speak_tls_by_crates_as_they_are_and_believe_no_stranger() {
    let file = engine("tls");
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let server = Server::start(|_, address| {
        let mut command = program("openssl");
        command.current_dir(&folder);
        command.args("s_server -quiet -rev -cert server.pem -key server.key -accept".split(' '));
        command.arg(address.to_string());
        command
    });
    let address = server.address().to_string();
    let speak = |authority: &str, mode| {
        let policy = Policy::new()
            .allow_connect(address.parse().unwrap())
            .allow_dir(
                format!("{}:/tls:ro", folder.path().display())
                    .parse()
                    .unwrap(),
            );
        let builder = Sandbox::builder().guest(&file).policy(policy).wake(mode);
        run(builder.args([&*address, &format!("/tls/{authority}.der")]))
    };
    for mode in WakeMode::ALL {
        let expected = ["rustls SLT fo yaw yb", "embedded-tls SLT fo yaw yb"];
        assert_eq!(
            speak("authority", mode).success().lines(),
            expected,
            "mode {mode}"
        );
    }
    let Outcome::Panic(panic) = speak("stranger", WakeMode::Auto).outcome else {
        panic!("it believes whom nobody has signed");
    };
    assert!(panic.message.contains("UnknownIssuer"), "{panic:?}");
}
