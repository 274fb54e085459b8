//! What a machine could not be given, or could not do. What a guest did wrong is no error but an
//! [`Exit`](crate::vcpu::Exit).

use std::io;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the host could not do. An error's `Display` does not repeat its source, and gives no advice:
/// the library does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `/dev/kvm`.
    #[error("/dev/kvm does not exist")]
    KvmMissing,

    /// `/dev/kvm` may not be opened.
    #[error("/dev/kvm may not be opened: permission denied")]
    KvmForbidden,

    /// KVM lacks something that machines need.
    #[error("this KVM is not suitable: {0}")]
    KvmUnsuitable(String),

    /// A call to KVM failed.
    #[error("KVM could not {action}")]
    Kvm {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },

    /// The processor could not go on in the guest, by no fault that a guest can make.
    #[error("KVM stopped the virtual processor: {0}")]
    KvmStopped(String),

    /// The memory asked for does not hold the guest.
    #[error("{asked} bytes of memory are too small for this guest: it takes at least {least}")]
    MemoryTooSmall {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that it takes.
        least: u64,
    },

    /// Guest memory could not be mapped.
    #[error("could not map {bytes} bytes of guest memory")]
    Map {
        /// Bytes asked for.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },

    /// A thread could not be started.
    #[error("could not start the thread `{name}`")]
    Thread {
        /// Its name.
        name: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// Whether the process, or the system, has too little of something that others may give back: memory
    /// or descriptors.
    pub(crate) fn is_of_shortage(&self) -> bool {
        let (Self::Kvm { source, .. } | Self::Map { source, .. }) = self else {
            return false;
        };
        let errno = source.raw_os_error();
        errno.is_some_and(|errno| [libc::ENOMEM, libc::EMFILE, libc::ENFILE].contains(&errno))
    }

    /// An error of a KVM call.
    pub(crate) fn kvm(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm {
            action,
            source: io::Error::from_raw_os_error(error.errno()),
        }
    }
}
