//! What a sink knows of each of a guest's processors.

use wakebox_abi::layout::PROCESSORS_MAX;

/// Of each processor that an event was of, and of the first. What a file says of further ones than there can be
/// goes to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfEach<T>(Vec<T>);

impl<T: Default> Default for OfEach<T> {
    fn default() -> Self {
        Self(vec![T::default()])
    }
}

impl<T: Default> OfEach<T> {
    pub(crate) fn of(&mut self, processor: u32) -> &mut T {
        let place = processor.min(PROCESSORS_MAX - 1) as usize;
        if place >= self.0.len() {
            self.0.resize_with(place + 1, T::default);
        }
        &mut self.0[place]
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_cannot_be_take_no_memory() {
        let mut each = OfEach::<u32>::default();
        for processor in [0, 3, u32::MAX, 1 << 20] {
            *each.of(processor) += 1;
        }
        assert_eq!(each.iter_mut().count(), PROCESSORS_MAX as usize);
        assert_eq!(*each.of(PROCESSORS_MAX - 1), 2);
    }
}
