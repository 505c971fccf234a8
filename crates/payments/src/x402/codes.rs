//! The error words that the official client acts upon. Two of them make it read the state beside them and try again.

/// Why a payment was refused; [`Code::as_str`] is the official package's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The voucher starts from another total than the payee's: the answer carries the payee's state.
    CumulativeAmountMismatch,
    /// The voucher promises less than the chain has already paid out.
    CumulativeBelowClaimed,
    CumulativeExceedsBalance,
    VoucherSignature,
    ChannelNotFound,
    ChannelBusy,
    ChannelIdMismatch,
    ReceiverMismatch,
    ReceiverAuthorizerMismatch,
    TokenMismatch,
    WithdrawDelayMismatch,
    PayloadType,
    Scheme,
    NetworkMismatch,
    StateUnavailable,
    DepositFailed,
    DepositBelowMin,
    RefundNoBalance,
    RefundAmount,
    RefundFailed,
    /// The payer accepted other requirements than ours, such as a lower amount.
    OtherRequirements,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CumulativeAmountMismatch => {
                "invalid_batch_settlement_evm_cumulative_amount_mismatch"
            }
            Self::CumulativeBelowClaimed => "invalid_batch_settlement_evm_cumulative_below_claimed",
            Self::CumulativeExceedsBalance => {
                "invalid_batch_settlement_evm_cumulative_exceeds_balance"
            }
            Self::VoucherSignature => "invalid_batch_settlement_evm_voucher_signature",
            Self::ChannelNotFound => "invalid_batch_settlement_evm_channel_not_found",
            Self::ChannelBusy => "invalid_batch_settlement_evm_channel_busy",
            Self::ChannelIdMismatch => "invalid_batch_settlement_evm_channel_id_mismatch",
            Self::ReceiverMismatch => "invalid_batch_settlement_evm_receiver_mismatch",
            Self::ReceiverAuthorizerMismatch => {
                "invalid_batch_settlement_evm_receiver_authorizer_mismatch"
            }
            Self::TokenMismatch => "invalid_batch_settlement_evm_token_mismatch",
            Self::WithdrawDelayMismatch => "invalid_batch_settlement_evm_withdraw_delay_mismatch",
            Self::PayloadType => "invalid_batch_settlement_evm_payload_type",
            Self::Scheme => "invalid_batch_settlement_evm_scheme",
            Self::NetworkMismatch => "invalid_batch_settlement_evm_network_mismatch",
            Self::StateUnavailable => "invalid_batch_settlement_evm_verification_state_unavailable",
            Self::DepositFailed => "invalid_batch_settlement_evm_deposit_transaction_failed",
            Self::DepositBelowMin => "invalid_batch_settlement_evm_deposit_below_min_deposit",
            Self::RefundNoBalance => "invalid_batch_settlement_evm_refund_no_balance",
            Self::RefundAmount => "invalid_batch_settlement_evm_refund_amount_invalid",
            Self::RefundFailed => "invalid_batch_settlement_evm_refund_transaction_failed",
            Self::OtherRequirements => "No matching payment requirements",
        }
    }
}
