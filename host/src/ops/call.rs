//! Calls of host functions, and of guest functions.

use std::sync::Arc;

use tokio::sync::Mutex;
use wakebox_abi::op::{
    Buf, CallForm, CallHeader, CallHost, NextCall, NextItem, OpenHostStream, ReadMessage, Reply,
    ReplyKind,
};
use wakebox_abi::status::Status;

use super::handles::Resource;
use super::{End, Start, Started, TokioBackend};
use crate::account::{Account, Kept};
use crate::allowance::{self, PIECE};
use crate::arena::ArenaSlice;
use crate::calls::MESSAGE_MAX;
use crate::calls::guest::CallQueue;
use crate::calls::host::Found;
use crate::limits::LimitKind;
use crate::meter::Meter;
use crate::policy::check::Refusal;

/// Longest name of a function, in bytes.
const NAME_MAX: usize = 256;

/// Puts a message where its reader wants it, or keeps it if it does not fit there.
async fn deliver(message: Kept, into: ArenaSlice, extra: u32, meter: &Meter) -> End {
    if let Err(status) = meter.take_all(LimitKind::CallsIn, message.len()) {
        return status.into();
    }
    if message.len() <= into.len() {
        into.copy_in(&message).await;
        return End::Done(Status::Ok, message.len() as u32 + extra);
    }
    End::Overflow(Resource::Message(Arc::new(message)), into)
}

/// The function that the guest names and where the arguments lie that it gives, if it may call it
/// with so many. Nothing of them is copied before that is known.
fn function(
    resources: &TokioBackend,
    name: Buf,
    input: Buf,
    is_stream: Option<bool>,
) -> Result<(Found, ArenaSlice), Status> {
    let (name, input) = (resources.text(name, NAME_MAX)?, resources.slice(input)?);
    if input.len() > MESSAGE_MAX {
        return Err(Status::MessageTooLarge);
    }
    if !resources.policy.may_call(&name) {
        return Err(resources.policy.refuse(Refusal::Call, &*name));
    }
    let found = resources.callables.find(&name, is_stream)?;
    let metered = resources.meter.take_all(LimitKind::CallsOut, input.len());
    metered.map(|()| (found, input))
}

impl Start for CallHost {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let is_stream = (self.form != CallForm::Signature).then_some(false);
        let (found, input) = function(resources, self.function, self.input, is_stream)?;
        let meter = resources.meter.clone();
        if self.form == CallForm::Signature {
            let text = resources.account.keep(found.signature().into())?;
            return Ok(Started::pending(async move {
                deliver(text, into, 0, &meter).await
            }));
        }
        Ok(Started::pending(async move {
            let call = async {
                let input = input.copy_out(found.account()).await?;
                found.call(input, self.form).await?.await
            };
            match call.await {
                Ok(reply) => deliver(reply, into, 0, &meter).await,
                Err(status) => status.into(),
            }
        }))
    }
}

impl Start for OpenHostStream {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        if self.form == CallForm::Signature {
            return Err(Status::InvalidInput);
        }
        let (found, input) = function(resources, self.function, self.input, Some(true))?;
        let vacancy = resources.vacancy()?;
        Ok(Started::pending(async move {
            let opened = async {
                let input = input.copy_out(found.account()).await?;
                let mut stream = found.open(input, self.form).await?;
                stream.opened().await.map(|()| stream)
            };
            match opened.await {
                Ok(stream) => {
                    let stream = Resource::HostStream(Arc::new(Mutex::new(stream)));
                    End::Open(stream, vacancy)
                }
                Err(status) => status.into(),
            }
        }))
    }
}

impl Start for NextItem {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let Resource::HostStream(stream) = resources.handles.any(self.stream)? else {
            return Err(Status::BadHandle);
        };
        let stream = stream.clone();
        let meter = resources.meter.clone();
        Ok(Started::pending_on(self.stream, async move {
            match stream.lock().await.next().await {
                Some(Ok(item)) => deliver(item, into, 1, &meter).await,
                Some(Err(status)) => status.into(),
                None => End::OK,
            }
        }))
    }
}

impl Start for ReadMessage {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let Resource::Message(message) = resources.handles.any(self.message)? else {
            return Err(Status::BadHandle);
        };
        let message = message.clone();
        Ok(Started::pending_on(self.message, async move {
            let rest = message.get(self.at as usize..).unwrap_or_default();
            End::bytes(into.copy_in(rest).await)
        }))
    }
}

/// A call on its way to the guest. If that never sees it, its caller need not wait.
struct Delivery {
    call_queue: Arc<CallQueue>,
    call: Option<u64>,
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.call_queue.refuse(call);
        }
    }
}

impl Start for NextCall {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let meter = resources.meter.clone();
        let call_queue = resources.call_queue.clone();
        Ok(Started::pending(async move {
            let Some(message) = call_queue.take().await else {
                return Status::NotConnected.into();
            };
            let header = CallHeader::split(&message);
            let mut delivery = Delivery {
                call: header.map(|(header, _)| header.call),
                call_queue,
            };
            let end = deliver(message, into, 0, &meter).await;
            if !matches!(&end, End::Done(status, _) if *status != Status::Ok) {
                delivery.call = None;
            }
            end
        }))
    }
}

impl Start for Reply {
    fn start(self, resources: &mut TokioBackend) -> Result<Started, Status> {
        let from = resources.slice(self.from)?;
        if !resources.call_queue.expects(self.call, from.len())? {
            return Ok(Started::Done(End::OK));
        }
        let metered = resources.meter.take_all(LimitKind::CallsOut, from.len());
        if let Err(status) = metered {
            resources.call_queue.refuse(self.call);
            return Err(status);
        }
        let (call_queue, account) = (resources.call_queue.clone(), resources.account.clone());
        let room = match self.kind {
            ReplyKind::Item => call_queue.room_for_item(self.call),
            _ => None,
        };
        if from.len() <= PIECE && room.is_none() {
            reply(&call_queue, &account, self.call, self.kind, &from)?;
            return Ok(Started::Done(End::OK));
        }
        Ok(Started::pending(async move {
            if let Some(room) = room {
                room.await;
            }
            // A long one is several parts for the host, too.
            let last = from.len().div_ceil(PIECE) - 1;
            for (at, piece) in from.pieces().enumerate() {
                allowance::give_way().await;
                let kind = if at < last {
                    ReplyKind::Part
                } else {
                    self.kind
                };
                if let Err(status) = reply(&call_queue, &account, self.call, kind, &piece) {
                    return status.into();
                }
            }
            End::OK
        }))
    }
}

/// Copies a reply out of the arena and hands it to its caller, or ends the call.
fn reply(
    call_queue: &CallQueue,
    account: &Account,
    call: u64,
    kind: ReplyKind,
    from: &ArenaSlice,
) -> Result<(), Status> {
    match from.keep(account) {
        Ok(bytes) => call_queue.reply(call, kind, bytes),
        Err(status) => {
            call_queue.refuse(call);
            Err(status)
        }
    }
}
