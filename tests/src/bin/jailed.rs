//! A program that embeds Wakebox and enters a jail, for `tests/jail.rs`: what happens there ends a
//! process. `jailed WHAT ...`, with `WHAT` one of the functions of `main`.

use std::error::Error;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use wakebox::jail::Jail;
use wakebox::trace::{Event, Sink};
use wakebox::{Policy, Sandbox, WakeMode};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["call", numbers] => call("", numbers, false),
        ["granted-call", numbers] => call("", numbers, true),
        ["call-with", grants, numbers] => call(grants, numbers, false),
        ["thread", which, guest] => thread(which, guest),
        ["file", grant, path] => file(grant, path),
        ["named-file", granted, path] => named_file(granted, path),
        ["tcp", granted, port] => tcp(granted, port),
        ["bind", granted, port] => bind(granted, port),
        ["late"] => late(),
        ["twice"] => twice(),
        ["lacking", calls, error, program, ref args @ ..] => lacking(calls, error, program, args),
        _ => Err(format!("unknown: {args:?}").into()),
    }
}

/// A policy with these grants: words with spaces between.
fn policy(grants: &str) -> Result<Policy> {
    grants
        .split_whitespace()
        .try_fold(Policy::new(), |policy, grant| {
            Ok(match grant {
                "connect" => policy.allow_connect("127.0.0.1:80".parse()?),
                "listen" => policy.allow_listen("127.0.0.1:80".parse()?),
                "udp" => policy.allow_udp("127.0.0.1:80".parse()?),
                "unix" => policy.allow_unix("/run/granted"),
                "names" => policy.allow_resolve("localhost".parse()?),
                _ => return Err(format!("unknown: {grant}").into()),
            })
        })
}

/// Makes a system call, given as its number and arguments with commas between, in a jail that
/// grants this (and, if wanted, that call). What it returned comes out, if anything can.
fn call(grants: &str, numbers: &str, granted: bool) -> Result {
    let numbers: Vec<i64> = numbers
        .split(',')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let mut jail = Jail::for_policy(&policy(grants)?);
    if granted {
        jail = jail.may_call(numbers[0]);
    }
    jail.enter()?;
    println!("{}", make(&numbers));
    Ok(())
}

/// What the call returned, or its error's number.
fn make(numbers: &[i64]) -> String {
    let argument = |index: usize| numbers.get(index).copied().unwrap_or(0);
    // SAFETY: the calls that tests name here take numbers only, or are not made at all.
    let result = unsafe {
        libc::syscall(
            argument(0),
            argument(1),
            argument(2),
            argument(3),
            argument(4),
            argument(5),
            argument(6),
        )
    };
    match result {
        -1 => format!("error {:?}", std::io::Error::last_os_error().raw_os_error()),
        value => format!("value {value}"),
    }
}

/// Makes a forbidden call from a host function that a guest has called, on the thread of that kind.
fn thread(which: &str, guest: &str) -> Result {
    let forbidden = || println!("lives: {}", make(&[libc::SYS_ptrace]));
    Jail::for_policy(&Policy::new()).may_read(guest).enter()?;
    if which == "main" {
        forbidden();
        return Ok(());
    }
    let builder = Sandbox::builder()
        .guest(guest)
        .args(["call"])
        .wake(WakeMode::Poll);
    let builder = if which == "trace" {
        builder.trace(OnItsThread(forbidden))
    } else {
        builder.host_fn("add", move |_, (a, b): (u64, u64)| async move {
            let call = tokio::task::spawn_blocking(forbidden).await;
            call.expect("it does not panic");
            a + b
        })
    };
    println!("{}", builder.build()?.run_blocking()?);
    Ok(())
}

/// Does something on the trace's own thread, at each event.
struct OnItsThread<F>(F);

impl<F: Fn() + Send> Sink for OnItsThread<F> {
    fn event(&mut self, _: &Event) -> std::io::Result<()> {
        (self.0)();
        Ok(())
    }
}

/// Opens a path for reading and, anew, for writing, where one directory is granted.
fn file(grant: &str, path: &str) -> Result {
    let policy = Policy::new().allow_dir(grant.parse()?);
    Jail::for_policy(&policy).enter()?;
    open_both_ways(path);
    Ok(())
}

/// The same where a path is named, not by the policy.
fn named_file(granted: &str, path: &str) -> Result {
    let jail = Jail::for_policy(&Policy::new());
    match granted.split_once(':') {
        Some(("w", granted)) => jail.may_write(granted).enter()?,
        Some(("r", granted)) => jail.may_read(granted).enter()?,
        _ => return Err("r:PATH or w:PATH".into()),
    };
    open_both_ways(path);
    Ok(())
}

fn open_both_ways(path: &str) {
    let read = std::fs::File::open(path).and_then(|mut file| file.read(&mut [0; 1]));
    let write = std::fs::File::options().append(true).open(path);
    let kind = |error: std::io::Error| error.kind();
    println!(
        "{:?} {:?}",
        read.map(|_| ()).map_err(kind),
        write.map(|_| ()).map_err(kind)
    );
}

/// Connects to a port of this host, where one is granted.
fn tcp(granted: &str, port: &str) -> Result {
    let policy = Policy::new().allow_connect(format!("127.0.0.1:{granted}").parse()?);
    Jail::for_policy(&policy).enter()?;
    let stream = TcpStream::connect(("127.0.0.1", port.parse()?));
    println!("{:?}", stream.map(|_| ()).map_err(|error| error.kind()));
    Ok(())
}

/// Listens on a port, where one is granted.
fn bind(granted: &str, port: &str) -> Result {
    let policy = Policy::new().allow_listen(format!("127.0.0.1:{granted}").parse()?);
    Jail::for_policy(&policy).enter()?;
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?));
    println!("{:?}", listener.map(|_| ()).map_err(|error| error.kind()));
    Ok(())
}

/// Enters when there is another thread.
fn late() -> Result {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || ended.recv());
    match Jail::for_policy(&Policy::new()).enter() {
        Ok(held) => println!("{held}"),
        Err(error) => println!("{error}"),
    }
    drop(end);
    let _ = other.join();
    Ok(())
}

/// Enters a jail inside a jail, which the first one forbids.
fn twice() -> Result {
    Jail::for_policy(&Policy::new()).enter()?;
    println!("{:?}", Jail::for_policy(&Policy::new()).enter());
    Ok(())
}

/// Runs a program as on a kernel that answers these system calls (numbers with commas between) with
/// an error.
fn lacking(calls: &str, error: &str, program: &str, args: &[&str]) -> Result {
    let rules = calls
        .split(',')
        .map(|call| Ok((call.parse()?, Vec::new())))
        .collect::<Result<_>>()?;
    let filter: BpfProgram = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(error.parse()?),
        TargetArch::x86_64,
    )?
    .try_into()?;
    seccompiler::apply_filter(&filter)?;
    Err(Command::new(program).args(args).exec().into())
}
