//! `wakebox inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::say::say;
use super::style::Style;
use super::template::{KeyArgs, is_template};
use wakebox::template::{FileInfo, Position};
use wakebox::{Error, Image, Limits, Template, units};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    guest: PathBuf,

    #[command(flatten)]
    key: KeyArgs,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let style = Style::of_stdout();
    if is_template(&args.guest) {
        return template(args, style);
    }
    let image = match Image::from_path(&args.guest) {
        Ok(image) => image,
        Err(Error::Load { name, source }) => {
            say!("{}", style.strong(&name));
            say!("  {} {source}", style.bad("refused:"));
            return Ok(ExitCode::FAILURE);
        }
        Err(other) => return Err(other.into()),
    };
    let line =
        |name: &str, value: String| say!("  {} {value}", style.faint(&format!("{name:<12}")));
    say!("{}", style.strong(image.name()));
    line("file", units::bytes(image.file_len() as u64));
    let kind = if image.is_position_independent() {
        "position-independent"
    } else {
        "fixed"
    };
    line("kind", format!("{kind} ELF64 for x86-64"));
    line(
        "interface",
        format!("version {}, as this host's", image.abi_version()),
    );
    line("entry", format!("{:#x}", image.entry()));
    line("relocations", units::count(image.relocations() as u64));
    let memory: u64 = image
        .segments()
        .iter()
        .map(|s| s.addresses.end - s.addresses.start)
        .sum();
    line("in memory", units::bytes(memory));
    say!(
        "\n  {}",
        style.faint("address                      rights    in file   in memory")
    );
    for segment in image.segments() {
        say!(
            "  {:#012x}..{:#012x}   {}   {:>10}  {:>10}",
            segment.addresses.start,
            segment.addresses.end,
            segment.letters,
            units::bytes(segment.file.len() as u64),
            units::bytes(segment.addresses.end - segment.addresses.start),
        );
    }
    say!("\n  {}", style.good("It would be loaded."));
    Ok(ExitCode::SUCCESS)
}

/// Says what a template file holds.
fn template(args: &Args, style: Style) -> Result<ExitCode> {
    let options = args.key.options(&Limits::new())?;
    say!("{}", style.strong(&args.guest.display().to_string()));
    let info = match Template::inspect_file(&args.guest, &options) {
        Ok(info) => info,
        Err(Error::Template { source, .. }) => {
            let why = anyhow::Error::new(source);
            say!("  {} {why:#}", style.bad("refused:"));
            return Ok(ExitCode::FAILURE);
        }
        Err(other) => return Err(other.into()),
    };
    describe(&info, style);
    if info.lacking.is_empty() {
        say!("\n  {}", style.good("It would be loaded."));
        return Ok(ExitCode::SUCCESS);
    }
    let lacking = info.lacking.join(", ");
    say!(
        "\n  {} this processor lacks {lacking}",
        style.bad("refused:")
    );
    Ok(ExitCode::FAILURE)
}

fn describe(info: &FileInfo, style: Style) {
    let line =
        |name: &str, value: String| say!("  {} {value}", style.faint(&format!("{name:<12}")));
    line("kind", format!("template, format {}", info.format));
    line(
        "interface",
        format!("version {}, as this host's", info.interface),
    );
    if !info.build_id.is_empty() {
        line("build ID", hex(&info.build_id));
    }
    let signed = match info.is_signed {
        true => "with a key (`--key FILE` checks by whom)",
        false => "no",
    };
    line("signed", signed.to_owned());
    match &info.at {
        Position::Parked {
            ram,
            held,
            mode,
            in_flight,
            elapsed,
            ..
        } => {
            line("stands", "where the guest was parked".to_owned());
            line(
                "memory",
                format!("{} of {}", units::bytes(*held), units::bytes(*ram)),
            );
            line("wake mode", mode.to_string());
            line("in flight", units::count(*in_flight as u64));
            line("clock", units::duration(*elapsed));
            if !info.features.is_empty() {
                line("needs", info.features.join(" "));
            }
        }
        _ => line("stands", "at the guest's entry".to_owned()),
    }
    say!(
        "\n  {}",
        style.faint("part                        in file     unpacked  SHA-256")
    );
    for part in &info.parts {
        say!(
            "  {:<22}  {:>10}   {:>10}  {}…",
            part.name,
            units::bytes(part.stored),
            units::bytes(part.len),
            hex(&part.hash[..8])
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
