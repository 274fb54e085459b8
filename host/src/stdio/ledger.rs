//! What was taken from a guest to be written, and what of it was not.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use wakebox_abi::op::Stream;

use crate::error::LostOutput;

/// One stream's bytes.
#[derive(Debug, Default)]
struct Account {
    /// Taken, and neither written nor given up.
    pending: u64,
    failed: u64,
    error: Option<String>,
}

/// The bytes of both streams, for whoever writes them and whoever asks.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: Mutex<[Account; 2]>,
    /// Told when nothing is pending.
    idle: Notify,
}

impl Ledger {
    fn accounts(&self) -> MutexGuard<'_, [Account; 2]> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, stream: Stream, act: impl FnOnce(&mut Account)) {
        let mut accounts = self.accounts();
        act(&mut accounts[index(stream)]);
        if accounts.iter().all(|account| account.pending == 0) {
            self.idle.notify_waiters();
        }
    }

    /// Bytes are to be written.
    pub(super) fn accept(self: &Arc<Self>, stream: Stream, bytes: usize) -> Accepted {
        self.settle(stream, |account| account.pending += bytes as u64);
        Accepted {
            ledger: self.clone(),
            stream,
            left: bytes,
        }
    }

    /// Waits until nothing is pending.
    pub(super) async fn idle(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            // Before the look: what becomes idle after it is not missed.
            idle.as_mut().enable();
            if self.accounts().iter().all(|account| account.pending == 0) {
                return;
            }
            idle.await;
        }
    }

    /// What has failed and what is still pending, of either stream.
    pub(super) fn lost(&self) -> Vec<LostOutput> {
        let accounts = self.accounts();
        let lost = [Stream::Out, Stream::Err].map(|stream| {
            let account = &accounts[index(stream)];
            LostOutput {
                is_stderr: matches!(stream, Stream::Err),
                bytes: account.failed + account.pending,
                error: account.error.clone(),
            }
        });
        lost.into_iter().filter(|lost| lost.bytes > 0).collect()
    }
}

/// Which of two a stream is.
pub(super) fn index(stream: Stream) -> usize {
    match stream {
        Stream::Out => 0,
        Stream::Err => 1,
    }
}

/// Bytes that are to be written. If it is dropped, whoever wanted that does not any more.
#[derive(Debug)]
pub(super) struct Accepted {
    ledger: Arc<Ledger>,
    stream: Stream,
    left: usize,
}

impl Accepted {
    /// So many have left.
    pub(super) fn wrote(&mut self, count: usize) {
        self.settle(count, |_, _| {});
    }

    /// All that are left will not be written.
    pub(super) fn failed(mut self, error: &io::Error) {
        self.lose(error);
    }

    fn lose(&mut self, error: &dyn fmt::Display) {
        self.settle(self.left, |account, count| {
            account.failed += count;
            account.error.get_or_insert_with(|| error.to_string());
        });
    }

    fn settle(&mut self, count: usize, act: impl FnOnce(&mut Account, u64)) {
        let count = count.min(self.left);
        self.left -= count;
        self.ledger.settle(self.stream, |account| {
            account.pending -= count as u64;
            act(account, count as u64);
        });
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        match self.left {
            0 => {}
            _ if std::thread::panicking() => {
                self.lose(&"the writer that was given to the sandbox panicked");
            }
            left => self.wrote(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_written_nor_given_up_is_lost() {
        let ledger = Arc::new(Ledger::default());
        let mut out = ledger.accept(Stream::Out, 10);
        out.wrote(4);
        let err = ledger.accept(Stream::Err, 1);
        drop(ledger.accept(Stream::Err, 100));
        let said: Vec<String> = ledger.lost().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "6 bytes of the guest's standard output did not arrive: the run ended before they \
                 were taken",
                "1 byte of the guest's standard error did not arrive: the run ended before they \
                 were taken",
            ]
        );
        out.wrote(6);
        err.failed(&io::Error::from_raw_os_error(libc::ENOSPC));
        let more = ledger.accept(Stream::Err, 2);
        more.failed(&io::Error::from_raw_os_error(libc::EPIPE));
        let said: Vec<String> = ledger.lost().iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "3 bytes of the guest's standard error did not arrive: No space left on device (os \
                 error 28)"
            ]
        );
    }

    #[test]
    fn a_panic_while_they_are_written_loses_them() {
        let ledger = Arc::new(Ledger::default());
        let accepted = ledger.accept(Stream::Out, 5);
        let writes = std::panic::AssertUnwindSafe(|| {
            let _accepted = accepted;
            panic!("on purpose");
        });
        assert!(std::panic::catch_unwind(writes).is_err());
        assert_eq!(ledger.lost()[0].bytes, 5);
    }

    #[test]
    fn idle_is_when_nothing_is_pending() {
        use futures_util::FutureExt as _;
        let ledger = Arc::new(Ledger::default());
        assert_eq!(ledger.idle().now_or_never(), Some(()));
        let mut out = ledger.accept(Stream::Out, 2);
        let err = ledger.accept(Stream::Err, 1);
        let mut idle = Box::pin(ledger.idle());
        assert_eq!(idle.as_mut().now_or_never(), None);
        out.wrote(2);
        assert_eq!(idle.as_mut().now_or_never(), None);
        drop(err);
        assert_eq!(idle.now_or_never(), Some(()));
    }
}
