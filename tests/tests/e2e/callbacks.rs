//! The embedder's code: where it runs, and what it may do there. It panics, blocks, calls back.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::io::AsyncWrite;
use tokio::runtime::Runtime;
use wakebox::{
    Builder, Caller, HostContext, HostFunctions, Outcome, Output, Sandbox, Violation, WakeMode,
};
use wakebox_tests::{ends, guest, kvm_test, require_kvm, run, runtime, runtime_of};

/// A sandbox with the guest `calls`.
fn calls(role: &str, mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest("calls"))
        .wake(mode)
        .args([role])
}

/// What calls a guest, known once it is built.
type Slot = Arc<OnceLock<Caller>>;

/// A guest whose function `add_on_the_host` asks the host for a sum, and a host that asks `slot` for
/// it.
fn asks(slot: &Slot, mode: WakeMode) -> Builder {
    calls("serve", mode).state(slot.clone()).host_fn(
        "add",
        async |ctx: HostContext, (a, b): (u64, u64)| -> u64 {
            let caller = ctx.state::<Slot>().get().expect("it was built").clone();
            caller.call("sum", &(a, b)).await.expect("a sum")
        },
    )
}

/// Both flavours of runtime, and the second with a single thread, too.
fn runtimes() -> [Runtime; 3] {
    [runtime(), runtime_of(1), runtime_of(2)]
}

#[kvm_test]
fn a_host_function_calls_the_guest_that_has_called_it() {
    for runtime in runtimes() {
        for mode in WakeMode::ALL {
            runtime.block_on(async {
                let slot = Slot::default();
                let running = asks(&slot, mode).build().unwrap().start();
                slot.set(running.caller()).unwrap();
                let sums = (0..50_u64).map(|n| {
                    let caller = running.caller();
                    async move {
                        let both = (n, 1_u64);
                        caller
                            .call::<_, Option<u64>>("add_on_the_host", &both)
                            .await
                    }
                });
                for (n, sum) in join_all(sums).await.into_iter().enumerate() {
                    assert_eq!(sum, Ok(Some(n as u64 + 1)), "mode {mode}");
                }
                let (outcome, _) = running.close().await.unwrap();
                assert_eq!(outcome, Outcome::Exit(0), "mode {mode}");
            });
        }
    }
}

#[kvm_test]
fn two_sandboxes_whose_functions_call_each_other_both_get_answers() {
    for runtime in runtimes() {
        for mode in WakeMode::ALL {
            runtime.block_on(async {
                let (a, b) = (Slot::default(), Slot::default());
                let one = asks(&b, mode).build().unwrap().start();
                let other = asks(&a, mode).build().unwrap().start();
                a.set(one.caller()).unwrap();
                b.set(other.caller()).unwrap();
                let rounds = [&one, &other].map(|running| {
                    let caller = running.caller();
                    tokio::spawn(async move {
                        for n in 0..50_u64 {
                            let sum = caller.call("add_on_the_host", &(n, n)).await;
                            assert_eq!(sum, Ok(Some(2 * n)), "mode {mode}");
                        }
                    })
                });
                for round in rounds {
                    round.await.unwrap();
                }
                one.close().await.unwrap();
                other.close().await.unwrap();
            });
        }
    }
}

#[kvm_test(modes)]
fn a_host_function_may_block_in_place(mode: WakeMode) {
    runtime_of(2).block_on(async {
        let builder = calls("serve", mode).host_fn("add", async |_, (a, b): (u64, u64)| {
            tokio::task::block_in_place(|| a + b)
        });
        let running = builder.build().unwrap().start();
        for n in 0..200_u64 {
            let sum = running.call("add_on_the_host", &(n, 1_u64)).await;
            assert_eq!(sum, Ok(Some(n + 1)), "mode {mode}");
        }
        running.close().await.unwrap();
    });
}

#[kvm_test(modes)]
fn a_host_function_that_blocks_delays_nobody_of_another_runtime(mode: WakeMode) {
    let (began, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(Some(released));
    let builder = calls("serve", mode).host_fn("add", move |_, (a, b): (u64, u64)| {
        let released = released.lock().unwrap().take();
        let began = began.clone();
        async move {
            began.send(()).unwrap();
            // Holds the thread that polls it.
            let _ = released.expect("one call").recv();
            a + b
        }
    });
    let blocked = std::thread::spawn(move || {
        runtime_of(2).block_on(async {
            let running = builder.build().unwrap().start();
            let sum = running.call("add_on_the_host", &(1_u64, 2_u64)).await;
            assert_eq!(sum, Ok(Some(3_u64)), "mode {mode}");
            running.close().await.unwrap();
        });
    });
    begins.recv().unwrap();
    let add = async |_: HostContext, (a, b): (u64, u64)| a + b;
    runtime().block_on(async {
        let running = calls("serve", mode)
            .host_fn("add", add)
            .build()
            .unwrap()
            .start();
        for n in 0..20_u64 {
            let sum = running.call("add_on_the_host", &(n, 1_u64)).await;
            assert_eq!(sum, Ok(Some(n + 1)), "mode {mode}");
        }
        running.close().await.unwrap();
    });
    release.send(()).unwrap();
    blocked.join().unwrap();
}

/// Notes on which threads the embedder's code runs.
#[derive(Clone, Debug, Default)]
struct Threads(Arc<Mutex<BTreeSet<String>>>);

impl Threads {
    fn note(&self, what: &str) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("no name");
        self.0.lock().unwrap().insert(format!("{what}: {name}"));
    }

    fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().cloned().collect()
    }
}

/// Notes where it is dropped.
struct Dropped(Threads, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

/// For values that are read and written without being told where to note it.
static NOTES: OnceLock<Threads> = OnceLock::new();

fn note(what: &str) {
    NOTES.get_or_init(Threads::default).note(what);
}

/// Bytes that note where they are read, written and dropped.
struct Noted(Vec<u8>);

impl<'de> Deserialize<'de> for Noted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        note("read");
        Ok(Self(Vec::deserialize(deserializer)?))
    }
}

impl Serialize for Noted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        note("written");
        self.0.serialize(serializer)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        note("value dropped");
    }
}

/// A writer that notes where it is used and dropped.
struct Writer;

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        note("output");
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        note("output flushed");
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        note("output dropped");
    }
}

/// The name of the threads of a runtime of the embedder's.
const THEIRS: &str = "embedder";

/// Ends when nobody has it any more; the test runner's patience is the limit.
fn gone<T>(weak: &Weak<T>) {
    while weak.strong_count() > 0 {
        std::thread::yield_now();
    }
}

/// The sandbox of [`the_embedders_code_runs_on_threads_of_its_runtime`].
fn noting(mode: WakeMode, owned: Arc<()>) -> Builder {
    let never = |_: HostContext, (): ()| {
        note("called");
        let dropped = Dropped(NOTES.get().unwrap().clone(), "future dropped");
        async move {
            note("polled");
            let _dropped = dropped;
            std::future::pending::<()>().await;
        }
    };
    let endless = |_: HostContext, (): ()| {
        let dropped = Dropped(NOTES.get().unwrap().clone(), "stream dropped");
        stream::repeat_with(move || {
            let _ = &dropped;
            7_u64
        })
    };
    let state = (
        owned,
        Dropped(NOTES.get_or_init(Threads::default).clone(), "state dropped"),
    );
    calls("call", mode)
        .memory(128 << 20)
        .state(Mutex::new(state))
        .host_fn("add", async |_, (a, b): (u64, u64)| a + b)
        .host_fn("echo", async |_, bytes: Noted| bytes)
        .host_fn("never", never)
        .host_fn("panics", async |_, (): ()| -> () {
            note("panics");
            panic!("a panic that a test asked for")
        })
        .host_stream("count", |_, to: u32| {
            stream::iter((1..=to).map(|n| {
                note("stream polled");
                format!("number {n}")
            }))
        })
        .host_stream("long", |_, (): ()| {
            stream::iter([10, 100_000].map(|len| Noted(vec![1; len])))
        })
        .host_stream("endless", endless)
        .stdout(Output::writer(Writer))
}

#[kvm_test]
fn the_embedders_code_runs_on_threads_of_its_runtime() {
    wakebox_tests::alone!("the_embedders_code_runs_on_threads_of_its_runtime", || {
        for mode in WakeMode::ALL {
            let owned = Arc::new(());
            let left = Arc::downgrade(&owned);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name(THEIRS)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut sandbox = noting(mode, owned).build().unwrap();
                tokio::spawn(async move { assert!(ends(&mut sandbox).await.is_success()) })
                    .await
                    .unwrap();
            });
            gone(&left);
        }
        let seen = NOTES.get().unwrap().seen();
        for what in [
            "called",
            "future dropped",
            "output",
            "output dropped",
            "output flushed",
            "panics",
            "polled",
            "read",
            "state dropped",
            "stream dropped",
            "stream polled",
            "value dropped",
            "written",
        ] {
            let line = format!("{what}: {THEIRS}");
            assert!(seen.contains(&line), "{line} is not in {seen:#?}");
        }
        let others: Vec<_> = seen.iter().filter(|line| !line.ends_with(THEIRS)).collect();
        assert!(others.is_empty(), "{others:#?}");
    });
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a panic that a test asked for");
        }
    }
}

/// As [`Bomb`], in whatever case.
struct Mine(Arc<AtomicU64>);

impl Drop for Mine {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a panic that a test asked for");
    }
}

#[kvm_test]
fn a_panic_while_a_call_is_dropped_ends_that_call_only() {
    for role in ["call", "busy"] {
        for mode in WakeMode::ALL {
            let ended = run(calls(role, mode)
                .memory(128 << 20)
                .host_fn("add", async |_, (a, b): (u64, u64)| a + b)
                .host_fn("echo", async |_, bytes: Vec<u8>| bytes)
                .host_fn("never", async |_, (): ()| {
                    let _bomb = Bomb;
                    std::future::pending::<()>().await;
                })
                .host_fn("panics", async |_, (): ()| -> () {
                    std::panic::panic_any(Bomb)
                })
                .host_stream("count", |_, to: u32| {
                    stream::iter((1..=to).map(|n| format!("number {n}")))
                })
                .host_stream("long", |_, (): ()| stream::iter([vec![1_u8; 10]]))
                .host_stream("endless", |_, (): ()| {
                    let bomb = Bomb;
                    stream::repeat_with(move || {
                        let _ = &bomb;
                        7_u64
                    })
                }))
            .success();
            assert!(
                ended.lines().contains(&"given up true"),
                "{role}, mode {mode}"
            );
            assert_eq!(ended.lines().last(), Some(&"end"), "{role}, mode {mode}");
        }
    }
}

/// A guest of which two calls are under way, each of which panics when it is dropped, whatever
/// happens; what counts those; and what tells when both have begun.
fn mined(mode: WakeMode) -> (Builder, Arc<AtomicU64>, Arc<tokio::sync::Semaphore>) {
    let dropped = Arc::new(AtomicU64::new(0));
    let begun = Arc::new(tokio::sync::Semaphore::new(0));
    let builder = calls("hold", mode).host_fn("never", {
        let (dropped, begun) = (dropped.clone(), begun.clone());
        move |_, (): ()| {
            let (mine, begun) = (Mine(dropped.clone()), begun.clone());
            async move {
                let _mine = mine;
                begun.add_permits(1);
                std::future::pending::<()>().await;
            }
        }
    });
    (builder, dropped, begun)
}

/// Waits until both have been dropped; the test runner's patience is the limit.
async fn both(dropped: &AtomicU64) {
    while dropped.load(Ordering::Relaxed) < 2 {
        tokio::task::yield_now().await;
    }
}

#[kvm_test]
fn calls_that_panic_when_a_guest_is_killed_or_its_run_is_dropped_end_nothing_else() {
    for runtime in runtimes() {
        for mode in WakeMode::ALL {
            for is_killed in [true, false] {
                runtime.block_on(async {
                    let (builder, dropped, begun) = mined(mode);
                    let mut sandbox = builder.build().unwrap();
                    let kill = sandbox.handle();
                    let run = tokio::spawn(async move { ends(&mut sandbox).await });
                    begun.acquire_many(2).await.unwrap().forget();
                    if is_killed {
                        kill.kill();
                        assert_eq!(run.await.unwrap(), Outcome::Cancelled, "mode {mode}");
                    } else {
                        run.abort();
                        assert!(run.await.is_err_and(|error| error.is_cancelled()));
                    }
                    both(&dropped).await;
                    let neighbour = calls("serve", mode).build().unwrap().start();
                    assert_eq!(neighbour.call("sum", &(1_u64, 2_u64)).await, Ok(3_u64));
                    neighbour.close().await.unwrap();
                });
            }
        }
    }
}

#[kvm_test(modes)]
fn calls_that_panic_when_their_time_is_over_end_alone(mode: WakeMode) {
    runtime_of(2).block_on(async {
        let (builder, dropped, _) = mined(mode);
        let limit = Some(Duration::from_millis(5));
        let mut sandbox = builder.host_fn_timeout(limit).build().unwrap();
        // Nothing is left that could wake the guest.
        assert_eq!(ends(&mut sandbox).await, Outcome::Deadlock, "mode {mode}");
        both(&dropped).await;
    });
}

#[kvm_test]
fn what_a_program_gives_may_panic_when_it_is_dropped() {
    for runtime in runtimes() {
        for mode in WakeMode::ALL {
            let count = Arc::new(AtomicU64::new(0));
            let (state, captured) = (Mine(count.clone()), Mine(count.clone()));
            let builder = calls("serve", mode)
                .state(Mutex::new(state))
                .host_fn("add", {
                    move |_, (a, b): (u64, u64)| {
                        let _ = &captured;
                        async move { a + b }
                    }
                });
            runtime.block_on(async {
                let running = builder.build().unwrap().start();
                let sum = running.call("add_on_the_host", &(1_u64, 2_u64)).await;
                assert_eq!(sum, Ok(Some(3_u64)), "mode {mode}");
                running.close().await.unwrap();
                both(&count).await;
            });
        }
    }
}

#[kvm_test(modes)]
fn a_sandbox_that_never_ran_gives_back_what_it_was_given(mode: WakeMode) {
    let owned = Arc::new(());
    let left = Arc::downgrade(&owned);
    let sandbox = calls("serve", mode).state(owned).build().unwrap();
    drop(sandbox);
    gone(&left);
}

/// Panics when it is read, or written.
struct Panics;

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("a panic that a test asked for")
    }
}

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a panic that a test asked for")
    }
}

#[kvm_test(modes)]
fn a_panic_while_a_message_is_read_or_written_ends_that_call_only(mode: WakeMode) {
    runtime_of(2).block_on(async {
        for reads in [true, false] {
            let builder = calls("serve", mode);
            let builder = if reads {
                builder.host_fn("add", async |_, _: Panics| 0_u64)
            } else {
                builder.host_fn("add", async |_, (_, _): (u64, u64)| Panics)
            };
            let running = builder.build().unwrap().start();
            let sum = running.call("add_on_the_host", &(1_u64, 2_u64)).await;
            assert_eq!(sum, Ok(None::<u64>), "mode {mode}");
            assert_eq!(running.call("sum", &(1_u64, 2_u64)).await, Ok(3_u64));
            running.close().await.unwrap();
        }
    });
}

/// A writer that panics when it is used, and when it is dropped.
struct BadWriter;

impl AsyncWrite for BadWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        panic!("a panic that a test asked for")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        panic!("a panic that a test asked for")
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for BadWriter {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a panic that a test asked for");
        }
    }
}

#[kvm_test]
fn a_writer_that_panics_loses_what_it_was_given_and_that_is_told() {
    for runtime in runtimes() {
        for mode in WakeMode::ALL {
            runtime.block_on(async {
                let builder = Sandbox::builder().guest(guest("greet")).wake(mode);
                let mut sandbox = builder.stdout(Output::writer(BadWriter)).build().unwrap();
                let error = sandbox.run().await.expect_err("nothing has arrived");
                assert!(
                    error.to_string().contains("panicked"),
                    "mode {mode}: {error}"
                );
                drop(sandbox);
                let neighbour = calls("serve", mode).build().unwrap().start();
                assert_eq!(neighbour.call("sum", &(1_u64, 2_u64)).await, Ok(3_u64));
                neighbour.close().await.unwrap();
            });
        }
    }
}

/// A subscriber that panics at the end of every operation.
struct BadSubscriber;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for BadSubscriber {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        assert_ne!(
            event.metadata().target(),
            "wakebox::op",
            "a panic that a test asked for"
        );
    }
}

#[kvm_test]
fn a_subscriber_that_panics_ends_the_run_and_hangs_nobody() {
    use tracing_subscriber::layer::SubscriberExt as _;

    require_kvm();
    wakebox_tests::alone!(
        "a_subscriber_that_panics_ends_the_run_and_hangs_nobody",
        || {
            let subscriber = tracing_subscriber::registry().with(BadSubscriber);
            tracing::subscriber::set_global_default(subscriber).unwrap();
            for mode in WakeMode::ALL {
                let ended = run(Sandbox::builder().guest(guest("concurrent")).wake(mode));
                let panicked = Outcome::Violation(Violation::HostPanicked);
                assert_eq!(ended.outcome, panicked, "mode {mode}");
            }
        },
    );
}

/// What does not depend on time: in mode `out` a guest leaves once for all that it calls at once.
#[kvm_test(modes = [Out, Irq])]
fn calls_that_are_made_at_once_are_answered_at_once(mode: WakeMode) {
    let calls = 10_240_u64;
    let ended = run(Sandbox::builder()
        .guest(guest("callbench"))
        .args([calls.to_string(), "256".into()])
        .wake(mode)
        .host_fn("add", async |_, (a, b): (u64, u64)| a + b))
    .success();
    let exits = ended.stats.exits.total();
    assert!(
        exits < calls / 100,
        "{exits} exits for {calls} calls, mode {mode}"
    );
}

#[kvm_test]
fn functions_that_are_declared_once_serve_many_sandboxes_with_one_state() {
    let functions = HostFunctions::new().state(AtomicU64::new(0)).host_fn(
        "add",
        async |ctx: HostContext, (a, b): (u64, u64)| -> u64 {
            ctx.state::<AtomicU64>().fetch_add(1, Ordering::Relaxed);
            a + b
        },
    );
    let counter = Arc::new(AtomicU64::new(100));
    runtimes()[0].block_on(async {
        for n in 0..3_u64 {
            let builder = calls("serve", WakeMode::Auto).functions(functions.clone());
            let running = builder.build().unwrap().start();
            let both = (n, 1_u64);
            let sum = running.call::<_, Option<u64>>("add_on_the_host", &both);
            assert_eq!(sum.await, Ok(Some(n + 1)));
            running.close().await.unwrap();
        }
        // One that is given later stands in the place of the first.
        let builder = calls("serve", WakeMode::Auto)
            .functions(functions.clone())
            .state(counter.clone())
            .host_fn("add", async |ctx: HostContext, (_, _): (u64, u64)| -> u64 {
                let seen = ctx.state::<AtomicU64>().load(Ordering::Relaxed);
                seen + ctx.state::<Arc<AtomicU64>>().load(Ordering::Relaxed)
            });
        let running = builder.build().unwrap().start();
        let both = (0_u64, 0_u64);
        let sum = running.call::<_, Option<u64>>("add_on_the_host", &both);
        assert_eq!(sum.await, Ok(Some(103)));
        running.close().await.unwrap();
    });
}
