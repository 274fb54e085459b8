//! Crates that work in guests unchanged and are to stay so, and a guest in C. They are built here, so that nobody
//! else waits for them.

use std::path::PathBuf;
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
