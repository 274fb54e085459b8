//! From the registers of a stopped guest to the calls that led there.
//!
//! Each step asks the unwind tables of the ELF file (`.eh_frame`; System V ABI, AMD64
//! supplement, 3.7 and 4.2) where the caller's registers are. Code without tables is assumed to
//! keep frame pointers. Stack and registers are the guest's to make up: a step must move the stack
//! pointer up, so there is an end. It comes soon: each call and each word of the guest's memory costs
//! a step of [`UNWIND`](super::fuel::limits::UNWIND), as each read of the tables does.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameOffset, Register, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindSection, UnwindTableRow,
};
use wakebox_vmm::memory::View;
use wakebox_vmm::x86_64::registers::Registers;

use crate::elf::fuel::{Fuel, Metered};
use crate::elf::{EhFrameHdr, Elf};

/// Frames that are kept: so many innermost ones, ...
const KEPT_INNER: usize = 96;
/// ... and so many outermost ones.
const KEPT_OUTER: usize = 32;

/// Memory of a stopped guest.
pub(crate) trait Memory {
    /// The eight bytes at a guest-virtual address, if the guest can read them.
    fn word(&self, address: u64) -> Option<u64>;
}

impl Memory for View {
    fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        (self.read(address, &mut bytes) == 8).then(|| u64::from_le_bytes(bytes))
    }
}

/// Memory that is read as long as the fuel lasts.
struct Counted<'a> {
    memory: &'a dyn Memory,
    fuel: &'a Fuel,
}

impl Memory for Counted<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        self.fuel.spend(1).ok()?;
        self.memory.word(address)
    }
}

/// The calls that led to where a guest stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Where it stands, then return addresses, innermost first.
    pub(crate) addresses: Vec<u64>,
    /// How many were left out ...
    pub(crate) omitted: usize,
    /// ... before the one with this index.
    pub(crate) omitted_before: usize,
    /// Whether there were still more, further out.
    pub(crate) unfinished: bool,
}

/// Number of the column for the return address, behind the sixteen general registers
/// (AMD64 supplement, figure 3.36).
const RETURN_ADDRESS: usize = 16;
const RBP: usize = 6;
const RSP: usize = 7;

/// The registers of a frame by their DWARF numbers; those that are not known are `None`.
type Frame = [Option<u64>; RETURN_ADDRESS + 1];

fn innermost(r: &Registers) -> Frame {
    [
        r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15, r.rip,
    ]
    .map(Some)
}

/// How the caller's registers are found from an address on.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// The register, and what to add to it, that give the canonical frame address.
    cfa: (usize, i64),
    saved: [Saved; RETURN_ADDRESS + 1],
    /// Whether it was no call: the caller was interrupted where it stood.
    interrupted: bool,
}

/// Where a caller's register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saved {
    /// Where it was.
    Same,
    /// Nowhere.
    Lost,
    /// In memory, so far from the canonical frame address.
    At(i64),
    /// It is so far from the canonical frame address.
    Is(i64),
    /// In another register.
    In(usize),
}

/// Walks the stack of a guest whose file is `elf`, loaded `bias` bytes above the addresses for
/// which it was linked, as far as the fuel lasts.
pub(crate) fn unwind_with(
    fuel: &Fuel,
    registers: &Registers,
    memory: &dyn Memory,
    elf: Option<&Elf<'_>>,
    bias: u64,
) -> Calls {
    let memory = &Counted { memory, fuel };
    let mut tables = elf.and_then(|elf| Tables::of(elf, fuel));
    let is_code = |address: u64| elf.is_some_and(|elf| elf.is_code(address.wrapping_sub(bias)));
    let mut frame = innermost(registers);
    let mut is_call = false;
    let mut addresses = vec![registers.rip];
    let mut outer = std::collections::VecDeque::new();
    let mut omitted = 0;
    let mut unfinished = false;
    for step in 0_u64.. {
        if fuel.spend(1).is_err() {
            break;
        }
        unfinished = false;
        let Some(address) = frame[RETURN_ADDRESS] else {
            break;
        };
        // A call may be the last instruction of its function: then the address behind it belongs to
        // the next one.
        let lookup = address.wrapping_sub(u64::from(is_call));
        let known = tables
            .as_mut()
            .and_then(|tables| tables.step(lookup.wrapping_sub(bias)));
        let caller = match known {
            Some(known) => apply(&known, &frame, memory),
            // A jump to nowhere. It was most likely a call: where to is wrong, where from is right.
            None if step == 0 && !is_code(address) => called_from(&frame, memory),
            None => by_frame_pointer(&frame, memory),
        };
        let Some(caller) = caller else {
            unfinished = fuel.is_empty();
            break;
        };
        let moved_up = caller[RSP] > frame[RSP];
        let Some(address) = caller[RETURN_ADDRESS].filter(|at| moved_up && is_code(*at)) else {
            unfinished = fuel.is_empty();
            break;
        };
        frame = caller;
        unfinished = true;
        is_call = known.is_none_or(|step| !step.interrupted);
        // Behind the first byte of what was interrupted, as a return address is behind its call.
        let address = address.wrapping_add(u64::from(!is_call));
        if addresses.len() < KEPT_INNER {
            addresses.push(address);
            continue;
        }
        outer.push_back(address);
        if outer.len() > KEPT_OUTER {
            outer.pop_front();
            omitted += 1;
        }
    }
    let omitted_before = addresses.len();
    addresses.extend(outer);
    Calls {
        addresses,
        omitted,
        omitted_before,
        unfinished,
    }
}

/// The caller's registers by the unwind tables.
fn apply(step: &Step, frame: &Frame, memory: &dyn Memory) -> Option<Frame> {
    let (register, offset) = step.cfa;
    let cfa = frame[register]?.wrapping_add_signed(offset);
    let mut caller = Frame::default();
    for (number, to) in caller.iter_mut().enumerate() {
        *to = match step.saved[number] {
            Saved::Same => frame[number],
            Saved::Lost => None,
            Saved::At(offset) => memory.word(cfa.wrapping_add_signed(offset)),
            Saved::Is(offset) => Some(cfa.wrapping_add_signed(offset)),
            Saved::In(other) => frame[other],
        };
    }
    // The stack pointer of the caller is the canonical frame address by definition.
    caller[RSP] = Some(cfa);
    Some(caller)
}

/// The caller's registers right behind a call.
fn called_from(frame: &Frame, memory: &dyn Memory) -> Option<Frame> {
    let rsp = frame[RSP]?;
    let mut caller = *frame;
    caller[RETURN_ADDRESS] = memory.word(rsp);
    caller[RSP] = Some(rsp.wrapping_add(8));
    Some(caller)
}

/// The caller's registers if this function keeps a frame pointer.
fn by_frame_pointer(frame: &Frame, memory: &dyn Memory) -> Option<Frame> {
    let rbp = frame[RBP]?;
    let mut caller = *frame;
    caller[RBP] = memory.word(rbp);
    caller[RETURN_ADDRESS] = memory.word(rbp.wrapping_add(8));
    caller[RSP] = Some(rbp.wrapping_add(16));
    Some(caller)
}

/// The header of the unwind tables, as every linker for this machine writes it: encodings of what
/// follows, a 32-bit distance to the tables, a count, and for each function in order a pair of
/// 32-bit distances from the header, to the function and to its row (Linux Standard Base, Core,
/// 10.6.2). Other encodings are not read.
///
/// Nothing in it can be relied upon: gimli's own search subtracts and multiplies what it finds
/// there without a look at whether that overflows.
#[derive(Clone, Copy, Debug)]
struct Index<'a> {
    /// The header's link-time address.
    address: u64,
    /// The link-time address of the tables.
    frames: u64,
    pairs: &'a [[u8; 8]],
}

impl<'a> Index<'a> {
    /// Version 1, `DW_EH_PE_pcrel | sdata4`, `udata4`, `DW_EH_PE_datarel | sdata4`.
    const ENCODING: [u8; 4] = [1, 0x1B, 0x03, 0x3B];

    fn parse(header: EhFrameHdr<'a>) -> Option<Self> {
        let (encoding, rest) = header.bytes.split_first_chunk::<4>()?;
        let (distance, rest) = rest.split_first_chunk::<4>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        if *encoding != Self::ENCODING {
            return None;
        }
        let count = u32::from_le_bytes(*count) as usize;
        let (pairs, _) = rest.as_chunks::<8>();
        let distance = i64::from(i32::from_le_bytes(*distance));
        Some(Self {
            address: header.address,
            frames: header.address.wrapping_add(4).wrapping_add_signed(distance),
            pairs: pairs.get(..count).unwrap_or(pairs),
        })
    }

    /// Where in the tables the row of the function stands to which an address would belong.
    fn row_of(&self, address: u64) -> Option<usize> {
        let pair = |pair: &[u8; 8]| {
            let [a, b, c, d, e, f, g, h] = *pair;
            let from = |bytes| {
                let distance = i64::from(i32::from_le_bytes(bytes));
                self.address.wrapping_add_signed(distance)
            };
            (from([a, b, c, d]), from([e, f, g, h]))
        };
        let behind = self.pairs.partition_point(|at| pair(at).0 <= address);
        let (_, row) = pair(self.pairs.get(behind.checked_sub(1)?)?);
        usize::try_from(row.checked_sub(self.frames)?).ok()
    }
}

/// Room for what rules there are on this machine, and a few more. A row is copied at each
/// `DW_CFA_remember_state`, for the price of reading one byte.
struct Rows;

impl UnwindContextStorage<usize> for Rows {
    type Rules = [(Register, RegisterRule<usize>); 24];
    type Stack = Box<[UnwindTableRow<usize, Self>; 4]>;
}

/// Most addresses of which it is remembered how to step out.
const MOST_REMEMBERED: usize = 1024;

/// The unwind tables of a file, and what was looked up in them.
struct Tables<'a> {
    index: Index<'a>,
    frames: EhFrame<Metered<'a>>,
    bases: BaseAddresses,
    context: UnwindContext<usize, Rows>,
    /// Recursion comes to the same address again and again.
    steps: HashMap<u64, Option<Step>>,
}

impl<'a> Tables<'a> {
    fn of(elf: &Elf<'a>, fuel: &'a Fuel) -> Option<Self> {
        let index = Index::parse(elf.eh_frame_hdr()?)?;
        Some(Self {
            frames: EhFrame::from(Metered::new(elf.at(index.frames)?, fuel)),
            bases: BaseAddresses::default().set_eh_frame(index.frames),
            index,
            context: UnwindContext::new_in(),
            steps: HashMap::new(),
        })
    }

    /// How to step out of the function at a link-time address.
    fn step(&mut self, address: u64) -> Option<Step> {
        if let Some(step) = self.steps.get(&address) {
            return *step;
        }
        let step = self.look_up(address);
        if self.steps.len() < MOST_REMEMBERED {
            self.steps.insert(address, step);
        }
        step
    }

    fn look_up(&mut self, address: u64) -> Option<Step> {
        let at = EhFrameOffset(self.index.row_of(address)?);
        let function = self
            .frames
            .fde_from_offset(&self.bases, at, EhFrame::cie_from_offset)
            .ok()?;
        if !function.contains(address) {
            return None;
        }
        let row = function
            .unwind_info_for_address(&self.frames, &self.bases, &mut self.context, address)
            .ok()?;
        let general = |register: Register| {
            let number = usize::from(register.0);
            (number < RETURN_ADDRESS).then_some(number)
        };
        // An expression finds the frame of a stub of the dynamic linker; guests have none.
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
            return None;
        };
        let mut saved = [Saved::Same; RETURN_ADDRESS + 1];
        for (number, to) in saved.iter_mut().enumerate() {
            *to = match row.register(Register(number as u16)) {
                None | Some(RegisterRule::SameValue) => Saved::Same,
                Some(RegisterRule::Offset(offset)) => Saved::At(offset),
                Some(RegisterRule::ValOffset(offset)) => Saved::Is(offset),
                Some(RegisterRule::Register(other)) => {
                    general(other).map_or(Saved::Lost, Saved::In)
                }
                Some(_) => Saved::Lost,
            };
        }
        // What no rule names is as it was, except the return address, which is then unknown.
        if saved[RETURN_ADDRESS] == Saved::Same {
            saved[RETURN_ADDRESS] = Saved::Lost;
        }
        Some(Step {
            cfa: (general(register)?, offset),
            saved,
            interrupted: function.is_signal_trampoline(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Symbol;
    use crate::elf::fuel::limits;
    use proptest::prelude::*;

    fn unwind(
        registers: &Registers,
        memory: &dyn Memory,
        elf: Option<&Elf<'_>>,
        bias: u64,
    ) -> Calls {
        unwind_with(&Fuel::new(limits::UNWIND), registers, memory, elf, bias)
    }

    /// Memory of a few words.
    struct Words(HashMap<u64, u64>);

    impl Memory for Words {
        fn word(&self, address: u64) -> Option<u64> {
            self.0.get(&address).copied()
        }
    }

    /// Memory with the same word everywhere below an address.
    struct Everywhere {
        word: u64,
        below: u64,
    }

    impl Memory for Everywhere {
        fn word(&self, address: u64) -> Option<u64> {
            (address < self.below).then_some(self.word)
        }
    }

    /// This test's own file, as good an ELF with unwind tables as any, and the link-time address
    /// of some code in it.
    fn own_file() -> (Vec<u8>, u64) {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let functions = Elf::parse(&file).unwrap().functions();
        // One that the compiler made: those of the C library may say that nobody has called them.
        let own = |symbol: &Symbol<'_>| symbol.name().windows(8).any(|part| part == b"own_file");
        let code = { functions }.find(own).unwrap().addresses.start + 1;
        (file, code)
    }

    #[test]
    fn frame_pointers_are_followed_where_there_are_no_tables() {
        let file = crate::probe::program();
        let elf = Elf::parse(&file).unwrap();
        let entry = u64::from_le_bytes(*file[24..].first_chunk().unwrap());
        let words = [
            (0x1000, 0x1100),
            (0x1008, entry + 1),
            (0x1100, 0x1200),
            (0x1108, entry + 2),
            (0x1200, 0x1000),
            (0x1208, entry + 3),
        ];
        let registers = Registers {
            rip: entry,
            rsp: 0xF00,
            rbp: 0x1000,
            ..Registers::default()
        };
        let calls = unwind(&registers, &Words(words.into()), Some(&elf), 0);
        // The last frame points back down: a loop is not followed.
        assert_eq!(calls.addresses, [entry, entry + 1, entry + 2, entry + 3]);
    }

    #[test]
    fn a_jump_to_nowhere_came_from_its_return_address() {
        let file = crate::probe::program();
        let elf = Elf::parse(&file).unwrap();
        let entry = u64::from_le_bytes(*file[24..].first_chunk().unwrap());
        let registers = Registers {
            rip: 0,
            rsp: 0xF00,
            ..Registers::default()
        };
        let words = Words([(0xF00, entry + 2)].into());
        let calls = unwind(&registers, &words, Some(&elf), 0);
        assert_eq!(calls.addresses, [0, entry + 2]);
    }

    #[test]
    fn a_stack_without_end_has_a_backtrace_with_one() {
        let (file, at) = own_file();
        let elf = Elf::parse(&file).unwrap();
        let registers = Registers {
            rip: at,
            rsp: 0x1000,
            ..Registers::default()
        };
        let memory = Everywhere {
            word: at,
            below: u64::MAX,
        };
        let calls = unwind(&registers, &memory, Some(&elf), 0);
        assert_eq!(calls.addresses.len(), KEPT_INNER + KEPT_OUTER);
        assert_eq!(calls.omitted_before, KEPT_INNER);
        assert!(calls.unfinished);
    }

    /// Any registers, any stack, damaged tables: there is an end, and no panic.
    #[test]
    fn any_stack_and_any_tables_can_be_walked() {
        let (file, code) = own_file();
        let tables = {
            let header = Elf::parse(&file).unwrap().eh_frame_hdr().unwrap();
            let start = header.bytes.as_ptr().addr() - file.as_ptr().addr();
            start..start + header.bytes.len() + 0x1000
        };
        let damage = proptest::collection::vec((tables, any::<u8>()), 0..64);
        let input = (any::<[u64; 4]>(), any::<u64>(), damage);
        let file = std::cell::RefCell::new(file);
        proptest::test_runner::TestRunner::default()
            .run(&input, |([rip, rsp, rbp, rbx], word, damage)| {
                let mut file = file.borrow_mut();
                let swap = |file: &mut Vec<u8>, (at, value): &(usize, u8)| {
                    (*at, std::mem::replace(&mut file[*at], *value))
                };
                let undo: Vec<_> = damage.iter().map(|one| swap(&mut file, one)).collect();
                {
                    let elf = Elf::parse(&file).unwrap();
                    for (rip, word) in [(rip, word), (code, word), (rip, code), (code + 7, code)] {
                        let registers = Registers {
                            rip,
                            rsp,
                            rbp,
                            rbx,
                            ..Registers::default()
                        };
                        let memory = Everywhere {
                            word,
                            below: rsp.saturating_add(0x2000),
                        };
                        let calls = unwind(&registers, &memory, Some(&elf), 0);
                        prop_assert!(calls.addresses.len() <= KEPT_INNER + KEPT_OUTER);
                    }
                }
                undo.iter().rev().for_each(|one| {
                    swap(&mut file, one);
                });
                Ok(())
            })
            .unwrap();
    }
}
