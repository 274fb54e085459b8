//! Templates of guests with several processors, and such guests that sleep without a machine.

use std::process::Command;

use wakebox::template::{Open, When};
use wakebox::trace::{EventKind, Recording, Summary};
use wakebox::{
    Builder, Captured, Limits, Machines, Outcome, Output, Running, Sandbox, Template, Violation,
    WakeMode,
};
use wakebox_tests::{guest, kvm_test, runtime, runtime_of};

use crate::detached::{close, lent};

/// As many as the probe asks for.
const PROCESSORS: u32 = 3;

/// The probe in a role.
fn copies(role: &str, mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest("copies"))
        .limits(Limits::new().processors(PROCESSORS))
        .wake(mode)
        .memory(16 << 20)
        .args([role])
}

/// A sandbox of a template, which carries no rights.
fn start(template: &Template) -> Running {
    let granted = Limits::new().processors(PROCESSORS);
    let builder = template.spawn().limits(granted);
    builder.build().unwrap().start()
}

async fn parked(running: &Running) -> Template {
    let taken = running.handle().snapshot(When::Parked, Open::Refuse).await;
    taken.unwrap()
}

/// How often a processor was asked, this time included.
async fn count(running: &Running, number: u32) -> u64 {
    running.call("count", &number).await.unwrap()
}

/// How often each processor was asked, this time included.
async fn counts(running: &Running) -> Vec<u64> {
    let mut counts = Vec::new();
    for number in 0..PROCESSORS {
        counts.push(count(running, number).await);
    }
    counts
}

/// What tasks and hooks of each processor have seen of restores.
async fn restores(running: &Running) -> Vec<(u64, u64)> {
    // After a turn of each.
    counts(running).await;
    running.call("restores", &()).await.unwrap()
}

/// Does this on one thread, and on several.
fn on_one_thread_and_on_several<F: Future<Output = ()> + Send + 'static>(act: impl Fn() -> F) {
    runtime().block_on(act());
    runtime_of(2).block_on(async { tokio::spawn(act()).await.unwrap() });
}

#[kvm_test(modes)]
fn each_processor_of_a_copy_goes_on_where_it_stood_and_for_itself(mode: WakeMode) {
    on_one_thread_and_on_several(move || async move {
        let running = copies("serve", mode).build().unwrap().start();
        assert_eq!(counts(&running).await, [1; 3]);
        assert_eq!(count(&running, 1).await, 2);
        let template = parked(&running).await;
        // The one that it was taken of has noticed nothing.
        assert_eq!(counts(&running).await, [2, 3, 2]);
        assert_eq!(restores(&running).await, [(0, 0); 3]);
        let (one, two) = (start(&template), start(&template));
        for copy in [&one, &two] {
            assert_eq!(counts(copy).await, [2, 3, 2]);
            assert_eq!(
                restores(copy).await,
                [(1, 1); 3],
                "a task and a hook of each are told once"
            );
            assert_eq!(copy.call::<_, u64>("anywhere", &50_u64).await, Ok(1_225));
        }
        // Timers go on where they are due, on each.
        while one.call::<_, u64>("slept", &()).await.unwrap() < 3 {}
        // A template of a copy has what both have done.
        let again = start(&parked(&one).await);
        assert_eq!(counts(&again).await, [4, 5, 4]);
        for running in [running, one, two, again] {
            close(running).await;
        }
    });
}

/// Sees that a trace shows what each processor does after a restore, and why, from its first poll on.
fn shows_each(recording: &Recording) {
    let events = recording.events();
    let mut summary = Summary::new();
    let mut alive = [0; PROCESSORS as usize];
    let mut polls = alive;
    for event in &events {
        summary.count(event);
        let on = event.processor as usize;
        match event.kind {
            EventKind::Lives { .. } => alive[on] += 1,
            EventKind::PollBegin { .. } => {
                assert!(alive[on] > 0, "a poll on {on} before its tasks are known");
                polls[on] += 1;
            }
            _ => {}
        }
    }
    assert!(polls.iter().all(|polls| *polls > 0), "{polls:?}");
    assert_eq!((summary.lost, summary.malformed), (0, 0));
    assert_eq!(summary.uncaused, 0, "polls without a cause");
}

#[kvm_test(modes)]
fn whoever_watches_a_copy_sees_all_processors_whether_or_not_the_template_was_watched(
    mode: WakeMode,
) {
    on_one_thread_and_on_several(move || async move {
        let running = copies("serve", mode).build().unwrap().start();
        assert_eq!(counts(&running).await, [1; 3]);
        let mut template = parked(&running).await;
        close(running).await;
        for round in 2..=5 {
            // In turns: who is not watched in between has nobody that empties the rings.
            let recording = Recording::new();
            let granted = Limits::new().processors(PROCESSORS);
            let builder = template.spawn().limits(granted);
            let builder = match round % 2 {
                0 => builder.trace(recording.clone()),
                _ => builder,
            };
            let running = builder.build().unwrap().start();
            assert_eq!(counts(&running).await, [round; 3]);
            template = parked(&running).await;
            close(running).await;
            if round % 2 == 0 {
                shows_each(&recording);
            }
        }
    });
}

#[kvm_test(modes)]
fn a_processor_that_has_not_begun_begins_in_the_copy(mode: WakeMode) {
    on_one_thread_and_on_several(move || async move {
        let running = copies("alone", mode).build().unwrap().start();
        assert_eq!(count(&running, 0).await, 1);
        // The last one begins, and the one between does not.
        running.call::<_, ()>("begin", &2_u32).await.unwrap();
        assert_eq!(count(&running, 2).await, 1);
        let copy = start(&parked(&running).await);
        assert_eq!(count(&copy, 2).await, 2);
        copy.call::<_, ()>("begin", &1_u32).await.unwrap();
        assert_eq!(count(&copy, 1).await, 1);
        assert_eq!(
            restores(&copy).await,
            [(1, 1), (0, 0), (1, 1)],
            "it has begun after the restore"
        );
        close(copy).await;
        close(running).await;
    });
}

#[kvm_test(modes)]
fn none_is_taken_while_a_processor_computes(mode: WakeMode) {
    on_one_thread_and_on_several(move || async move {
        let running = copies("computes", mode).build().unwrap().start();
        assert_eq!(count(&running, 0).await, 1);
        let handle = running.handle();
        let taken =
            tokio::spawn(async move { handle.snapshot(When::Parked, Open::Refuse).await.unwrap() });
        for expected in 2..20 {
            assert_eq!(count(&running, 0).await, expected);
        }
        assert!(!taken.is_finished(), "its last processor computes");
        running.call::<_, ()>("release", &()).await.unwrap();
        let copy = start(&taken.await.unwrap());
        assert_eq!(count(&copy, 2).await, 1);
        // The end of one that would compute for ever is an answer, too.
        let other = copies("computes", mode).build().unwrap().start();
        assert_eq!(count(&other, 0).await, 1);
        let taken = other.handle().snapshot(When::Parked, Open::Refuse);
        other.handle().kill();
        taken.await.unwrap_err();
        close(copy).await;
        close(running).await;
    });
}

#[kvm_test(modes)]
fn any_processor_may_ask_for_a_template(mode: WakeMode) {
    on_one_thread_and_on_several(move || async move {
        let said = Captured::new();
        let builder = copies("asks", mode).stdout(Output::Capture(said.clone()));
        let sandbox = builder.build().unwrap();
        let asked = sandbox.handle().snapshot(When::GuestAsks, Open::Refuse);
        let running = sandbox.start();
        let template = asked.await.unwrap();
        counts(&running).await;
        close(running).await;
        assert_eq!(said.text(), "Ok(Continued)\n");
        let said = Captured::new();
        let granted = Limits::new().processors(PROCESSORS);
        let builder = template.spawn().limits(granted);
        let copy = builder.stdout(Output::Capture(said.clone()));
        let copy = copy.build().unwrap().start();
        counts(&copy).await;
        close(copy).await;
        assert_eq!(said.text(), "Ok(Restored)\n");
    });
}

#[kvm_test(modes)]
fn copies_go_on_from_a_file(mode: WakeMode) {
    on_one_thread_and_on_several(move || async move {
        let running = copies("alone", mode).build().unwrap().start();
        running.call::<_, ()>("begin", &1_u32).await.unwrap();
        assert_eq!(count(&running, 1).await, 1);
        let template = parked(&running).await;
        close(running).await;
        let mut file = Vec::new();
        template.save(&mut file).unwrap();
        let loaded = Template::load(&mut &*file).unwrap();
        let mut again = Vec::new();
        loaded.save(&mut again).unwrap();
        assert!(again == file, "the file of what was loaded is another");
        for _ in 0..2 {
            let copy = start(&loaded);
            assert_eq!(count(&copy, 1).await, 2);
            copy.call::<_, ()>("begin", &2_u32).await.unwrap();
            assert_eq!(count(&copy, 2).await, 1);
            assert_eq!(copy.call::<_, u64>("anywhere", &50_u64).await, Ok(1_225));
            assert_eq!(restores(&copy).await, [(1, 1), (1, 1), (0, 0)]);
            close(copy).await;
        }
    });
}

#[kvm_test]
async fn processors_of_a_template_are_settled_and_want_to_be_granted() {
    let running = copies("serve", WakeMode::Out).build().unwrap().start();
    let template = parked(&running).await;
    let granted = Limits::new().processors(PROCESSORS);
    for (builder, what) in [
        (template.spawn(), "has 3 processors, and 1 is the limit"),
        (
            template.spawn().limits(granted).processors(2),
            "the guest has 3 processors, not 2",
        ),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[kvm_test(modes)]
fn guests_with_several_processors_share_a_machine_while_all_of_theirs_sleep(mode: WakeMode) {
    on_one_thread_and_on_several(move || async move {
        let machines = Machines::new(1);
        let running = copies("serve", mode).build().unwrap().start();
        let template = parked(&running).await;
        close(running).await;
        let granted = Limits::new().processors(PROCESSORS);
        let tenant = || {
            let builder = template.spawn().limits(granted);
            builder.machines(machines.clone()).build().unwrap().start()
        };
        let tenants: Vec<_> = (0..6).map(|_| tenant()).collect();
        for round in 1..4 {
            for running in tenants.iter().chain(tenants.iter().rev()) {
                running.call::<_, u64>("anywhere", &5_u64).await.unwrap();
            }
            for running in &tenants {
                assert_eq!(counts(running).await, [round; 3]);
            }
            lent(&machines, 1).await;
        }
        // Numbers of one without a machine are those that it had, and a template of it has what it has done.
        assert!(tenants[0].handle().stats().guest.polls > 0);
        let copy = start(&parked(&tenants[0]).await);
        assert_eq!(counts(&copy).await, [4; 3]);
        close(copy).await;
        let all = tenants.iter().map(counts);
        let all = futures_util::future::join_all(all).await;
        assert!(all.iter().all(|counts| *counts == [4; 3]), "{all:?}");
        for running in tenants {
            assert!(running.handle().stats().detached > 0);
            close(running).await;
        }
        assert_eq!(machines.lent(), 0);
    });
}

#[kvm_test(modes)]
fn a_guest_of_whose_processors_one_computes_keeps_its_machine_until_that_sleeps(mode: WakeMode) {
    on_one_thread_and_on_several(move || async move {
        // Two are lent, which is one too many, as long as both compute.
        let machines = Machines::new(1);
        let computes = || copies("computes", mode).machines(machines.clone());
        let [keeps, gives] = [(); 2].map(|()| computes().build().unwrap().start());
        for running in [&keeps, &gives] {
            assert_eq!(count(running, 0).await, 1);
            assert_eq!(count(running, 1).await, 1);
        }
        assert_eq!(machines.lent(), 2);
        // Nothing but the sleep of its last processor tells the others of it.
        gives.call::<_, ()>("release", &()).await.unwrap();
        lent(&machines, 1).await;
        assert_eq!(keeps.handle().stats().detached, 0);
        assert!(gives.handle().stats().detached > 0);
        assert_eq!(counts(&gives).await, [2, 2, 1]);
        close(gives).await;
        keeps.call::<_, ()>("release", &()).await.unwrap();
        close(keeps).await;
    });
}

/// A sandbox of the hand-written probe, of which a template is to be taken.
fn liar(what: &str, mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest("processors"))
        .limits(Limits::new().processors(PROCESSORS))
        .processors(PROCESSORS)
        .wake(mode)
        .args(["lies", what])
}

#[kvm_test(modes)]
fn a_template_of_a_guest_that_lies_about_its_words_ends_its_copies_by_name(mode: WakeMode) {
    on_one_thread_and_on_several(move || async move {
        for what in ["head", "quiet"] {
            let running = liar(what, mode).build().unwrap().start();
            let template = parked(&running).await;
            running.handle().kill();
            let mut file = Vec::new();
            template.save(&mut file).unwrap();
            let loaded = Template::load(&mut &*file).unwrap();
            for template in [template, loaded] {
                let (outcome, _) = start(&template).ended().await.unwrap();
                match what {
                    "head" => assert!(
                        matches!(outcome, Outcome::Violation(Violation::RingIndex { .. })),
                        "{outcome}"
                    ),
                    _ => assert_eq!(
                        outcome,
                        Outcome::Exit(0),
                        "it lies about what nobody believes"
                    ),
                }
            }
        }
    });
}

#[kvm_test]
fn the_command_takes_and_runs_templates_of_guests_with_several_processors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("template").display().to_string();
    let probe = guest("copies").display().to_string();
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wakebox-cli"));
        let ended = command.args(args).output().expect("the command starts");
        let said = [&ended.stdout[..], &ended.stderr[..]].concat();
        (
            ended.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let granted = ["--limit", "processors=3"];
    let taken = ["snapshot", &*probe, "--at", "call:slept", "-o", &file];
    let (code, said) = command(&[&taken[..], &granted[..], &["--", "serve"]].concat());
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = command(&["inspect", &file]);
    assert!(
        code == Some(0) && said.contains("template, format 2"),
        "{said}"
    );
    let (code, said) = command(&["call", &file, "count", "1"]);
    assert!(
        code == Some(1) && said.contains("--limit processors=3"),
        "{said}"
    );
    let call = ["call", &*file, "count", "1"];
    let (code, said) = command(&[&call[..], &granted[..]].concat());
    assert_eq!((code, said.trim()), (Some(0), "1"), "{said}");
}
