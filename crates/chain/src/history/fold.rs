//! One event after another into a [`History`]. Pure: reads no chain. Every event is taken as the contract
//! that emitted it means it; what a contract cannot have emitted is an error, never a panic.

use alloy::rpc::types::Log;
use alloy_primitives::U256;
use alloy_sol_types::SolEventInterface;
use assay_protocol::channel::ChannelDomain;
use assay_protocol::{Address, MicroUsd, Service, Timestamp};

use super::History;
use crate::abi::IChannels::IChannelsEvents as Channels;
use crate::abi::IPayoutVault::IPayoutVaultEvents as VaultEvents;
use crate::abi::IRegistry::IRegistryEvents as Registry;
use crate::abi::IScoreboard::IScoreboardEvents as Board;
use crate::error::{ChainError, micro_usd};
use crate::reader::{ChannelState, Provider, Withdrawal, from_abi_config};
use crate::service::{Score, from_abi_record};

/// The channels' domain, the market's token and its vaults.
pub(super) type Market<'m> = (&'m ChannelDomain, Address, &'m [Address]);

pub(super) fn registry(history: &mut History, log: &Log, least: u128) -> Result<(), ChainError> {
    let data = &log.inner.data;
    let Ok(event) = Registry::decode_raw_log(data.topics(), &data.data) else {
        return Ok(());
    };
    if let Registry::Registered(e) = &event {
        let provider = Provider {
            address: e.provider,
            vault: e.vault,
            offer_key: Address::ZERO,
            payout: Address::ZERO,
            endpoint: String::new(),
            models: Vec::new(),
            stake: MicroUsd::ZERO,
            unbonding: MicroUsd::ZERO,
            unbonding_ready_at: Timestamp(0),
            active: false,
        };
        history.providers.insert(e.provider, provider);
        history.scores.insert(e.provider, Score::default());
        return Ok(());
    }
    let owner = match &event {
        Registry::Registered(e) => e.provider,
        Registry::EndpointSet(e) => e.provider,
        Registry::ModelsSet(e) => e.provider,
        Registry::PayoutSet(e) => e.provider,
        Registry::OfferKeyAdded(e) => e.provider,
        Registry::OfferKeyRetired(e) => e.provider,
        Registry::Staked(e) => e.provider,
        Registry::UnbondingStarted(e) => e.provider,
        Registry::StakeWithdrawn(e) => e.provider,
        Registry::Slashed(e) => e.provider,
        Registry::Jailed(e) => e.provider,
        Registry::ReleasedFromJail(e) => e.provider,
    };
    let (Some(provider), Some(score)) = (
        history.providers.get_mut(&owner),
        history.scores.get_mut(&owner),
    ) else {
        return Err(impossible("an event of a provider that never registered"));
    };
    match event {
        Registry::Registered(_) | Registry::OfferKeyRetired(_) => {}
        Registry::EndpointSet(e) => provider.endpoint = e.endpoint,
        Registry::ModelsSet(e) => provider.models = e.models,
        Registry::PayoutSet(e) => provider.payout = e.payout,
        Registry::OfferKeyAdded(e) => provider.offer_key = e.key,
        Registry::Staked(e) => provider.stake = money(e.stake)?,
        Registry::UnbondingStarted(e) => {
            provider.stake = less(provider.stake, e.amount)?;
            provider.unbonding = money(e.unbonding)?;
            provider.unbonding_ready_at = Timestamp(e.readyAt);
        }
        Registry::StakeWithdrawn(_) => {
            provider.unbonding = MicroUsd::ZERO;
            provider.unbonding_ready_at = Timestamp(0);
        }
        // Bonded stake goes first.
        Registry::Slashed(e) => {
            let bonded = e.amount.min(u128::from(provider.stake.0));
            provider.stake = less(provider.stake, bonded)?;
            provider.unbonding = less(provider.unbonding, e.amount - bonded)?;
        }
        Registry::Jailed(e) => {
            score.convictions = e.convictions;
            score.jailed_until = Timestamp(e.until);
        }
        Registry::ReleasedFromJail(_) => score.jailed_until = Timestamp(0),
    }
    provider.active = !provider.offer_key.is_zero()
        && u128::from(provider.stake.0) >= least
        && score.jailed_until == Timestamp(0);
    Ok(())
}

pub(super) fn channels(
    history: &mut History,
    log: &Log,
    (domain, token, vaults): Market<'_>,
) -> Result<(), ChainError> {
    let data = &log.inner.data;
    // The canonical contract serves others too, and may say more than we know.
    let Ok(event) = Channels::decode_raw_log(data.topics(), &data.data) else {
        return Ok(());
    };
    let id = match &event {
        Channels::ChannelCreated(e) => {
            let config = from_abi_config(&e.config);
            let ours = config.token == token && vaults.contains(&config.receiver);
            if ours && config.id(domain)? == e.channelId {
                let known = history.channels.entry(e.channelId);
                known.or_insert((config, ChannelState::default()));
            }
            return Ok(());
        }
        Channels::Settled(e) => {
            if e.token == token && vaults.contains(&e.receiver) {
                let receiver = history.receivers.entry(e.receiver).or_default();
                receiver.total_settled = more(receiver.total_settled, e.amount)?;
            }
            return Ok(());
        }
        Channels::ChannelClosed(e) => e.channelId,
        Channels::Deposited(e) => e.channelId,
        Channels::Claimed(e) => e.channelId,
        Channels::Refunded(e) => e.channelId,
        Channels::WithdrawInitiated(e) => e.channelId,
        Channels::WithdrawFinalized(e) => e.channelId,
    };
    let Some((config, state)) = history.channels.get_mut(&id) else {
        return Ok(());
    };
    match event {
        Channels::Deposited(e) => state.balance = money(e.newBalance)?,
        Channels::Claimed(e) => {
            state.total_claimed = money(e.newTotalClaimed)?;
            let receiver = history.receivers.entry(config.receiver).or_default();
            receiver.total_claimed = more(receiver.total_claimed, e.claimAmount)?;
        }
        Channels::Refunded(e) => {
            state.refund_nonce += 1;
            state.balance = less(state.balance, e.amount)?;
            // A refund serves a pending withdrawal first.
            if let Some(pending) = &mut state.withdrawal {
                let rest = u128::from(pending.amount.0).saturating_sub(e.amount);
                pending.amount = money(rest)?;
                state.withdrawal = state.withdrawal.filter(|_| rest > 0);
            }
        }
        Channels::WithdrawInitiated(e) => {
            let ready_at: u64 = e.finalizeAfter.to();
            state.withdrawal = Some(Withdrawal {
                amount: money(e.amount)?,
                initiated_at: Timestamp(ready_at.saturating_sub(config.withdraw_delay_s)),
            });
        }
        Channels::WithdrawFinalized(e) => {
            state.withdrawal = None;
            state.balance = less(state.balance, e.amount)?;
        }
        Channels::ChannelClosed(_) | Channels::ChannelCreated(_) | Channels::Settled(_) => {}
    }
    Ok(())
}

pub(super) fn vault(history: &mut History, log: &Log) {
    let data = &log.inner.data;
    let owner = history
        .providers
        .values()
        .find(|p| p.vault == log.inner.address);
    let (Some(owner), Ok(event)) = (
        owner.map(|provider| provider.address),
        VaultEvents::decode_raw_log(data.topics(), &data.data),
    ) else {
        return;
    };
    let vault = history.vaults.entry(owner).or_default();
    match event {
        VaultEvents::Received(e) => vault.received.push((e.amount, Timestamp(e.releaseAt))),
        VaultEvents::Released(e) => vault.released += e.amount,
        VaultEvents::Held(e) => drop(vault.holds.insert(e.disputeId, e.amount)),
        VaultEvents::Freed(e) => drop(vault.holds.remove(&e.disputeId)),
        VaultEvents::Awarded(e) => {
            vault.awarded += e.amount;
            if let Some(held) = vault.holds.get_mut(&e.disputeId) {
                *held = held.saturating_sub(e.amount);
            }
        }
    }
}

pub(super) fn scoreboard(history: &mut History, log: &Log) -> Result<(), ChainError> {
    let data = &log.inner.data;
    let Ok(Board::Posted(e)) = Board::decode_raw_log(data.topics(), &data.data) else {
        return Ok(());
    };
    let record = from_abi_record(&e.record);
    let now = record.service;
    let before = history.records.insert(e.channelId, now).unwrap_or_default();
    if !now.holds(&before) {
        return Err(impossible(
            "a record that forgets what the one before it counted",
        ));
    }
    let score = history.scores.entry(e.provider).or_default();
    score.revenue = more(score.revenue, u128::from(now.revenue.0 - before.revenue.0))?;
    let weighed = less(score.weighted_failures, spoiled(&before))?;
    score.weighted_failures = more(weighed, spoiled(&now))?;
    score.prompt_tokens += u128::from(now.prompt_tokens - before.prompt_tokens);
    score.output_tokens += u128::from(now.output_tokens - before.output_tokens);
    score.requests += u64::from(now.requests - before.requests);
    let failures = u64::from(now.failures - before.failures);
    match e.counterSigned {
        true => score.failures += failures,
        false => score.reported += failures,
    }
    score.records += 1;
    for (sum, (new, old)) in [
        (&mut score.ttft, (now.ttft, before.ttft)),
        (&mut score.speed, (now.speed, before.speed)),
    ] {
        for class in 0..8 {
            let added = new.0[class] - old.0[class];
            sum.0[class] = sum.0[class].saturating_add(added);
        }
    }
    Ok(())
}

/// The part of a channel's revenue that its failures weigh.
fn spoiled(service: &Service) -> u128 {
    let all = u128::from(service.requests) + u128::from(service.failures);
    let weighed = u128::from(service.revenue.0) * u128::from(service.failures);
    weighed.checked_div(all).unwrap_or(0)
}

fn impossible(why: &str) -> ChainError {
    ChainError::BadAnswer {
        what: "events",
        why: why.into(),
    }
}

fn money(amount: u128) -> Result<MicroUsd, ChainError> {
    micro_usd(U256::from(amount))
}

fn more(sum: MicroUsd, amount: u128) -> Result<MicroUsd, ChainError> {
    micro_usd(U256::from(sum.0) + U256::from(amount))
}

fn less(sum: MicroUsd, amount: u128) -> Result<MicroUsd, ChainError> {
    let rest = u128::from(sum.0).checked_sub(amount);
    money(rest.ok_or_else(|| impossible("more left than there was"))?)
}
