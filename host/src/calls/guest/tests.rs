use std::pin::Pin;

use futures_util::FutureExt;
use wakebox_abi::op::CallHeader;

use super::*;
use crate::account::{Account, EACH};

fn call_queue(most: u64) -> (Caller, Account) {
    let account = Account::new(most);
    let call_queue = Arc::new(CallQueue::starting_at(0, account.clone()));
    (Caller::new(call_queue, None), account)
}

/// The number and the kind of the next message, if there is one.
fn taken(caller: &Caller) -> Option<(u64, CallKind)> {
    let message = caller.call_queue.take().now_or_never()??;
    let (header, _) = CallHeader::split(&message).unwrap();
    Some((header.call, header.kind))
}

/// A call, the first, that the guest has taken.
fn begun(caller: &Caller) -> Pin<Box<impl Future<Output = Result<Vec<u8>, CallError>>>> {
    let mut call = Box::pin(caller.call_bytes("f", b""));
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(taken(caller), Some((0, CallKind::Call)));
    call
}

/// A stream of JSON, the first call, that the guest has taken.
fn begun_stream(caller: &Caller) -> GuestStream<String> {
    let open = caller.stream_json("f", "null").now_or_never();
    assert_eq!(taken(caller), Some((0, CallKind::Json)));
    open.unwrap().unwrap()
}

fn answer(caller: &Caller, call: u64, kind: ReplyKind, bytes: &[u8]) -> Result<(), Status> {
    let bytes = caller.call_queue.lock().account.concat(&[bytes])?;
    caller.call_queue.reply(call, kind, bytes)
}

#[test]
fn a_call_that_is_given_up_before_it_is_taken_leaves_nothing() {
    let (caller, account) = call_queue(1 << 20);
    let input = [0; 1_000];
    // Many times as much as may be kept.
    for _ in 0..5_000 {
        let mut call = Box::pin(caller.call_bytes("f", &input));
        assert!((&mut call).now_or_never().is_none());
    }
    assert_eq!(taken(&caller), None);
    assert_eq!(account.kept(), 0);
    assert!(account.peak() < 2_000);
}

#[test]
fn the_guest_is_told_of_a_call_that_is_given_up_after_it_was_taken() {
    let (caller, account) = call_queue(1 << 20);
    let (mut one, mut two) = (
        Box::pin(caller.call_bytes("f", b"one")),
        Box::pin(caller.call_bytes("f", b"two")),
    );
    assert!((&mut one).now_or_never().is_none());
    assert_eq!(taken(&caller), Some((0, CallKind::Call)));
    assert!((&mut two).now_or_never().is_none());
    drop(one);
    assert_eq!(taken(&caller), Some((0, CallKind::Cancel)));
    assert_eq!(taken(&caller), Some((1, CallKind::Call)));
    drop(two);
    assert_eq!(taken(&caller), Some((1, CallKind::Cancel)));
    assert_eq!((taken(&caller), account.kept()), (None, 0));
}

#[test]
fn a_call_whose_caller_has_not_come_for_the_answer_is_answered() {
    let (caller, _) = call_queue(1 << 20);
    let mut call = begun(&caller);
    assert_eq!(caller.call_queue.stand(), (1, 1));
    answer(&caller, 0, ReplyKind::Result, b"x").unwrap();
    assert_eq!(caller.call_queue.stand(), (1, 0));
    assert!((&mut call).now_or_never().is_some());
}

#[test]
fn calls_that_wait_are_charged_and_one_too_many_is_refused() {
    let (caller, account) = call_queue(10_000);
    let input = [0; 1_000];
    let mut calls: Vec<_> = (0..10)
        .map(|_| Box::pin(caller.call_bytes("f", &input)))
        .collect();
    let ends: Vec<_> = calls.iter_mut().map(FutureExt::now_or_never).collect();
    let refused = Some(Err(CallError::LimitReached("f".into())));
    let waiting = ends.iter().take_while(|end| end.is_none()).count();
    assert!((5..9).contains(&waiting), "{waiting}");
    assert!(ends[waiting..].iter().all(|end| *end == refused));
    assert!(account.kept() >= 1_000 * waiting as u64);
    drop(calls);
    assert_eq!(account.kept(), 0);
}

#[test]
fn empty_parts_of_a_result_cost_nothing_and_the_others_what_they_hold() {
    let (caller, account) = call_queue(1 << 20);
    let call = begun(&caller);
    let before = account.kept();
    for _ in 0..100_000 {
        answer(&caller, 0, ReplyKind::Part, b"").unwrap();
    }
    assert_eq!(account.kept(), before);
    for _ in 0..1_000 {
        answer(&caller, 0, ReplyKind::Part, b"a").unwrap();
    }
    assert!(account.kept() - before <= (2_000 + EACH) as u64);
    answer(&caller, 0, ReplyKind::Result, b"b").unwrap();
    let result = call.now_or_never().unwrap().unwrap();
    assert_eq!((result.len(), result.last()), (1_001, Some(&b'b')));
    assert_eq!(account.kept(), 0);
}

#[test]
fn a_result_in_parts_that_is_too_large_for_the_account_ends_its_call() {
    let (caller, account) = call_queue(10_000);
    let call = begun(&caller);
    let mut parts = 0;
    while answer(&caller, 0, ReplyKind::Part, &[0; 1_000]).is_ok() {
        parts += 1;
    }
    assert!((3..10).contains(&parts), "{parts}");
    let refused = Err(CallError::LimitReached("f".into()));
    assert_eq!(call.now_or_never(), Some(refused));
    assert_eq!(account.kept(), 0);
}

#[test]
fn an_answer_is_asked_about_before_it_is_copied() {
    let (caller, _) = call_queue(1 << 20);
    let call_queue = &caller.call_queue;
    assert_eq!(call_queue.expects(0, 1), Ok(false), "nobody has called");
    let mut call = Box::pin(caller.call_bytes("f", b""));
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(call_queue.expects(0, MESSAGE_MAX), Ok(true));
    assert_eq!(call_queue.expects(0, MESSAGE_MAX + 1), Ok(false));
    let refused = Err(CallError::TooLarge("f".into()));
    assert_eq!(call.now_or_never(), Some(refused));
    assert_eq!(call_queue.expects(0, 1), Ok(false), "the caller has gone");
}

#[test]
fn who_waits_has_one_ticket_however_often_it_is_polled() {
    let (caller, _) = call_queue(1 << 30);
    let mut calls: Vec<_> = (0..CALLS_MAX)
        .map(|_| Box::pin(caller.call_bytes("f", b"")))
        .collect();
    assert!(calls.iter_mut().all(|call| call.now_or_never().is_none()));
    let mut more: Vec<_> = (0..3)
        .map(|_| Box::pin(caller.call_bytes("f", b"")))
        .collect();
    let mut takes: Vec<_> = (0..3).map(|_| caller.call_queue.take()).collect();
    for _ in 0..100 {
        assert!(more.iter_mut().all(|call| call.now_or_never().is_none()));
    }
    assert_eq!(caller.call_queue.lock().callers.wakers.len(), 3);
    // Room goes to them in their order.
    drop(calls.pop());
    assert_eq!(caller.call_queue.lock().callers.wakers.len(), 2);
    assert!((&mut more[0]).now_or_never().is_none());
    assert_eq!(caller.call_queue.lock().pending.len(), CALLS_MAX);
    drop((more, calls));
    assert_eq!(caller.call_queue.lock().callers.wakers.len(), 0);
    for _ in 0..100 {
        assert!(takes.iter_mut().all(|take| take.now_or_never().is_none()));
    }
    assert_eq!(caller.call_queue.lock().takers.wakers.len(), 3);
    drop(takes);
    assert_eq!(caller.call_queue.lock().takers.wakers.len(), 0);
}

/// What a guest sends, when it may.
async fn item(caller: &Caller, call: u64, bytes: &[u8]) -> Result<(), Status> {
    if let Some(room) = caller.call_queue.room_for_item(call) {
        room.await;
    }
    answer(caller, call, ReplyKind::Item, bytes)
}

#[test]
fn items_wait_for_room_in_their_order_and_are_charged_until_they_are_taken() {
    let (caller, account) = call_queue(1 << 20);
    let mut stream = begun_stream(&caller);
    assert!(stream.next().now_or_never().is_none());
    let before = account.kept();
    for _ in 0..64 {
        assert_eq!(item(&caller, 0, b"1").now_or_never(), Some(Ok(())));
    }
    assert!(account.kept() > before);
    let mut more = [
        Box::pin(item(&caller, 0, b"2")),
        Box::pin(item(&caller, 0, b"3")),
    ];
    assert!(more.iter_mut().all(|item| item.now_or_never().is_none()));
    assert_eq!(stream.next().now_or_never(), Some(Some(Ok("1".into()))));
    assert_eq!((&mut more[0]).now_or_never(), Some(Ok(())));
    assert_eq!((&mut more[1]).now_or_never(), None);
    for _ in 0..63 {
        assert_eq!(stream.next().now_or_never(), Some(Some(Ok("1".into()))));
    }
    assert_eq!((&mut more[1]).now_or_never(), Some(Ok(())));
    answer(&caller, 0, ReplyKind::End, b"").unwrap();
    let rest: Vec<_> = std::iter::from_fn(|| stream.next().now_or_never().unwrap()).collect();
    assert_eq!(rest, [Ok("2".into()), Ok("3".into())]);
    assert_eq!(account.kept(), 0);
}

#[test]
fn whoever_waits_to_send_an_item_learns_that_nobody_takes_it() {
    let (caller, account) = call_queue(1 << 20);
    let stream = begun_stream(&caller);
    let long = [b' '; 70_000];
    assert_eq!(item(&caller, 0, &long).now_or_never(), Some(Ok(())));
    let mut more = Box::pin(item(&caller, 0, b"1"));
    assert!((&mut more).now_or_never().is_none());
    // One that gives up waiting takes nobody's turn.
    let mut other = Box::pin(item(&caller, 0, b"1"));
    assert!((&mut other).now_or_never().is_none());
    drop(other);
    drop(stream);
    assert_eq!(more.now_or_never(), Some(Ok(())));
    assert_eq!(taken(&caller), Some((0, CallKind::Cancel)));
    assert_eq!(account.kept(), 0);
}

#[test]
fn an_item_of_a_call_that_wants_one_result_ends_it() {
    let (caller, account) = call_queue(1 << 20);
    let mut call = begun(&caller);
    let refused = Err(Status::InvalidInput);
    assert_eq!(item(&caller, 0, b"1").now_or_never(), Some(refused));
    assert_eq!(item(&caller, 0, b"1").now_or_never(), Some(refused));
    // The guest is asked for the types.
    assert!((&mut call).now_or_never().is_none());
    assert_eq!(taken(&caller), Some((1, CallKind::Signature)));
    answer(&caller, 1, ReplyKind::Result, b"() -> stream<u8>").unwrap();
    let told = call.now_or_never().unwrap().unwrap_err();
    assert!(
        matches!(&told, CallError::BadOutput(told) if told.guest.as_deref() == Some("() -> stream<u8>"))
    );
    assert_eq!(account.kept(), 0);
}
