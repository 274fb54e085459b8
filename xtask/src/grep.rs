//! `cargo xtask run grep -- TEXT [DIRECTORY] --selftest`: compares a guest's search with that of
//! the host's own `grep`.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::demos::Granted;
use crate::process;

/// Searched for when nothing is named: a word that this repository is full of.
const TEXT: &str = "await";

/// Runs the search that `command` begins, and the host's, and compares the lines.
///
/// # Errors
///
/// If one of them fails, or they differ.
pub(crate) fn selftest(
    mut command: Command,
    grant: fn(&[String]) -> Granted,
    mut args: Vec<String>,
) -> Result<ExitCode> {
    args.retain(|arg| arg != "--selftest");
    if args.is_empty() {
        args.push(TEXT.into());
    }
    let Granted {
        options,
        args: guest_args,
    } = grant(&args);
    command.args(options).arg("--").args(guest_args);
    let guest = lines(&mut command)?;

    let mut grep = Command::new("grep");
    // Byte by byte, no binary files, a plain text, no colour from an alias or a variable.
    grep.env("LC_ALL", "C")
        .args(["--recursive", "--binary-files=without-match"])
        .args([
            "--fixed-strings",
            "--color=never",
            "--regexp",
            &args[0],
            ".",
        ])
        .current_dir(args.get(1).map_or(".", String::as_str));
    let host = lines(&mut grep)?
        .into_iter()
        .map(|line| match line.strip_prefix("./") {
            Some(path) => path.to_owned(),
            None => line,
        });
    let mut host: Vec<_> = host.collect();
    host.sort_unstable();
    if let Some(at) = (0..host.len().max(guest.len())).find(|&at| host.get(at) != guest.get(at)) {
        bail!(
            "in order, line {at} of the host's is {:?}, of the guest's {:?}",
            host.get(at),
            guest.get(at)
        );
    }
    println!(
        "the guest and `grep -r` found the same {} lines",
        host.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// The lines that a search prints, sorted.
fn lines(command: &mut Command) -> Result<Vec<String>> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", process::line(command)))?;
    // Both end with 1 if they find nothing.
    ensure!(
        matches!(output.status.code(), Some(0 | 1)),
        "`{}` failed ({})",
        process::line(command),
        output.status
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines)
}
