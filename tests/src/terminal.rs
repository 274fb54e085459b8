//! A terminal in which a command runs: what it shows is read, keys are pressed, its size changes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// What is not shown by then never will be. Far beyond what anything takes.
const NEVER: Duration = Duration::from_secs(100);

/// A terminal with a command in it, which ends when this goes.
#[derive(Debug)]
pub struct Terminal {
    keys: File,
    /// Kept open, so that its modes can be asked for when the command has gone.
    line: OwnedFd,
    modes: Termios,
    child: Child,
    written: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Terminal {
    /// Starts a command in a terminal of this size.
    ///
    /// # Panics
    ///
    /// If there is no terminal to be had, or the command does not start.
    #[must_use]
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&keys).expect("it is ours");
        unlockpt(&keys).expect("it is ours");
        let name = ptsname(&keys, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = rustix::fs::open(name, flags, Mode::empty()).expect("its other end");
        let keys = File::from(keys);
        set_size(&keys, columns, rows);
        let modes = tcgetattr(&line).expect("it has modes");

        let end = || line.try_clone().expect("a descriptor");
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        // SAFETY: between fork and exec only these two system calls are made, both of which are
        // async-signal-safe; standard input is the terminal there.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
                Ok(())
            });
        }
        let child = command.spawn().expect("the command starts");
        let mut from = keys.try_clone().expect("a descriptor");
        let (write, written) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Linux says EIO when nobody has the other end any more.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if write.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keys,
            line,
            modes,
            child,
            written,
            shown: Vec::new(),
        }
    }

    /// Waits until this text was shown since the last change of the size or the last
    /// [`Self::forget`].
    ///
    /// # Panics
    ///
    /// If it never is.
    #[track_caller]
    pub fn shows(&mut self, text: &str) {
        self.shows_times(text, 1);
    }

    /// As [`Self::shows`], so many times.
    ///
    /// # Panics
    ///
    /// As that.
    #[track_caller]
    pub fn shows_times(&mut self, text: &str, times: usize) {
        let deadline = Instant::now() + NEVER;
        while self.text().matches(text).count() < times {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.written.recv_timeout(left) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(error) => panic!("`{text}` is never shown ({error}):\n{}", self.text()),
            }
        }
    }

    /// What was shown, with the escape sequences taken for line ends.
    #[must_use]
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.shown);
        let mut plain = String::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            if c != '\x1b' {
                plain.push(c);
                continue;
            }
            let Some('[') = rest.next() else { continue };
            // ECMA-48, 5.4: parameters and intermediates, then one final byte. Colours stand in
            // the middle of words, everything else between them.
            if let Some(last) = rest.find(|c| matches!(c, '@'..='~'))
                && last != 'm'
            {
                plain.push('\n');
            }
        }
        plain
    }

    /// The bytes that were shown.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.shown
    }

    /// Forgets what was shown so far.
    pub fn forget(&mut self) {
        self.shown.clear();
    }

    /// Presses keys.
    ///
    /// # Panics
    ///
    /// If nobody can.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("keys");
    }

    /// Changes the size, and forgets what was shown before.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.shown.clear();
        set_size(&self.keys, columns, rows);
    }

    /// The number of the command's process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the command has ended.
    ///
    /// # Panics
    ///
    /// If it never does, or leaves the terminal in other modes than it found it in.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let deadline = Instant::now() + NEVER;
        let status = loop {
            while let Ok(bytes) = self.written.try_recv() {
                self.shown.extend(bytes);
            }
            match self.child.try_wait().expect("it is our child") {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    panic!("the command never ends:\n{}", self.text())
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        // What it wrote last is there already, but perhaps not read yet.
        while let Ok(bytes) = self.written.recv_timeout(Duration::from_millis(200)) {
            self.shown.extend(bytes);
        }
        let modes = tcgetattr(&self.line).expect("it has modes");
        let all = |modes: &Termios| {
            (
                modes.input_modes,
                modes.output_modes,
                modes.control_modes,
                modes.local_modes,
            )
        };
        assert_eq!(all(&modes), all(&self.modes), "the modes are as before");
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: impl AsFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).expect("a terminal has a size");
}
