//! The messages, field by field as in the official packages' schemas (`@x402/core`, `@x402/evm`). Amounts are decimal
//! strings on the wire and [`MicroUsd`] here; what does not fit is refused, never rounded.

use std::fmt;
use std::str::FromStr;

use assay_protocol::channel::{ChannelConfig, SignedVoucher, Voucher};
use assay_protocol::{Address, B256, MicroUsd, Signature};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

/// An amount in the token's base unit: a decimal string without sign or leading zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub MicroUsd);

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decimal(&String::deserialize(deserializer)?)
            .map(|units| Self(MicroUsd(units)))
            .map_err(de::Error::custom)
    }
}

/// A whole number that travels as a decimal string, as a refund's nonce does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decimal(pub u64);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        decimal(&String::deserialize(deserializer)?)
            .map(Self)
            .map_err(de::Error::custom)
    }
}

fn decimal(text: &str) -> Result<u64, &'static str> {
    let canonical = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !canonical || !digits {
        return Err("an amount must be a decimal string without sign or leading zero");
    }
    text.parse().map_err(|_| "an amount does not fit 64 bits")
}

/// A CAIP-2 name of an EVM chain: `eip155:<chain id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub u64);

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "eip155:{}", self.0)
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = text
            .strip_prefix("eip155:")
            .ok_or("a network must be eip155:<chain id>")?;
        decimal(id).map(Self)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// `402 Payment Required`: what would be taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    pub x402_version: Literal2,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub resource: ResourceInfo,
    pub accepts: Vec<PaymentRequirements>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// The number 2 and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Literal2;

impl Serialize for Literal2 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(super::VERSION)
    }
}

impl<'de> Deserialize<'de> for Literal2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            super::VERSION => Ok(Self),
            other => Err(de::Error::custom(format_args!(
                "x402Version is {other}, only 2 is spoken here"
            ))),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceInfo {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}

/// One way to pay. `amount` is the request's ceiling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    pub scheme: String,
    pub network: Network,
    pub amount: Amount,
    pub asset: Address,
    pub pay_to: Address,
    pub max_timeout_seconds: u64,
    pub extra: RequirementsExtra,
}

/// What `batch-settlement` adds to the requirements; both states are there only when they correct the client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequirementsExtra {
    pub receiver_authorizer: Address,
    pub withdraw_delay: u64,
    /// The token's EIP-712 name and version, for the deposit's authorization.
    pub name: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset_transfer_method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_deposit: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_state: Option<ChannelState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voucher_state: Option<VoucherState>,
}

/// A channel as the payee knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelState {
    pub channel_id: B256,
    pub balance: Amount,
    pub total_claimed: Amount,
    pub withdraw_requested_at: u64,
    pub refund_nonce: Decimal,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged_cumulative_amount: Option<Amount>,
}

/// The last voucher that the payee holds: proof that its total was promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoucherState {
    pub signed_max_claimable: Amount,
    pub signature: Signature,
}

/// The client's payment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    pub x402_version: Literal2,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceInfo>,
    pub accepted: PaymentRequirements,
    pub payload: Payload,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// The scheme's part of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Payload {
    Voucher(VoucherPayload),
    /// Opens or tops up the channel first, then pays as a voucher does.
    Deposit(DepositPayload),
    /// Asks for what is not spent.
    Refund(RefundPayload),
}

impl Payload {
    /// The channel and the voucher, which every kind carries.
    pub fn voucher(&self) -> (&ChannelConfigBody, &VoucherBody) {
        match self {
            Self::Voucher(body) => (&body.channel_config, &body.voucher),
            Self::Deposit(body) => (&body.channel_config, &body.voucher),
            Self::Refund(body) => (&body.channel_config, &body.voucher),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoucherPayload {
    pub channel_config: ChannelConfigBody,
    pub voucher: VoucherBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DepositPayload {
    pub channel_config: ChannelConfigBody,
    pub voucher: VoucherBody,
    pub deposit: Deposit,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundPayload {
    pub channel_config: ChannelConfigBody,
    pub voucher: VoucherBody,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<Amount>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deposit {
    pub amount: Amount,
    pub authorization: DepositAuthorization,
}

/// Only EIP-3009 is taken; Permit2 is named so that its refusal can say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum DepositAuthorization {
    Erc3009Authorization(Erc3009Authorization),
    Permit2Authorization(Value),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Erc3009Authorization {
    pub valid_after: Decimal,
    pub valid_before: Decimal,
    pub salt: B256,
    pub signature: Signature,
}

/// [`ChannelConfig`] in x402's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelConfigBody {
    pub payer: Address,
    pub payer_authorizer: Address,
    pub receiver: Address,
    pub receiver_authorizer: Address,
    pub token: Address,
    pub withdraw_delay: u64,
    pub salt: B256,
}

impl From<ChannelConfig> for ChannelConfigBody {
    fn from(config: ChannelConfig) -> Self {
        Self {
            payer: config.payer,
            payer_authorizer: config.payer_authorizer,
            receiver: config.receiver,
            receiver_authorizer: config.receiver_authorizer,
            token: config.token,
            withdraw_delay: config.withdraw_delay_s,
            salt: config.salt,
        }
    }
}

impl From<ChannelConfigBody> for ChannelConfig {
    fn from(body: ChannelConfigBody) -> Self {
        Self {
            payer: body.payer,
            payer_authorizer: body.payer_authorizer,
            receiver: body.receiver,
            receiver_authorizer: body.receiver_authorizer,
            token: body.token,
            withdraw_delay_s: body.withdraw_delay,
            salt: body.salt,
        }
    }
}

/// A signed voucher in x402's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VoucherBody {
    pub channel_id: B256,
    pub max_claimable_amount: Amount,
    pub signature: Signature,
}

impl From<SignedVoucher> for VoucherBody {
    fn from(signed: SignedVoucher) -> Self {
        Self {
            channel_id: signed.voucher.channel_id,
            max_claimable_amount: Amount(signed.voucher.max_claimable),
            signature: signed.signature,
        }
    }
}

impl From<VoucherBody> for SignedVoucher {
    fn from(body: VoucherBody) -> Self {
        let voucher = Voucher {
            channel_id: body.channel_id,
            max_claimable: body.max_claimable_amount.0,
        };
        Self {
            voucher,
            signature: body.signature,
        }
    }
}

/// `PAYMENT-RESPONSE`: what became of the payment. A voucher makes no transaction, so that one is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentResponse {
    pub success: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<Address>,
    pub transaction: String,
    pub network: Network,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<ResponseExtra>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseExtra {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charged_amount: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_state: Option<ChannelState>,
}
