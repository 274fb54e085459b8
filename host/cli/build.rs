//! Lists the sources of the guest library, which `wakebox new` writes beside a new guest.
//!
//! In a checkout they lie beside this package. Where they do not, this package came from a registry, and
//! there the guest library is as well: the list is empty.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// The packages that a guest is built from.
const PACKAGES: [&str; 4] = ["abi", "abi/typed", "guest", "guest/macros"];

fn main() -> io::Result<()> {
    let own = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let root = own.join("../..");
    let is_checkout = PACKAGES
        .iter()
        .all(|package| root.join(package).join("Cargo.toml").is_file());
    let list = match is_checkout {
        true => library(&root.canonicalize()?)?,
        false => "&[]".to_owned(),
    };
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("library.rs"), list)
}

/// An expression: the name and the text of each file.
fn library(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    let mut manifests = String::new();
    for package in PACKAGES {
        let manifest = root.join(package).join("Cargo.toml");
        manifests += &fs::read_to_string(&manifest)?;
        files.push(manifest);
        let sources = root.join(package).join("src");
        println!("cargo::rerun-if-changed={}", sources.display());
        collect(&sources, &mut files)?;
    }
    files.extend(["LICENSE-APACHE", "LICENSE-MIT"].map(|name| root.join(name)));
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(root).unwrap_or(&file);
        // `include_str!` has cargo look at the file, too.
        let _ = writeln!(list, "    ({name:?}, include_str!({file:?})),");
    }
    let manifest = root.join("Cargo.toml");
    println!("cargo::rerun-if-changed={}", manifest.display());
    let workspace = workspace(&fs::read_to_string(manifest)?, &manifests);
    let _ = writeln!(list, "    (\"Cargo.toml\", {workspace:?}),\n]");
    Ok(list)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The manifest of a workspace of these packages alone: what `whole` says of them.
fn workspace(whole: &str, manifests: &str) -> String {
    let mut text = format!(
        "# The library that guests of `wakebox` {} are built with, as the command wrote it.\n\
         [workspace]\nresolver = \"3\"\nmembers = {PACKAGES:?}\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut section = "";
    for line in whole.lines() {
        if line.starts_with('[') {
            section = line;
            if ["[workspace.package]", "[workspace.dependencies]"].contains(&section) {
                let _ = write!(text, "\n{section}\n");
            }
            continue;
        }
        let name = line.split(" =").next().unwrap_or_default();
        let is_wanted = match section {
            "[workspace.package]" => !name.is_empty(),
            "[workspace.dependencies]" => {
                let inherits = [".workspace =", " = { workspace"];
                inherits.iter().any(|inherits| {
                    let wanted = format!("{name}{inherits}");
                    manifests.lines().any(|line| line.starts_with(&wanted))
                })
            }
            _ => false,
        };
        if is_wanted {
            let _ = writeln!(text, "{line}");
        }
    }
    // A newer compiler may have something to say, which is not for who uses the library.
    text + "\n[workspace.lints.rust]\nwarnings = \"allow\"\n"
}
