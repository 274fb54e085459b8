//! `poll_oneoff`: whatever is waited for is in flight, and all of it is one park.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn, ready};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;

use wakebox_guest::time::{self, Instant};
use wasmtime_wasi_io::poll::Pollable;

use super::descriptors::Descriptor;
use super::{Errno, Outcome, Process, clock_now};

/// Most that is waited for at once.
const MOST: u32 = 1024;

const SUBSCRIPTION: usize = 48;
const EVENT: u32 = 32;

/// Of a clock: until a time, not for one.
const ABSOLUTE: u16 = 1;

/// What is waited for.
struct Wish {
    user: [u8; 8],
    kind: u8,
    /// Where it is ready, with an error or without.
    wait: Pin<Box<dyn Future<Output = Outcome>>>,
}

fn word(bytes: &[u8; SUBSCRIPTION], at: usize) -> u64 {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes.copied().map_or(0, u64::from_le_bytes)
}

impl Process<'_> {
    pub(super) async fn poll_oneoff(
        &mut self,
        list: u32,
        events: u32,
        count: u32,
        into: u32,
    ) -> Outcome {
        if count == 0 || count > MOST {
            return Err(Errno::Inval);
        }
        let bytes = self.slice(list, count * SUBSCRIPTION as u32)?.to_vec();
        let (list, _) = bytes.as_chunks::<SUBSCRIPTION>();
        let mut wishes: Vec<Wish> = list.iter().map(|bytes| self.wish(bytes)).collect();
        let ready = poll_fn(|cx| {
            let ready = wishes.iter_mut().filter_map(|wish| {
                let Poll::Ready(outcome) = wish.wait.as_mut().poll(cx) else {
                    return None;
                };
                let errno = outcome.map_or_else(|errno| errno as u16, |()| 0);
                let mut event = [0; EVENT as usize];
                event[..8].copy_from_slice(&wish.user);
                event[8..10].copy_from_slice(&errno.to_le_bytes());
                event[10] = wish.kind;
                // Bytes that are there: at least one.
                event[16] = u8::from(wish.kind > 0);
                Some(event)
            });
            let ready: Vec<_> = ready.collect();
            if ready.is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(ready)
            }
        });
        let ready = ready.await;
        self.put(events, ready.as_flattened())?;
        self.put_u32(into, ready.len() as u32)
    }

    fn wish(&mut self, bytes: &[u8; SUBSCRIPTION]) -> Wish {
        let kind = bytes[8];
        let wait: Pin<Box<dyn Future<Output = Outcome>>> = match kind {
            0 => match deadline(
                word(bytes, 16) as u32,
                word(bytes, 24),
                word(bytes, 40) as u16,
            ) {
                Ok(deadline) => Box::pin(async move {
                    time::sleep_until(deadline).await;
                    Ok(())
                }),
                Err(errno) => Box::pin(ready(Err(errno))),
            },
            1 | 2 => match self.descriptors().get(word(bytes, 16) as u32) {
                Ok(Descriptor::Input(input)) if kind == 1 => {
                    let mut input = input.clone();
                    Box::pin(async move {
                        input.ready().await;
                        Ok(())
                    })
                }
                Ok(_) => Box::pin(ready(Ok(()))),
                Err(errno) => Box::pin(ready(Err(errno))),
            },
            _ => Box::pin(ready(Err(Errno::Inval))),
        };
        Wish {
            user: word(bytes, 0).to_le_bytes(),
            kind,
            wait,
        }
    }
}

/// When a clock has reached a time, or so much has passed.
fn deadline(clock: u32, nanoseconds: u64, flags: u16) -> Result<Instant, Errno> {
    let after = match flags & ABSOLUTE {
        0 => nanoseconds,
        _ => nanoseconds.saturating_sub(clock_now(clock)?),
    };
    Ok(time::now().saturating_add(Duration::from_nanos(after)))
}
