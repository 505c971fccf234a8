//! Whether a deployment is what it says: the code at every address against the artifacts, whose
//! immutables must hold what belongs to this deployment, and what the contracts say of each other.
//! Reads only.
//!
//! The artifacts hold creation code. What it leaves behind is learned by deploying the same market on a
//! chain in memory: there, too, the immutables stand, so their places and their meaning are known.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{Eip712Domain, SolCall, SolValue};
use assay_protocol::{MicroUsd, Timestamp};

use crate::abi::{IDisputeGame, IReferee, IRegistry, IReputationAdapter, IScoreboard, ITestDollar};
use crate::artifacts;
use crate::connect::Chain;
use crate::deployment::{DeployParams, Deployment};
use crate::embedded::{DEVNET_CHAIN_ID, EmbeddedConfig};
use crate::error::ChainError;
use crate::keys::Key;
use crate::networks::Erc8004;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What should be so.
    pub what: String,
    pub address: Address,
    pub holds: bool,
    /// What was found.
    pub found: String,
}

/// The same market in memory: what each contract's code looks like after its constructor.
struct Reference {
    chain: Chain,
    deployment: Deployment,
    samples: Address,
    erc8004: Erc8004,
    period: u64,
}

/// What a word in the reference's code should be in the one that is looked at.
struct Meaning {
    pairs: Vec<(U256, U256)>,
}

/// A contract that caches its EIP-712 domain: where it was made, and the domain's hash there.
struct Cached {
    reference: (Address, B256),
    here: (Address, B256),
}

impl Chain {
    /// Compares a deployment with the artifacts, and its contracts with each other. A difference is a
    /// check that does not hold; an error means that the chain could not be asked.
    pub async fn verify(&self, deployment: &Deployment) -> Result<Vec<Check>, ChainError> {
        if deployment.chain_id != self.chain_id() {
            return Err(ChainError::OtherChain {
                expected: deployment.chain_id,
                got: self.chain_id(),
            });
        }
        let reference = Reference::make(self.chain_id()).await?;
        let mut checks = self.codes(deployment, &reference).await?;
        checks.extend(self.ties(deployment).await?);
        checks.extend(self.token(deployment).await?);
        Ok(checks)
    }

    async fn codes(
        &self,
        deployment: &Deployment,
        reference: &Reference,
    ) -> Result<Vec<Check>, ChainError> {
        let model = &reference.deployment;
        let samples = self
            .told(deployment.referee, IReferee::SAMPLESCall {})
            .await?
            .unwrap_or_default();
        let (identity, reputation) = (
            self.told(
                deployment.reputation_adapter,
                IReputationAdapter::IDENTITYCall {},
            ),
            self.told(
                deployment.reputation_adapter,
                IReputationAdapter::REPUTATIONCall {},
            ),
        );
        let registries = Erc8004 {
            identity: identity.await?.unwrap_or_default(),
            reputation: reputation.await?.unwrap_or_default(),
        };
        let period = self
            .told(
                deployment.reputation_adapter,
                IReputationAdapter::PERIODCall {},
            )
            .await?
            .unwrap_or_default();
        let meaning = Meaning::new(
            (
                model,
                reference.samples,
                reference.erc8004,
                reference.period,
            ),
            (deployment, samples, registries, period),
        );
        let contracts = [
            (
                "channels",
                artifacts::channels(),
                model.channels,
                deployment.channels,
                Some("x402 Batch Settlement"),
            ),
            (
                "collector",
                artifacts::erc3009_collector(),
                model.collector,
                deployment.collector,
                None,
            ),
            (
                "registry",
                artifacts::registry(),
                model.registry,
                deployment.registry,
                None,
            ),
            (
                "payout vault",
                artifacts::payout_vault(),
                model.vault_implementation,
                deployment.vault_implementation,
                None,
            ),
            (
                "dispute game",
                artifacts::dispute_game(),
                model.dispute_game,
                deployment.dispute_game,
                None,
            ),
            (
                "referee",
                artifacts::referee(),
                model.referee,
                deployment.referee,
                None,
            ),
            (
                "referee of samples",
                artifacts::sample_referee(),
                reference.samples,
                samples,
                None,
            ),
            (
                "models",
                artifacts::models(),
                model.models,
                deployment.models,
                None,
            ),
            (
                "scoreboard",
                artifacts::scoreboard(),
                model.scoreboard,
                deployment.scoreboard,
                Some("Assay"),
            ),
            (
                "reputation adapter",
                artifacts::reputation_adapter(),
                model.reputation_adapter,
                deployment.reputation_adapter,
                None,
            ),
        ];
        let mut checks = Vec::new();
        for (name, creation, at, address, eip712) in contracts {
            if address.is_zero() {
                // A market of an earlier version lacks some; none is looked for where none is named.
                continue;
            }
            let expected = reference.chain.code(at).await?;
            let found = self.code(address).await?;
            let cached = eip712.map(|name| Cached {
                reference: (at, separator(name, self.chain_id(), at)),
                here: (address, separator(name, self.chain_id(), address)),
            });
            let outcome = compare(&creation, &expected, &found, &meaning, cached.as_ref());
            checks.push(self.code_check(name, address, outcome, found.is_empty()));
        }
        Ok(checks)
    }

    fn code_check(
        &self,
        name: &str,
        address: Address,
        outcome: Result<(), String>,
        is_empty: bool,
    ) -> Check {
        let canonical = [
            assay_protocol::channel::CANONICAL_CHANNELS,
            assay_protocol::channel::CANONICAL_COLLECTOR,
        ]
        .contains(&address);
        let what = format!("the code of {name} is this program's");
        match outcome {
            Ok(()) => Check {
                what,
                address,
                holds: true,
                found: "the same code".into(),
            },
            // On real networks x402's own contracts stand there; nobody else can put any.
            Err(_) if canonical && !is_empty && self.chain_id() != DEVNET_CHAIN_ID => Check {
                what: format!("{name} is x402's own"),
                address,
                holds: true,
                found: "the canonical address; the code there is x402's and was not compared"
                    .into(),
            },
            Err(found) => Check {
                what,
                address,
                holds: false,
                found,
            },
        }
    }

    /// What the contracts say of each other, and of their rules.
    async fn ties(&self, d: &Deployment) -> Result<Vec<Check>, ChainError> {
        let mut ties: Vec<(&str, Address, Option<Address>, Address)> = Vec::new();
        let registry = d.registry;
        ties.push((
            "the registry's token",
            registry,
            self.told(registry, IRegistry::TOKENCall {}).await?,
            d.token,
        ));
        ties.push((
            "the registry's channels",
            registry,
            self.told(registry, IRegistry::CHANNELSCall {}).await?,
            d.channels,
        ));
        ties.push((
            "the registry's arbiter",
            registry,
            self.told(registry, IRegistry::ARBITERCall {}).await?,
            d.dispute_game,
        ));
        ties.push((
            "the registry's payout vault",
            registry,
            self.told(registry, IRegistry::VAULT_IMPLEMENTATIONCall {})
                .await?,
            d.vault_implementation,
        ));
        if !d.dispute_game.is_zero() {
            let game = d.dispute_game;
            ties.push((
                "the dispute game's registry",
                game,
                self.told(game, IDisputeGame::REGISTRYCall {}).await?,
                registry,
            ));
            ties.push((
                "the dispute game's referee",
                game,
                self.told(game, IDisputeGame::REFEREECall {}).await?,
                d.referee,
            ));
            ties.push((
                "the referee's models",
                d.referee,
                self.told(d.referee, IReferee::MODELSCall {}).await?,
                d.models,
            ));
        }
        if !d.scoreboard.is_zero() {
            let board = d.scoreboard;
            ties.push((
                "the scoreboard's registry",
                board,
                self.told(board, IScoreboard::REGISTRYCall {}).await?,
                registry,
            ));
            ties.push((
                "the scoreboard's channels",
                board,
                self.told(board, IScoreboard::CHANNELSCall {}).await?,
                d.channels,
            ));
            ties.push((
                "the scoreboard's token",
                board,
                self.told(board, IScoreboard::TOKENCall {}).await?,
                d.token,
            ));
        }
        if !d.reputation_adapter.is_zero() {
            let adapter = d.reputation_adapter;
            ties.push((
                "the adapter's scoreboard",
                adapter,
                self.told(adapter, IReputationAdapter::SCOREBOARDCall {})
                    .await?,
                d.scoreboard,
            ));
        }
        let mut checks: Vec<Check> = ties
            .into_iter()
            .map(|(what, address, found, expected)| equal(what, address, found, expected))
            .collect();
        let window = self
            .told(registry, IRegistry::CHALLENGE_WINDOWCall {})
            .await?;
        checks.push(equal(
            "the challenge window",
            registry,
            window,
            d.challenge_window_s,
        ));
        let unbonding = self
            .told(registry, IRegistry::UNBONDING_PERIODCall {})
            .await?;
        checks.push(equal(
            "the unbonding period",
            registry,
            unbonding,
            d.unbonding_s,
        ));
        let stake = self.told(registry, IRegistry::MIN_STAKECall {}).await?;
        checks.push(equal(
            "the least stake",
            registry,
            stake,
            u128::from(d.min_stake.0),
        ));
        if !d.dispute_game.is_zero() {
            let game = d.dispute_game;
            let bond = self.told(game, IDisputeGame::BONDCall {}).await?;
            checks.push(equal("the bond", game, bond, u128::from(d.bond.0)));
            let response = self.told(game, IDisputeGame::RESPONSE_TIMECall {}).await?;
            checks.push(equal("the response time", game, response, d.response_s));
            let extension = self.told(game, IDisputeGame::EXTENSIONCall {}).await?;
            let extension = extension.map(|time| time.to::<u32>());
            checks.push(equal("the extension", game, extension, d.extension_s));
        }
        Ok(checks)
    }

    async fn token(&self, d: &Deployment) -> Result<Vec<Check>, ChainError> {
        let token = d.token;
        let decimals = self.told(token, ITestDollar::decimalsCall {}).await?;
        let state = ITestDollar::authorizationStateCall {
            authorizer: Address::repeat_byte(1),
            nonce: B256::ZERO,
        };
        let eip3009 = self.told(token, state).await?;
        let domain = self
            .told(token, ITestDollar::DOMAIN_SEPARATORCall {})
            .await?;
        let signed = Eip712Domain::new(
            Some(d.token_name.clone().into()),
            Some(d.token_version.clone().into()),
            Some(U256::from(d.chain_id)),
            Some(token),
            None,
        );
        let mut checks = vec![
            equal("the token's decimals", token, decimals, 6),
            Check {
                what: "the token takes EIP-3009 authorizations".into(),
                address: token,
                holds: eip3009.is_some(),
                found: match eip3009 {
                    Some(_) => "it tells of their state".into(),
                    None => "it knows no authorizationState".into(),
                },
            },
        ];
        // Not every token shows its domain; one that does must be signed for by it.
        if domain.is_some() {
            checks.push(equal(
                "the token's EIP-712 domain",
                token,
                domain,
                signed.separator(),
            ));
        }
        Ok(checks)
    }

    /// A view's answer; none where the contract has no such view, refuses, or is not there.
    async fn told<C: SolCall>(
        &self,
        to: Address,
        call: C,
    ) -> Result<Option<C::Return>, ChainError> {
        if to.is_zero() {
            return Ok(None);
        }
        match self.view("verify", to, call).await {
            Ok(answer) => Ok(Some(answer)),
            Err(
                ChainError::NoContract { .. }
                | ChainError::Refused { .. }
                | ChainError::BadAnswer { .. }
                // A contract of others may stop in ways that are no revert.
                | ChainError::Rpc(_),
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Reference {
    async fn make(chain_id: u64) -> Result<Reference, ChainError> {
        let mut config = EmbeddedConfig::in_memory();
        config.chain_id = chain_id;
        config.clock = std::sync::Arc::new(|| Timestamp(1_800_000_000));
        let chain = Chain::embedded(config).await?;
        let key = Key::from_bytes(&[0x5a; 32]).expect("these bytes are a key");
        // Not the canonical ones: those were not made where they stand.
        let channels = chain.make("channels", &key, artifacts::channels()).await?;
        let collector =
            artifacts::with_arguments(artifacts::erc3009_collector(), &channels.abi_encode());
        let collector = chain.make("collector", &key, collector).await?;
        let identity = chain.make("models", &key, artifacts::models()).await?;
        let erc8004 = Erc8004 {
            identity,
            reputation: chain.make("registry", &key, answering(identity)).await?,
        };
        // No two of the rules are alike, so that each word in the code has one meaning.
        let params = DeployParams {
            token: None,
            channels: Some(channels),
            collector: Some(collector),
            min_stake: MicroUsd(10_000_019),
            unbonding_s: 1_000_003,
            challenge_window_s: 100_003,
            bond: MicroUsd(1_000_033),
            response_s: 10_007,
            extension_s: 20_011,
            erc8004: Some(erc8004),
        };
        let deployment = chain.deploy(&key, &params).await?;
        let samples = chain
            .view("referee", deployment.referee, IReferee::SAMPLESCall {})
            .await?;
        let adapter = deployment.reputation_adapter;
        let period = chain
            .view("adapter", adapter, IReputationAdapter::PERIODCall {})
            .await?;
        Ok(Reference {
            chain,
            deployment,
            samples,
            erc8004,
            period,
        })
    }
}

/// The facts of one deployment that stand in its contracts' code.
type Facts<'d> = (&'d Deployment, Address, Erc8004, u64);

impl Meaning {
    fn new(reference: Facts<'_>, here: Facts<'_>) -> Meaning {
        let pairs = words(reference).into_iter().zip(words(here)).collect();
        Meaning { pairs }
    }

    /// What should stand where the reference has this word; a word without a meaning is the same everywhere.
    fn of(&self, word: U256) -> U256 {
        let pair = self.pairs.iter().find(|(reference, _)| *reference == word);
        pair.map_or(word, |(_, here)| *here)
    }
}

fn words((d, samples, erc8004, period): Facts<'_>) -> Vec<U256> {
    let addresses = [
        d.token,
        d.channels,
        d.collector,
        d.registry,
        d.vault_implementation,
        d.dispute_game,
        d.referee,
        samples,
        d.models,
        d.scoreboard,
        erc8004.identity,
        erc8004.reputation,
    ];
    let grain = match d.challenge_window_s {
        0..16 => 1,
        window => window / 16,
    };
    let numbers = [
        d.challenge_window_s,
        grain,
        d.unbonding_s,
        d.min_stake.0,
        d.bond.0,
        d.response_s.into(),
        d.extension_s.into(),
        period,
    ];
    let domain = separator("Assay", d.chain_id, d.registry);
    addresses
        .iter()
        .map(|address| U256::from_be_bytes(address.into_word().0))
        .chain(numbers.map(U256::from))
        .chain([U256::from_be_bytes(domain.0)])
        .collect()
}

/// The EIP-712 domain's hash of a contract of ours.
fn separator(name: &str, chain_id: u64, contract: Address) -> B256 {
    Eip712Domain::new(
        Some(name.to_owned().into()),
        Some("1".into()),
        Some(U256::from(chain_id)),
        Some(contract),
        None,
    )
    .separator()
}

/// A contract that answers every call with an address.
fn answering(address: Address) -> Vec<u8> {
    // PUSH20 address, PUSH0, MSTORE, PUSH1 32, PUSH0, RETURN
    let mut runtime = vec![0x73];
    runtime.extend_from_slice(address.as_slice());
    runtime.extend_from_slice(&[0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3]);
    // PUSH1 length, PUSH1 offset, PUSH0, CODECOPY, PUSH1 length, PUSH0, RETURN
    let length = runtime.len() as u8;
    let mut creation = vec![0x60, length, 0x60, 10, 0x5f, 0x39, 0x60, length, 0x5f, 0xf3];
    creation.extend(runtime);
    creation
}

/// Compares runtime code with the reference's. Bytes may differ only within immutables, and those must
/// hold what belongs here.
fn compare(
    creation: &[u8],
    reference: &Bytes,
    found: &Bytes,
    meaning: &Meaning,
    cached: Option<&Cached>,
) -> Result<(), String> {
    if found.is_empty() {
        return Err("there is no code".into());
    }
    if found.len() != reference.len() {
        return Err(format!(
            "other code: {} bytes with hash {}, expected {} bytes",
            found.len(),
            keccak256(found),
            reference.len()
        ));
    }
    let holes = immutables(creation, reference)
        .ok_or("the artifact does not make the code of its own contract")?;
    let mut at = 0;
    let mut hole = holes.iter().copied().peekable();
    while at < found.len() {
        if hole.peek() == Some(&at) {
            hole.next();
            at += 32;
        } else if found[at] != reference[at] {
            return Err(format!(
                "other code: it differs at byte {at}; its hash is {}",
                keccak256(found)
            ));
        } else {
            at += 1;
        }
    }
    let word = |code: &Bytes, at: usize| U256::from_be_slice(&code[at..at + 32]);
    let pairs = || {
        holes
            .iter()
            .map(|at| (word(reference, *at), word(found, *at)))
    };
    let address = |address: Address| U256::from_be_bytes(address.into_word().0);
    // OpenZeppelin's cached domain counts only where the contract stands that cached it.
    let elsewhere = cached.is_some_and(|cached| {
        let this = address(cached.reference.0);
        pairs().any(|(model, word)| model == this && word != address(cached.here.0))
    });
    for (model, word) in pairs() {
        let expected = match cached {
            Some(cached) if model == address(cached.reference.0) => address(cached.here.0),
            Some(cached) if model == U256::from_be_bytes(cached.reference.1.0) => {
                U256::from_be_bytes(cached.here.1.0)
            }
            _ => {
                if word != meaning.of(model) {
                    return Err(immutable(word, meaning.of(model)));
                }
                continue;
            }
        };
        if !elsewhere && word != expected {
            return Err(immutable(word, expected));
        }
    }
    Ok(())
}

fn immutable(found: U256, expected: U256) -> String {
    let show = |word: U256| match word >> 160usize == U256::ZERO && word > U256::from(u64::MAX) {
        true => Address::from_word(B256::from(word)).to_string(),
        false if word <= U256::from(u64::MAX) => word.to_string(),
        false => B256::from(word).to_string(),
    };
    format!(
        "this program's code, but it was made with {} in place of {}",
        show(found),
        show(expected)
    )
}

/// Where immutables stand in a contract's code: the creation code has the same bytes with zeros there,
/// pushed as 32 bytes, which the compiler never does with a constant zero.
fn immutables(creation: &[u8], code: &[u8]) -> Option<Vec<usize>> {
    let is_hole = |at: usize| {
        at > 0 && creation[at - 1] == 0x7f && creation.get(at..at + 32) == Some(&[0; 32][..])
    };
    let last = creation.len().checked_sub(code.len())?;
    (0..=last).find_map(|start| {
        let (mut at, mut holes) = (0, Vec::new());
        while at < code.len() {
            if is_hole(start + at) && at + 32 <= code.len() {
                holes.push(at);
                at += 32;
            } else if creation[start + at] != code[at] {
                return None;
            } else {
                at += 1;
            }
        }
        Some(holes)
    })
}

fn equal<T: PartialEq + std::fmt::Display>(
    what: &str,
    address: Address,
    found: Option<T>,
    expected: T,
) -> Check {
    Check {
        what: format!("{what} is {expected}"),
        address,
        holds: found.as_ref() == Some(&expected),
        found: found.map_or("it does not say".into(), |found| found.to_string()),
    }
}
