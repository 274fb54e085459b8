//! Polls that upcalls have interrupted.

/// Most upcalls within upcalls. A guest has as many as it has priorities, whatever one says.
const DEEPEST: usize = 8;

/// What was going on when upcalls began, the innermost last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interrupted<T>(Vec<Option<T>>);

impl<T> Default for Interrupted<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Interrupted<T> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// An upcall begins: what is going on waits.
    pub(crate) fn begin(&mut self, now: &mut Option<T>) {
        if self.0.len() < DEEPEST {
            self.0.push(now.take());
        }
    }

    /// It ends, and that goes on.
    pub(crate) fn end(&mut self, now: &mut Option<T>) {
        if let Some(interrupted) = self.0.pop() {
            *now = interrupted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_interrupted_goes_on_in_the_other_order() {
        let (mut polls, mut now) = (Interrupted::new(), Some(1));
        polls.begin(&mut now);
        assert_eq!(now, None);
        now = Some(2);
        polls.begin(&mut now);
        polls.end(&mut now);
        assert_eq!(now, Some(2));
        polls.end(&mut now);
        assert_eq!(now, Some(1));
        // An end whose beginning was lost.
        polls.end(&mut now);
        assert_eq!(now, Some(1));
    }

    #[test]
    fn upcalls_that_never_end_are_not_kept() {
        let (mut polls, mut now) = (Interrupted::new(), Some(1));
        for _ in 0..1_000_000 {
            polls.begin(&mut now);
        }
        assert!(polls.0.len() <= DEEPEST);
    }
}
