//! The page of `--timeline`, in a real browser.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fantoccini::actions::{InputSource, MouseActions, PointerAction};
use fantoccini::key::Key;
use fantoccini::{Client, Locator};
use wakebox::trace::{
    Cause, Doorbell, Event, EventKind, ExitReason, Idle, PollResult, Roused, Side, Sink, TaskId,
    json, timeline,
};
use wakebox::{Sandbox, WakeMode};
use wakebox_tests::browser::Browser;
use wakebox_tests::{kvm_test, made_up, runtime};

/// A directory with a page of these events.
pub(crate) struct Page {
    _directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn page(events: &[Event]) -> Page {
    page_of(events, timeline::EVENTS)
}

/// Events of a guest, a nanosecond apart.
fn of_guest(kinds: impl IntoIterator<Item = EventKind>) -> Vec<Event> {
    let side = Side::Guest;
    let events = (0..).zip(kinds);
    events
        .map(|(time, kind)| Event::new(time, side, kind))
        .collect()
}

fn page_of(events: &[Event], most: u64) -> Page {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("timeline.html");
    let file = BufWriter::new(File::create(&path).unwrap());
    let mut writer = timeline::Writer::new(file).most(most);
    for event in events {
        writer.event(event).unwrap();
    }
    writer.end().unwrap();
    Page {
        _directory: directory,
        path,
    }
}

async fn text(client: &Client, css: &str) -> String {
    let element = client.find(Locator::Css(css)).await.unwrap();
    element.text().await.unwrap()
}

async fn texts(client: &Client, css: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for element in client.find_all(Locator::Css(css)).await.unwrap() {
        texts.push(element.text().await.unwrap());
    }
    texts
}

async fn press(client: &Client, keys: &str) {
    let chart = client.find(Locator::Id("chart")).await.unwrap();
    chart.send_keys(keys).await.unwrap();
}

/// Where the pointer goes: the middle of a poll as it is drawn now.
async fn pointer_to(browser: &Browser, poll: u64, click: bool) {
    let at = browser.eval(&format!("wakebox.where({poll})")).await;
    let (x, y) = (at["x"].as_f64().unwrap(), at["y"].as_f64().unwrap());
    let mut mouse = MouseActions::new("mouse".into()).then(PointerAction::MoveTo {
        duration: None,
        x,
        y,
    });
    if click {
        mouse = mouse
            .then(PointerAction::Down { button: 0 })
            .then(PointerAction::Up { button: 0 });
    }
    browser.client.perform_actions(mouse).await.unwrap();
}

#[test]
fn a_click_on_a_poll_shows_the_chain_that_woke_it() {
    let page = page(&made_up::server(3, 150));
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        // The second poll of main: the first three are the tasks' first.
        pointer_to(&browser, 3, true).await;
        let selected = text(&browser.client, "#selected").await;
        assert!(selected.starts_with("main, poll 2 of "), "{selected}");
        let steps = texts(&browser.client, "#chain li").await;
        let expected = [
            "main, poll 1",
            "submits",
            "the guest is left: it rang: nothing to do",
            "the host begins",
            "what",
            "ends: Ok, 512 bytes",
            "the completion is written",
            "the guest is entered again",
            "wakes main",
            "main, poll 2: Pending on",
        ];
        assert_eq!(steps.len(), expected.len(), "{steps:#?}");
        for (step, part) in steps.iter().zip(expected) {
            assert!(step.contains(part), "`{step}` has no `{part}`");
        }
    });
}

#[test]
fn from_the_chain_one_goes_back_to_the_poll_that_asked() {
    let page = page(&made_up::server(3, 150));
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        pointer_to(&browser, 3, true).await;
        let asked = browser.client.find(Locator::Css("#chain button")).await;
        asked.unwrap().click().await.unwrap();
        let selected = text(&browser.client, "#selected").await;
        assert!(selected.starts_with("main, poll 1 of "), "{selected}");
        assert!(
            texts(&browser.client, "#chain li").await[0]
                .contains("The runtime makes the task main")
        );
        browser
            .client
            .find(Locator::Id("back"))
            .await
            .unwrap()
            .click()
            .await
            .unwrap();
        let selected = text(&browser.client, "#selected").await;
        assert!(selected.starts_with("main, poll 2 of "), "{selected}");
    });
}

#[test]
fn the_pointer_over_a_poll_tells_what_it_is() {
    let page = page(&made_up::server(3, 150));
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        pointer_to(&browser, 3, false).await;
        let tip = text(&browser.client, "#tip").await;
        let lines: Vec<_> = tip.lines().collect();
        assert_eq!(lines[0], "main, poll 2");
        assert!(lines[1].starts_with("Pending on "), "{tip}");
        assert!(lines[2].starts_with("woken by the completion of "), "{tip}");
    });
}

#[test]
fn an_upcall_stands_in_the_poll_that_it_interrupts() {
    let (computes, urgent) = (TaskId(1), TaskId(2));
    let spawned = |task, name: &str| EventKind::Spawned {
        task,
        by: None,
        name: name.into(),
        location: None,
    };
    let result = PollResult::Ready;
    let page = page(&of_guest([
        spawned(computes, "computes"),
        spawned(urgent, "urgent"),
        EventKind::PollBegin { task: computes },
        EventKind::UpcallBegin {
            task: Some(computes),
            interrupted: true,
        },
        EventKind::Woken {
            task: urgent,
            by: Cause::Interrupt,
            queued: true,
            consumed: true,
        },
        EventKind::PollBegin { task: urgent },
        EventKind::PollEnd {
            task: urgent,
            result,
        },
        EventKind::UpcallEnd {
            task: Some(computes),
        },
        EventKind::PollEnd {
            task: computes,
            result,
        },
    ]));
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        browser.eval("wakebox.select(1)").await;
        let steps = texts(&browser.client, "#chain li").await;
        let expected = [
            "an upcall interrupts computes, poll 1",
            "an interrupt wakes urgent",
            "urgent, poll 1: Ready",
            "the upcall returns: computes, poll 1 goes on",
        ];
        assert_eq!(steps.len(), expected.len(), "{steps:#?}");
        for (step, part) in steps.iter().zip(expected) {
            assert!(step.contains(part), "`{step}` has no `{part}`");
        }
        browser.eval("wakebox.select(0)").await;
        let selected = text(&browser.client, "#selected").await;
        assert!(selected.contains("Ready: the task is done"), "{selected}");
        assert!(
            selected.contains("interrupted by 1 upcall, for 4 ns"),
            "{selected}"
        );
    });
}

#[test]
fn the_chain_leads_from_a_wake_on_one_processor_to_the_poll_on_another_that_slept() {
    let (asks, sleeps) = (TaskId(1), TaskId(2));
    let spawned = |task, by, name: &str| EventKind::Spawned {
        task,
        by,
        name: name.into(),
        location: None,
    };
    let result = PollResult::Pending { on: None, and: 0 };
    let begin = |task| EventKind::PollBegin { task };
    let end = |task| EventKind::PollEnd { task, result };
    let left = |reason| EventKind::Exited { reason };
    let ring = |verb| EventKind::Doorbell { verb };
    let (how, by) = (Idle::Out, Roused::Out);
    let woken = EventKind::Woken {
        task: sleeps,
        by: Cause::Task(asks),
        queued: true,
        consumed: true,
    };
    let started = EventKind::Started {
        mode: "out".into(),
        guest: None,
        processors: 2,
    };
    let kinds = [
        (0, started),
        (0, EventKind::Entered),
        (0, spawned(asks, None, "asks")),
        (0, begin(asks)),
        (0, ring(Doorbell::Start)),
        (0, left(ExitReason::Start)),
        (0, EventKind::Entered),
        (1, EventKind::Entered),
        (1, spawned(sleeps, Some(asks), "sleeps")),
        (1, begin(sleeps)),
        (1, end(sleeps)),
        (1, EventKind::Sleeps { how }),
        (1, left(ExitReason::Wait)),
        (1, EventKind::Parked),
        (0, woken),
        (0, ring(Doorbell::Nudge)),
        (0, left(ExitReason::Nudge)),
        (0, EventKind::Entered),
        (1, EventKind::Resumed),
        (1, EventKind::Entered),
        (1, EventKind::Awake { by }),
        (1, begin(sleeps)),
        (0, end(asks)),
        (1, end(sleeps)),
    ];
    let events = (0..).zip(kinds).map(|(time, (processor, kind))| {
        let event = Event::new(time, Side::Guest, kind);
        event.on(processor)
    });
    let page = page(&events.collect::<Vec<_>>());
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        let has_steps = async |poll: u64, expected: &[&str]| {
            browser.eval(&format!("wakebox.select({poll})")).await;
            let steps = texts(&browser.client, "#chain li").await;
            assert_eq!(steps.len(), expected.len(), "{steps:#?}");
            for (step, part) in steps.iter().zip(expected) {
                assert!(step.contains(part), "`{step}` has no `{part}`");
            }
        };
        // Its first poll, for which the processor was started.
        let first = [
            "asks, poll 1",
            "vCPU 0 rings: another processor is to begin",
            "vCPU 0 is left: it rang: another processor is to begin",
            "vCPU 1 is entered for the first time",
            "sleeps is spawned",
            "sleeps, poll 1, on vCPU 1: Pending",
        ];
        has_steps(1, &first).await;
        let second = [
            "asks, poll 1",
            "vCPU 1 has nothing to do, and leaves with out",
            "vCPU 1 is parked",
            "task asks wakes sleeps, on vCPU 0",
            "vCPU 0 rings: there is something for another processor",
            "vCPU 0 is left: it rang: there is something",
            "vCPU 1 goes on",
            "vCPU 1 is entered again",
            "vCPU 1 returns from out",
            "sleeps, poll 2, on vCPU 1",
        ];
        has_steps(2, &second).await;
        // Each processor has its rows, and the pointer finds what is in them.
        let tips = browser.eval(
            "wakebox.chart.lines.map((line) => wakebox.chart.top(line.executor) > wakebox.chart.top(line.boundary))",
        );
        assert_eq!(tips.await, serde_json::json!([true, true]));
        pointer_to(&browser, 2, false).await;
        let tip = text(&browser.client, "#tip").await;
        assert!(tip.contains("woken by task asks") && tip.contains("on vCPU 1"), "{tip}");
    });
}

#[test]
fn everything_can_be_reached_with_the_keyboard() {
    let page = page(&made_up::server(3, 150));
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        let client = &browser.client;
        press(client, "n").await;
        assert!(
            text(client, "#selected")
                .await
                .starts_with("main, poll 1 of ")
        );
        press(client, "j").await;
        assert!(
            text(client, "#selected")
                .await
                .starts_with("main, poll 2 of ")
        );
        press(client, "c").await;
        assert!(
            text(client, "#selected")
                .await
                .starts_with("main, poll 1 of ")
        );

        let whole = browser.eval("wakebox.chart.to - wakebox.chart.from").await;
        press(client, "+").await;
        let zoomed = browser.eval("wakebox.chart.to - wakebox.chart.from").await;
        assert!(zoomed.as_f64() < whole.as_f64(), "{zoomed} {whole}");
        let from = browser.eval("wakebox.chart.from").await;
        press(client, &char::from(Key::Right).to_string()).await;
        let panned = browser.eval("wakebox.chart.from").await;
        assert!(panned.as_f64() > from.as_f64(), "{panned} {from}");
        press(client, "0").await;
        let fitted = browser.eval("wakebox.chart.to - wakebox.chart.from").await;
        assert_eq!(fitted, whole);

        press(client, "?").await;
        assert!(
            text(client, "#legend")
                .await
                .contains("Poll that ended Pending")
        );
        press(client, "/").await;
        let find = client.active_element().await.unwrap();
        find.send_keys(&format!("connection-3{}", char::from(Key::Enter)))
            .await
            .unwrap();
        assert!(
            text(client, "#selected")
                .await
                .starts_with("connection-3, poll 1 of ")
        );
        find.send_keys(&char::from(Key::Escape).to_string())
            .await
            .unwrap();
        press(client, &char::from(Key::Escape).to_string()).await;
        assert!(texts(client, "#chain li").await.is_empty());
    });
}

#[test]
fn the_summary_has_the_numbers_of_the_run() {
    let events = made_up::server(3, 150);
    let polls = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::PollBegin { .. }));
    let row = format!("polls {}", polls.count());
    let page = page(&events);
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        let rows = texts(&browser.client, "#summary tr").await;
        assert!(rows.contains(&row), "no `{row}` in {rows:#?}");
        assert!(
            rows.contains(&"without a cause on record 0".to_owned()),
            "{rows:#?}"
        );
        let outcome = text(&browser.client, "#outcome").await;
        assert!(
            outcome.starts_with("the guest exited with status 0, after "),
            "{outcome}"
        );
    });
}

#[test]
fn a_poll_in_vain_is_told_where_it_happened() {
    let [main, other] = [TaskId(1), TaskId(2)];
    let result = PollResult::Pending { on: None, and: 0 };
    let kinds = [
        EventKind::PollBegin { task: main },
        EventKind::PollEnd { task: main, result },
        EventKind::Woken {
            task: main,
            by: Cause::Task(other),
            queued: true,
            consumed: false,
        },
        EventKind::PollBegin { task: main },
        EventKind::PollEnd { task: main, result },
    ];
    let page = page(&of_guest(kinds));
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        let rows = texts(&browser.client, "#summary tr").await;
        let row = "in vain (spurious) 1 (50.0 %)".to_owned();
        assert!(rows.contains(&row), "{rows:#?}");
        for (poll, is_in_vain) in [(0, false), (1, true)] {
            browser.eval(&format!("wakebox.select({poll})")).await;
            let selected = text(&browser.client, "#selected").await;
            assert_eq!(selected.contains(", in vain"), is_in_vain, "{selected}");
        }
    });
}

#[test]
fn points_of_time_are_told_apart_however_near_one_looks() {
    let page = page(&made_up::server(40, 20_000));
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        browser.eval("wakebox.select(2000)").await;
        let nearest = "{ const { chart } = wakebox, { begin } = chart.selected; \
                       chart.show(begin - 500, begin + 500); return chart.drawAxis(); }";
        let labels = browser.eval(&format!("(() => {nearest})()")).await;
        let labels: Vec<String> = serde_json::from_value(labels).unwrap();
        let different: HashSet<_> = labels.iter().collect();
        assert!(labels.len() > 3, "{labels:?}");
        assert_eq!(different.len(), labels.len(), "{labels:?}");
    });
}

#[test]
fn names_full_of_html_are_text() {
    let name = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";
    let task = TaskId(1);
    let kinds = [
        EventKind::Spawned {
            task,
            by: None,
            name: name.into(),
            location: Some(name.into()),
        },
        EventKind::PollBegin { task },
    ];
    let page = page(&of_guest(kinds));
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        press(&browser.client, "n").await;
        let selected = text(&browser.client, "#selected").await;
        assert!(selected.starts_with(name), "{selected}");
        pointer_to(&browser, 0, false).await;
        assert_eq!(browser.client.title().await.unwrap(), "Wakebox timeline");
        assert!(
            browser
                .client
                .find_all(Locator::Css("img"))
                .await
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn a_page_that_was_cut_off_shows_what_there_is() {
    let page = page(&made_up::server(3, 150));
    let whole = std::fs::read_to_string(&page.path).unwrap();
    let (before, data) = whole.split_once("id=\"trace\">\n").unwrap();
    let half: String = data
        .lines()
        .take(60)
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut file = File::create(&page.path).unwrap();
    write!(file, "{before}id=\"trace\">\n{half}{{\"time\":").unwrap();
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        let notice = text(&browser.client, "#notice").await;
        assert_eq!(notice, "This trace was cut off: it ends after 60 events.");
        press(&browser.client, "n").await;
        assert!(
            text(&browser.client, "#selected")
                .await
                .starts_with("main, poll 1 of ")
        );
    });
}

#[test]
fn a_page_without_events_says_so() {
    let page = page(&[]);
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        assert_eq!(
            text(&browser.client, "#notice").await,
            "There are no events in this trace."
        );
        press(&browser.client, "n+-0?").await;
    });
}

#[test]
fn a_page_of_200_000_events_lets_itself_be_used() {
    let events = made_up::server(500, 200_000);
    let page = page(&events);
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        let shown = browser.eval("wakebox.model.polls.length").await;
        let polls = events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::PollBegin { .. }));
        assert_eq!(shown.as_u64(), Some(polls.count() as u64));
        browser.eval("wakebox.select(20001)").await;
        assert!(texts(&browser.client, "#chain li").await.len() > 5);
        pointer_to(&browser, 20_001, false).await;
        assert!(
            text(&browser.client, "#tip")
                .await
                .starts_with("connection-")
        );
    });
}

#[test]
fn what_is_left_out_of_a_page_is_said() {
    let page = page_of(&made_up::server(3, 150), 100);
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&page.path).await;
        let notice = text(&browser.client, "#notice").await;
        assert!(
            notice.starts_with("The page shows the first 100 events; "),
            "{notice}"
        );
    });
}

/// A trace in a file of a directory, and what `wakebox timeline` says of it.
fn command(trace: &Path, more: &[&Path]) -> std::process::Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .arg("timeline")
        .arg(trace)
        .args(more)
        .output()
        .unwrap()
}

fn recorded(events: &[Event], path: &Path) {
    let mut writer = json::Writer::create(path).unwrap();
    for event in events {
        writer.event(event).unwrap();
    }
    writer.end().unwrap();
}

#[test]
fn the_command_makes_the_same_page_of_a_recorded_run() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, beside) = (
        folder.path().join("run.json"),
        folder.path().join("run.html"),
    );
    let events = made_up::server(3, 150);
    recorded(&events, &trace);
    let done = command(&trace, &[]);
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(
        said,
        format!("{}: {} events\n", beside.display(), events.len())
    );
    let live = std::fs::read(&page(&events).path).unwrap();
    assert!(
        std::fs::read(&beside).unwrap() == live,
        "as `--timeline` writes it"
    );
}

#[test]
fn a_page_of_a_trace_that_was_cut_off_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, out) = (
        folder.path().join("run.json"),
        folder.path().join("named.html"),
    );
    recorded(&made_up::server(3, 150), &trace);
    let bytes = std::fs::read(&trace).unwrap();
    std::fs::write(&trace, &bytes[..bytes.len() / 2]).unwrap();
    let done = command(&trace, &[&out]);
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(
        said.ends_with(" events; the trace ends before the run did\n"),
        "{said}"
    );
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&out).await;
        let notice = text(&browser.client, "#notice").await;
        assert!(
            notice.starts_with("This trace was cut off: it ends after "),
            "{notice}"
        );
        assert!(texts(&browser.client, "#summary tr").await.len() > 5);
    });
}

#[test]
fn no_page_replaces_a_trace_or_is_made_of_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("run.html");
    recorded(&made_up::server(3, 150), &trace);
    let before = std::fs::read(&trace).unwrap();
    let done = command(&trace, &[]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("that is the trace"), "{said}");
    assert_eq!(std::fs::read(&trace).unwrap(), before);

    let (other, out) = (
        folder.path().join("other.json"),
        folder.path().join("out.html"),
    );
    std::fs::write(&other, "{}").unwrap();
    let done = command(&other, &[&out]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("this is no trace of Wakebox"), "{said}");
    assert!(!out.exists());
}

#[kvm_test]
fn the_command_writes_a_page_of_a_real_run() {
    wakebox_tests::require_kvm();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.html");
    let wakebox = env!("CARGO_BIN_EXE_wakebox-cli");
    let mut command = std::process::Command::new(wakebox);
    command
        .args(["run", "--wake", "out", "--timeline"])
        .arg(&path);
    let output = command
        .arg(wakebox_tests::guest("concurrent"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        browser.open(&path).await;
        press(&browser.client, "n").await;
        let selected = text(&browser.client, "#selected").await;
        assert!(selected.starts_with("main, poll 1 of "), "{selected}");
        let rows = texts(&browser.client, "#summary tr").await;
        assert!(
            rows.contains(&"without a cause on record 0".to_owned()),
            "{rows:#?}"
        );
    });
}

/// The page of a run of `concurrent`: five tasks that each wait for a timer, the last of them half a second.
async fn page_of_concurrent(browser: &Browser) -> Page {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("timeline.html");
    let file = BufWriter::new(File::create(&path).unwrap());
    let builder = Sandbox::builder()
        .guest(wakebox_tests::guest("concurrent"))
        .wake(WakeMode::Out)
        .trace(timeline::Writer::new(file));
    wakebox_tests::run_here(builder).await.success();
    browser.open(&path).await;
    Page {
        _directory: directory,
        path,
    }
}

#[kvm_test]
fn a_long_bar_is_drawn_also_where_a_short_one_begins_in_its_pixel() {
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        let _page = page_of_concurrent(&browser).await;
        // How many of the operations' bars are as wide as a wait of 100 ms.
        let script = "(() => { const { chart } = wakebox, { pen } = chart; let wide = 0; \
            pen.fillRect = (x, y, width) => { if (width > 50) wide += 1; }; \
            chart.model.lanes.forEach((lane) => chart.bars(lane, 0, 1, () => \"red\")); \
            delete pen.fillRect; return wide; })()";
        assert_eq!(browser.eval(script).await, 5);
    });
}

#[kvm_test]
fn the_chain_of_a_timer_goes_over_the_boundary_and_is_there_on_opening() {
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        let _page = page_of_concurrent(&browser).await;
        let client = &browser.client;
        // Five tasks of one name are told apart.
        let selected = text(client, "#selected").await;
        assert!(selected.starts_with("wait #5, poll 2 of 2"), "{selected}");
        let steps = texts(client, "#chain li").await;
        let parts = [
            "sets timer",
            "submits Deadline",
            "the guest is left",
            "the host begins Deadline",
            "the sandbox is parked",
            "what Deadline #",
            "ends: Ok",
            "the completion is written",
            "the sandbox goes on",
            "the guest is entered again",
            "wakes wait #5",
        ];
        let mut at = 0;
        for part in parts {
            let found = steps[at..].iter().position(|step| step.contains(part));
            at += found.unwrap_or_else(|| panic!("no `{part}` in order in {steps:#?}"));
        }
        let times = "wakebox.chart.steps.map((step) => step.time)";
        let times: Vec<u64> = serde_json::from_value(browser.eval(times).await).unwrap();
        assert!(times.is_sorted(), "{times:?}");
    });
}

#[kvm_test]
fn idle_time_can_be_squeezed_and_everything_is_where_it_is_drawn() {
    runtime().block_on(async {
        let browser = Browser::start(1200, 800).await;
        let _page = page_of_concurrent(&browser).await;
        let client = &browser.client;
        // Which part of the width is time parked.
        let parked = "(() => { const { chart, model } = wakebox; return model.vcpus[0].parked.reduce( \
            (sum, part) => sum + chart.x(part.end) - chart.x(part.begin), 0) / (chart.width - chart.gutter); })()";
        let share = async || browser.eval(parked).await.as_f64().unwrap();
        assert!(share().await > 0.8, "five waits, half a second the longest");
        press(client, "0i").await;
        let squeeze = client.find(Locator::Id("squeeze")).await.unwrap();
        assert_eq!(squeeze.attr("aria-pressed").await.unwrap().unwrap(), "true");
        assert!(share().await < 0.6, "{}", share().await);
        // Later is further to the right, and what is drawn at a place is found there.
        let places = "wakebox.model.polls.map((poll) => wakebox.chart.x(poll.begin))";
        let places: Vec<f64> = serde_json::from_value(browser.eval(places).await).unwrap();
        assert!(places.is_sorted() && places.len() > 10, "{places:?}");
        let off = "Math.max(...wakebox.model.polls.map((poll) => \
            Math.abs(wakebox.chart.time(wakebox.chart.x(poll.begin)) - poll.begin)))";
        assert!(browser.eval(off).await.as_f64().unwrap() < 1.0);
        pointer_to(&browser, 6, true).await;
        let selected = text(client, "#selected").await;
        assert!(selected.starts_with("wait #"), "{selected}");
        // Zoomed and panned it stays within the run.
        press(client, "+++").await;
        for _ in 0..50 {
            press(client, "\u{e014}").await;
        }
        let end = browser.eval("wakebox.chart.to - wakebox.model.end").await;
        assert!(end.as_f64().unwrap().abs() < 1.0, "{end}");
        squeeze.click().await.unwrap();
        assert_eq!(browser.eval("wakebox.chart.scale").await, serde_json::Value::Null);
    });
}
