//! Tests that cannot run in a machine that holds nothing but them.
//!
//! What one skips is named here, with its reason, and counted in the output. A name that no test
//! has is a failure: the list cannot outlive what it speaks of.

use std::collections::HashSet;

const NO_BINUTILS: &str = "there is no objcopy";
const NO_BROWSER: &str = "there is no browser";
const NO_CARGO: &str = "there is no cargo";
const NO_GDB: &str = "there is no gdb";
const NO_PEERS: &str = "there is no curl, nginx, Redis or wrk";
const NO_SHELL: &str = "there is no shell";
const TOO_SLOW: &str =
    "what is late and what takes long is told by the clock, and here all is slow";

/// The full name of a test, or of a group and two colons for all that it has, and why it cannot run.
const SKIPPED: &[(&str, &str)] = &[
    ("cli::no_kvm", NO_SHELL),
    ("cli::no_permission_on_kvm", NO_SHELL),
    ("cli::a_closed_standard_input_is_an_end_of_file", NO_SHELL),
    (
        "cli::an_output_that_nobody_reads_does_not_hang_or_panic",
        NO_SHELL,
    ),
    ("counterparts::", NO_PEERS),
    ("crates::", NO_CARGO),
    ("demos::", NO_CARGO),
    (
        "ends::a_stripped_guest_has_offsets_in_its_file",
        NO_BINUTILS,
    ),
    (
        "ends::damaged_debug_information_gives_a_backtrace_all_the_same",
        NO_BINUTILS,
    ),
    (
        "ends::symbols_may_come_from_a_file_of_their_own",
        NO_BINUTILS,
    ),
    (
        "ends::gdb_opens_a_crash_dump_with_registers_memory_and_backtrace",
        NO_GDB,
    ),
    (
        "ends::gdb_opens_what_is_left_of_a_panic_and_of_a_guest_that_was_stopped",
        NO_GDB,
    ),
    (
        "ends::gdb_lists_the_tasks_of_a_guest_and_what_each_waits_for",
        NO_GDB,
    ),
    (
        "ends::gdb_opens_what_is_left_of_a_guest_that_was_called",
        NO_GDB,
    ),
    ("gdb::", NO_GDB),
    ("host_fns::a_program_answers_a_guests_calls", NO_SHELL),
    ("json::what_wants_std_is_told_to_a_program", NO_CARGO),
    (
        "host_fns::a_program_that_ends_or_answers_nonsense_is_named",
        NO_SHELL,
    ),
    (
        "host_fns::a_program_has_the_end_of_its_input_when_the_command_ends",
        NO_SHELL,
    ),
    ("names::", NO_SHELL),
    (
        "outside::a_new_guest_is_run_and_tested_as_the_readme_says",
        NO_CARGO,
    ),
    (
        "outside::library_code_of_a_guest_is_tested_on_the_host",
        NO_CARGO,
    ),
    (
        "outputs::an_interrupt_ends_also_what_a_shell_has_put_into_the_background",
        NO_SHELL,
    ),
    (
        "outputs::signals_that_end_commands_end_the_first_process_of_a_namespace",
        NO_SHELL,
    ),
    ("pictures::", NO_BROWSER),
    ("timeline::", NO_BROWSER),
    ("views::each_mistake_is_found_and_named", TOO_SLOW),
    ("watched::the_demo_fetch", NO_PEERS),
];

/// Whether an entry of the list speaks of a test.
pub(crate) fn is_of(entry: &str, test: &str) -> bool {
    match entry.ends_with("::") {
        true => test.starts_with(entry),
        false => test == entry,
    }
}

/// Why a test cannot run here; `None` if it can.
pub(crate) fn reason(name: &str) -> Option<&'static str> {
    let entry = SKIPPED.iter().find(|(entry, _)| is_of(entry, name));
    entry.map(|(_, reason)| *reason)
}

/// The entries that speak of a group of which there are tests.
pub(crate) fn of<'a>(tests: impl Iterator<Item = &'a str>) -> Vec<&'static str> {
    let group = |name: &str| name.split("::").next().map(str::to_owned);
    let groups: HashSet<_> = tests.map(group).collect();
    let entries = SKIPPED.iter().map(|(entry, _)| *entry);
    entries
        .filter(|entry| groups.contains(&group(entry)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_there() {
        let folder = wakebox_tests::root().join("tests/tests/e2e");
        for (entry, _) in SKIPPED {
            let (module, name) = entry.split_once("::").unwrap();
            let file = folder.join(module).with_extension("rs");
            let text = std::fs::read_to_string(&file).expect(entry);
            let function = name.rsplit("::").next().unwrap_or_default();
            let is_there = text.contains(&format!("fn {function}("));
            assert!(function.is_empty() || is_there, "{entry}");
        }
    }
}
