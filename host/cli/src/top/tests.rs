use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use wakebox::trace::{
    Cause, Event, EventKind, ExitReason, OpId, OpKind, PollResult, Side, Sink, TaskId,
};

fn board(name: &str) -> Board {
    let (main, worker, op) = (TaskId(1), TaskId(2), OpId(9));
    let what = OpKind::from(wakebox_abi::op::Opcode::ReadStream);
    let spawned = |task, name: &str| EventKind::Spawned {
        task,
        by: None,
        name: name.into(),
        location: None,
    };
    let pending = |task| EventKind::PollEnd {
        task,
        result: PollResult::Pending {
            on: Some(wakebox::trace::Awaited::Op(op)),
            and: 0,
        },
    };
    let mut board = Board::default();
    for (time, kind) in [
        (
            0,
            EventKind::Started {
                mode: "out".into(),
                guest: Some("target/release/server".into()),
                processors: 1,
            },
        ),
        (0, EventKind::Entered),
        (10, spawned(main, "main")),
        (20, spawned(worker, name)),
        (100, EventKind::PollBegin { task: worker }),
        (
            150,
            EventKind::Submitted {
                op,
                what,
                bytes: 4,
                by: Some(worker),
            },
        ),
        (350, pending(worker)),
        (
            400,
            EventKind::Exited {
                reason: ExitReason::Wait,
            },
        ),
        (500, EventKind::Parked),
        (
            5_000_350,
            EventKind::Woken {
                task: worker,
                by: Cause::Op(op),
                queued: true,
                consumed: true,
            },
        ),
    ] {
        let side = Side::Guest;
        board.event(&Event::new(time, side, kind)).unwrap();
    }
    board
}

/// What stands on a screen.
fn drawn(view: &mut View, board: &Board, said: &[String], width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let rates = Rates::default();
    terminal
        .draw(|frame| view.draw(frame, board, &rates, said))
        .unwrap();
    terminal.backend().to_string()
}

#[test]
fn a_wide_screen_shows_all_of_a_task() {
    let said = ["listening".to_owned()];
    let screen = drawn(&mut View::default(), &board("conn-1"), &said, 110, 20);
    for words in [
        "server  mode out",
        "parked",
        "tasks 2, ended 0  ops in flight 1",
        "exits 1 (0/s)  polls 1 (0/s)",
        "listening",
        "q quit",
    ] {
        assert!(screen.contains(words), "`{words}` in\n{screen}");
    }
    let line = screen.lines().find(|line| line.contains("conn-1")).unwrap();
    let cells: Vec<_> = line.trim_matches('"').split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "2", "conn-1", "ready", "1", "250", "ns", "5.00", "ms", "op", "#9"
        ]
    );
}

#[test]
fn forty_columns_show_the_name_the_state_and_the_work() {
    let screen = drawn(&mut View::default(), &board("conn-1"), &[], 40, 16);
    let line = screen.lines().find(|line| line.contains("conn-1")).unwrap();
    assert!(
        line.contains("ready") && line.contains("250 ns"),
        "{screen}"
    );
    assert!(
        screen.contains("ops in flight 1") && screen.contains("q quit"),
        "{screen}"
    );
}

#[test]
fn of_several_processors_each_has_a_line_and_each_task_says_where_it_was_polled() {
    let (task, mut board) = (TaskId(5), Board::default());
    let started = EventKind::Started {
        mode: "auto".into(),
        guest: None,
        processors: 3,
    };
    let name = "spread".to_owned();
    for (processor, kind) in [
        (0, started),
        (0, EventKind::Entered),
        (0, EventKind::Parked),
        (1, EventKind::Entered),
        (1, EventKind::Lives { task, name }),
        (1, EventKind::PollBegin { task }),
    ] {
        let event = Event::new(7, Side::Guest, kind).on(processor);
        board.event(&event).unwrap();
    }
    let draw = |board: &Board| drawn(&mut View::default(), board, &[], 110, 20);
    let screen = draw(&board);
    for words in [
        "mode auto  7 ns  running",
        "vCPU 0  parked  exits 0",
        "vCPU 1  running  exits 0  polls 1",
        "vCPU 2  not started",
    ] {
        assert!(screen.contains(words), "`{words}` in\n{screen}");
    }
    let line = screen.lines().find(|line| line.contains("spread")).unwrap();
    let cells: Vec<_> = line.trim_matches('"').split_whitespace().collect();
    assert_eq!(cells[..4], ["5", "spread", "1", "polled"]);
    // All that were started.
    let parked = Event::new(8, Side::Host, EventKind::Parked).on(1);
    board.event(&parked).unwrap();
    assert!(draw(&board).contains("mode auto  8 ns  parked"));
}

#[test]
fn no_screen_is_too_small() {
    for (width, height) in [(1, 1), (5, 2), (20, 5), (300, 3), (3, 100)] {
        drawn(
            &mut View::default(),
            &board("conn-1"),
            &["said".into()],
            width,
            height,
        );
    }
}

#[test]
fn names_and_output_cannot_write_on_the_terminal() {
    let tail = Tail::default();
    tail.lock().push(b"\x1b[2Jgone\r\nbegun \x07");
    let screen = drawn(
        &mut View::default(),
        &board("a\x1b]0;b\x07"),
        &tail.lines(),
        110,
        20,
    );
    assert!(!screen.contains('\x1b') && !screen.contains('\x07'));
    for words in ["a\\u{1b}]0;b\\u{7}", "\\u{1b}[2Jgone\\r", "begun \\u{7}"] {
        assert!(screen.contains(words), "`{words}` in\n{screen}");
    }
}

#[test]
fn the_tail_of_the_output_is_bounded() {
    let tail = Tail::default();
    tail.lock().push(&[b'x'; 1 << 20]);
    for number in 0..1_000 {
        tail.lock().push(format!("\n{number}").as_bytes());
    }
    let lines = tail.lines();
    assert_eq!(lines.len(), Tail::LINES + 1);
    assert_eq!(lines.last().unwrap(), "999");
}

#[test]
fn scrolling_and_sorting_stay_within_the_tasks() {
    let mut board = board("conn-1");
    let mut view = View::default();
    for task in 3..100 {
        let kind = EventKind::Spawned {
            task: TaskId(task),
            by: None,
            name: format!("idler-{task}"),
            location: None,
        };
        let (time, side) = (6_000_000, Side::Guest);
        board.event(&Event::new(time, side, kind)).unwrap();
    }
    assert!(drawn(&mut view, &board, &[], 80, 20).contains("main"));
    view.scroll(1_000);
    let screen = drawn(&mut view, &board, &[], 80, 20);
    assert!(
        screen.contains("idler-99") && !screen.contains("main"),
        "{screen}"
    );
    view.scroll(-10_000);
    view.sort_otherwise();
    let screen = drawn(&mut view, &board, &[], 80, 20);
    let first = screen.lines().position(|line| line.contains("conn-1"));
    let second = screen.lines().position(|line| line.contains("main"));
    assert!(first < second, "the busy one first\n{screen}");
}

#[test]
fn ended_tasks_go_after_a_while() {
    let mut board = board("conn-1");
    for task in 3..1_000 {
        for kind in [
            EventKind::Spawned {
                task: TaskId(task),
                by: None,
                name: "short".into(),
                location: None,
            },
            EventKind::Ended {
                task: TaskId(task),
                aborted: false,
            },
        ] {
            let (time, side) = (6_000_000, Side::Guest);
            board.event(&Event::new(time, side, kind)).unwrap();
        }
    }
    assert_eq!(board.ended, 997);
    assert_eq!((board.tasks.len(), board.summary.tasks.len()), (22, 22));
}

#[test]
fn rates_are_those_of_the_last_second() {
    let mut board = board("conn-1");
    let mut rates = Rates::default();
    rates.update(Duration::ZERO, &board);
    for second in 1..=3 {
        for _ in 0..50 {
            let kind = EventKind::Exited {
                reason: ExitReason::Wait,
            };
            let (time, side) = (6_000_000, Side::Host);
            board.event(&Event::new(time, side, kind)).unwrap();
        }
        rates.update(Duration::from_secs(second), &board);
    }
    assert!((rates.exits - 50.0).abs() < 1.0, "{}", rates.exits);
    rates.update(Duration::from_secs(4), &board);
    rates.update(Duration::from_secs(5), &board);
    assert!(rates.exits < 1.0, "{}", rates.exits);
}

#[test]
fn time_goes_on_while_nothing_happens() {
    let (board, mut rates) = (board("conn-1"), Rates::default());
    for second in 0..=3 {
        rates.update(Duration::from_secs(second), &board);
    }
    let mut terminal = Terminal::new(TestBackend::new(110, 20)).unwrap();
    terminal
        .draw(|frame| View::default().draw(frame, &board, &rates, &[]))
        .unwrap();
    let screen = terminal.backend().to_string();
    assert!(
        screen.contains("server  mode out  3.01 s  parked"),
        "{screen}"
    );
}
