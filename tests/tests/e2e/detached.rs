//! Sandboxes that sleep without a machine, and get one when they are woken.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use wakebox::template::{Open, When};
use wakebox::trace::{EventKind, Recording};
use wakebox::{
    Builder, Captured, Limit, Machines, Outcome, Output, Policy, Running, Sandbox, Template,
    WakeMode,
};
use wakebox_tests::{ample, guest, kvm_test, runtime, runtime_of};

use crate::templates::count;

/// So many sleep on one machine, or on two.
const TENANTS: usize = 8;

fn builder(mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest("templates"))
        .wake(mode)
        .memory(8 << 20)
        .args(["serve"])
}

async fn template(mode: WakeMode) -> Template {
    let running = builder(mode).build().unwrap().start();
    let taken = running.handle().snapshot(When::Parked, Open::Refuse).await;
    let template = taken.unwrap();
    running.close().await.unwrap();
    template
}

/// Waits until guests that sleep have given away all machines but so many.
pub(crate) async fn lent(machines: &Machines, most: usize) {
    while machines.lent() > most {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A sandbox that keeps a machine of these, so that another one more is too many.
async fn keeper(machines: &Machines) -> Running {
    let keeper = builder(WakeMode::Out).machines(machines.clone());
    let keeper = keeper.build().unwrap().start();
    // Its memory differs by more than a guest without a machine may have.
    count(&keeper).await;
    keeper
}

pub(crate) async fn close(running: Running) {
    let (outcome, _) = running.close().await.unwrap();
    assert_eq!(outcome, Outcome::Exit(0));
}

async fn tenants(mode: WakeMode) {
    let machines = Machines::new(1);
    let template = template(mode).await;
    let mut tenants = Vec::new();
    for number in 0..TENANTS {
        let builder = template.spawn().machines(machines.clone());
        let running = builder.build().unwrap().start();
        let secret = format!("the secret of {number}").into_bytes();
        running.call::<_, ()>("keep", &secret).await.unwrap();
        tenants.push(running);
    }
    for round in 1..4 {
        // From the first to the last and back, so that some are woken soon and some late.
        for number in (0..TENANTS).chain((0..TENANTS).rev()) {
            let running = &tenants[number];
            let kept: Vec<u8> = running.call("kept", &()).await.unwrap();
            assert_eq!(
                kept,
                format!("the secret of {number}").into_bytes(),
                "{mode}"
            );
        }
        for running in &tenants {
            assert_eq!(count(running).await, round);
        }
        lent(&machines, 1).await;
    }
    // All at once.
    let counts = tenants.iter().map(count);
    assert_eq!(
        futures_util::future::join_all(counts).await,
        [4; TENANTS],
        "{mode}"
    );
    for running in tenants {
        assert!(running.handle().stats().detached > 0);
        close(running).await;
    }
    assert_eq!(machines.lent(), 0);
}

#[kvm_test(modes)]
fn guests_that_sleep_share_a_machine_and_each_finds_what_it_had(mode: WakeMode) {
    runtime().block_on(tenants(mode));
    runtime_of(2).block_on(tenants(mode));
}

#[kvm_test(modes)]
async fn a_timer_wakes_a_guest_that_has_no_machine(mode: WakeMode) {
    let machines = Machines::new(1);
    let keeper = keeper(&machines).await;
    let other = template(mode).await.spawn().machines(machines.clone());
    let other = other.build().unwrap().start();
    assert_eq!(count(&other).await, 1);
    let waited = other.call::<_, u64>("wait", &1_000_u64).await;
    assert_eq!(waited, Ok(1_000));
    assert!(other.handle().stats().detached > 0);
    close(other).await;
    close(keeper).await;
}

#[kvm_test(modes)]
async fn a_connection_wakes_a_guest_that_has_no_machine(mode: WakeMode) {
    let machines = Machines::new(1);
    let keeper = keeper(&machines).await;
    let stdout = Captured::new();
    let policy = Policy::new().allow_listen("127.0.0.1:0".parse().unwrap());
    let echo = Sandbox::builder()
        .guest(guest("echo"))
        .args(["127.0.0.1:0"])
        .policy(policy)
        .wake(mode)
        .machines(machines.clone())
        .stdout(Output::Capture(stdout.clone()))
        .build()
        .unwrap()
        .start();
    let address = loop {
        let said = stdout.text();
        let words = said
            .split_whitespace()
            .map(|word| word.trim_end_matches(['.', ',']));
        if let Some(address) = words
            .filter_map(|word| word.parse::<std::net::SocketAddr>().ok())
            .next()
        {
            break address;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    for round in 0..3 {
        lent(&machines, 1).await;
        let detached = echo.handle().stats().detached;
        assert!(detached > 0);
        let text = format!("hello {round}");
        let echoed = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut echoed = vec![0; text.len()];
            stream.read_exact(&mut echoed).unwrap();
            assert_eq!(echoed, text.as_bytes());
        });
        echoed.await.unwrap();
    }
    echo.handle().kill();
    assert_eq!(echo.ended().await.unwrap().0, Outcome::Cancelled);
    close(keeper).await;
}

#[kvm_test(modes)]
async fn a_guest_without_a_machine_is_looked_at_copied_and_ended_as_any_other(mode: WakeMode) {
    let machines = Machines::new(1);
    let keeper = keeper(&machines).await;
    let template = template(mode).await;
    let one = template.spawn().machines(machines.clone());
    let one = one.build().unwrap();
    let pulse = one.pulse();
    let one = one.start();
    assert_eq!(count(&one).await, 1);
    lent(&machines, 1).await;
    // Its numbers are those that it had.
    let (stats, positions) = (one.handle().stats(), pulse.positions());
    assert!(stats.guest.polls > 0);
    assert_eq!(pulse.positions(), positions);
    assert!(pulse.to_string().contains("SubmissionTail"));
    // A template of it has what it has done.
    let taken = one.handle().snapshot(When::Parked, Open::Refuse).await;
    let clone = taken.unwrap().spawn().build().unwrap().start();
    assert_eq!(count(&clone).await, 2);
    close(clone).await;
    lent(&machines, 1).await;
    // It is ended, and its run is over.
    one.handle().kill();
    let (outcome, stats) = one.ended().await.unwrap();
    assert_eq!(outcome, Outcome::Cancelled);
    assert!(stats.detached >= 2, "{}", stats.detached);
    // The time of another is over meanwhile.
    let limit = ample();
    let mut timed = template
        .spawn()
        .timeout(limit)
        .machines(machines.clone())
        .build()
        .unwrap();
    let outcome = timed.run().await.unwrap();
    assert_eq!(outcome, Outcome::Limit(Limit::WallClock(limit)));
    assert!(timed.stats().detached > 0);
    drop(timed);
    // And one is dropped.
    let dropped = template.spawn().machines(machines.clone());
    let dropped = dropped.build().unwrap().start();
    count(&dropped).await;
    lent(&machines, 1).await;
    drop(dropped);
    close(keeper).await;
}

#[kvm_test]
async fn a_trace_shows_when_a_guest_has_no_machine() {
    let machines = Machines::new(1);
    let keeper = keeper(&machines).await;
    let recording = Recording::new();
    let mut traced = Sandbox::builder()
        .guest(guest("sequential"))
        .wake(WakeMode::Out)
        .memory(4 << 20)
        .machines(machines.clone())
        .stdout(Output::Null)
        .trace(recording.clone())
        .build()
        .unwrap();
    assert_eq!(traced.run().await.unwrap(), Outcome::Exit(0));
    let detached = traced.stats().detached;
    close(keeper).await;
    let events = recording.events();
    let mut parked = false;
    let mut away = false;
    let mut times = 0;
    for event in &events {
        match event.kind {
            EventKind::Parked => parked = true,
            EventKind::Resumed => {
                assert!(!away, "it goes on in a machine");
                parked = false;
            }
            EventKind::Detached => {
                assert!(parked && !away);
                away = true;
                times += 1;
            }
            EventKind::Attached => {
                assert!(away);
                away = false;
            }
            EventKind::Entered | EventKind::CompletionWritten { .. } => {
                assert!(!away, "nothing happens to a guest without a machine");
            }
            _ => {}
        }
    }
    assert!(times > 0);
    assert_eq!(times, detached);
}
