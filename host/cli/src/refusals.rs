//! What a guest was refused is told once on standard error, with the option that would grant it.
//!
//! The library says it as an event of the crate `tracing`; this is all that listens to those.

use std::collections::{HashSet, VecDeque};
use std::fmt::{self, Write as _};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::say::remark;
use super::style::Style;

/// What the events are for that the library tells of refusals.
const TARGET: &str = "wakebox::policy";

/// As many as the library tells of one sandbox.
const MOST: usize = 256;

/// What was refused: the kind of request, and what it was for, in the guest's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Refused {
    kind: String,
    target: String,
}

/// What was refused, and what of it was not told yet.
#[derive(Debug, Default)]
struct Queue {
    known: HashSet<Refused>,
    untold: VecDeque<Refused>,
}

static QUEUE: Mutex<Option<Queue>> = Mutex::new(None);
static FILLED: Condvar = Condvar::new();
/// Held by who tells, from before it takes something out of the queue until that is written.
static TELLING: Mutex<()> = Mutex::new(());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens from now on; [`tell_rest`] is to follow.
pub(super) fn listen() {
    // It can be done once, and the command does it once.
    let _ = tracing::subscriber::set_global_default(Listener);
    *locked(&QUEUE) = Some(Queue::default());
}

/// Listens from now on, and tells on a thread of its own: whoever writes to standard error may have to
/// wait for its reader, and a guest must not. To be called after the jail was entered.
pub(super) fn tell() {
    listen();
    let tell = || {
        loop {
            let is_empty = |queue: &mut Option<Queue>| {
                queue.as_ref().is_none_or(|queue| queue.untold.is_empty())
            };
            drop(FILLED.wait_while(locked(&QUEUE), is_empty));
            tell_rest();
        }
    };
    // Without it all is told at the end.
    let _ = std::thread::Builder::new()
        .name("refusals".into())
        .spawn(tell);
}

/// Tells what was not told yet.
pub(super) fn tell_rest() {
    let _telling = locked(&TELLING);
    let style = Style::of_stderr();
    let next = || locked(&QUEUE).as_mut()?.untold.pop_front();
    while let Some(refused) = next() {
        remark!("{}: {}", style.strong("note"), sentence(&refused));
    }
}

fn sentence(refused: &Refused) -> String {
    let Refused { kind, target } = refused;
    let mut sentence = format!("refused {kind} {target}");
    match cure(kind, target) {
        Some(option) => sentence + "; grant it with " + &option,
        None => {
            sentence += "; `wakebox run --help` lists what can be granted";
            sentence
        }
    }
}

/// The option that grants a request, if there is one that can be typed as it is.
fn cure(kind: &str, target: &str) -> Option<String> {
    // A name that leads to addresses which no name grants: those have to be granted themselves.
    let (target, addresses) = match target.split_once(" at [") {
        Some((name, addresses)) => (name, addresses.strip_suffix(']')?),
        None => (target.strip_prefix("from ").unwrap_or(target), ""),
    };
    // These are the guest's words, and somebody is asked to copy them to a shell.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:[]%@+, ".contains(c);
    if !target.chars().chain(addresses.chars()).all(is_plain) || target.contains([' ', ',']) {
        return None;
    }
    let option = match kind {
        "connect" => "--allow-connect",
        "listen" => "--allow-listen",
        "udp" => "--allow-udp",
        "udp bind" => "--allow-udp-bind",
        "unix" => "--allow-unix",
        "resolve" => "--allow-resolve",
        "call" => "--allow-fn",
        "file" => {
            let folder = target.rsplit_once('/').map_or("/", |(folder, _)| folder);
            let folder = if folder.is_empty() { "/" } else { folder };
            return Some(format!(
                "--dir DIRECTORY:{folder}, or with :ro behind it for reading only"
            ));
        }
        _ => return None,
    };
    if addresses.is_empty() {
        return Some(format!("{option} {target}"));
    }
    let port = target.rsplit_once(':')?.1;
    let options = addresses
        .split(", ")
        .map(|address| match address.contains(':') {
            true => format!("{option} [{address}]:{port}"),
            false => format!("{option} {address}:{port}"),
        });
    Some(options.collect::<Vec<_>>().join(" "))
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == TARGET
    }

    fn event(&self, event: &Event<'_>) {
        let mut refused = Refused::default();
        event.record(&mut refused);
        let mut queue = locked(&QUEUE);
        let Some(queue) = queue.as_mut().filter(|queue| queue.known.len() < MOST) else {
            return;
        };
        if !refused.kind.is_empty() && queue.known.insert(refused.clone()) {
            queue.untold.push_back(refused);
            FILLED.notify_one();
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Refused {
    /// The part that a field of the event tells.
    fn part(&mut self, field: &Field) -> Option<&mut String> {
        match field.name() {
            "kind" => Some(&mut self.kind),
            "target" => Some(&mut self.target),
            _ => None,
        }
    }
}

impl Visit for Refused {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(part) = self.part(field) {
            // A text that can be written to.
            let _ = write!(part, "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(part) = self.part(field) {
            value.clone_into(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, target: &str) -> String {
        sentence(&Refused {
            kind: kind.into(),
            target: target.into(),
        })
    }

    #[test]
    fn a_refusal_names_the_option_that_grants_it() {
        for (kind, target, option) in [
            ("connect", "127.0.0.1:80", "--allow-connect 127.0.0.1:80"),
            ("listen", "[::1]:8080", "--allow-listen [::1]:8080"),
            ("udp", "from 10.0.0.1:53", "--allow-udp 10.0.0.1:53"),
            ("udp bind", "0.0.0.0:53", "--allow-udp-bind 0.0.0.0:53"),
            ("resolve", "a.example", "--allow-resolve a.example"),
            ("call", "kv.get", "--allow-fn kv.get"),
            (
                "connect",
                "db.internal:5432 at [10.0.0.7, fd00::1]",
                "--allow-connect 10.0.0.7:5432 --allow-connect [fd00::1]:5432",
            ),
        ] {
            let expected = format!("refused {kind} {target}; grant it with {option}");
            assert_eq!(told(kind, target), expected);
        }
        assert!(told("file", "/etc/passwd").contains("--dir DIRECTORY:/etc,"));
        assert!(told("file", "/x").contains("--dir DIRECTORY:/,"));
    }

    #[test]
    fn nobody_is_asked_to_type_what_a_shell_would_take_for_a_command() {
        for target in ["a;reboot:80", "$(id):1", "a b:1", "`id`", "a'b:1"] {
            let told = told("connect", target);
            assert!(!told.contains("grant it with"), "{told}");
        }
        assert!(!told("udp", "from an unknown address").contains("grant it with"));
    }
}
