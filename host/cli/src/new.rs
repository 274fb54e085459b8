//! `wakebox new`: the crate of a guest, ready for `cargo run` and `cargo test`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::process::own_name;
use super::say::say;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the crate, and of the folder that is made; a path makes it there
    name: PathBuf,

    /// Use the `wakebox-guest` in this folder; otherwise the library is written into the crate, as this
    /// command knows it
    #[arg(long, value_name = "DIR")]
    guest_path: Option<PathBuf>,
}

/// The files of the guest library; none if this command came from a registry, where that is, too.
const LIBRARY: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/library.rs"));

/// Where they lie in a crate.
const FOLDER: &str = "wakebox";

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let folder = &args.name;
    let name = folder
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let Some(why) = refusal(name) {
        bail!(
            "`{}` cannot be the name of a guest: {why}",
            folder.display()
        );
    }
    if folder.exists() {
        bail!("{} exists already; nothing was written", folder.display());
    }
    let guest = match &args.guest_path {
        Some(path) => {
            let found = path.canonicalize().ok();
            let found = found.filter(|path| path.join("Cargo.toml").is_file());
            found.with_context(|| format!("no `wakebox-guest` in {}", path.display()))?
        }
        None => Path::new(FOLDER).join("guest"),
    };
    write_crate(folder, name, &guest, args.guest_path.is_none())?;
    // A shell takes a path with such characters as one word in quotes.
    let shown = folder.display().to_string();
    let shown = match shown.contains([' ', '\'', '"', '$', '\\']) {
        true => format!("'{}'", shown.replace('\'', "'\\''")),
        false => shown,
    };
    say!("A guest lies in {}. Next:", folder.display());
    say!("");
    say!("  cd {shown}");
    say!("  cargo run -- friend             runs it in a micro-VM");
    say!("  cargo test                      tests its library, here");
    Ok(ExitCode::SUCCESS)
}

/// Writes all files. `is_carried` says whether the guest library is among them.
fn write_crate(folder: &Path, name: &str, guest: &Path, is_carried: bool) -> Result<()> {
    let (dependency, exclude) = match is_carried && LIBRARY.is_empty() {
        true => (quoted(env!("CARGO_PKG_VERSION")), String::new()),
        false => {
            let exclude = format!("exclude = [\"{FOLDER}\"]\n");
            (
                format!("{{ path = {} }}", quoted(&guest.display().to_string())),
                if is_carried { exclude } else { String::new() },
            )
        }
    };
    let library = name.replace('-', "_");
    let fill = |text: &str| {
        text.replace("{{name}}", name)
            .replace("{{library}}", &library)
            .replace("{{guest}}", &dependency)
            .replace("{{exclude}}\n", &exclude)
            .replace("{{wakebox}}", &quoted(&own_name()))
    };
    let files = [
        ("Cargo.toml", include_str!("new/template/manifest.toml")),
        (
            ".cargo/config.toml",
            include_str!("new/template/config.toml"),
        ),
        ("wakebox.toml", include_str!("new/template/wakebox.toml")),
        ("src/main.rs", include_str!("new/template/main.rs")),
        ("src/lib.rs", include_str!("new/template/lib.rs")),
        (".gitignore", "/target\n"),
    ];
    for (file, text) in files {
        write(folder, file, &fill(text))?;
    }
    if is_carried {
        for (file, text) in LIBRARY {
            write(&folder.join(FOLDER), file, text)?;
        }
    }
    Ok(())
}

/// A TOML basic string: what JSON escapes, it escapes the same way.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Why no guest can be called so.
fn refusal(name: &str) -> Option<String> {
    let is_of_letters = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let known = name.replace('-', "_");
    Some(match &*known {
        _ if !is_of_letters => {
            "use letters, digits, `-` and `_`, and begin with a letter".to_owned()
        }
        word if KEYWORDS.contains(&word) => format!("`{word}` is a keyword of Rust"),
        "core" | "alloc" | "std" | "test" | "proc_macro" => {
            format!("`{known}` is a crate that comes with Rust")
        }
        "wakebox_guest" | "wakebox_abi" | "wakebox_typed" | "wakebox_guest_macros" => {
            "that is a crate which it is made with".to_owned()
        }
        "build" | "deps" | "examples" | "incremental" => {
            format!("cargo keeps files of its own in a folder called `{known}`")
        }
        _ => return None,
    })
}

/// Those that are letters alone: <https://doc.rust-lang.org/reference/keywords.html>.
const KEYWORDS: [&str; 52] = [
    "Self", "abstract", "as", "async", "await", "become", "box", "break", "const", "continue",
    "crate", "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if",
    "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub",
    "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
