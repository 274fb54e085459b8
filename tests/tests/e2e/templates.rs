//! Sandboxes that start where another was parked.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wakebox::policy::DirGrant;
use wakebox::template::{Open, OpenList, Position, SnapshotError, When};
use wakebox::trace::{Cause, EventKind, Recording, Summary};
use wakebox::{
    Builder, CallError, Captured, Error, Limits, Outcome, Output, Policy, Running, Sandbox,
    Template, WakeMode,
};
use wakebox_tests::{guest, kvm_test};

/// The probe in a role.
fn templates(role: &str, mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest("templates"))
        .wake(mode)
        .memory(32 << 20)
        .args([role])
}

/// What was written.
fn text(said: &Captured) -> String {
    String::from_utf8(said.to_vec()).unwrap()
}

/// A template of the probe when it waits for calls.
async fn parked(role: &str, mode: WakeMode) -> Template {
    let running = templates(role, mode).build().unwrap().start();
    let taken = running.handle().snapshot(When::Parked, Open::Refuse).await;
    let template = taken.unwrap();
    running.close().await.unwrap();
    template
}

fn start(builder: Builder) -> Running {
    builder.build().unwrap().start()
}

/// What the probe has counted of these calls.
pub(crate) async fn count(running: &Running) -> u64 {
    running.call("count", &()).await.unwrap()
}

#[kvm_test(modes)]
async fn sandboxes_go_on_where_the_template_stands_each_for_itself_in_every_mode(mode: WakeMode) {
    let running = start(templates("serve", mode));
    assert_eq!((count(&running).await, count(&running).await), (1, 2));
    let handle = running.handle();
    let template = handle.snapshot(When::Parked, Open::Refuse).await.unwrap();
    // The one that it was taken of has noticed nothing.
    assert_eq!(count(&running).await, 3, "{mode}");
    let restores: (u64, u64) = running.call("restores", &()).await.unwrap();
    assert_eq!(restores, (0, 0), "{mode}");
    let (one, two) = (start(template.spawn()), start(template.spawn()));
    assert_eq!(count(&one).await, 3, "{mode}");
    assert_eq!(count(&one).await, 4, "{mode}");
    assert_eq!(count(&two).await, 3, "{mode}");
    assert_eq!(count(&running).await, 4, "{mode}");
    let restores: (u64, u64) = one.call("restores", &()).await.unwrap();
    assert_eq!(restores, (1, 1), "{mode}: a task and a hook are told once");
    for running in [running, one, two] {
        let (outcome, _) = running.close().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0), "{mode}");
    }
}

#[kvm_test]
async fn a_template_of_a_sandbox_that_was_made_of_a_template_has_what_both_have_done() {
    let first = parked("serve", WakeMode::Out).await;
    let one = start(first.spawn());
    assert_eq!(count(&one).await, 1);
    let second = one
        .handle()
        .snapshot(When::Parked, Open::Refuse)
        .await
        .unwrap();
    let two = start(second.spawn());
    assert_eq!(count(&two).await, 2);
    let words: (Vec<String>, Option<String>) = two.call("words", &()).await.unwrap();
    assert_eq!(words, (vec![], None), "words are not the template's");
}

#[kvm_test]
async fn no_two_of_a_thousand_draw_the_same_bytes() {
    let template = parked("serve", WakeMode::Out).await;
    let mut seen = HashSet::new();
    for _ in 0..1_000 {
        let running = start(template.spawn());
        for _ in 0..2 {
            let bytes: [u8; 16] = running.call("random", &()).await.unwrap();
            assert!(seen.insert(bytes), "{bytes:?} came twice");
        }
    }
}

#[kvm_test]
async fn arguments_environment_policy_limits_and_output_are_each_sandboxs_own() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    let granted = || {
        let grant = DirGrant::new(dir.path(), "/data").unwrap();
        Policy::new().allow_dir(grant.read_only())
    };
    let running = start(templates("serve", WakeMode::Auto).policy(granted()));
    let read = "/data/file".to_owned();
    let content: Option<String> = running.call("read", &read).await.unwrap();
    assert_eq!(content.as_deref(), Some("content"));
    let handle = running.handle();
    let template = handle.snapshot(When::Parked, Open::Refuse).await.unwrap();
    // A template carries no rights.
    let poor = start(template.spawn());
    let content: Option<String> = poor.call("read", &read).await.unwrap();
    assert_eq!(content, None);
    let long = "x".repeat(5_000);
    let rich = start(
        template
            .spawn()
            .policy(granted())
            .args(["one", &long])
            .env("NAME", "value"),
    );
    let content: Option<String> = rich.call("read", &read).await.unwrap();
    assert_eq!(content.as_deref(), Some("content"));
    let words: (Vec<String>, Option<String>) = rich.call("words", &()).await.unwrap();
    assert_eq!(words, (vec!["one".into(), long], Some("value".into())));
    let words: (Vec<String>, Option<String>) = poor.call("words", &()).await.unwrap();
    assert_eq!(words, (vec![], None));
    let limited = template
        .spawn()
        .limits(Limits::new().wall_clock(Duration::from_millis(1)));
    let limited = limited.build().unwrap().run().await.unwrap();
    assert!(matches!(limited, Outcome::Limit(_)), "{limited}");
}

#[kvm_test]
async fn the_monotonic_clock_goes_on_and_the_wall_clock_is_right() {
    let running = start(templates("timer", WakeMode::Out));
    let before: (u64, u64) = running.call("clocks", &()).await.unwrap();
    let handle = running.handle();
    let template = handle.snapshot(When::Parked, Open::Refuse).await.unwrap();
    drop(running);
    let copy = start(template.spawn());
    let after: (u64, u64) = copy.call("clocks", &()).await.unwrap();
    assert!(after.0 >= before.0, "{after:?} after {before:?}");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(after.1.abs_diff(now) <= 60, "{after:?} at {now}");
    let waited: u64 = copy.call("wait", &20_u64).await.unwrap();
    assert_eq!(waited, 20);
}

#[kvm_test(modes)]
async fn a_template_is_taken_when_the_guest_asks(mode: WakeMode) {
    let said = Captured::new();
    let builder = templates("asks", mode).stdout(Output::Capture(said.clone()));
    let sandbox = builder.build().unwrap();
    let handle = sandbox.handle();
    let asked = handle.snapshot(When::GuestAsks, Open::Refuse);
    let running = sandbox.start();
    // The guest has asked and gone on before anybody has polled what waits for the template.
    while text(&said).is_empty() {
        tokio::task::yield_now().await;
    }
    let template = asked.await.unwrap();
    assert_eq!(count(&running).await, 1);
    assert_eq!(text(&said), "Ok(Continued)\n", "{mode}");
    let said = Captured::new();
    let copy = start(template.spawn().stdout(Output::Capture(said.clone())));
    assert_eq!(count(&copy).await, 1);
    assert_eq!(text(&said), "Ok(Restored)\n", "{mode}");
}

#[kvm_test]
async fn a_guest_that_asks_and_of_whom_nobody_wants_a_template_goes_on() {
    let said = Captured::new();
    let running = start(templates("asks", WakeMode::Auto).stdout(Output::Capture(said.clone())));
    assert_eq!(count(&running).await, 1);
    assert_eq!(text(&said), "Ok(Continued)\n");
}

#[kvm_test]
async fn what_is_open_is_refused_by_name_or_ends_in_the_copy() {
    let policy = || Policy::new().allow_listen("127.0.0.1:0".parse().unwrap());
    let running = start(templates("listener", WakeMode::Auto).policy(policy()));
    assert_eq!(count(&running).await, 1);
    let handle = running.handle();
    let refused = handle.snapshot(When::Parked, Open::Refuse).await;
    let Err(SnapshotError::Open(OpenList(open))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(open, [("listeners", 1)]);
    let template = handle.snapshot(When::Parked, Open::End).await.unwrap();
    let copy = start(template.spawn().policy(policy()));
    let mut ended: Vec<String> = Vec::new();
    while ended.len() < 3 {
        ended = copy.call("ended", &()).await.unwrap();
    }
    assert_eq!(ended, ["accept: Restored", "again: BadHandle", "bind: ok"]);
    let ended: Vec<String> = running.call("ended", &()).await.unwrap();
    assert!(ended.is_empty(), "the former one still listens: {ended:?}");
}

#[kvm_test]
async fn a_call_that_is_not_answered_is_refused_or_nobodys_in_the_copy() {
    let running = start(templates("serve", WakeMode::Out));
    let caller = running.caller();
    let waits = tokio::spawn(async move { caller.call::<_, u64>("wait", &3_600_000_u64).await });
    while running.handle().stats().guest.operations < 2 {
        count(&running).await;
    }
    let handle = running.handle();
    let refused = handle.snapshot(When::Parked, Open::Refuse).await;
    assert!(
        matches!(refused, Err(SnapshotError::Open(_))),
        "{refused:?}"
    );
    let template = handle.snapshot(When::Parked, Open::End).await.unwrap();
    let copy = start(template.spawn());
    let counted = count(&copy).await;
    assert!(counted > 0);
    waits.abort();
}

#[kvm_test]
async fn who_asks_a_sandbox_that_ends_or_never_waits_is_told() {
    let sandbox = templates("serve", WakeMode::Out).build().unwrap();
    let handle = sandbox.handle();
    let asked = handle.snapshot(When::GuestAsks, Open::Refuse);
    let running = sandbox.start();
    let (asked, ended) = tokio::join!(asked, running.close());
    assert!(matches!(asked, Err(SnapshotError::Ended)), "{asked:?}");
    ended.unwrap();
    let asked = handle.snapshot(When::Parked, Open::Refuse).await;
    assert!(matches!(asked, Err(SnapshotError::Ended)), "{asked:?}");
    // One that computes is not taken, and a kill ends the wait.
    let running = start(templates("computing", WakeMode::Auto));
    let handle = running.handle();
    let asked = tokio::spawn({
        let handle = handle.clone();
        async move { handle.snapshot(When::Parked, Open::Refuse).await }
    });
    tokio::task::yield_now().await;
    handle.kill();
    let asked = asked.await.unwrap();
    assert!(matches!(asked, Err(SnapshotError::Ended)), "{asked:?}");
}

#[kvm_test]
async fn a_guest_that_fails_in_its_hook_ends_as_any_guest_that_panics() {
    let template = parked("hook", WakeMode::Out).await;
    let copy = start(template.spawn());
    let called = copy.call::<_, u64>("count", &()).await;
    assert!(matches!(called, Err(CallError::Ended(_))), "{called:?}");
    let (outcome, _) = copy.ended().await.unwrap();
    assert!(matches!(outcome, Outcome::Panic(_)), "{outcome}");
}

#[kvm_test]
async fn settings_that_the_template_has_settled_are_refused() {
    let template = parked("serve", WakeMode::Out).await;
    for (builder, what) in [
        (
            template.spawn().wake(WakeMode::Irq),
            "the wake mode is out, not irq",
        ),
        (
            template.spawn().memory(16 << 20),
            "the guest has 32 MiB of memory, not 16 MiB",
        ),
        (template.spawn().in_flight(1), "operations in flight, not 1"),
        (template.spawn().arena(4096), "the arena has another size"),
        (template.spawn().stack(4096), "the stack has another size"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(matches!(error, Error::Setting(_)), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[kvm_test]
async fn a_template_says_what_it_holds_and_one_of_a_file_stands_at_the_entry() {
    let template = parked("serve", WakeMode::Irq).await;
    let Position::Parked {
        ram,
        held,
        mode,
        in_flight,
        ..
    } = template.info().at
    else {
        panic!("{:?}", template.info());
    };
    assert_eq!(mode, WakeMode::Irq);
    assert!(
        ram >= 32 << 20 && held > 0 && held < 8 << 20,
        "{held} of {ram}"
    );
    assert!(in_flight > 0, "it waits for calls");
    let at_entry = Template::from_elf(guest("templates")).unwrap();
    assert_eq!(at_entry.info().at, Position::Entry);
    let running = start(at_entry.spawn().args(["serve"]));
    assert_eq!(count(&running).await, 1);
}

/// Sees that a trace shows both sides of a sandbox that was made of a template, from its first poll on.
fn shows_all(recording: &Recording) {
    let events = recording.events();
    let kinds: Vec<_> = events.iter().map(|event| &event.kind).collect();
    assert!(
        matches!(
            kinds[..2],
            [
                EventKind::Started { .. },
                EventKind::Restored { clock: 1.. }
            ]
        ),
        "{:?}",
        &kinds[..2]
    );
    let known: Vec<_> = kinds
        .iter()
        .filter_map(|kind| match kind {
            EventKind::Lives { task, name } => Some((*task, name.as_str())),
            _ => None,
        })
        .collect();
    assert!(known.iter().any(|(_, name)| *name == "main"), "{known:?}");
    // Who waits for it is told of it, and is one that was there.
    let told = kinds.iter().find_map(|kind| match kind {
        EventKind::Woken {
            task,
            by: Cause::Restored,
            queued: true,
            ..
        } => Some(*task),
        _ => None,
    });
    let told = told.unwrap_or_else(|| panic!("no task is woken because of it: {kinds:#?}"));
    assert!(known.iter().any(|(task, _)| *task == told), "{known:?}");
    assert!(kinds.contains(&&EventKind::PollBegin { task: told }));
    let called = |kind: &&EventKind| {
        matches!(
            kind,
            EventKind::Woken {
                by: Cause::HostCall(_),
                ..
            }
        )
    };
    assert!(kinds.iter().any(called), "the call is seen");
    let mut summary = Summary::new();
    for event in &events {
        summary.count(event);
    }
    assert_eq!((summary.lost, summary.malformed), (0, 0));
    assert_eq!(summary.uncaused, 0, "polls without a cause");
}

#[kvm_test(modes)]
async fn whoever_watches_a_copy_sees_both_sides_whether_or_not_the_template_was_watched(
    mode: WakeMode,
) {
    let mut template = parked("serve", mode).await;
    for round in 1..=4 {
        // In turns: who is not watched in between has nobody that empties its ring.
        let recording = Recording::new();
        let builder = match round % 2 {
            1 => template.spawn().trace(recording.clone()),
            _ => template.spawn(),
        };
        let running = start(builder);
        assert_eq!(count(&running).await, round);
        let handle = running.handle();
        template = handle.snapshot(When::Parked, Open::Refuse).await.unwrap();
        let (outcome, _) = running.close().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0));
        if round % 2 == 1 {
            shows_all(&recording);
        }
    }
}
