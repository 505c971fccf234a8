//! The payer's side of one channel, as a state and the moves on it. A lane has at most one request in flight; what it
//! could ever owe is `signed_max`, and that number only grows. Never signs, stores or sends: see the ledger for that.
//! What follows from the chain's word stands in `payer/chain.rs`, what is told of the service in `payer/report.rs`.

mod chain;
mod report;

use assay_protocol::channel::{ChannelConfig, ChannelDomain, ChannelError, SignedVoucher, Voucher};
use assay_protocol::{Address, Answered, B256, MicroUsd, Service, Timestamp};
use serde::{Deserialize, Serialize};

use crate::x402::{ChannelState, PaymentRequirements, VoucherState};

pub use chain::{Deposit, Fate, Seen, Step, Withdrawal};
pub use report::{Report, Reported};

/// A channel to one provider, as its payer knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    pub config: ChannelConfig,
    pub channel_id: B256,
    /// All that was deposited, less refunds.
    pub balance: MicroUsd,
    /// The sum of what was agreed to have been charged.
    pub charged: MicroUsd,
    /// The highest voucher that was ever signed: the most that this lane can lose.
    pub signed_max: MicroUsd,
    pub state: LaneState,
    /// A deposit that was written down before it was sent, until the chain has it for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit: Option<Deposit>,
    /// The request that ran when the lane was closed: it still ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Request>,
    /// What was served here, as this payer saw it.
    #[serde(default)]
    pub service: Service,
    /// How far `service` has come on its way to the scoreboard.
    #[serde(default)]
    pub report: Report,
}

/// Whom lanes pay, and by which terms; other terms make other channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payee {
    pub receiver: Address,
    pub authorizer: Address,
    pub token: Address,
    pub withdraw_delay_s: u64,
}

impl From<&PaymentRequirements> for Payee {
    fn from(requirements: &PaymentRequirements) -> Self {
        Self {
            receiver: requirements.pay_to,
            authorizer: requirements.extra.receiver_authorizer,
            token: requirements.asset,
            withdraw_delay_s: requirements.extra.withdraw_delay,
        }
    }
}

/// What the lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    Idle,
    /// A voucher is out and its request is running.
    InFlight(Request),
    /// The request's fate is unknown: the process died, or the answer broke off without a receipt.
    Unresolved(Request),
    /// Closed: nothing more is signed here, and what is not claimed is asked back.
    Quarantined,
}

/// The request behind a voucher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub request_id: B256,
    pub ceiling: MicroUsd,
    /// The most that can have been charged before this request: our books, or what lost requests were promised.
    pub owed_max: MicroUsd,
    pub since: Timestamp,
}

/// Why a move on a lane is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
    #[error("channel {0} has a request in flight")]
    Busy(B256),
    #[error("channel {0} is closed: nothing more is signed there")]
    Quarantined(B256),
    #[error("channel {0} has a deposit on its way: wait for its end")]
    DepositPending(B256),
    #[error("channel {channel} holds {balance}, a voucher of {needed} needs a deposit first")]
    Insufficient {
        channel: B256,
        needed: MicroUsd,
        balance: MicroUsd,
    },
    #[error("amounts overflow")]
    Overflow,
    #[error("request {0} is not the one in flight")]
    OtherRequest(B256),
    #[error("the provider charged {charged}, only {ceiling} was promised")]
    OverCharged {
        charged: MicroUsd,
        ceiling: MicroUsd,
    },
    #[error("the provider says {claimed} was charged, at most {possible} can have been")]
    OverClaimed {
        claimed: MicroUsd,
        possible: MicroUsd,
    },
    #[error("the provider's state is for another channel")]
    OtherChannel,
    #[error("the provider's proof of its state does not hold: {0}")]
    Proof(ChannelError),
    #[error("the provider holds a voucher of {shown}, the highest ever signed is {signed}")]
    NeverSigned { shown: MicroUsd, signed: MicroUsd },
}

impl Lane {
    pub fn new(
        config: ChannelConfig,
        channel_id: B256,
        balance: MicroUsd,
        claimed: MicroUsd,
    ) -> Self {
        Self {
            config,
            channel_id,
            balance,
            charged: claimed,
            signed_max: claimed,
            state: LaneState::Idle,
            deposit: None,
            last: None,
            service: Service::default(),
            report: Report::default(),
        }
    }

    /// A channel that the books have lost: whatever it holds may have been promised, and nothing more is signed there.
    pub fn recovered(
        config: ChannelConfig,
        channel_id: B256,
        balance: MicroUsd,
        claimed: MicroUsd,
    ) -> Self {
        Self {
            signed_max: balance.max(claimed),
            state: LaneState::Quarantined,
            ..Self::new(config, channel_id, balance, claimed)
        }
    }

    pub fn is_open(&self) -> bool {
        self.state != LaneState::Quarantined
    }

    pub fn pays(&self, payee: &Payee) -> bool {
        let config = &self.config;
        config.receiver == payee.receiver
            && config.receiver_authorizer == payee.authorizer
            && config.token == payee.token
            && config.withdraw_delay_s == payee.withdraw_delay_s
    }

    /// What a further request may cost at most.
    pub fn available(&self) -> MicroUsd {
        MicroUsd(self.balance.0.saturating_sub(self.charged.0))
    }

    /// Whether a request of this ceiling can start here now.
    pub fn can_pay(&self, ceiling: MicroUsd) -> bool {
        matches!(self.state, LaneState::Idle | LaneState::Unresolved(_))
            && ceiling <= self.available()
    }

    /// Starts a request: the voucher to sign is what was charged so far plus this ceiling. An unresolved lane starts
    /// from what its payer knows; if the provider did charge the lost request, it answers with its state and a proof,
    /// and [`Lane::corrected`] takes it from there.
    pub fn start(
        &self,
        ceiling: MicroUsd,
        request_id: B256,
        now: Timestamp,
    ) -> Result<(Self, Voucher), LaneError> {
        let owed_max = match self.state {
            LaneState::InFlight(_) => return Err(LaneError::Busy(self.channel_id)),
            LaneState::Quarantined => return Err(LaneError::Quarantined(self.channel_id)),
            LaneState::Idle => self.charged,
            LaneState::Unresolved(_) => self.signed_max,
        };
        let needed = self
            .charged
            .checked_add(ceiling)
            .map_err(|_| LaneError::Overflow)?;
        if needed > self.balance {
            return Err(LaneError::Insufficient {
                channel: self.channel_id,
                needed,
                balance: self.balance,
            });
        }
        let mut next = self.clone();
        next.signed_max = self.signed_max.max(needed);
        next.state = LaneState::InFlight(Request {
            request_id,
            ceiling,
            owed_max,
            since: now,
        });
        Ok((
            next,
            Voucher {
                channel_id: self.channel_id,
                max_claimable: needed,
            },
        ))
    }

    /// The request ended with this charge and is not counted: it was refused before anything was served.
    pub fn settled(&self, request_id: B256, charged: MicroUsd) -> Result<Self, LaneError> {
        let request = self.running(request_id)?;
        if charged > request.ceiling {
            return Err(LaneError::OverCharged {
                charged,
                ceiling: request.ceiling,
            });
        }
        let charged = self
            .charged
            .checked_add(charged)
            .map_err(|_| LaneError::Overflow)?;
        Ok(Self {
            charged,
            ..self.ended(LaneState::Idle)
        })
    }

    /// The request ended in a receipt that holds: it is charged and counted.
    pub fn answered(&self, request_id: B256, answer: &Answered) -> Result<Self, LaneError> {
        let mut next = self.settled(request_id, answer.charged)?;
        if self.is_running(request_id) {
            // Counts that are full stay as they are: a record is no reason not to pay.
            next.service = self.service.answered(answer).unwrap_or(self.service);
        }
        Ok(next)
    }

    /// The request's fate is unknown, and that is nobody's fault that could be named.
    pub fn lost(&self, request_id: B256) -> Result<Self, LaneError> {
        let request = self.running(request_id)?;
        Ok(self.ended(LaneState::Unresolved(request)))
    }

    /// The same, and the provider's fault: it was paid, and gave no receipt that holds.
    pub fn failed(&self, request_id: B256) -> Result<Self, LaneError> {
        let mut next = self.lost(request_id)?;
        if self.is_running(request_id) {
            next.service = self.service.failed().unwrap_or(self.service);
        }
        Ok(next)
    }

    /// The request that ran here is over; a closed lane stays closed.
    fn ended(&self, state: LaneState) -> Self {
        let mut next = self.clone();
        next.last = None;
        if self.is_open() {
            next.state = state;
        }
        next
    }

    /// After a restart: whatever was in flight is lost.
    pub fn reopened(&self) -> Self {
        let state = match self.state {
            LaneState::InFlight(request) => LaneState::Unresolved(request),
            other => other,
        };
        Self {
            state,
            last: None,
            ..self.clone()
        }
    }

    /// Takes the provider's account of this channel. Nothing in it is believed beyond what was promised: the proof
    /// must be a voucher of ours, and the charge must lie within what the lost requests could have cost.
    ///
    /// A provider that proves nothing may still say what the chain already paid out, since that is public.
    pub fn corrected(
        &self,
        domain: &ChannelDomain,
        channel: &ChannelState,
        proof: Option<&VoucherState>,
    ) -> Result<Self, LaneError> {
        if channel.channel_id != self.channel_id {
            return Err(LaneError::OtherChannel);
        }
        let claimed = channel
            .charged_cumulative_amount
            .unwrap_or(channel.total_claimed)
            .0;
        if let Some(proof) = proof {
            let shown = proof.signed_max_claimable.0;
            let voucher = Voucher {
                channel_id: self.channel_id,
                max_claimable: shown,
            };
            let signed = SignedVoucher {
                voucher,
                signature: proof.signature,
            };
            signed
                .check(domain, &self.config)
                .map_err(LaneError::Proof)?;
            if shown > self.signed_max {
                return Err(LaneError::NeverSigned {
                    shown,
                    signed: self.signed_max,
                });
            }
            if claimed > shown {
                return Err(LaneError::OverClaimed {
                    claimed,
                    possible: shown,
                });
            }
        }
        // Without a lost request nothing can have been charged that is not in our books already. With one, the
        // voucher that went out with it bounds the charge. The request that is being corrected was not served.
        // A closed lane asks how much of its money is left, not whether to pay: our own voucher settles that.
        let possible = match self.state {
            LaneState::InFlight(request) => request.owed_max,
            LaneState::Unresolved(_) => self.signed_max,
            LaneState::Quarantined if proof.is_some() => self.signed_max,
            LaneState::Idle | LaneState::Quarantined => self.charged,
        };
        if claimed > possible {
            return Err(LaneError::OverClaimed { claimed, possible });
        }
        Ok(Self {
            charged: claimed,
            ..self.ended(LaneState::Idle)
        })
    }

    /// No voucher is signed here any more. A request that runs still ends.
    pub fn quarantined(&self) -> Self {
        let last = match self.state {
            LaneState::InFlight(request) => Some(request),
            _ => self.last,
        };
        Self {
            state: LaneState::Quarantined,
            last,
            ..self.clone()
        }
    }

    /// The promise that goes with asking for a refund: no more than was charged.
    pub fn closing_voucher(&self) -> Voucher {
        Voucher {
            channel_id: self.channel_id,
            max_claimable: self.charged,
        }
    }

    fn running(&self, request_id: B256) -> Result<Request, LaneError> {
        match self.state {
            LaneState::InFlight(request) | LaneState::Unresolved(request)
                if request.request_id == request_id =>
            {
                Ok(request)
            }
            _ => match self.last {
                Some(request) if request.request_id == request_id => Ok(request),
                _ => Err(LaneError::OtherRequest(request_id)),
            },
        }
    }

    /// Whether this request's end is still to be counted; it is only once.
    fn is_running(&self, request_id: B256) -> bool {
        let running = match self.state {
            LaneState::InFlight(request) => Some(request),
            _ => self.last,
        };
        running.is_some_and(|request| request.request_id == request_id)
    }
}

/// The lane that a request of this ceiling should take: an idle one before an unresolved one, and among them the one
/// with the least left, so that full lanes stay free for dear requests.
pub fn choose<'a>(
    lanes: impl IntoIterator<Item = &'a Lane>,
    ceiling: MicroUsd,
) -> Option<&'a Lane> {
    lanes
        .into_iter()
        .filter(|lane| lane.can_pay(ceiling))
        .min_by_key(|lane| {
            (
                matches!(lane.state, LaneState::Unresolved(_)),
                lane.available(),
                lane.channel_id,
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x402::{Amount, Decimal};
    use assay_protocol::Address;

    pub(super) const NOW: Timestamp = Timestamp(1_000);

    fn domain() -> ChannelDomain {
        ChannelDomain {
            chain_id: 1,
            contract: Address::repeat_byte(9),
        }
    }

    pub(super) fn lane(balance: u64) -> Lane {
        let address = Address::repeat_byte;
        let config = ChannelConfig {
            payer: address(1),
            payer_authorizer: address(1),
            receiver: address(2),
            receiver_authorizer: address(3),
            token: address(4),
            withdraw_delay_s: 900,
            salt: B256::ZERO,
        };
        let id = config.id(&domain()).unwrap();
        Lane::new(config, id, MicroUsd(balance), MicroUsd(0))
    }

    pub(super) fn id(n: u8) -> B256 {
        B256::repeat_byte(n)
    }

    fn state(lane: &Lane, charged: u64) -> ChannelState {
        ChannelState {
            channel_id: lane.channel_id,
            balance: Amount(lane.balance),
            total_claimed: Amount(MicroUsd(0)),
            withdraw_requested_at: 0,
            refund_nonce: Decimal(0),
            charged_cumulative_amount: Some(Amount(MicroUsd(charged))),
        }
    }

    #[test]
    fn a_voucher_is_what_was_charged_plus_the_ceiling() {
        let (running, voucher) = lane(100).start(MicroUsd(30), id(1), NOW).unwrap();
        assert_eq!(voucher.max_claimable, MicroUsd(30));
        let done = running.settled(id(1), MicroUsd(10)).unwrap();
        assert_eq!(
            (done.charged, done.signed_max),
            (MicroUsd(10), MicroUsd(30))
        );
        let (_, voucher) = done.start(MicroUsd(5), id(2), NOW).unwrap();
        assert_eq!(voucher.max_claimable, MicroUsd(15));
    }

    #[test]
    fn two_requests_at_once_never_share_a_lane() {
        let (running, _) = lane(100).start(MicroUsd(30), id(1), NOW).unwrap();
        assert_eq!(
            running.start(MicroUsd(1), id(2), NOW),
            Err(LaneError::Busy(running.channel_id))
        );
        assert_eq!(choose([&running], MicroUsd(1)), None);
    }

    #[test]
    fn no_voucher_exceeds_the_balance() {
        assert!(matches!(
            lane(10).start(MicroUsd(11), id(1), NOW),
            Err(LaneError::Insufficient { .. })
        ));
        assert_eq!(
            lane(10).start(MicroUsd(u64::MAX), id(1), NOW).unwrap_err(),
            {
                let lane = lane(10);
                LaneError::Insufficient {
                    channel: lane.channel_id,
                    needed: MicroUsd(u64::MAX),
                    balance: MicroUsd(10),
                }
            }
        );
    }

    #[test]
    fn a_charge_above_the_ceiling_is_refused() {
        let (running, _) = lane(100).start(MicroUsd(30), id(1), NOW).unwrap();
        assert!(matches!(
            running.settled(id(1), MicroUsd(31)),
            Err(LaneError::OverCharged { .. })
        ));
        assert!(matches!(
            running.settled(id(2), MicroUsd(1)),
            Err(LaneError::OtherRequest(_))
        ));
    }

    #[test]
    fn an_idle_lane_believes_no_charge_that_is_not_in_its_books() {
        let idle = lane(100);
        let over = idle.corrected(&domain(), &state(&idle, 1), None);
        assert_eq!(
            over,
            Err(LaneError::OverClaimed {
                claimed: MicroUsd(1),
                possible: MicroUsd(0)
            })
        );
    }

    #[test]
    fn a_lost_request_may_have_cost_at_most_what_was_signed() {
        let (running, _) = lane(100).start(MicroUsd(30), id(1), NOW).unwrap();
        let lost = running.reopened();
        assert!(matches!(lost.state, LaneState::Unresolved(_)));
        let over = lost.corrected(&domain(), &state(&lost, 31), None);
        assert_eq!(
            over,
            Err(LaneError::OverClaimed {
                claimed: MicroUsd(31),
                possible: MicroUsd(30)
            })
        );
        let right = lost.corrected(&domain(), &state(&lost, 30), None).unwrap();
        assert_eq!(
            (right.charged, right.signed_max, right.state),
            (MicroUsd(30), MicroUsd(30), LaneState::Idle)
        );
    }

    #[test]
    fn a_correction_never_charges_the_request_that_it_refuses() {
        let (running, _) = lane(100).start(MicroUsd(30), id(1), NOW).unwrap();
        let greedy = running.corrected(&domain(), &state(&running, 30), None);
        assert_eq!(
            greedy,
            Err(LaneError::OverClaimed {
                claimed: MicroUsd(30),
                possible: MicroUsd(0)
            })
        );
        // After a lost request of 30, a further one of 20 is refused with a correction of at most 30.
        let (again, voucher) = running.reopened().start(MicroUsd(20), id(2), NOW).unwrap();
        assert_eq!(voucher.max_claimable, MicroUsd(20));
        let right = again
            .corrected(&domain(), &state(&again, 12), None)
            .unwrap();
        assert_eq!(
            (right.charged, right.signed_max, right.state),
            (MicroUsd(12), MicroUsd(30), LaneState::Idle)
        );
    }

    #[test]
    fn an_idle_lane_is_chosen_before_an_unresolved_one_and_the_emptier_first() {
        let unresolved = lane(50)
            .start(MicroUsd(1), id(1), NOW)
            .unwrap()
            .0
            .reopened();
        let (small, large) = (lane(60), lane(90));
        assert_eq!(
            choose([&unresolved, &large, &small], MicroUsd(10)),
            Some(&small)
        );
        assert_eq!(
            choose([&unresolved, &large, &small], MicroUsd(70)),
            Some(&large)
        );
        assert_eq!(choose([&unresolved], MicroUsd(10)), Some(&unresolved));
        assert_eq!(choose([&unresolved, &small], MicroUsd(100)), None);
    }
}
