//! What can go wrong on a chain, with the facts a user needs; contract errors are decoded here.

use alloy::transports::{RpcError, TransportErrorKind};
use alloy_primitives::{Bytes, U256};
use alloy_sol_types::{Revert, SolError, SolInterface};
use assay_protocol::channel::ChannelError;
use assay_protocol::{Address, B256, MicroUsd};

use crate::abi::ICanonicalErrors::ICanonicalErrorsErrors as Canonical;
use crate::abi::IChannels::IChannelsErrors as Channels;
use crate::abi::ICollector::ICollectorErrors as Collector;
use crate::abi::IDisputeGame::IDisputeGameErrors as Game;
use crate::abi::IPayoutVault::IPayoutVaultErrors as Vault;
use crate::abi::IReferee::UnknownModel;
use crate::abi::IRegistry::IRegistryErrors as Registry;
use crate::abi::IReputationAdapter::IReputationAdapterErrors as Adapter;
use crate::abi::IScoreboard::IScoreboardErrors as Scoreboard;
use crate::abi::ITestDollar::ITestDollarErrors as Dollar;

/// Why a chain cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    #[error(
        "`{0}` is no http(s) url; give the chain's JSON-RPC address, as in http://127.0.0.1:8545"
    )]
    BadUrl(String),
    #[error("the {what} stands at {address}, but that cannot be written down: {source}")]
    Progress {
        what: &'static str,
        address: Address,
        source: std::io::Error,
    },
    #[error("{0} urls of one chain: name 1 to {max}", max = crate::endpoints::URLS_MAX)]
    Urls(usize),
    #[error(
        "the node {node} is of chain {got}, another one of chain {expected}; all --rpc-url must be of one chain"
    )]
    UrlsDiffer {
        node: String,
        expected: u64,
        got: u64,
    },
    #[error("the chain does not answer: {0}; check that it runs and that --rpc-url is right")]
    Unreachable(String),
    #[error("the chain refuses: {0}")]
    Rpc(String),
    #[error("{what} refused: {why}")]
    Refused {
        what: &'static str,
        why: Box<Refusal>,
    },
    #[error(
        "{what}: transaction {hash} failed in block {block}, although it passed its dry run; another transaction came first"
    )]
    Reverted {
        what: &'static str,
        hash: B256,
        block: u64,
    },
    #[error(
        "{what}: transaction {hash} is not in a block after {waited_s} s; it may still come, so look it up before you try again"
    )]
    NotMined {
        what: &'static str,
        hash: B256,
        waited_s: u64,
    },
    #[error(
        "{what}: transaction {hash} did not happen: another one of the same key took its nonce {nonce}; give each process its own key"
    )]
    Overtaken {
        what: &'static str,
        hash: B256,
        nonce: u64,
    },
    #[error("the chain's answer to {what} cannot be read: {why}")]
    BadAnswer { what: &'static str, why: String },
    #[error("{0} is more than the market counts in (2^64 micro-USD)")]
    AmountTooLarge(U256),
    #[error(
        "the deployment is for chain {expected}, this is chain {got}; use the addresses of this chain"
    )]
    OtherChain { expected: u64, got: u64 },
    #[error(
        "the token {token} has {decimals} decimals; the market counts in millionths of a dollar, so choose one with 6"
    )]
    WrongDecimals { token: Address, decimals: u8 },
    #[error("no contract stands at {address} ({what}); deploy first, or correct the address")]
    NoContract {
        what: &'static str,
        address: Address,
    },
    #[error(
        "the market of registry {0} has no dispute contracts: it is of the first version; deploy a new one"
    )]
    NoDisputes(Address),
    #[error(
        "the deployment names no scoreboard: it was made by an earlier version; service is not counted in this market"
    )]
    NoScoreboard,
    #[error(
        "this market has no adapter to ERC-8004 registries: its chain had none when it was deployed"
    )]
    NoAdapter,
    #[error(
        "{what}: the chain's node does not tell the state of block {block}; ask one that keeps its history: {said}"
    )]
    NoHistory {
        what: &'static str,
        block: u64,
        said: String,
    },
    #[error("{0} claims: one batch has 1 to {1}")]
    BatchSize(usize, usize),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the chain's file: {0}")]
    Store(#[from] crate::embedded::StoreError),
    #[error("a chain's task stopped: {0}")]
    Stopped(String),
}

/// Why a contract refused, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    Channels(Channels),
    Registry(Registry),
    Vault(Vault),
    Game(Game),
    Scoreboard(Scoreboard),
    Adapter(Adapter),
    /// What the referee says of a model whose manifest nobody has published.
    UnknownModel(B256),
    Token(Dollar),
    /// The canonical x402 contract's refusals, which carry no facts.
    Canonical(Canonical),
    Collector(Collector),
    /// `require` with a reason.
    Reason(String),
    /// Bytes that no contract of ours speaks.
    Unknown(Bytes),
}

impl From<Channels> for Refusal {
    fn from(error: Channels) -> Self {
        Refusal::Channels(error)
    }
}

impl Refusal {
    /// Reads a revert's bytes. Selectors are tried contract by contract; where two contracts
    /// name one error alike, its words are alike too.
    pub fn decode(data: &[u8]) -> Refusal {
        if let Ok(error) = Channels::abi_decode(data) {
            return Refusal::Channels(error);
        }
        if let Ok(error) = Registry::abi_decode(data) {
            return Refusal::Registry(error);
        }
        if let Ok(error) = Vault::abi_decode(data) {
            return Refusal::Vault(error);
        }
        if let Ok(error) = Game::abi_decode(data) {
            return Refusal::Game(error);
        }
        if let Ok(error) = Scoreboard::abi_decode(data) {
            return Refusal::Scoreboard(error);
        }
        if let Ok(error) = Adapter::abi_decode(data) {
            return Refusal::Adapter(error);
        }
        if let Ok(error) = UnknownModel::abi_decode(data) {
            return Refusal::UnknownModel(error.modelId);
        }
        if let Ok(error) = Dollar::abi_decode(data) {
            return Refusal::Token(error);
        }
        if let Ok(error) = Collector::abi_decode(data) {
            return Refusal::Collector(error);
        }
        if let Ok(error) = Canonical::abi_decode(data) {
            return Refusal::Canonical(error);
        }
        if let Ok(Revert { reason }) = Revert::abi_decode(data) {
            return Refusal::Reason(reason);
        }
        Refusal::Unknown(Bytes::copy_from_slice(data))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Channels(error) => channels_words(error, f),
            Refusal::Registry(error) => registry_words(error, f),
            Refusal::Vault(error) => vault_words(error, f),
            Refusal::Game(error) => game_words(error, f),
            Refusal::Scoreboard(error) => scoreboard_words(error, f),
            Refusal::Adapter(error) => adapter_words(error, f),
            Refusal::UnknownModel(model) => write!(
                f,
                "the referee knows no manifest of model {model}; publish it first"
            ),
            Refusal::Token(error) => token_words(error, f),
            Refusal::Canonical(error) => write!(f, "the x402 contract says {error:?}"),
            Refusal::Collector(Collector::NotChannels(e)) => {
                write!(f, "{} is not the channels contract", e.caller)
            }
            Refusal::Reason(reason) => write!(f, "{reason}"),
            Refusal::Unknown(data) if data.is_empty() => {
                write!(f, "the contract reverted without a reason")
            }
            Refusal::Unknown(data) => write!(f, "the contract reverted with {data}"),
        }
    }
}

/// Micro-USD with its unit, whatever the width.
struct Money<T>(T);

impl<T: std::fmt::Display> std::fmt::Display for Money<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} µUSD", self.0)
    }
}

fn channels_words(error: &Channels, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    match error {
        Channels::ZeroAddress(_) => write!(f, "an address is zero"),
        Channels::WithdrawDelayOutOfRange(e) => {
            write!(
                f,
                "a withdraw delay of {} s is outside 15 minutes to 30 days",
                e.delay
            )
        }
        Channels::ZeroAmount(_) => write!(f, "the amount is zero"),
        Channels::EmptyBatch(_) => write!(f, "the batch is empty"),
        Channels::DepositNotReceived(e) => write!(
            f,
            "the deposit of {} brought {}; tokens that take a fee are not accepted",
            Money(e.expected),
            Money(e.received)
        ),
        Channels::InvalidVoucherSignature(e) => write!(
            f,
            "a voucher of channel {} is not signed by {}",
            e.channelId, e.expectedSigner
        ),
        Channels::InvalidAuthorizerSignature(e) => {
            write!(
                f,
                "the batch is not signed by its authorizer {}",
                e.expectedSigner
            )
        }
        Channels::MixedAuthorizers(e) => write!(
            f,
            "the batch mixes channels of authorizer {} and of {}",
            e.expected, e.got
        ),
        Channels::NotReceiverSide(e) => write!(
            f,
            "{} is neither receiver nor receiver's authorizer of channel {}",
            e.caller, e.channelId
        ),
        Channels::NotPayerSide(e) => write!(
            f,
            "{} is neither payer nor payer's authorizer of channel {}",
            e.caller, e.channelId
        ),
        Channels::ClaimAboveVoucher(e) => write!(
            f,
            "the voucher of {} is below the claim of {}",
            Money(e.voucher),
            Money(e.claimed)
        ),
        Channels::ClaimAboveBalance(e) => write!(
            f,
            "channel balance {} is below the claim of {}",
            Money(e.balance),
            Money(e.claimed)
        ),
        Channels::WithdrawalPending(e) => {
            write!(f, "a withdrawal is pending since {}", e.initiatedAt)
        }
        Channels::NoWithdrawalPending(_) => write!(f, "no withdrawal is pending"),
        Channels::WithdrawTooEarly(e) => {
            write!(f, "the withdrawal can be finalized from {} on", e.readyAt)
        }
        Channels::WithdrawAboveAvailable(e) => write!(
            f,
            "the channel has {} available, {} asked",
            Money(e.available),
            Money(e.amount)
        ),
        Channels::WrongRefundNonce(e) => {
            write!(
                f,
                "the refund's nonce is {}, expected {}",
                e.got, e.expected
            )
        }
    }
}

fn registry_words(error: &Registry, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    match error {
        Registry::ZeroAddress(_) => write!(f, "an address is zero"),
        Registry::ZeroAmount(_) => write!(f, "the amount is zero"),
        Registry::AlreadyRegistered(e) => write!(f, "{} is registered already", e.provider),
        Registry::NotRegistered(e) => write!(f, "{} is not registered", e.provider),
        Registry::EndpointTooLong(e) => {
            write!(
                f,
                "the endpoint has {} bytes, at most {} fit",
                e.length, e.most
            )
        }
        Registry::TooManyModels(e) => write!(f, "{} models, at most {} fit", e.count, e.most),
        Registry::OfferKeyKnown(e) => {
            write!(
                f,
                "{} has used the key {} before; make a new one",
                e.provider, e.key
            )
        }
        Registry::StakeNotReceived(e) => write!(
            f,
            "the stake of {} brought {}",
            Money(e.expected),
            Money(e.received)
        ),
        Registry::AboveStake(e) => write!(
            f,
            "{} has a stake of {}, {} asked",
            e.provider,
            Money(e.stake),
            Money(e.amount)
        ),
        Registry::NothingUnbonding(e) => write!(f, "{} has nothing unbonding", e.provider),
        Registry::StillUnbonding(e) => {
            write!(f, "the stake of {} unbonds until {}", e.provider, e.readyAt)
        }
        Registry::StakeLocked(e) => write!(
            f,
            "the stake of {} stays in while {} disputes about its receipts are open",
            e.provider, e.disputes
        ),
        Registry::NotJailed(e) => write!(f, "{} is not in jail", e.provider),
        Registry::StillJailed(e) => write!(f, "{} is in jail until {}", e.provider, e.until),
        Registry::BelowMinimum(e) => write!(
            f,
            "{} has a stake of {}, the least is {}; add stake first",
            e.provider,
            Money(e.stake),
            Money(e.least)
        ),
        Registry::NotArbiter(e) => write!(f, "{} is not the arbiter", e.caller),
        Registry::WindowOutlivesUnbonding(e) => write!(
            f,
            "a challenge window of {} s outlives an unbonding of {} s",
            e.window, e.unbonding
        ),
    }
}

fn vault_words(error: &Vault, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    match error {
        Vault::NotArbiter(e) => write!(f, "{} is not the arbiter", e.caller),
        Vault::HoldExists(e) => write!(f, "dispute {} holds already", e.disputeId),
        Vault::NoHold(e) => write!(f, "dispute {} holds nothing", e.disputeId),
        Vault::AboveHold(e) => write!(
            f,
            "dispute {} holds {}, {} asked",
            e.disputeId,
            Money(e.held),
            Money(e.amount)
        ),
    }
}

fn game_words(error: &Game, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    match error {
        Game::ZeroAddress(_) => write!(f, "an address is zero"),
        Game::ZeroTime(_) => write!(f, "the response time is zero"),
        Game::NotOfferKey(e) => write!(
            f,
            "the receipt is signed by {}, which was no offer key of {} at {}",
            e.signer, e.provider, e.servedAt
        ),
        Game::WindowClosed(e) => write!(
            f,
            "the receipt of {} could be doubted for {} s",
            e.servedAt, e.window
        ),
        Game::AlreadyConvicted(e) => write!(
            f,
            "the receipt {} is convicted already; close the game to have the bond back",
            e.receiptDigest
        ),
        Game::NotConvicted(e) => write!(f, "the receipt {} is not convicted", e.receiptDigest),
        Game::NothingToTrace(_) => {
            write!(f, "an answer without tokens has no trace; prove a fact")
        }
        Game::WrongSampler(e) => write!(
            f,
            "the sampler hashes to {}, the statement says {}",
            e.got, e.expected
        ),
        Game::GameExists(e) => write!(f, "the game {} is open already", e.game),
        Game::NoGame(e) => write!(f, "no game {} is open", e.game),
        Game::NotTheProvider(e) => write!(
            f,
            "{} is neither the provider {} nor its offer key",
            e.caller, e.provider
        ),
        Game::NotTheTurn(e) => write!(f, "in game {} it is the turn of: {:?}", e.game, e.turn),
        Game::TooLate(e) => write!(f, "the turn in game {} ended at {}", e.game, e.deadline),
        Game::TooEarly(e) => write!(f, "the turn in game {} lasts until {}", e.game, e.deadline),
        Game::OtherRoot(e) => write!(
            f,
            "the trace is posted with root {}, this one is {}",
            e.posted, e.got
        ),
        Game::WrongHash(e) => write!(f, "the hash is {}, expected {}", e.got, e.expected),
        Game::WrongLength(e) => write!(f, "{} bytes, expected {}", e.got, e.expected),
        Game::NoSuchChild(e) => write!(f, "there is no child {} of {}", e.index, e.count),
        Game::NothingBelow(e) => write!(f, "all was revealed in game {}; prove a step", e.game),
        Game::StepHolds(_) => write!(f, "the step shows nothing false"),
        Game::FactHolds(_) => write!(f, "the fact shows nothing false"),
        Game::NoEquivocation(_) => write!(
            f,
            "these are not two receipts that charge one payer twice for one request"
        ),
    }
}

fn scoreboard_words(error: &Scoreboard, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    match error {
        Scoreboard::EmptyBatch(_) => write!(f, "the batch of records is empty"),
        Scoreboard::WrongChannel(e) => write!(
            f,
            "the record names channel {}, its entry has the config of {}",
            e.got, e.expected
        ),
        Scoreboard::NotTheVault(e) => write!(
            f,
            "channel {} pays {}, the provider's vault is {}",
            e.channelId, e.receiver, e.vault
        ),
        Scoreboard::WrongToken(e) => write!(
            f,
            "channel {} pays in {}, which is not this market's money",
            e.channelId, e.token
        ),
        Scoreboard::WrongPrevious(e) => write!(
            f,
            "the last record of channel {} on the chain has hash {}, the previous one given has {}; read the newest and try again",
            e.channelId, e.posted, e.got
        ),
        Scoreboard::NothingNew(e) => {
            write!(f, "the record of channel {} is posted already", e.channelId)
        }
        Scoreboard::Forgotten(e) => write!(
            f,
            "the record of channel {} counts less than the one before",
            e.channelId
        ),
        Scoreboard::Unsound(e) => write!(
            f,
            "the counts in the record of channel {} do not fit each other",
            e.channelId
        ),
        Scoreboard::AboveClaims(e) => write!(
            f,
            "the record of channel {} tells of {}, claimed are {}",
            e.channelId,
            Money(e.revenue),
            Money(e.claimed)
        ),
        Scoreboard::NotThePayers(e) => write!(
            f,
            "a payer alone may report failures and nothing else of channel {}",
            e.channelId
        ),
        Scoreboard::InvalidPayerSignature(e) => write!(
            f,
            "the record of channel {} is not signed by {}",
            e.channelId, e.expectedSigner
        ),
        Scoreboard::NotOfferKey(e) => write!(
            f,
            "{} was never an offer key of {}",
            e.authorizer, e.provider
        ),
        Scoreboard::MixedAuthorizers(e) => write!(
            f,
            "the batch mixes channels of authorizer {} and of {}",
            e.expected, e.got
        ),
        Scoreboard::InvalidProviderSignature(e) => write!(
            f,
            "the batch of records is not signed by {}",
            e.expectedSigner
        ),
        Scoreboard::NothingCounted(e) => write!(f, "nothing is counted of {} yet", e.provider),
        Scoreboard::PercentOutOfRange(e) => write!(f, "{} is no percentage", e.percent),
    }
}

fn adapter_words(error: &Adapter, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    match error {
        Adapter::OtherIdentityRegistry(e) => write!(
            f,
            "the reputation registry belongs to the identity registry {}, not {}",
            e.got, e.expected
        ),
        Adapter::NotTheOwner(e) => write!(
            f,
            "agent {} is owned by {}, not {}",
            e.agentId, e.owner, e.provider
        ),
        Adapter::NotLinked(e) => write!(f, "{} has linked no agent yet", e.provider),
        Adapter::TooEarly(e) => write!(
            f,
            "the score of {} can be published again at {}",
            e.provider, e.readyAt
        ),
        Adapter::NothingNew(e) => write!(f, "nothing new is posted of {}", e.provider),
    }
}

fn token_words(error: &Dollar, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    match error {
        Dollar::ERC20InsufficientBalance(e) => write!(
            f,
            "{} has {}, {} needed",
            e.sender,
            Money(e.balance),
            Money(e.needed)
        ),
        Dollar::ERC20InsufficientAllowance(e) => write!(
            f,
            "{} may take {}, {} needed",
            e.spender,
            Money(e.allowance),
            Money(e.needed)
        ),
        Dollar::AuthorizationSpent(e) => write!(
            f,
            "the authorization {} of {} was used or cancelled",
            e.nonce, e.authorizer
        ),
        Dollar::AuthorizationNotYetValid(e) => {
            write!(f, "the authorization counts from {} on", e.validAfter)
        }
        Dollar::AuthorizationExpired(e) => {
            write!(f, "the authorization expired at {}", e.validBefore)
        }
        Dollar::CallerIsNotPayee(e) => write!(
            f,
            "only the payee {} may use this authorization, not {}",
            e.payee, e.caller
        ),
        Dollar::InvalidAuthorizationSignature(e) => {
            write!(f, "the authorization is not signed by {}", e.expectedSigner)
        }
        Dollar::MintTooLarge(e) => write!(
            f,
            "{} is more than one mint gives ({})",
            Money(e.value),
            Money(e.most)
        ),
    }
}

/// An RPC error as ours: a revert is decoded, the rest keeps its words.
pub(crate) fn from_rpc(what: &'static str, error: RpcError<TransportErrorKind>) -> ChainError {
    match error {
        RpcError::ErrorResp(payload) => match payload.as_revert_data() {
            Some(data) => ChainError::Refused {
                what,
                why: Box::new(Refusal::decode(&data)),
            },
            None => ChainError::Rpc(format!("{what}: {}", payload.message)),
        },
        RpcError::Transport(TransportErrorKind::Custom(error)) => {
            ChainError::Unreachable(match error.downcast::<reqwest::Error>() {
                Ok(error) => without_secrets(*error),
                Err(error) => with_causes(&*error),
            })
        }
        RpcError::Transport(kind) => ChainError::Unreachable(with_causes(&kind)),
        RpcError::NullResp => ChainError::BadAnswer {
            what,
            why: "null".into(),
        },
        RpcError::DeserError { err, .. } => ChainError::BadAnswer {
            what,
            why: err.to_string(),
        },
        other => ChainError::Rpc(format!("{what}: {other}")),
    }
}

/// A url may hold a secret in its path: only its host is shown.
fn without_secrets(error: reqwest::Error) -> String {
    let host = error
        .url()
        .and_then(|url| url.host_str())
        .map(str::to_owned);
    let words = with_causes(&error.without_url());
    match host {
        Some(host) => format!("{host}: {words}"),
        None => words,
    }
}

/// An error and what caused it, in one line: an HTTP client hides the reason two levels down.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    words
}

/// A token amount as micro-USD, refused where it does not fit.
pub(crate) fn micro_usd(amount: U256) -> Result<MicroUsd, ChainError> {
    u64::try_from(amount)
        .map(MicroUsd)
        .map_err(|_| ChainError::AmountTooLarge(amount))
}
