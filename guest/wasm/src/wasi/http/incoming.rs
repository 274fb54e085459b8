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
use super::contents::Contents;
use super::fields::Fields;
use super::outgoing::{self, OutgoingRequest, OutgoingResponse};
use super::types::{Method, Scheme};
use super::{ErrorCode, Outcome, Reply};
use crate::http::{self, Body, RequestHead, is_hop};
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
        OneThread(Self {
            method: (&*head.method).into(),
            target: head.target.clone(),
            authority: host(head),
            fields: Fields::fixed(without_hops(&head.fields)),
            body: Some(body),
        })
    }
}

/// Whom a request is for.
fn host(head: &RequestHead) -> Option<String> {
    let mut fields = head.fields.iter();
    let host = fields.find(|(name, _)| name.eq_ignore_ascii_case("host"));
    host.and_then(|(_, value)| String::from_utf8(value.clone()).ok())
}

/// The fields that are for whoever asks or answers.
pub(super) fn without_hops(fields: &http::Fields) -> http::Fields {
    let fields = fields.iter().filter(|(name, _)| !is_hop(name));
    fields.cloned().collect()
}

/// A request that has come, in 0.3.
pub(crate) fn come(head: &RequestHead, body: Rc<Body>) -> OutgoingRequest {
    let mut request = outgoing::Request::new(Fields::fixed(without_hops(&head.fields)));
    request.0.method = (&*head.method).into();
    request.0.target = Some(head.target.clone());
    request.0.scheme = Some(Scheme::Http);
    request.0.authority = host(head);
    request.0.contents = Contents::Wire(body);
    request
}

/// What a component answers with.
pub(crate) type Answer = Outcome<Reply>;

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
    /// Says what the answer is.
    pub(crate) fn set(&self, answer: Answer) {
        self.change(|inner| inner.answer = Some(answer));
    }

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
pub(crate) struct Outparam(pub(crate) Rc<Slot>);

/// One in the table.
pub(crate) type ResponseOutparam = OneThread<Outparam>;

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
            slot.set(match answer {
                Ok(response) => {
                    let response = table.delete(response)?.0;
                    Ok(response.begin(&mut cx)?)
                }
                Err(code) => Err(code),
            });
            Ok(())
        },
    )
}
