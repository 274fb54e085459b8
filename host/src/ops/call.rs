//! Calls of host functions, and of guest functions.

use std::sync::Arc;
use std::task::Poll;

use wakebox_abi::op::{
    Buf, CallHeader, CallHost, NextCall, NextItem, OpenHostStream, ReadMessage, Reply,
};
use wakebox_abi::status::Status;

use super::{End, Resources, Start, Started};
use crate::account::{Account, Charged, Kept};
use crate::calls::MESSAGE_MAX;
use crate::driver::handles::Resource;
use crate::limits::LimitKind;
use crate::meter::Meter;
use crate::policy::check::Refusal;
use crate::vm::memory::ArenaSlice;

/// What limits messages.
#[derive(Clone)]
struct Messages {
    account: Account,
    meter: Arc<Meter>,
}

impl Messages {
    fn of(resources: &Resources) -> Self {
        Self {
            account: resources.account.clone(),
            meter: resources.meter.clone(),
        }
    }
}

/// Longest name of a function, in bytes.
const NAME_MAX: usize = 256;

/// Puts a message where its reader wants it, or keeps it if it does not fit there.
fn deliver(message: Kept, into: ArenaSlice, extra: u32, to: &Messages) -> End {
    if let Err(status) = to.meter.take_all(LimitKind::CallsIn, message.len()) {
        return status.into();
    }
    if message.len() <= into.len() {
        into.fill(&message);
        return End::Done(Status::Ok, message.len() as u32 + extra);
    }
    End::Overflow(Resource::Message(Arc::new(message)), into)
}

/// A call as the guest has asked for it.
struct Call {
    name: Charged<String>,
    /// Charged until the call ends: arguments lie in the host's memory meanwhile, and a guest may
    /// name the same range of the arena in thousands of calls.
    input: Kept,
}

fn function(resources: &Resources, name: Buf, input: Buf) -> Result<Call, Status> {
    let (name, input) = (resources.text(name, NAME_MAX)?, resources.slice(input)?);
    if input.len() > MESSAGE_MAX {
        return Err(Status::MessageTooLarge);
    }
    if !resources.policy.may_call(&name) {
        return Err(resources.policy.refuse(Refusal::Call, &*name));
    }
    let metered = resources
        .meter
        .take_whole(LimitKind::CallsOut, input.len())?;
    let input = input.keep(&resources.account)?;
    metered.keep(input.len());
    Ok(Call { name, input })
}

impl Start for CallHost {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let Call { name, input } = function(resources, self.function, self.input)?;
        let call = resources.callables.call(&name, &input)?;
        let (_, charge) = input.split();
        let to = Messages::of(resources);
        Ok(Started::pending(async move {
            let _charge = charge;
            match call.await.and_then(|reply| to.account.keep(reply)) {
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
            let item = stream.lock().await.next().await;
            match item.map(|item| item.and_then(|item| to.account.keep(item))) {
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
        let rest = message.get(self.at as usize..).unwrap_or_default();
        Ok(Started::Done(End::bytes(into.fill(rest))))
    }
}

impl Start for NextCall {
    fn start(self, resources: &mut Resources) -> Result<Started, Status> {
        let into = resources.slice(self.into)?;
        let to = Messages::of(resources);
        let mailbox = resources.mailbox.clone();
        let end = move |message: Option<Kept>| {
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
        if !resources.mailbox.expects(self.call, from.len())? {
            return Ok(Started::Done(End::OK));
        }
        let metered = resources.meter.take_all(LimitKind::CallsOut, from.len());
        let bytes = metered.and_then(|()| from.keep(&resources.account));
        match bytes {
            Ok(bytes) => resources.mailbox.reply(self.call, self.kind, bytes)?,
            Err(status) => {
                resources.mailbox.refuse(self.call);
                return Err(status);
            }
        }
        Ok(Started::Done(End::OK))
    }
}
