//! Machines on the real KVM: what they hold is set as a whole, and nothing of what was there is left.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_segment, kvm_xsave};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use wakebox_abi::layout::{self, PAGE_SIZE};
use wakebox_abi::port;
use wakebox_vmm::Error;
use wakebox_vmm::backing::{Backing, Template};
use wakebox_vmm::machine::Machine;
use wakebox_vmm::memory::GuestMemory;
use wakebox_vmm::vcpu::{End, Exit};

use common::{START, content, left, plan, ring};

/// What a guest may use, in bytes.
const MEMORY: u64 = 2 << 20;

/// Model-specific registers, and a value that none of them has at the beginning.
const MODEL_SPECIFIC: [(u32, u64); 9] = [
    (0x174, 0x8),                         // IA32_SYSENTER_CS
    (0x175, 0x1000),                      // IA32_SYSENTER_ESP
    (0x176, 0x2000),                      // IA32_SYSENTER_EIP
    (0x277, 0x0606_0606_0606_0606),       // IA32_PAT
    (0xc000_0081, 0x0013_0008_0000_0000), // STAR
    (0xc000_0082, 0x3000),                // LSTAR
    (0xc000_0083, 0x4000),                // CSTAR
    (0xc000_0084, 0x200),                 // FMASK
    (0xc000_0102, 0x5000),                // KERNEL_GS_BASE
];

/// Memory of a guest that is made of this code, at [`START`].
fn memory_with(code: &[u8]) -> Arc<GuestMemory> {
    let memory = GuestMemory::new(plan(MEMORY)).unwrap();
    memory.write_tables();
    memory.write(memory.plan().image_offset(START), code);
    memory
}

/// A file with this content that is sealed so.
fn sealed(content: &[u8], seals: SealFlags) -> Arc<File> {
    let file = memfd_create(
        "wakebox-test",
        MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC,
    );
    let file = File::from(file.unwrap());
    file.write_all_at(content, 0).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    Arc::new(file)
}

/// A machine whose guest is about to begin with this code.
fn machine_with(code: &[u8]) -> Machine {
    let mut machine = Machine::new(&memory_with(code)).unwrap();
    machine
        .start(START, layout::STACK + PAGE_SIZE - 64)
        .unwrap();
    machine
}

/// `in al, PORT`.
fn read(port: u16) -> [u8; 2] {
    [0xe4, port as u8]
}

/// Gives every register another value. Returns those of which KVM knows none.
fn change_everything(machine: &mut Machine) -> Vec<&'static str> {
    let mut fixed = Vec::new();
    let vcpu = machine.vcpu_mut().opened().unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    for register in [
        &mut regs.rax,
        &mut regs.rbx,
        &mut regs.rcx,
        &mut regs.rdx,
        &mut regs.rsi,
        &mut regs.rdi,
        &mut regs.rsp,
        &mut regs.rbp,
        &mut regs.r8,
        &mut regs.r9,
        &mut regs.r10,
        &mut regs.r11,
        &mut regs.r12,
        &mut regs.r13,
        &mut regs.r14,
        &mut regs.r15,
        &mut regs.rip,
    ] {
        *register ^= 0x5ec2_e7f0;
    }
    regs.rflags ^= 0x8d5;
    vcpu.set_regs(&regs).unwrap();

    let mut sregs = vcpu.get_sregs().unwrap();
    let change = |segment: &mut kvm_segment| segment.base ^= 0x1234_5000;
    for segment in [&mut sregs.fs, &mut sregs.gs, &mut sregs.tr] {
        change(segment);
    }
    sregs.gdt.base ^= 0x1000;
    sregs.gdt.limit ^= 0x0f;
    sregs.idt.base ^= 0x1000;
    sregs.idt.limit ^= 0x0f;
    sregs.cr2 ^= 0xdead_f000;
    sregs.cr3 ^= 0x1000;
    sregs.cr4 ^= 1 << 2;
    // As if an interrupt had been injected and not been delivered.
    sregs.interrupt_bitmap[0] = 1 << 33;
    vcpu.set_sregs(&sregs).unwrap();

    let mut xsave = kvm_xsave {
        region: vcpu.get_xsave().unwrap().region,
        ..Default::default()
    };
    // Control words, the x87 registers, the SSE registers; and says that both are in use.
    xsave.region[0] = 0x27f;
    xsave.region[6] = 0x1fa0;
    for (index, word) in xsave.region[8..104].iter_mut().enumerate() {
        // Ten bytes of the sixteen of an x87 register are there.
        if index >= 32 || index % 4 < 2 {
            *word = 0x5ec2_e700 + index as u32;
        }
    }
    xsave.region[128] |= 0b11;
    // SAFETY: it is as large as what KVM gave.
    unsafe { vcpu.set_xsave(&xsave) }.unwrap();

    let mut xcrs = vcpu.get_xcrs().unwrap();
    xcrs.xcrs[0].value = if xcrs.xcrs[0].value == 1 { 0b11 } else { 1 };
    if vcpu.set_xcrs(&xcrs).is_err() {
        fixed.push("xcr0");
    }

    let mut debug = vcpu.get_debug_regs().unwrap();
    debug.db = [0x1000, 0x2000, 0x3000, 0x4000];
    debug.dr6 ^= 0b1111;
    debug.dr7 ^= 0b1010_1010;
    vcpu.set_debug_regs(&debug).unwrap();

    for (index, data) in MODEL_SPECIFIC {
        let entry = kvm_msr_entry {
            index,
            data,
            ..Default::default()
        };
        let set = vcpu.set_msrs(&Msrs::from_entries(&[entry]).unwrap());
        assert_eq!(set.unwrap(), 1, "{index:#x}");
    }

    let mut events = vcpu.get_vcpu_events().unwrap();
    events.nmi.masked ^= 1;
    events.interrupt.shadow ^= 1;
    events.exception.injected = 1;
    events.exception.nr = 13;
    events.exception.has_error_code = 1;
    events.exception.error_code = 0x5ec2;
    vcpu.set_vcpu_events(&events).unwrap();
    fixed
}

/// What KVM shows of a processor, by name.
fn shown(machine: &mut Machine) -> BTreeMap<String, u64> {
    let vcpu = machine.vcpu_mut().opened().unwrap();
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: u64| {
        assert_eq!(all.insert(name.to_owned(), value), None, "{name}");
    };
    let regs = vcpu.get_regs().unwrap();
    put("rax", regs.rax);
    put("rbx", regs.rbx);
    put("rcx", regs.rcx);
    put("rdx", regs.rdx);
    put("rsi", regs.rsi);
    put("rdi", regs.rdi);
    put("rsp", regs.rsp);
    put("rbp", regs.rbp);
    put("r8", regs.r8);
    put("r9", regs.r9);
    put("r10", regs.r10);
    put("r11", regs.r11);
    put("r12", regs.r12);
    put("r13", regs.r13);
    put("r14", regs.r14);
    put("r15", regs.r15);
    put("rip", regs.rip);
    put("rflags", regs.rflags);
    let sregs = vcpu.get_sregs().unwrap();
    put("fs", sregs.fs.base);
    put("gs", sregs.gs.base);
    put("tr", sregs.tr.base);
    put("gdt", sregs.gdt.base);
    put("gdt limit", sregs.gdt.limit.into());
    put("idt", sregs.idt.base);
    put("idt limit", sregs.idt.limit.into());
    put("cr2", sregs.cr2);
    put("cr3", sregs.cr3);
    put("cr4", sregs.cr4);
    put("interrupt", sregs.interrupt_bitmap[0]);
    for (index, word) in vcpu.get_xsave().unwrap().region.iter().enumerate() {
        put(&format!("xsave {index}"), (*word).into());
    }
    put("xcr0", vcpu.get_xcrs().unwrap().xcrs[0].value);
    let debug = vcpu.get_debug_regs().unwrap();
    for (index, address) in debug.db.iter().enumerate() {
        put(&format!("db{index}"), *address);
    }
    put("dr6", debug.dr6);
    put("dr7", debug.dr7);
    let events = vcpu.get_vcpu_events().unwrap();
    put("nmi masked", events.nmi.masked.into());
    put("interrupt shadow", events.interrupt.shadow.into());
    put("exception", events.exception.injected.into());
    put("exception number", events.exception.nr.into());
    put("exception code", events.exception.error_code.into());
    for (number, _) in MODEL_SPECIFIC {
        let entry = kvm_msr_entry {
            index: number,
            ..Default::default()
        };
        let mut entries = Msrs::from_entries(&[entry]).unwrap();
        assert_eq!(vcpu.get_msrs(&mut entries).unwrap(), 1, "{number:#x}");
        put(&format!("msr {number:#x}"), entries.as_slice()[0].data);
    }
    all
}

#[test]
fn whatever_a_processor_held_it_holds_the_state_that_it_is_given() {
    let mut machine = machine_with(&ring(port::SUBMIT));
    let first = machine.state().unwrap();
    assert_eq!(machine.state().unwrap(), first, "to look changes nothing");
    let before = shown(&mut machine);
    let fixed = change_everything(&mut machine);
    let changed = shown(&mut machine);
    // What is left as it was is not tested: of XSAVE the words that stand for nothing here.
    let kept = |name: &&String| before[*name] == changed[*name];
    let (vectors, kept): (Vec<_>, Vec<_>) = before
        .keys()
        .filter(kept)
        .partition(|name| name.starts_with("xsave "));
    assert_eq!(kept, fixed);
    let words = before.keys().filter(|name| name.starts_with("xsave "));
    assert!(words.count() - vectors.len() >= 80, "{vectors:?}");
    machine.restore(&first).unwrap();
    assert_eq!(shown(&mut machine), before);
    assert_eq!(machine.state().unwrap(), first);
    assert!(matches!(left(&mut machine), Exit::Submit));
    // Once more, without what no guest changes; and once without a look in between.
    for looks in [true, false] {
        machine.restore(&first).unwrap();
        if looks {
            assert_eq!(machine.vcpu().registers().unwrap().rip, before["rip"]);
            assert_eq!(machine.state().unwrap(), first);
        }
        assert!(matches!(left(&mut machine), Exit::Submit));
    }
}

#[test]
fn a_guest_goes_on_in_another_machine_where_it_stood() {
    // mov ebx, 7; in al, SUBMIT or out SUBMIT, al; add ebx, 1; out WAIT, al
    for instruction in [read(port::SUBMIT), ring(port::SUBMIT)] {
        let code = [
            &[0xbb, 7, 0, 0, 0],
            &instruction[..],
            &[0x83, 0xc3, 1],
            &ring(port::WAIT),
        ]
        .concat();
        let mut one = machine_with(&code);
        left(&mut one);
        let state = one.state().unwrap();
        let mut other = Machine::new(&memory_with(&code)).unwrap();
        other.restore(&state).unwrap();
        assert_eq!(other.state().unwrap(), state);
        for machine in [&mut one, &mut other] {
            assert!(matches!(left(machine), Exit::Wait));
            assert_eq!(machine.vcpu().registers().unwrap().rbx, 8);
        }
    }
}

#[test]
fn what_a_guest_was_about_to_do_is_not_done_in_the_state_of_another() {
    // `in al, SUBMIT` is not completed when the guest is left, and `out SUBMIT, al` is not everywhere. In
    // a state that stands at the same instruction, KVM would believe that it has been executed.
    for instruction in [read(port::SUBMIT), ring(port::SUBMIT)] {
        let code = [instruction, ring(port::WAIT)].concat();
        let mut machine = machine_with(&code);
        let first = machine.state().unwrap();
        let at = machine.vcpu().registers().unwrap();
        for _ in 0..3 {
            let exit = left(&mut machine);
            assert!(
                matches!(exit, Exit::Submit | Exit::End(End::Violation(_))),
                "{exit:?}"
            );
            machine.restore(&first).unwrap();
            assert_eq!(machine.vcpu().registers().unwrap(), at);
        }
    }
}

#[test]
fn a_machine_whose_guest_writes_strings_to_a_port_is_set_anew() {
    // mov esi, START; mov ecx, -1; mov edx, SUBMIT; rep outsb
    let code = [
        &[0xbe][..],
        &(START as u32).to_le_bytes(),
        &[0xb9, 0xff, 0xff, 0xff, 0xff, 0xba],
        &u32::from(port::SUBMIT).to_le_bytes(),
        &[0xf3, 0x6e],
    ]
    .concat();
    let mut machine = machine_with(&code);
    let first = machine.state().unwrap();
    for _ in 0..3 {
        let exit = left(&mut machine);
        assert!(
            matches!(exit, Exit::Submit | Exit::End(End::Exception(_))),
            "{exit:?}"
        );
        machine.restore(&first).unwrap();
        assert_eq!(machine.state().unwrap(), first);
    }
}

#[test]
fn an_interrupt_that_was_wanted_is_a_part_of_the_state() {
    let mut machine = machine_with(&ring(port::SUBMIT));
    let first = machine.state().unwrap();
    machine.vcpu_mut().interrupt();
    let wanted = machine.state().unwrap();
    assert_ne!(wanted, first);
    machine.restore(&first).unwrap();
    assert!(!machine.vcpu_mut().inject().unwrap());
    machine.restore(&wanted).unwrap();
    assert_eq!(machine.state().unwrap(), wanted);
}

#[test]
fn a_file_is_placed_where_the_plan_has_it_and_nowhere_else() {
    let file = |physical: u64| {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32] = 64; // Where the program header is,
        file[54] = 56; // its length,
        file[56] = 1; // and that there is one.
        file[64] = 1; // PT_LOAD
        let size = 4;
        let offset = file.len() as u64;
        for (at, value) in [(8, offset), (24, physical), (32, size), (40, size)] {
            file[64 + at..][..8].copy_from_slice(&value.to_le_bytes());
        }
        file.extend(b"code");
        file
    };
    let memory = memory_with(&[]);
    let before = content(&memory);
    let end = START + PAGE_SIZE;
    for physical in [0, START - 4, end - 3, end, u64::MAX - 3] {
        let refused = memory.place(&file(physical), 0).unwrap_err();
        assert_eq!(
            refused.kind(),
            std::io::ErrorKind::InvalidData,
            "{physical:#x}"
        );
        let after = content(&memory);
        let image = memory.plan().image.offset as usize;
        let behind = image + PAGE_SIZE as usize;
        assert!(after[..image] == before[..image] && after[behind..] == before[behind..]);
    }
    memory.place(&file(0x40), START).unwrap();
    let mut placed = [0; 4];
    memory.read(memory.plan().image_offset(START + 0x40), &mut placed);
    assert_eq!(&placed, b"code");
}

/// Seals of a template: nobody can write it or make it shorter.
const TEMPLATE: SealFlags = SealFlags::WRITE.union(SealFlags::SHRINK);

#[test]
fn what_is_written_over_a_template_is_seen_by_nobody_else() {
    let code = ring(port::SUBMIT);
    let whole = content(&memory_with(&code));
    let file = sealed(&whole, TEMPLATE);
    let backing = Backing::Template(Template::new(file.clone()));
    let [one, other] = [(); 2].map(|()| GuestMemory::on(&backing, plan(MEMORY)).unwrap());
    assert!(content(&one) == whole, "it begins as the template");
    one.write(one.plan().heap.offset, b"secret");
    let mut read = [0; 6];
    one.read(one.plan().heap.offset, &mut read);
    assert_eq!(&read, b"secret");
    assert!(content(&other) == whole, "another has its own");
    let mut left = vec![0; whole.len()];
    file.read_exact_at(&mut left, 0).unwrap();
    assert!(left == whole, "the template is as it was");
}

#[test]
fn a_guest_goes_on_over_a_template_as_often_as_one_likes() {
    // add dword ptr [HEAP], 1; out SUBMIT, al; add dword ptr [HEAP], 1; out WAIT, al
    let count = [
        &[0x48, 0xb8][..],
        &layout::HEAP.to_le_bytes(),
        &[0x83, 0x00, 1],
    ]
    .concat();
    let code = [&count[..], &ring(port::SUBMIT), &count, &ring(port::WAIT)].concat();
    let mut first = machine_with(&code);
    assert!(matches!(left(&mut first), Exit::Submit));
    let state = first.state().unwrap();
    let file = sealed(&content(first.memory()), TEMPLATE);
    let backing = Backing::Template(Template::new(file));
    for _ in 0..3 {
        let memory = GuestMemory::on(&backing, plan(MEMORY)).unwrap();
        let mut clone = Machine::new(&memory).unwrap();
        clone.restore(&state).unwrap();
        assert!(matches!(left(&mut clone), Exit::Wait));
        let mut counted = [0; 4];
        memory.read(memory.plan().heap.offset, &mut counted);
        assert_eq!(u32::from_le_bytes(counted), 2);
    }
}

#[test]
fn a_file_that_others_may_shorten_or_write_is_no_memory() {
    let refused = |file: Arc<File>| {
        let backing = Backing::Template(Template::new(file));
        match GuestMemory::on(&backing, plan(MEMORY)) {
            Err(Error::Map { source, .. }) => assert_eq!(
                source.kind(),
                std::io::ErrorKind::InvalidInput,
                "{backing:?}: {source}"
            ),
            other => panic!("{backing:?}: {other:?}"),
        }
    };
    let whole = vec![0; plan(MEMORY).ram as usize];
    for seals in [SealFlags::empty(), SealFlags::SHRINK, SealFlags::WRITE] {
        refused(sealed(&whole, seals));
    }
    refused(Arc::new(File::open("/proc/self/exe").unwrap()));
    refused(sealed(&whole[1..], TEMPLATE));
    refused(sealed(&[], TEMPLATE));
}

/// What the kernel is told of a mapping: `VmFlags` in proc_pid_smaps(5), of the range at an address.
fn flags_at(address: u64) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_inside = false;
    for line in smaps.lines() {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        if let Some((start, end)) = range
            && let (Ok(start), Ok(end)) =
                (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            is_inside = (start..end).contains(&address);
        }
        if let (true, Some(flags)) = (is_inside, line.strip_prefix("VmFlags:")) {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("nothing is mapped at {address:#x}");
}

#[test]
fn a_small_guest_has_no_huge_pages_even_where_all_get_them() {
    const LARGE: u64 = layout::LARGE_PAGE_SIZE;
    let memory = GuestMemory::new(plan(8 * LARGE)).unwrap();
    let (start, len) = memory.host_range();
    let heap = start + memory.plan().heap.offset;
    for (address, flag) in [
        (start, "nh"),
        (heap + LARGE - 1, "nh"),
        (heap + LARGE, "hg"),
        (start + len - 1, "hg"),
    ] {
        let flags = flags_at(address);
        // A kernel without huge pages takes no advice on them.
        let has_them = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert_eq!(
            flags.iter().any(|has| has == flag),
            has_them,
            "{flag}: {flags:?}"
        );
    }
}
