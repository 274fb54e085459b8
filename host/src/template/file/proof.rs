//! Template files without a machine: what fuzzers and tests get hold of.

use std::sync::{Arc, Mutex, PoisonError};

use wakebox_abi::entry::Token;
use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_abi::op::{Deadline, NextCall, Request};
use wakebox_abi::wake::Mode;
use wakebox_abi::window;
use wakebox_vmm::machine::Machine;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::plan::{Plan, Sizes};
use wakebox_vmm::x86_64::registers::Registers;
use wakebox_vmm::x86_64::user::{LEGACY, UserState};
use wakebox_vmm::x86_64::windows;

#[cfg(test)]
use super::header::Header;
use super::header::{HASH, PREFIX, Parked, sizes_of};
use super::parts::hash;
use super::write::{Parts, assemble};
use super::{Content, FileOptions, read};
use crate::driver::Stood;
use crate::loader::Image;
use crate::names::Names;
use crate::probe;
use crate::template::{DriverStand, Left};

/// Most memory of a guest that is read.
const MOST: u64 = 16 << 20;

/// The file of a template of the smallest guest, which needs nothing of the processor. `parts` of its
/// extended state are not as they are initially. It has at most three processors, of which the third has not begun, and in the
/// first window, if there are any, the second and the third page of its heap.
///
/// # Panics
///
/// If there is no memory.
#[must_use]
#[allow(clippy::too_many_lines, reason = "a table of what a template is")]
pub fn smallest(
    options: &FileOptions,
    parts: &[(u32, Vec<u8>)],
    processors: u32,
    windows: u32,
) -> Vec<u8> {
    let image = Image::from_bytes(probe::program()).expect("the smallest guest is one");
    let sizes = Sizes {
        memory: 2 << 20,
        arena: PAGE_SIZE,
        stack: PAGE_SIZE,
        in_flight: 64,
        instance: 4 * PAGE_SIZE,
        trace_records: 0,
        windows,
        processors,
    };
    let plan = Plan::new(&image.pages(), &sizes).expect("it has room");
    let memory = GuestMemory::new(plan.clone()).expect("there is memory");
    memory.write_tables();
    image.load(&memory).expect("it is loaded");
    for processor in 0..processors {
        memory.write(plan.own(processor).ring0_stack.offset, b"of ring 0");
    }
    memory.write(plan.heap.offset, b"on the heap");
    if windows > 0 {
        let page = |address: u64| (address / PAGE_SIZE) as u32;
        let shown = window::Request {
            page: page(layout::WINDOWS),
            from: page(layout::HEAP) + 1,
            count: 2,
        };
        shown.write(&memory.control());
        memory.edit_windows(0);
    }
    let memory = memory.freeze().expect("there is memory");
    let user = UserState {
        registers: Registers {
            rip: image.entry(),
            rsp: plan.stack_range().end(),
            ..Registers::default()
        },
        legacy: Box::new([0; LEGACY]),
        extended: parts.to_vec(),
    };
    let token = |slot| Token {
        slot,
        generation: 1,
    };
    let buf = wakebox_abi::op::Buf {
        offset: 0,
        len: 256,
    };
    let names = Names::of(processors);
    let others = &[Some(Left::Halt), None][..processors as usize - 1];
    let deadline = Request::Deadline(Deadline { at_ns: 1 << 40 });
    let of_second = (names.of_ring(1, token(3)), deadline);
    let mut in_flight = vec![
        (token(0), Request::NextCall(NextCall { into: buf })),
        (names.of_ring(0, token(3)), deadline),
    ];
    in_flight.extend((processors > 2).then_some(of_second));
    let driver = DriverStand {
        rings: vec![Stood::default(); processors as usize],
        in_flight,
        handles: vec![1, 2],
        ..DriverStand::default()
    };
    let said = Parked {
        mode: Mode::Out,
        left: Left::Wait,
        others: others.to_vec(),
        has_counter: false,
        elapsed: 1_000_000_000,
        in_flight: driver.in_flight.len() as u32,
        xcr0: 0,
        features: Vec::new(),
        sizes: sizes_of(&plan),
        base: plan.base,
        ram: plan.ram,
        regions: plan.regions(),
    };
    let parked = Parts {
        said,
        users: std::iter::once(Some(user.clone()))
            .chain(others.iter().map(|left| left.map(|_| user.clone())))
            .collect(),
        memory: &memory,
        driver: &driver,
    };
    assembled(&image, parked, options)
}

/// The file of these parts.
fn assembled(image: &Image, parked: Parts<'_>, options: &FileOptions) -> Vec<u8> {
    let mut file = Vec::new();
    assemble(image, Some(parked), &mut file, options).expect("memory takes everything");
    file
}

/// Reads a file, and gives the memory that a sandbox of it would have and what was in flight. `None` if
/// it is no template of a guest that was parked.
///
/// # Panics
///
/// If the host does what it must not: see [`Bench::template`](crate::proof::Bench::template).
#[must_use]
pub(crate) fn read(file: &[u8]) -> Option<(Arc<GuestMemory>, DriverStand)> {
    /// Where states are set, to see that KVM takes them; none where there is no KVM.
    static MACHINE: Mutex<Option<Machine>> = Mutex::new(None);
    let options = FileOptions::new().most_memory(MOST);
    let content = read::read(&mut &*file, &options).ok()?;
    let memory = {
        let (memory, ..) = content.parked.as_ref()?;
        GuestMemory::on(&memory.backing(), memory.plan().clone()).ok()?
    };
    check_ring0(&memory);
    let driver = content
        .parked
        .as_ref()
        .map(|(_, _, driver)| driver.clone())?;
    if let Ok(template) = super::settle(content, None)
        && let Some(stand) = template.stand()
    {
        let mut machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        if machine
            .as_ref()
            .is_none_or(|machine| !machine.has_all(memory.plan()))
        {
            *machine = Machine::new(&memory).ok();
        }
        if let Some(machine) = &mut *machine {
            let set = machine.restore(&stand.machine);
            set.expect("KVM takes a state that was checked");
        }
    }
    Some((memory, driver))
}

/// What is ring 0's is what the host writes, and nothing on its stacks; in windows lies the heap.
fn check_ring0(memory: &Arc<GuestMemory>) {
    let plan = memory.plan();
    let fresh = GuestMemory::new(plan.clone()).expect("there is memory");
    fresh.write_tables();
    for region in plan.supervisor() {
        let [own, other] = [&fresh, memory].map(|memory| {
            let mut bytes = vec![0; region.len as usize];
            memory.read(region.offset, &mut bytes);
            bytes
        });
        if region == plan.windows {
            for shown in windows::shown(plan.window_place(), &other) {
                let from = u64::from(shown.from) * PAGE_SIZE - layout::HEAP;
                let len = u64::from(shown.count) * PAGE_SIZE;
                assert!(from + len <= plan.heap.len, "a window has what is no heap");
            }
            continue;
        }
        assert!(
            own == other,
            "bytes of ring 0 at {:#x} are the file's",
            region.offset
        );
    }
}

/// Makes the hashes of a file right, as far as it has a header, whatever else is wrong with it.
pub fn seal(file: &mut [u8]) {
    const BUILD_ID: usize = PREFIX + 5;
    let word = |file: &[u8], at: usize, len: usize| -> Option<u64> {
        let mut word = [0; 8];
        word[..len].copy_from_slice(file.get(at..at.checked_add(len)?)?);
        Some(u64::from_le_bytes(word))
    };
    let mut parts = || {
        let mut at = BUILD_ID + 1 + word(file, BUILD_ID, 1)? as usize;
        let count = word(file, at, 4)?.min(6);
        at += 4;
        for _ in 0..count {
            let (offset, stored) = (word(file, at + 8, 8)?, word(file, at + 16, 8)?);
            let end = usize::try_from(offset.checked_add(stored)?).ok()?;
            let hash = hash(file.get(offset as usize..end)?);
            file.get_mut(at + 32..at + 32 + HASH)?
                .copy_from_slice(&hash);
            at += 32 + HASH;
        }
        Some(())
    };
    parts();
    let length = word(file, 12, 4).map_or(0, |length| length as usize);
    if let Some(header) = file.get_mut(..length)
        && let Some((hashed, place)) = header.split_last_chunk_mut::<HASH>()
    {
        *place = hash(hashed);
    }
}

/// A file like this one, which needs nothing of the processor that not all have; what is in its vector
/// registers beyond SSE is lost.
///
/// # Panics
///
/// If it is no template file.
#[must_use]
pub fn for_any_processor(file: &[u8], options: &FileOptions) -> Vec<u8> {
    let content = read::read(&mut &*file, &FileOptions::new());
    let content = content.expect("it is a template file");
    let Content {
        header,
        image,
        parked,
    } = content;
    let (memory, mut users, driver) = parked.expect("its guest was parked");
    users
        .iter_mut()
        .flatten()
        .for_each(|user| user.extended.clear());
    let mut said = header.parked.expect("its guest was parked");
    (said.features, said.xcr0) = (Vec::new(), 0);
    let parked = Parts {
        said,
        users,
        memory: &memory,
        driver: &driver,
    };
    assembled(&image, parked, options)
}

/// A file like this one with another header, for tests.
#[cfg(test)]
pub(super) fn with_header(file: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let length = u32::from_le_bytes(file[12..16].try_into().expect("four bytes")) as usize;
    let mut header = Header::parse(&file[..length], None).expect("a header");
    change(&mut header);
    let mut changed = header.to_bytes(None);
    changed.extend_from_slice(&file[length..]);
    changed
}
