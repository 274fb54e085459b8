//! Where shared memory lies.

use core::ptr::NonNull;

use wakebox_abi::boot::{Clock, Instance};
use wakebox_abi::layout;
use wakebox_abi::memory::MappedControl;

/// Where shared memory lies, as far as the boot page does not say.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) control: MappedControl,
    pub(crate) submissions: NonNull<u64>,
    pub(crate) completions: NonNull<u64>,
    pub(crate) clock: &'static Clock,
    pub(crate) instance: &'static Instance,
}

impl Addresses {
    /// Where it lies in a guest.
    ///
    /// # Safety
    ///
    /// The code runs as a Wakebox guest.
    pub(crate) unsafe fn of_guest() -> Self {
        let at = |address: u64| match NonNull::new(core::ptr::with_exposed_provenance_mut::<u8>(
            address as usize,
        )) {
            Some(address) => address,
            None => unreachable!("nothing of the memory map lies at zero"),
        };
        Self {
            // SAFETY: the caller's promise.
            control: unsafe { MappedControl::new(at(layout::CONTROL)) },
            submissions: at(layout::SUBMISSIONS).cast(),
            completions: at(layout::COMPLETIONS).cast(),
            // SAFETY: the caller's promise.
            clock: unsafe { Clock::get() },
            // SAFETY: as above.
            instance: unsafe { Instance::get() },
        }
    }
}
