//! Tests that cannot run in a machine that holds nothing but them.
//!
//! What one skips is named here, with its reason, and counted in the output. A name that no test
//! has is a failure: the list cannot outlive what it speaks of.

const NO_SHELL: &str = "there is no shell";
const NO_CARGO: &str = "there is no cargo";

/// The full name of a test, and why it cannot run.
const SKIPPED: &[(&str, &str)] = &[
    ("cli::no_kvm", NO_SHELL),
    ("cli::no_permission_on_kvm", NO_SHELL),
    ("cli::a_closed_standard_input_is_an_end_of_file", NO_SHELL),
    (
        "cli::an_output_that_nobody_reads_does_not_hang_or_panic",
        NO_SHELL,
    ),
    ("outside::a_new_guest_builds_and_runs", NO_CARGO),
    (
        "outside::library_code_of_a_guest_is_tested_on_the_host",
        NO_CARGO,
    ),
];

/// Why a test cannot run here; `None` if it can.
pub(crate) fn reason(name: &str) -> Option<&'static str> {
    let entry = SKIPPED.iter().find(|(skipped, _)| *skipped == name);
    entry.map(|(_, reason)| *reason)
}

/// The skipped tests of a program.
pub(crate) fn of<'a>(program: &'a str) -> impl Iterator<Item = &'static str> + 'a {
    let names = SKIPPED.iter().map(|(name, _)| *name);
    names.filter(move |name| name.split("::").next() == Some(program))
}
