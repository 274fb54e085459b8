//! `--no-jail`, and what the command itself keeps when it enters its jail.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::say::note;
use super::streams::{bounded_text, regular};
use wakebox::Policy;
use wakebox::jail::Jail;

/// What this process gives up before the guest runs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Jail around this process")]
pub(super) struct JailArgs {
    /// Leave this process all that its user may do. Otherwise it keeps the files, ports and system
    /// calls that the grants need, in case that the guest breaks out of its machine
    #[arg(long)]
    no_jail: bool,

    /// Say on standard error what of this process is held in, and what this kernel lacks for that
    #[arg(long, short)]
    verbose: bool,

    /// Whether the command sets the modes of its terminal later, and asks for its size.
    #[arg(skip)]
    pub(super) terminal: bool,

    /// Whether the command asks how programs ended that it has started before.
    #[arg(skip)]
    pub(super) children: bool,

    /// Whether the guest waits for files by io_uring.
    #[arg(skip)]
    pub(super) rings: bool,
}

impl JailArgs {
    /// Enters the jail, unless it is not wanted. To be called before there is another thread; from
    /// here on, this process can open nothing but what is named here.
    ///
    /// This is the one place that settles what the command needs for itself:
    ///
    /// * A file that it **reads** later is named here (`may_read`), as the guest is. Besides, its Rust
    ///   sources may be read, as cargo lists them beside it: if the guest fails, the line of its source
    ///   is shown.
    /// * A file that it **writes** (a trace, a report, a crash dump) is opened *before* this call, as
    ///   an [`OutputFile`](super::output::OutputFile): what is open stays open, and who puts it into its
    ///   place waits outside. So a path that cannot be written is told before the guest runs, too.
    /// * A system call that it does not make already is named in `jail/filter.rs`.
    ///
    /// # Errors
    ///
    /// The kernel refused a part that it has.
    pub(super) fn enter(
        &self,
        policy: &Policy,
        guest: &Path,
        symbols: Option<&Path>,
    ) -> Result<()> {
        if self.no_jail {
            if self.verbose {
                note!("jail: none");
            }
            return Ok(());
        }
        let reads = [Some(guest.to_owned()), symbols.map(Path::to_owned)];
        let mut jail = Jail::for_policy(policy);
        if self.terminal {
            jail = jail.may_use_terminal();
        }
        if self.rings {
            // Not `io_uring_register`: rings are made and entered.
            jail = jail
                .may_call(libc::SYS_io_uring_setup)
                .may_call(libc::SYS_io_uring_enter);
        }
        if self.children {
            jail = jail.may_call(libc::SYS_wait4);
        }
        let held = reads
            .into_iter()
            .flatten()
            .chain(sources_of(guest))
            .fold(jail, Jail::may_read)
            .enter()
            .context("`--no-jail` runs the guest without one")?;
        if self.verbose {
            note!("{held}");
        }
        Ok(())
    }
}

/// Longest list of sources that is read, in bytes, and most sources that are taken from it.
const LONGEST_LIST: u64 = 1 << 20;
const SOURCES: usize = 4096;

/// The Rust sources of a guest, as cargo lists them beside what it builds (`GUEST.d`, in the form of
/// a makefile: spaces in a path have a backslash before them). The list may be anybody's: only
/// regular files are taken whose own name, at the end of all links, ends with `.rs`.
fn sources_of(guest: &Path) -> Vec<PathBuf> {
    let mut name = guest.as_os_str().to_owned();
    name.push(".d");
    let list = regular(Path::new(&name)).and_then(|file| bounded_text(file, LONGEST_LIST));
    let Ok(list) = list else {
        return Vec::new();
    };
    let sources = listed(&list).into_iter().take(SOURCES);
    let sources = sources.filter_map(|source| fs::canonicalize(source).ok());
    let is_source = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "rs") && path.is_file()
    };
    sources.filter(is_source).collect()
}

/// The paths on the right side of each rule.
fn listed(list: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for rule in list.lines() {
        let Some((_, right)) = rule.split_once(": ") else {
            continue;
        };
        let mut path = String::new();
        let mut letters = right.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => path.extend(letters.next()),
                ' ' if path.is_empty() => {}
                ' ' => paths.push(std::mem::take(&mut path)),
                letter => path.push(letter),
            }
        }
        if !path.is_empty() {
            paths.push(path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_sources_is_a_makefiles() {
        assert_eq!(
            listed("/a/guest: /a/src/main.rs /a/with\\ space.rs  /b.rs\n\n/a/src/main.rs:\n"),
            ["/a/src/main.rs", "/a/with space.rs", "/b.rs"]
        );
    }

    #[test]
    fn only_rust_sources_are_taken_wherever_links_lead() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["main.rs", "secret"] {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir(at("folder.rs")).unwrap();
        std::os::unix::fs::symlink(at("secret"), at("link.rs")).unwrap();
        std::os::unix::fs::symlink(at("main.rs"), at("other")).unwrap();
        let all = [
            "main.rs",
            "secret",
            "folder.rs",
            "link.rs",
            "other",
            "none.rs",
        ];
        let all = all.map(|name| at(name).display().to_string()).join(" ");
        fs::write(at("guest.d"), format!("guest: {all}\n")).unwrap();
        let main = fs::canonicalize(at("main.rs")).unwrap();
        assert_eq!(sources_of(&at("guest")), [main.clone(), main]);
        assert_eq!(sources_of(&at("main.rs")), [] as [PathBuf; 0]);
    }
}
