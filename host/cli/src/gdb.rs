//! `wakebox gdb-script`: what teaches gdb the command `wakebox tasks`.

use std::process::ExitCode;

use wakebox_abi::layout;
use wakebox_abi::memory::Word;
use wakebox_abi::task::{Entry, LISTS_MAX, MORE_SHIFT, SINCE, TYPE_NAME};

use super::say;

const SCRIPT: &str = include_str!("gdb/wakebox.py");

pub(super) fn run() -> ExitCode {
    say::script(&script());
    ExitCode::SUCCESS
}

/// The script, with the numbers of this version's interface.
fn script() -> String {
    let numbers = [
        ("@CONTROL@", layout::CONTROL),
        ("@CONTROLS@", layout::CONTROLS),
        ("@PAGE@", layout::PAGE_SIZE),
        ("@PROCESSORS@", layout::PROCESSORS_MAX.into()),
        ("@TASKS@", Word::Tasks.offset() as u64),
        ("@MORE_TASKS@", Word::MoreTasks.offset() as u64),
        ("@LISTS@", LISTS_MAX as u64),
        ("@TYPE_NAME@", TYPE_NAME.into()),
        ("@SINCE@", SINCE.into()),
        ("@ENTRY@", Entry::SIZE as u64),
        ("@MORE_SHIFT@", MORE_SHIFT.into()),
    ];
    numbers
        .into_iter()
        .fold(SCRIPT.to_owned(), |script, (mark, number)| {
            script.replace(mark, &format!("{number:#x}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_has_all_its_numbers() {
        assert!(!script().contains('@'));
        assert_eq!(Word::TasksHigh.offset(), Word::Tasks.offset() + 4);
        assert_eq!(Word::MoreTasksHigh.offset(), Word::MoreTasks.offset() + 4);
    }
}
