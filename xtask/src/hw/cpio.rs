//! The archive that a kernel unpacks into its first file system: cpio, in the form `newc`
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that grows.
#[derive(Debug)]
pub(crate) struct Archive<W: Write> {
    to: W,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive<BufWriter<File>> {
    /// Starts an archive in a file.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: Write> Archive<W> {
    fn new(to: W) -> Self {
        Self {
            to,
            entries: 0,
            directories: BTreeSet::new(),
        }
    }

    /// Adds a file, which may be executed, at an absolute path.
    ///
    /// # Errors
    ///
    /// If it is too large for the format, or cannot be written.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.parents(path)?;
        self.entry(path, PROGRAM, (0, 0), bytes)
    }

    /// Adds a copy of a file.
    ///
    /// # Errors
    ///
    /// As [`Self::file`], or if it cannot be read.
    pub(crate) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| from.display().to_string())?;
        self.file(path, &bytes)
    }

    /// Adds a character device.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.parents(path)?;
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[])
    }

    /// Adds an empty directory.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        self.parents(&format!("{path}/"))
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.entry("/TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()?;
        Ok(self.to)
    }

    /// The directories above a path: the kernel makes none by itself.
    fn parents(&mut self, path: &str) -> Result<()> {
        if !path.starts_with('/') {
            bail!("`{path}` is not an absolute path");
        }
        for (end, _) in path.match_indices('/').skip(1) {
            let parent = &path[..end];
            if self.directories.insert(parent.to_owned()) {
                self.entry(parent, DIRECTORY, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> Result<()> {
        let name = path.trim_start_matches('/');
        let len = u32::try_from(bytes.len()).with_context(|| format!("{path} is too large"))?;
        self.entries += 1;
        let fields = [
            self.entries, // inode
            mode,
            0, // user
            0, // group
            1, // links
            0, // time
            len,
            0, // device that it is on
            0,
            device.0, // device that it is
            device.1,
            name.len() as u32 + 1,
            0, // checksum: none in this form
        ];
        write!(self.to, "070701")?;
        for field in fields {
            write!(self.to, "{field:08X}")?;
        }
        write!(self.to, "{name}\0")?;
        let header = 6 + 8 * fields.len();
        self.pad(header + name.len() + 1)?;
        self.to.write_all(bytes)?;
        self.pad(bytes.len())?;
        Ok(())
    }

    /// To a multiple of four.
    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.to
            .write_all(&[0; 3][..written.next_multiple_of(4) - written])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names, modes and contents, read as the kernel does.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            let (header, rest) = archive.split_at(110);
            assert_eq!(&header[..6], b"070701");
            let field = |index: usize| {
                let digits = str::from_utf8(&header[6 + index * 8..][..8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let (name_len, len) = (field(11) as usize, field(6) as usize);
            let name = String::from_utf8(rest[..name_len - 1].to_vec()).unwrap();
            assert_eq!(rest[name_len - 1], 0);
            let bytes = &rest[(110 + name_len).next_multiple_of(4) - 110..];
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((name, field(1), bytes[..len].to_vec()));
            archive = &bytes[len.next_multiple_of(4)..];
        }
    }

    #[test]
    fn files_come_after_the_directories_that_hold_them() {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/one", b"1").unwrap();
        archive.file("/a/b/two", b"12345").unwrap();
        archive.directory("/tmp").unwrap();
        archive.device("/dev/console", 5, 1).unwrap();
        let entries = entries(&archive.finish().unwrap());
        let seen: Vec<_> = entries
            .iter()
            .map(|(name, mode, bytes)| (&**name, *mode, &**bytes))
            .collect();
        assert_eq!(
            seen,
            [
                ("a", DIRECTORY, &b""[..]),
                ("a/b", DIRECTORY, b""),
                ("a/b/one", PROGRAM, b"1"),
                ("a/b/two", PROGRAM, b"12345"),
                ("tmp", DIRECTORY, b""),
                ("dev", DIRECTORY, b""),
                ("dev/console", CHARACTER_DEVICE, b""),
            ]
        );
    }

    #[test]
    fn a_relative_path_is_refused() {
        assert!(Archive::new(Vec::new()).file("init", b"").is_err());
    }
}
