//! The values of `wasi:filesystem`, and what they are here.

use alloc::string::String;
use core::time::Duration;

use wakebox_guest::fs::{DirEntry, FileKind, Metadata};
use wakebox_guest::io::Status;
use wasmtime::component::{ComponentType, Lift, Lower};

use super::super::clocks::Datetime;
use super::super::value::{cases, flags, record, variant};
use crate::files::{How, Open};

flags! {
    pub(super) struct PathFlags {
        SYMLINK_FOLLOW = "symlink-follow",
    }
}

flags! {
    pub(super) struct OpenFlags {
        CREATE = "create",
        DIRECTORY = "directory",
        EXCLUSIVE = "exclusive",
        TRUNCATE = "truncate",
    }
}

flags! {
    pub(super) struct DescriptorFlags {
        READ = "read",
        WRITE = "write",
        FILE_INTEGRITY_SYNC = "file-integrity-sync",
        DATA_INTEGRITY_SYNC = "data-integrity-sync",
        REQUESTED_WRITE_SYNC = "requested-write-sync",
        MUTATE_DIRECTORY = "mutate-directory",
    }
}

impl PathFlags {
    pub(super) fn follows(self) -> bool {
        self.has(Self::SYMLINK_FOLLOW)
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
            flags = flags.with(Self::READ);
        }
        if open.writes {
            flags = flags.with(writes);
        }
        flags
    }
}

pub(super) fn how(at: PathFlags, open: OpenFlags, flags: DescriptorFlags) -> Result<How, Status> {
    let synced = DescriptorFlags::FILE_INTEGRITY_SYNC
        .with(DescriptorFlags::DATA_INTEGRITY_SYNC)
        .with(DescriptorFlags::REQUESTED_WRITE_SYNC);
    if flags.has(synced) {
        return Err(Status::Unsupported);
    }
    let writes = DescriptorFlags::WRITE.with(DescriptorFlags::MUTATE_DIRECTORY);
    let is_directory = open.has(OpenFlags::DIRECTORY);
    Ok(How {
        follow: at.follows(),
        create: open.has(OpenFlags::CREATE),
        directory: is_directory,
        exclusive: open.has(OpenFlags::EXCLUSIVE),
        truncate: open.has(OpenFlags::TRUNCATE),
        reads: flags.has(DescriptorFlags::READ),
        writes: match is_directory {
            true => flags.has(writes),
            false => flags.has(DescriptorFlags::WRITE),
        },
    })
}

cases! {
    pub(super) enum Advice {
        Normal = "normal",
        Sequential = "sequential",
        Random = "random",
        WillNeed = "will-need",
        DontNeed = "dont-need",
        NoReuse = "no-reuse",
    }
}

cases! {
    pub(super) enum DescriptorType {
        Unknown = "unknown",
        BlockDevice = "block-device",
        CharacterDevice = "character-device",
        Directory = "directory",
        Fifo = "fifo",
        SymbolicLink = "symbolic-link",
        RegularFile = "regular-file",
        Socket = "socket",
    }
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

record! {
    pub(super) struct DescriptorStat {
        kind: DescriptorType = "type",
        link_count: u64 = "link-count",
        size: u64 = "size",
        accessed: Option<Datetime> = "data-access-timestamp",
        modified: Option<Datetime> = "data-modification-timestamp",
        changed: Option<Datetime> = "status-change-timestamp",
    }
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

variant! {
    pub(super) enum NewTimestamp {
        NoChange = "no-change",
        Now = "now",
        Timestamp(value: Datetime) = "timestamp",
    }
}

record! {
    pub(super) struct DirectoryEntry {
        kind: DescriptorType = "type",
        name: String = "name",
    }
}

impl DirectoryEntry {
    pub(super) fn of(entry: &DirEntry) -> Self {
        Self {
            kind: entry.kind().into(),
            name: entry.file_name().into(),
        }
    }
}

record! {
    pub(super) struct MetadataHash {
        lower: u64 = "lower",
        upper: u64 = "upper",
    }
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

cases! {
    typed pub(super) enum ErrorCode {
        Access = "access",
        WouldBlock = "would-block",
        Already = "already",
        BadDescriptor = "bad-descriptor",
        Busy = "busy",
        Deadlock = "deadlock",
        Quota = "quota",
        Exist = "exist",
        FileTooLarge = "file-too-large",
        IllegalByteSequence = "illegal-byte-sequence",
        InProgress = "in-progress",
        Interrupted = "interrupted",
        Invalid = "invalid",
        Io = "io",
        IsDirectory = "is-directory",
        Loop = "loop",
        TooManyLinks = "too-many-links",
        MessageSize = "message-size",
        NameTooLong = "name-too-long",
        NoDevice = "no-device",
        NoEntry = "no-entry",
        NoLock = "no-lock",
        InsufficientMemory = "insufficient-memory",
        InsufficientSpace = "insufficient-space",
        NotDirectory = "not-directory",
        NotEmpty = "not-empty",
        NotRecoverable = "not-recoverable",
        Unsupported = "unsupported",
        NoTty = "no-tty",
        NoSuchDevice = "no-such-device",
        Overflow = "overflow",
        NotPermitted = "not-permitted",
        Pipe = "pipe",
        ReadOnly = "read-only",
        InvalidSeek = "invalid-seek",
        TextFileBusy = "text-file-busy",
        CrossDevice = "cross-device",
    }
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
