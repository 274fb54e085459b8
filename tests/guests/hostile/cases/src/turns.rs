//! Every operation at its worst, over and over: as many as there may be at once, each as large as the
//! arena. What the host does in one turn is bounded all the same, so others have theirs.

use wakebox_abi::entry::{Entry, Submission, Token};
use wakebox_abi::op::{self, Handle, Opcode, Operation, Value};
use wakebox_abi::status::Status;

use crate::case::{Args, Case, End, Modes};
use crate::entries;
use crate::guest::Guest;
use crate::machine;

fn at_its_worst(guest: &mut Guest, [row, ..]: Args) {
    let (mut words, ends) = entries::worst(guest, row as usize);
    let opcode = Opcode::from_code(words[0] as u16);
    let opens = opcode.is_some_and(|opcode| opcode.value() == Value::Handle);
    let all = guest.boot.completions;
    let none = Token::from_word(0);
    loop {
        let first = guest.token(0);
        for slot in 1..=all {
            let token = guest.token(slot % all);
            words[1] = token.to_word();
            guest.publish_quietly(words);
        }
        for slot in 1..=all {
            if !ends {
                let target = Token {
                    slot: slot % all,
                    generation: first.generation + slot,
                };
                let cancel: Submission = op::Cancel { target }.submission(none);
                guest.publish_quietly(cancel.to_words());
            }
        }
        guest.ring_if_needed();
        let mut opened = [const { None }; machine::HANDLES as usize];
        for _ in 0..all {
            let completion = guest.wait();
            if opens && completion.status == Status::Ok {
                let place = opened.iter_mut().find(|place| place.is_none());
                *place.expect("no more can be open") = Some(Handle(completion.value));
            }
        }
        for handle in opened.into_iter().flatten() {
            assert_eq!(guest.call(op::Close { handle }).0, Status::Ok);
        }
    }
}

/// Cancellations have no completion to wait for.
fn cancellations(guest: &mut Guest, _: Args) {
    let target = Token::from_word(u64::MAX);
    let cancel = op::Cancel { target }.submission(Token::from_word(0));
    loop {
        guest.publish_quietly(cancel.to_words());
    }
}

pub(crate) fn cases(visit: &mut dyn FnMut(Case)) {
    let case = |name, act| Case::new("turns", name, act, End::WallClock).modes(Modes::All);
    for opcode in Opcode::ALL {
        let name = opcode.name();
        match entries::row_of(*opcode) {
            Some(row) => visit(case(name, at_its_worst).with([row as u64, 0, 0, 0])),
            None if *opcode == Opcode::Cancel => visit(case(name, cancellations)),
            None => unreachable!("{name} has a row among the entries"),
        }
    }
}
