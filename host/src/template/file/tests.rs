use std::io::{self, Read};

use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_abi::window::Request;
use wakebox_vmm::x86_64::user::LEGACY;

use super::header::{HASH, Kind, PREFIX};
use super::proof::{for_any_processor, seal, smallest, with_header};
use super::*;
use crate::error::TemplateFileError as E;
use crate::template::Left;

const KEY: [u8; 32] = [7; 32];

fn plain() -> Vec<u8> {
    smallest(&FileOptions::new(), &[], 1, 0)
}

/// Of a guest with three processors, of which two have begun.
fn several() -> Vec<u8> {
    smallest(&FileOptions::new(), &[], 3, 0)
}

/// Of a guest with two windows, in one of which something lies.
fn with_windows() -> Vec<u8> {
    smallest(&FileOptions::new(), &[], 1, 2)
}

fn signed() -> Vec<u8> {
    smallest(&with_key(KEY), &[], 1, 0)
}

fn with_key(key: [u8; 32]) -> FileOptions {
    FileOptions::new().key(key).unwrap()
}

#[track_caller]
fn refusal_with(file: &[u8], options: &FileOptions) -> E {
    match read::read(&mut &*file, options) {
        Err(Failure::File(error)) => error,
        Err(Failure::Host(error)) => panic!("not the file's fault: {error}"),
        Ok(_) => panic!("it was read"),
    }
}

#[track_caller]
fn refusal(file: &[u8]) -> E {
    refusal_with(file, &FileOptions::new())
}

/// Sees that it is refused for what a field says, and says so.
#[track_caller]
fn damaged(file: &[u8], why: &str) {
    let error = refusal(file);
    assert!(matches!(error, E::Damaged(_)), "{error:?}");
    assert!(error.to_string().contains(why), "{error}");
}

fn content(file: &[u8]) -> Content {
    read::read(&mut &*file, &FileOptions::new()).unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// The bytes of a part.
fn part(file: &mut [u8], kind: Kind) -> &mut [u8] {
    let content = content(file);
    let part = content.header.parts.iter().find(|part| part.kind == kind);
    let part = part.unwrap();
    &mut file[part.offset as usize..(part.offset + part.stored) as usize]
}

/// A file with a change in one part, whose hashes are right.
fn with_part(kind: Kind, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut file = plain();
    change(part(&mut file, kind));
    seal(&mut file);
    file
}

#[test]
fn what_is_written_is_read_again() {
    let content = content(&plain());
    let (memory, users, driver) = content.parked.unwrap();
    assert_eq!(driver.in_flight.len(), 2);
    assert_eq!(driver.handles, [1, 2]);
    let user = users[0].as_ref().unwrap();
    assert_eq!(user.registers.rip, content.image.entry());
    let mut bytes = [0; 11];
    memory.read(memory.plan().heap.offset, &mut bytes).unwrap();
    assert_eq!(&bytes, b"on the heap");
    let mut bytes = [1; 9];
    memory
        .read(memory.plan().ring0_stack.offset, &mut bytes)
        .unwrap();
    assert_eq!(bytes, [0; 9], "a stack of ring 0 is not in a file");
    let at_entry = Template::at_entry(None, content.image);
    let mut file = Vec::new();
    at_entry.save(&mut file).unwrap();
    let loaded = Template::load(&mut &*file).unwrap();
    assert_eq!(loaded.info().at, Position::Entry);
}

#[test]
fn all_processors_are_written_and_read_again_and_nothing_of_their_ring_0() {
    let file = several();
    assert_eq!(
        (plain()[8], file[8]),
        (1, 2),
        "the lowest version that can say it"
    );
    let content = content(&file);
    let said = content.header.parked.as_ref().unwrap();
    assert_eq!(said.others, [Some(Left::Halt), None]);
    let (memory, users, driver) = content.parked.as_ref().unwrap();
    assert_eq!(
        users.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!((driver.rings.len(), driver.in_flight.len()), (3, 3));
    for processor in 0..3 {
        let mut bytes = [1; 9];
        let stack = memory.plan().own(processor).ring0_stack;
        memory.read(stack.offset, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 9], "a stack of ring 0 is not in a file");
    }
    let mut again = Vec::new();
    let parked = write::Parts {
        said: said.clone(),
        users: users.clone(),
        memory,
        driver,
    };
    write::assemble(
        &content.image,
        Some(parked),
        &mut again,
        &FileOptions::new(),
    )
    .unwrap();
    assert!(again == file, "what was read is written as it was");
}

#[test]
fn what_lies_in_windows_is_written_and_read_again() {
    let file = with_windows();
    assert_eq!(file[8], 3, "the lowest version that can say it");
    let content = content(&file);
    let (memory, ..) = content.parked.as_ref().unwrap();
    let shown = memory.shown().unwrap();
    let page = |address: u64| (address / PAGE_SIZE) as u32;
    let expected = Request {
        page: page(layout::WINDOWS),
        from: page(layout::HEAP) + 1,
        count: 2,
    };
    assert_eq!(shown, [expected]);
}

#[test]
fn what_cannot_lie_in_a_window_is_refused() {
    let (page, from) = (
        (layout::WINDOWS / PAGE_SIZE) as u32,
        (layout::HEAP / PAGE_SIZE) as u32,
    );
    let part_of = |words: [u32; 4]| {
        let mut file = with_windows();
        let bytes = part(&mut file, Kind::Windows);
        assert_eq!(bytes.len(), 16);
        for (place, word) in bytes.chunks_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        seal(&mut file);
        file
    };
    content(&part_of([1, page, from, 1]));
    for (words, why) in [
        ([0, page, from, 1], "longer"),
        ([2, page, from, 1], ""),
        ([u32::MAX, page, from, 1], ""),
        ([1, page, from, 0], "NoWindow"),
        ([1, page - 1, from, 1], "NoWindow"),
        ([1, page, from, 4097], "NoWindow"),
        ([1, 0, from, 1], "NoWindow"),
        ([1, page, 0, 1], "NotHeap"),
        ([1, page, from - 1, 1], "NotHeap"),
        ([1, page, 0x4_0000, 1], "NotHeap"),
        ([1, page, u32::MAX, 1], "NotHeap"),
        ([1, page, from, 4096], "NotHeap"),
    ] {
        let error = refusal(&part_of(words));
        assert!(matches!(error, E::Damaged(_)), "{words:?}: {error:?}");
        assert!(error.to_string().contains(why), "{words:?}: {error}");
    }
    for windows in [0, 1, 257, u32::MAX] {
        let file = with_header(&with_windows(), |header| {
            header.parked.as_mut().unwrap().sizes.windows = windows;
        });
        let error = refusal(&file);
        assert!(
            matches!(error, E::Damaged(_) | E::OtherLayout),
            "{windows}: {error:?}"
        );
    }
}

#[test]
fn what_is_said_of_several_processors_and_cannot_be_is_refused() {
    type Change = fn(&mut header::Parked);
    let changes: [Change; 7] = [
        |said| said.sizes.processors = 65,
        |said| said.sizes.processors = u32::MAX,
        |said| said.sizes.processors = 2,
        |said| said.others[0] = None,
        |said| said.others[1] = Some(Left::Wait),
        |said| said.others.truncate(1),
        |said| said.sizes.stack = wakebox_abi::layout::STACK_MAX / 3,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let file = with_header(&several(), |header| change(header.parked.as_mut().unwrap()));
        let error = refusal(&file);
        assert!(
            matches!(error, E::Damaged(_) | E::OtherLayout),
            "{index}: {error:?}"
        );
    }
    // One of several that says that it is alone, and one alone that says that it is not.
    for (mut file, version) in [(several(), 1), (plain(), 2)] {
        file[8] = version;
        seal(&mut file);
        refusal(&file);
    }
    let plan = content(&several()).parked.unwrap().0.plan().clone();
    assert!(plan.supervisor().is_sorted_by_key(|region| region.offset));
    for region in plan.supervisor() {
        let mut file = several();
        let start = region.offset + region.len - 4096;
        part(&mut file, Kind::Ranges)[4..12].copy_from_slice(&start.to_le_bytes());
        seal(&mut file);
        damaged(&file, "pages that are not the guest's");
    }
}

#[test]
fn two_files_of_one_template_are_the_same() {
    assert_eq!(plain(), plain());
}

#[test]
fn what_is_no_template_is_not_taken_for_one() {
    for file in [
        &b""[..],
        b"\x7fELF",
        b"no template at all, but long enough",
        &[0; 4096],
    ] {
        assert!(matches!(refusal(file), E::NotATemplate), "{file:?}");
        assert!(!Template::is_file(file));
    }
    assert!(Template::is_file(&plain()[..8]));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused_and_so_is_one_that_goes_on() {
    let file = plain();
    for len in (1..file.len()).step_by(7).chain([file.len() - 1]) {
        let error = refusal(&file[..len]);
        assert!(matches!(error, E::Truncated(_)), "{len}: {error:?}");
    }
    let more = [&file[..], &[0]].concat();
    assert!(matches!(refusal(&more), E::TooLong));
}

#[test]
fn a_byte_that_was_altered_anywhere_is_found() {
    let file = plain();
    for at in (0..file.len()).filter(|at| *at < 600 || at % 7 == 0) {
        let mut altered = file.clone();
        altered[at] ^= 0x10;
        let error = refusal(&altered);
        match at {
            0..8 => assert!(matches!(error, E::NotATemplate), "{at}: {error:?}"),
            8..PREFIX => {}
            _ => assert!(
                matches!(error, E::Altered(_) | E::Damaged(_)),
                "{at}: {error:?}"
            ),
        }
    }
}

#[test]
fn older_and_newer_files_and_other_interfaces_are_refused_by_name() {
    let version = |version: u32| {
        let mut file = plain();
        file[8..12].copy_from_slice(&version.to_le_bytes());
        refusal(&file)
    };
    assert!(matches!(version(0), E::Older { file: 0, host: 3 }));
    assert!(matches!(version(4), E::Newer { file: 4, host: 3 }));
    let other = with_header(&plain(), |header| header.interface = 1);
    assert!(matches!(refusal(&other), E::OtherInterface { file: 1, .. }));
    let other = with_header(&plain(), |header| {
        header.parked.as_mut().unwrap().regions[4].offset += 4096;
    });
    assert!(matches!(refusal(&other), E::OtherLayout));
}

#[test]
fn a_file_of_a_machine_that_had_more_is_refused_with_what_is_lacking() {
    let other = with_header(&plain(), |header| {
        let said = header.parked.as_mut().unwrap();
        said.features = vec!["sse2".into(), "of the future".into()];
        said.xcr0 = 1 << 62;
    });
    // Which can be said where there is KVM.
    if System::get().is_err() {
        return;
    }
    let error = Template::load(&mut &*other).unwrap_err();
    let Error::Template {
        source: E::OtherMachine(lacking),
        ..
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(lacking, ["of the future", "part 62 of the extended state"]);
    assert_eq!(info(&content(&other)).lacking, lacking);
    // A part that no processor has in this size.
    let other = smallest(&FileOptions::new(), &[(2, vec![0; 3])], 1, 0);
    let error = Template::load(&mut &*other).unwrap_err();
    assert!(matches!(
        error,
        Error::Template {
            source: E::OtherMachine(_),
            ..
        }
    ));
    Template::load(&mut &*for_any_processor(&other, &FileOptions::new())).unwrap();
}

#[test]
fn with_a_key_only_what_was_signed_with_it_is_read() {
    let signed = signed();
    let options = with_key(KEY);
    read::read(&mut &*signed, &options).unwrap_or_else(|failure| panic!("{failure:?}"));
    // Who has no key reads it like any other.
    assert!(content(&signed).header.is_signed);
    assert!(matches!(
        refusal_with(&signed, &with_key([8; 32])),
        E::WrongKey
    ));
    assert!(matches!(refusal_with(&plain(), &options), E::NoKey));
    for at in (PREFIX..signed.len()).step_by(3) {
        let mut altered = signed.clone();
        altered[at] ^= 1;
        let error = refusal_with(&altered, &options);
        // No byte of a header that was altered is believed; a part has the hash that was signed.
        assert!(
            matches!(error, E::WrongKey | E::NoKey | E::Altered(_)),
            "{at}: {error:?}"
        );
    }
    let error = FileOptions::new().key([0; 15]).unwrap_err();
    assert!(matches!(error, Error::Setting(_)), "{error:?}");
    assert!(!format!("{options:?}").contains('7'));
}

#[test]
fn memory_is_compared_with_a_limit_before_it_is_taken() {
    let large = with_header(&plain(), |header| {
        header.parked.as_mut().unwrap().sizes.memory = 1 << 50;
    });
    let error = refusal_with(&large, &FileOptions::new());
    assert!(
        matches!(error, E::TooLarge { asked, .. } if asked == 1 << 50),
        "{error:?}"
    );
    let options = FileOptions::new().most_memory(1 << 20);
    let error = refusal_with(&plain(), &options);
    assert!(
        matches!(error, E::TooLarge { asked, most } if (asked, most) == (2 << 20, 1 << 20)),
        "{error:?}"
    );
    // A length that the file does not have costs nothing either.
    let long = with_header(&plain(), |header| {
        let last = header.parts.last_mut().unwrap();
        (last.stored, last.len) = (1 << 40, 1 << 40);
    });
    damaged(&long, "not as long as its list says");
}

#[test]
fn pages_of_ring_0_and_pages_outside_the_memory_are_refused() {
    let file = plain();
    let plan = content(&file).parked.unwrap().0.plan().clone();
    let first = |start: u64| {
        let file = with_part(Kind::Ranges, |list| {
            list[4..12].copy_from_slice(&start.to_le_bytes());
        });
        damaged(&file, "pages that are not the guest's");
    };
    for region in plan.supervisor() {
        first(region.offset);
    }
    for start in [plan.ram, u64::MAX - 4095, plan.boot.offset + 1] {
        first(start);
    }
    let file = with_part(Kind::Ranges, |list| list[12..20].fill(0));
    damaged(&file, "pages that are not the guest's");
}

#[test]
fn registers_that_no_program_has_are_refused() {
    let register = |index: usize, value: u64| {
        let at = index * 8;
        with_part(Kind::Processor, |bytes| {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        })
    };
    let mut stack = 0;
    let mut file = plain();
    for (index, byte) in part(&mut file, Kind::Processor)[8..16].iter().enumerate() {
        stack |= u64::from(*byte) << (8 * index);
    }
    // Kernel addresses, the guest's own stack, ring 0, and no address at all.
    let supervisor = wakebox_abi::layout::SUPERVISOR;
    for rip in [0, stack - 8, supervisor + 4096, 1 << 63, 1 << 47, u64::MAX] {
        damaged(&register(0, rip), "does not lie in its own code");
    }
    // Interrupts off, trap, privilege level, nested task, resume, virtual 8086.
    for bit in [1, 8, 9, 12, 13, 14, 16, 17, 19, 20, 22, 63] {
        damaged(&register(2, 1 << bit), "flags are not those of a program");
    }
    content(&register(2, 1 | 1 << 10 | 1 << 21));
    let control = 18 * 8 + 24;
    assert!(control + 4 <= 18 * 8 + LEGACY);
    let file = with_part(Kind::Processor, |bytes| bytes[control + 2] = 1);
    damaged(&file, "no state that there is");
}

#[test]
fn what_a_header_says_that_cannot_be_is_refused() {
    type Change = fn(&mut header::Parked);
    let changes: [Change; 10] = [
        |said| said.elapsed = u64::MAX,
        |said| said.sizes.arena = 0,
        |said| said.sizes.arena += 1,
        |said| said.sizes.stack = 1 << 40,
        |said| said.sizes.instance = 0,
        |said| said.sizes.instance = 1 << 30,
        |said| said.sizes.in_flight = 63,
        |said| said.sizes.in_flight = 1 << 31,
        |said| said.sizes.trace_records = 65,
        |said| said.sizes.trace_records = 1 << 31,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let file = with_header(&plain(), |header| change(header.parked.as_mut().unwrap()));
        let error = refusal(&file);
        assert!(matches!(error, E::Damaged(_)), "{index}: {error:?}");
    }
    let file = with_header(&plain(), |header| {
        header.parked.as_mut().unwrap().in_flight = 9;
    });
    damaged(&file, "not as much was in flight");
    let file = with_header(&plain(), |header| header.build_id = vec![1; 20]);
    damaged(&file, "another build ID");
    let file = with_header(&plain(), |header| header.parts.swap(1, 2));
    damaged(&file, "");
    let file = with_header(&plain(), |header| header.parts.truncate(1));
    damaged(&file, "does not list the parts");
    // A guest that is none.
    let file = with_part(Kind::Guest, |file| file[0] = b'#');
    assert!(matches!(refusal(&file), E::Guest(_)));
    // A header that is longer than any, and one that has no room for its hash.
    for len in [0, (PREFIX + HASH) as u32 - 1, 1 << 20, u32::MAX] {
        let mut file = plain();
        file[12..16].copy_from_slice(&len.to_le_bytes());
        damaged(&file, "than any");
    }
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    let error = Template::load(&mut Broken).unwrap_err();
    assert!(matches!(
        error,
        Error::Template {
            source: E::Read(_),
            ..
        }
    ));
    let error = Template::from_file("/", &FileOptions::new()).unwrap_err();
    assert!(error.to_string().contains("/ cannot be used"), "{error}");
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let content = content(&plain());
    let error = Template::at_entry(None, content.image)
        .save(&mut Full)
        .unwrap_err();
    assert!(matches!(error, Error::Save { .. }), "{error:?}");
}

#[cfg(feature = "zstd")]
#[test]
fn compressed_files_are_smaller_and_as_strict() {
    let options = FileOptions::new().compressed();
    let file = smallest(&options, &[], 1, 0);
    assert!(file.len() < plain().len(), "{} bytes", file.len());
    let packed = content(&file).parked.unwrap();
    let (memory, users, driver) = content(&plain()).parked.unwrap();
    assert_eq!((packed.1, packed.2), (users, driver));
    let [mut one, mut two] = [vec![0; 2 << 20], vec![1; 2 << 20]];
    memory.read(0, &mut one).unwrap();
    packed.0.read(0, &mut two).unwrap();
    assert!(one == two);
    for len in (1..file.len()).step_by(5) {
        let error = refusal(&file[..len]);
        assert!(matches!(error, E::Truncated(_)), "{len}: {error:?}");
    }
    let longer = with_header(&file, |header| header.parts[0].len += 1);
    damaged(&longer, "cannot be unpacked");
    let shorter = with_header(&file, |header| header.parts[0].len -= 1);
    damaged(&shorter, "longer than it says");
}
