//! `wakebox check`: which dependency of a guest wants `std`, and who asks for it.

mod cause;
mod metadata;
mod source;
mod tokens;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use self::cause::{Want, cause};
use self::metadata::Graph;
use self::source::Root;
use super::say::{self, say};
use super::style::Style;
use wakebox::printable_line;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A guest has no `std`; if a dependency wants it, the compiler says that `panic_impl` is there twice (E0152), \
and often not whose fault that is. This looks at what cargo would build and at the root of each library. \
Exit status: 0 if all do without `std`, 1 if one does not. Example:
  cd hello && wakebox check")]
pub(super) struct Args {
    /// The manifest of the guest's crate [default: that of the current folder]
    #[arg(long, value_name = "FILE")]
    manifest_path: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found, for programs.
#[derive(serde::Serialize)]
struct Report<'a> {
    /// The guest's crate.
    name: &'a str,
    /// How many crates were looked at.
    crates: usize,
    findings: &'a [Finding],
}

/// Longest source file that is looked into, in bytes.
const LONGEST_SOURCE: u64 = 16 << 20;

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let graph = Graph::of(args.manifest_path.as_deref())?;
    let style = Style::of_stdout();
    let mut found = own_roots(&graph);
    found.extend((1..graph.packages.len()).filter_map(|index| finding(&graph, index)));
    let looked = graph.packages.len();
    if args.json {
        say::json_of(&Report {
            name: &graph.packages[0].name,
            crates: looked,
            findings: &found,
        })?;
        return Ok(ExitCode::from(u8::from(!found.is_empty())));
    }
    for Finding { what, why, cure } in &found {
        say!("{}: {}", style.bad("wants std"), style.strong(what));
        for line in why {
            say!("  {} {}", style.faint("-->"), printable_line(line));
        }
        say!("  {} {}", style.faint("="), printable_line(cure));
    }
    let name = printable_line(&graph.packages[0].name);
    Ok(match found.len() {
        0 => {
            say!(
                "{}: `{name}` and what it is linked with do without `std`; {looked} crates looked at",
                style.good("well")
            );
            ExitCode::SUCCESS
        }
        count => {
            say!("{count} of {looked} crates want `std`, which guests have not");
            ExitCode::FAILURE
        }
    })
}

/// Something that keeps a guest from being built.
#[derive(serde::Serialize)]
struct Finding {
    /// Which crate or file.
    what: String,
    /// Who asks for that, from the guest on.
    why: Vec<String>,
    /// What to do.
    cure: String,
}

/// What the guest's own files lack.
fn own_roots(graph: &Graph) -> Vec<Finding> {
    let mut found = Vec::new();
    let own = &graph.packages[0];
    for target in &own.targets {
        let is_program = target.kind.iter().any(|kind| kind == "bin");
        let is_library = own.library() == Some(&target.src_path);
        if !is_program && !is_library {
            continue;
        }
        let Some(text) = text_of(&target.src_path) else {
            continue;
        };
        let root = root_of(&text, &graph.features[0]);
        let mut lacks = Vec::new();
        if root.wants_std() {
            lacks.push("#![no_std]");
        }
        if is_program && !root.is_no_main {
            lacks.push("#![no_main]");
        }
        if !lacks.is_empty() {
            let lacks = lacks.join(" and ");
            found.push(Finding {
                what: format!("{} lacks {lacks}", shown(graph, &target.src_path)),
                why: Vec::new(),
                cure: format!("begin it with {lacks}"),
            });
        }
    }
    found
}

/// A path from the guest's folder on, for what is in it.
fn shown(graph: &Graph, path: &Path) -> String {
    let folder = graph.packages[0].manifest_path.parent();
    let inside = folder.and_then(|folder| path.strip_prefix(folder).ok());
    printable_line(&inside.unwrap_or(path).display().to_string())
}

/// What a dependency wants, if that is `std`.
fn finding(graph: &Graph, index: usize) -> Option<Finding> {
    let package = &graph.packages[index];
    let on = &graph.features[index];
    let text = text_of(package.library()?)?;
    let root = root_of(&text, on);
    if !root.wants_std() {
        return None;
    }
    // Of the features that play a part, the one without which it would not.
    let decides = root.features.iter().find(|feature| {
        let without: Vec<_> = on.iter().filter(|on| on != feature).cloned().collect();
        on.contains(feature) && !root_of(&text, &without).wants_std()
    });
    let (by, want) = match decides {
        Some(feature) => (
            format!(", for its feature `{feature}`"),
            Want::Feature(index, feature.clone()),
        ),
        None => (", whatever its features".to_owned(), Want::Package(index)),
    };
    let what = format!("`{}` {}{by}", package.name, package.version);
    let cause = cause(graph, want);
    Some(Finding {
        what: printable_line(&what),
        why: cause
            .iter()
            .flat_map(|cause| cause.told(graph).collect::<Vec<_>>())
            .collect(),
        cure: match &cause {
            Some(cause) => cause.cure(graph),
            None => "`cargo tree --edges features --invert` says who asks for it".to_owned(),
        },
    })
}

/// What stands in a source file; none if it cannot be read.
fn text_of(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(LONGEST_SOURCE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What a root says with these features.
fn root_of(text: &str, features: &[String]) -> Root {
    Root::of(text, &|feature| features.iter().any(|on| on == feature))
}

#[cfg(test)]
mod tests;
