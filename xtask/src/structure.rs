//! `cargo xtask structure`: the rooms of the host, the arrows between them, and the circles.
//!
//! A room is a file or a folder directly below a package's `src`; an arrow is that a file in one
//! imports from another with `use`. A circle is a set of rooms that reach each other: whoever
//! wants to understand one of them must read all. `cargo xtask test` fails on any, and on a file of
//! product code that is longer than [`sizes::MOST`] lines.

mod imports;
mod papers;
mod sizes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use self::imports::Import;
use crate::args::Args;
use crate::workspace;

/// The packages of the host: their names in `use` lines, and their folders.
const PACKAGES: [(&str, &str); 4] = [
    ("wakebox", "host"),
    ("wakebox_cli", "host/cli"),
    ("wakebox_trace", "host/trace"),
    ("wakebox_vmm", "host/vmm"),
];

/// From room to room, and the files that say so.
type Arrows = BTreeMap<(String, String), BTreeSet<PathBuf>>;

/// What the host's `use` lines say.
#[derive(Debug, Default)]
struct Structure {
    rooms: BTreeSet<String>,
    arrows: Arrows,
}

pub(crate) fn run(mut args: Args) -> Result<ExitCode> {
    let all = args.flag("--files");
    args.all_done()?;
    let structure = Structure::read(&workspace::root())?;
    let circles = structure.circles();
    for ((from, to), files) in &structure.arrows {
        println!("{from} -> {to}");
        for file in files.iter().filter(|_| all) {
            println!("    {}", file.display());
        }
    }
    let inside: usize = circles.iter().map(|circle| structure.inside(circle)).sum();
    println!(
        "{} rooms, {} arrows, {inside} of them in {} circles",
        structure.rooms.len(),
        structure.arrows.len(),
        circles.len()
    );
    for circle in &circles {
        println!("circle: {}", circle.join(", "));
    }
    check(&circles)?;
    sizes::check(&workspace::root())?;
    papers::check(&workspace::root())?;
    Ok(ExitCode::SUCCESS)
}

/// Fails if there is a circle.
fn check(circles: &[Vec<String>]) -> Result<()> {
    if let Some(circle) = circles.first() {
        bail!(
            "{} import each other in a circle: move what both need into a room below them \
             (`--files` says which files import what)",
            circle.join(", ")
        );
    }
    Ok(())
}

impl Structure {
    /// Reads all packages below a root.
    fn read(root: &Path) -> Result<Self> {
        let mut packages = BTreeMap::new();
        for (name, folder) in PACKAGES {
            packages.insert(name, Package::read(&root.join(folder).join("src"))?);
        }
        let mut structure = Self::default();
        for (name, package) in &packages {
            let rooms = package.rooms.keys();
            structure
                .rooms
                .extend(rooms.map(|room| format!("{name}/{room}")));
            for (room, files) in &package.rooms {
                let from = format!("{name}/{room}");
                for file in files {
                    for import in imports::of_file(&file.path, &file.module)? {
                        let target = packages
                            .get(import.package.as_deref().unwrap_or(name))
                            .and_then(|package| package.room_of(&import));
                        let Some(target) = target else { continue };
                        let to = format!("{}/{target}", import.package.as_deref().unwrap_or(name));
                        if to != from {
                            let files = structure.arrows.entry((from.clone(), to)).or_default();
                            files.insert(file.path.clone());
                        }
                    }
                }
            }
        }
        Ok(structure)
    }

    /// Sets of rooms that reach each other, each in order.
    fn circles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<_, _> = self
            .rooms
            .iter()
            .map(|room| (room, self.reached_from(room)))
            .collect();
        let mut circles = BTreeSet::new();
        for room in &self.rooms {
            let circle: Vec<_> = reached[room]
                .iter()
                .filter(|other| reached[*other].contains(room))
                .cloned()
                .collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    fn reached_from(&self, room: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut next = vec![room.to_owned()];
        while let Some(room) = next.pop() {
            let targets = self.arrows.keys().filter(|(from, _)| *from == room);
            for (_, to) in targets {
                if reached.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        reached
    }

    /// Arrows between rooms of a circle.
    fn inside(&self, circle: &[String]) -> usize {
        let both = |(from, to): &&(String, String)| circle.contains(from) && circle.contains(to);
        self.arrows.keys().filter(both).count()
    }
}

/// A source file and the path of its module, without the crate.
#[derive(Debug)]
struct File {
    path: PathBuf,
    module: Vec<String>,
}

/// One package's rooms, and where the names come from that its root exports.
#[derive(Debug)]
struct Package {
    rooms: BTreeMap<String, Vec<File>>,
    exports: BTreeMap<String, String>,
}

impl Package {
    fn read(source: &Path) -> Result<Self> {
        let mut rooms: BTreeMap<String, Vec<File>> = BTreeMap::new();
        for file in files(source, &[])? {
            if let Some(room) = file.module.first().cloned() {
                rooms.entry(room).or_default().push(file);
            }
        }
        let mut exports = BTreeMap::new();
        for import in imports::of_file(&source.join("lib.rs"), &[])? {
            if let (None, [room, ..], Some(name)) =
                (import.package, &import.path[..], import.path.last())
                && rooms.contains_key(room)
            {
                exports.insert(name.clone(), room.clone());
            }
        }
        Ok(Self { rooms, exports })
    }

    /// The room that an import comes from, unless it is the root itself.
    fn room_of(&self, import: &Import) -> Option<&str> {
        let first = import.path.first()?;
        match self.rooms.get_key_value(first) {
            Some((room, _)) => Some(room),
            None => self.exports.get(first).map(String::as_str),
        }
    }
}

/// The source files below a folder. The roots `lib.rs` and `main.rs` belong to no room, and tests
/// may look into every one.
fn files(folder: &Path, module: &[String]) -> Result<Vec<File>> {
    let mut found = Vec::new();
    let entries = folder
        .read_dir()
        .with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let inner = [module, &[stem.to_string()]].concat();
        if path.is_dir() {
            found.extend(files(&path, &inner)?);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        match &*stem {
            "lib" | "main" if module.is_empty() => {}
            "tests" => {}
            "mod" => found.push(File {
                path,
                module: module.to_vec(),
            }),
            _ => found.push(File {
                path,
                module: inner,
            }),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(arrows: &[(&str, &str)]) -> Structure {
        let mut structure = Structure::default();
        for (from, to) in arrows {
            structure.rooms.extend([from.to_string(), to.to_string()]);
            let arrow = (from.to_string(), to.to_string());
            structure.arrows.insert(arrow, BTreeSet::new());
        }
        structure
    }

    #[test]
    fn rooms_that_reach_each_other_are_a_circle_and_others_are_not() {
        let structure = structure(&[("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")]);
        assert_eq!(structure.circles(), [["a", "b", "c"]]);
        assert_eq!(structure.inside(&structure.circles()[0]), 3);
        assert!(check(&structure.circles()).is_err());
    }

    #[test]
    fn the_host_has_no_circle() {
        let structure = Structure::read(&workspace::root()).unwrap();
        assert!(structure.arrows.len() > 20, "{structure:?}");
        check(&structure.circles()).unwrap();
    }
}
