//! What the numbers of descriptors stand for.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use wakebox_guest::fs::FileKind;
use wakebox_guest::io;

use super::{Errno, Process};
use crate::files::{self, Open};
use crate::wasi::Input;

/// Most descriptors of an instance.
const MOST: usize = 4096;

pub(super) struct Descriptors(Vec<Option<Descriptor>>);

pub(super) enum Descriptor {
    Input(Input),
    Output(fn(&[u8])),
    File(OpenFile),
}

/// A file or a directory.
pub(super) struct OpenFile {
    pub(super) open: Rc<Open>,
    /// The same, of which all that is written goes to the end.
    pub(super) appending: Option<Rc<Open>>,
    pub(super) cursor: u64,
    pub(super) is_granted: bool,
    /// What is in a directory, since it was last listed from its start.
    pub(super) entries: Rc<[(String, FileKind)]>,
}

impl OpenFile {
    pub(super) fn new(open: Open) -> Self {
        Self {
            open: Rc::new(open),
            appending: None,
            cursor: 0,
            is_granted: false,
            entries: Rc::new([]),
        }
    }

    /// Has what is written go to the end, or not.
    pub(super) async fn appends(open: &Rc<Open>, yes: bool) -> files::Result<Option<Rc<Open>>> {
        Ok(match yes {
            true => Some(Rc::new(open.appending().await?)),
            false => None,
        })
    }
}

impl Descriptors {
    pub(super) fn new(granted: Vec<Open>) -> Self {
        let mut all = Vec::from([
            Some(Descriptor::Input(Input::default())),
            Some(Descriptor::Output(io::write_stdout)),
            Some(Descriptor::Output(io::write_stderr)),
        ]);
        all.extend(granted.into_iter().map(|open| {
            Some(Descriptor::File(OpenFile {
                is_granted: true,
                ..OpenFile::new(open)
            }))
        }));
        Self(all)
    }

    pub(super) fn get(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        let found = self.0.get_mut(fd as usize).and_then(Option::as_mut);
        found.ok_or(Errno::Badf)
    }

    /// Gives something the least number that is free.
    pub(super) fn add(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let free = self.0.iter().position(Option::is_none);
        let free = free.unwrap_or(self.0.len());
        if free >= MOST {
            return Err(Errno::Mfile);
        }
        if free == self.0.len() {
            self.0.push(None);
        }
        self.0[free] = Some(descriptor);
        Ok(free as u32)
    }

    pub(super) fn remove(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        let found = self.0.get_mut(fd as usize).and_then(Option::take);
        found.ok_or(Errno::Badf)
    }

    /// Gives what has one number another, where something is.
    pub(super) fn renumber(&mut self, fd: u32, to: u32) -> Result<(), Errno> {
        self.get(to)?;
        let moved = self.remove(fd)?;
        self.0[to as usize] = Some(moved);
        Ok(())
    }
}

impl Process<'_> {
    /// A file or directory.
    pub(super) fn file(&mut self, fd: u32) -> Result<&mut OpenFile, Errno> {
        match self.descriptors().get(fd)? {
            Descriptor::File(file) => Ok(file),
            _ => Err(Errno::Inval),
        }
    }

    /// What a directory or file is on the host's side.
    pub(super) fn open(&mut self, fd: u32) -> Result<Rc<Open>, Errno> {
        Ok(self.file(fd)?.open.clone())
    }
}
