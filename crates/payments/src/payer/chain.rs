//! What follows from the chain's word about a lane: its balance, the fate of a deposit, what to send next. The chain
//! replaces the books wherever both tell of it. Decides only; whoever has a connection reads and sends.

use assay_protocol::channel::{ChannelConfig, DepositAuthorization};
use assay_protocol::{B256, MicroUsd, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Lane, LaneError, LaneState};

/// Money that was promised to a channel: durable before it is sent, so that it is never sent twice. Its authorization
/// can be used once, whoever submits it and however often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    pub amount: MicroUsd,
    pub authorization: DepositAuthorization,
    /// Whether the chain had it at the last look; a reorganization can still take it back.
    #[serde(default)]
    pub arrived: bool,
}

/// What became of a lane's deposit, by the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its authorization is not used.
    Absent,
    /// It came, but not so long ago that it is there to stay.
    Arrived,
    Final,
}

/// A payer's request to have unclaimed money back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    pub amount: MicroUsd,
    /// When the money can be taken.
    pub ready_at: Timestamp,
}

/// What the chain says about a lane's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// All that was deposited and not given back.
    pub balance: MicroUsd,
    pub claimed: MicroUsd,
    /// The balance that no reorganization is expected to change any more.
    pub balance_final: MicroUsd,
    pub withdrawal: Option<Withdrawal>,
    /// Of the deposit that the books have pending; `Absent` where there is none.
    pub deposit: Fate,
    pub now: Timestamp,
}

/// What to send for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Submit the deposit, again or for the first time: the chain has not got it.
    Submit(Deposit),
    /// Ask for this much of unclaimed money.
    AskBack(MicroUsd),
    /// The delay is over: take it.
    TakeBack,
}

impl Lane {
    /// A channel that is to be opened with this deposit.
    pub fn opening(config: ChannelConfig, channel_id: B256, deposit: Deposit) -> Self {
        Self {
            deposit: Some(deposit),
            ..Self::new(config, channel_id, MicroUsd::ZERO, MicroUsd::ZERO)
        }
    }

    /// Writes a deposit down; only one at a time is on its way.
    pub fn topped_up(&self, deposit: Deposit) -> Result<Self, LaneError> {
        match self.state {
            LaneState::Quarantined => Err(LaneError::Quarantined(self.channel_id)),
            _ if self.deposit.is_some() => Err(LaneError::DepositPending(self.channel_id)),
            _ => Ok(Self {
                deposit: Some(deposit),
                ..self.clone()
            }),
        }
    }

    /// What is in the channel or on its way there.
    pub fn held(&self) -> MicroUsd {
        let coming = self.deposit.filter(|deposit| !deposit.arrived);
        let coming = coming.map_or(0, |deposit| deposit.amount.0);
        MicroUsd(self.balance.0.saturating_add(coming))
    }

    /// Whether the chain may still change what the books say.
    pub fn is_unsettled(&self) -> bool {
        self.is_open() || self.deposit.is_some() || self.balance > self.charged
    }

    /// Takes the chain's word. A claim beyond what was promised closes the lane: either its provider has a voucher that
    /// these books forgot, or it claimed for what it did not serve; neither is a reason to sign more. So does a request
    /// to have the money back that these books know nothing of.
    pub fn seen(&self, seen: &Seen) -> Self {
        let mut next = self.clone();
        next.deposit = self.deposit.and_then(|deposit| match seen.deposit {
            Fate::Final => None,
            Fate::Arrived => Some(Deposit {
                arrived: true,
                ..deposit
            }),
            Fate::Absent if seen.now >= deposit.authorization.valid_before => None,
            Fate::Absent => Some(Deposit {
                arrived: false,
                ..deposit
            }),
        });
        let possible = match self.state {
            LaneState::Idle => self.charged,
            LaneState::InFlight(_) | LaneState::Unresolved(_) => self.signed_max,
            LaneState::Quarantined => seen.claimed,
        };
        if seen.claimed > possible || (self.is_open() && seen.withdrawal.is_some()) {
            next = next.quarantined();
        }
        if !matches!(self.state, LaneState::InFlight(_)) {
            next.charged = self.charged.max(seen.claimed);
        }
        next.signed_max = self.signed_max.max(seen.claimed);
        // What left a closed lane is back only when it cannot vanish from the account again.
        next.balance = if next.is_open() {
            seen.balance
        } else {
            seen.balance.max(seen.balance_final)
        };
        next
    }

    /// What to send now, with the same look at the chain.
    pub fn step(&self, seen: &Seen) -> Step {
        if self.is_open() {
            return match self.deposit {
                Some(deposit) if !deposit.arrived => Step::Submit(deposit),
                _ => Step::Nothing,
            };
        }
        let unclaimed = MicroUsd(seen.balance.0.saturating_sub(seen.claimed.0));
        if self.last.is_some() {
            // What its request costs is known soon.
            return Step::Nothing;
        }
        match seen.withdrawal {
            Some(withdrawal) if withdrawal.ready_at <= seen.now => Step::TakeBack,
            Some(_) => Step::Nothing,
            None if seen.balance > self.charged && unclaimed > MicroUsd::ZERO => {
                Step::AskBack(unclaimed)
            }
            None => Step::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, id, lane};
    use super::*;
    use assay_protocol::Signature;

    fn deposit(amount: u64) -> Deposit {
        Deposit {
            amount: MicroUsd(amount),
            authorization: DepositAuthorization {
                valid_after: Timestamp(0),
                valid_before: Timestamp(NOW.0 + 600),
                salt: Default::default(),
                signature: Signature(Default::default()),
            },
            arrived: false,
        }
    }

    fn seen(balance: u64) -> Seen {
        Seen {
            balance: MicroUsd(balance),
            claimed: MicroUsd(0),
            balance_final: MicroUsd(balance),
            withdrawal: None,
            deposit: Fate::Absent,
            now: NOW,
        }
    }

    fn opening() -> Lane {
        let lane = lane(0);
        Lane::opening(lane.config, lane.channel_id, deposit(50))
    }

    #[test]
    fn a_deposit_that_the_chain_has_not_is_submitted_until_it_expires() {
        let opening = opening().seen(&seen(0));
        assert_eq!(opening.step(&seen(0)), Step::Submit(deposit(50)));
        assert_eq!(opening.held(), MicroUsd(50));
        let late = Seen {
            now: Timestamp(NOW.0 + 600),
            ..seen(0)
        };
        let dropped = opening.seen(&late);
        assert_eq!((dropped.deposit, dropped.held()), (None, MicroUsd(0)));
        assert_eq!(dropped.step(&late), Step::Nothing);
        assert!(dropped.topped_up(deposit(50)).is_ok());
    }

    #[test]
    fn a_deposit_that_arrived_is_kept_until_it_is_final_and_sent_again_if_it_vanishes() {
        let arrived = Seen {
            deposit: Fate::Arrived,
            ..seen(50)
        };
        let open = opening().seen(&arrived);
        assert_eq!((open.balance, open.held()), (MicroUsd(50), MicroUsd(50)));
        assert_eq!(open.step(&arrived), Step::Nothing);
        assert!(open.can_pay(MicroUsd(50)));
        assert_eq!(
            open.topped_up(deposit(1)),
            Err(LaneError::DepositPending(open.channel_id))
        );
        let vanished = open.seen(&seen(0));
        assert!(!vanished.can_pay(MicroUsd(1)));
        assert_eq!(vanished.step(&seen(0)), Step::Submit(deposit(50)));
        let there = Seen {
            deposit: Fate::Final,
            ..seen(50)
        };
        assert_eq!(vanished.seen(&there).deposit, None);
    }

    #[test]
    fn a_claim_beyond_what_was_promised_closes_the_lane() {
        let claimed = |claimed| Seen {
            claimed: MicroUsd(claimed),
            ..seen(100)
        };
        let (running, _) = lane(100).start(MicroUsd(30), id(1), NOW).unwrap();
        assert_eq!(running.seen(&claimed(30)), running);
        assert!(!running.seen(&claimed(31)).is_open());
        let lost = running.reopened();
        let known = lost.seen(&claimed(30));
        assert_eq!((known.charged, known.is_open()), (MicroUsd(30), true));
        let done = running.settled(id(1), MicroUsd(10)).unwrap();
        assert!(done.seen(&claimed(10)).is_open());
        let greedy = done.seen(&claimed(11));
        assert_eq!(
            (greedy.state, greedy.charged, greedy.signed_max),
            (LaneState::Quarantined, MicroUsd(11), MicroUsd(30))
        );
    }

    #[test]
    fn a_withdrawal_that_the_books_know_nothing_of_closes_the_lane() {
        let withdrawal = Some(Withdrawal {
            amount: MicroUsd(100),
            ready_at: Timestamp(NOW.0 + 900),
        });
        let asked = Seen {
            withdrawal,
            ..seen(100)
        };
        let closed = lane(100).seen(&asked);
        assert!(!closed.is_open());
        assert_eq!(closed.step(&asked), Step::Nothing);
        let ready = Seen {
            now: Timestamp(NOW.0 + 900),
            ..asked
        };
        assert_eq!(closed.step(&ready), Step::TakeBack);
    }

    #[test]
    fn a_closed_lanes_money_is_back_when_no_reorganization_takes_it_again() {
        let closed = lane(100).quarantined();
        assert_eq!(closed.step(&seen(100)), Step::AskBack(MicroUsd(100)));
        let shallow = Seen {
            balance_final: MicroUsd(100),
            ..seen(0)
        };
        let waiting = closed.seen(&shallow);
        assert_eq!(
            (waiting.balance, waiting.step(&shallow)),
            (MicroUsd(100), Step::Nothing)
        );
        let back = waiting.seen(&seen(0));
        assert_eq!((back.balance, back.is_unsettled()), (MicroUsd(0), false));
    }

    #[test]
    fn a_request_that_ran_when_its_lane_was_closed_still_ends_and_counts_once() {
        let (running, _) = lane(100).start(MicroUsd(30), id(1), NOW).unwrap();
        let closed = running.quarantined();
        let done = closed.settled(id(1), MicroUsd(7)).unwrap();
        assert_eq!(
            (done.state, done.charged),
            (LaneState::Quarantined, MicroUsd(7))
        );
        assert!(done.settled(id(1), MicroUsd(7)).is_err());
        assert_eq!(closed.step(&seen(100)), Step::Nothing);
        assert_eq!(done.step(&seen(100)), Step::AskBack(MicroUsd(100)));
        let failed = closed.failed(id(1)).unwrap();
        assert_eq!(failed.service.failures, 1);
        assert!(failed.failed(id(1)).is_err());
    }
}
