//! What cargo knows of a crate and of what it depends on.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// What guests are built for.
const TARGET: &str = "x86_64-unknown-linux-gnu";

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
    root: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<DepKind>,
}

#[derive(Debug, Deserialize)]
struct DepKind {
    kind: Option<String>,
}

/// A package.
#[derive(Debug, Deserialize)]
pub(super) struct Package {
    id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) dependencies: Vec<Declared>,
    pub(super) features: BTreeMap<String, Vec<String>>,
    pub(super) targets: Vec<Target>,
    pub(super) manifest_path: PathBuf,
}

/// A line of `[dependencies]`.
#[derive(Debug, Deserialize)]
pub(super) struct Declared {
    pub(super) name: String,
    kind: Option<String>,
    pub(super) rename: Option<String>,
    pub(super) optional: bool,
    pub(super) uses_default_features: bool,
    pub(super) features: Vec<String>,
}

/// A library or program.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    pub(super) kind: Vec<String>,
    pub(super) src_path: PathBuf,
}

impl Package {
    /// The file of the library's root, unless it is a macro that runs in the compiler.
    pub(super) fn library(&self) -> Option<&Path> {
        let is_library = |target: &&Target| {
            let kinds = ["lib", "rlib", "staticlib", "dylib", "cdylib"];
            target.kind.iter().any(|kind| kinds.contains(&&**kind))
        };
        Some(&self.targets.iter().find(is_library)?.src_path)
    }

    /// Its lines about a package of this name, for the guest itself.
    pub(super) fn declared(&self, name: &str) -> impl Iterator<Item = &Declared> {
        let is_meant = move |line: &&Declared| line.kind.is_none() && line.name == name;
        self.dependencies.iter().filter(is_meant)
    }
}

/// A guest's crate and all that is linked with it.
#[derive(Debug)]
pub(super) struct Graph {
    /// The first is the guest's own.
    pub(super) packages: Vec<Package>,
    /// The features that are on, of each.
    pub(super) features: Vec<Vec<String>>,
    /// Who depends on it, of each.
    pub(super) parents: Vec<Vec<usize>>,
}

impl Graph {
    /// Asks cargo.
    ///
    /// # Errors
    ///
    /// Cargo cannot say.
    pub(super) fn of(manifest: Option<&Path>) -> Result<Self> {
        let metadata = ask(
            manifest,
            &[
                "metadata",
                "--format-version=1",
                "--filter-platform",
                TARGET,
            ],
        )?;
        let tree = ask(
            manifest,
            &[
                "tree",
                "--edges=normal,no-proc-macro",
                "--prefix=none",
                "--format={p}|{f}",
                "--target",
                TARGET,
            ],
        )?;
        Self::read(&metadata, &tree)
    }

    /// `tree` says which features are on: `cargo metadata` mixes those of tests and build scripts in.
    pub(super) fn read(metadata: &str, tree: &str) -> Result<Self> {
        let metadata: Metadata = serde_json::from_str(metadata)
            .context("what `cargo metadata` says is not understood")?;
        let Some(root) = metadata.resolve.root else {
            bail!(
                "this is a workspace of several crates: run it in the folder of the guest's crate, or \
                 name its manifest with `--manifest-path`"
            );
        };
        let linked = linked(tree);
        let features_of = |package: &Package| {
            let known = linked.get(&(&*package.name, &*package.version));
            known.cloned()
        };
        let is_root = |package: &Package| package.id == root;
        let mut packages = metadata.packages;
        packages.retain(|package| is_root(package) || features_of(package).is_some());
        packages.sort_by_key(|package| (!is_root(package), package.name.clone()));
        let index_of: HashMap<&str, usize> = packages
            .iter()
            .enumerate()
            .map(|(index, package)| (&*package.id, index))
            .collect();
        let mut parents = vec![Vec::new(); packages.len()];
        for node in &metadata.resolve.nodes {
            let Some(parent) = index_of.get(&*node.id) else {
                continue;
            };
            for edge in &node.deps {
                let is_normal = edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
                if let (true, Some(child)) = (is_normal, index_of.get(&*edge.pkg)) {
                    parents[*child].push(*parent);
                }
            }
        }
        let features = packages
            .iter()
            .map(|package| features_of(package).unwrap_or_default())
            .collect();
        Ok(Self {
            packages,
            features,
            parents,
        })
    }
}

/// The packages in the lines of `cargo tree`, each with its features.
fn linked(tree: &str) -> HashMap<(&str, &str), Vec<String>> {
    let mut all = HashMap::<_, Vec<String>>::new();
    for line in tree.lines() {
        let Some((package, features)) = line.rsplit_once('|') else {
            continue;
        };
        let mut words = package.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else {
            continue;
        };
        let version = version.strip_prefix('v').unwrap_or(version);
        // A package that was shown before has this behind it.
        let features = features.trim_end_matches(" (*)");
        let known = all.entry((name, version)).or_default();
        for feature in features.split(',').filter(|feature| !feature.is_empty()) {
            if !known.iter().any(|known| known == feature) {
                known.push(feature.to_owned());
            }
        }
    }
    all
}

/// Runs cargo, and returns what it prints.
fn ask(manifest: Option<&Path>, args: &[&str]) -> Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(args);
    if let Some(manifest) = manifest {
        command.arg("--manifest-path").arg(manifest);
    }
    let output = command
        .output()
        .context("cannot start cargo, which knows what the crate depends on")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().trim_start_matches("error: ").to_owned();
        bail!("`cargo {}` fails: {said}", args[0]);
    }
    String::from_utf8(output.stdout).context("what cargo prints is no text")
}
