//! Operations that need no module of their own.

use wakebox_abi::op::Nop;

use crate::io::Result;
use crate::op::Op;

/// Goes to the host and back, and does nothing there: the price of the boundary itself. Cancel-safe.
///
/// # Errors
///
/// Those of the operation, of which none is known.
pub async fn nop() -> Result<()> {
    let (outcome, _) = Op::new(Nop {}).await;
    outcome?;
    Ok(())
}
