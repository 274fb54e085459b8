//! What sets a sandbox apart from another of the same template: its generation, its seed, its
//! arguments and its environment.

use wakebox_abi::boot::{self, Identity, Range};
use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_vmm::memory::GuestMemory;

use crate::error::{Error, Result};

/// Where the words begin in the instance page.
const WORDS: u64 = size_of::<boot::Instance>() as u64;

/// Least bytes of the region, so that the sandboxes of a template may have more words than it had.
/// Pages that nobody touches cost nothing.
const LEAST: u64 = 4 * PAGE_SIZE;

/// An instance for one sandbox.
pub(super) struct Instance {
    identity: Identity,
    /// The arguments, then the environment: strings, each ended by a NUL.
    words: Vec<u8>,
}

impl Instance {
    /// An instance with these words, and a generation and a seed that no other has.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if a word cannot be told or all are too long for any sandbox, or if the
    /// kernel gives no random bytes.
    pub(super) fn new(args: &[String], env: &[(String, String)]) -> Result<Self> {
        let mut words = Vec::new();
        for arg in args {
            push(&mut words, arg, "an argument")?;
        }
        let args = Range {
            start: layout::INSTANCE + WORDS,
            len: words.len() as u64,
        };
        for (key, value) in env {
            if key.is_empty() || key.contains('=') {
                return Err(Error::Setting(format!(
                    "a variable cannot be named {key:?}"
                )));
            }
            push(&mut words, &format!("{key}={value}"), "a variable")?;
        }
        fits(words.len() as u64, layout::INSTANCE_MAX)?;
        let [g0, g1, s0, s1, s2, s3] = random()?;
        let identity = Identity {
            generation: [g0, g1].map(|word| word.max(1)),
            seed: [s0, s1, s2, s3],
            args,
            env: Range {
                start: args.end(),
                len: words.len() as u64 - args.len,
            },
            trace_records: 0,
        };
        Ok(Self { identity, words })
    }

    /// The same, of a guest that is watched through a trace ring with so many slots, if there are any.
    pub(super) fn watched(mut self, slots: u32) -> Self {
        self.identity.trace_records = slots;
        self
    }

    /// What the guest is told of it.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Bytes of the region of guest memory that a sandbox with this instance has for it, and for those
    /// that are made of it.
    pub(super) fn room(&self) -> u64 {
        (WORDS + self.words.len() as u64).max(LEAST)
    }

    /// Makes it the instance of the guest in this memory, which does not run. Of one that was there
    /// before nothing is left.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] if this memory has too little room for the words; then nothing has changed.
    pub(super) fn write(self, memory: &GuestMemory) -> Result<()> {
        let region = memory.plan().instance;
        fits(self.words.len() as u64, region.len)?;
        let page = memory.instance();
        let former = page.read();
        let former = former.args.len.saturating_add(former.env.len);
        let former = usize::try_from(former.min(region.len - WORDS)).unwrap_or(0);
        let mut words = self.words;
        words.resize(words.len().max(former), 0);
        page.write(&self.identity);
        memory.write(region.offset + WORDS, &words);
        Ok(())
    }
}

/// Appends a word and its NUL.
fn push(words: &mut Vec<u8>, word: &str, what: &str) -> Result<()> {
    if word.contains('\0') {
        return Err(Error::Setting(format!("{what} contains a NUL: {word:?}")));
    }
    words.extend_from_slice(word.as_bytes());
    words.push(0);
    Ok(())
}

/// Sees that words of so many bytes fit a region of so many.
fn fits(len: u64, region: u64) -> Result<()> {
    let room = region - WORDS;
    if len <= room {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "arguments and environment take {}; there is room for {}",
        crate::units::bytes(len),
        crate::units::bytes(room)
    )))
}

/// Random words of the kernel's generator.
fn random() -> Result<[u64; 6]> {
    let mut bytes = [0; 48];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Error::Setting(format!("the kernel gives no random bytes: {error}")))?;
    if filled < bytes.len() {
        // Up to 256 bytes come whole (getrandom(2)).
        return Err(Error::Setting(
            "the kernel gives too few random bytes".to_owned(),
        ));
    }
    let (words, _) = bytes.as_chunks::<8>();
    Ok(std::array::from_fn(|index| {
        u64::from_le_bytes(words[index])
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wakebox_vmm::plan::{Plan, Sizes};

    use super::*;
    use crate::loader::Image;

    fn memory() -> Arc<GuestMemory> {
        let image = Image::from_bytes(crate::probe::program()).unwrap();
        let sizes = Sizes {
            processors: 1,
            memory: 8 << 20,
            arena: PAGE_SIZE,
            stack: PAGE_SIZE,
            in_flight: 64,
            instance: LEAST,
            trace_records: 0,
            windows: 0,
        };
        GuestMemory::new(Plan::new(&image.pages(), &sizes).unwrap()).unwrap()
    }

    /// An instance with this argument and this value of the variable `key`.
    fn instance(arg: &str, value: &str) -> Instance {
        Instance::new(&[arg.to_owned()], &[("key".to_owned(), value.to_owned())]).unwrap()
    }

    /// What a guest with this memory reads at its own addresses.
    fn told(memory: &GuestMemory, range: Range) -> String {
        let region = memory.plan().instance;
        let mut bytes = vec![0; range.len as usize];
        memory.read(region.offset + range.start - layout::INSTANCE, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_instance_is_told_whole_and_leaves_nothing_of_the_former() {
        let memory = memory();
        let region = memory.plan().instance;
        for (arg, value) in [("secret of a tenant", "another secret"), ("a", "")] {
            let next = instance(arg, value);
            let identity = next.identity();
            next.write(&memory).unwrap();
            assert_eq!(memory.instance().read(), identity);
            assert_eq!(told(&memory, identity.args), format!("{arg}\0"));
            assert_eq!(told(&memory, identity.env), format!("key={value}\0"));
            let end = identity.env.end() - layout::INSTANCE;
            let mut behind = vec![1; (region.len - end) as usize];
            memory.read(region.offset + end, &mut behind);
            assert!(behind.iter().all(|byte| *byte == 0), "after {arg:?}");
        }
    }

    #[test]
    fn no_two_instances_have_a_word_of_generation_or_seed_in_common() {
        let mut words = std::collections::HashSet::new();
        for _ in 0..1_000 {
            let Identity {
                generation, seed, ..
            } = instance("", "").identity();
            for word in generation.into_iter().chain(seed) {
                assert!(words.insert(word), "{word:#x} came twice");
            }
        }
    }

    #[test]
    fn words_that_a_sandbox_has_no_room_for_change_nothing() {
        let memory = memory();
        let room = (LEAST - WORDS) as usize;
        // Two NULs, `key=`, and an argument of one letter.
        let least = "a\0key=\0".len();
        instance("a", &"v".repeat(room - least))
            .write(&memory)
            .unwrap();
        let before = memory.instance().read();
        let too_long = instance("b", &"w".repeat(room - least + 1));
        let refused = too_long.write(&memory).unwrap_err();
        assert!(matches!(refused, Error::Setting(_)), "{refused:?}");
        assert_eq!(memory.instance().read(), before);
        assert_eq!(told(&memory, before.args), "a\0");
        let any = Instance::new(&["x".repeat(layout::INSTANCE_MAX as usize)], &[]);
        assert!(matches!(any.err(), Some(Error::Setting(_))));
    }
}
