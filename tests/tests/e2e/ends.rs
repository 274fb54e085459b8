//! How a guest ended: kind, address, place in the source, the calls that led there, and a file for
//! a debugger. Places are found by `MARK` comments in the guests' sources.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use wakebox::{Backtrace, Cause, Fault, FaultKind, Outcome, Panic, Sandbox};
use wakebox_abi::layout;
use wakebox_tests::programs::program;
use wakebox_tests::{guest, guest_debug, is_qemu, kvm_test, require_kvm, root, run};

/// Both builds of a guest.
fn builds(name: &str) -> [PathBuf; 2] {
    [guest_debug(name), guest(name)]
}

/// The line of a probe's source with this mark.
#[track_caller]
pub(crate) fn marked(probe: &str, mark: &str) -> u32 {
    let path = root().join(format!("tests/guests/probes/src/bin/{probe}.rs"));
    let source = std::fs::read_to_string(path).expect("the probe's source");
    let comment = format!("// MARK {mark}");
    let at = source.lines().position(|line| line.ends_with(&comment));
    at.unwrap_or_else(|| panic!("no `{comment}` in {probe}.rs")) as u32 + 1
}

#[track_caller]
fn fault_of(guest: &Path, case: &str) -> Box<Fault> {
    match run(Sandbox::builder().guest(guest).args([case])).outcome {
        Outcome::Fault(fault) => fault,
        other => panic!("{case} in {}: expected a fault: {other}", guest.display()),
    }
}

#[track_caller]
fn panic_of(guest: &Path, case: &str) -> Box<Panic> {
    match run(Sandbox::builder().guest(guest).args([case])).outcome {
        Outcome::Panic(panic) => panic,
        other => panic!("{case} in {}: expected a panic: {other}", guest.display()),
    }
}

/// Expects a frame of a function whose name has this part, at a marked line.
#[track_caller]
fn has_frame(backtrace: &Backtrace, function: &str, probe: &str, mark: &str) {
    let line = marked(probe, mark);
    let file = format!("{probe}.rs");
    let found = backtrace.user_frames().iter().any(|frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        let path = frame.file.as_deref().unwrap_or_default();
        name.contains(function) && path.ends_with(&file) && frame.line == Some(line)
    });
    assert!(found, "no `{function}` at line {line} in:\n{backtrace}");
}

#[kvm_test]
fn a_fault_names_its_cause_its_address_and_its_place_in_the_source() {
    use Cause as C;
    let null = Some(0);
    for (case, cause, address, function) in [
        ("null", C::NullDereference, null, "fault::null"),
        ("null-call", C::NullDereference, null, "fault::null_call"),
        (
            "write-rodata",
            C::WriteToReadOnly,
            None,
            "fault::write_rodata",
        ),
        ("exec-data", C::ExecutionOfData, None, "fault::exec_data"),
        (
            "unmapped",
            C::NotMapped,
            Some(0x3000_0000),
            "fault::unmapped",
        ),
        (
            "supervisor",
            C::Supervisor,
            Some(layout::SUPERVISOR),
            "fault::supervisor",
        ),
        ("div-zero", C::DivideError, None, "fault::div_zero"),
        ("ud2", C::IllegalInstruction, None, "fault::ud2"),
        ("cli", C::GeneralProtection, None, "fault::cli"),
        ("port", C::GeneralProtection, None, "fault::port"),
        (
            "not-canonical",
            C::GeneralProtection,
            None,
            "fault::not_canonical",
        ),
        ("x87", C::FloatingPoint, None, "fault::x87"),
        ("simd", C::FloatingPoint, None, "fault::simd"),
        ("no-stack", C::IllegalInstruction, None, "fault::no_stack"),
        (
            "looped-stack",
            C::IllegalInstruction,
            None,
            "fault::looped_stack",
        ),
    ] {
        // There, ring 3 may use any port and switch interrupts off, and #XM is not raised.
        if is_qemu() && ["cli", "port", "simd"].contains(&case) {
            continue;
        }
        for guest in builds("fault") {
            let fault = fault_of(&guest, case);
            assert_eq!(fault.cause(), cause, "{case}: {fault}");
            if address.is_some() {
                assert_eq!(fault.address, address, "{case}");
            }
            has_frame(&fault.backtrace, function, "fault", case);
            let frame = fault.backtrace.location().expect("a location");
            assert_eq!(
                frame.line,
                Some(marked("fault", case)),
                "{case}:\n{}",
                fault.backtrace
            );
        }
    }
}

#[kvm_test]
fn a_single_step_is_a_debug_exception() {
    for guest in builds("fault") {
        let fault = fault_of(&guest, "trap");
        assert_eq!(
            (fault.kind, fault.cause()),
            (FaultKind::Debug, Cause::Debug)
        );
        let names: Vec<_> = fault.backtrace.frames().iter().collect();
        let name = names[0].function.as_deref();
        assert_eq!(name, Some("fault::trap"), "{}", fault.backtrace);
    }
}

#[kvm_test]
fn an_instruction_is_shown_as_bytes_and_in_words() {
    let fault = fault_of(&guest("fault"), "ud2");
    assert_eq!(fault.instruction.bytes(), [0x0F, 0x0B]);
    assert_eq!(fault.instruction.to_string(), "0f 0b  ud2");
    let nowhere = fault_of(&guest("fault"), "null-call");
    assert!(nowhere.instruction.bytes().is_empty());
}

#[kvm_test]
fn inlined_functions_have_frames_of_their_own() {
    for guest in builds("fault") {
        let backtrace = fault_of(&guest, "inlined").backtrace;
        has_frame(&backtrace, "inner", "fault", "inlined");
        has_frame(&backtrace, "fault::outer", "fault", "inlined-into");
        assert!(backtrace.frames()[0].inlined, "{backtrace}");
        assert!(!backtrace.frames()[1].inlined, "{backtrace}");
    }
}

#[kvm_test]
fn the_calls_that_led_there_are_all_there_and_the_executor_is_not_shown() {
    for guest in builds("fault") {
        let backtrace = fault_of(&guest, "task").backtrace;
        has_frame(&backtrace, "fault::null", "fault", "null");
        has_frame(&backtrace, "in_a_task", "fault", "task");
        let user = backtrace.user_frames();
        let is_executor = |name: &str| name.contains("wakebox_guest::executor::Executor");
        let names = user.iter().filter_map(|frame| frame.function.as_deref());
        assert!(names.clone().all(|name| !is_executor(name)), "{backtrace}");
        let last = backtrace.frames().last().expect("frames");
        assert_eq!(last.function.as_deref(), Some("_start"), "{backtrace}");
    }
}

#[kvm_test]
fn a_stack_overflow_is_known_by_its_guard_page_and_has_a_short_backtrace() {
    for guest in builds("fault") {
        let fault = fault_of(&guest, "stack");
        assert_eq!(fault.cause(), Cause::StackOverflow);
        let guard_page = layout::STACK - layout::PAGE_SIZE..layout::STACK;
        assert!(fault.address.is_some_and(|at| guard_page.contains(&at)));
        has_frame(&fault.backtrace, "fault::recurse", "fault", "stack");
        let frames = fault.backtrace.frames();
        assert!(frames.len() < 200, "{} frames", frames.len());
        assert!(fault.backtrace.omitted() > 500);
        // Both ends are there, and what is the same is shown once.
        let last = frames.last().and_then(|frame| frame.function.as_deref());
        assert_eq!(last, Some("_start"));
        let shown = fault.backtrace.to_string();
        assert!(
            shown.contains("times more") && shown.lines().count() < 60,
            "{shown}"
        );
    }
}

#[kvm_test]
fn a_deep_stack_is_walked_to_its_end() {
    for guest in builds("fault") {
        let backtrace = fault_of(&guest, "deep").backtrace;
        has_frame(&backtrace, "fault::deep", "fault", "deep");
        let calls = backtrace.addresses().len() + backtrace.omitted();
        assert!((2000..2040).contains(&calls), "{calls}");
    }
}

#[kvm_test]
fn a_stack_that_leads_nowhere_ends_the_backtrace() {
    for guest in builds("fault") {
        let fault = fault_of(&guest, "no-stack");
        assert_eq!(fault.registers.rsp, 0x1_2345_6789);
        assert_eq!(fault.backtrace.addresses(), [fault.registers.rip]);
    }
}

#[kvm_test]
fn a_panic_has_the_calls_of_its_author_alone() {
    for guest in builds("panic") {
        for (case, mark, function) in [
            ("task", "task", "panic::fetch"),
            ("drop", "drop", "drop"),
            ("poll", "poll", "{closure"),
        ] {
            let panic = panic_of(&guest, case);
            assert_eq!(panic.line, marked("panic", mark), "{case}");
            let first = &panic.backtrace.user_frames()[0];
            let name = first.function.as_deref().unwrap_or_default();
            assert!(
                name.contains(function),
                "{case}: {name} in:\n{}",
                panic.backtrace
            );
            assert_eq!(first.line, Some(panic.line), "{case}:\n{}", panic.backtrace);
            let handler = panic.backtrace.frames().iter().any(|frame| {
                let name = frame.function.as_deref();
                name.is_some_and(|name| name.contains("core::panicking"))
            });
            assert!(handler, "{}", panic.backtrace);
        }
        let dropped = panic_of(&guest, "drop").backtrace;
        has_frame(&dropped, "main", "panic", "dropped");
    }
}

#[kvm_test]
fn a_panic_while_a_message_is_printed_is_the_first_panic_without_its_message() {
    for guest in builds("panic") {
        let panic = panic_of(&guest, "twice");
        assert_eq!(panic.line, marked("panic", "twice"));
        has_frame(&panic.backtrace, "main", "panic", "twice");
    }
}

/// A copy of a guest without debug information, and that information in a file of its own.
fn stripped(name: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (bare, symbols) = (folder.path().join("bare"), folder.path().join("symbols"));
    for (option, file) in [("--strip-all", &bare), ("--only-keep-debug", &symbols)] {
        let status = program("objcopy")
            .arg(option)
            .arg(guest(name))
            .arg(file)
            .status()
            .expect("objcopy starts");
        assert!(status.success(), "objcopy {option}: {status}");
    }
    (folder, bare, symbols)
}

#[kvm_test]
fn a_stripped_guest_has_offsets_in_its_file() {
    let (_folder, bare, _) = stripped("fault");
    let (named, plain) = (fault_of(&guest("fault"), "task"), fault_of(&bare, "task"));
    assert_eq!(plain.backtrace.addresses(), named.backtrace.addresses());
    let bias = layout::IMAGE_PIE_BASE;
    for (frame, address) in plain
        .backtrace
        .frames()
        .iter()
        .zip(plain.backtrace.addresses())
    {
        assert_eq!(frame.function, None);
        assert_eq!(frame.offset, Some(address - bias));
        assert_eq!(frame.to_string(), format!("guest+{:#x}", address - bias));
    }
}

#[kvm_test]
fn symbols_may_come_from_a_file_of_their_own() {
    let (_folder, bare, symbols) = stripped("fault");
    let builder = Sandbox::builder().guest(bare.clone()).args(["inlined"]);
    let Outcome::Fault(fault) = run(builder.symbols(symbols)).outcome else {
        panic!("expected a fault");
    };
    has_frame(&fault.backtrace, "inner", "fault", "inlined");
    has_frame(&fault.backtrace, "fault::outer", "fault", "inlined-into");

    for (file, why) in [
        (guest("hello"), "build IDs differ"),
        (bare.clone(), "neither debug information nor a symbol table"),
        (root().join("Cargo.toml"), "not a 64-bit ELF file"),
    ] {
        let refused = Sandbox::builder().guest(bare.clone()).symbols(file).build();
        let error = refused.expect_err("a refusal").to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[kvm_test]
fn damaged_debug_information_gives_a_backtrace_all_the_same() {
    let (folder, bare, symbols) = stripped("fault");
    let good = std::fs::read(symbols).expect("the symbols");
    let expected = fault_of(&bare, "task").backtrace;
    let damaged = folder.path().join("damaged");
    // A generator of numbers as good as any (Knuth, MMIX).
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..40 {
        let mut bytes = good.clone();
        for _ in 0..=random(200) {
            // The headers stay, so that the sections are found.
            let at = 4096 + random(bytes.len() - 4096 - 4096);
            bytes[at] = random(256) as u8;
        }
        std::fs::write(&damaged, bytes).expect("room for it");
        let builder = Sandbox::builder().guest(bare.clone()).args(["task"]);
        match run(builder.symbols(&damaged)).outcome {
            Outcome::Fault(fault) => {
                assert_eq!(fault.backtrace, expected);
                assert!(fault.backtrace.frames().len() >= expected.addresses().len());
            }
            other => panic!("expected a fault: {other}"),
        }
    }
}

fn wakebox(args: &[&str]) -> Output {
    require_kvm();
    Command::new(env!("CARGO_BIN_EXE_wakebox-cli"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[kvm_test]
fn the_command_shows_the_line_of_source_and_the_calls() {
    let path = guest("panic").display().to_string();
    let line = marked("panic", "task");
    let short = text(&wakebox(&["run", &path]).stderr);
    for expected in [
        "wakebox: the guest panicked in task `unlucky`: index out of bounds",
        &format!("panic.rs:{line}:5"),
        &format!(" {line} |     numbers[index]"),
        "panic::fetch",
        "frames of the runtime are not shown",
    ] {
        assert!(
            short.contains(expected),
            "expected `{expected}` in:\n{short}"
        );
    }
    assert!(!short.contains("core::panicking"), "{short}");
    assert!(!short.contains("_start"), "{short}");
    let full = text(&wakebox(&["run", "--backtrace", "full", &path]).stderr);
    assert!(
        full.contains("core::panicking") && full.contains("_start"),
        "{full}"
    );
    let none = text(&wakebox(&["run", "--backtrace", "none", &path]).stderr);
    assert!(!none.contains("backtrace:"), "{none}");
}

#[kvm_test]
fn the_command_shows_where_a_guest_was_stopped() {
    let path = guest("spin").display().to_string();
    // On a slow machine the time may be over before the guest is there.
    let mut output = String::new();
    for time in ["100ms", "1s", "10s"] {
        output = text(&wakebox(&["run", "--timeout", time, &path]).stderr);
        if output.contains("spin.rs:") && output.contains("backtrace:") {
            return;
        }
    }
    panic!("{output}");
}

#[kvm_test]
fn a_report_for_programs_has_all_particulars() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report_of = |name: &str, args: &[&str]| -> serde_json::Value {
        let file = folder.path().join("report.json");
        let (guest, file_name) = (
            guest(name).display().to_string(),
            file.display().to_string(),
        );
        wakebox(&[&["run", "--report", &file_name, &guest, "--"], args].concat());
        let bytes = std::fs::read(file).expect("the report");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let fault = report_of("fault", &["null"]);
    assert_eq!(fault["end"], "fault");
    assert_eq!(fault["exit_status"], 139);
    assert_eq!(fault["detail"]["cause"], "null-dereference");
    assert_eq!(fault["detail"]["kind"], "page-read");
    assert_eq!(fault["detail"]["address"], 0);
    assert!(fault["detail"]["registers"]["rip"].is_u64());
    let frames = fault["detail"]["backtrace"].as_array().expect("frames");
    let null = frames
        .iter()
        .find(|frame| frame["function"] == "fault::null");
    assert_eq!(null.expect("a frame")["line"], marked("fault", "null"));

    let panic = report_of("panic", &[]);
    assert_eq!(
        (&panic["end"], &panic["detail"]["task"]),
        (&"panic".into(), &"unlucky".into())
    );
    let exit = report_of("exit", &["3"]);
    assert_eq!((&exit["end"], &exit["detail"]), (&"exit".into(), &3.into()));
}

/// What `gdb` says to these commands about a crash dump.
fn gdb(guest: &Path, dump: &Path, commands: &[&str]) -> String {
    let output = program("gdb")
        .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
        .args(commands.iter().flat_map(|command| ["-ex", command]))
        .arg(guest)
        .arg(dump)
        .output()
        .expect("gdb starts");
    text(&output.stdout) + &text(&output.stderr)
}

/// Ends a guest with the command and returns what `gdb` says about its crash dump.
fn debugged(guest: &Path, options: &[&str], args: &[&str], commands: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dump = folder.path().join("core");
    let (guest_name, dump_name) = (guest.display().to_string(), dump.display().to_string());
    let start = ["run", "--crash-dump", &dump_name];
    let output = wakebox(&[&start[..], options, &[&guest_name, "--"], args].concat());
    assert!(dump.is_file(), "{}", text(&output.stderr));
    gdb(guest, &dump, commands)
}

#[kvm_test]
fn gdb_opens_a_crash_dump_with_registers_memory_and_backtrace() {
    for guest in builds("fault") {
        let commands = [
            "bt",
            "info registers rip rsp",
            "x/i $rip",
            "x/gx $rsp",
            "x/8cb 0x40100000",
        ];
        let said = debugged(&guest, &[], &["null"], &commands);
        for expected in [
            "SIGSEGV",
            &format!("fault.rs:{}", marked("fault", "null")),
            "fault::main",
            "mov",
            "'W'",
        ] {
            assert!(said.contains(expected), "expected `{expected}` in:\n{said}");
        }
        assert!(!said.contains("Cannot access memory"), "{said}");
    }
}

#[kvm_test]
fn gdb_opens_what_is_left_of_a_panic_and_of_a_guest_that_was_stopped() {
    let panicked = debugged(&guest("panic"), &[], &[], &["bt"]);
    assert!(
        panicked.contains("SIGABRT") && panicked.contains("panic::fetch"),
        "{panicked}"
    );
    let stopped = debugged(&guest("spin"), &["--timeout", "1s"], &[], &["bt"]);
    assert!(stopped.contains("spin.rs:"), "{stopped}");
    let asleep = debugged(&guest("deadlock"), &["--wake", "irq"], &[], &["bt"]);
    assert!(
        asleep.contains("sleep ()") && asleep.contains("_start"),
        "{asleep}"
    );
}

#[kvm_test]
fn gdb_lists_the_tasks_of_a_guest_and_what_each_waits_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("wakebox.py");
    std::fs::write(&script, wakebox(&["gdb-script"]).stdout).unwrap();
    let source = format!("source {}", script.display());
    let commands = [&*source, "wakebox tasks"];
    let said = debugged(&guest("waits"), &[], &["locks"], &commands);
    for expected in [
        "`main` (1) waits for the end of task 2, polled last at ",
        "`first` (2, spawned at ",
        "`second` (3, spawned at ",
    ] {
        assert!(said.contains(expected), "expected `{expected}` in:\n{said}");
    }
    let locks = said.matches(") waits for another task: a lock").count();
    assert_eq!(locks, 2, "{said}");
    // As the command itself says, for a guest with several processors, and for one that lies.
    let said = debugged(&guest("waits"), &["--timeout", "1s"], &["lies"], &commands);
    assert!(!said.contains("Error"), "{said}");
    let several = ["--limit", "processors=2", "--processors", "2"];
    let said = debugged(&guest("spread"), &several, &["stuck"], &commands);
    for name in ["main", "lost", "joins", "lost_there"] {
        assert!(said.contains(&format!("`{name}` (")), "{name}: {said}");
    }
    // And of what is no guest.
    let output = program("gdb")
        .args(["-nx", "-batch", "-ex", &source, "-ex", "wakebox tasks"])
        .output()
        .expect("gdb starts");
    assert!(text(&output.stderr).contains("no guest of Wakebox"));
}

#[kvm_test]
fn gdb_opens_what_is_left_of_a_guest_that_was_called() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dump = folder.path().join("core");
    let (guest, dump_name) = (guest("spin"), dump.display().to_string());
    let guest_name = guest.display().to_string();
    // It never serves.
    let output = wakebox(&[
        "call",
        "--crash-dump",
        &dump_name,
        "--timeout",
        "1s",
        &guest_name,
        "sum",
    ]);
    assert_eq!(output.status.code(), Some(124));
    let said = text(&output.stderr);
    assert!(said.contains("spin.rs:"), "{said}");
    let said = gdb(&guest, &dump, &["bt"]);
    assert!(said.contains("spin.rs:"), "{said}");
}

#[kvm_test]
fn a_crash_dump_takes_no_room_for_memory_that_was_never_used() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dump = folder.path().join("core");
    wakebox_tests::runtime().block_on(async {
        let builder = Sandbox::builder().guest(guest("fault")).args(["ud2"]);
        let mut sandbox = builder.memory(256 << 20).build().expect("a sandbox");
        wakebox_tests::ends(&mut sandbox).await;
        let dumped = sandbox.crash_dump().expect("a dump");
        dumped.write(&dump).expect("room for it");
        let error = dumped.write(folder.path()).expect_err("it is a folder");
        assert!(error.to_string().contains("crash dump"), "{error}");
    });
    let metadata = dump.metadata().expect("the dump");
    assert!(metadata.len() > 200 << 20, "{}", metadata.len());
    assert!(
        metadata.blocks() * 512 < 8 << 20,
        "{} blocks",
        metadata.blocks()
    );
    assert_eq!(
        metadata.permissions().mode() & 0o777,
        0o600,
        "it may hold secrets"
    );
}
