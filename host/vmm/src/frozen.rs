//! What lay in a guest's memory at a moment.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use wakebox_abi::layout::PAGE_SIZE;
use wakebox_abi::window::{Answer, Request};

use crate::backing::{Backing, Template};
use crate::error::{Error, Result};
use crate::pages::{Range, data};
use crate::plan::Plan;
use crate::x86_64::windows;

/// What lay in a guest's memory at a moment, in a file that nobody can change: a
/// [template](Backing::Template) of other guests' memory.
#[derive(Clone, Debug)]
pub struct Frozen {
    template: Template,
    plan: Plan,
    /// Bytes of pages that are not zeroes.
    kept: u64,
}

impl Frozen {
    /// An empty one, to be filled page by page.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn new(plan: Plan) -> Result<Self> {
        let bytes = plan.ram;
        let make = || -> io::Result<File> {
            let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
            let file = File::from(memfd_create("wakebox-template", flags)?);
            file.set_len(bytes)?;
            Ok(file)
        };
        let file = make().map_err(|source| Error::Map { bytes, source })?;
        Ok(Self {
            template: Template::new(Arc::new(file)),
            plan,
            kept: 0,
        })
    }

    /// Writes whole pages; those of zeroes take no room.
    ///
    /// # Errors
    ///
    /// [`Error::Map`]: there is no memory left.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let failed = |source| Error::Map {
            bytes: self.plan.ram,
            source,
        };
        let page = PAGE_SIZE as usize;
        let is_empty = |page: &[u8]| page.iter().all(|byte| *byte == 0);
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            let run = rest.chunks(page).take_while(|page| !is_empty(page)).count() * page;
            let run = &rest[..run.min(rest.len())];
            if !run.is_empty() {
                self.template
                    .file()
                    .write_all_at(run, offset + at as u64)
                    .map_err(failed)?;
                self.kept += run.len() as u64;
            }
            // Behind it lies a page of zeroes, or nothing.
            at += run.len() + page;
        }
        Ok(())
    }

    /// Writes what [`GuestMemory::write_tables`](crate::memory::GuestMemory::write_tables) writes.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    ///
    /// # Panics
    ///
    /// As that.
    pub fn write_tables(&mut self) -> Result<()> {
        for (offset, bytes) in self.plan.written() {
            self.write(offset, &bytes)?;
        }
        Ok(())
    }

    /// From now on nobody can change it.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn seal(&self) -> Result<()> {
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(self.template.file(), seals).map_err(|error| Error::Map {
            bytes: self.plan.ram,
            source: error.into(),
        })
    }

    /// Where everything lies.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of pages that are not zeroes.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// What memory like it is made of.
    #[must_use]
    pub fn backing(&self) -> Backing {
        Backing::Template(self.template.clone())
    }

    /// The ranges that hold something, in their order, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn ranges(&self) -> Result<Vec<Range>> {
        data(self.template.file(), self.plan.ram).map_err(|source| Error::Map {
            bytes: self.plan.ram,
            source,
        })
    }

    /// Reads what lies at an offset.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.template
            .file()
            .read_exact_at(bytes, offset)
            .map_err(|source| Error::Map {
                bytes: self.plan.ram,
                source,
            })
    }

    /// What lies in windows.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn shown(&self) -> Result<Vec<Request>> {
        let mut region = vec![0; self.plan.windows.len as usize];
        self.read(self.plan.windows.offset, &mut region)?;
        Ok(windows::shown(self.plan.window_place(), &region))
    }

    /// Has this lie in windows, in which nothing lies yet.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], and what of it cannot be, and why.
    pub fn show(&mut self, shown: &[Request]) -> Result<Result<(), (Request, Answer)>> {
        match windows::tables(self.plan.window_place(), shown) {
            Ok(bytes) => self.write(self.plan.windows.offset, &bytes).map(Ok),
            Err(refused) => Ok(Err(refused)),
        }
    }
}
