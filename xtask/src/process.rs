//! Other programs, and what to say when they fail.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// `cargo`, as the one that started this program, in the repository's root.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(workspace::root());
    // What `cargo run` set for this program is not meant for the next.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command with this program's own input and output.
///
/// # Errors
///
/// If it cannot be started or fails; the error is a sentence.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    judge(command, status)
}

fn judge(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({})", line(command), describe(status));
    }
    Ok(())
}

/// As [`check`], and shows each line of its output to `look` as well.
///
/// # Errors
///
/// As [`check`].
pub(crate) fn check_lines(command: &mut Command, mut look: impl FnMut(&str)) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    if let Some(output) = child.stdout.take() {
        for said in BufReader::new(output).lines() {
            let said = said?;
            println!("{said}");
            look(&said);
        }
    }
    judge(command, child.wait()?)
}

/// Runs a command with this program's own input and output, and returns how it ended.
///
/// # Errors
///
/// If it cannot be started.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))
}

/// Whether `cargo NAME` is installed.
pub(crate) fn has_cargo_command(name: &str) -> bool {
    cargo()
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The exit code with which a shell would report this status.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Ties a command's life to that of the thread that starts it: however that ends, be it by a signal
/// that nobody can catch, the kernel ends the command (prctl(2), `PR_SET_PDEATHSIG`).
pub(crate) fn tie(command: &mut Command) -> &mut Command {
    let parent = std::process::id();
    let tie = move || {
        // SAFETY: `prctl` reads its arguments, which are numbers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have ended before it could be asked for.
        match std::os::unix::process::parent_id() == parent {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    // SAFETY: between `fork` and `exec`, `tie` makes two system calls, and neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(tie) }
}

/// Has a command wait for a processor behind those that are not told so, without starving (nice(2)).
pub(crate) fn behind(command: &mut Command) -> &mut Command {
    let behind = || {
        // SAFETY: `nice` reads its argument, which is a number.
        unsafe { libc::nice(5) };
        Ok(())
    };
    // SAFETY: between `fork` and `exec`, `behind` makes one system call, and neither allocates nor
    // takes a lock.
    unsafe { command.pre_exec(behind) }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// A command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::process::Child;

    use super::*;

    /// Set in the process that is to be killed.
    const VICTIM: &str = "WAKEBOX_XTASK_TEST_VICTIM";

    #[test]
    fn a_tied_command_does_not_outlive_its_parent() {
        if std::env::var_os(VICTIM).is_some() {
            return start_one_and_wait();
        }
        let mut victim = Command::new(std::env::current_exe().unwrap());
        let name = "process::tests::a_tied_command_does_not_outlive_its_parent";
        victim.args([name, "--exact", "--nocapture"]);
        victim.env(VICTIM, "1");
        let mut victim = victim
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut to_tied = victim.stdin.take().unwrap();
        let mut said = BufReader::new(victim.stdout.take().unwrap());

        // What the tied command is told, it repeats: it is there.
        to_tied.write_all(b"before\n").unwrap();
        wait_for_line(&mut said, "before");
        end(&mut victim);
        // A process that has been reaped has sent its last signals.
        let _ = to_tied.write_all(b"after\n");
        drop(to_tied);
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("after"), "it goes on: {rest}");
    }

    /// The tied command has this process's own input and output.
    fn start_one_and_wait() {
        let mut tied = Command::new("cat");
        tie(&mut tied).status().unwrap();
    }

    fn wait_for_line(said: &mut impl BufRead, wanted: &str) {
        let mut lines = said.lines();
        assert!(lines.any(|line| line.unwrap() == wanted), "{wanted}");
    }

    fn end(victim: &mut Child) {
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
}
