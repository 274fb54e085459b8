//! What stands in an entry, whatever stands there.

use wakebox_abi::boot::Moment;
use wakebox_abi::entry::{Completion, Entry, Submission, Token};
use wakebox_abi::layout;
use wakebox_abi::op::{Buf, Opcode, Request};
use wakebox_abi::status::Status;
use wakebox_abi::trace::Record;

use super::run;
use crate::any::Any;

/// Parameter words that are the limits of some type or other.
pub const TELLING_PARAMS: [u64; 8] = [0, 1, 2, 3, u32::MAX as u64, 1 << 32, 1 << 32 | 1, u64::MAX];

/// Any eight words of which the first is likely to name an operation.
pub fn words<A: Any>(any: &mut A) -> [u64; Submission::WORDS] {
    let last = Opcode::ALL.len() as u64 + 16;
    let head = any.u64(&[0, 1, 2, 12, 22, 23, 24, 40, 45, 46, last, 1 << 16]);
    let mut words = [head, any.u64(&[0, 1 << 32]), 0, 0, 0, 0, 0, 0];
    for word in &mut words[2..5] {
        *word = any.u64(&TELLING_PARAMS);
    }
    for word in &mut words[5..] {
        *word = any.u64(&[0]);
    }
    words
}

/// Any entry is an operation or has a status, and an operation is what its entry said.
pub fn an_entry_is_a_request_or_a_status<A: Any>(any: &mut A) {
    let words = words(any);
    let submission = Submission::from_words(words);
    if words[0] < 1 << 17 {
        assert_eq!(submission.to_words(), words);
    }
    match Request::decode(&submission) {
        Ok(request) => {
            let again = request.submission(submission.token);
            assert_eq!(again.opcode, submission.opcode);
            assert_eq!(again.token, submission.token);
            assert_eq!(Request::decode(&again), Ok(request));
        }
        Err(status) => assert!(matches!(status, Status::Unsupported | Status::InvalidInput)),
    }
}

/// Any two words are a completion, which a guest reads.
pub fn any_words_are_a_completion<A: Any>(any: &mut A) {
    let words = [0; 2].map(|_: u64| any.u64(&TELLING_PARAMS));
    let completion = Completion::from_words(words);
    assert_eq!(completion.token.to_word(), words[0]);
    assert_eq!(u64::from(completion.value), words[1] >> 32);
    assert_eq!(Token::from_word(words[0]), completion.token);
}

/// A buffer that lies in the arena stays there, whichever part of it is taken.
pub fn no_part_of_a_buffer_leaves_the_arena<A: Any>(any: &mut A) {
    let most = layout::ARENA_MAX as u32;
    let arena = any.u32(&[1, 4096, most - 1, most]).min(most);
    let near = [
        0,
        1,
        24,
        arena - u32::from(arena > 0),
        arena,
        arena + 1,
        most,
        1 << 31,
        u32::MAX,
    ];
    let buf = Buf {
        offset: any.u32(&near),
        len: any.u32(&near),
    };
    let inside = |buf: Buf| {
        let end = buf.offset.checked_add(buf.len);
        end.is_some_and(|end| end <= arena)
    };
    assert_eq!(buf.lies_in(arena.into()), inside(buf));
    if !inside(buf) {
        return;
    }
    let count = any.u64(&[0, 1, 24, u64::from(arena), 1 << 32, u64::MAX]) as usize;
    let (first, rest) = (buf.at_most(count), buf.behind(count));
    assert!(inside(first) && inside(rest));
    assert!(first.offset == buf.offset && first.len as usize <= count);
    assert_eq!(rest.offset + rest.len, buf.offset + buf.len);
    assert_eq!(first.len + rest.len, buf.len);
}

/// The clock of any page gives a time.
pub fn any_moment_has_a_time<A: Any>(any: &mut A) {
    let moment = Moment {
        shift: any.u32(&[0, 32, 63, 64, u32::MAX]),
        tsc: any.u64(&[0, 1, 1 << 63, u64::MAX]),
        monotonic_ns: 0,
        wall_ns: 0,
        multiplier: any.u64(&[0, 1, 1 << 31, u64::MAX]),
    };
    let tsc = any.u64(&[0, 1, (1 << 63) - 1, 1 << 63, u64::MAX]);
    let elapsed = moment.elapsed_ns(tsc);
    assert!(tsc != moment.tsc || elapsed == 0);
}

/// Any trace record says something or has no meaning, and what it says can be written again.
pub fn a_trace_record_is_read_or_unknown<A: Any>(any: &mut A) {
    let kind = any.u8(&[0, 1, 2, 4, 6, 9, 10, 13, 14, 16, 17, 0xFF]);
    let detail = any.u8(&[0, 1, 3, 4, 5, 7, 8, 0x7F, 0x80, 0x88, 0xFF]);
    let more = any.u32(&[0, 1, 16, 17, 0xFFFF]) & 0xFFFF;
    let task = any.u32(&[0, 1, u32::MAX]);
    let head =
        u64::from(kind) | u64::from(detail) << 8 | u64::from(more) << 16 | u64::from(task) << 32;
    let ticks = any.u64(&[0, u64::MAX]);
    let [first, second] = [(); 2].map(|()| any.u64(&[0, 1 << 32, u64::MAX]));
    let record = Record([ticks, head, first, second]);
    assert_eq!(record.ticks(), ticks);
    if let Ok(what) = record.what() {
        assert_eq!(Record::new(ticks, what).what(), Ok(what));
    }
}

run! {
    an_entry_is_a_request_or_a_status,
    any_words_are_a_completion,
    no_part_of_a_buffer_leaves_the_arena,
    any_moment_has_a_time,
    a_trace_record_is_read_or_unknown,
}
