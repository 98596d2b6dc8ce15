//! The fault harness: what breaks a link exactly where a test wants it ([`Proxy`]), what writes down
//! every run ([`Ledger`]), who offers jobs meanwhile ([`Load`]), what counts afterwards
//! ([`Checker`]), and what becomes a line of `tests/FAULTS.md` ([`Row`]).
//!
//! Invariant: a row is written before it is judged, so that a row that fails is in the table too.

mod checker;
mod frame;
mod ground;
mod ledger;
mod load;
mod processes;
mod proxy;
mod report;
mod rules;

pub use checker::{Checker, Figures, QueueState, names};
pub use frame::{Direction, Method};
pub use ground::{Ground, LEDGER, LEDGER_NEXT, limits, prefetch};
pub use ledger::{Ledger, Run};
pub use load::{Load, Plan, Sent, job, publish_until_stored, worker_of};
pub use processes::{Usage, usage};
pub use proxy::Proxy;
pub use report::{OUT, Row, table};
pub use rules::{At, Point, Who};
