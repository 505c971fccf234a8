//! Plays a dispute: reads the game from the chain, has the dispute crate decide, sends what it says, until the game is
//! over. Provider, challenger and watcher play with the same code ([`Seat::play`]); what differs is the trace that they
//! hold and the side that they sit on. Decides no move and judges no element itself.

mod accuse;
mod brain;
mod case;
mod parted;
mod seat;
pub mod served;
mod words;

pub use accuse::{Accuser, Concluded, NoDispute, Told};
pub use brain::{Brain, Thoughtless};
pub use case::{Case, Grounds, NoCase, SharedTrace};
pub use parted::{Parted, Progress};
pub use seat::{Finished, PlayError, Played, Seat};
pub use served::OffChain;
pub use words::{describe_move, describe_reveal};
