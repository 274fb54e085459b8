//! `wakebox inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::say::{self, say};
use super::style::Style;
use super::template::{KeyArgs, is_template};
use wakebox::template::{FileInfo, Position};
use wakebox::{Error, Image, Limits, Template, units};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    guest: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    key: KeyArgs,
}

/// What a file is, for programs, and for people by way of [`Inspected::tell`]. Lengths and addresses are in bytes.
#[derive(Serialize)]
struct Inspected {
    file: String,
    /// Why it would not be loaded, if so.
    refused: Option<String>,
    #[serde(flatten)]
    holds: Option<Holds>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Holds {
    Guest(Guest),
    Template(Stored),
}

#[derive(Serialize)]
struct Guest {
    file_len: usize,
    is_position_independent: bool,
    interface: u32,
    entry: u64,
    relocations: usize,
    memory: u64,
    segments: Vec<Segment>,
}

#[derive(Serialize)]
struct Segment {
    start: u64,
    end: u64,
    rights: &'static str,
    file_len: usize,
}

#[derive(Serialize)]
struct Stored {
    format: u32,
    interface: u32,
    build_id: String,
    is_signed: bool,
    /// Where the guest was parked; nothing if it stands at its entry.
    parked: Option<Parked>,
    /// Features that the processor must have.
    needs: Vec<String>,
    parts: Vec<Part>,
}

#[derive(Serialize)]
struct Parked {
    memory: u64,
    held: u64,
    wake_mode: String,
    in_flight: usize,
    clock_ns: u128,
}

#[derive(Serialize)]
struct Part {
    name: &'static str,
    stored: u64,
    len: u64,
    sha256: String,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let inspected = match is_template(&args.guest) {
        true => template(args)?,
        false => guest(args)?,
    };
    if args.json {
        say::json_of(&inspected)?;
    } else {
        inspected.tell(Style::of_stdout());
    }
    Ok(ExitCode::from(u8::from(inspected.refused.is_some())))
}

/// What a guest's file holds.
fn guest(args: &Args) -> Result<Inspected> {
    let image = match Image::from_path(&args.guest) {
        Ok(image) => image,
        Err(Error::Load { name, source }) => {
            return Ok(Inspected {
                file: name,
                refused: Some(source.to_string()),
                holds: None,
            });
        }
        Err(other) => return Err(other.into()),
    };
    let segments: Vec<_> = image
        .segments()
        .iter()
        .map(|segment| Segment {
            start: segment.addresses.start,
            end: segment.addresses.end,
            rights: segment.letters,
            file_len: segment.file.len(),
        })
        .collect();
    Ok(Inspected {
        file: image.name().to_owned(),
        refused: None,
        holds: Some(Holds::Guest(Guest {
            file_len: image.file_len(),
            is_position_independent: image.is_position_independent(),
            interface: image.abi_version(),
            entry: image.entry(),
            relocations: image.relocations(),
            memory: segments.iter().map(|s| s.end - s.start).sum(),
            segments,
        })),
    })
}

/// What a template's file holds.
fn template(args: &Args) -> Result<Inspected> {
    let options = args.key.options(&Limits::new())?;
    let file = args.guest.display().to_string();
    let info = match Template::inspect_file(&args.guest, &options) {
        Ok(info) => info,
        Err(Error::Template { source, .. }) => {
            let why = anyhow::Error::new(source);
            return Ok(Inspected {
                file,
                refused: Some(format!("{why:#}")),
                holds: None,
            });
        }
        Err(other) => return Err(other.into()),
    };
    let lacking = info.lacking.join(", ");
    let refused = (!lacking.is_empty()).then(|| format!("this processor lacks {lacking}"));
    Ok(Inspected {
        file,
        refused,
        holds: Some(Holds::Template(Stored::of(info))),
    })
}

impl Stored {
    fn of(info: FileInfo) -> Self {
        let parts = info.parts.iter().map(|part| Part {
            name: part.name,
            stored: part.stored,
            len: part.len,
            sha256: hex(&part.hash),
        });
        let parts = parts.collect();
        let parked = match &info.at {
            Position::Parked {
                ram,
                held,
                mode,
                in_flight,
                elapsed,
                ..
            } => Some(Parked {
                memory: *ram,
                held: *held,
                wake_mode: mode.to_string(),
                in_flight: *in_flight,
                clock_ns: elapsed.as_nanos(),
            }),
            _ => None,
        };
        Self {
            format: info.format,
            interface: info.interface,
            build_id: hex(&info.build_id),
            is_signed: info.is_signed,
            parked,
            needs: info.features,
            parts,
        }
    }
}

/// A line of a name and what it is.
fn line(style: Style, name: &str, value: &str) {
    say!("  {} {value}", style.faint(&format!("{name:<12}")));
}

impl Inspected {
    fn tell(&self, style: Style) {
        say!("{}", style.strong(&self.file));
        match &self.holds {
            Some(Holds::Guest(guest)) => guest.tell(style),
            Some(Holds::Template(stored)) => stored.tell(style),
            None => {}
        }
        match (&self.refused, &self.holds) {
            (None, _) => say!("\n  {}", style.good("It would be loaded.")),
            (Some(why), None) => say!("  {} {why}", style.bad("refused:")),
            (Some(why), Some(_)) => say!("\n  {} {why}", style.bad("refused:")),
        }
    }
}

impl Guest {
    fn tell(&self, style: Style) {
        let line = |name, value: String| line(style, name, &value);
        line("file", units::bytes(self.file_len as u64));
        let kind = if self.is_position_independent {
            "position-independent"
        } else {
            "fixed"
        };
        line("kind", format!("{kind} ELF64 for x86-64"));
        line(
            "interface",
            format!("version {}, as this host's", self.interface),
        );
        line("entry", format!("{:#x}", self.entry));
        line("relocations", units::count(self.relocations as u64));
        line("in memory", units::bytes(self.memory));
        say!(
            "\n  {}",
            style.faint("address                      rights    in file   in memory")
        );
        for segment in &self.segments {
            say!(
                "  {:#012x}..{:#012x}   {}   {:>10}  {:>10}",
                segment.start,
                segment.end,
                segment.rights,
                units::bytes(segment.file_len as u64),
                units::bytes(segment.end - segment.start),
            );
        }
    }
}

impl Stored {
    fn tell(&self, style: Style) {
        let line = |name, value: String| line(style, name, &value);
        line("kind", format!("template, format {}", self.format));
        line(
            "interface",
            format!("version {}, as this host's", self.interface),
        );
        if !self.build_id.is_empty() {
            line("build ID", self.build_id.clone());
        }
        let signed = match self.is_signed {
            true => "with a key (`--key FILE` checks by whom)",
            false => "no",
        };
        line("signed", signed.to_owned());
        match &self.parked {
            Some(parked) => {
                line("stands", "where the guest was parked".to_owned());
                let held = units::bytes(parked.held);
                line(
                    "memory",
                    format!("{held} of {}", units::bytes(parked.memory)),
                );
                line("wake mode", parked.wake_mode.clone());
                line("in flight", units::count(parked.in_flight as u64));
                let clock = u64::try_from(parked.clock_ns).unwrap_or(u64::MAX);
                line(
                    "clock",
                    units::duration(std::time::Duration::from_nanos(clock)),
                );
                if !self.needs.is_empty() {
                    line("needs", self.needs.join(" "));
                }
            }
            None => line("stands", "at the guest's entry".to_owned()),
        }
        say!(
            "\n  {}",
            style.faint("part                        in file     unpacked  SHA-256")
        );
        for part in &self.parts {
            say!(
                "  {:<22}  {:>10}   {:>10}  {}…",
                part.name,
                units::bytes(part.stored),
                units::bytes(part.len),
                &part.sha256[..16]
            );
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
