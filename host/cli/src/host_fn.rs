//! `--host-fn`: functions of the host that are programs, for trying guests that call their host.
//!
//! A program is started before the jail, gets a line of JSON for each call, and answers each with a line, in the
//! order of the calls. One that ends, or says what is no answer, is told of once on standard error, and all
//! calls to it fail from then on: which line is whose answer cannot be known any more.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::de::IgnoredAny;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use wakebox::{Builder, HostContext};

use super::say::note;
use super::style::Style;

/// Longest line that is read, in bytes: as long as a message may be.
const LONGEST: u64 = 16 << 20;

/// Calls that wait for the program to take them, and such as wait for its answer: more wait in the guest.
const WAITING: usize = 64;
const UNANSWERED: usize = 1024;

/// Longest name of a function, in bytes.
const NAME_MAX: usize = 256;

/// How often, and how long apart, a program that says nothing more is asked whether it has ended.
const ASKED: usize = 20;
const APART: Duration = Duration::from_millis(10);

/// `NAME=COMMAND`.
#[derive(Clone, Debug)]
pub(super) struct HostFn {
    name: String,
    command: String,
}

impl FromStr for HostFn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write it as NAME=COMMAND, like 'price=jq --unbuffered -c length'";
        let Some((name, command)) = text.split_once('=') else {
            return Err(format!("there is no `=`; {form}"));
        };
        if name.is_empty() || name.len() > NAME_MAX || name.contains(char::is_whitespace) {
            return Err(format!(
                "a name has 1 to {NAME_MAX} bytes, and no spaces; {form}"
            ));
        }
        if command.trim().is_empty() {
            return Err(format!("the command is missing; {form}"));
        }
        let (name, command) = (name.to_owned(), command.to_owned());
        Ok(Self { name, command })
    }
}

/// Starts the programs. To be called before the jail, from which they could neither be started nor ended: each
/// has the end of its input when this process ends, as in a pipeline.
///
/// # Errors
///
/// Two have one name, or there is no shell.
pub(super) fn start(all: &[HostFn]) -> Result<Vec<Program>> {
    let mut names = HashSet::new();
    for HostFn { name, .. } in all {
        if !names.insert(name) {
            bail!("two options --host-fn give the function `{name}`");
        }
    }
    all.iter().map(Program::start).collect()
}

/// A program that runs, and was not asked anything yet.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    ends: Ends,
}

/// What of a program is here.
#[derive(Debug)]
struct Ends {
    child: Child,
    input: OwnedFd,
    output: OwnedFd,
}

impl Program {
    fn start(from: &HostFn) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(&from.command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let failed = || {
            format!(
                "cannot start the command of the host function `{}`",
                from.name
            )
        };
        let mut child = command.spawn().with_context(failed)?;
        let ends = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = ends else {
            bail!("{}: it has no pipes", failed());
        };
        let (input, output) = (OwnedFd::from(input), OwnedFd::from(output));
        for end in [&input, &output] {
            rustix::io::ioctl_fionbio(end, true).with_context(failed)?;
        }
        Ok(Self {
            name: from.name.clone(),
            ends: Ends {
                child,
                input,
                output,
            },
        })
    }

    /// Makes it a function of the guest's.
    pub(super) fn given_to(self, builder: Builder) -> Builder {
        let talk = Arc::new(Talk {
            name: self.name.clone(),
            begins: Mutex::new(Some(self.ends)),
            questions: OnceLock::new(),
            end: OnceLock::new(),
        });
        builder.host_fn_json(&self.name, move |_: HostContext, line: String| {
            let talk = talk.clone();
            async move { talk.ask(line).await }
        })
    }
}

/// A call.
#[derive(Debug)]
struct Question {
    line: String,
    answer: oneshot::Sender<String>,
}

/// The conversation with a program.
#[derive(Debug)]
struct Talk {
    name: String,
    /// There until the first call, which has the runtime around it.
    begins: Mutex<Option<Ends>>,
    questions: OnceLock<mpsc::Sender<Question>>,
    /// What calls fail with when it is over.
    end: OnceLock<io::ErrorKind>,
}

impl Talk {
    async fn ask(self: Arc<Self>, line: String) -> io::Result<String> {
        let (answer, answered) = oneshot::channel();
        let question = Question { line, answer };
        let questions = self.questions.get_or_init(|| {
            let (questions, asked) = mpsc::channel(WAITING);
            let begins = self.begins.lock();
            let ends = begins.unwrap_or_else(PoisonError::into_inner).take();
            tokio::spawn(self.clone().go_on(ends, asked));
            questions
        });
        // If it is not taken, there is no answer either.
        let _ = questions.send(question).await;
        answered.await.map_err(|_| {
            let end = self.end.get().copied();
            end.unwrap_or(io::ErrorKind::BrokenPipe).into()
        })
    }

    /// Until it is over, and says why it is.
    async fn go_on(self: Arc<Self>, ends: Option<Ends>, asked: mpsc::Receiver<Question>) {
        let Some(mut ends) = ends else { return };
        // Whoever waits learns of it when these are dropped.
        let (expects, mut expected) = mpsc::channel(UNANSWERED);
        let end = match pipes(ends.input, ends.output) {
            Ok((input, output)) => {
                tokio::select! {
                    end = write(input, asked, expects) => end,
                    end = read(output, &mut expected) => end,
                }
            }
            Err(error) => End::Broken(error),
        };
        let (kind, why) = end.told(&mut ends.child).await;
        let _ = self.end.set(kind);
        note!(
            "{}: the command of the host function `{}` {why}; calls of it fail from now on",
            Style::of_stderr().error("wakebox"),
            self.name
        );
    }
}

fn pipes(input: OwnedFd, output: OwnedFd) -> io::Result<(pipe::Sender, pipe::Receiver)> {
    Ok((
        pipe::Sender::from_owned_fd_unchecked(input)?,
        pipe::Receiver::from_owned_fd_unchecked(output)?,
    ))
}

/// Why a conversation is over.
#[derive(Debug)]
enum End {
    Silent,
    Broken(io::Error),
    NotJson(String),
    NotAsked,
    TooLong,
}

impl End {
    /// What calls fail with, and what is said.
    async fn told(self, child: &mut Child) -> (io::ErrorKind, String) {
        use io::ErrorKind as Kind;
        match self {
            Self::Silent => {
                let why = match status(child).await {
                    Some(status) => format!("has ended ({status})"),
                    None => "has closed its standard output".to_owned(),
                };
                (Kind::BrokenPipe, why)
            }
            Self::Broken(error) if error.kind() == Kind::BrokenPipe => {
                let why = match status(child).await {
                    Some(status) => format!("has ended ({status})"),
                    None => "has closed its standard input".to_owned(),
                };
                (Kind::BrokenPipe, why)
            }
            Self::Broken(error) => (Kind::BrokenPipe, format!("cannot be spoken to: {error}")),
            Self::NotJson(line) => (
                Kind::InvalidData,
                format!("answered what is no JSON: {line}"),
            ),
            Self::NotAsked => (
                Kind::InvalidData,
                "wrote a line to which there was no call".to_owned(),
            ),
            Self::TooLong => (
                Kind::InvalidData,
                format!("answered a line of more than {} MiB", LONGEST >> 20),
            ),
        }
    }
}

/// How a program ended that says nothing more, if it does at once.
async fn status(child: &mut Child) -> Option<ExitStatus> {
    for _ in 0..ASKED {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        tokio::time::sleep(APART).await;
    }
    None
}

async fn write(
    mut input: pipe::Sender,
    mut asked: mpsc::Receiver<Question>,
    expects: mpsc::Sender<oneshot::Sender<String>>,
) -> End {
    while let Some(Question { mut line, answer }) = asked.recv().await {
        line.push('\n');
        // First, so that no answer is there before somebody waits for it.
        if expects.send(answer).await.is_err() {
            break;
        }
        if let Err(error) = input.write_all(line.as_bytes()).await {
            return End::Broken(error);
        }
    }
    // Nobody asks any more, or somebody else has said why.
    std::future::pending().await
}

async fn read(
    output: pipe::Receiver,
    expected: &mut mpsc::Receiver<oneshot::Sender<String>>,
) -> End {
    let mut output = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        let read = (&mut output)
            .take(LONGEST + 1)
            .read_until(b'\n', &mut line)
            .await;
        match read {
            Ok(0) => return End::Silent,
            Ok(_) => {}
            Err(error) => return End::Broken(error),
        }
        if line.len() as u64 > LONGEST {
            return End::TooLong;
        }
        let Ok(answer) = expected.try_recv() else {
            return End::NotAsked;
        };
        match json(&line) {
            // Nobody may wait for it any more.
            Some(line) => drop(answer.send(line.to_owned())),
            None => return End::NotJson(shown(&line)),
        }
    }
}

/// A line, if it is JSON.
fn json(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    serde_json::from_str::<IgnoredAny>(line)
        .is_ok()
        .then_some(line)
}

/// The beginning of a line, as it can be shown.
fn shown(line: &[u8]) -> String {
    const MOST: usize = 100;
    let start = String::from_utf8_lossy(&line[..line.len().min(MOST)]);
    let more = if line.len() > MOST { "..." } else { "" };
    format!("`{}`{more}", start.trim_end().escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_function_has_a_name_and_a_command() {
        let HostFn { name, command } = "kv.get=jq -c '.a=1'".parse().unwrap();
        assert_eq!((&*name, &*command), ("kv.get", "jq -c '.a=1'"));
        for (wrong, why) in [
            ("price", "no `=`"),
            ("=cat", "a name has"),
            ("a b=cat", "a name has"),
            ("price= ", "the command is missing"),
        ] {
            let error = wrong.parse::<HostFn>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_name_stands_for_one_command() {
        let twice: [HostFn; 2] = ["a=exit", "a=exit"].map(|text| text.parse().unwrap());
        assert!(start(&twice).unwrap_err().to_string().contains("`a`"));
    }
}
