//! A market rebuilt from its contracts' events alone, and held against what their views say now: whoever
//! keeps a chain's logs needs nothing else to know who has which money. `fold` replays the events; here
//! they are read, and compared.
//!
//! One thing no event tells: a refund that finds nothing left to give moves the channel's refund counter
//! silently. The fold counts the refunds that gave something; the view may be ahead of it.

mod fold;

use std::collections::BTreeMap;

use alloy::eips::BlockNumberOrTag;
use alloy::providers::Provider as _;
use alloy::rpc::types::{Filter, Log};
use assay_protocol::channel::ChannelConfig;
use assay_protocol::{Address, B256, Service, ServiceRecord, Timestamp};

use crate::abi::{IMulticall3, IPayoutVault, IRegistry, IScoreboard};
use crate::embedded::MULTICALL3;
use crate::error::{ChainError, from_rpc, micro_usd};
use crate::reader::{ChannelState, Market, PendingPayout, Provider, ReceiverState};
use crate::service::Score;

/// Vaults whose events are searched for at once.
const VAULTS_AT_ONCE: usize = 64;

/// What the events up to a block say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The last block that was read.
    pub block: u64,
    /// The channels that pay this market's vaults.
    pub channels: BTreeMap<B256, (ChannelConfig, ChannelState)>,
    /// By vault.
    pub receivers: BTreeMap<Address, ReceiverState>,
    /// By owner.
    pub providers: BTreeMap<Address, Provider>,
    /// By owner.
    pub vaults: BTreeMap<Address, Vault>,
    /// By owner.
    pub scores: BTreeMap<Address, Score>,
    /// The last record of each channel.
    pub records: BTreeMap<B256, Service>,
}

/// A vault's money, as its events tell of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vault {
    /// What came in, and when its window ends.
    pub received: Vec<(u128, Timestamp)>,
    pub released: u128,
    /// Paid out of holds.
    pub awarded: u128,
    /// By dispute.
    pub holds: BTreeMap<B256, u128>,
}

/// Where the events and a view do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub what: String,
    pub events: String,
    pub view: String,
}

impl Market {
    /// Rebuilds the market from the chain's logs.
    pub async fn history(&self) -> Result<History, ChainError> {
        let head = self.chain.block_number().await?;
        let d = self.deployment();
        let mut history = History {
            block: head,
            ..History::default()
        };
        let least = u128::from(d.min_stake.0);
        for log in self.events(Filter::new().address(d.registry), head).await? {
            fold::registry(&mut history, &log, least)?;
        }
        let vaults: Vec<Address> = history.providers.values().map(|p| p.vault).collect();
        let channels = Filter::new().address(d.channels);
        for log in self.events(channels, head).await? {
            fold::channels(
                &mut history,
                &log,
                (&self.channel_domain(), d.token, &vaults),
            )?;
        }
        for some in vaults.chunks(VAULTS_AT_ONCE) {
            let filter = Filter::new().address(some.to_vec());
            for log in self.events(filter, head).await? {
                fold::vault(&mut history, &log);
            }
        }
        if !d.scoreboard.is_zero() {
            for log in self
                .events(Filter::new().address(d.scoreboard), head)
                .await?
            {
                fold::scoreboard(&mut history, &log)?;
            }
        }
        Ok(history)
    }

    /// Holds a history against the views of its last block. A node that keeps the present state only must
    /// not have mined since.
    pub async fn differences(&self, history: &History) -> Result<Vec<Difference>, ChainError> {
        let at = BlockNumberOrTag::Number(history.block);
        let mut found = Differences(Vec::new());
        for (id, (_, state)) in &history.channels {
            let mut view = self.channel_in(*id, at).await?;
            // Events cannot tell of refunds of nothing.
            if view.refund_nonce >= state.refund_nonce {
                view.refund_nonce = state.refund_nonce;
            }
            found.compare(format!("channel {id}"), state, &view);
        }
        for (vault, state) in &history.receivers {
            let view = self.receiver_in(*vault, at).await?;
            found.compare(format!("receiver {vault}"), state, &view);
        }
        let now = self.time_of(history.block).await?;
        for (owner, provider) in &history.providers {
            let call = IRegistry::getProviderCall { provider: *owner };
            let to = self.deployment().registry;
            let view = self.chain.view_at("provider", to, call, at).await?;
            found.compare(
                format!("provider {owner}"),
                provider,
                &Provider::from_abi(view)?,
            );

            let receiver = history.receivers.get(&provider.vault).copied();
            let vault = history.vaults.get(owner).cloned().unwrap_or_default();
            let state = vault.status(receiver.unwrap_or_default(), now)?;
            let call = IPayoutVault::statusCall {};
            let view = self
                .chain
                .view_at("payout", provider.vault, call, at)
                .await?;
            let mut view = PendingPayout::from_abi(&view)?;
            // What lies in the vault unnoticed would start its window now, whenever now is.
            let unnoticed = vault.unnoticed(receiver.unwrap_or_default());
            if unnoticed > 0 && state.next_release_at.is_none() {
                view.next_release_at = None;
            }
            found.compare(format!("vault of {owner}"), &state, &view);
        }
        if self.deployment().scoreboard.is_zero() {
            return Ok(found.0);
        }
        for (owner, score) in &history.scores {
            let view = self.score_in(*owner, at).await?;
            found.compare(format!("score of {owner}"), score, &view);
        }
        for (channel, service) in &history.records {
            let record = ServiceRecord {
                channel_id: *channel,
                service: *service,
            };
            let call = IScoreboard::lastOfCall {
                channelId: *channel,
            };
            let to = self.deployment().scoreboard;
            let view = self.chain.view_at("record", to, call, at).await?;
            found.compare(
                format!("record of channel {channel}"),
                &record.struct_hash(),
                &view,
            );
        }
        Ok(found.0)
    }

    async fn events(&self, filter: Filter, to: u64) -> Result<Vec<Log>, ChainError> {
        let from = self.deployment().deployed_block.unwrap_or(0);
        let mut all = Vec::new();
        let take = |logs: Vec<Log>, _| all.extend(logs);
        self.chain.search("events", &filter, from, to, take).await?;
        Ok(all)
    }

    /// The time that a view of this block sees.
    async fn time_of(&self, block: u64) -> Result<Timestamp, ChainError> {
        // Not always the block's own: an embedded chain's views see the present.
        let call = IMulticall3::getCurrentBlockTimestampCall {};
        let at = BlockNumberOrTag::Number(block);
        match self.chain.view_at("time", MULTICALL3, call, at).await {
            Ok(time) => return Ok(Timestamp(time.saturating_to())),
            Err(ChainError::NoContract { .. }) => {}
            Err(error) => return Err(error),
        }
        let found = self.chain.provider.get_block_by_number(block.into()).await;
        let found = found.map_err(|e| from_rpc("block", e))?;
        found
            .map(|block| Timestamp(block.header.timestamp))
            .ok_or(ChainError::BadAnswer {
                what: "block",
                why: "null".into(),
            })
    }
}

impl Vault {
    /// Settled to the vault, and not noticed by it yet.
    fn unnoticed(&self, receiver: ReceiverState) -> u128 {
        let received: u128 = self.received.iter().map(|(amount, _)| amount).sum();
        u128::from(receiver.total_settled.0).saturating_sub(received)
    }

    /// What `PayoutVault.status` says, from the events alone.
    fn status(&self, receiver: ReceiverState, now: Timestamp) -> Result<PendingPayout, ChainError> {
        let received: u128 = self.received.iter().map(|(amount, _)| amount).sum();
        let open = self.received.iter().filter(|(_, at)| *at > now);
        let waiting: u128 = open.clone().map(|(amount, _)| amount).sum();
        // Awards are paid ahead of what matures.
        let left = self.released + self.awarded;
        let ready = (received - waiting).saturating_sub(left);
        let total = received.saturating_sub(left);
        let held: u128 = self.holds.values().sum();
        let releasable = ready.min(total.saturating_sub(held));
        let settled = receiver.total_settled.0;
        let money = |amount: u128| micro_usd(alloy_primitives::U256::from(amount));
        Ok(PendingPayout {
            unsettled: money(u128::from(receiver.total_claimed.0.saturating_sub(settled)))?,
            waiting: money(total - releasable - held + self.unnoticed(receiver))?,
            releasable: money(releasable)?,
            held: money(held)?,
            next_release_at: open.map(|(_, at)| *at).min(),
        })
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, what: String, events: &T, view: &T) {
        if events != view {
            self.0.push(Difference {
                what,
                events: format!("{events:?}"),
                view: format!("{view:?}"),
            });
        }
    }
}
