//! A policy in plain sentences.

use std::fmt;

use super::grant::Hosts;
use super::{Policy, Target};

impl fmt::Display for Policy {
    /// One sentence a line, with what the guest may do; ends without a line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentences = self.sentences();
        let is_empty = sentences.is_empty();
        for sentence in sentences {
            writeln!(f, "The guest {sentence}.")?;
        }
        match is_empty {
            true => writeln!(f, "The guest may reach nothing.")?,
            false => writeln!(f, "It may reach nothing else.")?,
        }
        self.limits.fmt(f)
    }
}

impl Policy {
    #[allow(clippy::too_many_lines, reason = "a table")]
    fn sentences(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for to in &self.connect {
            sentences.push(format!("may connect by TCP to {}", target(to)));
        }
        for on in &self.listen {
            sentences.push(match on.0.port() {
                0 => format!(
                    "may listen for TCP on {}, on ports that the host chooses",
                    on.0.ip()
                ),
                port => format!("may listen for TCP on {}, port {port}", on.0.ip()),
            });
        }
        for with in &self.udp {
            sentences.push(format!("may exchange UDP datagrams with {}", target(with)));
        }
        for on in &self.udp_bind {
            sentences.push(match on.0.port() {
                0 => format!("may bind UDP ports of the host's choice on {}", on.0.ip()),
                port => format!("may bind UDP port {port} on {}", on.0.ip()),
            });
        }
        for path in &self.unix {
            sentences.push(format!("may connect to the Unix socket {}", path.display()));
        }
        for names in &self.resolve {
            sentences.push(match names.to_string().as_str() {
                "*" => "may resolve every name".into(),
                names => format!("may resolve the name {names}"),
            });
        }
        for dir in &self.dirs {
            let how = match (dir.is_writable(), dir.has_links()) {
                (false, _) => "read, and not change,",
                (true, false) => "read and write",
                (true, true) => "read and write, and put symbolic links into,",
            };
            sentences.push(format!(
                "may {how} what is in {}, which it sees as {}",
                dir.host().display(),
                dir.guest()
            ));
        }
        for variable in &self.env {
            sentences.push(match &variable.value {
                Some(value) => format!(
                    "gets the variable {} with the value {value:?}",
                    variable.name
                ),
                None => format!("gets the variable {} with its value here", variable.name),
            });
        }
        for function in &self.functions {
            sentences.push(match function.to_string().strip_suffix('*') {
                Some("") => "may call every host function".into(),
                Some(beginning) => {
                    format!("may call the host functions that begin with `{beginning}`")
                }
                None => format!("may call the host function `{function}`"),
            });
        }
        sentences
    }
}

fn target(target: &Target) -> String {
    let port = match target.port {
        Some(port) => format!("port {port}"),
        None => "any port".into(),
    };
    match &target.hosts {
        Hosts::Zone(ip, zone) => format!("{ip} on the interface {zone}, {port}"),
        Hosts::Network(net) if net.prefix_len() == net.max_prefix_len() => {
            format!("{}, {port}", net.addr())
        }
        Hosts::Network(net) if net.prefix_len() == 0 => {
            let version = if net.max_prefix_len() == 32 { 4 } else { 6 };
            format!("every IPv{version} address, this host's own included, {port}")
        }
        Hosts::Network(net) => format!("the addresses {net}, {port}"),
        Hosts::Names(names) => {
            let text = names.to_string();
            let at = if text == "localhost" || text.ends_with(".localhost") {
                "at loopback and public addresses"
            } else {
                "at public addresses"
            };
            match text.strip_prefix("*.") {
                Some(suffix) => format!("every name beneath {suffix}, {port}, {at}"),
                None => format!("{text}, {port}, {at}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use std::time::Duration;

    #[test]
    fn a_policy_is_said_in_sentences() {
        let none = Policy::new().to_string();
        assert!(
            none.starts_with("The guest may reach nothing.\nIt gets at most 64 MiB of memory;")
        );
        let policy = Policy::new()
            .allow_connect("api.example.com:443".parse().unwrap())
            .allow_connect("10.0.0.0/8".parse().unwrap())
            .allow_connect("[fe80::1%eth0]:80".parse().unwrap())
            .allow_listen("127.0.0.1:0".parse().unwrap())
            .allow_dir("/srv:/site:ro".parse().unwrap())
            .allow_env("LANG=C".parse().unwrap())
            .allow_fn("kv.*".parse().unwrap())
            .limit(
                Limits::unlimited()
                    .cpu_time(Duration::from_secs(2))
                    .log(4096),
            );
        assert_eq!(
            policy.to_string(),
            "\
The guest may connect by TCP to api.example.com, port 443, at public addresses.
The guest may connect by TCP to the addresses 10.0.0.0/8, any port.
The guest may connect by TCP to fe80::1 on the interface eth0, port 80.
The guest may listen for TCP on 127.0.0.1, on ports that the host chooses.
The guest may read, and not change, what is in /srv, which it sees as /site.
The guest gets the variable LANG with the value \"C\".
The guest may call the host functions that begin with `kv.`.
It may reach nothing else.
It gets at most 2.00 s of time on a processor; then it is ended.
It gets at most 64 MiB of memory; then allocations fail.
It gets at most 128 MiB of the host's memory; then what needs more is refused.
It gets at most 4 KiB to standard error; then it is ended.
Without limit: wall-clock, in-flight, handles, timers, network-in, network-out, files-in, \
files-out, stdin, stdout, calls-in, calls-out, host-fn-time, processors."
        );
    }
}
