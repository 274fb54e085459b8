//! Runs hostile cases by name: `hostile [--list] [PART OF A NAME]`.

use std::process::ExitCode;

use wakebox_hostile::GROUPS;
use wakebox_tests::hostile;

fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args().skip(1).collect();
    let before = args.len();
    args.retain(|arg| arg != "--list");
    let list = args.len() != before;
    let part = args.pop().unwrap_or_default();
    let cases = hostile::cases(|case| case.name.as_str().contains(&part));
    if cases.is_empty() {
        eprintln!("no case is named like `{part}`");
        return ExitCode::FAILURE;
    }
    if list {
        for group in GROUPS {
            let of_group = || cases.iter().filter(|case| case.name.group() == group.name);
            if of_group().next().is_some() {
                println!("\n{} ({}): {}", group.name, of_group().count(), group.about);
            }
            for case in of_group() {
                println!("  {:<58} {}", case.name, case.expect);
            }
        }
        return ExitCode::SUCCESS;
    }
    let report = hostile::run(&cases, |case, result| match result {
        Ok(()) => println!("ok      {}", case.name),
        Err(what) => println!("FAILED  {what}"),
    });
    println!(
        "{} cases in {} sandboxes, {} of them not as they should be",
        report.cases,
        report.runs,
        report.failures.len()
    );
    match report.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
