//! Windows: memory that faults behind its end, and faults with which a guest goes on, in every mode and from templates.

use wakebox::template::{FileOptions, Open, When};
use wakebox::{Builder, Cause, Machines, Outcome, Pool, Running, Sandbox, Template, WakeMode};
use wakebox_abi::layout;
use wakebox_tests::{Ended, guest, guest_debug, kvm_test, run};

use crate::detached::lent;
use crate::ends::marked;

fn windows(case: &str, mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest("windows"))
        .memory(32 << 20)
        .wake(mode)
        .args([case])
}

fn ended(case: &str, mode: WakeMode) -> Ended {
    run(windows(case, mode)).success()
}

#[kvm_test(modes)]
fn the_last_byte_of_what_is_shown_is_there_and_the_one_behind_it_faults(mode: WakeMode) {
    let ended = ended("bytes", mode);
    assert_eq!(ended.lines(), ["1217 pages"]);
    assert!(ended.stats.exits.window > 400, "{}", ended.stats);
}

#[kvm_test(modes)]
fn what_is_no_page_of_the_heap_or_lies_in_no_window_is_refused(mode: WakeMode) {
    ended("refused", mode);
}

#[kvm_test(modes)]
fn divisions_and_instructions_that_cannot_be_go_on_too(mode: WakeMode) {
    ended("kinds", mode);
}

#[kvm_test]
fn a_fault_that_nobody_catches_or_handles_is_told_as_any_other() {
    for guest in [guest_debug("windows"), guest("windows")] {
        for (case, cause, address, mark) in [
            ("uncaught", Cause::NotMapped, layout::WINDOWS, "touch"),
            ("declined", Cause::NotMapped, layout::WINDOWS, "touch"),
            ("elsewhere", Cause::NotMapped, 0x3000_0000, "touch"),
            ("within", Cause::NotMapped, layout::WINDOWS, "touch"),
            ("once", Cause::NotMapped, layout::WINDOWS, "touch"),
        ] {
            let ended = run(Sandbox::builder().guest(&guest).args([case]));
            let Outcome::Fault(fault) = ended.outcome else {
                panic!("{case}: {}", ended.outcome);
            };
            assert_eq!(fault.cause(), cause, "{case}: {fault}");
            assert_eq!(fault.address, Some(address), "{case}: {fault}");
            let location = fault.backtrace.location().unwrap();
            let line = marked("windows", mark);
            assert_eq!(location.line, Some(line), "{case}: {fault}");
        }
    }
}

async fn call(running: &Running, name: &str, pages: u64) -> u64 {
    running.call(name, &pages).await.unwrap()
}

async fn check(running: &Running) -> u64 {
    running.call("check", &()).await.unwrap()
}

async fn end(running: Running) {
    let (outcome, _) = running.close().await.unwrap();
    assert_eq!(outcome, Outcome::Exit(0));
}

/// One that has grown, shrunk and grown again, so that its windows are not as they are made.
async fn template(mode: WakeMode) -> Template {
    let running = windows("serve", mode).build().unwrap().start();
    assert_eq!(call(&running, "grow", 600).await, 603);
    assert_eq!(call(&running, "shrink", 100).await, 503);
    assert_eq!(call(&running, "grow", 1).await, 504);
    assert_eq!(check(&running).await, 504);
    let taken = running.handle().snapshot(When::Parked, Open::Refuse).await;
    end(running).await;
    taken.unwrap()
}

#[kvm_test(modes)]
async fn who_starts_from_a_template_has_the_windows_of_then(mode: WakeMode) {
    let template = template(mode).await;
    for _ in 0..3 {
        let (one, other) = (template.spawn(), template.spawn());
        let (one, other) = (one.build().unwrap().start(), other.build().unwrap().start());
        assert_eq!(check(&one).await, 504);
        assert_eq!(call(&one, "grow", 700).await, 1204);
        assert_eq!(check(&other).await, 504);
        assert_eq!(call(&other, "shrink", 300).await, 204);
        assert_eq!(check(&one).await, 1204);
        assert_eq!(check(&other).await, 204);
        end(one).await;
        end(other).await;
    }
}

#[kvm_test(modes)]
async fn a_pool_gives_each_the_windows_of_its_template_whatever_the_last_did(mode: WakeMode) {
    let pool = Pool::builder(template(mode).await).idle(1).max(1).build();
    let pool = pool.await.unwrap();
    for round in 0..12_u64 {
        let running = pool.take().await.unwrap();
        assert_eq!(check(&running).await, 504, "{round}");
        match round % 3 {
            // The machine serves the next one, too.
            0 => {}
            1 => assert_eq!(
                call(&running, "grow", 1 + 40 * round).await,
                505 + 40 * round
            ),
            _ => assert_eq!(call(&running, "shrink", 40 * round).await, 504 - 40 * round),
        }
        check(&running).await;
        end(running).await;
    }
}

#[kvm_test]
async fn a_template_in_a_file_has_its_windows_and_one_that_cannot_be_is_refused() {
    let template = template(WakeMode::Out).await;
    for options in [FileOptions::new(), FileOptions::new().compressed()] {
        let mut file = Vec::new();
        template.save_with(&mut file, &options).unwrap();
        let read = Template::load(&mut &file[..]).unwrap();
        let running = read.spawn().build().unwrap().start();
        assert_eq!(check(&running).await, 504);
        assert_eq!(call(&running, "grow", 300).await, 804);
        assert_eq!(check(&running).await, 804);
        end(running).await;
    }
}

#[kvm_test]
async fn a_guest_that_sleeps_without_a_machine_finds_its_windows_again() {
    let machines = Machines::new(1);
    let template = template(WakeMode::Out).await;
    let start = |machines: &Machines| {
        let builder = template.spawn().machines(machines.clone());
        builder.build().unwrap().start()
    };
    let sleepers: Vec<_> = (0..6).map(|_| start(&machines)).collect();
    for (sleeper, more) in sleepers.iter().zip(0..) {
        assert_eq!(check(sleeper).await, 504);
        if more % 2 == 1 {
            assert_eq!(call(sleeper, "grow", more).await, 504 + more);
        }
    }
    // Those whose windows are other ones keep theirs.
    lent(&machines, 4).await;
    for (sleeper, more) in sleepers.iter().zip(0..) {
        assert_eq!(
            check(sleeper).await,
            504 + if more % 2 == 1 { more } else { 0 }
        );
    }
    for sleeper in sleepers {
        end(sleeper).await;
    }
}
