//! The values of `wasi:filesystem`, and what they are here.

use alloc::string::String;
use core::time::Duration;

use wakebox_guest::fs::{DirEntry, FileKind, Metadata};
use wakebox_guest::io::Status;
use wasmtime::component::{ComponentType, Lift, Lower, flags};

use super::super::clocks::Datetime;
use crate::files::{How, Open};

flags! {
    PathFlags {
        #[component(name = "symlink-follow")]
        const SYMLINK_FOLLOW;
    }
}

flags! {
    OpenFlags {
        #[component(name = "create")]
        const CREATE;
        #[component(name = "directory")]
        const DIRECTORY;
        #[component(name = "exclusive")]
        const EXCLUSIVE;
        #[component(name = "truncate")]
        const TRUNCATE;
    }
}

flags! {
    DescriptorFlags {
        #[component(name = "read")]
        const READ;
        #[component(name = "write")]
        const WRITE;
        #[component(name = "file-integrity-sync")]
        const FILE_INTEGRITY_SYNC;
        #[component(name = "data-integrity-sync")]
        const DATA_INTEGRITY_SYNC;
        #[component(name = "requested-write-sync")]
        const REQUESTED_WRITE_SYNC;
        #[component(name = "mutate-directory")]
        const MUTATE_DIRECTORY;
    }
}

impl PathFlags {
    pub(super) fn follows(self) -> bool {
        self.contains(Self::SYMLINK_FOLLOW)
    }
}

impl DescriptorFlags {
    pub(super) fn of(open: &Open) -> Self {
        let writes = match open.is_directory() {
            true => Self::MUTATE_DIRECTORY,
            false => Self::WRITE,
        };
        let mut flags = Self::default();
        if open.reads {
            flags |= Self::READ;
        }
        if open.writes {
            flags |= writes;
        }
        flags
    }
}

pub(super) fn how(at: PathFlags, open: OpenFlags, flags: DescriptorFlags) -> Result<How, Status> {
    let synced = DescriptorFlags::FILE_INTEGRITY_SYNC
        | DescriptorFlags::DATA_INTEGRITY_SYNC
        | DescriptorFlags::REQUESTED_WRITE_SYNC;
    if flags.intersects(synced) {
        return Err(Status::Unsupported);
    }
    let writes = DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY;
    let is_directory = open.contains(OpenFlags::DIRECTORY);
    Ok(How {
        follow: at.follows(),
        create: open.contains(OpenFlags::CREATE),
        directory: is_directory,
        exclusive: open.contains(OpenFlags::EXCLUSIVE),
        truncate: open.contains(OpenFlags::TRUNCATE),
        reads: flags.contains(DescriptorFlags::READ),
        writes: match is_directory {
            true => flags.intersects(writes),
            false => flags.contains(DescriptorFlags::WRITE),
        },
    })
}

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "all that there are")]
pub(super) enum Advice {
    #[component(name = "normal")]
    Normal,
    #[component(name = "sequential")]
    Sequential,
    #[component(name = "random")]
    Random,
    #[component(name = "will-need")]
    WillNeed,
    #[component(name = "dont-need")]
    DontNeed,
    #[component(name = "no-reuse")]
    NoReuse,
}

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "all that there are")]
pub(super) enum DescriptorType {
    #[component(name = "unknown")]
    Unknown,
    #[component(name = "block-device")]
    BlockDevice,
    #[component(name = "character-device")]
    CharacterDevice,
    #[component(name = "directory")]
    Directory,
    #[component(name = "fifo")]
    Fifo,
    #[component(name = "symbolic-link")]
    SymbolicLink,
    #[component(name = "regular-file")]
    RegularFile,
    #[component(name = "socket")]
    Socket,
}

impl From<FileKind> for DescriptorType {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::File => Self::RegularFile,
            FileKind::Directory => Self::Directory,
            FileKind::Symlink => Self::SymbolicLink,
            FileKind::Other => Self::Unknown,
        }
    }
}

#[derive(ComponentType, Lower, Lift)]
#[component(record)]
pub(super) struct DescriptorStat {
    #[component(name = "type")]
    kind: DescriptorType,
    #[component(name = "link-count")]
    link_count: u64,
    size: u64,
    #[component(name = "data-access-timestamp")]
    accessed: Option<Datetime>,
    #[component(name = "data-modification-timestamp")]
    modified: Option<Datetime>,
    #[component(name = "status-change-timestamp")]
    changed: Option<Datetime>,
}

impl DescriptorStat {
    /// The host tells neither how many links there are nor when something was changed that is not a
    /// file's bytes.
    pub(super) fn of(found: &Metadata) -> Self {
        Self {
            kind: found.kind().into(),
            link_count: 1,
            size: found.len(),
            accessed: Some(found.accessed().into()),
            modified: Some(found.modified().into()),
            changed: None,
        }
    }
}

#[derive(ComponentType, Lower, Lift)]
#[component(variant)]
pub(super) enum NewTimestamp {
    #[component(name = "no-change")]
    NoChange,
    #[component(name = "now")]
    Now,
    #[component(name = "timestamp")]
    Timestamp(Datetime),
}

#[derive(ComponentType, Lower, Lift)]
#[component(record)]
pub(super) struct DirectoryEntry {
    #[component(name = "type")]
    kind: DescriptorType,
    name: String,
}

impl DirectoryEntry {
    pub(super) fn of(entry: &DirEntry) -> Self {
        Self {
            kind: entry.kind().into(),
            name: entry.file_name().into(),
        }
    }
}

#[derive(ComponentType, Lower, Lift)]
#[component(record)]
pub(super) struct MetadataHash {
    lower: u64,
    upper: u64,
}

impl MetadataHash {
    /// Of what has this identity, and was made then.
    pub(super) fn of(identity: u64, made: Option<Duration>) -> Self {
        Self {
            lower: identity,
            upper: made.map_or(0, |made| made.as_nanos() as u64),
        }
    }
}

#[derive(ComponentType, Lower, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "all that there are")]
pub(super) enum ErrorCode {
    #[component(name = "access")]
    Access,
    #[component(name = "would-block")]
    WouldBlock,
    #[component(name = "already")]
    Already,
    #[component(name = "bad-descriptor")]
    BadDescriptor,
    #[component(name = "busy")]
    Busy,
    #[component(name = "deadlock")]
    Deadlock,
    #[component(name = "quota")]
    Quota,
    #[component(name = "exist")]
    Exist,
    #[component(name = "file-too-large")]
    FileTooLarge,
    #[component(name = "illegal-byte-sequence")]
    IllegalByteSequence,
    #[component(name = "in-progress")]
    InProgress,
    #[component(name = "interrupted")]
    Interrupted,
    #[component(name = "invalid")]
    Invalid,
    #[component(name = "io")]
    Io,
    #[component(name = "is-directory")]
    IsDirectory,
    #[component(name = "loop")]
    Loop,
    #[component(name = "too-many-links")]
    TooManyLinks,
    #[component(name = "message-size")]
    MessageSize,
    #[component(name = "name-too-long")]
    NameTooLong,
    #[component(name = "no-device")]
    NoDevice,
    #[component(name = "no-entry")]
    NoEntry,
    #[component(name = "no-lock")]
    NoLock,
    #[component(name = "insufficient-memory")]
    InsufficientMemory,
    #[component(name = "insufficient-space")]
    InsufficientSpace,
    #[component(name = "not-directory")]
    NotDirectory,
    #[component(name = "not-empty")]
    NotEmpty,
    #[component(name = "not-recoverable")]
    NotRecoverable,
    #[component(name = "unsupported")]
    Unsupported,
    #[component(name = "no-tty")]
    NoTty,
    #[component(name = "no-such-device")]
    NoSuchDevice,
    #[component(name = "overflow")]
    Overflow,
    #[component(name = "not-permitted")]
    NotPermitted,
    #[component(name = "pipe")]
    Pipe,
    #[component(name = "read-only")]
    ReadOnly,
    #[component(name = "invalid-seek")]
    InvalidSeek,
    #[component(name = "text-file-busy")]
    TextFileBusy,
    #[component(name = "cross-device")]
    CrossDevice,
}

impl ErrorCode {
    /// Of something that is to be read or written as a file, and cannot be.
    pub(super) fn not_a_file(open: &Open) -> Self {
        match open.is_directory() {
            true => Self::IsDirectory,
            false => Self::BadDescriptor,
        }
    }
}

impl From<Status> for ErrorCode {
    fn from(status: Status) -> Self {
        match status {
            Status::PermissionDenied => Self::NotPermitted,
            Status::Unsupported => Self::Unsupported,
            Status::InvalidInput => Self::Invalid,
            Status::BadHandle => Self::BadDescriptor,
            Status::NotFound => Self::NoEntry,
            Status::AlreadyExists => Self::Exist,
            Status::IsADirectory => Self::IsDirectory,
            Status::NotADirectory => Self::NotDirectory,
            Status::DirectoryNotEmpty => Self::NotEmpty,
            Status::ReadOnly => Self::ReadOnly,
            Status::StorageFull => Self::InsufficientSpace,
            Status::FileTooLarge => Self::FileTooLarge,
            Status::InvalidData => Self::IllegalByteSequence,
            Status::OutOfMemory => Self::InsufficientMemory,
            Status::Busy => Self::Busy,
            Status::CrossesDevices => Self::CrossDevice,
            Status::TooManyLinks => Self::Loop,
            Status::QuotaExceeded | Status::LimitReached => Self::Quota,
            _ => Self::Io,
        }
    }
}
