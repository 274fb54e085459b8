//! Every demo and every rung of the ladder, watched in every mode: each poll after a task's first has a
//! cause on record, and lint finds nothing to say.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wakebox::trace::lint::{FindingKind, Lint, Thresholds};
use wakebox::trace::{Cause, Event, EventKind, Shared, Sink, Summary};
use wakebox::{Builder, HostContext, Input, Limits, Outcome, Output, Policy, Sandbox, WakeMode};
use wakebox_tests::ladder::RUNGS;
use wakebox_tests::programs::{Server, free_address};
use wakebox_tests::{guest, kvm_test, root, runtime, runtime_of};

/// Reads a run as it goes.
struct Seen {
    summary: Summary,
    lint: Lint,
    /// Wakes of which the trace does not say where they came from.
    unexplained: Vec<Event>,
}

impl Sink for Seen {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.summary.count(event);
        self.lint.look(event);
        let by = match event.kind {
            EventKind::Woken { by, .. } => Some(by),
            _ => None,
        };
        if matches!(by, Some(Cause::Unknown | Cause::Elsewhere)) {
            self.unexplained.push(event.clone());
        }
        Ok(())
    }
}

/// The usual ones, but for what depends on who else uses the machine.
fn thresholds() -> Thresholds {
    let mut thresholds = Thresholds::default();
    thresholds.late = Duration::from_secs(3600);
    thresholds
}

/// A demo, and the eyes on it.
fn demo(name: &str, mode: WakeMode) -> (Builder, Shared<Seen>) {
    let seen = Shared::new(Seen {
        summary: Summary::new(),
        lint: Lint::new(thresholds()),
        unexplained: Vec::new(),
    });
    let builder = Sandbox::builder()
        .guest(guest(name))
        .wake(mode)
        .trace_records(1 << 20)
        .trace(seen.clone());
    (builder, seen)
}

/// What every run must look like.
#[track_caller]
fn is_explained_and_clean(seen: &Shared<Seen>, what: &str) {
    seen.with(|seen| {
        let Summary {
            polls,
            uncaused,
            lost,
            malformed,
            ..
        } = seen.summary;
        assert!(polls > 0, "{what} was not seen");
        assert_eq!((lost, malformed), (0, 0), "{what}");
        assert_eq!(uncaused, 0, "{what}: polls without a cause");
        let unexplained = &seen.unexplained;
        assert!(unexplained.is_empty(), "{what}: {unexplained:#?}");
        let report = seen.lint.report();
        assert!(report.is_clean(), "{what}: {:#?}", report.findings);
    });
}

/// Runs a demo that ends by itself, in every mode.
fn alone(name: &str, dress: impl Fn(Builder) -> Builder) {
    for mode in WakeMode::ALL {
        let (builder, seen) = demo(name, mode);
        wakebox_tests::run(dress(builder)).success();
        is_explained_and_clean(&seen, &format!("{name}, mode {mode}"));
    }
}

/// Runs a demo that listens at the address which is its first argument, beside its peers.
fn server<P: Future<Output = io::Result<()>>>(
    name: &str,
    more: &[&str],
    peers: impl Fn(SocketAddr) -> P,
) {
    for mode in WakeMode::ALL {
        let address = free_address();
        let policy = Policy::new().allow_listen(address.to_string().parse().unwrap());
        let (builder, seen) = demo(name, mode);
        let builder = builder
            .policy(policy)
            .args([address.to_string()])
            .args(more.iter().copied())
            .in_flight(4096);
        runtime().block_on(async {
            let run = wakebox_tests::run_here(builder);
            let (ended, peers) = tokio::join!(run, peers(address));
            ended.success();
            peers.unwrap();
        });
        is_explained_and_clean(&seen, &format!("{name}, mode {mode}"));
    }
}

/// A connection to a demo, as soon as it listens.
async fn connected(address: SocketAddr) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(address).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            done => return done,
        }
    }
}

#[kvm_test]
fn demos_that_wait_for_times() {
    for name in ["hello", "sequential", "concurrent", "pipeline"] {
        alone(name, |builder| builder);
    }
}

#[kvm_test]
fn the_demo_cores() {
    alone("cores", |builder| {
        builder.limits(Limits::new().processors(2)).processors(2)
    });
}

#[kvm_test]
fn the_demo_storm() {
    alone("storm", |builder| builder.args(["1000", "20000"]));
}

#[kvm_test]
fn the_demo_greet() {
    alone("greet", |builder| {
        builder.stdin(Input::reader(&b"Ferris\n"[..]))
    });
}

#[kvm_test]
fn the_demo_grep() {
    let place = root().join("abi");
    let grant = format!("{}:/data:ro", place.display());
    alone("grep", |builder| {
        let policy = Policy::new().allow_dir(grant.parse().unwrap());
        builder.policy(policy).args(["pending"])
    });
}

#[kvm_test]
fn the_demo_fetch() {
    let web = Server::nginx(&[("a", b"12345"), ("b", &[7; 100_000])]);
    let url = |name: &str| format!("http://{}/{name}", web.address());
    let ip: IpAddr = web.address().ip();
    alone("fetch", |builder| {
        let policy = Policy::new().allow_connect(ip.to_string().parse().unwrap());
        builder
            .policy(policy)
            .args([url("a"), url("b"), url("c"), url("b")])
    });
}

#[kvm_test]
fn the_demo_echo() {
    server("echo", &["--once", "20"], async |address| {
        let peer = async |_| -> io::Result<()> {
            let mut stream = connected(address).await?;
            let mut back = [0; 5];
            for _ in 0..5 {
                stream.write_all(b"hello").await?;
                stream.read_exact(&mut back).await?;
            }
            Ok(())
        };
        try_join_all((0..20).map(peer)).await.map(drop)
    });
}

#[kvm_test]
fn the_demo_c10k() {
    server("c10k", &["50", "1"], async |address| {
        let peer = async |_| -> io::Result<()> {
            let mut stream = connected(address).await?;
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await.map(drop)
        };
        try_join_all((0..50).map(peer)).await.map(drop)
    });
}

#[kvm_test(modes)]
fn the_demo_http(mode: WakeMode) {
    let address = free_address();
    let policy = Policy::new().allow_listen(address.to_string().parse().unwrap());
    let (builder, seen) = demo("http", mode);
    let builder = builder.policy(policy).args([address.to_string()]);
    runtime_of(1).block_on(async {
        let sandbox = builder.stdout(Output::Null).build().unwrap().start();
        let ask = async |path: &str| -> io::Result<String> {
            let mut stream = connected(address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok(answer)
        };
        let paths = ["/greet/you", "/wait/5", "/wait/1", "/nowhere"];
        let answers = try_join_all(paths.map(ask)).await.unwrap();
        assert!(answers[0].contains("{\"hello\":\"you\"}"), "{answers:?}");
        sandbox.handle().kill();
        let (outcome, _) = sandbox.ended().await.unwrap();
        assert!(matches!(outcome, Outcome::Cancelled), "{outcome}");
    });
    is_explained_and_clean(&seen, &format!("http, mode {mode}"));
}

/// As in the guest.
#[derive(Serialize)]
enum StoreError {
    EmptyKey,
    ValueTooLong { most: usize },
}

type Store = Mutex<BTreeMap<String, String>>;

fn put(store: &Store, key: String, value: String) -> Result<Option<String>, StoreError> {
    match (key.len(), value.len()) {
        (0, _) => Err(StoreError::EmptyKey),
        (_, 4097..) => Err(StoreError::ValueTooLong { most: 4096 }),
        _ => Ok(store.lock().unwrap().insert(key, value)),
    }
}

fn get(store: &Store, key: &str) -> Result<Option<String>, StoreError> {
    Ok(store.lock().unwrap().get(key).cloned())
}

#[kvm_test]
fn the_demo_kv() {
    alone("kv", |builder| {
        builder
            .args(["50", "5"])
            .state(Store::default())
            .host_fn(
                "kv.put",
                async |to: HostContext, (key, value): (String, String)| put(to.state(), key, value),
            )
            .host_fn("kv.get", async |from: HostContext, key: String| {
                get(from.state(), &key)
            })
            .host_fn("kv.sync", async |_, (): ()| Ok::<_, StoreError>(()))
            .host_stream("kv.scan", |from: HostContext, key: String| {
                let entries = from.state::<Store>().lock().unwrap();
                let entries: Vec<_> = entries
                    .range(key..)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                stream::iter(entries)
            })
    });
}

#[derive(Serialize)]
struct Order {
    customer: &'static str,
    items: Vec<&'static str>,
}

#[derive(Debug, Deserialize, PartialEq)]
enum Receipt {
    Total { customer: String, cents: u32 },
    Unknown { item: String },
}

#[kvm_test(modes)]
fn the_demo_callme(mode: WakeMode) {
    let (builder, seen) = demo("callme", mode);
    runtime_of(1).block_on(async {
        let price = async |_, item: String| -> Option<u32> {
            tokio::task::yield_now().await;
            (item == "tea").then_some(250)
        };
        let builder = builder.host_fn("price", price).stdout(Output::Null);
        let sandbox = builder.build().unwrap().start();
        let naps = (0..50).map(|_| sandbox.call::<_, u64>("nap", &(2_u64,)));
        try_join_all(naps).await.unwrap();
        let primes = sandbox.call::<_, u32>("primes", &(1_000_u32,)).await;
        assert_eq!(primes.unwrap(), 168);
        let (customer, items) = ("Ann", vec!["tea", "tea", "hat"]);
        let order = Order { customer, items };
        let receipt: Receipt = sandbox.call("checkout", &(order,)).await.unwrap();
        let item = "hat".to_owned();
        assert_eq!(receipt, Receipt::Unknown { item });
        // Given up as soon as the guest has it, and perhaps before.
        let patience = sandbox.call::<_, ()>("patience", &());
        let _ = tokio::time::timeout(Duration::from_millis(5), patience).await;
        let (outcome, _) = sandbox.close().await.unwrap();
        assert!(outcome.is_success(), "{outcome}");
    });
    is_explained_and_clean(&seen, &format!("callme, mode {mode}"));
}

#[kvm_test]
fn the_ladder() {
    for rung in RUNGS {
        for mode in WakeMode::ALL {
            // Rung 7 is about interrupts, and the others know only how to leave.
            if (mode == WakeMode::Irq) != (rung.wake == WakeMode::Irq) {
                continue;
            }
            let (ended, events) = rung.climb_in(mode);
            ended.success();
            let mut summary = Summary::new();
            let mut lint = Lint::new(thresholds());
            for event in &events {
                summary.count(event);
                lint.look(event);
            }
            let what = format!("rung {}, mode {mode}", rung.number);
            assert_eq!((summary.uncaused, summary.lost), (0, 0), "{what}");
            let findings = lint.report().findings;
            // Rung 2 is there to be found fault with, if it polls often enough to be judged.
            // On rung 10 tasks give way over and over, and one keeps its processor until another is polled.
            let is_meant = |kind| match rung.number {
                2 => kind == FindingKind::SpuriousPolls,
                10 => [FindingKind::SpuriousPolls, FindingKind::LongPoll].contains(&kind),
                _ => false,
            };
            assert!(
                findings.iter().all(|found| is_meant(found.kind)),
                "{what}: {findings:#?}"
            );
        }
    }
}
