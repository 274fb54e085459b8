//! Functions of a guest that give a stream.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wakebox_abi::op::{CallKind, ReplyKind};
use wakebox_abi::status::Status;
use wakebox_typed::{Typed, stream_signature};

use super::queue::Wants;
use super::{Answer, CallError, Caller, Message, Mismatch, PendingCall, read};
use crate::account::{Account, Charged, Parts};
use crate::outside;

/// What a function of a guest gives, one item after another: [`Caller::stream`]. Dropping it takes the call back: the
/// guest's stream is dropped, too.
///
/// The guest is ahead by no more than 64 items or 64 KiB, and one more item; then its stream is not polled until some
/// have been taken.
pub struct GuestStream<T> {
    caller: Caller,
    name: Box<str>,
    /// `None` when it has ended.
    call: Option<PendingCall>,
    read: fn(Answer, &Account) -> Result<T, Status>,
    /// What the caller expects, in words, if it says so.
    types: Option<fn() -> String>,
    /// The error about an item of another type, which the guest is asked about.
    telling: Option<Pin<Box<dyn Future<Output = CallError> + Send>>>,
}

impl<T> fmt::Debug for GuestStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestStream")
            .field("name", &self.name)
            .field("has_ended", &self.call.is_none())
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// Calls a function that gives a stream (`#[wakebox_guest::export(stream)]`). Of one that gives one result, that is
    /// the only item.
    ///
    /// It goes on beside calls and other streams, and is taken back when what is returned is dropped. A limit or a type
    /// that does not fit ends it with an error, as it ends a call; see [`Self::call`] for what is compared.
    ///
    /// # Errors
    ///
    /// [`CallError`], as far as it is known before the guest has seen the call; else it is an item.
    pub async fn stream<A, T>(&self, name: &str, input: &A) -> Result<GuestStream<T>, CallError>
    where
        A: Serialize + ?Sized,
        T: DeserializeOwned,
    {
        let input = postcard::to_stdvec(&Typed(input));
        let input = input.map_err(|_| CallError::TooLarge(name.into()))?;
        Ok(GuestStream {
            call: Some(self.begin_stream(CallKind::Typed, name, &input).await?),
            read: |answer, account| {
                let message = Message {
                    bytes: &answer.bytes,
                    is_typed: answer.is_typed,
                };
                read::<T>(message, account).map(Charged::hand_over)
            },
            types: Some(|| stream_signature::<A, T>().to_string()),
            caller: self.clone(),
            name: name.into(),
            telling: None,
        })
    }

    /// As [`Self::stream`], with arguments and items in JSON: see [`Self::call_json`].
    ///
    /// # Errors
    ///
    /// As [`Self::stream`].
    pub async fn stream_json(
        &self,
        name: &str,
        input: &str,
    ) -> Result<GuestStream<String>, CallError> {
        let call = self.begin_stream(CallKind::Json, name, input.as_bytes());
        Ok(GuestStream {
            call: Some(call.await?),
            read: |answer, _| {
                let text = String::from_utf8(answer.bytes.hand_over());
                text.map_err(|_| Status::InvalidData)
            },
            types: None,
            caller: self.clone(),
            name: name.into(),
            telling: None,
        })
    }

    async fn begin_stream(
        &self,
        kind: CallKind,
        name: &str,
        input: &[u8],
    ) -> Result<PendingCall, CallError> {
        super::fits(name, input)?;
        self.submit(kind, Wants::Stream, name, input).await
    }
}

impl<T> GuestStream<T> {
    /// The next item; `None` at the end, and after an error. It may be dropped: no item is lost.
    pub async fn next(&mut self) -> Option<Result<T, CallError>> {
        poll_fn(|context| self.poll_item(context)).await
    }

    fn poll_item(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<T, CallError>>> {
        if self.telling.is_none() {
            let Some(call) = &self.call else {
                return Poll::Ready(None);
            };
            let (item, is_last) = match std::task::ready!(call.poll_item(context)) {
                Come::Item(parts) => (Ok((ReplyKind::Item, parts)), false),
                Come::End(end) => (end, true),
            };
            let item = item.map_err(|end| end.error(&self.name));
            let item = item.and_then(|(kind, parts)| match kind {
                ReplyKind::End => Ok(None),
                kind => call.answer(&self.name, kind, parts).map(Some),
            });
            if is_last {
                self.call = None;
            }
            match item.map(|answer| answer.map(|answer| self.read(answer))) {
                Ok(None) => return Poll::Ready(None),
                Ok(Some(Ok(item))) => return Poll::Ready(Some(Ok(item))),
                Ok(Some(Err(Status::LimitReached))) => {
                    return self.end(CallError::LimitReached(self.name.as_ref().into()));
                }
                Ok(Some(Err(_))) => self.ask(),
                Err(error) => return self.end(error),
            }
        }
        let Some(telling) = &mut self.telling else {
            return Poll::Ready(None);
        };
        let error = std::task::ready!(telling.as_mut().poll(context));
        self.telling = None;
        self.end(error)
    }

    fn read(&self, answer: Answer) -> Result<T, Status> {
        let account = self.caller.call_queue.lock().account.clone();
        (self.read)(answer, &account)
    }

    fn end(&mut self, error: CallError) -> Poll<Option<Result<T, CallError>>> {
        self.call = None;
        let types = || self.types.map(|types| types());
        Poll::Ready(Some(Err(error.called_as(types))))
    }

    /// An item is of another type: the guest is asked which it has.
    fn ask(&mut self) {
        self.call = None;
        let mismatch = Mismatch::new(&self.name);
        let caller = self.caller.clone();
        self.telling = Some(Box::pin(async move {
            CallError::BadOutput(Box::new(caller.told(mismatch).await))
        }));
    }
}

impl<T> Stream for GuestStream<T> {
    type Item = Result<T, CallError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(context)
    }
}

/// What has come of a stream.
enum Come {
    Item(Parts),
    End(Result<(ReplyKind, Parts), super::End>),
}

impl PendingCall {
    fn poll_item(&self, context: &mut Context<'_>) -> Poll<Come> {
        let mut queue = self.call_queue.lock();
        let entry = queue.pending.get_mut(&self.call);
        let items = entry.and_then(|entry| entry.items.as_mut());
        if let Some(items) = items
            && let Some(item) = items.pop()
        {
            let sender = items.next_sender();
            drop(queue);
            sender.into_iter().for_each(outside::wake);
            return Poll::Ready(Come::Item(item));
        }
        self.poll_end(&mut queue, context).map(Come::End)
    }
}
