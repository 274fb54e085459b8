//! Loom's primitives in the place of the guest's, with what can be left out of them.

use std::cell::Cell;

use loom::sync::atomic;
pub(crate) use loom::sync::atomic::Ordering;

thread_local! {
    /// What is left out in this test. Loom runs its threads on the one that calls it.
    static LEFT_OUT: Cell<Option<Part>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Orders,
    Fences,
}

fn without(
    part: Part,
    model: impl Fn() + Sync + Send + 'static,
) -> impl Fn() + Sync + Send + 'static {
    move || {
        LEFT_OUT.set(Some(part));
        model();
    }
}

/// The model with every order relaxed.
pub(crate) fn relaxed(
    model: impl Fn() + Sync + Send + 'static,
) -> impl Fn() + Sync + Send + 'static {
    without(Part::Orders, model)
}

/// The model without fences.
pub(crate) fn without_fences(
    model: impl Fn() + Sync + Send + 'static,
) -> impl Fn() + Sync + Send + 'static {
    without(Part::Fences, model)
}

pub(crate) fn fence(order: Ordering) {
    if LEFT_OUT.get() != Some(Part::Fences) {
        atomic::fence(order);
    }
}

fn order(order: Ordering) -> Ordering {
    match LEFT_OUT.get() {
        Some(Part::Orders) => Ordering::Relaxed,
        _ => order,
    }
}

macro_rules! integers {
    ($($name:ident $of:ty)*) => {$(
        #[derive(Debug)]
        pub(crate) struct $name(atomic::$name);

        impl $name {
            pub(crate) fn new(value: $of) -> Self {
                Self(atomic::$name::new(value))
            }

            pub(crate) fn load(&self, with: Ordering) -> $of {
                self.0.load(order(with))
            }

            pub(crate) fn store(&self, value: $of, with: Ordering) {
                self.0.store(value, order(with));
            }

            pub(crate) fn compare_exchange(
                &self,
                old: $of,
                new: $of,
                ok: Ordering,
                failed: Ordering,
            ) -> Result<$of, $of> {
                self.0.compare_exchange(old, new, order(ok), order(failed))
            }

            pub(crate) fn fetch_or(&self, bits: $of, with: Ordering) -> $of {
                self.0.fetch_or(bits, order(with))
            }

            pub(crate) fn fetch_and(&self, bits: $of, with: Ordering) -> $of {
                self.0.fetch_and(bits, order(with))
            }
        }
    )*};
}

integers! { AtomicU32 u32 AtomicU64 u64 }

pub(crate) use loom::sync::atomic::AtomicPtr;

/// A lock with the functions of the guest's.
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn borrow_mut(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}
