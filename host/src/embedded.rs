//! What is the embedder's: its functions, and the values, futures and streams that come of them.
//!
//! They live in tasks of the embedder's runtime, and nowhere else. There its code is called, polled
//! and dropped, by the runtime's own threads and under no lock of this library; there it may block
//! the thread as its runtime allows, call the guest that has called it, and panic. A panic ends the
//! task it is in, in whatever it happens: the call of a function, a poll, a drop, what it panicked
//! with.
//!
//! [`Home`] is that runtime, [`Task`] what this library has of a task, and [`Embedded`] holds a value
//! that waits for its use.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, unconstrained};
use tokio::time::Sleep;
use tracing::Span;
use wakebox_abi::status::Status;

use crate::outside::{Panicked, guarded, is_outside};

/// A future of the embedder's, in the form in which this library keeps it.
pub(crate) type Theirs<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// The embedder's runtime. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Home(Arc<House>);

#[derive(Debug)]
struct House {
    /// Known when the sandbox runs.
    runtime: OnceLock<Handle>,
    /// In which tasks are polled.
    span: OnceLock<Span>,
    /// Tasks that have not been polled yet.
    waiting: AtomicU32,
    /// Room for those, in KiB of their arguments.
    begins: Arc<Semaphore>,
    /// Permits for beginnings that may take long.
    slow: Arc<Semaphore>,
}

impl Default for House {
    fn default() -> Self {
        Self {
            runtime: OnceLock::new(),
            span: OnceLock::new(),
            waiting: AtomicU32::new(0),
            begins: Arc::new(Semaphore::new(BEGINS_KIB as usize)),
            slow: Arc::new(Semaphore::new(slow_at_once())),
        }
    }
}

/// KiB of arguments with which tasks of one sandbox may wait for their first poll, which reads them.
/// The runtime takes its tasks in turn: what waits there is what everybody else on the thread waits
/// for.
const BEGINS_KIB: u32 = 256;

/// How often in a row a runtime may turn to its other tasks before a guest goes on, if the guest's
/// calls are among them. Tokio's runtime of one thread takes 61 tasks a turn: four for 256 calls.
const TURNS_FOR_TASKS: u32 = 8;

/// Room for a task until it has been polled.
#[derive(Debug)]
pub(crate) struct Room {
    _permits: OwnedSemaphorePermit,
}

/// Beginnings of one sandbox's that may take long, at once. The threads for them are the embedder's, and
/// as many as there are calls would leave nobody else a processor: at most half of them are taken.
fn slow_at_once() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (processors / 2).clamp(1, 4)
    })
}

impl Home {
    /// Tasks run in this runtime from now on, and in this span.
    pub(crate) fn enter(&self, runtime: Handle, span: Span) {
        let _ = self.0.runtime.set(runtime);
        let _ = self.0.span.set(span);
    }

    /// The runtime, once it is known.
    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.0.runtime.get()
    }

    /// Waits until a task may begin whose first poll reads so many bytes: first come, first served.
    pub(crate) async fn room(&self, bytes: usize) -> Room {
        let kib = u32::try_from(bytes >> 10).unwrap_or(BEGINS_KIB);
        let permits = self.0.begins.clone();
        let permits = permits.acquire_many_owned((1 + kib).min(BEGINS_KIB)).await;
        Room {
            _permits: permits.expect("nobody closes the semaphore"),
        }
    }

    /// Starts a task: it calls `begin`, and polls the future that this gives, for at most `limit`
    /// after the first poll. `room` is given back then.
    ///
    /// # Errors
    ///
    /// The sandbox does not run yet.
    pub(crate) fn run<T, B>(
        &self,
        room: Room,
        begin: B,
        limit: Option<Duration>,
    ) -> Result<Task<T>, Status>
    where
        T: Send + 'static,
        B: FnOnce(Inside) -> Result<Theirs<T>, Status> + Send + Unpin + 'static,
    {
        let runtime = self.0.runtime.get().ok_or(Status::Other)?;
        let work = Work {
            span: self.0.span.get().cloned().unwrap_or_else(Span::none),
            waits: Some(Waits::new(self.clone(), room)),
            state: State::Begins(begin),
            limit,
            alarm: None,
        };
        Ok(Task(Some(runtime.spawn(work))))
    }

    /// As [`Self::run`], but `begin` takes long: it runs on a thread for blocking calls, when a few
    /// others of the sandbox at most are under way, so that it keeps nobody else from theirs.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub(crate) fn run_slow<T, B>(
        &self,
        room: Room,
        begin: B,
        limit: Option<Duration>,
    ) -> Result<Task<T>, Status>
    where
        T: Send + 'static,
        B: FnOnce(Inside) -> Result<Theirs<T>, Status> + Send + Unpin + 'static,
    {
        let permits = self.0.slow.clone();
        let begins = move |_: Inside| -> Result<Theirs<T>, Status> {
            Ok(Box::pin(async move {
                let permit = permits.acquire_owned().await;
                let begun = tokio::task::spawn_blocking(move || {
                    let _permit = permit;
                    guarded(|| begin(Inside(()))).unwrap_or(Err(Status::Panicked))
                });
                // What it gives up is dropped here or there, in the runtime either way.
                begun.await.map_err(|_| Status::Cancelled)??.await
            }))
        };
        self.run(room, begins, limit)
    }

    /// Whether tasks wait to be polled for the first time.
    pub(crate) fn has_waiting(&self) -> bool {
        // A hint: it may change at any time.
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    /// Lets tasks that wait for their first poll have it: they may need the very thread that the caller is
    /// on. Returns whether any were waited for.
    pub(crate) async fn let_begin(&self) -> bool {
        let mut turns = 0;
        while turns < TURNS_FOR_TASKS && self.has_waiting() {
            tokio::task::yield_now().await;
            turns += 1;
        }
        turns > 0
    }

    /// Whether the runtime has a single thread for tasks.
    pub(crate) fn is_narrow(&self) -> bool {
        self.0.runtime.get().is_some_and(|runtime| {
            runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
                || runtime.metrics().num_workers() == 1
        })
    }

    /// Drops a value where the embedder's code may run.
    fn drop<T: Send + 'static>(&self, value: T) {
        if is_outside() {
            let _ = guarded(|| drop(value));
            return;
        }
        let last = Last(Some(value));
        match self.0.runtime.get() {
            Some(runtime) => drop(runtime.spawn(last)),
            None => drop(last),
        }
    }
}

/// A task that drops a value.
struct Last<T: Send + 'static>(Option<T>);

impl<T: Send> Unpin for Last<T> {}

impl<T: Send> Future for Last<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let value = self.0.take();
        let _ = guarded(|| drop(value));
        Poll::Ready(())
    }
}

impl<T: Send> Drop for Last<T> {
    fn drop(&mut self) {
        let Some(value) = self.0.take() else { return };
        let drop = move || {
            let _ = guarded(|| drop(value));
        };
        if is_outside() {
            // The runtime shuts down.
            drop();
        } else {
            // There is no runtime. If there is no thread either, it goes with the attempt.
            let _ = guarded(|| std::thread::Builder::new().spawn(drop));
        }
    }
}

/// Says that this is where the embedder's code may run: a task of its runtime. It stays there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside(());

/// A value of the embedder's, used and dropped only where its code may run.
pub(crate) struct Embedded<T: Send + 'static> {
    /// None while it is dropped.
    value: Option<T>,
    home: Home,
}

impl<T: Send + 'static> Embedded<T> {
    /// A value whose home this is.
    pub(crate) fn new(value: T, home: Home) -> Self {
        Self {
            value: Some(value),
            home,
        }
    }

    /// The value.
    pub(crate) fn get(&self, _: Inside) -> &T {
        self.theirs()
    }

    /// The value, for the embedder's own code, wherever that runs.
    pub(crate) fn theirs(&self) -> &T {
        self.value
            .as_ref()
            .expect("it is there until it is dropped")
    }

    /// The value, to be changed.
    pub(crate) fn get_mut(&mut self, _: Inside) -> &mut T {
        self.value
            .as_mut()
            .expect("it is there until it is dropped")
    }
}

impl<T: Send + 'static> Drop for Embedded<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.home.drop(value);
        }
    }
}

impl<T: Send + 'static> std::fmt::Debug for Embedded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Embedded")
    }
}

/// A task of the embedder's runtime: gives what it came to. Dropping this aborts it, which drops
/// what is in it on a thread of that runtime.
#[derive(Debug)]
pub(crate) struct Task<T>(Option<JoinHandle<Result<T, Status>>>);

impl<T> Future for Task<T> {
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(task) = &mut self.0 else {
            return Poll::Ready(Err(Status::Cancelled));
        };
        let poll = Pin::new(task).poll(context);
        poll.map(|ended| {
            self.0 = None;
            // A task catches its own panics: the runtime has shut down.
            ended.unwrap_or(Err(Status::Cancelled))
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Counts a task that waits to be polled for the first time.
struct Waits {
    home: Home,
    _room: Room,
}

impl Waits {
    fn new(home: Home, room: Room) -> Self {
        home.0.waiting.fetch_add(1, Ordering::Relaxed);
        Self { home, _room: room }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.home.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a task does.
struct Work<T, B> {
    span: Span,
    waits: Option<Waits>,
    state: State<T, B>,
    limit: Option<Duration>,
    /// Set once the future has to be waited for.
    alarm: Option<Pin<Box<Sleep>>>,
}

enum State<T, B> {
    Begins(B),
    Goes(Theirs<T>),
    Over,
}

impl<T, B> Work<T, B>
where
    B: FnOnce(Inside) -> Result<Theirs<T>, Status> + Unpin,
{
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<Result<T, Status>> {
        if let State::Begins(_) = self.state
            && let State::Begins(begin) = std::mem::replace(&mut self.state, State::Over)
        {
            match begin(Inside(())) {
                Ok(future) => self.state = State::Goes(future),
                Err(status) => return Poll::Ready(Err(status)),
            }
        }
        let State::Goes(future) = &mut self.state else {
            return Poll::Ready(Err(Status::Cancelled));
        };
        let poll = future.as_mut().poll(context);
        if poll.is_pending()
            && let Some(limit) = self.limit
        {
            // No clock is asked for what is done at once.
            let alarm = self
                .alarm
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            if Pin::new(&mut unconstrained(alarm)).poll(context).is_ready() {
                return Poll::Ready(Err(Status::TimedOut));
            }
        }
        poll
    }

    /// Drops what is there of the embedder's.
    fn end(&mut self) -> Result<(), Panicked> {
        let state = std::mem::replace(&mut self.state, State::Over);
        guarded(|| drop(state))
    }
}

impl<T, B> Future for Work<T, B>
where
    B: FnOnce(Inside) -> Result<Theirs<T>, Status> + Unpin,
{
    type Output = Result<T, Status>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let work = &mut *self;
        work.waits = None;
        let span = work.span.clone();
        let _in_span = span.enter();
        let poll = guarded(|| work.go_on(context));
        let Poll::Ready(result) = poll.unwrap_or(Poll::Ready(Err(Status::Panicked))) else {
            return Poll::Pending;
        };
        let ended = work.end();
        Poll::Ready(match ended {
            Ok(()) => result,
            Err(Panicked) => Err(Status::Panicked),
        })
    }
}

impl<T, B> Drop for Work<T, B> {
    fn drop(&mut self) {
        if !matches!(self.state, State::Over) {
            let _in_span = self.span.clone().entered();
            let state = std::mem::replace(&mut self.state, State::Over);
            let _ = guarded(|| drop(state));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_slow_beginnings_are_under_way_at_once() {
        use std::sync::Barrier;
        use std::sync::atomic::AtomicUsize;
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let home = Home::default();
        home.enter(runtime.handle().clone(), Span::none());
        let shared = Arc::new((
            Barrier::new(slow_at_once()),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        ));
        let tasks: Vec<_> = (0..5 * slow_at_once())
            .map(|_| {
                let shared = shared.clone();
                let begin = move |_: Inside| -> Result<Theirs<()>, Status> {
                    let (all, now, most) = &*shared;
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    all.wait();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(Box::pin(async { Ok(()) }))
                };
                let room = runtime.block_on(home.room(0));
                home.run_slow(room, begin, None).unwrap()
            })
            .collect();
        for task in tasks {
            assert_eq!(runtime.block_on(task), Ok(()));
        }
        assert_eq!(shared.2.load(Ordering::SeqCst), slow_at_once());
    }

    #[test]
    fn a_task_that_has_not_begun_keeps_others_from_waiting_in_the_runtime() {
        use futures_util::FutureExt;
        // Not polled until it is asked to.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let home = Home::default();
        home.enter(runtime.handle().clone(), Span::none());
        let begin = |_: Inside| -> Result<Theirs<()>, Status> { Ok(Box::pin(async { Ok(()) })) };
        let tasks: Vec<_> = std::iter::from_fn(|| home.room(1 << 10).now_or_never())
            .map(|room| home.run(room, begin, None).unwrap())
            .collect();
        assert_eq!(tasks.len(), BEGINS_KIB as usize / 2);
        let mut next = Box::pin(home.room(0));
        assert!((&mut next).now_or_never().is_none());
        for task in tasks {
            assert_eq!(runtime.block_on(task), Ok(()));
        }
        assert!(next.now_or_never().is_some());
        // A message of any length finds room.
        assert!(home.room(usize::MAX).now_or_never().is_some());
    }
}
