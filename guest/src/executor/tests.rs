use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use super::*;

/// What happened, in order.
type Trace = Rc<RefCell<Vec<String>>>;

/// An executor whose every wake goes through the inbox, as from another core.
fn nowhere() -> &'static Executor {
    Box::leak(Box::new(Executor::new(Home::NOWHERE)))
}

/// An executor at home on this thread's stack.
fn here() -> &'static Executor {
    let marker = 0_u8;
    let address = (&raw const marker).addr();
    // SAFETY: the window lies well within this thread's stack, which no other thread runs
    // on. Wakers that outlive the thread take the inbox, from another stack.
    let home = unsafe { Home::stack(address - (256 << 10), 512 << 10, Whereabouts::ONLY) };
    Box::leak(Box::new(Executor::new(home)))
}

/// Runs a test with both kinds of executor.
fn both(test: impl Fn(&'static Executor)) {
    test(here());
    test(nowhere());
}

fn run(executor: &'static Executor) {
    while executor.has_ready() {
        executor.turn();
    }
}

fn note(trace: &Trace, text: impl Into<String>) {
    trace.borrow_mut().push(text.into());
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Notes its name and a word when it is dropped.
struct Dropped(Trace, &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        note(&self.0, format!("{} dropped", self.1));
    }
}

#[test]
fn tasks_are_polled_in_the_order_in_which_they_became_ready() {
    both(|executor| {
        let trace = Trace::default();
        for name in ["a", "b", "c"] {
            let trace = trace.clone();
            drop(executor.spawn(None, async move {
                for step in 1..=2 {
                    note(&trace, format!("{name}{step}"));
                    yield_now().await;
                }
            }));
        }
        run(executor);
        assert_eq!(*trace.borrow(), ["a1", "b1", "c1", "a2", "b2", "c2"]);
    });
}

#[test]
fn a_turn_polls_what_was_ready_at_its_start_and_no_more() {
    both(|executor| {
        let trace = Trace::default();
        let inner = trace.clone();
        let endless = executor.spawn(None, async move {
            loop {
                note(&inner, "again");
                yield_now().await;
            }
        });
        executor.turn();
        assert_eq!(*trace.borrow(), ["again"]);
        executor.turn();
        assert_eq!(*trace.borrow(), ["again", "again"]);
        endless.abort();
        run(executor);
    });
}

#[test]
fn a_handle_gives_the_output_whoever_is_first() {
    both(|executor| {
        let trace = Trace::default();
        let early = executor.spawn(None, async { "early" });
        run(executor);
        let late = executor.spawn(None, async {
            yield_now().await;
            "late"
        });
        assert!(early.is_finished() && !late.is_finished());
        let inner = trace.clone();
        drop(executor.spawn(None, async move {
            note(&inner, early.await.unwrap());
            note(&inner, late.await.unwrap());
        }));
        run(executor);
        assert_eq!(*trace.borrow(), ["early", "late"]);
    });
}

#[test]
fn an_abort_drops_the_future_in_its_turn_and_wakes_the_joiner() {
    both(|executor| {
        let trace = Trace::default();
        let held = Dropped(trace.clone(), "future");
        let victim = executor.spawn(None, async move {
            let _held = held;
            core::future::pending::<()>().await;
        });
        run(executor);
        victim.abort();
        victim.abort();
        assert!(!victim.is_finished());
        let inner = trace.clone();
        drop(executor.spawn(None, async move {
            note(&inner, "joining");
            note(&inner, victim.await.unwrap_err().to_string());
        }));
        run(executor);
        let expected = ["future dropped", "joining", "the task was aborted"];
        assert_eq!(*trace.borrow(), expected);
    });
}

#[test]
fn an_abort_after_the_end_changes_nothing() {
    both(|executor| {
        let mut task = executor.spawn(None, async { 7 });
        run(executor);
        task.abort();
        run(executor);
        assert_eq!(task.take(), Some(7));
    });
}

#[test]
fn a_task_may_abort_itself() {
    both(|executor| {
        let trace = Trace::default();
        let handle = Rc::new(RefCell::new(None::<JoinHandle<()>>));
        let (own, held) = (handle.clone(), Dropped(trace.clone(), "future"));
        *handle.borrow_mut() = Some(executor.spawn(None, async move {
            let _held = held;
            if let Some(own) = &*own.borrow() {
                own.abort();
            }
            yield_now().await;
            unreachable!("aborted before");
        }));
        run(executor);
        assert_eq!(*trace.borrow(), ["future dropped"]);
        assert!(handle.borrow().as_ref().unwrap().is_finished());
    });
}

#[test]
fn future_and_output_are_dropped_once_each() {
    both(|executor| {
        let trace = Trace::default();
        let make = |name: &'static str| {
            let (held, output) = (
                Dropped(trace.clone(), name),
                Dropped(trace.clone(), "its output"),
            );
            executor.spawn(None, async move {
                let _held = held;
                yield_now().await;
                output
            })
        };
        drop(make("detached"));
        run(executor);
        assert_eq!(trace.take(), ["detached dropped", "its output dropped"]);
        let kept = make("kept");
        run(executor);
        assert_eq!(trace.take(), ["kept dropped"]);
        drop(kept);
        assert_eq!(trace.take(), ["its output dropped"]);
        let mut taken = make("taken");
        run(executor);
        let output = taken.take();
        drop(taken);
        assert_eq!(trace.take(), ["taken dropped"]);
        drop(output);
        assert_eq!(trace.take(), ["its output dropped"]);
    });
}

#[test]
fn waking_a_task_that_is_ready_or_over_does_nothing() {
    both(|executor| {
        let polls = Rc::new(Cell::new(0));
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let (counter, slot) = (polls.clone(), waker.clone());
        let task = executor.spawn(
            None,
            poll_fn(move |cx| {
                counter.set(counter.get() + 1);
                *slot.borrow_mut() = Some(cx.waker().clone());
                if counter.get() == 2 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }),
        );
        run(executor);
        let waker = waker.take().unwrap();
        for _ in 0..3 {
            waker.wake_by_ref();
        }
        run(executor);
        assert_eq!(polls.get(), 2);
        drop(task);
        waker.wake_by_ref();
        run(executor);
        waker.wake();
        run(executor);
        assert_eq!(polls.get(), 2);
    });
}

#[test]
fn a_waker_may_be_used_and_dropped_on_other_threads() {
    both(|executor| {
        const ROUNDS: usize = 1_000;
        let (to_threads, wakers) = mpsc::channel::<(Waker, Arc<AtomicBool>)>();
        let wakers = Arc::new(std::sync::Mutex::new(wakers));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let wakers = wakers.clone();
                thread::spawn(move || {
                    loop {
                        let next = wakers.lock().unwrap().recv();
                        let Ok((waker, ready)) = next else { return };
                        ready.store(true, Ordering::Relaxed);
                        let copy = waker.clone();
                        waker.wake();
                        drop(copy);
                    }
                })
            })
            .collect();
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let to_threads = to_threads.clone();
                executor.spawn(None, async move {
                    for _ in 0..ROUNDS {
                        let ready = Arc::new(AtomicBool::new(false));
                        let mut sent = false;
                        poll_fn(|cx| {
                            if ready.load(Ordering::Relaxed) {
                                return Poll::Ready(());
                            }
                            // A wake-up without its reason would be polled once too often.
                            assert!(!core::mem::replace(&mut sent, true));
                            to_threads
                                .send((cx.waker().clone(), ready.clone()))
                                .unwrap();
                            Poll::Pending
                        })
                        .await;
                    }
                })
            })
            .collect();
        drop(to_threads);
        while !tasks.iter().all(JoinHandle::is_finished) {
            executor.turn();
            thread::yield_now();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn wakes_from_another_thread_keep_their_order() {
    let executor = nowhere();
    let trace = Trace::default();
    let wakers = Rc::new(RefCell::new(Vec::new()));
    for name in ["a", "b", "c"] {
        let (trace, wakers) = (trace.clone(), wakers.clone());
        let mut polled = false;
        drop(executor.spawn(
            None,
            poll_fn(move |cx| {
                if core::mem::replace(&mut polled, true) {
                    note(&trace, name);
                    return Poll::Ready(());
                }
                wakers.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            }),
        ));
    }
    run(executor);
    let mut wakers: Vec<Waker> = wakers.take();
    wakers.rotate_left(1);
    thread::spawn(move || wakers.into_iter().for_each(Waker::wake))
        .join()
        .unwrap();
    run(executor);
    assert_eq!(*trace.borrow(), ["b", "c", "a"]);
}

#[test]
fn a_waker_outlives_its_task() {
    both(|executor| {
        let waker = Rc::new(RefCell::new(None::<Waker>));
        let slot = waker.clone();
        drop(executor.spawn(
            Some("short".into()),
            poll_fn(move |cx| {
                *slot.borrow_mut() = Some(cx.waker().clone());
                Poll::Ready(())
            }),
        ));
        run(executor);
        let waker = waker.take().unwrap();
        thread::spawn(move || {
            waker.wake_by_ref();
            drop(waker.clone());
            drop(waker);
        })
        .join()
        .unwrap();
        run(executor);
    });
}

#[test]
fn the_end_drops_everything_that_is_left() {
    both(|executor| {
        let trace = Trace::default();
        for name in ["first", "second"] {
            let held = Dropped(trace.clone(), name);
            drop(executor.spawn(None, async move {
                let _held = held;
                loop {
                    yield_now().await;
                }
            }));
        }
        executor.turn();
        executor.abort_all();
        assert_eq!(*trace.borrow(), ["first dropped", "second dropped"]);
        assert!(!executor.has_ready());
        assert_eq!(executor.counts().completed.get(), 2);
    });
}

#[test]
fn a_task_knows_its_name() {
    both(|executor| {
        let trace = Trace::default();
        let noted = |name: &str| {
            let trace = trace.clone();
            let name = (!name.is_empty()).then(|| name.to_owned().into());
            drop(executor.spawn(name, async move {
                executor.with_current_name(|name| note(&trace, name.unwrap()));
            }));
        };
        noted("given");
        noted("");
        run(executor);
        let trace = trace.take();
        assert_eq!(trace[0], "given");
        assert!(trace[1].contains("a_task_knows_its_name"), "{}", trace[1]);
        executor.with_current_name(|name| assert_eq!(name, None));
    });
}
