//! The dispute game: its state, what each side does next, and the one step that convicts. Pure: knows
//! no engine and no chain; both meet at [`Trace`] and [`Move`]. docs/dispute.md is the specification,
//! `DisputeGame.sol` and `StepReferee.sol` its other half. Start at [`Game`] and [`next_moves`].

mod arith;
mod build;
mod error;
mod facts;
mod game;
mod packing;
mod parting;
mod player;
mod rules;
mod seen;
mod step;
mod trace;

pub use error::{DisputeError, SeenError};
pub use facts::{Fact, FactKind, facts};
pub use game::{Below, Game, Held, Move, Node, Outcome, Phase, Reveal, Side, Stage};
pub use parting::Parting;
pub use player::Player;
pub use rules::next_moves;
pub use seen::Seen;
pub use step::{Opening, Packing, Step, TokenShown};
pub use trace::{Trace, TraceError};
