//! Operations with paths in a granted directory, and the same system calls in a twin of it: the answers
//! are the same, and so is what the two directories hold afterwards.
//!
//! What differs is meant to: a path that leads out of the directory is refused, so is opening what is
//! neither a file nor a directory, and a guest opens a directory as a file in no way. For those, the
//! twin says that it was right to refuse, and nothing is done there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, mknodat,
    openat, openat2, utimensat,
};
use rustix::io::Errno;
use tempfile::TempDir;
use wakebox::Policy;
use wakebox::proof::{Bench, status_of};
use wakebox_abi::entry::{Submission, Token};
use wakebox_abi::file::{FileKind, FileStat, FileTime, OpenFlags};
use wakebox_abi::op::{self, Buf, Follow, Operation};
use wakebox_abi::status::Status;
use wakebox_proofs::{Any, Bytes, Random};

use crate::generate;

/// Operations of an input at most.
const OPERATIONS: usize = 48;

/// How often the two directories are compared.
const COMPARED: usize = 8;

/// A time, in nanoseconds since 1970.
const TIME: i64 = 1_234_567_890_123_456_789;

/// Parts of paths: few, so that they meet.
const PARTS: [&str; 12] = [
    "a", "b", "c", "f", "l", "a", "f", "..", ".", "", "pipe", "absent",
];

/// Ends of paths.
const ENDS: [&str; 10] = ["", "", "", "", "/", "//", "/.", "/./", "/..", "/../"];

/// Where links lead to.
const TARGETS: [&str; 14] = [
    "a",
    "b/",
    "f",
    "f/",
    "f/.",
    "..",
    ".",
    "../f",
    "absent",
    "absent/",
    "l",
    "a/../b/f",
    "pipe",
    "../../outside",
];

/// One operation.
#[derive(Clone, Debug)]
enum Act {
    Stat(String, Follow),
    Open(String, u32),
    List(String),
    CreateDirectory(String),
    RemoveFile(String),
    RemoveDirectory(String),
    Rename(String, String),
    HardLink(String, String),
    Symlink(&'static str, String),
    ReadLink(String),
    Times(String, Follow),
    /// The host itself puts a link or a pipe there.
    Link(String, &'static str),
    Pipe(String),
}

/// A granted directory and its twin, each in a folder that has something outside of them.
struct Twins {
    folder: TempDir,
    bench: Bench,
}

impl Twins {
    fn new() -> Self {
        let memory = Some(Path::new("/dev/shm")).filter(|path| path.is_dir());
        let folder = memory.map_or_else(TempDir::new, TempDir::new_in);
        let folder = folder.expect("a folder for the twins");
        for side in ["guest", "host"] {
            let side = folder.path().join(side);
            fs::create_dir_all(side.join("root")).expect("a folder");
            fs::write(side.join("outside"), "outside").expect("a file");
        }
        let grant = format!("{}:/d:links", folder.path().join("guest/root").display());
        let policy = Policy::new().allow_dir(grant.parse().expect("a grant"));
        let bench = Bench::new(policy);
        Self { folder, bench }
    }

    fn root(&self, side: &str) -> String {
        format!("{}/{side}/root", self.folder.path().display())
    }

    /// Both as they were at the beginning.
    fn reset(&self) {
        for side in ["guest", "host"] {
            let root = self.root(side);
            fs::remove_dir_all(&root).expect("what the last input left");
            fs::create_dir_all(format!("{root}/a/b")).expect("folders");
            fs::create_dir(format!("{root}/c")).expect("a folder");
            for file in ["f", "a/f", "a/b/f"] {
                fs::write(format!("{root}/{file}"), file).expect("a file");
            }
            pipe(&format!("{root}/pipe")).expect("a pipe");
            symlink("a/b", format!("{root}/l")).expect("a link");
        }
    }

    /// What the guest is told, and what else it learns.
    fn guest(&self, act: &Act) -> (Status, String) {
        let mut arena = Vec::new();
        let into = Buf {
            offset: 0,
            len: FileStat::SIZE as u32,
        };
        arena.resize(FileStat::SIZE, 0);
        let mut path = |tail: &str| {
            let offset = arena.len() as u32;
            arena.extend(b"/d");
            arena.extend(tail.as_bytes());
            let len = arena.len() as u32 - offset;
            Buf { offset, len }
        };
        let token = Token {
            slot: 0,
            generation: 1,
        };
        let entry: Submission = match act {
            Act::Stat(tail, follow) => {
                let (path, follow) = (path(tail), *follow);
                op::StatPath { path, follow, into }.submission(token)
            }
            Act::Open(tail, flags) => {
                let (path, flags) = (path(tail), OpenFlags(*flags));
                op::OpenFile { path, flags }.submission(token)
            }
            Act::List(tail) => op::OpenDirectory { path: path(tail) }.submission(token),
            Act::CreateDirectory(tail) => {
                op::CreateDirectory { path: path(tail) }.submission(token)
            }
            Act::RemoveFile(tail) => op::RemoveFile { path: path(tail) }.submission(token),
            Act::RemoveDirectory(tail) => {
                op::RemoveDirectory { path: path(tail) }.submission(token)
            }
            Act::Rename(from, to) => {
                let (from, to) = (path(from), path(to));
                op::Rename { from, to }.submission(token)
            }
            Act::HardLink(from, to) => {
                let (from, to) = (path(from), path(to));
                op::HardLink { from, to }.submission(token)
            }
            Act::Symlink(target, tail) => {
                let path = path(tail);
                let (offset, len) = (arena.len() as u32, target.len() as u32);
                arena.extend(target.as_bytes());
                let target = Buf { offset, len };
                op::SymbolicLink { target, path }.submission(token)
            }
            Act::ReadLink(tail) => op::ReadLink {
                path: path(tail),
                into,
            }
            .submission(token),
            Act::Times(tail, follow) => op::SetPathTimes {
                path: path(tail),
                follow: *follow,
                accessed: FileTime::Keep,
                modified: FileTime::At(TIME),
            }
            .submission(token),
            Act::Link(..) | Act::Pipe(_) => return (self.plant(act, "guest"), String::new()),
        };
        let (status, value, arena) = self.bench.complete(&arena, entry);
        let told = match act {
            Act::Stat(..) if status == Status::Ok => {
                let stat = arena.first_chunk().expect("the arena has room for it");
                let stat = FileStat::from_bytes(stat);
                said(stat.kind, stat.permissions, stat.len, stat.links)
            }
            Act::ReadLink(_) if status == Status::Ok => {
                String::from_utf8_lossy(&arena[..value as usize]).into_owned()
            }
            _ => String::new(),
        };
        (status, told)
    }

    /// Has the host put a link or a pipe somewhere; not outside.
    fn plant(&self, act: &Act, side: &str) -> Status {
        let root = self.root(side);
        let (Act::Link(tail, _) | Act::Pipe(tail)) = act else {
            unreachable!("only these are the host's");
        };
        if leads_out(&root, parent(tail), true) {
            return Status::PermissionDenied;
        }
        let at = format!("{root}{tail}");
        status(match act {
            Act::Link(_, target) => symlink(target, at),
            _ => pipe(&at),
        })
    }

    /// What the kernel says to the same in the twin.
    fn host(&self, act: &Act) -> (Status, String) {
        let root = self.root("host");
        let at = |tail: &str| format!("{root}{tail}");
        let mut told = String::new();
        let done = match act {
            Act::Stat(tail, follow) => {
                let stat = match follow {
                    Follow::Yes => fs::metadata(at(tail)),
                    Follow::No => fs::symlink_metadata(at(tail)),
                };
                stat.map(|stat| {
                    let kind = stat.file_type();
                    let kind = match () {
                        () if kind.is_file() => FileKind::File,
                        () if kind.is_dir() => FileKind::Directory,
                        () if kind.is_symlink() => FileKind::Symlink,
                        () => FileKind::Other,
                    };
                    told = said(kind, stat.mode() & 0o7777, stat.len(), stat.nlink() as u32);
                })
            }
            Act::Open(tail, flags) => open(&at(tail), *flags).map(drop),
            Act::List(tail) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened = openat(CWD, at(tail), flags, Mode::empty());
                opened.map(drop).map_err(io::Error::from)
            }
            Act::CreateDirectory(tail) => fs::create_dir(at(tail)),
            Act::RemoveFile(tail) => fs::remove_file(at(tail)),
            Act::RemoveDirectory(tail) => fs::remove_dir(at(tail)),
            Act::Rename(from, to) => fs::rename(at(from), at(to)),
            Act::HardLink(from, to) => fs::hard_link(at(from), at(to)),
            Act::Symlink(target, tail) => symlink(target, at(tail)),
            Act::ReadLink(tail) => fs::read_link(at(tail)).map(|target| {
                told = target.to_string_lossy().into_owned();
            }),
            Act::Times(tail, follow) => times(&at(tail), *follow),
            Act::Link(..) | Act::Pipe(_) => return (self.plant(act, "host"), told),
        };
        (status(done), told)
    }

    /// Whether an operation is one that a guest is refused: one that leads out, one on the granted
    /// directory itself, or one that would open what is not granted.
    fn is_refused(&self, act: &Act) -> bool {
        let root = self.root("host");
        let out = |tail: &str| leads_out(&root, tail, true);
        let name_is_out = |tail: &str| is_root(tail) || leads_out(&root, parent(tail), true);
        match act {
            Act::Stat(tail, Follow::No) | Act::ReadLink(tail) | Act::Times(tail, Follow::No) => {
                leads_out(&root, tail, false)
            }
            Act::Stat(tail, Follow::Yes) | Act::List(tail) | Act::Times(tail, Follow::Yes) => {
                out(tail)
            }
            Act::Open(tail, _) => out(tail) || is_special(&format!("{root}{tail}")),
            Act::CreateDirectory(tail) => leads_out(&root, parent(tail), true),
            Act::RemoveFile(tail) | Act::RemoveDirectory(tail) | Act::Symlink(_, tail) => {
                name_is_out(tail)
            }
            Act::Rename(from, to) => name_is_out(from) || name_is_out(to),
            Act::HardLink(from, to) => {
                name_is_out(from) || leads_out(&root, from, false) || name_is_out(to)
            }
            Act::Link(..) | Act::Pipe(_) => false,
        }
    }

    /// Does one thing on both sides. Returns whether it was done.
    fn both(&self, act: &Act) -> bool {
        let refused = self.is_refused(act);
        let (status, told) = self.guest(act);
        if refused && status == Status::PermissionDenied {
            return false;
        }
        // What leads out may also fail before it gets there; the twin must not do what would not.
        let harmless = status != Status::Ok;
        assert!(!refused || harmless, "{act:?} was not refused");
        if refused {
            return false;
        }
        let (expected, seen) = self.host(act);
        let expected = match act {
            // A guest opens files, in any way; the kernel a directory for reading.
            Act::Open(tail, _) if expected == Status::Ok && self.is_directory(tail) => {
                Status::IsADirectory
            }
            _ => expected,
        };
        assert_eq!((status, told), (expected, seen), "{act:?}");
        status == Status::Ok
    }

    fn is_directory(&self, tail: &str) -> bool {
        fs::metadata(format!("{}{tail}", self.root("host"))).is_ok_and(|found| found.is_dir())
    }

    /// Sees that both hold the same.
    fn compare(&self, acts: &[Act]) {
        let [guest, host] = ["guest", "host"].map(|side| {
            let mut all = BTreeMap::new();
            let outside = self.folder.path().join(side);
            collect(&outside, &outside, &mut all);
            all
        });
        assert_eq!(guest, host, "after {acts:#?}");
    }
}

fn said(kind: FileKind, permissions: u32, len: u64, links: u32) -> String {
    match kind {
        // A file system may have any length for it, and any number of names.
        FileKind::Directory => format!("{kind:?} {permissions:o}"),
        _ => format!("{kind:?} {permissions:o} {len} {links}"),
    }
}

fn status(done: io::Result<()>) -> Status {
    done.map_or_else(|error| status_of(&error), |()| Status::Ok)
}

fn pipe(at: &str) -> io::Result<()> {
    let rights = Mode::from_raw_mode(0o600);
    Ok(mknodat(CWD, at, FileType::Fifo, rights, 0)?)
}

/// Sets when what is there was changed last.
fn times(at: &str, follow: Follow) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: TIME / 1_000_000_000,
            tv_nsec: TIME % 1_000_000_000,
        },
    };
    let flags = match follow {
        Follow::Yes => AtFlags::empty(),
        Follow::No => AtFlags::SYMLINK_NOFOLLOW,
    };
    Ok(utimensat(CWD, at, &times, flags)?)
}

/// Opens a file as a guest's flags say.
fn open(at: &str, flags: u32) -> io::Result<OwnedFd> {
    let has = |flag| OpenFlags(flags).has(flag);
    let mut raw = match (
        has(OpenFlags::READ),
        has(OpenFlags::WRITE | OpenFlags::APPEND),
    ) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (flag, meaning) in [
        (OpenFlags::APPEND, OFlags::APPEND),
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::CREATE_NEW, OFlags::CREATE | OFlags::EXCL),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
    ] {
        if has(flag) {
            raw |= meaning;
        }
    }
    let rights = Mode::from_raw_mode(0o666);
    Ok(openat(CWD, at, raw | OFlags::CLOEXEC, rights)?)
}

/// Whether a path is the directory's own.
fn is_root(tail: &str) -> bool {
    tail.bytes().all(|byte| byte == b'/')
}

/// What stands before the last part of a path.
fn parent(tail: &str) -> &str {
    let trimmed = tail.trim_end_matches('/');
    &trimmed[..trimmed.rfind('/').unwrap_or(0)]
}

/// Whether the kernel finds that a path leads out of a directory.
fn leads_out(root: &str, tail: &str, follow: bool) -> bool {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = openat(CWD, root, flags, Mode::empty()).expect("the twin is there");
    let last = if follow {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    let path = format!(".{tail}");
    let beneath = ResolveFlags::BENEATH;
    loop {
        match openat2(&root, &path, flags | last, Mode::empty(), beneath) {
            // Somebody renames something, anywhere on the machine: it cannot tell of `..` then.
            Err(Errno::AGAIN) => {}
            opened => return opened.err() == Some(Errno::XDEV),
        }
    }
}

/// Whether a path leads to what is neither a file nor a directory.
fn is_special(at: &str) -> bool {
    fs::metadata(at).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// What is beneath a directory, by path: kinds, bytes, targets.
fn collect(base: &Path, directory: &Path, all: &mut BTreeMap<Vec<u8>, String>) {
    for entry in fs::read_dir(directory).expect("a listing").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("a kind");
        let what = match () {
            () if kind.is_dir() => "directory".into(),
            () if kind.is_symlink() => format!("link to {:?}", fs::read_link(&path).ok()),
            () if kind.is_fifo() => "pipe".into(),
            () => format!("file of {:?}", fs::read(&path).ok()),
        };
        let found = fs::symlink_metadata(&path).expect("it is there");
        let is_set = found.mtime_nsec() == TIME % 1_000_000_000;
        let what = format!(
            "{what}, with {} names, {is_set}",
            match kind.is_dir() {
                true => 1,
                false => found.nlink(),
            }
        );
        let name = path.strip_prefix(base).expect("it is beneath");
        all.insert(name.as_os_str().as_bytes().to_vec(), what);
        if kind.is_dir() {
            collect(base, &path, all);
        }
    }
}

/// The rest of a path behind the granted directory's.
fn tail(any: &mut Bytes<'_>) -> String {
    let mut tail = String::new();
    for _ in 0..any.below(4) {
        tail.push('/');
        tail.push_str(any.one_of(&PARTS));
    }
    tail.push_str(any.one_of(&ENDS));
    tail
}

fn act(any: &mut Bytes<'_>) -> Act {
    use OpenFlags as F;
    let first = tail(any);
    match any.below(19) {
        0 => Act::Stat(first, Follow::Yes),
        1 => Act::Stat(first, Follow::No),
        2..=4 => Act::Open(
            first,
            any.one_of(&[
                F::READ,
                F::WRITE,
                F::READ | F::WRITE,
                F::WRITE | F::CREATE,
                F::READ | F::APPEND | F::CREATE,
                F::WRITE | F::CREATE_NEW,
                F::WRITE | F::TRUNCATE,
                F::WRITE | F::CREATE | F::TRUNCATE,
            ]),
        ),
        5 => Act::List(first),
        6 => Act::CreateDirectory(first),
        7 => Act::RemoveFile(first),
        8 => Act::RemoveDirectory(first),
        9 | 10 => Act::Rename(first, tail(any)),
        11 => Act::Link(first, any.one_of(&TARGETS)),
        13 | 14 => Act::HardLink(first, tail(any)),
        15 => Act::Symlink(any.one_of(&TARGETS), first),
        16 => Act::ReadLink(first),
        17 => Act::Times(first, Follow::Yes),
        18 => Act::Times(first, Follow::No),
        _ => Act::Pipe(first),
    }
}

/// Does on both sides what these bytes describe. Returns how many operations were done.
///
/// # Panics
///
/// If the two sides come to differ.
pub fn run(data: &[u8]) -> u64 {
    thread_local! {
        static TWINS: Twins = Twins::new();
    }
    TWINS.with(|twins| {
        twins.reset();
        let mut any = Bytes::new(data);
        let mut acts = Vec::new();
        let mut done = 0;
        while acts.len() < OPERATIONS && any.goes_on() {
            let act = act(&mut any);
            acts.push(act.clone());
            done += u64::from(twins.both(&act));
            if acts.len().is_multiple_of(COMPARED) {
                twins.compare(&acts);
            }
        }
        twins.compare(&acts);
        done
    })
}

/// Bytes that [`run`] reads as it likes.
pub fn make(random: &mut Random, _: &[Vec<u8>]) -> Vec<u8> {
    generate::bytes(random, 512)
}
