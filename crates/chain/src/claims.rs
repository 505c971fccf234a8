//! Batches of claims that anybody can submit: signed by the receiver's authorizer, tried row by row
//! before they are sent, and sent together with the records of service where the chain has Multicall3.
//! Decides nothing about when a claim pays.

use alloy::network::TransactionBuilder;
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use alloy_primitives::Bytes;
use alloy_sol_types::{SolCall, SolEvent};
use assay_protocol::channel::ClaimEntry;
use assay_protocol::{Address, B256, Signature};
use serde::{Deserialize, Serialize};

use crate::abi::{IChannels, IMulticall3, IScoreboard};
use crate::embedded::MULTICALL3;
use crate::error::{ChainError, Refusal, from_rpc};
use crate::keys::Key;
use crate::reader::Market;
use crate::sender::{Claim, abi_claim, bytes};
use crate::service::ServicePost;
use crate::transact::Mined;

/// Rows in one batch at most: about 8 million gas.
pub const CLAIMS_MAX: usize = 300;

/// Claims with the signature of the receiver's authorizer: whoever has this can bring the money to the
/// receiver, and nowhere else. JSON, to be carried about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedClaims {
    pub claims: Vec<Claim>,
    pub signature: Signature,
}

/// What became of a batch.
#[derive(Debug, Clone)]
pub struct Submitted {
    pub mined: Mined,
    /// Channels that money was claimed from; the others had been claimed already.
    pub claimed: Vec<B256>,
    /// Channels whose records were posted.
    pub posted: Vec<B256>,
    /// Why the records were left out, if they were; the claims went through all the same.
    pub left_out: Option<Refusal>,
}

/// One transaction that brings a batch to the chain.
struct Submission {
    to: Address,
    input: Vec<u8>,
    /// The same with no part allowed to fail: what its gas is estimated by. A node finds the least gas
    /// that the whole succeeds with, and a part that may fail succeeds with too little.
    strict: Option<Vec<u8>>,
    /// Why the records stay behind, if they do.
    left_out: Option<Refusal>,
}

impl Market {
    /// Signs a batch as the receiver's authorizer of every channel in it.
    pub fn sign_claims(&self, authorizer: &Key, claims: &[Claim]) -> SignedClaims {
        let entries: Vec<ClaimEntry> = claims.iter().map(Claim::entry).collect();
        SignedClaims {
            claims: claims.to_vec(),
            signature: authorizer.sign_claims(&entries, &self.channel_domain()),
        }
    }

    /// Submits a signed batch, and with it the records of service, if there are any; `key` pays the gas.
    /// One transaction where Multicall3 stands, two elsewhere. Records that the scoreboard refuses do not
    /// keep the money back.
    pub async fn submit_claims(
        &self,
        key: &Key,
        claims: &SignedClaims,
        service: Option<&ServicePost>,
    ) -> Result<Submitted, ChainError> {
        let Submission {
            to,
            input,
            strict,
            left_out,
        } = self.submission(claims, service).await?;
        let mined = self
            .chain
            .send_estimated("claim", key, to, input, strict)
            .await?;
        let mut submitted = Submitted {
            claimed: named(
                &mined,
                self.deployment().channels,
                IChannels::Claimed::SIGNATURE_HASH,
            ),
            posted: self.posted(&mined),
            mined,
            left_out,
        };
        // Without Multicall3 the records follow the claims that they rest on.
        if let Some(post) = service
            && submitted.left_out.is_none()
            && to == self.deployment().channels
        {
            match self.post_service(key, post).await {
                Ok(mined) => submitted.posted = self.posted(&mined),
                Err(ChainError::Refused { why, .. }) => submitted.left_out = Some(*why),
                Err(error) => return Err(error),
            }
        }
        Ok(submitted)
    }

    /// The gas that the batch would take as it would be sent now.
    pub async fn claims_gas(
        &self,
        from: Address,
        claims: &SignedClaims,
        service: Option<&ServicePost>,
    ) -> Result<u64, ChainError> {
        let submission = self.submission(claims, service).await?;
        let request = TransactionRequest::default()
            .with_from(from)
            .with_to(submission.to)
            .with_input(submission.strict.unwrap_or(submission.input));
        let gas = self.chain.provider.estimate_gas(request).await;
        gas.map_err(|e| from_rpc("claim", e))
    }

    /// Tries claims without sending any: what the contract would say of each row by itself. No signature
    /// of the batch is needed, because the receiver's authorizer may claim without one.
    pub async fn try_claims(
        &self,
        claims: &[Claim],
    ) -> Result<Vec<Result<(), Refusal>>, ChainError> {
        let mut told = vec![Ok(()); claims.len()];
        // As a rule all of them are good, and one call says so; else halves are tried, down to single rows.
        let mut open = vec![(0, claims.len())];
        while let Some((start, end)) = open.pop() {
            if start == end {
                continue;
            }
            let Err(why) = self.try_batch(&claims[start..end]).await? else {
                continue;
            };
            if end - start == 1 {
                told[start] = Err(why);
                continue;
            }
            let middle = start + (end - start) / 2;
            open.extend([(start, middle), (middle, end)]);
        }
        Ok(told)
    }

    async fn try_batch(&self, claims: &[Claim]) -> Result<Result<(), Refusal>, ChainError> {
        let call = IChannels::claimCall {
            voucherClaims: claims.iter().map(abi_claim).collect::<Result<_, _>>()?,
        };
        let request = TransactionRequest::default()
            .with_from(claims[0].config.receiver_authorizer)
            .with_to(self.deployment().channels)
            .with_input(call.abi_encode());
        match self.chain.provider.call(request).await {
            Ok(_) => Ok(Ok(())),
            Err(error) => match from_rpc("claim", error) {
                ChainError::Refused { why, .. } => Ok(Err(*why)),
                error => Err(error),
            },
        }
    }

    async fn submission(
        &self,
        claims: &SignedClaims,
        service: Option<&ServicePost>,
    ) -> Result<Submission, ChainError> {
        let count = claims.claims.len();
        if count == 0 || count > CLAIMS_MAX {
            return Err(ChainError::BatchSize(count, CLAIMS_MAX));
        }
        let channels = self.deployment().channels;
        let claim = claim_call(claims)?.abi_encode();
        let alone = |left_out| Submission {
            to: channels,
            input: claim.clone(),
            strict: None,
            left_out,
        };
        let Some(post) = service.filter(|post| !post.entries.is_empty()) else {
            return Ok(alone(None));
        };
        let scoreboard = self.scoreboard()?;
        if self.chain.code(MULTICALL3).await?.is_empty() {
            return Ok(alone(None));
        }
        let post = post.call()?.abi_encode();
        let call = |target, may_fail, input: &[u8]| IMulticall3::Call3 {
            target,
            allowFailure: may_fail,
            callData: Bytes::copy_from_slice(input),
        };
        let both = |claim_may_fail, post_may_fail| IMulticall3::aggregate3Call {
            calls: vec![
                call(channels, claim_may_fail, &claim),
                call(scoreboard, post_may_fail, &post),
            ],
        };
        let results = self
            .chain
            .view("claim", MULTICALL3, both(true, true))
            .await?;
        match results.as_slice() {
            [claimed, _] if !claimed.success => Err(ChainError::Refused {
                what: "claim",
                why: Box::new(Refusal::decode(&claimed.returnData)),
            }),
            [_, posted] if !posted.success => Ok(alone(Some(Refusal::decode(&posted.returnData)))),
            // The claim must go through or none of it; a record that is late by then must not stop it.
            _ => Ok(Submission {
                to: MULTICALL3,
                input: both(false, true).abi_encode(),
                strict: Some(both(false, false).abi_encode()),
                left_out: None,
            }),
        }
    }

    fn posted(&self, mined: &Mined) -> Vec<B256> {
        let to = self.deployment().scoreboard;
        let posted = mined.logs.iter().filter(|log| log.address == to);
        posted
            .filter_map(|log| IScoreboard::Posted::decode_log(log).ok())
            .map(|posted| posted.channelId)
            .collect()
    }
}

impl crate::Chain {
    /// What a unit of gas costs now, in wei: the base fee and what is paid on top of it.
    pub async fn gas_price(&self) -> Result<u128, ChainError> {
        let (base, tip) = self.base_fee_and_tip("gas price").await?;
        Ok(base.saturating_add(tip))
    }

    /// An account's coins, which pay for gas, in wei.
    pub async fn coin_balance(&self, account: Address) -> Result<u128, ChainError> {
        let balance = self.provider.get_balance(account).await;
        let balance = balance.map_err(|e| from_rpc("coins", e))?;
        // More than 2^128 wei there are not.
        Ok(u128::try_from(balance).unwrap_or(u128::MAX))
    }
}

pub(crate) fn claim_call(
    claims: &SignedClaims,
) -> Result<IChannels::claimWithSignatureCall, ChainError> {
    let rows = claims.claims.iter().map(abi_claim);
    Ok(IChannels::claimWithSignatureCall {
        voucherClaims: rows.collect::<Result<_, _>>()?,
        authorizerSignature: bytes(&claims.signature),
    })
}

/// The first indexed word, a channel's id, of every event of this kind from this contract.
fn named(mined: &Mined, contract: Address, event: B256) -> Vec<B256> {
    let logs = mined.logs.iter().filter(|log| log.address == contract);
    logs.filter(|log| log.topics().first() == Some(&event))
        .filter_map(|log| log.topics().get(1).copied())
        .collect()
}
