//! The dispute game: its state, what each side does next, and the one step that convicts. Pure: knows
//! no engine and no chain; both meet at [`Trace`] and [`Move`]. docs/dispute.md is the specification,
//! `DisputeGame.sol` and `StepReferee.sol` its other half. Start at [`Game`].

mod facts;
mod game;
mod step;
mod trace;

pub use facts::{Fact, FactKind, facts};
pub use game::{Below, Game, Held, Move, Node, Outcome, Phase, Reveal, Side, Stage};
pub use step::{Opening, Packing, Step, TokenShown};
pub use trace::{Trace, TraceError};
