//! Registers and what was in flight, as bytes.

use std::collections::HashSet;

use wakebox_abi::entry::{Entry as _, Submission};
use wakebox_abi::op::Request;
use wakebox_abi::window;
use wakebox_vmm::x86_64::registers::Registers;
use wakebox_vmm::x86_64::user::{LEGACY, UserState};

use super::fields::{Bytes, Fields};
use super::header::{PROCESSOR, WINDOWS_PART};
use crate::driver::Stood;
use crate::error::TemplateFileError as E;
use crate::names::Names;
use crate::template::DriverStand;

/// Most bytes of a processor's state: more than XSAVE writes.
pub(super) const MOST_OF_PROCESSOR: u64 = 16 << 10;
/// Handles have so many indices (`ops/handles.rs`).
const MOST_HANDLES: usize = 1 << 20;
/// A guest has made fewer calls than this, however long it ran.
const MOST_CALLS: u64 = 1 << 60;

/// Most bytes of what was in flight of so many processors, each with so many slots.
pub(super) fn most_of_driver(processors: u32, slots: u32) -> u64 {
    let counts = 64;
    let handles = MOST_HANDLES as u64 * 4;
    let of_each = u64::from(slots) * Submission::SIZE as u64 + 8;
    counts + handles + u64::from(processors) * of_each
}

/// The general registers, in the order in which they are stored.
fn registers(of: &mut Registers) -> [&mut u64; 18] {
    [
        &mut of.rip,
        &mut of.rsp,
        &mut of.rflags,
        &mut of.rax,
        &mut of.rbx,
        &mut of.rcx,
        &mut of.rdx,
        &mut of.rsi,
        &mut of.rdi,
        &mut of.rbp,
        &mut of.r8,
        &mut of.r9,
        &mut of.r10,
        &mut of.r11,
        &mut of.r12,
        &mut of.r13,
        &mut of.r14,
        &mut of.r15,
    ]
}

/// The states of the processors that have begun, one after the other. Each is the general registers, x87 and SSE,
/// then each further part with its number and its length.
pub(super) fn write_processors(states: &[Option<UserState>]) -> Vec<u8> {
    let mut to = Bytes::default();
    let begun = states.iter().flatten();
    begun.for_each(|state| write_processor(&mut to, state));
    to.0
}

fn write_processor(to: &mut Bytes, state: &UserState) {
    let mut general = state.registers;
    for register in registers(&mut general) {
        to.u64(*register);
    }
    to.bytes(&state.legacy[..]);
    to.count(state.extended.len());
    for (number, bytes) in &state.extended {
        to.u32(*number);
        to.count(bytes.len());
        to.bytes(bytes);
    }
}

/// The same, of as many as `begun` says of which it says that they have begun.
pub(super) fn read_processors(
    bytes: &[u8],
    begun: impl Iterator<Item = bool>,
) -> Result<Vec<Option<UserState>>, E> {
    let mut fields = Fields::new(PROCESSOR, bytes);
    let states = begun
        .map(|has_begun| has_begun.then(|| read_processor(&mut fields)).transpose())
        .collect::<Result<_, E>>()?;
    fields.end()?;
    Ok(states)
}

fn read_processor(fields: &mut Fields<'_>) -> Result<UserState, E> {
    let mut general = Registers::default();
    for register in registers(&mut general) {
        *register = fields.u64()?;
    }
    let legacy = Box::new(fields.array::<LEGACY>()?);
    let count = fields.count(8)?;
    let mut extended: Vec<(u32, Vec<u8>)> = Vec::with_capacity(count);
    for _ in 0..count {
        let number = fields.u32()?;
        if extended.last().is_some_and(|(last, _)| *last >= number) {
            return Err(fields.damaged("has a part twice"));
        }
        let len = fields.count(1)?;
        extended.push((number, fields.bytes(len)?.to_vec()));
    }
    Ok(UserState {
        registers: general,
        legacy,
        extended,
    })
}

/// Where the host's side stood: the indices of the first processor's rings, the number of the next call, entries as
/// they lie in the submission rings, how often each handle has been used, and the indices of the other rings. The slot of
/// an entry has the number of its ring in its lower bits.
pub(super) fn write_driver(stand: &DriverStand) -> Vec<u8> {
    let mut to = Bytes::default();
    let first = stand.rings.first().copied().unwrap_or_default();
    let others = stand.rings.get(1..).unwrap_or_default();
    to.u32(first.taken);
    to.u32(first.published);
    // How many trace records had been taken, which the control page says.
    to.u32(0);
    to.u64(stand.next_call);
    to.count(stand.in_flight.len());
    for (token, request) in &stand.in_flight {
        for word in request.submission(*token).to_words() {
            to.u64(word);
        }
    }
    to.count(stand.handles.len());
    for uses in &stand.handles {
        to.u32(*uses);
    }
    for other in others {
        to.u32(other.taken);
        to.u32(other.published);
    }
    to.0
}

fn read_ring(fields: &mut Fields<'_>) -> Result<Stood, E> {
    Ok(Stood {
        taken: fields.u32()?,
        published: fields.u32()?,
    })
}

/// The same, of a guest with so many processors, each with so many slots.
pub(super) fn read_driver(bytes: &[u8], processors: u32, slots: u32) -> Result<DriverStand, E> {
    let mut fields = Fields::new("what was in flight", bytes);
    let mut rings = vec![read_ring(&mut fields)?];
    let _ = fields.u32()?;
    let next_call = fields.u64()?;
    if next_call > MOST_CALLS {
        return Err(fields.damaged("counts more calls than were ever made"));
    }
    let count = fields.count(Submission::SIZE)?;
    if count > processors as usize * slots as usize {
        return Err(fields.damaged("is more than may be in flight"));
    }
    let mut in_flight = Vec::with_capacity(count);
    let mut taken = HashSet::new();
    let names = Names::of(processors);
    for _ in 0..count {
        let mut words = [0; Submission::WORDS];
        for word in &mut words {
            *word = fields.u64()?;
        }
        let submission = Submission::from_words(words);
        let token = submission.token;
        let request = Request::decode(&submission)
            .map_err(|_| fields.damaged("has an operation that there is not"))?;
        if request.submission(token).to_words() != words {
            return Err(fields.damaged("has an operation with more than it has"));
        }
        let (ring, in_ring) = names.in_ring(token);
        if ring >= processors || in_ring.slot >= slots {
            return Err(fields.damaged("has an operation in a slot that there is not"));
        }
        if !taken.insert(token.slot) {
            return Err(fields.damaged("has two operations in one slot"));
        }
        in_flight.push((token, request));
    }
    let count = fields.count(4)?;
    if count > MOST_HANDLES {
        return Err(fields.damaged("has more handles than there can be"));
    }
    let handles = (0..count).map(|_| fields.u32()).collect::<Result<_, _>>()?;
    for _ in 1..processors {
        rings.push(read_ring(&mut fields)?);
    }
    fields.end()?;
    Ok(DriverStand {
        rings,
        in_flight,
        handles,
        next_call,
    })
}

/// Bytes of a run of pages in a window.
const RUN: usize = 12;

/// Most bytes of what lies in windows whose tables take so many.
pub(super) fn most_of_windows(tables: u64) -> u64 {
    4 + tables / 8 * RUN as u64
}

/// What lies in windows: runs of pages, each with its first page, the first of the heap that lies there, and how many.
pub(super) fn write_windows(shown: &[window::Request]) -> Vec<u8> {
    let mut to = Bytes::default();
    to.count(shown.len());
    for run in shown {
        to.u32(run.page);
        to.u32(run.from);
        to.u32(run.count);
    }
    to.0
}

/// The same. Whether that can be is another matter.
pub(super) fn read_windows(bytes: &[u8]) -> Result<Vec<window::Request>, E> {
    let mut fields = Fields::new(WINDOWS_PART, bytes);
    let count = fields.count(RUN)?;
    let run = |_| {
        Ok(window::Request {
            page: fields.u32()?,
            from: fields.u32()?,
            count: fields.u32()?,
        })
    };
    let shown = (0..count).map(run).collect::<Result<_, E>>()?;
    fields.end()?;
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use wakebox_abi::entry::Token;
    use wakebox_abi::op::{Handle, Nop, ReadStream};

    use super::*;

    fn stood(taken: u32, published: u32) -> Stood {
        Stood { taken, published }
    }

    #[test]
    fn what_was_in_flight_is_read_as_it_was_written() {
        let token = |slot| Token {
            slot,
            generation: 7,
        };
        let buf = wakebox_abi::op::Buf { offset: 1, len: 2 };
        let stand = DriverStand {
            rings: vec![stood(1, u32::MAX)],
            in_flight: vec![
                (token(63), Request::Nop(Nop {})),
                (
                    token(0),
                    Request::ReadStream(ReadStream {
                        stream: Handle(9),
                        into: buf,
                    }),
                ),
            ],
            handles: vec![0, 4, u32::MAX],
            next_call: 1 << 40,
        };
        let bytes = write_driver(&stand);
        assert!(bytes.len() as u64 <= most_of_driver(1, 64));
        assert_eq!(read_driver(&bytes, 1, 64).unwrap(), stand);
        for len in 0..bytes.len() {
            read_driver(&bytes[..len], 1, 64).unwrap_err();
        }
        for (slots, why) in [
            (63, "in a slot that there is not"),
            (1, "more than may be in flight"),
        ] {
            let error = read_driver(&bytes, 1, slots).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        // Of three processors, the slots of 21 each are called by as many names and a third more.
        let stand = DriverStand {
            rings: vec![stood(1, 2), stood(3, 4), stood(5, 6)],
            in_flight: vec![(token(20 << 2 | 2), Request::Nop(Nop {}))],
            ..stand
        };
        let bytes = write_driver(&stand);
        assert_eq!(read_driver(&bytes, 3, 21).unwrap(), stand);
        for len in 0..bytes.len() {
            read_driver(&bytes[..len], 3, 21).unwrap_err();
        }
        for (processors, slots) in [(3, 20), (2, 21), (4, 21), (1, 21)] {
            read_driver(&bytes, processors, slots).unwrap_err();
        }
        let stand = DriverStand {
            in_flight: vec![(token(3), Request::Nop(Nop {}))],
            ..stand
        };
        let error = read_driver(&write_driver(&stand), 3, 21).unwrap_err();
        assert!(
            error.to_string().contains("in a slot that there is not"),
            "{error}"
        );
    }

    #[test]
    fn an_operation_that_cannot_be_in_flight_is_refused_by_name() {
        let entry = |words: [u64; 8]| {
            let mut bytes = write_driver(&DriverStand::default());
            bytes.truncate(20);
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend([0; 4]);
            read_driver(&bytes, 1, 64)
        };
        let token = Token {
            slot: 1,
            generation: 2,
        };
        let good = Request::Nop(Nop {}).submission(token).to_words();
        entry(good).unwrap();
        let with = |index: usize, word| {
            let mut words = good;
            words[index] = word;
            entry(words).unwrap_err().to_string()
        };
        assert!(with(0, 0xffff).contains("that there is not"));
        assert!(with(0, good[0] | 1 << 40).contains("that there is not"));
        assert!(with(7, 1).contains("more than it has"));
    }

    #[test]
    fn a_processors_state_is_read_as_it_was_written() {
        let mut state = UserState {
            registers: Registers::default(),
            legacy: Box::new(std::array::from_fn(|index| index as u8)),
            extended: vec![(2, vec![1; 256]), (7, vec![])],
        };
        for (index, register) in registers(&mut state.registers).into_iter().enumerate() {
            *register = index as u64 + 1;
        }
        let states = [Some(state.clone()), None, Some(state.clone())];
        let begun = || [true, false, true].into_iter();
        let bytes = write_processors(&states);
        assert!(bytes.len() as u64 <= 2 * MOST_OF_PROCESSOR);
        assert_eq!(read_processors(&bytes, begun()).unwrap(), states);
        for len in 0..bytes.len() {
            read_processors(&bytes[..len], begun()).unwrap_err();
        }
        for others in [[true, true, true], [true, false, false]] {
            read_processors(&bytes, others.into_iter()).unwrap_err();
        }
        state.extended[1].0 = 2;
        read_processors(&write_processors(&[Some(state)]), begun().take(1)).unwrap_err();
    }
}
