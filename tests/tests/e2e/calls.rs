//! Calls across the boundary, in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use futures_util::{TryStreamExt as _, stream};
use tokio::sync::Notify;
use wakebox::{
    Builder, CallError, Captured, GuestEnd, HostContext, Outcome, Output, Policy, Sandbox, WakeMode,
};
use wakebox_tests::{guest, kvm_test, run, runtime_of};

/// Tells when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A sandbox with the functions that the probe `calls` wants.
fn calls(role: &str, mode: WakeMode) -> Builder {
    Sandbox::builder()
        .guest(guest("calls"))
        .wake(mode)
        .memory(128 << 20)
        .args([role])
        .state(AtomicU64::new(0))
        .host_fn("add", async |ctx: HostContext, (a, b): (u64, u64)| {
            ctx.state::<AtomicU64>().fetch_add(1, Ordering::Relaxed);
            a + b
        })
        .host_fn("divide", async |_, (a, b): (u64, u64)| {
            a.checked_div(b)
                .ok_or_else(|| String::from("division by zero"))
        })
        .host_fn("echo", async |_, bytes: Vec<u8>| bytes)
        .host_fn("never", async |_, (): ()| {
            std::future::pending::<()>().await;
        })
        .host_fn("panics", async |_, (): ()| -> () {
            panic!("a panic that a test asked for")
        })
        .host_stream("count", |_, to: u32| {
            stream::iter((1..=to).map(|n| format!("number {n}")))
        })
        .host_stream("long", |_, (): ()| {
            stream::iter([10, 2_000, 100_000, 1].map(|len| vec![1_u8; len]))
        })
        .host_stream("endless", |_, (): ()| stream::repeat(7_u64))
}

#[kvm_test(modes)]
fn a_guest_calls_the_host_in_every_mode(mode: WakeMode) {
    let ended = run(calls("call", mode)).success();
    assert_eq!(
        ended.lines(),
        [
            "add Ok(5)",
            "divide Ok(Ok(3))",
            "divide by zero Ok(Err(\"division by zero\"))",
            "echo 0 true",
            "echo 1 true",
            "echo 1000 true",
            "echo 1024 true",
            "echo 5000 true",
            "echo 300000 true",
            "too long Err(OutOfMemory (a buffer of 33554444 bytes: the host is out of memory or descriptors))",
            "absent Err(NotFound (call `absent`: there is no such thing))",
            "wrong type Err(InvalidData (call `add`, which is `(u64, u64) -> u64` on the host, as `u8 -> u64`: the data is not valid))",
            "panics Err(Panicked (call `panics`: the function panicked))",
            "given up true",
            "five hundred 125250",
            "item Ok(\"number 1\")",
            "item Ok(\"number 2\")",
            "item Ok(\"number 3\")",
            "after the end true",
            "long item Ok(10)",
            "long item Ok(2000)",
            "long item Ok(100000)",
            "long item Ok(1)",
            "end",
        ],
        "mode {mode}"
    );
}

#[kvm_test(modes)]
fn a_result_larger_than_the_arena_arrives_in_parts(mode: WakeMode) {
    let builder = calls("large", mode)
        .arena(1 << 20)
        .host_fn("large", async |_, len: u64| -> Vec<u8> {
            (0..len).map(|at| (at % 251) as u8).collect()
        });
    let ended = run(builder).success();
    let lines = ended.lines();
    assert_eq!(lines[0], "large 5000000 true", "mode {mode}");
    // The other way round the message has to fit, and the error says what did not.
    assert!(lines[1].starts_with("echo Err(OutOfMemory"), "{lines:?}");
}

#[kvm_test(modes)]
fn a_call_that_the_guest_drops_is_dropped_on_the_host(mode: WakeMode) {
    runtime_of(2).block_on(async {
        let dropped = Arc::new(Notify::new());
        let begun = Arc::new(Notify::new());
        let (seen, begins) = (dropped.clone(), begun.clone());
        let builder = calls("drop", mode)
            .host_fn("never", move |_, (): ()| {
                let dropped = Dropped(seen.clone());
                begins.notify_one();
                async move {
                    let _dropped = dropped;
                    std::future::pending::<()>().await;
                }
            })
            .host_fn("begun", move |_, (): ()| {
                let begun = begun.clone();
                async move { begun.notified().await }
            });
        let running = builder.build().unwrap().start();
        dropped.notified().await;
        let (outcome, _) = running.ended().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0), "mode {mode}");
    });
}

#[kvm_test]
fn a_policy_that_names_functions_narrows_what_the_program_gives() {
    let policy = Policy::new().allow_fn("e*".parse().unwrap());
    let ended = run(calls("call", WakeMode::Out).policy(policy));
    let lines = ended.lines();
    let refused =
        "add Err(PermissionDenied (call `add`: the policy or the host does not permit this))";
    assert_eq!(lines.first(), Some(&refused));
    assert!(lines.contains(&"echo 1000 true"));
    assert!(
        ended
            .stats
            .refused
            .iter()
            .any(|(kind, count)| *kind == "call" && *count > 2)
    );
}

/// The arguments were not what the function takes.
#[track_caller]
fn assert_input<T: std::fmt::Debug>(result: Result<T, CallError>, function: &str) {
    match result {
        Err(CallError::BadInput(mismatch)) => assert_eq!(mismatch.function, function),
        other => panic!("{other:?}"),
    }
}

#[kvm_test(modes)]
fn a_guest_that_means_other_types_than_the_host_is_told_both(mode: WakeMode) {
    let builder = calls("mismatch", mode)
        .host_fn("page", async |_, number: u32| format!("article {number}"))
        .host_stream("numbers", |_, to: u32| stream::iter(0..to));
    let ended = run(builder).success();
    let string = std::any::type_name::<String>();
    let invalid = |what: &str, host: &str, guest: &str| {
        format!(
            "InvalidData ({what}, which is `u32 -> {host}` on the host, as `{guest}`: the data \
             is not valid)"
        )
    };
    assert_eq!(
        ended.lines(),
        [
            // The bytes of the text are those of 1 and 55.
            format!(
                "Err({})",
                invalid("call `page`", string, &format!("&str -> {string}"))
            ),
            format!(
                "Err({})",
                invalid(
                    "call `page`",
                    string,
                    "u32 -> core::option::Option<calls::Page>"
                )
            ),
            format!(
                "Err({})",
                invalid("call `numbers`", "u32", &format!("str -> {string}"))
            ),
            format!(
                "Some(Err({}))",
                invalid(
                    "next item of `numbers`",
                    "u32",
                    "u32 -> core::option::Option<bool>"
                )
            ),
            "after the end true".to_owned(),
            "end".to_owned(),
        ],
        "mode {mode}"
    );
}

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Article {
    title: String,
}

#[kvm_test(modes)]
fn a_host_that_means_other_types_than_the_guest_is_told_both(mode: WakeMode) {
    runtime_of(2).block_on(async {
        let running = calls("serve", mode).build().unwrap().start();
        // Names do not count.
        let article = running.call("article", &7_u32).await;
        let title = "article 7".to_owned();
        assert_eq!(article, Ok(Some(Article { title })), "mode {mode}");
        let guest = "u32 -> core::option::Option<alloc::string::String>";
        let told = running
            .call::<_, Option<Article>>("article", "\x01\x01")
            .await;
        let article = std::any::type_name::<Article>();
        assert_eq!(
            told.unwrap_err().to_string(),
            format!(
                "the function `article` of the guest takes other arguments than it was given; in \
                 the guest it is `{guest}`; it was called as `str -> \
                 core::option::Option<{article}>`"
            )
        );
        // A number without a type is not a `u32`.
        assert_input(
            running.call::<_, Option<String>>("article", &7).await,
            "article",
        );
        let told = running.call::<_, (u8, String)>("article", &7_u32).await;
        assert_eq!(
            told.unwrap_err().to_string(),
            format!(
                "the function `article` of the guest gave a result of another type than is \
                 expected; in the guest it is `{guest}`; it was called as `u32 -> (u8, \
                 alloc::string::String)`"
            )
        );
        // Without types there is nothing to compare: the text "7" is the number 1.
        let untyped = running.caller().call_bytes("article", &[1]).await;
        assert_eq!(untyped.unwrap(), b"\x01\x09article 1");
        let told = running.caller().call_bytes("article", b"\x01\x37").await;
        assert_eq!(
            told.unwrap_err().to_string(),
            format!(
                "the function `article` of the guest takes other arguments than it was given; in \
                 the guest it is `{guest}`"
            )
        );
        let (outcome, _) = running.close().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0), "mode {mode}");
    });
}

#[kvm_test(modes)]
fn the_host_calls_a_guest_in_every_mode(mode: WakeMode) {
    runtime_of(2).block_on(async {
        let running = calls("serve", mode).build().unwrap().start();
        assert_eq!(running.call("sum", &(40_u64, 2_u64)).await, Ok(42_u64));
        let greeting: Result<String, String> = running.call("greet", "world").await.unwrap();
        assert_eq!(greeting, Ok("hello world".into()));
        let nobody: Result<String, String> = running.call("greet", "").await.unwrap();
        assert_eq!(nobody, Err("nobody to greet".into()));
        assert_eq!(
            running.call("add_on_the_host", &(1_u64, 2_u64)).await,
            Ok(Some(3_u64))
        );

        for len in [0, 1000, 1024, 5_000, 300_000] {
            let bytes: Vec<u8> = (0..len).map(|at: u32| (at % 251) as u8).collect();
            let mut back: Vec<u8> = running.call("reverse", &bytes).await.unwrap();
            back.reverse();
            assert_eq!(back, bytes);
        }

        let missing = running.call::<_, ()>("missing", &()).await;
        assert_eq!(missing, Err(CallError::NoSuchFunction("missing".into())));
        let bad = running.call::<_, u64>("greet", &()).await;
        assert_input(bad, "greet");
        // A text of one byte is not the number one and something else, nor is any argument none.
        let bad = running.call::<_, u64>("slow", "7").await;
        assert_input(bad, "slow");
        let bad = running.call::<_, ()>("sleep_for_ever", &1_u8).await;
        assert_input(bad, "sleep_for_ever");
        let bad = running
            .call::<_, u8>("add_on_the_host", &(1_u64, 2_u64))
            .await;
        assert!(matches!(bad, Err(CallError::BadOutput(_))), "{bad:?}");
        // A string of five bytes, of which none follows.
        let bad = running.call::<_, String>("slow", &5_u64).await;
        assert!(matches!(bad, Err(CallError::BadOutput(_))), "{bad:?}");

        // Hundreds at once, each a task of the guest.
        let sums = (0..500_u64).map(|n| {
            let caller = running.caller();
            async move {
                caller
                    .call::<_, Option<u64>>("add_on_the_host", &(n, n))
                    .await
            }
        });
        for (n, sum) in join_all(sums).await.into_iter().enumerate() {
            assert_eq!(sum, Ok(Some(2 * n as u64)));
        }
        let (outcome, _) = running.close().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0), "mode {mode}");
    });
}

#[kvm_test]
fn a_call_that_the_host_drops_is_dropped_in_the_guest() {
    runtime_of(2).block_on(async {
        let stdout = Captured::new();
        let builder = calls("serve", WakeMode::Auto).stdout(Output::Capture(stdout.clone()));
        let running = builder.build().unwrap().start();
        {
            let call = running.call::<_, ()>("sleep_for_ever", &());
            let mut call = std::pin::pin!(call);
            while !stdout.text().contains("asleep") {
                tokio::select! {
                    result = &mut call => panic!("it never ends: {result:?}"),
                    () = tokio::task::yield_now() => {}
                }
            }
        }
        let (outcome, _) = running.close().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0));
        assert_eq!(stdout.text(), "asleep\ndropped\nend\n");
    });
}

#[kvm_test]
fn calls_under_way_are_answered_when_a_guest_is_closed_and_lost_when_it_is_killed() {
    runtime_of(2).block_on(async {
        let running = calls("serve", WakeMode::Auto).build().unwrap().start();
        let caller = running.caller();
        let slow = tokio::spawn(async move { caller.call::<_, u64>("slow", &20_u64).await });
        // Answered, so the one before it has been submitted too.
        while running.call::<_, u64>("sum", &(1_u64, 1_u64)).await != Ok(2) {}
        let caller = running.caller();
        running.close().await.unwrap();
        assert!(matches!(
            slow.await.unwrap(),
            Ok(20) | Err(CallError::Ended(_))
        ));
        assert_eq!(
            caller.call::<_, u64>("sum", &(1_u64, 1_u64)).await,
            Err(CallError::Ended(GuestEnd::Outcome(Outcome::Exit(0).into())))
        );

        let running = calls("serve", WakeMode::Out).build().unwrap().start();
        let (caller, kill) = (running.caller(), running.handle());
        let never = tokio::spawn(async move { caller.call::<_, ()>("sleep_for_ever", &()).await });
        assert_eq!(running.call("sum", &(1_u64, 1_u64)).await, Ok(2_u64));
        kill.kill();
        let why = GuestEnd::Outcome(Outcome::Cancelled.into());
        assert_eq!(never.await.unwrap(), Err(CallError::Ended(why)));
        assert_eq!(running.ended().await.unwrap().0, Outcome::Cancelled);
    });
}

/// One call ends the guest, and every caller learns of what.
#[kvm_test(modes)]
fn whoever_waits_when_a_guest_ends_is_told_why(mode: WakeMode) {
    runtime_of(2).block_on(async {
        let running = calls("serve", mode).build().unwrap().start();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let caller = running.caller();
                tokio::spawn(async move { caller.call::<_, ()>("sleep_for_ever", &()).await })
            })
            .collect();
        // Answered, so the ones before it have been submitted too.
        assert_eq!(running.call("sum", &(1_u64, 1_u64)).await, Ok(2_u64));
        let panics = running.call::<_, ()>("panics_here", &()).await;
        let later = running.caller();
        let (outcome, _) = running.ended().await.unwrap();
        let Outcome::Panic(panic) = &outcome else {
            panic!("it panicked: {outcome}");
        };
        assert_eq!(panic.message, "a panic that a test asked for");
        let mut told = vec![panics, later.call("sum", &(1_u64, 1_u64)).await];
        for caller in waiting {
            told.push(caller.await.unwrap());
        }
        for told in told {
            let Err(CallError::Ended(GuestEnd::Outcome(why))) = &told else {
                panic!("mode {mode}: {told:?}");
            };
            assert!(matches!(**why, Outcome::Panic(_)), "mode {mode}: {why}");
            let text = told.unwrap_err().to_string();
            assert!(text.contains("a panic that a test asked for"), "{text}");
        }
    });
}

#[kvm_test(modes)]
fn a_stream_of_the_guest_arrives_item_by_item(mode: WakeMode) {
    runtime_of(2).block_on(async {
        let running = calls("serve", mode).build().unwrap().start();
        let countdown = running.stream::<_, u64>("countdown", &1000_u64).await;
        let items: Vec<_> = countdown.unwrap().try_collect().await.unwrap();
        assert!(items.iter().copied().eq((1..=1000).rev()), "mode {mode}");
        // Empty, shorter than a part and longer than all that may lie there.
        let lengths = vec![0_u32, 1, 70_000, 2_000_000, 5];
        let mut stream = running.stream("of.lengths", &lengths).await.unwrap();
        for len in lengths {
            let item: Vec<u8> = stream.next().await.unwrap().unwrap();
            assert!(item.len() == len as usize && item.iter().all(|byte| *byte == 7));
        }
        assert!(stream.next().await.is_none() && stream.next().await.is_none());
        // A function that gives one result is a stream of one, and beside others.
        let one = running.stream::<_, u64>("sum", &(40_u64, 2_u64)).await;
        assert_eq!(one.unwrap().try_collect::<Vec<_>>().await, Ok(vec![42]));
        let empty = running.stream::<_, u64>("countdown", &0_u64).await;
        assert_eq!(empty.unwrap().try_collect::<Vec<_>>().await, Ok(vec![]));
        let json = running.caller().stream_json("countdown", "3").await;
        let json: Vec<_> = json.unwrap().try_collect().await.unwrap();
        assert_eq!(json, ["3", "2", "1"]);
        let (outcome, _) = running.close().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0), "mode {mode}");
    });
}

#[kvm_test(modes)]
fn a_stream_that_nobody_reads_is_not_polled_and_one_that_is_dropped_is_dropped(mode: WakeMode) {
    runtime_of(2).block_on(async {
        let stdout = Captured::new();
        let builder = calls("serve", mode).stdout(Output::Capture(stdout.clone()));
        let running = builder.build().unwrap().start();
        let mut endless = running.stream::<_, u64>("endless", &()).await.unwrap();
        for n in 0..100 {
            assert_eq!(endless.next().await, Some(Ok(n)));
        }
        // 64 lie there, and one more waits for room.
        loop {
            let made: u64 = running.call("made", &()).await.unwrap();
            assert!(made <= 165, "{made} were made in mode {mode}");
            if made == 165 {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(endless.next().await, Some(Ok(100)));
        drop(endless);
        let (outcome, _) = running.close().await.unwrap();
        assert_eq!(outcome, Outcome::Exit(0), "mode {mode}");
        assert_eq!(stdout.text(), "dropped\nend\n");
    });
}

#[kvm_test]
fn streams_that_do_not_fit_end_with_the_error_of_a_call() {
    runtime_of(2).block_on(async {
        let running = calls("serve", WakeMode::Auto).build().unwrap().start();
        let ended = async |name: &'static str| {
            let mut stream = running.stream::<_, String>(name, &1_u64).await.unwrap();
            let told = stream.next().await.unwrap().unwrap_err();
            assert!(stream.next().await.is_none());
            told.to_string()
        };
        assert_eq!(
            ended("countdown").await,
            "the function `countdown` of the guest gave a result of another type than is expected; \
             in the guest it is `u64 -> stream<u64>`; it was called as `u64 -> \
             stream<alloc::string::String>`"
        );
        assert_eq!(
            ended("of.lengths").await,
            "the function `of.lengths` of the guest takes other arguments than it was given; in the \
             guest it is `alloc::vec::Vec<u32> -> stream<alloc::vec::Vec<u8>>`; it was called as \
             `u64 -> stream<alloc::string::String>`"
        );
        assert_eq!(ended("none").await, "the guest exports no function `none`");
        // Whoever wants one result gets none of a stream, with items or without.
        for from in [0_u64, 5] {
            let told = running.call::<_, u64>("countdown", &from).await;
            assert_eq!(
                told.unwrap_err().to_string(),
                "the function `countdown` of the guest gave a result of another type than is \
                 expected; in the guest it is `u64 -> stream<u64>`; it was called as `u64 -> u64`"
            );
        }
        let mut endless = running.stream::<_, u64>("endless", &()).await.unwrap();
        assert_eq!(endless.next().await, Some(Ok(0)));
        running.handle().kill();
        let told = loop {
            match endless.next().await.unwrap() {
                Ok(_) => {}
                Err(told) => break told,
            }
        };
        let is_told = matches!(&told, CallError::Ended(GuestEnd::Outcome(why)) if **why == Outcome::Cancelled);
        assert!(is_told, "{told:?}");
    });
}
