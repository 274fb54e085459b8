//! `cargo xtask`: what one does with this repository, one file for each task.

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod args;
mod bench;
mod checkers;
mod components;
mod demos;
mod deny;
mod echo;
mod fuzz;
mod golden;
mod grep;
mod guests;
mod hostile;
mod hw;
mod loom;
mod process;
mod run;
mod soak;
mod structure;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use args::Args;

const HELP: &str = "\
Everything one does with this repository.

Usage: cargo xtask <TASK> [OPTIONS]

Look
  run [NAME] [-- ARGS]   run a demo in a micro-VM (`concurrent`, unless you name one)
      --list             say what each demo shows
      --wake MODE        how a sleeping guest is woken: out, irq, poll or auto
      --timeline         draw a page with the run's timeline, too
      --debug            run the debug build of the demo
      --dev              with the host as the tests have it, not optimized
  bench [--json FILE]    measure the raw floor of this machine's KVM, and Wakebox above it;
                         `--only pages` is one step, and an unknown one lists all; `--only wasm` is
                         WebAssembly beside Wasmtime, which is not in the others
      --against BENCH    compare with another build of the program `bench`, step by step in
                         turns; `--rounds N` is how often
      --compare FILE     compare with what an earlier run wrote (`--json FILE`), or several: which
                         rows have moved beyond the noise; `--rounds N` as well

Check
  test [PART]            all that CI runs, or one part of it: lint, doc, unit, e2e, wasm, languages,
                         hw
      --install          fetch what `hw` needs first, as `hw-test --install` does
  hw-test [-- NAMES]     the end-to-end tests on AMD-V, emulated by QEMU; only those with
                         one of NAMES in their name
      --vtx              on VT-x instead, emulated by Bochs
      --short            the part of them that CI runs
      --install          fetch the emulator and a kernel into target/hw; nothing is installed
      --qemu PATH        another qemu-system-x86_64
  soak [--seconds N]     10,000 connections, held for a minute and three times; checks that
                         nothing is lost and that all they took comes back; also with
                         --connections N, --cycles N, --rounds N, --wake MODE
  hostile [PART]         run the hostile guests whose names contain PART (all of them: minutes)
      --list             say how each must end
  soak sandboxes [N]     N sandboxes (10,000), ended in every way; checks that nothing is left
  soak takes [N]         N tenants of one pool (100,000), ended at random; checks that nothing is left
                         and that none finds a byte of another; also with --seed N
  soak calls             calls, timers, web requests and kills at random, beside two busy threads,
                         and whether anything ever stands still: --wake MODE, --seconds N (60),
                         --busy THREADS (2), --seed N
  loom [--depth N]       search waking, killing and parking for a lost wake-up, N preemptions deep
  model                  every state of small rings, whatever a guest writes into them
  fuzz [TARGET] [FILE]   ring, elf, operations, template, trace: millions of inputs, or one;
                         also with --runs N, --seed N; --coverage uses cargo-fuzz
  fuzz wasm              generated WebAssembly modules, in a guest and natively, as many as
                         --runs N says, from --seed N on
  kani                   prove for all values what the tests try with some (needs Kani)
  miri                   unit tests, watched for undefined behaviour (needs nightly, Miri)
  valgrind               the host's unit tests and guests in micro-VMs under valgrind
  sanitize KIND          unit tests with the sanitizer address or thread
  structure [--files]    which rooms of the host import which; fails on a circle between them
  deny [--advisories]    licences and sources of the dependencies, and known holes in them
                         (needs cargo-deny; with --advisories, a network)

Build
  guests [--release]     the guest programs, into target/guests
  golden                 a template file of a new version of the format, into tests/golden

Set WAKEBOX_SKIP_KVM=1 to test without /dev/kvm: what needs it is counted as skipped.
";

fn main() -> ExitCode {
    match dispatch(Args::from_env()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(mut args: Args) -> Result<ExitCode> {
    if args.flag("--help") || args.flag("-h") {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    match args.positional().as_deref() {
        Some("run") => run::run(args),
        Some("bench") => bench::run(args),
        Some("test") => test::run(args),
        Some("hw-test") => hw::run(args),
        Some("soak") => soak::run(args),
        Some("hostile") => hostile::run(args),
        Some("loom") => loom::run(args),
        Some("model") => checkers::model(args),
        Some("fuzz") => fuzz::run(args),
        Some("kani") => checkers::kani(args),
        Some("miri") => checkers::miri(args),
        Some("valgrind") => checkers::valgrind(args),
        Some("sanitize") => checkers::sanitize(args),
        Some("structure") => structure::run(args),
        Some("deny") => deny::run(args),
        Some("guests") => guests::run(args),
        Some("golden") => golden::run(args),
        Some("help") => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => bail!("there is no task `{other}`; `cargo xtask --help` lists them"),
        None => {
            eprint!("{HELP}");
            Ok(ExitCode::FAILURE)
        }
    }
}
