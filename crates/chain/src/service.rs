//! Service on the scoreboard: what is counted of a provider, and posting what payers and providers
//! signed. Counts nothing itself.

use alloy::eips::BlockNumberOrTag;
use alloy::rpc::types::{Filter, Log};
use alloy_primitives::U256;
use alloy_sol_types::{SolCall, SolEvent};
use assay_protocol::channel::ChannelConfig;
use assay_protocol::{
    Address, B256, Histogram, MicroUsd, Service, ServiceRecord, Signature, Signed, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::abi::{IRegistry, IReputationAdapter, IScoreboard};
use crate::error::ChainError;
use crate::keys::Key;
use crate::reader::Market;
use crate::sender::{abi_config, bytes};
use crate::transact::Mined;

/// What is counted of a provider, and what the registry says of its honesty. All zero for a stranger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Score {
    /// Of channels that paid so much.
    pub revenue: MicroUsd,
    /// The part of it that failures spoiled: the sum over channels of revenue × failures / (requests +
    /// failures), each rounded down.
    pub weighted_failures: MicroUsd,
    pub prompt_tokens: u128,
    pub output_tokens: u128,
    pub requests: u64,
    /// Failures that the provider signed for.
    pub failures: u64,
    /// Failures that payers reported alone. Anybody may, for nothing: trust `weighted_failures`.
    pub reported: u64,
    /// Records that were posted.
    pub records: u64,
    pub ttft: Histogram,
    pub speed: Histogram,
    pub convictions: u32,
    /// Zero where it is in no jail.
    pub jailed_until: Timestamp,
}

impl Score {
    /// The part of the revenue that no failure spoiled, in millionths, rounded down; none where nothing was paid.
    pub fn success_ppm(&self) -> Option<u32> {
        let revenue = u128::from(self.revenue.0);
        let good = revenue.saturating_sub(u128::from(self.weighted_failures.0));
        // At most a million.
        (revenue > 0).then(|| (good * 1_000_000 / revenue) as u32)
    }
}

/// A record to post: its channel, the payer's word, and what was posted before it (all zero for the first).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEntry {
    pub config: ChannelConfig,
    pub record: Signed<ServiceRecord>,
    pub previous: ServiceRecord,
}

/// Records of one provider's channels, as they are posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePost {
    pub provider: Address,
    pub entries: Vec<ServiceEntry>,
    /// The offer key's, over the batch of the records in this order. None where payers speak alone: then
    /// nothing but failures may have changed.
    pub signature: Option<Signature>,
}

impl ServicePost {
    pub(crate) fn call(&self) -> Result<IScoreboard::postCall, ChainError> {
        let entry = |entry: &ServiceEntry| -> Result<IScoreboard::Entry, ChainError> {
            Ok(IScoreboard::Entry {
                channel: abi_config(&entry.config)?,
                record: abi_record(&entry.record.body),
                previous: abi_record(&entry.previous),
                payerSignature: bytes(&entry.record.signature),
            })
        };
        Ok(IScoreboard::postCall {
            provider: self.provider,
            entries: self.entries.iter().map(entry).collect::<Result<_, _>>()?,
            providerSignature: self.signature.as_ref().map(bytes).unwrap_or_default(),
        })
    }
}

impl Market {
    /// What is counted of a provider.
    pub async fn score(&self, provider: Address) -> Result<Score, ChainError> {
        self.score_in(provider, BlockNumberOrTag::Latest).await
    }

    pub(crate) async fn score_in(
        &self,
        provider: Address,
        block: BlockNumberOrTag,
    ) -> Result<Score, ChainError> {
        let to = self.scoreboard()?;
        let call = IScoreboard::scoreOfCall { provider };
        let told = self.chain.view_at("score", to, call, block).await?;
        let totals = told.totals;
        Ok(Score {
            revenue: saturated(totals.revenue),
            weighted_failures: saturated(totals.weightedFailures),
            prompt_tokens: totals.promptTokens,
            output_tokens: totals.outputTokens,
            requests: totals.requests,
            failures: totals.failures,
            reported: totals.reported,
            records: totals.records,
            ttft: Histogram::from_word(totals.ttft),
            speed: Histogram::from_word(totals.speed),
            convictions: told.convictions,
            jailed_until: Timestamp(told.jailedUntil),
        })
    }

    /// The struct hash of the record that was posted last for this channel; zero before the first.
    pub async fn posted_service(&self, channel_id: B256) -> Result<B256, ChainError> {
        let to = self.scoreboard()?;
        let call = IScoreboard::lastOfCall {
            channelId: channel_id,
        };
        self.chain.view("posted record", to, call).await
    }

    /// The record that was posted last for this channel, from its event; None before the first. Searches the chain from
    /// the market's start: where the record is likely known, compare [`Market::posted_service`] first.
    pub async fn posted_record(
        &self,
        channel_id: B256,
    ) -> Result<Option<ServiceRecord>, ChainError> {
        let filter = Filter::new()
            .address(self.scoreboard()?)
            .event_signature(IScoreboard::Posted::SIGNATURE_HASH)
            .topic2(channel_id);
        let from = self.deployment().deployed_block.unwrap_or(0);
        let head = self.chain.block_number().await?;
        let mut last = None;
        let take = |logs: Vec<Log>, _| {
            for log in logs {
                if let Ok(posted) = IScoreboard::Posted::decode_log(&log.inner) {
                    last = Some(from_abi_record(&posted.data.record));
                }
            }
        };
        let search = self
            .chain
            .search("posted record", &filter, from, head, take);
        search.await?;
        Ok(last)
    }

    /// Posts records: all or none. Anybody may send it.
    pub async fn post_service(&self, key: &Key, post: &ServicePost) -> Result<Mined, ChainError> {
        let to = self.scoreboard()?;
        let input = post.call()?.abi_encode();
        self.chain.send("records", key, to, input).await
    }

    /// Convictions of a provider, and until when it is in jail (zero: it is not).
    pub async fn convictions(&self, provider: Address) -> Result<(u32, Timestamp), ChainError> {
        let to = self.deployment().registry;
        let convictions = IRegistry::convictionsOfCall { provider };
        let jailed = IRegistry::jailedUntilCall { provider };
        let (convictions, jailed) = tokio::try_join!(
            self.chain.view("convictions", to, convictions),
            self.chain.view("jail", to, jailed),
        )?;
        Ok((convictions, Timestamp(jailed)))
    }

    /// Leaves jail once its time is over, with the least stake in place.
    pub async fn release_from_jail(&self, owner: &Key) -> Result<Mined, ChainError> {
        let to = self.deployment().registry;
        let input = IRegistry::releaseCall {}.abi_encode();
        self.chain.send("leave jail", owner, to, input).await
    }

    /// Names the ERC-8004 agent that the owner's score is published about; the owner must own it.
    pub async fn link_agent(&self, owner: &Key, agent_id: U256) -> Result<Mined, ChainError> {
        let input = IReputationAdapter::linkCall { agentId: agent_id }.abi_encode();
        let to = self.adapter()?;
        self.chain.send("agent", owner, to, input).await
    }

    /// Writes a provider's score into the chain's ERC-8004 registry. Anybody may, once a period.
    pub async fn publish_score(&self, key: &Key, provider: Address) -> Result<Mined, ChainError> {
        let input = IReputationAdapter::publishCall { provider }.abi_encode();
        let to = self.adapter()?;
        self.chain.send("publish", key, to, input).await
    }

    fn adapter(&self) -> Result<Address, ChainError> {
        let adapter = self.deployment().reputation_adapter;
        if adapter.is_zero() {
            return Err(ChainError::NoAdapter);
        }
        Ok(adapter)
    }

    pub(crate) fn scoreboard(&self) -> Result<Address, ChainError> {
        let scoreboard = self.deployment().scoreboard;
        if scoreboard.is_zero() {
            return Err(ChainError::NoScoreboard);
        }
        Ok(scoreboard)
    }
}

pub(crate) fn abi_record(record: &ServiceRecord) -> IScoreboard::ServiceRecord {
    let service = &record.service;
    IScoreboard::ServiceRecord {
        channelId: record.channel_id,
        revenue: service.revenue.0,
        promptTokens: service.prompt_tokens,
        outputTokens: service.output_tokens,
        requests: service.requests,
        failures: service.failures,
        ttft: service.ttft.word(),
        speed: service.speed.word(),
    }
}

pub(crate) fn from_abi_record(record: &IScoreboard::ServiceRecord) -> ServiceRecord {
    ServiceRecord {
        channel_id: record.channelId,
        service: Service {
            revenue: MicroUsd(record.revenue),
            prompt_tokens: record.promptTokens,
            output_tokens: record.outputTokens,
            requests: record.requests,
            failures: record.failures,
            ttft: Histogram::from_word(record.ttft),
            speed: Histogram::from_word(record.speed),
        },
    }
}

/// A provider that pays itself round and round can count further than there is money.
fn saturated(amount: u128) -> MicroUsd {
    MicroUsd(u64::try_from(amount).unwrap_or(u64::MAX))
}
