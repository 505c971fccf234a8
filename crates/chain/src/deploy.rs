//! Puts a market's contracts on a chain. On real networks x402's canonical contracts are used where
//! they stand; a development chain is given ours at the same addresses, because official clients
//! sign for those and no other.

use std::collections::BTreeMap;

use alloy::network::TransactionBuilder;
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use alloy_primitives::{Bytes, TxKind, U256};
use alloy_sol_types::SolValue;
use assay_protocol::channel::{CANONICAL_CHANNELS, CANONICAL_COLLECTOR};
use assay_protocol::{Address, MicroUsd};
use serde::{Deserialize, Serialize};

use crate::abi::{IDisputeGame, IReferee, IRegistry, ITestDollar};
use crate::artifacts;
use crate::connect::Chain;
use crate::deployment::{DeployParams, Deployment};
use crate::embedded::MULTICALL3;
use crate::error::{ChainError, from_rpc, micro_usd};
use crate::keys::Key;
use crate::networks::{self, Erc8004};
use crate::transact::Mined;

/// Seconds between two publications of one provider's score: it moves slowly, and each costs gas.
const PUBLISH_PERIOD_S: u64 = 24 * 60 * 60;

impl Chain {
    /// Deploys a market with the key's gas. The rules cannot be changed afterwards.
    pub async fn deploy(&self, key: &Key, params: &DeployParams) -> Result<Deployment, ChainError> {
        self.deploy_on(key, params, DeployProgress::default(), |_| Ok(()))
            .await
    }

    /// Deploys a market, going on from what an earlier try with the same key and rules has made. `keep` writes down what
    /// stands after each contract; a crash right before it costs that one contract's gas again, and nothing else.
    pub async fn deploy_on(
        &self,
        key: &Key,
        params: &DeployParams,
        progress: DeployProgress,
        keep: impl FnMut(&DeployProgress) -> std::io::Result<()> + Send,
    ) -> Result<Deployment, ChainError> {
        let mut site = Site {
            chain: self,
            key,
            progress,
            keep,
        };
        // Whatever is missing is missed before anything is paid for.
        let registries = self.registries(params).await?;
        if let Some(token) = params.token {
            self.check_six_decimals(token).await?;
        }
        let (channels, collector) = self.channels(&mut site, params).await?;
        let token = match params.token {
            Some(token) => token,
            None => site.make("test dollar", artifacts::test_dollar()).await?,
        };
        let models = site.make("models", artifacts::models()).await?;
        let initcode = artifacts::with_arguments(artifacts::sample_referee(), &models.abi_encode());
        let samples = site.make("referee of samples", initcode).await?;
        let initcode = artifacts::with_arguments(artifacts::referee(), &samples.abi_encode());
        let referee = site.make("referee", initcode).await?;
        let rules = (
            u128::from(params.bond.0),
            params.response_s,
            params.extension_s,
        );
        let arguments = (
            token,
            channels,
            referee,
            u128::from(params.min_stake.0),
            params.unbonding_s,
            params.challenge_window_s,
            rules,
        )
            .abi_encode();
        let initcode = artifacts::with_arguments(artifacts::dispute_game(), &arguments);
        let what = "dispute game";
        let game = site.make(what, initcode).await?;
        let registry = self.view(what, game, IDisputeGame::REGISTRYCall {}).await?;
        let initcode = artifacts::with_arguments(artifacts::scoreboard(), &registry.abi_encode());
        let scoreboard = site.make("scoreboard", initcode).await?;
        let mut deployment = self
            .read_deployment(registry, collector, scoreboard)
            .await?;
        // The game made the registry.
        let made = site.progress.contracts.get(what);
        deployment.deployed_block = made.map(|made| made.block);
        if let Some(registries) = registries {
            let arguments = (
                scoreboard,
                registries.identity,
                registries.reputation,
                PUBLISH_PERIOD_S,
            )
                .abi_encode();
            let initcode = artifacts::with_arguments(artifacts::reputation_adapter(), &arguments);
            deployment.reputation_adapter = site.make("reputation adapter", initcode).await?;
        }
        Ok(deployment)
    }

    /// The deployment behind a registry, read from the chain itself. The registry knows neither collector
    /// nor scoreboard; a scoreboard of zero is none.
    pub async fn read_deployment(
        &self,
        registry: Address,
        collector: Address,
        scoreboard: Address,
    ) -> Result<Deployment, ChainError> {
        let what = "registry";
        let token = self.view(what, registry, IRegistry::TOKENCall {}).await?;
        let min_stake = self
            .view(what, registry, IRegistry::MIN_STAKECall {})
            .await?;
        let arbiter = self.view(what, registry, IRegistry::ARBITERCall {}).await?;
        let disputes = self.read_disputes(arbiter).await?;
        Ok(Deployment {
            dispute_game: arbiter,
            referee: disputes.referee,
            models: disputes.models,
            bond: disputes.bond,
            response_s: disputes.response_s,
            extension_s: disputes.extension_s,
            deployed_block: self.first_block_of(registry).await?,
            scoreboard,
            reputation_adapter: Address::ZERO,
            confirmations: networks::of(self.chain_id()).map_or(0, |network| network.confirmations),
            chain_id: self.chain_id(),
            token,
            token_name: self
                .view("token's name", token, ITestDollar::nameCall {})
                .await?,
            token_version: self
                .view("token's version", token, ITestDollar::versionCall {})
                .await?,
            channels: self
                .view(what, registry, IRegistry::CHANNELSCall {})
                .await?,
            collector,
            registry,
            vault_implementation: self
                .view(what, registry, IRegistry::VAULT_IMPLEMENTATIONCall {})
                .await?,
            challenge_window_s: self
                .view(what, registry, IRegistry::CHALLENGE_WINDOWCall {})
                .await?,
            unbonding_s: self
                .view(what, registry, IRegistry::UNBONDING_PERIODCall {})
                .await?,
            min_stake: micro_usd(U256::from(min_stake))?,
        })
    }

    /// The first block that has code at an address; none where the node has forgotten the states of old.
    async fn first_block_of(&self, address: Address) -> Result<Option<u64>, ChainError> {
        let (mut low, mut high) = (0, self.block_number().await?);
        while low < high {
            let middle = low + (high - low) / 2;
            let code = self.provider.get_code_at(address).number(middle).await;
            match code {
                Ok(code) if code.is_empty() => low = middle + 1,
                Ok(_) => high = middle,
                Err(alloy::transports::RpcError::ErrorResp(_)) => return Ok(None),
                Err(error) => return Err(from_rpc("contract code", error)),
            }
        }
        Ok(Some(low))
    }

    /// The rules of the disputes, out of their contract; all zero where there is none.
    async fn read_disputes(&self, game: Address) -> Result<Disputes, ChainError> {
        if game.is_zero() {
            return Ok(Disputes::default());
        }
        let what = "dispute game";
        let referee = self.view(what, game, IDisputeGame::REFEREECall {}).await?;
        let bond = self.view(what, game, IDisputeGame::BONDCall {}).await?;
        let response_s = self
            .view(what, game, IDisputeGame::RESPONSE_TIMECall {})
            .await?;
        let extension = self
            .view(what, game, IDisputeGame::EXTENSIONCall {})
            .await?;
        Ok(Disputes {
            referee,
            models: self
                .view("referee", referee, IReferee::MODELSCall {})
                .await?,
            bond: micro_usd(U256::from(bond))?,
            response_s,
            extension_s: extension.to(),
        })
    }

    /// The chain's ERC-8004 registries, if it has any.
    async fn registries(&self, params: &DeployParams) -> Result<Option<Erc8004>, ChainError> {
        let known = networks::of(self.chain_id()).and_then(|network| network.erc8004);
        let Some(registries) = params.erc8004.or(known) else {
            return Ok(None);
        };
        for (what, address) in [
            ("identity registry", registries.identity),
            ("reputation registry", registries.reputation),
        ] {
            if self.code(address).await?.is_empty() {
                return Err(ChainError::NoContract { what, address });
            }
        }
        Ok(Some(registries))
    }

    /// Prices, stakes and vouchers are micro-dollars: another unit would be wrong by a power of ten.
    async fn check_six_decimals(&self, token: Address) -> Result<(), ChainError> {
        let call = ITestDollar::decimalsCall {};
        match self.view("token's decimals", token, call).await? {
            6 => Ok(()),
            decimals => Err(ChainError::WrongDecimals { token, decimals }),
        }
    }

    /// The channels and their collector: those named, the canonical ones, or ours.
    async fn channels(
        &self,
        site: &mut Site<'_, impl FnMut(&DeployProgress) -> std::io::Result<()> + Send>,
        params: &DeployParams,
    ) -> Result<(Address, Address), ChainError> {
        if let (Some(channels), Some(collector)) = (params.channels, params.collector) {
            return Ok((channels, collector));
        }
        if self.has_canonical().await? {
            return Ok((CANONICAL_CHANNELS, CANONICAL_COLLECTOR));
        }
        if self.place_canonical().await? && self.has_canonical().await? {
            return Ok((CANONICAL_CHANNELS, CANONICAL_COLLECTOR));
        }
        let channels = site.make("channels", artifacts::channels()).await?;
        let collector =
            artifacts::with_arguments(artifacts::erc3009_collector(), &channels.abi_encode());
        let collector = site.make("collector", collector).await?;
        Ok((channels, collector))
    }

    async fn has_canonical(&self) -> Result<bool, ChainError> {
        Ok(!self.code(CANONICAL_CHANNELS).await?.is_empty()
            && !self.code(CANONICAL_COLLECTOR).await?.is_empty())
    }

    /// Gives a development node of Foundry ours at the canonical addresses. False where the node
    /// does not let us, which every real network does not.
    async fn place_canonical(&self) -> Result<bool, ChainError> {
        let collector = artifacts::with_arguments(
            artifacts::erc3009_collector(),
            &CANONICAL_CHANNELS.abi_encode(),
        );
        for (at, initcode) in [
            (CANONICAL_CHANNELS, artifacts::channels()),
            (CANONICAL_COLLECTOR, collector),
            (MULTICALL3, artifacts::multicall3()),
        ] {
            if !self.code(at).await?.is_empty() {
                continue;
            }
            // A dry run of a deployment answers with the code it would leave.
            let mut request = TransactionRequest::default().with_input(initcode);
            request.to = Some(TxKind::Create);
            let code: Bytes = self
                .provider
                .call(request)
                .await
                .map_err(|e| from_rpc("constructor", e))?;
            let placed: Result<(), _> = self
                .provider
                .raw_request("anvil_setCode".into(), (at, code))
                .await;
            if placed.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One contract.
    pub(crate) async fn make(
        &self,
        what: &'static str,
        key: &Key,
        initcode: Vec<u8>,
    ) -> Result<Address, ChainError> {
        let mined = self.create(what, key, initcode).await?;
        made(what, &mined)
    }
}

/// What a deployment has made so far, by what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployProgress {
    pub contracts: BTreeMap<String, MadeContract>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeContract {
    pub address: Address,
    pub block: u64,
    pub gas_used: u64,
}

/// Where a market is being deployed.
struct Site<'a, K> {
    chain: &'a Chain,
    key: &'a Key,
    progress: DeployProgress,
    keep: K,
}

impl<K: FnMut(&DeployProgress) -> std::io::Result<()> + Send> Site<'_, K> {
    pub(crate) async fn make(
        &mut self,
        what: &'static str,
        initcode: Vec<u8>,
    ) -> Result<Address, ChainError> {
        if let Some(made) = self.progress.contracts.get(what)
            && !self.chain.code(made.address).await?.is_empty()
        {
            return Ok(made.address);
        }
        let mined = self.chain.create(what, self.key, initcode).await?;
        let address = made(what, &mined)?;
        let made = MadeContract {
            address,
            block: mined.block,
            gas_used: mined.gas_used,
        };
        self.progress.contracts.insert(what.to_owned(), made);
        (self.keep)(&self.progress).map_err(|source| ChainError::Progress {
            what,
            address,
            source,
        })?;
        Ok(address)
    }
}

/// What the registry's arbiter says of the disputes.
#[derive(Default)]
struct Disputes {
    referee: Address,
    models: Address,
    bond: MicroUsd,
    response_s: u32,
    extension_s: u32,
}

fn made(what: &'static str, mined: &Mined) -> Result<Address, ChainError> {
    mined.contract.ok_or(ChainError::BadAnswer {
        what,
        why: "the receipt names no contract".into(),
    })
}
