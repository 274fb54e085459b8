//! The values of `wasi:filesystem`, and what they are here.

use alloc::string::String;

use wakebox_guest::fs::{DirEntry, FileKind, FileTime, Metadata};
use wakebox_guest::io::Status;
use wasmtime::component::{ComponentType, Lift, Lower};

use super::super::clocks::Datetime;
use super::super::value::{cases, flags, record, variant};
use crate::files::{How, Open, Synced};

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
        match open.synced {
            Synced::Nothing => {}
            Synced::Data => flags = flags.with(Self::DATA_INTEGRITY_SYNC),
            Synced::All => flags = flags.with(Self::FILE_INTEGRITY_SYNC),
        }
        flags
    }
}

pub(super) fn how(at: PathFlags, open: OpenFlags, flags: DescriptorFlags) -> Result<How, Status> {
    if flags.has(DescriptorFlags::REQUESTED_WRITE_SYNC) {
        // Reads that wait for writes of others.
        return Err(Status::Unsupported);
    }
    let is_directory = open.has(OpenFlags::DIRECTORY);
    let (reads, writes) = (
        flags.has(DescriptorFlags::READ),
        flags.has(DescriptorFlags::WRITE),
    );
    // What is made is for writing also, and of which nothing is said for reading.
    let is_made = open.has(OpenFlags::CREATE) && (open.has(OpenFlags::EXCLUSIVE) || !reads);
    let (reads, writes) = (reads || !writes, writes || is_made);
    Ok(How {
        follow: at.follows(),
        create: open.has(OpenFlags::CREATE),
        directory: is_directory,
        exclusive: open.has(OpenFlags::EXCLUSIVE),
        truncate: open.has(OpenFlags::TRUNCATE),
        reads,
        writes,
        mutates: flags.has(DescriptorFlags::MUTATE_DIRECTORY) || writes && is_directory,
        synced: Synced::of(
            flags.has(DescriptorFlags::DATA_INTEGRITY_SYNC),
            flags.has(DescriptorFlags::FILE_INTEGRITY_SYNC),
        ),
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
    pub(super) enum DescriptorType (newer: "unknown" => "other") {
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
    pub(super) fn of(found: &Metadata) -> Self {
        Self {
            kind: found.kind().into(),
            link_count: found.links().into(),
            size: found.len(),
            accessed: Some(found.accessed().into()),
            modified: Some(found.modified().into()),
            changed: Some(found.changed().into()),
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

impl From<NewTimestamp> for FileTime {
    fn from(new: NewTimestamp) -> Self {
        match new {
            NewTimestamp::NoChange => Self::Keep,
            NewTimestamp::Now => Self::Now,
            NewTimestamp::Timestamp(time) => Self::At(time.nanoseconds_since_1970()),
        }
    }
}

record! {
    pub(in super::super) struct DirectoryEntry {
        kind: DescriptorType = "type",
        name: String = "name",
    }
}

impl DirectoryEntry {
    pub(in super::super) fn of(entry: &DirEntry) -> Self {
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
    /// The number of a file that is gone may be that of another, which is made later.
    pub(super) fn of(found: &Metadata) -> Self {
        let (device, inode) = found.identity();
        let made = found.created().map_or(0, |made| made.as_nanos() as u64);
        Self {
            lower: inode,
            upper: device.rotate_right(16) ^ made,
        }
    }
}

cases! {
    typed pub(in super::super) enum ErrorCode (newer: "would-block" => "other") {
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
