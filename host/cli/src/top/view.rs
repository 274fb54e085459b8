//! Draws it.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table, Wrap};

use super::board::{Board, Row, State};
use wakebox::printable_line;
use wakebox::trace::{Awaited, Cause, Summary, TaskId};
use wakebox::units;

/// How often a second, over about the last second; and what time it is when no event says so.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// Events by the last picture, and for how long there have been no others.
    events: u64,
    quiet: Duration,
    /// Times of the wall clock, with the exits and polls until then.
    past: VecDeque<(Duration, u64, u64)>,
    pub(super) exits: f64,
    pub(super) polls: f64,
}

impl Rates {
    const OVER: Duration = Duration::from_secs(1);

    pub(super) fn update(&mut self, now: Duration, board: &Board) {
        let since = self.past.back().map_or(Duration::ZERO, |last| now - last.0);
        let is_quiet = self.events == board.summary.events && board.summary.outcome.is_none();
        self.quiet = if is_quiet {
            self.quiet + since
        } else {
            Duration::ZERO
        };
        self.events = board.summary.events;
        let (exits, polls) = (board.summary.exits(), board.summary.polls);
        self.past.push_back((now, exits, polls));
        while self
            .past
            .get(1)
            .is_some_and(|past| now - past.0 >= Self::OVER)
        {
            self.past.pop_front();
        }
        let Some((then, exits_then, polls_then)) = self.past.front() else {
            return;
        };
        let passed = (now - *then).as_secs_f64();
        if passed > 0.0 {
            self.exits = (exits - exits_then) as f64 / passed;
            self.polls = (polls - polls_then) as f64 / passed;
        }
    }
}

impl Rates {
    /// Nanoseconds since the sandbox was made.
    fn now(&self, board: &Board) -> u64 {
        board.summary.end + self.quiet.as_nanos() as u64
    }
}

/// By what tasks are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Number,
    Busy,
    Polls,
}

impl Sort {
    fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::Busy => "busy",
            Self::Polls => "polls",
        }
    }
}

/// What whoever looks has chosen.
#[derive(Debug, Default)]
pub(super) struct View {
    first: usize,
    sort: Sort,
}

impl View {
    pub(super) fn scroll(&mut self, by: isize) {
        self.first = self.first.saturating_add_signed(by);
    }

    pub(super) fn sort_otherwise(&mut self) {
        self.sort = match self.sort {
            Sort::Number => Sort::Busy,
            Sort::Busy => Sort::Polls,
            Sort::Polls => Sort::Number,
        };
    }

    pub(super) fn draw(
        &mut self,
        frame: &mut Frame<'_>,
        board: &Board,
        rates: &Rates,
        said: &[String],
    ) {
        let area = frame.area();
        let head = Paragraph::new(head(board, rates)).wrap(Wrap { trim: true });
        let head_lines = if area.width < 72 { 5 } else { 3 };
        let processors = board.summary.processors.len().min(MOST_PROCESSORS) as u16;
        let said_lines = (area.height / 4).clamp(1, 10);
        let [top, middle, bottom, foot] = Layout::vertical([
            Constraint::Length(head_lines + processors),
            Constraint::Min(2),
            Constraint::Length(said_lines + 1),
            Constraint::Length(1),
        ])
        .areas(area);
        frame.render_widget(head, top);
        self.draw_tasks(frame, middle, board, rates.now(board));
        draw_said(frame, bottom, said);
        let keys = format!(" q quit  s sort ({})  arrows scroll", self.sort.name());
        frame.render_widget(Line::styled(keys, faint()), foot);
    }

    fn draw_tasks(&mut self, frame: &mut Frame<'_>, area: Rect, board: &Board, now: u64) {
        let mut tasks: Vec<_> = board.tasks.iter().collect();
        let numbers = |task: TaskId| {
            let counted = board.summary.tasks.get(&task);
            counted.map_or((0, 0), |counted| (counted.busy, counted.polls))
        };
        // Those that live come first.
        tasks.sort_unstable_by_key(|(task, row)| {
            let by = match self.sort {
                Sort::Number => 0,
                Sort::Busy => numbers(*task).0,
                Sort::Polls => numbers(*task).1,
            };
            (row.state == State::Ended, Reverse(by), *task)
        });
        let room = usize::from(area.height.saturating_sub(1));
        self.first = self.first.min(tasks.len().saturating_sub(room));
        let columns = columns(area.width, board.several());
        let rows = tasks.iter().skip(self.first).take(room).map(|(task, row)| {
            let cells = columns
                .iter()
                .map(|column| Cell::from(column.text(*task, row, board, now)));
            TableRow::new(cells).style(style(row.state))
        });
        let table = Table::new(rows, columns.iter().map(|column| column.width()))
            .header(
                TableRow::new(columns.iter().map(|column| column.title()))
                    .style(Style::new().add_modifier(Modifier::BOLD)),
            )
            .column_spacing(1);
        frame.render_widget(table, area);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Number,
    Name,
    Processor,
    State,
    Polls,
    Busy,
    Idle,
    WokenBy,
    WaitsFor,
}

/// Those for which there is room, of a guest with one processor or with several.
fn columns(width: u16, several: bool) -> Vec<Column> {
    use Column::*;
    // From which width on each is shown.
    let all = [
        (Number, 56),
        (Name, 0),
        (Processor, if several { 40 } else { u16::MAX }),
        (State, 0),
        (Polls, 30),
        (Busy, 0),
        (Idle, 50),
        (WokenBy, 72),
        (WaitsFor, 90),
    ];
    let shown = all.iter().filter(|(_, least)| width >= *least);
    shown.map(|(column, _)| *column).collect()
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Self::Number => "#",
            Self::Name => "task",
            Self::Processor => "vCPU",
            Self::State => "state",
            Self::Polls => "polls",
            Self::Busy => "busy",
            Self::Idle => "idle",
            Self::WokenBy => "woken by",
            Self::WaitsFor => "waits for",
        }
    }

    fn width(self) -> Constraint {
        match self {
            Self::Number => Constraint::Length(5),
            Self::Name => Constraint::Min(8),
            Self::Processor => Constraint::Length(4),
            Self::State => Constraint::Length(6),
            Self::Polls => Constraint::Length(9),
            Self::Busy | Self::Idle => Constraint::Length(8),
            Self::WokenBy | Self::WaitsFor => Constraint::Length(16),
        }
    }

    fn text(self, task: TaskId, row: &Row, board: &Board, now: u64) -> String {
        let counted = board.summary.tasks.get(&task);
        match self {
            Self::Number => task.0.to_string(),
            Self::Name => name(task, board),
            Self::Processor => row.processor.to_string(),
            Self::State => row.state.name().into(),
            Self::Polls => units::count(counted.map_or(0, |counted| counted.polls)),
            Self::Busy => duration(counted.map_or(0, |counted| counted.busy)),
            Self::Idle => duration(row.idle_at(now)),
            Self::WokenBy => row.woken_by.map_or(String::new(), |by| cause(by, board)),
            Self::WaitsFor if row.state == State::Waits => match row.on {
                Some(Awaited::Op(op)) => format!("op {op}"),
                Some(Awaited::HostCall(_)) => "a call".into(),
                Some(Awaited::Timer(timer)) => timer.to_string(),
                Some(Awaited::Task(task)) => name(task, board),
                Some(Awaited::Slot) => "a free slot".into(),
                Some(Awaited::Restored) => "a restore".into(),
                _ => "its own".into(),
            },
            Self::WaitsFor => String::new(),
        }
    }
}

/// The name of a task, as it may appear on a terminal.
fn name(task: TaskId, board: &Board) -> String {
    match board.summary.tasks.get(&task) {
        Some(known) if !known.name.is_empty() => printable_line(&known.name),
        _ => task.to_string(),
    }
}

fn cause(cause: Cause, board: &Board) -> String {
    match cause {
        Cause::Itself => "itself".into(),
        Cause::Task(task) => name(task, board),
        Cause::Op(op) => format!("op {op}"),
        Cause::HostCall(_) => "a call".into(),
        Cause::Timer(timer) => timer.to_string(),
        Cause::Interrupt => "an interrupt".into(),
        Cause::Elsewhere => "a thread".into(),
        Cause::Restored => "the restore".into(),
        _ => "the runtime".into(),
    }
}

fn head(board: &Board, rates: &Rates) -> Vec<Line<'static>> {
    let summary = &board.summary;
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let guest = board
        .guest
        .as_deref()
        .map_or("a guest", |path| path.rsplit('/').next().unwrap_or(path));
    let state = match &summary.outcome {
        Some(outcome) => Span::styled(printable_line(outcome), strong),
        None if board.is_parked() => Span::raw("parked"),
        None => Span::raw("running"),
    };
    let live = board.tasks.iter();
    let live = live.filter(|(_, row)| row.state != State::Ended);
    let mut lines = vec![
        Line::from(vec![
            Span::styled(printable_line(guest), strong),
            Span::raw(format!(
                "  mode {}  {}  ",
                board.mode,
                duration(rates.now(board))
            )),
            state,
        ]),
        Line::raw(format!(
            "tasks {}, ended {}  ops in flight {}  wakes {}, in vain {}",
            live.count(),
            units::count(board.ended),
            board.in_flight(),
            units::count(summary.wakes),
            units::count(summary.spurious),
        )),
        Line::raw(format!(
            "exits {} ({}/s)  polls {} ({}/s)",
            units::count(summary.exits()),
            rate(rates.exits),
            units::count(summary.polls),
            rate(rates.polls),
        )),
    ];
    if board.tasks.left_out() > 0 {
        let left_out = units::count(board.tasks.left_out());
        lines[1].push_span(format!("  {left_out} further tasks are not shown"));
    }
    lines.extend(processors(summary));
    if summary.lost > 0 {
        lines[2].push_span(format!("  lost {}", units::count(summary.lost)));
    }
    lines
}

/// Most processors of which each has a line.
const MOST_PROCESSORS: usize = 8;

/// A line for each processor, if there are several.
fn processors(summary: &Summary) -> impl Iterator<Item = Line<'static>> {
    let shown = summary.processors.iter().take(MOST_PROCESSORS).enumerate();
    shown.map(|(number, one)| {
        let state = match one {
            one if !one.begun => "not started",
            one if one.parked => "parked",
            _ => "running",
        };
        Line::raw(format!(
            "vCPU {number}  {state}  exits {}  polls {}  in polls {}, watching {}",
            units::count(one.exits),
            units::count(one.polls),
            duration(one.time.polls),
            duration(one.time.watching),
        ))
    })
}

fn rate(rate: f64) -> String {
    units::count(rate.round() as u64)
}

fn draw_said(frame: &mut Frame<'_>, area: Rect, said: &[String]) {
    let block = Block::new()
        .borders(Borders::TOP)
        .border_style(faint())
        .title("the guest's output");
    let room = usize::from(block.inner(area).height);
    let last = said.iter().skip(said.len().saturating_sub(room));
    let lines: Vec<_> = last.map(|line| Line::raw(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn style(state: State) -> Style {
    match state {
        State::Polled => Style::new().fg(Color::Green),
        State::Ready => Style::new().fg(Color::Yellow),
        State::Waits => Style::new(),
        State::Ended => faint(),
    }
}

fn duration(nanos: u64) -> String {
    units::duration(Duration::from_nanos(nanos))
}
