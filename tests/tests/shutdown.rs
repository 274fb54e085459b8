//! A processor that gives up: what is told of it, and who is said to be at fault.
//!
//! No guest can bring it about, so this file does: its own `ioctl` stands before the C library's, and
//! changes what the host wrote before a guest's first instruction. KVM and the processor, or what
//! emulates it, do the rest.

use std::cell::Cell;
use std::ffi::{c_int, c_ulong, c_void};
use std::os::fd::RawFd;

use kvm_bindings::{KVM_EXIT_SHUTDOWN, kvm_run, kvm_sregs, kvm_userspace_memory_region};
use wakebox::{Cause, Error, Fault, FaultKind, Outcome, Registers, Sandbox, Shutdown, Stack};
use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_tests::elf::{CODE, Elf};
use wakebox_tests::{is_qemu, kvm_test, require_kvm, runtime};

/// `KVM_SET_USER_MEMORY_REGION` (KVM API, 4.35).
const SET_MEMORY: c_ulong = 0x4020_AE46;
/// `KVM_RUN` (KVM API, 4.10).
const RUN: c_ulong = 0xAE80;
/// `KVM_GET_SREGS` and `KVM_SET_SREGS` (KVM API, 4.13 and 4.14).
const GET_SREGS: c_ulong = 0x8138_AE83;
const SET_SREGS: c_ulong = 0x4138_AE84;

/// `ud2`, and before it what shows that registers are told.
const GUEST: [u8; 7] = [0xB8, 0x67, 0x45, 0x23, 0x01, 0x0F, 0x0B];
/// Where its `ud2` is.
const UD2: u64 = CODE + 5;

const INVALID_OPCODE: u64 = 6;
const DOUBLE_FAULT: u64 = 8;
/// What comes of a gate that is not present.
const NOT_PRESENT: u64 = 11;
const PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;

thread_local! {
    /// Of the machine that this thread has made last.
    static MEMORY: Cell<kvm_userspace_memory_region> = Cell::default();
    /// What happens when it is about to run for the first time.
    static BEFORE: Cell<Option<Before>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
enum Before {
    /// This is done to the machine.
    Change(fn(&Machine)),
    /// It does not run: KVM says that its processor has shut down.
    ShutDown,
}

/// Stands before the C library's function of this name, in this program.
///
/// # Safety
///
/// As for the system call.
#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if request == SET_MEMORY {
        // SAFETY: the caller's promise: this request's argument is this structure.
        MEMORY.set(unsafe { argument.cast::<kvm_userspace_memory_region>().read() });
    }
    let before = (request == RUN).then(|| BEFORE.take()).flatten();
    let machine = Machine(fd);
    match before {
        Some(Before::ShutDown) => {
            machine.pretend(KVM_EXIT_SHUTDOWN);
            return 0;
        }
        Some(Before::Change(change)) => change(&machine),
        None => {}
    }
    // SAFETY: the caller's promise.
    unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) as c_int }
}

/// A machine that does not run at the moment, by its processor's descriptor.
struct Machine(RawFd);

impl Machine {
    fn sregs(&self) -> kvm_sregs {
        let mut sregs = kvm_sregs::default();
        // SAFETY: the request writes this structure.
        let done = unsafe { libc::syscall(libc::SYS_ioctl, self.0, GET_SREGS, &raw mut sregs) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        sregs
    }

    fn set_sregs(&self, sregs: &kvm_sregs) {
        // SAFETY: the request reads this structure.
        let done = unsafe { libc::syscall(libc::SYS_ioctl, self.0, SET_SREGS, &raw const *sregs) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// A word of its memory, by guest-physical address.
    fn word(&self, physical: u64) -> *mut u64 {
        let memory = MEMORY.get();
        let offset = physical - memory.guest_phys_addr;
        assert!(offset + 8 <= memory.memory_size && offset.is_multiple_of(8));
        (memory.userspace_addr + offset) as *mut u64
    }

    fn read(&self, physical: u64) -> u64 {
        // SAFETY: the word lies in the guest's memory, which the sandbox that is being run keeps.
        unsafe { self.word(physical).read_volatile() }
    }

    fn write(&self, physical: u64, value: u64) {
        // SAFETY: as for `read`.
        unsafe { self.word(physical).write_volatile(value) }
    }

    /// Where the entry lies that maps a page: four levels, small pages.
    fn entry_of(&self, virt: u64) -> u64 {
        const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
        let at = |table: u64, level: u32| table + (virt >> (12 + 9 * level) & 511) * 8;
        let mut table = self.sregs().cr3;
        for level in [3, 2, 1] {
            table = self.read(at(table, level)) & ADDRESS;
        }
        at(table, 0)
    }

    /// Where the gate of a vector lies.
    fn gate(&self, vector: u64) -> u64 {
        let (idt, memory) = (self.sregs().idt.base, MEMORY.get());
        // The descriptors' page is the first of the supervisor's and of memory.
        memory.guest_phys_addr + (idt - layout::SUPERVISOR) + vector * 16
    }

    fn close_gates(&self, vectors: &[u64]) {
        const PRESENT: u64 = 1 << 47;
        for vector in vectors {
            let gate = self.gate(*vector);
            self.write(gate, self.read(gate) & !PRESENT);
        }
    }

    /// Has the next look at why the guest was left find this.
    fn pretend(&self, reason: u32) {
        const LEN: usize = 4096;
        // SAFETY: a new mapping of the page that this processor shares with its user; it is written
        // before anybody else looks at it again, and given back.
        unsafe {
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            let page = libc::mmap(
                std::ptr::null_mut(),
                LEN,
                rights,
                libc::MAP_SHARED,
                self.0,
                0,
            );
            assert_ne!(page, libc::MAP_FAILED);
            (*page.cast::<kvm_run>()).exit_reason = reason;
            libc::munmap(page, LEN);
        }
    }
}

/// Runs the guest in a machine to which something happens.
fn run(before: Before) -> Result<Outcome, Error> {
    require_kvm();
    let mut sandbox = Sandbox::builder()
        .guest(Elf::guest(&GUEST).to_bytes())
        .memory(4 << 20)
        .wake(wakebox::WakeMode::Out)
        .build()
        .unwrap();
    BEFORE.set(Some(before));
    let ended = runtime().block_on(sandbox.run());
    assert!(BEFORE.take().is_none(), "the guest has not run");
    ended
}

/// How it ends if something is changed.
fn fault(change: fn(&Machine)) -> (Fault, Shutdown) {
    let fault = match run(Before::Change(change)).unwrap() {
        Outcome::Fault(fault) => *fault,
        other => panic!("{other}"),
    };
    assert_eq!(
        (fault.kind, fault.cause()),
        (FaultKind::TripleFault, Cause::Shutdown)
    );
    let shutdown = *fault.shutdown.clone().expect("what is left of it");
    // Of the kinds of KVM, that for AMD-V alone resets the processor, and only then are there no
    // registers.
    if is_qemu() {
        assert!(shutdown.reset);
    }
    if shutdown.reset {
        assert_eq!(fault.registers, Registers::default());
        assert!(fault.to_string().contains("has reset the processor"));
    } else {
        assert_eq!(
            (fault.registers.rip, fault.registers.rax),
            (UD2, 0x0123_4567)
        );
        assert_eq!(fault.instruction.bytes(), [0x0F, 0x0B]);
        assert!(fault.to_string().contains(&format!("{UD2:#x}")));
    }
    (fault, shutdown)
}

fn names(shutdown: &Shutdown) -> Vec<&str> {
    let names = shutdown.changed.iter().map(|change| &*change.what);
    names.collect()
}

#[kvm_test]
fn where_nothing_has_changed_the_host_is_at_fault() {
    let error = run(Before::ShutDown).unwrap_err();
    assert!(matches!(error, Error::KvmStopped(_)), "{error:?}");
    let text = error.to_string();
    for words in [
        "triple fault at 0x100000",
        "is as it was written",
        "the host's KVM has failed",
        "dmesg",
    ] {
        assert!(text.contains(words), "expected `{words}` in: {text}");
    }
}

#[kvm_test]
fn gates_that_were_closed_are_named() {
    let (fault, shutdown) = fault(|machine| {
        machine.close_gates(&[INVALID_OPCODE, DOUBLE_FAULT, NOT_PRESENT, PROTECTION]);
    });
    let gates = [6, 8, 11, 13].map(|vector| format!("the gate of vector {vector}"));
    assert_eq!(names(&shutdown), gates);
    for change in &shutdown.changed {
        assert_eq!(change.was ^ change.is, 1 << 47, "{change}");
    }
    let text = fault.to_string();
    assert!(text.starts_with("triple fault, "), "{text}");
    assert!(text.contains("the gate of vector 6 was 0x"), "{text}");
    let json = serde_json::to_value(Outcome::Fault(Box::new(fault))).unwrap();
    assert_eq!(json["detail"]["cause"], "shutdown");
    let told = &json["detail"]["shutdown"];
    assert_eq!(told["reset"], shutdown.reset);
    assert_eq!(told["changed"][0]["what"], gates[0]);
}

#[kvm_test]
fn a_frame_that_the_processor_has_kept_is_told() {
    let (_, shutdown) = fault(|machine| {
        machine.close_gates(&[DOUBLE_FAULT, NOT_PRESENT, PROTECTION, PAGE_FAULT]);
        // To a page where nothing is, and is called from ring 0.
        let nowhere = layout::SUPERVISOR + 2 * PAGE_SIZE;
        let gate = machine.gate(INVALID_OPCODE);
        let low = machine.read(gate) & 0x0000_ffff_ffff_0000;
        machine.write(
            gate,
            low | nowhere & 0xffff | (nowhere >> 16 & 0xffff) << 48,
        );
        machine.write(gate + 8, nowhere >> 32);
    });
    assert_eq!(names(&shutdown)[0], "the gate of vector 6");
    let frame = shutdown.frames.first().expect("a frame");
    assert_eq!((frame.stack, frame.rip), (Stack::Ring0, UD2));
    assert_eq!(frame.cs & 3, 3);
}

#[kvm_test]
fn a_register_that_was_changed_is_named_where_kvm_still_has_it() {
    let shut = |machine: &Machine| {
        let mut sregs = machine.sregs();
        sregs.idt.limit = 0;
        machine.set_sregs(&sregs);
    };
    match run(Before::Change(shut)) {
        Ok(Outcome::Fault(fault)) => {
            let shutdown = fault.shutdown.expect("what is left of it");
            assert!(!shutdown.reset);
            assert_eq!(names(&shutdown), ["the limit of the IDT"]);
        }
        // Memory is as it was, and the register is gone.
        Err(Error::KvmStopped(text)) => {
            assert!(text.contains("it has reset the processor"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[kvm_test]
fn page_table_entries_that_were_changed_are_named() {
    let (_, shutdown) = fault(|machine| {
        // The ring-0 stack and that of double faults.
        for page in [3, 5] {
            machine.write(machine.entry_of(layout::SUPERVISOR + page * PAGE_SIZE), 0);
        }
    });
    let names = names(&shutdown);
    assert_eq!(names.len(), 2, "{names:?}");
    for (name, entry) in names.iter().zip([3, 5]) {
        assert!(
            name.starts_with(&format!("entry {entry} of page table ")),
            "{name}"
        );
    }
    assert!(shutdown.changed.iter().all(|change| change.is == 0));
}
