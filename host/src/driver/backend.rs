//! What does the operations, as the driver sees it.
//!
//! The driver knows rings, slots, tokens, admission and budgets, and nothing of what an operation is.
//! It decodes a submission once and gives the backend a typed [`Request`]; what the backend cannot do
//! at once is a future in the request's slot, and the backend hears of its end, whichever that is.

use std::future::Future;

use wakebox_abi::entry::Token;
use wakebox_abi::op::Request;
use wakebox_abi::status::Status;

/// Does operations.
pub(crate) trait Backend: std::fmt::Debug + Send + Sized + 'static {
    /// An operation that could not be done at once.
    type Operation: Operation<End = Self::End>;
    /// How an operation ended, before the backend has settled it.
    type End: From<Status>;
    /// Something open, which the end of the sandbox closes by dropping it.
    type Open: Send + 'static;

    /// What starting an operation costs of a turn's allowance, besides the bytes that it moves.
    fn price(opcode: u16) -> usize;

    /// Starts an operation. Must not block.
    fn start(&mut self, request: Request) -> Started<Self>;

    /// Starts an operation that was in flight in the sandbox of which this one is made.
    fn start_again(&mut self, request: Request) -> Started<Self>;

    /// The operation goes on after its first poll.
    fn goes_on(&mut self, token: Token, operation: &Self::Operation);

    /// An operation that went on has ended or was cancelled: the last that is heard of it.
    fn ended(&mut self, token: Token, operation: Self::Operation);

    /// Turns an operation's end into what stands in its completion.
    fn settle(&mut self, end: Self::End) -> (Status, u32);

    /// A turn has started and settled all that it will. What was put off to be done together is done
    /// now.
    fn flush(&mut self) {}

    /// Whether the sandbox is to end with all that it has under way.
    fn is_killed(&self) -> bool;

    /// The sandbox has ended: gives up all that is open.
    fn end(&mut self) -> impl Iterator<Item = Self::Open> + Send + 'static;
}

/// An operation in a slot.
pub(crate) trait Operation:
    Future<Output = Self::End> + Unpin + std::fmt::Debug + Send + 'static
{
    /// What it ends with.
    type End;

    /// Whether it may be dropped now. If not, it completes by itself, cancelled or not.
    fn may_be_dropped(&self) -> bool {
        true
    }
}

/// How an operation began.
pub(crate) enum Started<B: Backend> {
    /// It is done already.
    Done(B::End),
    /// It goes on.
    Pending(B::Operation),
    /// It has closed something on which these operations were in flight. It is done when they are
    /// cancelled, and then what it goes on with has ended.
    Closed {
        operations: Vec<Token>,
        then: Option<B::Operation>,
    },
}
