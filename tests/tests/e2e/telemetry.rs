//! What an embedder's subscriber and recorder see of a sandbox.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::task::{self, Waker};
use std::thread::{self, ThreadId};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use wakebox::{Builder, CallError, Caller, Limits, Outcome, Sandbox, WakeMode};
use wakebox_tests::{Ended, alone, guest, kvm_test, run};

/// Something that was told: target, fields, and the fields of the span in which it was told.
#[derive(Clone, Debug, Default)]
struct Told {
    target: String,
    fields: BTreeMap<String, String>,
    span: Option<BTreeMap<String, String>>,
}

/// What was told on each thread.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<HashMap<ThreadId, Vec<Told>>>>);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listener {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let span = context.span(id).expect("a new span is there");
        span.extensions_mut().insert(fields);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut told = Told {
            target: event.metadata().target().into(),
            ..Told::default()
        };
        event.record(&mut Fields(&mut told.fields));
        told.span = context
            .event_span(event)
            .and_then(|span| span.extensions().get().cloned());
        let mut threads = self.0.lock().unwrap();
        threads
            .entry(thread::current().id())
            .or_default()
            .push(told);
    }
}

/// The subscriber of the process. Every test asks for it before it makes a sandbox: a subscriber of
/// one thread alone can miss events whose callsite another thread, without one, reached first.
fn listener() -> &'static Listener {
    static LISTENER: LazyLock<Listener> = LazyLock::new(|| {
        let listener = Listener::default();
        let subscriber = tracing_subscriber::registry().with(listener.clone());
        tracing::subscriber::set_global_default(subscriber).expect("no other is set");
        listener
    });
    &LISTENER
}

/// Runs a guest in mode `out`, in which all of it is on this thread, and returns what was told.
fn heard(builder: Builder) -> (Ended, Vec<Told>) {
    let listener = listener();
    let ended = run(builder.wake(WakeMode::Out));
    let mut threads = listener.0.lock().unwrap();
    let told = threads.remove(&thread::current().id()).unwrap_or_default();
    (ended, told)
}

fn of<'a>(told: &'a [Told], target: &str) -> Vec<&'a Told> {
    told.iter().filter(|told| told.target == target).collect()
}

#[kvm_test]
fn every_exit_and_every_operation_is_told_in_the_span_of_its_sandbox() {
    alone!(
        "every_exit_and_every_operation_is_told_in_the_span_of_its_sandbox",
        || {
            let path = guest("traced");
            let builder = Sandbox::builder().guest(&path).args(["story"]);
            let (ended, told) = heard(builder);
            let stats = ended.success().stats;

            let exits = of(&told, "wakebox::exit");
            assert_eq!(exits.len() as u64, stats.exits.total());
            let waits = exits.iter().filter(|exit| exit.fields["reason"] == "wait");
            assert_eq!(waits.count() as u64, stats.exits.wait);

            // Cancellations are no operations of their own.
            let operations = of(&told, "wakebox::op");
            for (kind, count) in stats
                .operations
                .iter()
                .filter(|(kind, _)| *kind != "Cancel")
            {
                let of_kind = operations.iter().filter(|op| op.fields["kind"] == *kind);
                assert_eq!(of_kind.count() as u64, *count, "{kind}");
            }
            for op in &operations {
                assert!(op.fields.contains_key("micros") && op.fields.contains_key("value"));
            }
            assert!(operations.iter().any(|op| op.fields["status"] == "Ok"));

            for told in exits.into_iter().chain(operations) {
                let span = told.span.as_ref().expect("it is in a span");
                assert_eq!(span["wakebox.guest"], path.display().to_string());
                assert_eq!(span["wakebox.mode"], "out");
            }
            let end = of(&told, "wakebox::sandbox");
            assert_eq!(end.len(), 1);
            assert_eq!(end[0].fields["exits"], stats.exits.total().to_string());
        }
    );
}

#[kvm_test]
fn sandboxes_are_told_apart_by_their_numbers() {
    alone!("sandboxes_are_told_apart_by_their_numbers", || {
        listener();
        let build = || Sandbox::builder().guest(guest("hello")).build().unwrap();
        let (first, second) = (build(), build());
        assert!(first.id() < second.id());
    });
}

#[kvm_test]
fn a_refusal_is_told_in_the_span_of_its_sandbox() {
    alone!("a_refusal_is_told_in_the_span_of_its_sandbox", || {
        let builder = Sandbox::builder()
            .guest(guest("fetch"))
            .args(["http://127.0.0.1:9/"]);
        let (_, told) = heard(builder);
        let refusals = of(&told, "wakebox::policy");
        assert!(!refusals.is_empty(), "{told:?}");
        assert!(
            refusals[0]
                .span
                .as_ref()
                .unwrap()
                .contains_key("wakebox.sandbox.id")
        );
    });
}

#[kvm_test]
fn counters_agree_with_the_statistics() {
    alone!("counters_agree_with_the_statistics", || {
        let builder = Sandbox::builder().guest(guest("traced")).args(["story"]);
        counters_agree(builder);
    });
}

#[kvm_test]
fn exits_of_all_processors_are_counted_and_told_with_their_number() {
    alone!(
        "exits_of_all_processors_are_counted_and_told_with_their_number",
        || {
            let builder = || {
                let limits = Limits::new().processors(3);
                let builder = Sandbox::builder().guest(guest("processors"));
                builder.limits(limits).processors(3).args(["turns"])
            };
            counters_agree(builder());
            let _ = listener().0.lock().unwrap().remove(&thread::current().id());
            let (ended, told) = heard(builder());
            let stats = ended.success().stats;
            let exits = of(&told, "wakebox::exit");
            assert_eq!(exits.len() as u64, stats.exits.total());
            for number in ["0", "1", "2"] {
                let of_it = exits
                    .iter()
                    .filter(|exit| exit.fields["processor"] == number);
                assert!(of_it.count() > 100, "processor {number}");
            }
            for exit in exits {
                assert_eq!(
                    exit.span.as_ref().expect("it is in a span")["wakebox.mode"],
                    "out"
                );
            }
            let end = of(&told, "wakebox::sandbox");
            assert_eq!(end[0].fields["exits"], stats.exits.total().to_string());
        }
    );
}

/// Runs it in mode `out`, and compares what is counted.
fn counters_agree(builder: Builder) {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    listener();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let ended =
        metrics::with_local_recorder(&recorder, || run(builder.wake(WakeMode::Out)).success());
    let counted: BTreeMap<String, u64> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let (_, key) = key.into_parts();
            is_in_the_table(&key);
            let labels = key.labels().map(|label| format!(" {}", label.value()));
            let name = key.name().to_owned() + &labels.collect::<String>();
            match value {
                DebugValue::Counter(count) => (name, count),
                DebugValue::Gauge(value) => (name, value.0 as u64),
                DebugValue::Histogram(samples) => {
                    assert!(samples.iter().all(|sample| sample.0 > 0.0), "{name}");
                    (name, samples.len() as u64)
                }
            }
        })
        .collect();
    let count = |name: &str| counted.get(name).copied().unwrap_or(0);
    let stats = ended.stats;
    assert_eq!(count("wakebox.sandbox.built out"), 1);
    assert_eq!(count("wakebox.sandbox.active"), 0, "it is gone");
    assert_eq!(count("wakebox.sandbox.ended exit"), 1);
    assert_eq!(count("wakebox.sandbox.duration exit"), 1);
    assert_eq!(count("wakebox.exits wait"), stats.exits.wait);
    assert_eq!(count("wakebox.exits submit"), stats.exits.submit);
    let of_processors = count("wakebox.exits start") + count("wakebox.exits nudge");
    assert_eq!(of_processors, stats.exits.processor);
    for (kind, taken) in stats
        .operations
        .iter()
        .filter(|(kind, _)| *kind != "Cancel")
    {
        let of_kind = |name: &&String| name.starts_with(&format!("wakebox.ops {kind} "));
        let ended: u64 = counted
            .keys()
            .filter(of_kind)
            .map(|name| counted[name])
            .sum();
        assert_eq!(ended, *taken, "{kind}");
    }
}

/// The documentation has a row for the name of a counter, and that row each of its labels.
fn is_in_the_table(key: &metrics::Key) {
    let documented = include_str!("../../../host/src/telemetry.rs");
    let start = format!("//! | `{}` |", key.name());
    let row = documented.lines().find(|line| line.starts_with(&start));
    let row = row.unwrap_or_else(|| panic!("{} is not documented", key.name()));
    for label in key.labels() {
        let label = label.key();
        assert!(row.contains(&format!("`{label}`")), "{label}: {row}");
        assert!(label.starts_with("wakebox."), "{label} has no namespace");
    }
}

/// A call that a subscriber has begun.
type Call = Pin<Box<dyn Future<Output = Result<u64, CallError>> + Send>>;

/// A subscriber that calls a guest whenever it is told of an operation, as often as it may, and waits
/// until another thread has been there.
#[derive(Clone)]
struct CallsBack(Arc<Mutex<Wanted>>);

struct Wanted {
    caller: Option<Caller>,
    left: usize,
    begun: Vec<Call>,
    visitor: mpsc::Sender<mpsc::Sender<()>>,
}

impl<S: Subscriber> Layer<S> for CallsBack {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // Held by another thread, or by this one further out: that one is at it.
        let Ok(mut wanted) = self.0.try_lock() else {
            return;
        };
        let Some(caller) = wanted.caller.clone() else {
            return;
        };
        if event.metadata().target() != "wakebox::op" || wanted.left == 0 {
            return;
        }
        wanted.left -= 1;
        let mut call: Call = Box::pin(async move { caller.call("nap", &1_u64).await });
        // Begun here, awaited elsewhere.
        let begun = call
            .as_mut()
            .poll(&mut task::Context::from_waker(Waker::noop()));
        assert!(
            begun.is_pending(),
            "a guest does not answer within a turn of its driver"
        );
        wanted.begun.push(call);
        let (arrive, arrived) = mpsc::channel();
        wanted.visitor.send(arrive).unwrap();
        arrived.recv().unwrap();
    }
}

#[kvm_test]
fn a_subscriber_may_call_a_guest_and_block_and_all_go_on() {
    alone!(
        "a_subscriber_may_call_a_guest_and_block_and_all_go_on",
        || {
            const CALLS: usize = 20;
            let (visitor, visits) = mpsc::channel::<mpsc::Sender<()>>();
            thread::spawn(move || visits.iter().for_each(|arrive| arrive.send(()).unwrap()));
            let wanted = CallsBack(Arc::new(Mutex::new(Wanted {
                caller: None,
                left: 0,
                begun: Vec::new(),
                visitor,
            })));
            let subscriber = tracing_subscriber::registry().with(wanted.clone());
            tracing::subscriber::set_global_default(subscriber).expect("no other is set");
            let runtime = wakebox_tests::runtime();
            for mode in WakeMode::ALL {
                let build = || Sandbox::builder().guest(guest("callme")).wake(mode).build();
                runtime.block_on(async {
                    let (running, neighbour) = (build().unwrap().start(), build().unwrap().start());
                    {
                        let mut wanted = wanted.0.lock().unwrap();
                        wanted.caller = Some(running.caller());
                        wanted.left = CALLS;
                    }
                    let mut answered = 0;
                    while answered < CALLS {
                        for each in [&running, &neighbour] {
                            assert_eq!(
                                each.call::<_, u64>("nap", &2_u64).await.unwrap(),
                                2,
                                "{mode}"
                            );
                        }
                        let begun = std::mem::take(&mut wanted.0.lock().unwrap().begun);
                        for call in begun {
                            assert_eq!(call.await.unwrap(), 1, "{mode}");
                            answered += 1;
                        }
                    }
                    wanted.0.lock().unwrap().caller = None;
                    for each in [running, neighbour] {
                        let (outcome, _) = each.close().await.unwrap();
                        assert_eq!(outcome, Outcome::Exit(0), "{mode}");
                    }
                });
            }
        }
    );
}
