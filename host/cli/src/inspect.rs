//! `wakebox inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::say::say;
use super::style::Style;
use wakebox::{Error, Image, units};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file
    guest: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let style = Style::of_stdout();
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
