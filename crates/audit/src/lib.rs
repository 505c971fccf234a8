//! Verdicts on receipts, and when to ask for one. Pure: no clock, no network, no file, no randomness.
//!
//! [`policy`] flips the private coin, [`accounting`] checks what needs no weights, [`reexecute`]
//! runs the model at prefill speed, [`ModelTrace`] lists all that it computes on the way. Statements are integer-exact, so a verdict is never "close":
//! an honest provider cannot be accused by rounding, hardware or batching.

mod accounting;
mod evidence;
mod fault;
mod policy;
mod reexecute;
mod trace;

pub use accounting::{check_accounting, check_numbers, check_stop};
pub use evidence::{CheckedPair, Evidence, Format, SignatureFault};
pub use fault::{ActualStop, Fault, Place};
pub use policy::{AuditPolicy, PartsPerMillion};
pub use reexecute::{CannotAudit, Verdict, reexecute};
pub use trace::ModelTrace;
