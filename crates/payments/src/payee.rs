//! The payee's side of one channel, as a state and the moves on it: what voucher is good, what may be charged, what can
//! be claimed. Decides only; the ledger makes it durable, the node asks the chain.

use assay_protocol::channel::{ChannelConfig, ChannelError, SignedVoucher};
use assay_protocol::{B256, MicroUsd, Timestamp, TokenCount};
use serde::{Deserialize, Serialize};

use crate::payee_records::Served;
use crate::terms::Terms;
use crate::x402::{Amount, ChannelState, Code, Decimal, PaymentRequirements, VoucherState};

/// What the chain says about a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnChain {
    /// All that was deposited, less refunds.
    pub balance: MicroUsd,
    /// What was claimed so far.
    pub claimed: MicroUsd,
    /// When the payer asked for its money back; zero if it did not.
    pub withdraw_requested_at: Timestamp,
    pub refund_nonce: u64,
}

/// A channel to us, as we know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub config: ChannelConfig,
    pub channel_id: B256,
    /// The sum of all charges; never above `voucher`'s maximum.
    pub charged: MicroUsd,
    /// The last voucher that was accepted; it covers every charge.
    pub voucher: SignedVoucher,
    pub chain: OnChain,
    /// When `chain` was read.
    pub read_at: Timestamp,
    pub running: Option<Reservation>,
    /// Since when something is charged but not claimed.
    pub unclaimed_since: Option<Timestamp>,
    /// Of what is claimed, the part that is deep enough in the chain.
    #[serde(default)]
    pub settled_claims: MicroUsd,
    /// What was served here, by our own count.
    #[serde(default)]
    pub served: Served,
    /// The last refund, for a payer that did not hear of it.
    #[serde(default)]
    pub refunded: Option<Refunded>,
}

/// A refund that went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refunded {
    pub amount: MicroUsd,
    pub transaction: B256,
}

/// The right to charge one request on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub channel_id: B256,
    pub request_id: B256,
    /// What the channel had been charged before.
    pub base: MicroUsd,
    /// The most that this request may cost.
    pub ceiling: MicroUsd,
}

impl Reservation {
    /// The channel's total once this request is charged, as the receipt states it.
    pub fn cumulative(&self, charged: MicroUsd) -> Result<MicroUsd, ChargeError> {
        if charged > self.ceiling {
            return Err(ChargeError::AboveCeiling {
                charged,
                ceiling: self.ceiling,
            });
        }
        // Base plus ceiling is a voucher's maximum, which fits.
        Ok(MicroUsd(self.base.0 + charged.0))
    }
}

/// Why a voucher is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the payment is for {field}, not for this provider: pay what the requirements say")]
    NotOurs { field: &'static str, code: Code },
    #[error("the voucher does not hold: {0}")]
    Voucher(ChannelError),
    #[error("the channel holds nothing on the chain: open it with a deposit")]
    NoChannel,
    #[error("the channel's payer has asked for its money back: open another channel")]
    Withdrawing,
    #[error("the channel has a request running: use another lane, or wait for its end")]
    Busy,
    #[error(
        "the request may cost {required}, the payment offers {offered}: pay the amount of the requirements"
    )]
    TooLittle {
        required: MicroUsd,
        offered: MicroUsd,
    },
    #[error(
        "the voucher is for {got} in all, expected {expected}: start from the state given here"
    )]
    WrongBase { expected: MicroUsd, got: MicroUsd },
    #[error("the voucher is for {needed} in all, the channel holds {balance}: top it up")]
    AboveBalance { needed: MicroUsd, balance: MicroUsd },
    #[error("everything in the channel is spent: there is nothing to give back")]
    NothingLeft,
    #[error("{left} can be given back, {amount} is asked: ask for less, or name no amount")]
    RefundAmount { amount: MicroUsd, left: MicroUsd },
}

impl Refusal {
    /// The official word for it.
    pub fn code(&self) -> Code {
        match self {
            Self::NotOurs { code, .. } => *code,
            Self::Voucher(ChannelError::OtherChannel { .. }) => Code::ChannelIdMismatch,
            Self::Voucher(ChannelError::WithdrawDelay(_)) => Code::WithdrawDelayMismatch,
            Self::Voucher(_) => Code::VoucherSignature,
            Self::NoChannel | Self::Withdrawing => Code::ChannelNotFound,
            Self::Busy => Code::ChannelBusy,
            Self::TooLittle { .. } => Code::OtherRequirements,
            Self::WrongBase { .. } => Code::CumulativeAmountMismatch,
            Self::AboveBalance { .. } => Code::CumulativeExceedsBalance,
            Self::NothingLeft => Code::RefundNoBalance,
            Self::RefundAmount { .. } => Code::RefundAmount,
        }
    }
}

/// Why a charge is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChargeError {
    #[error("a charge of {charged} is above the ceiling of {ceiling}")]
    AboveCeiling {
        charged: MicroUsd,
        ceiling: MicroUsd,
    },
    #[error("request {0} is not the one running on its channel")]
    NotRunning(B256),
}

/// A payment as it was presented; nothing of it is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presented {
    pub config: ChannelConfig,
    pub voucher: SignedVoucher,
    /// The amount that the payer accepted for this request.
    pub offered: MicroUsd,
    /// The request's ceiling by our own count.
    pub required: MicroUsd,
    pub request_id: B256,
}

impl Presented {
    /// What must hold whatever the books say: it is our channel, and its payer signed.
    pub fn check(&self, terms: &Terms) -> Result<(), Refusal> {
        let ours = [
            (
                self.config.receiver == terms.receiver,
                "another receiver",
                Code::ReceiverMismatch,
            ),
            (
                self.config.receiver_authorizer == terms.receiver_authorizer,
                "another receiver authorizer",
                Code::ReceiverAuthorizerMismatch,
            ),
            (
                self.config.token == terms.token.token,
                "another token",
                Code::TokenMismatch,
            ),
            (
                self.config.withdraw_delay_s == terms.withdraw_delay_s,
                "another withdraw delay",
                Code::WithdrawDelayMismatch,
            ),
        ];
        for (holds, field, code) in ours {
            if !holds {
                return Err(Refusal::NotOurs { field, code });
            }
        }
        self.config.validate().map_err(Refusal::Voucher)?;
        self.voucher
            .check(&terms.channels, &self.config)
            .map(|_| ())
            .map_err(Refusal::Voucher)
    }
}

/// Accepts a payment and reserves its channel for the request. The base is what we have charged or, for a channel that
/// we do not know, what the chain has paid out.
pub fn accept(
    account: Option<&Account>,
    terms: &Terms,
    presented: &Presented,
    chain: OnChain,
    now: Timestamp,
) -> Result<(Account, Reservation), Refusal> {
    presented.check(terms)?;
    if chain.balance == MicroUsd::ZERO {
        return Err(Refusal::NoChannel);
    }
    if chain.withdraw_requested_at != Timestamp(0) {
        return Err(Refusal::Withdrawing);
    }
    if account.is_some_and(|account| account.running.is_some()) {
        return Err(Refusal::Busy);
    }
    if presented.offered < presented.required {
        return Err(Refusal::TooLittle {
            required: presented.required,
            offered: presented.offered,
        });
    }
    let base = account.map_or(chain.claimed, |account| account.charged.max(chain.claimed));
    let got = presented.voucher.voucher.max_claimable;
    let Ok(expected) = base.checked_add(presented.offered) else {
        let needed = MicroUsd(u64::MAX);
        return Err(Refusal::AboveBalance {
            needed,
            balance: chain.balance,
        });
    };
    if got != expected {
        return Err(Refusal::WrongBase { expected, got });
    }
    if got > chain.balance {
        return Err(Refusal::AboveBalance {
            needed: got,
            balance: chain.balance,
        });
    }
    let channel_id = presented.voucher.voucher.channel_id;
    let reservation = Reservation {
        channel_id,
        request_id: presented.request_id,
        base,
        ceiling: presented.required,
    };
    let next = Account {
        config: presented.config,
        channel_id,
        charged: base,
        voucher: presented.voucher,
        chain,
        // Who passes on what we know already has not asked the chain again.
        read_at: account
            .filter(|account| account.chain == chain)
            .map_or(now, |account| account.read_at),
        running: Some(reservation),
        unclaimed_since: account.and_then(|account| account.unclaimed_since),
        settled_claims: account.map_or(MicroUsd::ZERO, |account| account.settled_claims),
        served: account.map_or_else(Served::default, |account| account.served),
        refunded: account.and_then(|account| account.refunded),
    };
    Ok((next, reservation))
}

impl Account {
    /// Charges the running request for what it was given, and frees the channel.
    pub fn charge(
        &self,
        reservation: &Reservation,
        charged: MicroUsd,
        tokens: (TokenCount, TokenCount),
        now: Timestamp,
    ) -> Result<Self, ChargeError> {
        let mut next = self.charge_proof(reservation, charged, now)?;
        let (prompt, output) = tokens;
        let served = &mut next.served;
        // Counts that only bound what others count: at their end they stop counting.
        served.requests = served.requests.saturating_add(1);
        served.prompt_tokens = served.prompt_tokens.saturating_add(u64::from(prompt.0));
        served.output_tokens = served.output_tokens.saturating_add(u64::from(output.0));
        Ok(next)
    }

    /// Charges a request that paid for the proof of an earlier one: revenue, and no further answer.
    pub fn charge_proof(
        &self,
        reservation: &Reservation,
        charged: MicroUsd,
        now: Timestamp,
    ) -> Result<Self, ChargeError> {
        self.check_running(reservation)?;
        let total = reservation.cumulative(charged)?;
        let mut next = Self {
            charged: total,
            running: None,
            served: Served {
                revenue: MicroUsd(self.served.revenue.0.saturating_add(charged.0)),
                ..self.served
            },
            ..self.clone()
        };
        next.unclaimed_since = next
            .unclaimed_since
            .or((charged > MicroUsd::ZERO).then_some(now));
        Ok(next)
    }

    /// Frees the channel; the request cost nothing.
    pub fn release(&self, reservation: &Reservation) -> Result<Self, ChargeError> {
        self.check_running(reservation)?;
        Ok(Self {
            running: None,
            ..self.clone()
        })
    }

    /// After a restart: a request that was running left no receipt, so it costs nothing.
    pub fn reopened(&self) -> Self {
        Self {
            running: None,
            ..self.clone()
        }
    }

    /// What is charged but not yet claimed.
    pub fn unclaimed(&self) -> MicroUsd {
        MicroUsd(self.charged.0.saturating_sub(self.chain.claimed.0))
    }

    /// Of that, what the channel's money covers.
    pub fn claimable(&self) -> MicroUsd {
        let total = self.charged.min(self.chain.balance);
        MicroUsd(total.0.saturating_sub(self.chain.claimed.0))
    }

    /// Whether the payer has asked for its money back.
    pub fn is_leaving(&self) -> bool {
        self.chain.withdraw_requested_at != Timestamp(0)
    }

    /// The requirements with our state and its proof, for a payer that lost count.
    pub fn corrective(&self, mut requirements: PaymentRequirements) -> PaymentRequirements {
        requirements.extra.channel_state = Some(self.state());
        requirements.extra.voucher_state = Some(VoucherState {
            signed_max_claimable: Amount(self.voucher.voucher.max_claimable),
            signature: self.voucher.signature,
        });
        requirements
    }

    pub fn state(&self) -> ChannelState {
        channel_state(self.channel_id, &self.chain, self.charged)
    }

    fn check_running(&self, reservation: &Reservation) -> Result<(), ChargeError> {
        if self.running.as_ref() == Some(reservation) {
            Ok(())
        } else {
            Err(ChargeError::NotRunning(reservation.request_id))
        }
    }
}

/// A channel's state in x402's words.
pub fn channel_state(channel_id: B256, chain: &OnChain, charged: MicroUsd) -> ChannelState {
    ChannelState {
        channel_id,
        balance: Amount(chain.balance),
        total_claimed: Amount(chain.claimed),
        withdraw_requested_at: chain.withdraw_requested_at.0,
        refund_nonce: Decimal(chain.refund_nonce),
        charged_cumulative_amount: Some(Amount(charged)),
    }
}

/// What is to be sent to give a payer back what it did not spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefundPlan {
    /// Keeps the channel busy meanwhile.
    pub reservation: Reservation,
    /// The total to claim in the same transaction, if not all of it is claimed.
    pub claim: Option<MicroUsd>,
    pub amount: MicroUsd,
    pub nonce: u64,
}

/// Gives back what is neither charged nor reserved: `asked`, or all of it. The voucher proves that the payer asks, and
/// that it agrees with what was charged.
pub fn refund(
    account: Option<&Account>,
    terms: &Terms,
    presented: &Presented,
    asked: Option<MicroUsd>,
    chain: OnChain,
    now: Timestamp,
) -> Result<(Account, RefundPlan), Refusal> {
    presented.check(terms)?;
    if account.is_some_and(|account| account.running.is_some()) {
        return Err(Refusal::Busy);
    }
    let base = account.map_or(chain.claimed, |account| account.charged.max(chain.claimed));
    let got = presented.voucher.voucher.max_claimable;
    if got != base {
        return Err(Refusal::WrongBase {
            expected: base,
            got,
        });
    }
    let left = MicroUsd(chain.balance.0.saturating_sub(base.0));
    if left == MicroUsd::ZERO {
        return Err(Refusal::NothingLeft);
    }
    let amount = asked.unwrap_or(left);
    if amount == MicroUsd::ZERO || amount > left {
        return Err(Refusal::RefundAmount { amount, left });
    }
    let channel_id = presented.voucher.voucher.channel_id;
    let reservation = Reservation {
        channel_id,
        request_id: presented.request_id,
        base,
        ceiling: MicroUsd::ZERO,
    };
    let mut next = account.cloned().unwrap_or_else(|| Account {
        config: presented.config,
        channel_id,
        charged: base,
        voucher: presented.voucher,
        chain,
        read_at: now,
        running: None,
        unclaimed_since: None,
        settled_claims: MicroUsd::ZERO,
        served: Served::default(),
        refunded: None,
    });
    (next.charged, next.chain, next.read_at) = (base, chain, now);
    next.running = Some(reservation);
    let plan = RefundPlan {
        reservation,
        claim: (chain.claimed < base).then_some(base),
        amount,
        nonce: chain.refund_nonce,
    };
    Ok((next, plan))
}
