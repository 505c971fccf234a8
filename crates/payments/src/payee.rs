//! The payee's side of one channel, as a state and the moves on it: what voucher is good, what may be charged, what can
//! be claimed. Decides only; the ledger makes it durable, the node asks the chain.

use assay_protocol::channel::{ChannelConfig, ChannelError, SignedVoucher};
use assay_protocol::{B256, MicroUsd, Timestamp};
use serde::{Deserialize, Serialize};

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
        read_at: now,
        running: Some(reservation),
        unclaimed_since: account.and_then(|account| account.unclaimed_since),
    };
    Ok((next, reservation))
}

impl Account {
    /// Charges the running request and frees the channel.
    pub fn charge(
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

    /// The chain has paid this much out in all.
    pub fn claimed(&self, total: MicroUsd) -> Self {
        let mut next = self.clone();
        next.chain.claimed = next.chain.claimed.max(total);
        if next.unclaimed() == MicroUsd::ZERO {
            next.unclaimed_since = None;
        }
        next
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

/// When it is worth a transaction to claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPolicy {
    /// Claim as soon as this much is open in all.
    pub value: MicroUsd,
    /// Claim whatever is open for longer than this.
    pub age_s: u64,
    /// Channels in one transaction.
    pub batch_max: usize,
}

/// The accounts to claim from now, the largest claims first; none if waiting is cheaper.
pub fn due<'a>(
    accounts: impl IntoIterator<Item = &'a Account>,
    policy: &ClaimPolicy,
    now: Timestamp,
) -> Vec<&'a Account> {
    let mut open: Vec<&Account> = accounts
        .into_iter()
        .filter(|account| account.unclaimed() > MicroUsd::ZERO)
        .collect();
    let value = open.iter().fold(0u64, |sum, account| {
        sum.saturating_add(account.unclaimed().0)
    });
    let aged = |account: &&Account| {
        account
            .unclaimed_since
            .is_some_and(|since| now.0.saturating_sub(since.0) >= policy.age_s)
    };
    // A payer who withdraws would take unclaimed money along.
    let leaving = |account: &&Account| account.chain.withdraw_requested_at != Timestamp(0);
    if value < policy.value.0 && !open.iter().any(aged) && !open.iter().any(leaving) {
        return Vec::new();
    }
    open.sort_by_key(|account| std::cmp::Reverse((account.unclaimed(), account.channel_id)));
    open.truncate(policy.batch_max);
    open
}
