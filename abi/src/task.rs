//! What a guest keeps of each of its tasks where the host finds it, so that whoever waits for a guest
//! learns what that waits for. Nobody writes for it: it is read of a guest that stands still.
//!
//! [`Word::Tasks`](crate::memory::Word::Tasks) and `TasksHigh` hold the address of a word with the address
//! of the oldest task's entry; each entry has that of the next. Where a processor has tasks in more than one list (those
//! that any processor may run, urgent ones), [`Word::MoreTasks`](crate::memory::Word::MoreTasks) and `MoreTasksHigh`
//! hold the address of a [`List`]. All of it is the guest's own statement.

/// Tasks that are found by themselves, and not from those that the processor's executor has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct List {
    /// Address of the oldest task's [`Entry`]; zero if there is none.
    pub oldest: u64,
    /// Address of another list; zero if there is none.
    pub next: u64,
}

/// Most [`List`]s that a host looks at: a guest has no more, unless it says that they stand in a circle.
pub const LISTS_MAX: usize = 4;

/// A task that has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// Address of the entry of the task that was made next; zero if there is none.
    pub next: u64,
    /// Address of its name in UTF-8.
    pub name: u64,
    /// Address of the name of the source file that it was made in, in UTF-8.
    pub file: u64,
    /// Particulars of [`state`](Self::state).
    pub detail: u64,
    /// Length of the name in bytes.
    pub name_len: u32,
    /// Length of the file's name in bytes; zero if the runtime has made the task.
    pub file_len: u32,
    /// Where in the file.
    pub line: u32,
    /// Where in the line.
    pub column: u32,
    /// Its number, from 1 on, in the order in which tasks are made.
    pub number: u32,
    /// What it waits for: bits 0 to 7 are a [`State`]; bit 8 says that the name is that of the future's
    /// type; bit 9 that a word follows the entry, since when it waits; bits 16 to 31 are how many things more it
    /// waits for.
    pub state: u32,
}

/// Who holds a lock for which a task waits: [`State::Lock`] has its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Holder {
    /// Address of the name of the source file in which the lock was taken, in UTF-8.
    pub file: u64,
    /// When it was taken, in nanoseconds on the guest's clock.
    pub since: u64,
    /// Length of the file's name in bytes.
    pub file_len: u32,
    /// Where in the file.
    pub line: u32,
    /// Where in the line.
    pub column: u32,
    /// The number of the task that has taken it; zero if nobody holds it, or no task.
    pub task: u32,
}

impl Holder {
    /// The holder in these words of 64 bits, as they lie in memory.
    #[must_use]
    pub const fn from_words([file, since, place, rest]: [u64; 4]) -> Self {
        Self {
            file,
            since,
            file_len: place as u32,
            line: (place >> 32) as u32,
            column: rest as u32,
            task: (rest >> 32) as u32,
        }
    }
}

/// Says that a task has no name but that of its type.
pub const TYPE_NAME: u32 = 1 << 8;

/// Says that behind the entry there is a word with the time of the guest's clock at which the task was last polled:
/// that of the last look at the clock before.
pub const SINCE: u32 = 1 << 9;

/// Where in [`Entry::state`] it stands how many things more a task waits for.
pub const MORE_SHIFT: u32 = 16;

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// For nothing that the runtime knows: a lock or a channel between tasks, for instance; or it was
    /// not polled yet.
    Other = 0,
    /// It is being polled.
    Polled = 1,
    /// For an operation of the host: `detail` is its token.
    Operation = 2,
    /// For a time: `detail` is it, in nanoseconds on the guest's clock.
    Timer = 3,
    /// For another task's end: `detail` is its number.
    Task = 4,
    /// For room for an operation.
    Slot = 5,
    /// To be restored from a template.
    Restored = 6,
    /// For a lock of the guest's library: `detail` is the address of a [`Holder`].
    Lock = 7,
}

impl State {
    /// The state of a code.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Other,
            1 => Self::Polled,
            2 => Self::Operation,
            3 => Self::Timer,
            4 => Self::Task,
            5 => Self::Slot,
            6 => Self::Restored,
            7 => Self::Lock,
            _ => return None,
        })
    }
}

impl Entry {
    /// Bytes of an entry.
    pub const SIZE: usize = size_of::<Self>();

    /// The entry in these words of 64 bits, as they lie in memory.
    #[must_use]
    pub const fn from_words(words: [u64; Self::SIZE / 8]) -> Self {
        let [next, name, file, detail, lengths, place, rest] = words;
        Self {
            next,
            name,
            file,
            detail,
            name_len: lengths as u32,
            file_len: (lengths >> 32) as u32,
            line: place as u32,
            column: (place >> 32) as u32,
            number: rest as u32,
            state: (rest >> 32) as u32,
        }
    }

    /// What it waits for, and for how many things more.
    #[must_use]
    pub const fn waits(&self) -> (Option<State>, u32) {
        (State::from_code(self.state as u8), self.state >> MORE_SHIFT)
    }
}

const _: () = assert!(size_of::<Holder>() == 32, "a holder has no gaps");

const _: () = assert!(
    Entry::SIZE == 56 && core::mem::offset_of!(Entry, state) == 52,
    "an entry has no gaps: see task.rs"
);

/// Writes what a person would call a future of this type.
///
/// That of an `async fn` is a closure in the function, and has its name; that of an `async` block is a
/// closure in that one.
///
/// # Errors
///
/// Those of `into`.
pub fn short_name(type_name: &str, into: &mut impl core::fmt::Write) -> core::fmt::Result {
    const CLOSURE: &str = "::{{closure}}";

    let generics = type_name.get(1..).and_then(|rest| rest.find('<'));
    let (path, _) = type_name.split_at(generics.map_or(type_name.len(), |at| at + 1));
    // `<T as Trait>::method` is too long to be a name, and has no shorter one.
    let mut name = path;
    let mut closures = 0;
    while let Some(outer) = name.strip_suffix(CLOSURE) {
        name = outer;
        closures += 1;
    }
    if !name.starts_with('<') {
        name = name.rsplit("::").next().unwrap_or(name);
    }
    into.write_str(name)?;
    if closures > 1 {
        into.write_str("::{async}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_lies_in_memory() {
        let entry = Entry {
            next: 1,
            name: 2,
            file: 3,
            detail: 4,
            name_len: 5,
            file_len: 6,
            line: 7,
            column: 8,
            number: 9,
            state: 3 << MORE_SHIFT | TYPE_NAME | State::Timer as u32,
        };
        // SAFETY: an entry is made of numbers without gaps.
        let words = unsafe { core::mem::transmute::<Entry, [u64; Entry::SIZE / 8]>(entry) };
        assert_eq!(Entry::from_words(words), entry);
        assert_eq!(entry.waits(), (Some(State::Timer), 3));
        let holder = Holder {
            file: 1,
            since: 2,
            file_len: 3,
            line: 4,
            column: 5,
            task: 6,
        };
        // SAFETY: as above.
        let words = unsafe { core::mem::transmute::<Holder, [u64; 4]>(holder) };
        assert_eq!(Holder::from_words(words), holder);
        for code in 0..=u8::MAX {
            if let Some(state) = State::from_code(code) {
                assert_eq!(state as u8, code);
            }
        }
    }

    #[test]
    fn a_task_is_called_by_the_function_that_its_future_is_of() {
        for (type_name, expected) in [
            ("hello::fetch::{{closure}}", "fetch"),
            ("hello::main::{{closure}}::{{closure}}", "main::{async}"),
            (
                "futures_util::future::map::Map<a::B<c::D>, e::{{closure}}>",
                "Map",
            ),
            ("<a::B as c::D>::e::{{closure}}", "<a::B as c::D>::e"),
            ("main", "main"),
            ("", ""),
        ] {
            let mut name = std::string::String::new();
            short_name(type_name, &mut name).unwrap();
            assert_eq!(name, expected);
        }
    }
}
