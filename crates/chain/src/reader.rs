//! What the contracts say, as the market's nouns. Reads only; sends nothing.

use std::sync::Arc;

use alloy::eips::BlockNumberOrTag;
use alloy::rpc::types::{Filter, Log};
use alloy_primitives::{U256, aliases::U40};
use alloy_sol_types::SolEvent;
use assay_protocol::channel::{ChannelConfig, ChannelDomain, ChannelError, TokenDomain};
use assay_protocol::{Address, B256, Domain, MicroUsd, ModelId, Timestamp};
use tokio::sync::Mutex;

use crate::abi::{IChannels, IPayoutVault, IRegistry, ITestDollar};
use crate::connect::Chain;
use crate::deployment::Deployment;
use crate::dispute::Events;
use crate::error::{ChainError, micro_usd};

/// Providers asked for in one call.
const PAGE: u64 = 64;
/// Providers read in all: a registry beyond this is read in part, and a warning says so.
const PROVIDERS_MAX: u64 = 16_384;

/// One deployment's contracts on one chain.
#[derive(Debug, Clone)]
pub struct Market {
    pub(crate) chain: Chain,
    deployment: Arc<Deployment>,
    /// What was read of the disputes' events; clones share it.
    pub(crate) events: Arc<Mutex<Events>>,
}

/// A provider as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Its name everywhere: the (cold) owner's address.
    pub address: Address,
    /// Where its channels pay to.
    pub vault: Address,
    /// The (hot) key that signs its offers and receipts.
    pub offer_key: Address,
    /// Where released money goes.
    pub payout: Address,
    pub endpoint: String,
    pub models: Vec<ModelId>,
    pub stake: MicroUsd,
    pub unbonding: MicroUsd,
    pub unbonding_ready_at: Timestamp,
    /// Its stake is at least the least.
    pub active: bool,
}

/// A channel's money.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelState {
    /// All that was deposited and not given back; what is claimed is a part of it.
    pub balance: MicroUsd,
    pub total_claimed: MicroUsd,
    pub withdrawal: Option<Withdrawal>,
    pub refund_nonce: u64,
}

/// A payer's request to have unclaimed money back, in its delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    pub amount: MicroUsd,
    pub initiated_at: Timestamp,
}

/// What a receiver's channels owe it and have paid, in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverState {
    pub total_claimed: MicroUsd,
    pub total_settled: MicroUsd,
}

/// A provider's money on its way, from claimed to its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingPayout {
    /// Claimed from channels, not yet moved into the vault.
    pub unsettled: MicroUsd,
    /// In the vault, within its challenge window.
    pub waiting: MicroUsd,
    /// Out of its window: `release` pays it.
    pub releasable: MicroUsd,
    /// Held by disputes.
    pub held: MicroUsd,
    /// When the next part of `waiting` becomes releasable.
    pub next_release_at: Option<Timestamp>,
}

impl Chain {
    /// The market at these addresses; refuses another chain's, and addresses without code.
    pub async fn market(&self, deployment: Deployment) -> Result<Market, ChainError> {
        if deployment.chain_id != self.chain_id() {
            return Err(ChainError::OtherChain {
                expected: deployment.chain_id,
                got: self.chain_id(),
            });
        }
        for (what, address) in [
            ("token", deployment.token),
            ("channels", deployment.channels),
            ("collector", deployment.collector),
            ("registry", deployment.registry),
        ] {
            if self.code(address).await?.is_empty() {
                return Err(ChainError::NoContract { what, address });
            }
        }
        Ok(Market {
            chain: self.clone(),
            deployment: Arc::new(deployment),
            events: Arc::default(),
        })
    }
}

impl Market {
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Where receipts and offers are signed for.
    pub fn domain(&self) -> Domain {
        self.deployment.domain()
    }

    /// Where vouchers, claims and refunds are signed for.
    pub fn channel_domain(&self) -> ChannelDomain {
        self.deployment.channel_domain()
    }

    pub fn token_domain(&self) -> TokenDomain {
        self.deployment.token_domain()
    }

    /// Every provider whose stake is at least the least.
    pub async fn providers(&self) -> Result<Vec<Provider>, ChainError> {
        let mut providers = Vec::new();
        loop {
            let start = providers.len() as u64;
            if start >= PROVIDERS_MAX {
                tracing::warn!(read = start, "more providers than are read");
                return Ok(providers);
            }
            let page = IRegistry::activePageCall {
                start: U256::from(start),
                count: U256::from(PAGE),
            };
            let page = self
                .chain
                .view("providers", self.deployment.registry, page)
                .await?;
            let last = (page.len() as u64) < PAGE;
            for provider in page {
                providers.push(Provider::from_abi(provider)?);
            }
            if last {
                return Ok(providers);
            }
        }
    }

    /// One provider, active or not; None if it never registered.
    pub async fn provider(&self, address: Address) -> Result<Option<Provider>, ChainError> {
        let call = IRegistry::getProviderCall { provider: address };
        let provider = self
            .chain
            .view("provider", self.deployment.registry, call)
            .await?;
        if provider.offerKey.is_zero() {
            return Ok(None);
        }
        Provider::from_abi(provider).map(Some)
    }

    /// The vault of a provider, registered or not: the address follows from the provider's.
    pub async fn vault_of(&self, provider: Address) -> Result<Address, ChainError> {
        let call = IRegistry::vaultOfCall { provider };
        self.chain
            .view("vault", self.deployment.registry, call)
            .await
    }

    /// Did this key sign for this provider at that time? Retired keys keep counting for what they
    /// signed while they were in use.
    pub async fn is_offer_key(
        &self,
        provider: Address,
        key: Address,
        at: Timestamp,
    ) -> Result<bool, ChainError> {
        let time = at.0;
        let call = IRegistry::isOfferKeyCall {
            provider,
            key,
            time,
        };
        self.chain
            .view("offer key", self.deployment.registry, call)
            .await
    }

    /// A channel's id under this market's contract.
    pub fn channel_id(&self, config: &ChannelConfig) -> Result<B256, ChannelError> {
        config.id(&self.channel_domain())
    }

    /// A channel's money; all zero if it was never opened.
    pub async fn channel(&self, channel_id: B256) -> Result<ChannelState, ChainError> {
        self.channel_in(channel_id, BlockNumberOrTag::Latest).await
    }

    /// A channel's money as the block that lies `depth` below the newest left it: what a reorganization
    /// of no more than `depth` blocks cannot change. Zero is the newest.
    pub async fn channel_at(
        &self,
        channel_id: B256,
        depth: u64,
    ) -> Result<ChannelState, ChainError> {
        if depth == 0 {
            return self.channel(channel_id).await;
        }
        let Some(block) = self.chain.block_number().await?.checked_sub(depth) else {
            // The chain is younger than that: nothing is sure yet.
            return Ok(ChannelState::default());
        };
        match self.channel_in(channel_id, block.into()).await {
            Err(ChainError::NoContract { .. }) => Ok(ChannelState::default()),
            told => told,
        }
    }

    pub(crate) async fn channel_in(
        &self,
        channel_id: B256,
        block: BlockNumberOrTag,
    ) -> Result<ChannelState, ChainError> {
        let at = self.deployment.channels;
        let state = IChannels::channelsCall {
            channelId: channel_id,
        };
        let withdrawal = IChannels::pendingWithdrawalsCall {
            channelId: channel_id,
        };
        let nonce = IChannels::refundNonceCall {
            channelId: channel_id,
        };
        let (state, withdrawal, nonce) = tokio::try_join!(
            self.chain.view_at("channel", at, state, block),
            self.chain
                .view_at("channel's withdrawal", at, withdrawal, block),
            self.chain
                .view_at("channel's refund nonce", at, nonce, block),
        )?;
        let initiated_at = seconds(withdrawal.initiatedAt);
        let withdrawal = if initiated_at == Timestamp(0) {
            None
        } else {
            Some(Withdrawal {
                amount: micro_usd(U256::from(withdrawal.amount))?,
                initiated_at,
            })
        };
        Ok(ChannelState {
            balance: micro_usd(U256::from(state.balance))?,
            total_claimed: micro_usd(U256::from(state.totalClaimed))?,
            withdrawal,
            refund_nonce: u64::try_from(nonce).map_err(|_| ChainError::BadAnswer {
                what: "channel's refund nonce",
                why: format!("{nonce} is no count"),
            })?,
        })
    }

    /// Every channel that this payer ever opened in the market's token, with its present state: what is left
    /// to find where a ledger is lost. Channels that pay somebody outside this market are among them.
    pub async fn channels_of_payer(
        &self,
        payer: Address,
    ) -> Result<Vec<(ChannelConfig, ChannelState)>, ChainError> {
        let head = self.chain.block_number().await?;
        let filter = Filter::new()
            .address(self.deployment.channels)
            .event_signature(IChannels::ChannelCreated::SIGNATURE_HASH);
        let from = self.deployment.deployed_block.unwrap_or(0);
        let mut configs: Vec<ChannelConfig> = Vec::new();
        let take = |logs: Vec<Log>, _| {
            for log in logs {
                let Ok(created) = IChannels::ChannelCreated::decode_log(&log.inner) else {
                    continue;
                };
                let config = from_abi_config(&created.data.config);
                let ours = config.payer == payer && config.token == self.deployment.token;
                // A channel that was emptied and filled again is created twice.
                if ours && !configs.contains(&config) {
                    configs.push(config);
                }
            }
        };
        self.chain
            .search("channels", &filter, from, head, take)
            .await?;
        let mut channels = Vec::with_capacity(configs.len());
        for config in configs {
            let id = self.channel_id(&config)?;
            channels.push((config, self.channel(id).await?));
        }
        Ok(channels)
    }

    /// What the channels owe and have paid to a receiver.
    pub async fn receiver(&self, receiver: Address) -> Result<ReceiverState, ChainError> {
        self.receiver_in(receiver, BlockNumberOrTag::Latest).await
    }

    pub(crate) async fn receiver_in(
        &self,
        receiver: Address,
        block: BlockNumberOrTag,
    ) -> Result<ReceiverState, ChainError> {
        let call = IChannels::receiversCall {
            receiver,
            token: self.deployment.token,
        };
        let state = self
            .chain
            .view_at("receiver", self.deployment.channels, call, block)
            .await?;
        Ok(ReceiverState {
            total_claimed: micro_usd(U256::from(state.totalClaimed))?,
            total_settled: micro_usd(U256::from(state.totalSettled))?,
        })
    }

    /// An account's stablecoins.
    pub async fn balance(&self, account: Address) -> Result<MicroUsd, ChainError> {
        let call = ITestDollar::balanceOfCall { account };
        let balance = self
            .chain
            .view("balance", self.deployment.token, call)
            .await?;
        micro_usd(balance)
    }

    /// A provider's money on its way. Zero for one that never registered.
    pub async fn pending_payout(&self, provider: Address) -> Result<PendingPayout, ChainError> {
        let Some(provider) = self.provider(provider).await? else {
            return Ok(PendingPayout::default());
        };
        let status = self
            .chain
            .view("payout", provider.vault, IPayoutVault::statusCall {})
            .await?;
        PendingPayout::from_abi(&status)
    }
}

impl PendingPayout {
    pub(crate) fn from_abi(status: &IPayoutVault::statusReturn) -> Result<Self, ChainError> {
        Ok(PendingPayout {
            unsettled: micro_usd(U256::from(status.unsettled))?,
            waiting: micro_usd(U256::from(status.waiting))?,
            releasable: micro_usd(U256::from(status.releasable))?,
            held: micro_usd(U256::from(status.held))?,
            next_release_at: (status.nextReleaseAt != 0).then_some(Timestamp(status.nextReleaseAt)),
        })
    }
}

impl Provider {
    pub(crate) fn from_abi(provider: IRegistry::Provider) -> Result<Provider, ChainError> {
        Ok(Provider {
            address: provider.provider,
            vault: provider.vault,
            offer_key: provider.offerKey,
            payout: provider.payout,
            endpoint: provider.endpoint,
            models: provider.models,
            stake: micro_usd(U256::from(provider.stake))?,
            unbonding: micro_usd(U256::from(provider.unbonding))?,
            unbonding_ready_at: Timestamp(provider.unbondingReadyAt),
            active: provider.active,
        })
    }
}

pub(crate) fn from_abi_config(config: &IChannels::ChannelConfig) -> ChannelConfig {
    ChannelConfig {
        payer: config.payer,
        payer_authorizer: config.payerAuthorizer,
        receiver: config.receiver,
        receiver_authorizer: config.receiverAuthorizer,
        token: config.token,
        withdraw_delay_s: config.withdrawDelay.to(),
        salt: config.salt,
    }
}

fn seconds(time: U40) -> Timestamp {
    Timestamp(time.to::<u64>())
}
