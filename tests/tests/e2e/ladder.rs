//! What happens on each rung of the ladder, in which order.

use wakebox::trace::{Awaited, Cause, Event, EventKind, OpKind, PollResult, TaskId};
use wakebox_tests::kvm_test;
use wakebox_tests::ladder::RUNGS;

/// The run of a rung as words: what the guest says of tasks, operations and sleep. The last operation,
/// with which it prints, is left out.
fn story(number: usize) -> Vec<String> {
    let rung = RUNGS[number - 1];
    let (ended, events) = rung.climb();
    ended.success();
    let told: Vec<_> = events.iter().filter_map(words).collect();
    let end = told
        .iter()
        .rposition(|words| words == "submits WriteConsole");
    told[..end.unwrap_or(told.len())].to_vec()
}

fn words(event: &Event) -> Option<String> {
    use EventKind as Kind;
    Some(match &event.kind {
        Kind::Spawned { task, name, .. } => format!("{} is {name}", task.0),
        Kind::PollBegin { task } => format!("poll {}", task.0),
        Kind::PollEnd { result, .. } => match result {
            PollResult::Ready => "ready".into(),
            PollResult::Pending { on, .. } => match on {
                Some(Awaited::Op(_)) => "pending on the host".into(),
                Some(Awaited::Timer(timer)) => format!("pending on timer {}", timer.0),
                _ => "pending".into(),
            },
        },
        Kind::Woken {
            task, by, queued, ..
        } => {
            let by = match by {
                Cause::Itself => "itself".into(),
                Cause::Task(TaskId(by)) => by.to_string(),
                Cause::Op(_) => "the host".into(),
                Cause::Timer(timer) => format!("timer {}", timer.0),
                other => format!("{other:?}"),
            };
            let in_vain = if *queued { "" } else { " in vain" };
            format!("{by} wakes {}{in_vain}", task.0)
        }
        Kind::Submitted { what, .. } => format!("submits {what}"),
        Kind::CancelAsked { .. } => "asks for the end".into(),
        Kind::Sleeps { .. } => "sleeps".into(),
        Kind::InterruptTaken { .. } => "interrupted".into(),
        Kind::UpcallBegin {
            task: Some(task), ..
        } => format!("upcall in {}", task.0),
        Kind::UpcallEnd { .. } => "returns".into(),
        _ => return None,
    })
}

/// Fails unless the story is this one.
#[track_caller]
fn is(number: usize, expected: &[&str]) {
    let told = story(number);
    assert_eq!(told, expected, "{told:#?}");
}

/// How often a story has this sentence.
fn count(story: &[String], sentence: &str) -> usize {
    story.iter().filter(|words| *words == sentence).count()
}

#[kvm_test]
fn rung_1_both_futures_are_polled_alike() {
    let polls = ["pending", "pending", "ready"];
    let of = |task: &str, name: &str| {
        let mut story = vec![format!("{task} is {name}")];
        for result in polls {
            story.extend([format!("poll {task}"), result.to_owned()]);
            if result == "pending" {
                story.push(format!("itself wakes {task}"));
            }
        }
        story
    };
    let expected = [of("1", "by hand"), of("2", "async fn")].concat();
    assert_eq!(story(1), expected);
}

/// What a rung prints.
fn said(number: usize) -> Vec<String> {
    let (ended, _) = RUNGS[number - 1].climb();
    let ended = ended.success();
    ended.lines().into_iter().map(str::to_owned).collect()
}

#[kvm_test]
fn rung_1_what_points_into_itself_does_not_once_it_is_moved() {
    assert_eq!(
        said(1)[8..],
        [
            "it points into itself: true",
            "moved, it points into itself: false",
            "pinned, it points into itself: true",
        ]
    );
}

#[kvm_test]
fn rung_3_a_waker_is_two_words_and_none_is_left() {
    assert_eq!(said(3)[1], "a waker is 16 bytes; 0 of them are left");
}

#[kvm_test]
fn rung_4_who_never_rests_is_polled_no_more_often_than_who_is_ready() {
    let polls = story(4);
    let polls = polls.iter().filter_map(|words| words.strip_prefix("poll "));
    let polls: Vec<_> = polls.collect();
    let restless: Vec<_> = (0..polls.len()).filter(|at| polls[*at] == "3").collect();
    assert!(restless.len() > 5, "{polls:?}");
    for turn in restless.windows(2) {
        let others = &polls[turn[0] + 1..turn[1]];
        // Ping or pong is always ready, and nobody comes twice.
        assert!(!others.is_empty(), "{polls:?}");
        for other in others {
            let times = others.iter().filter(|who| *who == other).count();
            assert_eq!(times, 1, "{polls:?}");
        }
    }
}

#[kvm_test]
fn rung_6_results_that_come_together_cost_one_sleep() {
    let last = said(6).pop().unwrap();
    let numbers: Vec<u32> = last
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    let [sleeps, operations] = numbers[..] else {
        panic!("{last}");
    };
    // Sixteen clients and their echoes: connect, accept, and twice a read and a write.
    assert_eq!(operations, 16 * 6);
    assert!(sleeps < operations / 2, "{last}");
}

#[kvm_test]
fn rung_2_polls_in_vain_until_the_last() {
    let story = story(2);
    let polls = count(&story, "poll 1");
    assert!(polls > 2, "{polls} polls");
    assert_eq!(count(&story, "pending on the host"), polls - 1);
    assert_eq!(
        count(&story, "1 wakes 1") + count(&story, "itself wakes 1"),
        polls - 1
    );
    assert_eq!(count(&story, "sleeps"), 0);
    assert_eq!(story.last().map(String::as_str), Some("ready"));
}

#[kvm_test]
fn rung_3_sleeps_once_and_polls_twice() {
    is(
        3,
        &[
            "1 is main",
            "poll 1",
            "submits Deadline",
            "pending on the host",
            "sleeps",
            "the host wakes 1",
            "poll 1",
            "ready",
        ],
    );
}

#[kvm_test]
fn rung_4_the_tasks_wake_each_other_and_nobody_sleeps() {
    let story = story(4);
    // Pong has nothing to do at first; then each hit wakes the other side.
    let begin = ["1 is ping", "2 is pong", "3 is restless", "4 is umpire"];
    assert_eq!(story[..4], begin, "{story:#?}");
    let is_hit = |words: &&String| ["2 wakes 1", "1 wakes 2"].contains(&words.as_str());
    let wakes: Vec<_> = story.iter().filter(is_hit).collect();
    assert!(wakes.len() >= 9, "{wakes:?}");
    for pair in wakes.windows(2) {
        assert_ne!(pair[0], pair[1], "they take turns: {wakes:?}");
    }
    assert_eq!(count(&story, "ready"), 4);
    assert_eq!(count(&story, "sleeps"), 0);
}

#[kvm_test]
fn rung_4_the_end_of_a_task_wakes_who_holds_its_handle() {
    let story = story(4);
    // The umpire awaits ping, and finds pong's result there or is woken for it.
    let wakes = count(&story, "1 wakes 4") + count(&story, "2 wakes 4");
    assert!((1..=2).contains(&wakes), "{story:#?}");
    assert_eq!(
        said(4),
        ["the ball was hit 5 and 5 times, without one exit"]
    );
}

#[kvm_test]
fn rung_5_wakes_in_the_order_of_times_with_one_host_timer() {
    let story = story(5);
    let wakes: Vec<_> = story
        .iter()
        .filter(|words| words.contains("wakes"))
        .collect();
    let expected = [
        "timer 2 wakes 2",
        "timer 4 wakes 4",
        "timer 3 wakes 3",
        "timer 1 wakes 1",
    ];
    assert_eq!(wakes, expected);
    // Never two at once: each is submitted after the guest has slept for the one before.
    let host: Vec<_> = story
        .iter()
        .filter(|words| ["submits Deadline", "sleeps"].contains(&words.as_str()))
        .collect();
    for pair in host.windows(2) {
        assert!(
            !pair.iter().all(|words| *words == "submits Deadline"),
            "{host:?}"
        );
    }
    assert_eq!(count(&story, "ready"), 4);
}

#[kvm_test]
fn rung_6_one_sleep_serves_many_sockets() {
    let story = story(6);
    // A server, and a task at each end of sixteen connections.
    assert_eq!(count(&story, "ready"), 33);
    let wakes = story
        .iter()
        .filter(|words| words.starts_with("the host wakes"))
        .count();
    let sleeps = count(&story, "sleeps");
    assert!(sleeps < wakes, "{sleeps} sleeps for {wakes} wakes");
    assert_eq!(
        story
            .iter()
            .filter(|words| words.ends_with("in vain"))
            .count(),
        0
    );
}

#[kvm_test]
fn rung_7_an_interrupt_comes_between_two_polls_of_a_task_that_computes() {
    let story = story(7);
    let first = story
        .iter()
        .position(|words| words == "interrupted")
        .expect("an interrupt");
    let slept = story
        .iter()
        .position(|words| words == "sleeps")
        .expect("a halt");
    assert!(
        first < slept,
        "the first completion came while the guest computed: {story:#?}"
    );
    assert_eq!(story[first + 1], "the host wakes 1");
    assert_eq!(
        story[slept..]
            .iter()
            .filter(|words| *words == "the host wakes 1")
            .count(),
        1
    );
}

#[kvm_test]
fn rung_8_what_is_dropped_is_cancelled_and_what_is_forgotten_takes_the_bytes() {
    let rung = RUNGS[7];
    let (ended, events) = rung.climb();
    assert_eq!(
        ended.success().lines(),
        [
            "a read was cancelled: the next one gets the bytes",
            "a read was forgotten: the next one waits in vain",
        ]
    );
    let reads: Vec<_> = events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::OpEnds {
                what: OpKind(12),
                status,
                value,
                ..
            } => Some((format!("{status:?}"), value)),
            _ => None,
        })
        .collect();
    // The first was cancelled, the second got the bytes; the third was forgotten and got them, and
    // the fourth was cancelled.
    let cancelled = ("Cancelled".to_owned(), 0);
    let five = ("Ok".to_owned(), 5);
    assert_eq!(reads, [cancelled.clone(), five.clone(), five, cancelled]);
}

#[kvm_test]
fn rung_9_a_task_is_polled_in_the_middle_of_another_ones_poll() {
    let story = story(9);
    let begin = [
        "1 is computes",
        "2 is urgent",
        "poll 1",
        "upcall in 1",
        "poll 2",
    ];
    let wait = ["submits Deadline", "pending", "returns"];
    let upcall = ["upcall in 1", "the host wakes 2", "poll 2"];
    let end = ["ready", "returns", "ready"];
    let expected = [&begin[..], &wait, &upcall, &wait, &upcall, &end].concat();
    // An upcall may find that one before it has taken what it tells of.
    let mut told = story.clone();
    while let Some(at) = told
        .windows(2)
        .position(|pair| pair == ["upcall in 1", "returns"])
    {
        told.drain(at..at + 2);
    }
    assert_eq!(told, expected, "{story:#?}");
}

#[kvm_test]
fn rung_10_two_processors_poll_tasks_at_the_same_time() {
    let rung = RUNGS[9];
    let (ended, events) = rung.climb();
    // Each processor says of its own polls.
    for processor in 0..2 {
        let here = |event: &&Event| event.processor == processor;
        let polls = events.iter().filter(here);
        let polls = polls.filter(|event| matches!(event.kind, EventKind::PollBegin { .. }));
        assert!(polls.count() > 0, "processor {processor}");
    }
    assert_eq!(
        ended.success().lines(),
        [
            "two tasks have met, each in the middle of a poll",
            "608 polls, and each processor had some: true",
        ]
    );
}
