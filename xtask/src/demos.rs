//! The demos, and what each needs.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Result, bail};

use crate::components::{self, Component};
use crate::guests;

/// A guest program that shows something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demo {
    pub(crate) name: &'static str,
    /// The package of its guest: what that depends on is built before anything is seen.
    pub(crate) package: &'static str,
    /// What it shows, in one line.
    pub(crate) shows: &'static str,
    pub(crate) host: Host,
    /// Whether exits, wakes and polls are the point of it.
    pub(crate) stats: bool,
}

/// What runs a demo.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    /// `wakebox run`, told what to grant for these arguments.
    Command(fn(&[String]) -> Granted),
    /// The program of the same name in `host/examples`.
    Example,
    /// The same, with the guest of another demo.
    ExampleOf(&'static str),
    /// The command `wakebox`, with a WebAssembly component.
    Component(Component),
}

/// What `wakebox run` must be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) options: Vec<String>,
    /// Arguments of the guest.
    pub(crate) args: Vec<String>,
}

/// Where the echo server listens.
const ECHO_ADDRESS: &str = "127.0.0.1:7777";
/// Where the web site is.
const HTTP_ADDRESS: &str = "127.0.0.1:8080";
/// Where the directory to search is in the guest.
const SEARCHED: &str = "/data";

/// Interrupts show in one mode alone.
const PREEMPT: &str = "preempt";

/// Run when none is named.
pub(crate) const DEFAULT: &str = "concurrent";

pub(crate) const DEMOS: [Demo; 19] = [
    Demo {
        name: "sequential",
        package: "wakebox-demos-first",
        shows: "five waits, one after another: the time is their sum",
        host: Host::Command(nothing),
        stats: true,
    },
    Demo {
        name: DEFAULT,
        package: "wakebox-demos-first",
        shows: "the same five waits, all at once: the time is that of the longest",
        host: Host::Command(nothing),
        stats: true,
    },
    Demo {
        name: "greet",
        package: "wakebox-demos-first",
        shows: "a question with a time limit, while another task counts down",
        host: Host::Command(nothing),
        stats: false,
    },
    Demo {
        name: "pipeline",
        package: "wakebox-demos-tasks",
        shows: "producers, a bounded channel, consumers, a select and a cancellation",
        host: Host::Command(nothing),
        stats: true,
    },
    Demo {
        name: "storm",
        package: "wakebox-demos-first",
        shows: "100,000 tasks and 1,000,000 operations of the host, and how few exits they take",
        host: Host::Command(nothing),
        stats: true,
    },
    Demo {
        name: "cores",
        package: guests::SPREAD,
        shows: "256 tasks that compute, on one processor and then on two",
        host: Host::Command(two_processors),
        stats: false,
    },
    Demo {
        name: "echo",
        package: "wakebox-demos-tasks",
        shows: "a TCP echo server for hundreds of clients; `-- --selftest` is one such client",
        host: Host::Command(|args| listening(args, ECHO_ADDRESS)),
        stats: false,
    },
    Demo {
        name: "http",
        package: "wakebox-demos-web",
        shows: "a web site for curl and the browser, `-- ADDRESS` or 127.0.0.1:8080",
        host: Host::Command(|args| listening(args, HTTP_ADDRESS)),
        stats: false,
    },
    Demo {
        name: "fetch",
        package: "wakebox-demos-web",
        shows: "many HTTP requests at once, `-- URL...` or to the demo `http`",
        host: Host::Command(connecting),
        stats: false,
    },
    Demo {
        name: "grep",
        package: "wakebox-demos-tasks",
        shows: "searches a directory, `-- TEXT [DIRECTORY]`; `--selftest` compares with `grep -r`",
        host: Host::Command(searching),
        stats: false,
    },
    Demo {
        name: "kv",
        package: "wakebox-demos-first",
        shows: "20,000 calls of functions of the host, which keeps a store outside",
        host: Host::Example,
        stats: false,
    },
    Demo {
        name: "callme",
        package: "wakebox-demos-first",
        shows: "a host that calls functions of a guest, hundreds at once",
        host: Host::Example,
        stats: false,
    },
    Demo {
        name: "requests",
        package: "wakebox-demos-first",
        shows: "a web service of axum that takes a sandbox of a pool for each request",
        host: Host::ExampleOf("callme"),
        stats: false,
    },
    Demo {
        name: "c10k",
        package: "wakebox-demos-tasks",
        shows: "10,000 connections to one guest, and how long each waits; `-- COUNT SECONDS`",
        host: Host::Example,
        stats: false,
    },
    Demo {
        name: "fork",
        package: "wakebox-demos-tasks",
        shows: "a guest that initialises itself for a second, and 1,000 clones that need not; `-- CLONES`",
        host: Host::Example,
        stats: false,
    },
    Demo {
        name: "tenants",
        package: "wakebox-demos-tasks",
        shows: "10,000 guests asleep on a few machines, woken at random; `-- TENANTS VISITS`",
        host: Host::Example,
        stats: false,
    },
    Demo {
        name: PREEMPT,
        package: guests::URGENT,
        shows: "a task that computes for two seconds, and an urgent one that answers meanwhile; `-- MS`",
        host: Host::Example,
        stats: false,
    },
    Demo {
        name: "python",
        package: "",
        shows: "CPython, as a WebAssembly component, runs your script: `-- script.py ARGUMENTS`",
        host: Host::Component(components::PYTHON),
        stats: false,
    },
    Demo {
        name: "serve",
        package: "",
        shows: "a web site in Python for your browser, an instance of the component for each request",
        host: Host::Component(components::SERVE),
        stats: false,
    },
];

impl Demo {
    /// The name of its guest.
    pub(crate) fn guest(&self) -> &'static str {
        match self.host {
            Host::ExampleOf(guest) => guest,
            Host::Command(_) | Host::Example | Host::Component(_) => self.name,
        }
    }

    /// How its guest sleeps, unless an option says otherwise.
    pub(crate) fn wake(&self) -> &'static str {
        match self.name {
            PREEMPT => "irq",
            _ => "auto",
        }
    }
}

/// No grant.
fn nothing(args: &[String]) -> Granted {
    Granted {
        options: Vec::new(),
        args: args.to_vec(),
    }
}

/// Listening on the argument that is an address, or on an address of the demo's own.
fn listening(args: &[String], otherwise: &str) -> Granted {
    let mut args = args.to_vec();
    let found = args
        .iter_mut()
        .find_map(|arg| local_address(arg).map(|address| (arg, address)));
    let address = match found {
        None => otherwise.to_owned(),
        Some((arg, address)) => {
            *arg = address.to_string();
            arg.clone()
        }
    };
    Granted {
        options: vec!["--allow-listen".into(), address],
        args,
    }
}

/// The address that an argument means, which may be a name of this host, as in "localhost:8080":
/// guests listen at numbers only. The older kind of address counts first, as one reaches it from
/// anywhere.
fn local_address(arg: &str) -> Option<SocketAddr> {
    if let Ok(address) = arg.parse() {
        return Some(address);
    }
    let (name, _) = arg.split_once(':')?;
    let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let mut addresses: Vec<_> = arg.to_socket_addrs().ok().filter(|_| is_name)?.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    addresses.first().copied()
}

/// Connecting to the hosts of the URLs, or to the demo `http`.
fn connecting(args: &[String]) -> Granted {
    let hosts = args.iter().filter_map(|arg| arg.strip_prefix("http://"));
    let mut hosts: Vec<_> = hosts
        .map(|rest| rest.split('/').next().unwrap_or(rest))
        .collect();
    if hosts.is_empty() {
        hosts.push(HTTP_ADDRESS);
    }
    hosts.sort_unstable();
    hosts.dedup();
    let option = |host: &str| ["--allow-connect".into(), host.into()];
    Granted {
        options: hosts.into_iter().flat_map(option).collect(),
        args: args.to_vec(),
    }
}

/// A second processor.
fn two_processors(_: &[String]) -> Granted {
    Granted {
        options: vec!["--limit".into(), "processors=2".into()],
        args: Vec::new(),
    }
}

/// Reading a directory: that of the second argument, or the one where this is run.
fn searching(args: &[String]) -> Granted {
    let directory = args.get(1).map_or(".", String::as_str);
    Granted {
        options: vec!["--dir".into(), format!("{directory}:{SEARCHED}:ro")],
        args: args.first().into_iter().cloned().collect(),
    }
}

/// The demo of a name.
///
/// # Errors
///
/// If there is none; the error lists those that there are.
pub(crate) fn find(name: &str) -> Result<Demo> {
    match DEMOS.into_iter().find(|demo| demo.name == name) {
        Some(demo) => Ok(demo),
        None => match nearest(name) {
            Some(near) => bail!(
                "there is no demo `{name}`. Did you mean `{near}`? There are:\n{}",
                list()
            ),
            None => bail!("there is no demo `{name}`. There are:\n{}", list()),
        },
    }
}

/// The demo whose name is a slip of the fingers away.
fn nearest(name: &str) -> Option<&'static str> {
    let distances = DEMOS.map(|demo| (strsim::levenshtein(name, demo.name), demo.name));
    let (distance, near) = distances.into_iter().min()?;
    (distance <= 1 + near.len() / 4).then_some(near)
}

/// All demos with what they show, a line each.
pub(crate) fn list() -> String {
    let ladder = (
        "ladder",
        "an async runtime from nothing, in ten guests, with exercises; `ladder/3` is one",
    );
    let demos = DEMOS.iter().map(|demo| (demo.name, demo.shows));
    demos
        .chain([ladder])
        .map(|(name, shows)| format!("  {name:<12} {shows}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_demo_is_answered_with_the_known_ones() {
        let error = find("nonesuch").unwrap_err().to_string();
        for demo in DEMOS {
            assert!(error.contains(demo.name), "{error}");
        }
    }

    #[test]
    fn a_misspelled_demo_is_answered_with_the_one_that_was_meant() {
        for (slip, meant) in [
            ("concurent", "concurrent"),
            ("htpt", "http"),
            ("ehco", "echo"),
        ] {
            let error = find(slip).unwrap_err().to_string();
            assert!(error.contains(&format!("mean `{meant}`?")), "{error}");
        }
        let error = find("zzz").unwrap_err().to_string();
        assert!(!error.contains("Did you mean"), "{error}");
    }

    #[test]
    fn the_default_is_one_of_them() {
        assert!(find(DEFAULT).is_ok());
    }

    #[test]
    fn what_is_granted_is_what_the_arguments_name() {
        let args = |words: &[&str]| {
            words
                .iter()
                .map(|&word| word.to_owned())
                .collect::<Vec<_>>()
        };
        let urls = args(&["--limit", "2", "http://b:81/x", "http://a", "http://b:81/y"]);
        assert_eq!(
            connecting(&urls).options,
            args(&["--allow-connect", "a", "--allow-connect", "b:81"])
        );
        assert_eq!(
            connecting(&[]).options,
            args(&["--allow-connect", HTTP_ADDRESS])
        );
        assert_eq!(
            searching(&args(&["text", "src"])),
            Granted {
                options: args(&["--dir", "src:/data:ro"]),
                args: args(&["text"]),
            }
        );
        let once = args(&["--once", "2", "127.0.0.1:9"]);
        assert_eq!(
            listening(&once, ECHO_ADDRESS).options,
            args(&["--allow-listen", "127.0.0.1:9"])
        );
        let named = listening(&args(&["--once", "2", "localhost:9"]), ECHO_ADDRESS);
        assert_eq!(named.options, args(&["--allow-listen", "127.0.0.1:9"]));
        assert_eq!(named.args, args(&["--once", "2", "127.0.0.1:9"]));
        assert_eq!(
            listening(&args(&["--once", "2"]), ECHO_ADDRESS).options,
            args(&["--allow-listen", ECHO_ADDRESS])
        );
    }
}
