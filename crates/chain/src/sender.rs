//! The market's moves as transactions. Decides nothing: whoever calls has decided.

use alloy_primitives::{Bytes, U256, aliases::U40};
use alloy_sol_types::SolCall;
use assay_protocol::channel::{
    ChannelConfig, ChannelError, ClaimEntry, DepositAuthorization, ReceiveAuthorization, Refund,
    SignedVoucher,
};
use assay_protocol::{Address, B256, MicroUsd, ModelId, Signature, Timestamp};
use serde::{Deserialize, Serialize};

use crate::abi::{IChannels, IPayoutVault, IRegistry, ITestDollar};
use crate::claims::claim_call;
use crate::error::ChainError;
use crate::keys::Key;
use crate::reader::Market;
use crate::transact::Mined;

/// How long an authorization that is used at once stays valid.
const AUTHORIZATION_S: u64 = 3_600;

/// What a provider tells the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    pub offer_key: Address,
    pub payout: Address,
    /// Where its node answers, as in `http://127.0.0.1:9001`; at most 256 bytes.
    pub endpoint: String,
    /// At most 64.
    pub models: Vec<ModelId>,
    pub stake: MicroUsd,
}

/// A voucher to cash: take up to `total_claimed` in all from this channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub config: ChannelConfig,
    pub voucher: SignedVoucher,
    pub total_claimed: MicroUsd,
}

impl Claim {
    /// The row that the receiver's authorizer signs.
    pub fn entry(&self) -> ClaimEntry {
        ClaimEntry {
            channel_id: self.voucher.voucher.channel_id,
            max_claimable: self.voucher.voucher.max_claimable,
            total_claimed: self.total_claimed,
        }
    }
}

impl Market {
    /// Mints test dollars. Only the test token has this.
    pub async fn mint(
        &self,
        key: &Key,
        to: Address,
        amount: MicroUsd,
    ) -> Result<Mined, ChainError> {
        let value = U256::from(amount.0);
        self.to_token("mint", key, ITestDollar::mintCall { to, value })
            .await
    }

    /// Moves stablecoins.
    pub async fn transfer(
        &self,
        key: &Key,
        to: Address,
        amount: MicroUsd,
    ) -> Result<Mined, ChainError> {
        let value = U256::from(amount.0);
        self.to_token("transfer", key, ITestDollar::transferCall { to, value })
            .await
    }

    /// Enters the registry and stakes, in one transaction of the owner's key.
    pub async fn register(
        &self,
        owner: &Key,
        registration: &Registration,
    ) -> Result<Mined, ChainError> {
        let register = IRegistry::registerCall {
            offerKey: registration.offer_key,
            payout: registration.payout,
            endpoint: registration.endpoint.clone(),
            models: registration.models.clone(),
        };
        let mut calls = vec![Bytes::from(register.abi_encode())];
        if registration.stake > MicroUsd::ZERO {
            let stake = self.stake_call(owner, registration.stake).await?;
            calls.push(stake.abi_encode().into());
        }
        self.to_registry("register", owner, IRegistry::multicallCall { data: calls })
            .await
    }

    /// Adds to the owner's stake.
    pub async fn add_stake(&self, owner: &Key, amount: MicroUsd) -> Result<Mined, ChainError> {
        let call = self.stake_call(owner, amount).await?;
        self.to_registry("stake", owner, call).await
    }

    pub async fn update_endpoint(&self, owner: &Key, endpoint: &str) -> Result<Mined, ChainError> {
        let endpoint = endpoint.to_owned();
        self.to_registry("endpoint", owner, IRegistry::setEndpointCall { endpoint })
            .await
    }

    pub async fn update_models(
        &self,
        owner: &Key,
        models: &[ModelId],
    ) -> Result<Mined, ChainError> {
        let models = models.to_vec();
        self.to_registry("models", owner, IRegistry::setModelsCall { models })
            .await
    }

    pub async fn update_payout(&self, owner: &Key, payout: Address) -> Result<Mined, ChainError> {
        self.to_registry("payout", owner, IRegistry::setPayoutCall { payout })
            .await
    }

    /// Retires the present offer key and names another.
    pub async fn rotate_offer_key(
        &self,
        owner: &Key,
        offer_key: Address,
    ) -> Result<Mined, ChainError> {
        let call = IRegistry::rotateOfferKeyCall {
            offerKey: offer_key,
        };
        self.to_registry("offer key", owner, call).await
    }

    /// Starts to take stake out; it can still be slashed until it is withdrawn.
    pub async fn unbond(&self, owner: &Key, amount: MicroUsd) -> Result<Mined, ChainError> {
        let amount = u128::from(amount.0);
        self.to_registry("unbond", owner, IRegistry::unbondCall { amount })
            .await
    }

    /// Takes out what has unbonded.
    pub async fn withdraw_stake(&self, owner: &Key) -> Result<Mined, ChainError> {
        self.to_registry("withdraw stake", owner, IRegistry::withdrawStakeCall {})
            .await
    }

    /// Puts the payer's money into a channel, which opens with its first deposit.
    pub async fn open_channel(
        &self,
        payer: &Key,
        config: &ChannelConfig,
        amount: MicroUsd,
    ) -> Result<Mined, ChainError> {
        let authorization = self.authorize_deposit(payer, config, amount).await?;
        self.deposit(payer, config, amount, &authorization).await
    }

    /// Signs a deposit that anybody may submit, into this channel and no other.
    pub async fn authorize_deposit(
        &self,
        payer: &Key,
        config: &ChannelConfig,
        amount: MicroUsd,
    ) -> Result<DepositAuthorization, ChainError> {
        config.validate()?;
        let channel_id = self.channel_id(config)?;
        let valid_before = self.chain.now().await?.plus_seconds(AUTHORIZATION_S);
        let mut deposit = DepositAuthorization {
            valid_after: Timestamp(0),
            valid_before,
            salt: U256::from_be_bytes(random_word()?),
            signature: Signature(Default::default()),
        };
        let collector = self.deployment().collector;
        let authorization = deposit.authorization(channel_id, payer.address(), collector, amount);
        deposit.signature = payer.sign_authorization(&authorization, &self.token_domain());
        Ok(deposit)
    }

    /// Submits a payer's signed deposit; `relay` pays the gas, the payer the money.
    pub async fn deposit(
        &self,
        relay: &Key,
        config: &ChannelConfig,
        amount: MicroUsd,
        authorization: &DepositAuthorization,
    ) -> Result<Mined, ChainError> {
        let call = IChannels::depositCall {
            config: abi_config(config)?,
            amount: u128::from(amount.0),
            collector: self.deployment().collector,
            collectorData: authorization.collector_data().into(),
        };
        self.to_channels("deposit", relay, call).await
    }

    /// Cashes vouchers in one transaction that anybody may send: `authorizer` signs the batch as
    /// the receiver's authorizer of every channel in it.
    pub async fn claim(
        &self,
        relay: &Key,
        authorizer: &Key,
        claims: &[Claim],
    ) -> Result<Mined, ChainError> {
        let call = claim_call(&self.sign_claims(authorizer, claims))?;
        self.to_channels("claim", relay, call).await
    }

    /// Moves what was claimed for a receiver to it. Anybody may.
    pub async fn settle(&self, key: &Key, receiver: Address) -> Result<Mined, ChainError> {
        let token = self.deployment().token;
        self.to_channels("settle", key, IChannels::settleCall { receiver, token })
            .await
    }

    /// Moves what was claimed into a provider's vault, where its window starts. Anybody may.
    pub async fn collect(&self, key: &Key, provider: Address) -> Result<Mined, ChainError> {
        let vault = self.vault_of(provider).await?;
        let input = IPayoutVault::collectCall {}.abi_encode();
        self.chain.send("collect", key, vault, input).await
    }

    /// Pays a provider what has outlived its window. Anybody may.
    pub async fn release(&self, key: &Key, provider: Address) -> Result<Mined, ChainError> {
        let vault = self.vault_of(provider).await?;
        let input = IPayoutVault::releaseCall {}.abi_encode();
        self.chain.send("release", key, vault, input).await
    }

    /// Gives unclaimed money back to the payer at once; `authorizer` signs for the receiver.
    pub async fn refund(
        &self,
        relay: &Key,
        authorizer: &Key,
        config: &ChannelConfig,
        amount: MicroUsd,
    ) -> Result<Mined, ChainError> {
        let channel_id = self.channel_id(config)?;
        let nonce = self.channel(channel_id).await?.refund_nonce;
        let refund = Refund {
            channel_id,
            nonce,
            amount,
        };
        let signature = authorizer.sign_refund(&refund, &self.channel_domain());
        let call = IChannels::refundWithSignatureCall {
            config: abi_config(config)?,
            amount: u128::from(amount.0),
            nonce: U256::from(nonce),
            receiverAuthorizerSignature: bytes(&signature),
        };
        self.to_channels("refund", relay, call).await
    }

    /// Starts the delay after which the payer may take unclaimed money out.
    pub async fn initiate_withdraw(
        &self,
        payer: &Key,
        config: &ChannelConfig,
        amount: MicroUsd,
    ) -> Result<Mined, ChainError> {
        let call = IChannels::initiateWithdrawCall {
            config: abi_config(config)?,
            amount: u128::from(amount.0),
        };
        self.to_channels("withdraw", payer, call).await
    }

    /// Takes the money out after the delay.
    pub async fn finalize_withdraw(
        &self,
        payer: &Key,
        config: &ChannelConfig,
    ) -> Result<Mined, ChainError> {
        let config = abi_config(config)?;
        self.to_channels(
            "withdraw",
            payer,
            IChannels::finalizeWithdrawCall { config },
        )
        .await
    }

    async fn stake_call(
        &self,
        owner: &Key,
        amount: MicroUsd,
    ) -> Result<IRegistry::stakeWithAuthorizationCall, ChainError> {
        let authorization = ReceiveAuthorization {
            from: owner.address(),
            to: self.deployment().registry,
            value: amount,
            valid_after: Timestamp(0),
            valid_before: self.chain.now().await?.plus_seconds(AUTHORIZATION_S),
            nonce: B256::from(random_word()?),
        };
        let signature = owner.sign_authorization(&authorization, &self.token_domain());
        Ok(IRegistry::stakeWithAuthorizationCall {
            provider: owner.address(),
            amount: u128::from(amount.0),
            validAfter: U256::from(authorization.valid_after.0),
            validBefore: U256::from(authorization.valid_before.0),
            nonce: authorization.nonce,
            signature: bytes(&signature),
        })
    }

    async fn to_token<C: SolCall>(
        &self,
        what: &'static str,
        key: &Key,
        call: C,
    ) -> Result<Mined, ChainError> {
        let to = self.deployment().token;
        self.chain.send(what, key, to, call.abi_encode()).await
    }

    async fn to_registry<C: SolCall>(
        &self,
        what: &'static str,
        key: &Key,
        call: C,
    ) -> Result<Mined, ChainError> {
        let to = self.deployment().registry;
        self.chain.send(what, key, to, call.abi_encode()).await
    }

    async fn to_channels<C: SolCall>(
        &self,
        what: &'static str,
        key: &Key,
        call: C,
    ) -> Result<Mined, ChainError> {
        let to = self.deployment().channels;
        self.chain.send(what, key, to, call.abi_encode()).await
    }
}

pub(crate) fn abi_config(config: &ChannelConfig) -> Result<IChannels::ChannelConfig, ChannelError> {
    Ok(IChannels::ChannelConfig {
        payer: config.payer,
        payerAuthorizer: config.payer_authorizer,
        receiver: config.receiver,
        receiverAuthorizer: config.receiver_authorizer,
        token: config.token,
        withdrawDelay: U40::try_from(config.withdraw_delay_s)
            .map_err(|_| ChannelError::WithdrawDelay(config.withdraw_delay_s))?,
        salt: config.salt,
    })
}

pub(crate) fn abi_claim(claim: &Claim) -> Result<IChannels::VoucherClaim, ChannelError> {
    Ok(IChannels::VoucherClaim {
        voucher: IChannels::Voucher {
            channel: abi_config(&claim.config)?,
            maxClaimableAmount: u128::from(claim.voucher.voucher.max_claimable.0),
        },
        signature: bytes(&claim.voucher.signature),
        totalClaimed: u128::from(claim.total_claimed.0),
    })
}

pub(crate) fn bytes(signature: &Signature) -> Bytes {
    Bytes::copy_from_slice(signature.0.as_slice())
}

fn random_word() -> Result<[u8; 32], ChainError> {
    let mut word = [0u8; 32];
    getrandom::fill(&mut word).map_err(|e| {
        ChainError::Stopped(format!("the operating system gives no randomness: {e}"))
    })?;
    Ok(word)
}
