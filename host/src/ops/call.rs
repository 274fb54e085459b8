//! Calls of host functions, and of guest functions.

use std::sync::Arc;
use std::task::Poll;

use wakebox_abi::op::{
    Buf, CallHeader, CallHost, NextCall, NextItem, OpenHostStream, ReadMessage, Reply,
};
use wakebox_abi::status::Status;

use super::{End, Resources, Start, Started};
use crate::calls::{Budget, Kept, MESSAGE_MAX, Share};
use crate::driver::handles::Resource;
use crate::limits::LimitKind;
use crate::meter::Meter;
use crate::policy::check::Refusal;
use crate::vm::memory::ArenaSlice;

/// What limits messages.
#[derive(Clone)]
struct Messages {
    budget: Budget,
    meter: Arc<Meter>,
}

impl Messages {
    fn of(resources: &Resources) -> Self {
        Self {
            budget: resources.budget.clone(),
            meter: resources.meter.clone(),
        }
    }
}

/// Longest name of a function, in bytes.
const NAME_MAX: u32 = 256;

/// Puts a message where its reader wants it, or keeps it if it does not fit there.
fn deliver(message: Vec<u8>, into: ArenaSlice, extra: u32, to: &Messages) -> End {
    if let Err(status) = to.meter.take_all(LimitKind::CallsIn, message.len()) {
        return status.into();
    }
    if message.len() <= into.len() {
        into.fill(&message);
        return End::Done(Status::Ok, message.len() as u32 + extra);
    }
    match Kept::new(message, &to.budget) {
        Some(kept) => End::Overflow(Resource::Message(Arc::new(kept)), into),
        None => Status::LimitReached.into(),
    }
}

/// A call as the guest has asked for it.
struct Call {
    name: String,
    input: Vec<u8>,
    /// Counts the input until the call ends: arguments lie in the host's memory meanwhile, and a
    /// guest may name the same range of the arena in thousands of calls.
    share: Share,
}

fn function(resources: &Resources, name: Buf, input: Buf) -> Result<Call, Status> {
    if name.len > NAME_MAX {
        return Err(Status::InvalidInput);
    }
    let (name, input) = (resources.slice(name)?, resources.slice(input)?);
    if input.len() > MESSAGE_MAX {
        return Err(Status::MessageTooLarge);
    }
    let name = String::from_utf8(name.to_vec()).map_err(|_| Status::InvalidInput)?;
    if !resources.policy.may_call(&name) {
        return Err(resources.policy.refuse(Refusal::Call, &name));
    }
    let share = resources
        .budget
        .take(input.len())
        .ok_or(Status::LimitReached)?;
    resources.meter.take_all(LimitKind::CallsOut, input.len())?;
    Ok(Call {
        name,
        input: input.to_vec(),
        share,
    })
}

impl Start for CallHost {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let Call { name, input, share } = function(resources, self.function, self.input)?;
        let call = resources.callables.call(&name, &input)?;
        let to = Messages::of(resources);
        Ok(Started::pending(async move {
            let _share = share;
            match call.await {
                Ok(reply) => deliver(reply, into, 0, &to),
                Err(status) => status.into(),
            }
        }))
    }
}

impl Start for OpenHostStream {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let Call { name, input, .. } = function(resources, self.function, self.input)?;
        let stream = resources.callables.open(&name, &input)?;
        let stream = Arc::new(tokio::sync::Mutex::new(stream));
        Ok(Started::Done(End::Open(Resource::HostStream(stream))))
    }
}

impl Start for NextItem {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let Resource::HostStream(stream) = resources.handles.any(self.stream)? else {
            return Err(Status::BadHandle);
        };
        let stream = stream.clone();
        let to = Messages::of(resources);
        Ok(Started::pending_on(self.stream, async move {
            match stream.lock().await.next().await {
                Some(Ok(item)) => deliver(item, into, 1, &to),
                Some(Err(status)) => status.into(),
                None => End::OK,
            }
        }))
    }
}

impl Start for ReadMessage {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let Resource::Message(message) = resources.handles.any(self.message)? else {
            return Err(Status::BadHandle);
        };
        let rest = message.bytes().get(self.at as usize..).unwrap_or_default();
        Ok(Started::Done(End::bytes(into.fill(rest))))
    }
}

impl Start for NextCall {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let to = Messages::of(resources);
        let mailbox = resources.mailbox.clone();
        let end = move |message: Option<Vec<u8>>| {
            let Some(message) = message else {
                return Status::NotConnected.into();
            };
            let call = CallHeader::split(&message).map(|(header, _)| header.call);
            let end = deliver(message, into, 0, &to);
            if let (End::Done(status, _), Some(call)) = (&end, call)
                && *status != Status::Ok
            {
                // The guest will never see it: its caller need not wait.
                mailbox.refuse(call);
            }
            end
        };
        if let Poll::Ready(message) = resources.mailbox.try_take() {
            return Ok(Started::Done(end(message)));
        }
        let take = resources.mailbox.take();
        Ok(Started::pending(async move { end(take.await) }))
    }
}

impl Start for Reply {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let from = resources.slice(self.from)?;
        let metered = resources.meter.take_all(LimitKind::CallsOut, from.len());
        if let Err(status) = metered {
            resources.mailbox.refuse(self.call);
            return Err(status);
        }
        let bytes = from.to_vec();
        resources
            .mailbox
            .reply(self.call, self.kind, &bytes, &resources.budget)?;
        Ok(Started::Done(End::OK))
    }
}
