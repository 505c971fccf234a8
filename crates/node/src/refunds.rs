//! Gives payers back what they did not spend, at once and without their paying gas: x402's `refund` payment. What is
//! charged is claimed in the same transaction; what is running keeps its channel.

use std::sync::Arc;

use assay_chain::{ChainError, Claim};
use assay_payments::AcceptError;
use assay_payments::payee::{Account, OnChain, Refunded, Refusal};
use assay_payments::payee_chain::Seen;
use assay_payments::x402::{Code, Network, PaymentPayload, PaymentResponse, ResponseExtra};
use assay_protocol::{B256, MicroUsd};

use crate::clock::now;
use crate::till::{Declined, Taken, Till};

/// What a claim and a refund in one transaction take, about.
const REFUND_GAS: u64 = 220_000;

impl Till {
    /// Refunds `asked`, or all that is left. Asking again after everything was given back tells of that refund.
    pub(crate) async fn refund(
        self: &Arc<Self>,
        payment: &PaymentPayload,
        asked: Option<MicroUsd>,
        request_id: B256,
    ) -> Result<(B256, PaymentResponse), Declined> {
        let unavailable = |error: ChainError| Declined::Unavailable(error.to_string());
        let presented = self.judge(payment, MicroUsd::ZERO, request_id)?;
        let channel_id = presented.voucher.voucher.channel_id;
        let chain = self.read_channel(channel_id).await.map_err(unavailable)?;
        let price = self.gas_price().await.map_err(unavailable)?;
        let plan = self
            .with_ledger(move |ledger| ledger.refund(&presented, asked, chain, now()))
            .await;
        let plan = match plan {
            Ok(plan) => plan,
            Err(AcceptError::Refused(Refusal::NothingLeft)) => {
                let account = self.ledger().account(&channel_id).cloned();
                let done = account.and_then(|account| Some((account.refunded?, account)));
                let Some((refunded, account)) = done else {
                    return Err(self.refused(&Refusal::NothingLeft, &presented, Some(chain)));
                };
                return Ok((channel_id, self.refund_response(&account, refunded)));
            }
            Err(AcceptError::Refused(refusal)) => {
                return Err(self.refused(&refusal, &presented, Some(chain)));
            }
            Err(error) => return Err(Declined::Unavailable(error.to_string())),
        };
        // Frees the channel on every way out.
        let taken = Taken::hold(self, plan.reservation, presented.config.payer);
        let failed = |message: String| {
            self.decline(Code::RefundFailed.as_str(), message, self.terms.deposit_min)
        };
        let cost = price.cost(REFUND_GAS);
        if cost > plan.amount {
            return Err(failed(format!(
                "giving {} back costs {cost} of gas: withdraw it on the chain, or ask when gas is cheaper",
                plan.amount
            )));
        }
        let voucher = self
            .ledger()
            .account(&channel_id)
            .map(|known| known.voucher);
        let claim = plan
            .claim
            .zip(voucher)
            .map(|(total_claimed, voucher)| Claim {
                config: presented.config,
                voucher,
                total_claimed,
            });
        let (config, relay) = (&presented.config, &self.relay);
        let sent = self
            .market
            .refund_after_claim(
                relay,
                relay,
                claim.as_ref(),
                config,
                plan.amount,
                plan.nonce,
            )
            .await;
        let mined = sent.map_err(|error| match error {
            ChainError::Refused { .. } | ChainError::Reverted { .. } => {
                failed(format!("the refund failed: {error}"))
            }
            other => unavailable(other),
        })?;
        tracing::info!(channel = %channel_id, amount = %plan.amount, transaction = %mined.hash, "refunded");
        let refunded = Refunded {
            amount: plan.amount,
            transaction: mined.hash,
        };
        // At the least the chain is as this transaction left it.
        let left = OnChain {
            balance: MicroUsd(chain.balance.0.saturating_sub(plan.amount.0)),
            claimed: plan.claim.unwrap_or(chain.claimed),
            refund_nonce: plan.nonce.saturating_add(1),
            ..chain
        };
        let account = self
            .refunded(taken, refunded, left)
            .await
            .map_err(|error| {
                // The payer has its money; what is read of the chain next says so.
                tracing::error!(error, "a refund went through and could not be entered");
                Declined::Unavailable(error)
            })?;
        Ok((channel_id, self.refund_response(&account, refunded)))
    }

    async fn refunded(
        self: &Arc<Self>,
        taken: Taken,
        refunded: Refunded,
        left: OnChain,
    ) -> Result<Account, String> {
        let channel_id = taken.reservation.channel_id;
        let seen = self.read_seen(channel_id).await.unwrap_or(Seen {
            newest: left,
            settled_claims: MicroUsd::ZERO,
        });
        let work = move |ledger: &mut assay_payments::PayeeLedger| {
            let result = ledger.refunded(&taken.reservation, refunded, &seen, now());
            let account = ledger.account(&channel_id).cloned();
            (taken, result.map(|()| account))
        };
        let (mut taken, result) = self.with_ledger(work).await;
        taken.done(result.is_ok());
        drop(taken);
        match result {
            Ok(Some(account)) => Ok(account),
            Ok(None) => Err("the channel's account is gone".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn refund_response(&self, account: &Account, refunded: Refunded) -> PaymentResponse {
        PaymentResponse {
            success: true,
            error_reason: None,
            error_message: None,
            payer: Some(account.config.payer),
            transaction: refunded.transaction.to_string(),
            network: Network(self.terms.channels.chain_id),
            amount: Some(refunded.amount.0.to_string()),
            extra: Some(ResponseExtra {
                charged_amount: None,
                channel_state: Some(account.state()),
            }),
        }
    }
}
