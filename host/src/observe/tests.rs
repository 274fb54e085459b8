//! What several processors tell becomes one story.

use wakebox_abi::entry::Token;
use wakebox_abi::op::Opcode;
use wakebox_abi::trace::{Reason, Record, Text, What};

use super::assembler::Assembler;
use super::clock::TraceClock;
use super::recorder::{Batch, HostEvent};
use crate::trace::{Awaited, Event, EventKind, OpId, PollResult, Side, TaskId, TimerId};

/// What a batch becomes, told up to a moment: of each processor, records and their times.
fn assembled(
    assembler: &mut Assembler,
    horizon: u64,
    host: &[(u64, HostEvent)],
    told: [&[(u64, What)]; 2],
) -> Vec<Event> {
    let mut batch = Batch::new(2);
    batch.horizon = horizon;
    batch.host.extend_from_slice(host);
    for (into, records) in batch.guest.iter_mut().zip(told) {
        let records = records.iter().map(|(at, what)| Record::new(*at, *what));
        into.records.extend(records);
    }
    let mut events = Vec::new();
    assembler.assemble(batch, &mut |event| events.push(event));
    events
}

fn assembler() -> Assembler {
    Assembler::new(TraceClock::of_nanoseconds(), 2, 64)
}

fn begin(task: u32) -> What {
    What::PollBegin { task }
}

#[test]
fn what_processors_tell_is_in_one_order_up_to_where_one_may_still_tell_more() {
    let mut assembler = assembler();
    let brief = |events: Vec<Event>| -> Vec<_> {
        let brief = |event: Event| (event.time, event.processor, event.kind.name());
        events.into_iter().map(brief).collect()
    };
    let host = [(2, HostEvent::Entered(1)), (25, HostEvent::Parked(0))];
    let first = [(5, begin(1)), (30, begin(2))];
    let second = [(3, begin(3)), (20, begin(4)), (40, begin(5))];
    // The first was entered at 20, and has told nothing since.
    let events = assembled(&mut assembler, 20, &host, [&first, &second]);
    let poll = "poll_begin";
    let early = [(2, 1, "entered"), (3, 1, poll), (5, 0, poll), (20, 1, poll)];
    assert_eq!(brief(events), early);
    assert_eq!(assembler.held(), 3);
    let events = assembled(&mut assembler, 50, &[], [&[(35, begin(6))], &[]]);
    let late = [
        (25, 0, "parked"),
        (30, 0, poll),
        (35, 0, poll),
        (40, 1, poll),
    ];
    assert_eq!(brief(events), late);
    assert_eq!(assembler.held(), 0);
}

#[test]
fn operations_and_timers_that_processors_call_alike_are_told_apart() {
    let mut assembler = assembler();
    let (slot, generation) = (3, 7);
    let token = Token { slot, generation };
    let opcode = Opcode::Nop as u16;
    let submitted = What::Submitted {
        token,
        opcode,
        bytes: 0,
        by: 1,
    };
    let set = What::TimerSet {
        timer: 9,
        at_ns: 0,
        by: 1,
    };
    let waits = What::PollEnd {
        task: 1,
        ready: false,
        on: Some(Reason::Operation(token)),
        more: 0,
    };
    let told = [(1, submitted), (2, set), (3, waits)];
    // The driver calls that of the second so.
    let named = Token {
        slot: slot << 1 | 1,
        generation,
    };
    let bytes = 0;
    let begins = HostEvent::Begins {
        token: named,
        opcode,
        bytes,
    };
    let ready = HostEvent::Ready { slot: named.slot };
    let events = assembled(
        &mut assembler,
        9,
        &[(5, begins), (6, ready)],
        [&told, &told],
    );
    let of = |processor| {
        events
            .iter()
            .filter(move |event| event.processor == processor)
    };
    let ops = |processor| -> Vec<_> { of(processor).filter_map(|event| event.kind.op()).collect() };
    assert_eq!(ops(0), [OpId(1)]);
    assert_eq!(ops(1), [OpId(2); 3]);
    let timers: Vec<_> = events
        .iter()
        .filter_map(|event| match event.kind {
            EventKind::TimerSet { timer, .. } => Some(timer),
            _ => None,
        })
        .collect();
    assert_eq!(timers, [TimerId(18), TimerId(19)]);
    let on = Some(Awaited::Op(OpId(2)));
    let result = PollResult::Pending { on, and: 0 };
    let task = TaskId(1);
    assert!(of(1).any(|event| event.kind == EventKind::PollEnd { task, result }));
}

#[test]
fn a_slot_that_is_none_takes_no_memory_and_names_nothing() {
    let mut assembler = assembler();
    let told = [64, 1 << 30, u32::MAX].map(|slot| {
        let token = Token {
            slot,
            generation: 0,
        };
        (1, What::CancelAsked { token, by: 1 })
    });
    let events = assembled(&mut assembler, 9, &[], [&told, &told]);
    assert_eq!(events.len(), 6);
    for event in events {
        assert_eq!(event.kind.op(), Some(OpId::UNKNOWN));
    }
}

#[test]
fn a_name_is_that_of_the_task_whose_processor_has_told_it() {
    let mut assembler = assembler();
    let part = |text: &[u8]| {
        let mut bytes = [0; 16];
        bytes[..text.len()].copy_from_slice(text);
        let (len, text) = (text.len() as u8, Text::Name);
        What::Text { text, bytes, len }
    };
    let made = |task| What::Spawned { task, by: 0 };
    let events = assembled(
        &mut assembler,
        9,
        &[],
        [
            &[(1, part(b"one")), (4, made(1))],
            &[(2, part(b"two")), (3, made(2))],
        ],
    );
    let names: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Spawned { name, .. } => Some((event.side, event.processor, name.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(names, [(Side::Guest, 1, "two"), (Side::Guest, 0, "one")]);
}
