//! A request that a component answers, and where its answer goes.

use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use wasmtime::Result;
use wasmtime::component::Resource;

use super::super::define::{Define, Linker, method, part, part_if, resource};
use super::super::value::Cx;
use super::bodies::{Incoming, IncomingBody};
use super::fields::Fields;
use super::outgoing::OutgoingResponse;
use super::types::{Method, Scheme};
use super::{ErrorCode, Outcome};
use crate::http::{Body, RequestHead, is_hop};
use crate::platform::OneThread;

/// A request that has come.
pub(crate) struct Request {
    method: Method,
    target: String,
    authority: Option<String>,
    fields: Fields,
    body: Option<Rc<Body>>,
}

/// One in the table.
pub(crate) type IncomingRequest = OneThread<Request>;

impl Request {
    pub(crate) fn of(head: &RequestHead, body: Rc<Body>) -> IncomingRequest {
        let host = head
            .fields
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.and_then(|(_, value)| String::from_utf8(value.clone()).ok());
        let fields = head.fields.iter().filter(|(name, _)| !is_hop(name));
        OneThread(Self {
            method: (&*head.method).into(),
            target: head.target.clone(),
            authority: host,
            fields: Fields::fixed(fields.cloned().collect()),
            body: Some(body),
        })
    }
}

/// What a component answers with.
type Answer = Outcome<OutgoingResponse>;

/// Where an answer is awaited.
#[derive(Default)]
pub(crate) struct Slot(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    answer: Option<Answer>,
    is_gone: bool,
    waker: Option<Waker>,
}

impl Slot {
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.0.borrow_mut();
        change(&mut inner);
        let waker = inner.waker.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The answer, or nothing if none will come.
    pub(crate) async fn answer(&self) -> Option<Answer> {
        poll_fn(|cx| {
            let mut inner = self.0.borrow_mut();
            match inner.answer.take() {
                None if !inner.is_gone => {
                    inner.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                answer => Poll::Ready(answer),
            }
        })
        .await
    }
}

/// The component's end of a slot.
pub(crate) struct Outparam(Rc<Slot>);

/// One in the table.
pub(crate) type ResponseOutparam = OneThread<Outparam>;

impl Outparam {
    pub(crate) fn of(slot: Rc<Slot>) -> ResponseOutparam {
        OneThread(Self(slot))
    }
}

impl Drop for Outparam {
    fn drop(&mut self) {
        self.0.change(|inner| inner.is_gone = true);
    }
}

pub(super) fn provide(instance: &mut Linker<'_>) -> Result<()> {
    resource::<IncomingRequest>(instance, "incoming-request")?;
    resource::<ResponseOutparam>(instance, "response-outparam")?;
    let name = "[method]incoming-request.method";
    method::<IncomingRequest, Method>(instance, name, |request| request.0.method.clone())?;
    let name = "[method]incoming-request.path-with-query";
    method::<IncomingRequest, Option<String>>(instance, name, |request| {
        Some(request.0.target.clone())
    })?;
    let name = "[method]incoming-request.scheme";
    method::<IncomingRequest, Option<Scheme>>(instance, name, |_| Some(Scheme::Http))?;
    let name = "[method]incoming-request.authority";
    method::<IncomingRequest, Option<String>>(instance, name, |request| {
        request.0.authority.clone()
    })?;
    let name = "[method]incoming-request.headers";
    part::<IncomingRequest, Fields>(instance, name, |request| request.0.fields.clone())?;
    let name = "[method]incoming-request.consume";
    part_if::<IncomingRequest, IncomingBody>(instance, name, |request| {
        request.0.body.take().map(Incoming::new)
    })?;
    instance.define(
        "[method]response-outparam.send-informational",
        |_: Cx<'_>, _: (Resource<ResponseOutparam>, u16, Resource<Fields>)| {
            Ok((Outcome::<()>::Err(ErrorCode::ConfigurationError),))
        },
    )?;
    instance.define(
        "[static]response-outparam.set",
        |mut cx: Cx<'_>,
         (this, answer): (
            Resource<ResponseOutparam>,
            Outcome<Resource<OutgoingResponse>>,
        )| {
            let table = &mut cx.data_mut().table;
            let slot = table.delete(this)?.0.0.clone();
            let answer = match answer {
                Ok(response) => Ok(table.delete(response)?),
                Err(code) => Err(code),
            };
            slot.change(|inner| inner.answer = Some(answer));
            Ok(())
        },
    )
}
