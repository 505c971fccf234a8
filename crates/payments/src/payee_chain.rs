//! What the chain's word does to the books: it replaces what they tell of the chain, a claim that a reorganization took
//! away is due again, a deposit that it took away is submitted again. Decides only; the caller reads and sends.

use assay_protocol::channel::{ChannelConfig, DepositAuthorization, deposit_nonce};
use assay_protocol::{B256, MicroUsd, Timestamp};
use serde::{Deserialize, Serialize};

use crate::payee::{Account, OnChain};

/// How long past an authorization's end a deposit may still turn up: the chain's clock is not ours.
const EXPIRY_SLACK_S: u64 = 120;

/// A channel as the chain has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As the newest block left it.
    pub newest: OnChain,
    /// What was claimed as of the depth that no reorganization reaches.
    pub settled_claims: MicroUsd,
}

impl Account {
    /// The chain says this now.
    #[must_use]
    pub fn seen(&self, seen: &Seen, now: Timestamp) -> Self {
        let mut next = self.clone();
        next.chain = seen.newest;
        next.read_at = now;
        // What is deep enough is in the newest state as well, unless that was read of another fork.
        next.settled_claims = seen.settled_claims.min(seen.newest.claimed);
        if next.unclaimed() == MicroUsd::ZERO {
            next.unclaimed_since = None;
        } else {
            next.unclaimed_since = next.unclaimed_since.or(Some(now));
        }
        next
    }

    /// Whether the chain's word about it can still change what we have to do.
    pub fn is_open(&self) -> bool {
        self.running.is_some() || self.settled_claims < self.charged
    }

    /// Whether a claim of ours could still be taken back by a reorganization.
    pub fn is_settling(&self) -> bool {
        self.settled_claims < self.chain.claimed.min(self.charged)
    }
}

/// The channels to ask the chain about: all that run a request, settle a claim, hold less than was charged or were not
/// asked about for `every_s`; the longest unseen first.
pub fn to_read<'a>(
    accounts: impl IntoIterator<Item = &'a Account>,
    every_s: u64,
    most: usize,
    now: Timestamp,
) -> Vec<B256> {
    let asks = |account: &&Account| {
        let stale = now.0.saturating_sub(account.read_at.0) >= every_s;
        let short = account.claimable() < account.unclaimed();
        let busy = short || account.running.is_some() || account.is_settling();
        account.is_open() && (stale || busy)
    };
    let mut open: Vec<&Account> = accounts.into_iter().filter(asks).collect();
    open.sort_by_key(|account| (account.read_at, account.channel_id));
    open.truncate(most);
    open.iter().map(|account| account.channel_id).collect()
}

/// A deposit that we submit for its payer, kept until no reorganization can take it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingDeposit {
    pub config: ChannelConfig,
    pub channel_id: B256,
    pub amount: MicroUsd,
    pub authorization: DepositAuthorization,
    pub taken_at: Timestamp,
}

impl PendingDeposit {
    /// Its name: the chain takes an authorization of this nonce once.
    pub fn nonce(&self) -> B256 {
        deposit_nonce(self.channel_id, self.authorization.salt)
    }

    /// What to do about it, given whether it is in the newest state and in the one that is deep enough.
    pub fn step(&self, arrived: bool, settled: bool, now: Timestamp) -> DepositStep {
        let end = self.authorization.valid_before.plus_seconds(EXPIRY_SLACK_S);
        match (arrived, settled) {
            (_, true) => DepositStep::Settled,
            (true, false) => DepositStep::Wait,
            (false, false) if now > end => DepositStep::Expired,
            (false, false) => DepositStep::Submit,
        }
    }
}

/// What is to be done about a deposit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepositStep {
    /// Nothing any more.
    Settled,
    /// It is there, and not deep enough yet.
    Wait,
    /// The chain has not got it, and would take it.
    Submit,
    /// The chain has not got it and takes it no more: the payer keeps its money.
    Expired,
}
