//! Ending a sandbox from elsewhere, and dropping its run, in every state that a guest can be in.

use std::future::pending;
use std::sync::{Arc, Weak, mpsc};

use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore};
use wakebox::{Builder, Handle, HostContext, Outcome, Policy, Sandbox, WakeMode};
use wakebox_tests::elf::{Elf, code};
use wakebox_tests::{ends, guest, kvm_test, run_here, runtime, runtime_of};

/// What the host knows of the probe.
#[derive(Debug)]
struct Seen {
    /// A permit for each time that the guest was there.
    here: Semaphore,
    /// A permit for each time that the host function which never ends began.
    never_began: Semaphore,
    /// The same for its end.
    never_dropped: Semaphore,
}

struct Dropped(Arc<Seen>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.never_dropped.add_permits(1);
    }
}

/// The probe, doing this, and what is seen of it.
fn killme(verb: &str, mode: WakeMode) -> (Builder, Arc<Seen>) {
    let seen = Arc::new(Seen {
        here: Semaphore::new(0),
        never_began: Semaphore::new(0),
        never_dropped: Semaphore::new(0),
    });
    let builder = Sandbox::builder()
        .guest(guest("killme"))
        .args([verb])
        .wake(mode)
        .state(seen.clone())
        .host_fn("here", async |ctx: HostContext, (): ()| {
            ctx.state::<Arc<Seen>>().here.add_permits(1);
        })
        .host_fn("never", async |ctx: HostContext, (): ()| {
            let seen = ctx.state::<Arc<Seen>>().clone();
            seen.never_began.add_permits(1);
            let _dropped = Dropped(seen);
            pending::<()>().await;
        });
    (builder, seen)
}

async fn event(happened: &Semaphore) {
    happened.acquire().await.expect("it is open").forget();
}

/// Waits until the guest does what it says, in a runtime with one thread for all guests.
async fn settled(verb: &str, seen: &Seen) {
    event(&seen.here).await;
    if verb == "call" {
        event(&seen.never_began).await;
    }
    // Whoever was ready before this neighbour has had turns when it ends.
    let neighbour = Elf::guest(&code::exit(0)).to_bytes();
    run_here(Sandbox::builder().guest(neighbour))
        .await
        .success();
}

const VERBS: [&str; 4] = ["compute", "park", "call", "work"];

/// Kills it from a task or from a thread that knows nothing of any runtime.
async fn kill(handle: Handle, from_a_thread: bool) {
    if from_a_thread {
        std::thread::spawn(move || handle.kill()).join().unwrap();
    } else {
        handle.kill();
    }
}

fn granted(builder: Builder, verb: &str, dir: &tempfile::TempDir) -> Builder {
    if verb != "work" {
        return builder;
    }
    let grant = format!("{}:/d", dir.path().display());
    builder.policy(Policy::new().allow_dir(grant.parse().unwrap()))
}

#[kvm_test(modes)]
fn a_kill_ends_it_whatever_it_does_and_the_neighbours_go_on(mode: WakeMode) {
    let dir = tempfile::tempdir().unwrap();
    for verb in VERBS {
        for from_a_thread in [false, true] {
            runtime_of(1).block_on(async {
                let (builder, seen) = killme(verb, mode);
                let mut sandbox = granted(builder, verb, &dir).build().unwrap();
                let handle = sandbox.handle();
                let run = tokio::spawn(async move { ends(&mut sandbox).await });
                settled(verb, &seen).await;
                kill(handle, from_a_thread).await;
                assert_eq!(run.await.unwrap(), Outcome::Cancelled, "{verb}, {mode}");
                if verb == "call" {
                    event(&seen.never_dropped).await;
                }
                let neighbour = Elf::guest(&code::exit(0)).to_bytes();
                run_here(Sandbox::builder().guest(neighbour))
                    .await
                    .success();
            });
        }
    }
}

/// Ends when nobody has it any more; the test runner's patience is the limit.
fn gone<T>(weak: &Weak<T>) {
    while weak.strong_count() > 0 {
        std::thread::yield_now();
    }
}

#[kvm_test(modes)]
fn a_run_that_is_dropped_frees_what_the_guest_had(mode: WakeMode) {
    let dir = tempfile::tempdir().unwrap();
    for verb in VERBS {
        let owned = runtime_of(1).block_on(async {
            let (builder, seen) = killme(verb, mode);
            let owned = Arc::new(());
            let builder = builder.state(owned.clone());
            let mut sandbox = granted(builder, verb, &dir).build().unwrap();
            let run = tokio::spawn(async move { sandbox.run().await.map(drop) });
            settled(verb, &seen).await;
            run.abort();
            assert!(run.await.is_err_and(|error| error.is_cancelled()));
            if verb == "call" {
                event(&seen.never_dropped).await;
            }
            Arc::downgrade(&owned)
        });
        gone(&owned);
    }
}

#[kvm_test(modes)]
fn a_dropped_run_closes_what_was_open_though_the_sandbox_is_kept(mode: WakeMode) {
    runtime().block_on(async {
        let (builder, seen) = killme("call", mode);
        let mut sandbox = builder.build().unwrap();
        tokio::select! {
            biased;
            _ = sandbox.run() => panic!("it never ends"),
            () = event(&seen.never_began) => {}
        }
        event(&seen.never_dropped).await;
        assert!(matches!(sandbox.run().await, Err(wakebox::Error::Ended)));
    });
}

/// A runtime with a single thread for blocking calls.
fn narrow() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[kvm_test(modes)]
fn a_kill_does_not_wait_for_a_call_that_blocks_in_a_thread_pool(mode: WakeMode) {
    let runtime = narrow();
    runtime.block_on(async {
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(std::sync::Mutex::new(Some(blocked)));
        let began = Arc::new(Notify::new());
        let mut sandbox = Sandbox::builder()
            .guest(guest("killme"))
            .args(["call"])
            .wake(mode)
            .host_fn("here", async |_, (): ()| {})
            .host_fn("never", {
                let (blocked, began) = (blocked.clone(), began.clone());
                move |_, (): ()| {
                    let (blocked, began) = (blocked.clone(), began.clone());
                    async move {
                        let receiver = blocked.lock().unwrap().take().unwrap();
                        let call = tokio::task::spawn_blocking(move || {
                            began.notify_one();
                            // Until the test says so.
                            let _ = receiver.recv();
                        });
                        call.await.unwrap();
                    }
                }
            })
            .build()
            .unwrap();
        let handle = sandbox.handle();
        let run = tokio::spawn(async move { ends(&mut sandbox).await });
        began.notified().await;
        handle.kill();
        assert_eq!(run.await.unwrap(), Outcome::Cancelled, "mode {mode}");
        // It blocked all the time.
        release.send(()).unwrap();
    });
}

#[kvm_test(modes = [Out, Irq])]
fn a_kill_does_not_wait_for_the_disk(mode: WakeMode) {
    let dir = tempfile::tempdir().unwrap();
    // In these modes a guest's calls for the disk run in the embedder's thread pool.
    let runtime = narrow();
    runtime.block_on(async {
        let (release, receiver) = mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || receiver.recv());
        let (builder, seen) = killme("work", mode);
        let mut sandbox = granted(builder, "work", &dir).build().unwrap();
        let handle = sandbox.handle();
        let run = tokio::spawn(async move { ends(&mut sandbox).await });
        settled("work", &seen).await;
        handle.kill();
        assert_eq!(run.await.unwrap(), Outcome::Cancelled, "mode {mode}");
        release.send(()).unwrap();
        occupied.await.unwrap().unwrap();
    });
}
