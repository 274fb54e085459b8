//! Why a file is not a template that can be used here.

use std::io;

use super::LoadError;

/// Why a file is not a template that can be used here, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateFileError {
    /// It is something else.
    #[error("it is not a template: `wakebox snapshot GUEST -o FILE` makes one")]
    NotATemplate,
    /// Its format has a version that is no longer read.
    #[error(
        "its format is version {file}, and this release reads {host}: take the template again with \
         this release"
    )]
    Older {
        /// The version of the file.
        file: u32,
        /// That of this release.
        host: u32,
    },
    /// Its format is that of a release that is newer.
    #[error("its format is version {file}, and this release reads {host}: use a newer `wakebox`")]
    Newer {
        /// The version of the file.
        file: u32,
        /// That of this release.
        host: u32,
    },
    /// Its guest speaks another version of the interface between guest and host.
    #[error(
        "its guest speaks version {file} of the Wakebox interface, and this host {host}: build the \
         guest with this release and take the template again"
    )]
    OtherInterface {
        /// The guest's version.
        file: u32,
        /// The host's.
        host: u32,
    },
    /// It was taken with another release, which lays memory out otherwise.
    #[error(
        "its guest's memory is laid out as this release does not: take the template again with this \
         release"
    )]
    OtherLayout,
    /// It was taken on a machine that has what this one lacks.
    #[error(
        "it was taken on another machine, and its guest may use what this processor lacks ({}): take \
         it on a machine like this one", .0.join(", ")
    )]
    OtherMachine(Vec<String>),
    /// It ends too early.
    #[error("it is cut off in {0}: copy it again")]
    Truncated(&'static str),
    /// Something lies behind its end.
    #[error("something lies behind its end: it is not as it was written")]
    TooLong,
    /// A part is not what it was when the file was written.
    #[error("{0} has been altered since it was written: copy the file again")]
    Altered(&'static str),
    /// It was not made with this key, or has been altered.
    #[error("it was not made with this key, or has been altered")]
    WrongKey,
    /// There is a key to check it by, and it was made without one.
    #[error("it was made without a key, so that this one cannot tell whether it was altered")]
    NoKey,
    /// It is compressed, and the library was built without the feature `zstd`.
    #[error("it is compressed, and this program was built without the feature `zstd`")]
    Compressed,
    /// It wants more memory than it may.
    #[error(
        "it wants {} of memory, and may have {}",
        crate::units::bytes(*asked), crate::units::bytes(*most)
    )]
    TooLarge {
        /// Bytes that it wants.
        asked: u64,
        /// Bytes that it may have.
        most: u64,
    },
    /// What it says cannot be.
    #[error("what it says cannot be: {0}")]
    Damaged(String),
    /// Its guest is none.
    #[error("what it has for its guest is none")]
    Guest(#[source] LoadError),
    /// It could not be read.
    #[error("it could not be read")]
    Read(#[source] io::Error),
}
