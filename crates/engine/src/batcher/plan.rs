//! How many tokens of whom a step runs. Whoever waits for its next token gets it; a bounded number of prompt
//! tokens is run beside, a page's worth in turn for each prompt, so that a short one behind long ones waits
//! for a turn of each and not for their ends.

use assay_protocol::TokenId;

use super::prefixes::Parent;
use crate::cache::PAGE;
use crate::run::CHUNK;

/// Prompt tokens that a step runs while others wait for their next token.
const CHUNK_BESIDE_DECODING: usize = 32;

/// What a step needs to know of a sequence.
pub(super) struct Seat<'a> {
    /// Positions in its cache.
    pub(super) cached: usize,
    /// Tokens that are not; one is left when its next token follows.
    pub(super) pending: usize,
    /// The page that it fills, where another that fills the same could do it for both.
    pub(super) page: Option<(Parent, &'a [TokenId])>,
}

/// A step.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Tokens to run, seat by seat.
    pub(super) takes: Vec<usize>,
    /// Seats whose next token follows from their last.
    pub(super) decoding: usize,
    /// The seat whose turn is next; seats may be fewer by then.
    pub(super) turn: usize,
}

/// Plans a step in which the prompt at `turn` or the next one after it goes first.
pub(super) fn plan(seats: &[Seat<'_>], turn: usize) -> Plan {
    let mut takes: Vec<usize> = seats
        .iter()
        .map(|seat| usize::from(seat.pending == 1))
        .collect();
    let decoding = takes.iter().sum();
    let mut budget = match decoding {
        0 => CHUNK,
        _ => CHUNK_BESIDE_DECODING,
    };
    let mut turn = turn;
    while budget > 0 {
        let mut order = (0..seats.len()).map(|i| (turn + i) % seats.len());
        let Some(next) = order.find(|i| takes[*i] < seats[*i].pending && !waits(seats, &takes, *i))
        else {
            break;
        };
        let (seat, taken) = (&seats[next], takes[next]);
        let to_page_end = PAGE - (seat.cached + taken) % PAGE;
        let take = (seat.pending - taken).min(to_page_end).min(budget);
        takes[next] += take;
        budget -= take;
        turn = next + 1;
    }
    Plan {
        takes,
        decoding,
        turn,
    }
}

/// Whether another is ahead with the very page that this one would fill: it is taken over when it is full.
/// Who is furthest ahead waits for nobody, so somebody always goes on.
fn waits(seats: &[Seat<'_>], takes: &[usize], index: usize) -> bool {
    let seat = &seats[index];
    takes[index] == 0
        && seat.page.is_some()
        && seats.iter().zip(takes).any(|(other, taken)| {
            other.page == seat.page && (*taken > 0 || other.cached > seat.cached)
        })
}

#[cfg(test)]
mod tests {
    use assay_protocol::B256;

    use super::*;

    fn seat(cached: usize, pending: usize) -> Seat<'static> {
        Seat {
            cached,
            pending,
            page: None,
        }
    }

    fn takes(seats: &[Seat<'_>], turn: usize) -> Vec<usize> {
        plan(seats, turn).takes
    }

    #[test]
    fn alone_a_prompt_gets_the_whole_step_and_beside_others_they_take_turns() {
        assert_eq!(takes(&[seat(0, 500)], 0), [128]);
        assert_eq!(takes(&[seat(0, 500), seat(0, 500)], 0), [64, 64]);
        assert_eq!(
            takes(&[seat(0, 500), seat(0, 500), seat(0, 500)], 1),
            [32, 64, 32]
        );
        assert_eq!(takes(&[], 0), []);
        assert_eq!(plan(&[seat(0, 500), seat(0, 500)], 7).turn, 1);
    }

    #[test]
    fn decoders_always_go_and_prompts_share_a_page_beside_them() {
        let seats = [seat(40, 1), seat(0, 500), seat(7, 1), seat(0, 20)];
        assert_eq!(takes(&seats, 0), [1, 32, 1, 0]);
        assert_eq!(takes(&seats, 2), [1, 12, 1, 20]);
    }

    #[test]
    fn pieces_end_where_pages_do() {
        let seats = [seat(40, 1), seat(50, 500), seat(60, 500)];
        assert_eq!(takes(&seats, 1), [1, 28, 4]);
    }

    #[test]
    fn who_would_fill_the_same_page_waits_for_the_one_ahead() {
        let tokens = [7; PAGE];
        let same = |cached, pending| Seat {
            page: Some((Parent::Start(B256::ZERO), &tokens[..])),
            ..seat(cached, pending)
        };
        assert_eq!(takes(&[same(0, 500), same(0, 500)], 0), [128, 0]);
        assert_eq!(takes(&[same(0, 500), same(8, 500)], 0), [0, 128]);
        assert_eq!(
            takes(&[same(8, 500), same(8, 500), seat(0, 500)], 1),
            [0, 64, 64]
        );
    }
}
