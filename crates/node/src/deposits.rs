//! Submits payers' deposits. The authorization is in the ledger before the chain gets it and stays there until no
//! reorganization can take the deposit back, so a crash or a reorg loses none; the chain takes it once, so nothing is
//! deposited twice.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use assay_chain::{ChainError, Mined};
use assay_payments::payee::{self, OnChain, Presented};
use assay_payments::payee_chain::{DepositStep, PendingDeposit};
use assay_payments::x402::{Code, DepositAuthorization, DepositPayload};
use assay_protocol::channel::DepositAuthorization as SignedDeposit;
use assay_protocol::{B256, Timestamp};

use crate::clock::now;
use crate::till::{Declined, Till};

/// Deposits looked after in one round.
const ROUND_MAX: usize = 64;

/// The deposits that somebody is submitting now.
#[derive(Default)]
pub(crate) struct Submitting(Mutex<HashSet<B256>>);

/// The right to submit one deposit.
struct Turn<'a> {
    all: &'a Submitting,
    nonce: B256,
}

impl Submitting {
    fn turn(&self, nonce: B256) -> Option<Turn<'_>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(nonce).then_some(Turn { all: self, nonce })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.nonce);
    }
}

impl Till {
    /// Submits the payer's deposit, after everything else about the payment was found good. The transaction is known
    /// unless an earlier attempt of ours had gone through unheard.
    pub(crate) async fn deposit(
        self: &Arc<Self>,
        deposit: &DepositPayload,
        presented: &Presented,
    ) -> Result<(OnChain, Option<B256>), Declined> {
        let pending = self.pending(deposit, presented)?;
        let unavailable = |error: ChainError| Declined::Unavailable(error.to_string());
        let channel_id = pending.channel_id;
        let before = self.read_channel(channel_id).await.map_err(unavailable)?;
        if self.arrived(&pending, 0).await.map_err(unavailable)? {
            return Ok((before, None));
        }
        let balance = before
            .balance
            .checked_add(pending.amount)
            .map_err(|_| self.deposit_failed(presented, "the deposit overflows".into()))?;
        let after = OnChain { balance, ..before };
        let known = self.ledger().account(&channel_id).cloned();
        payee::accept(known.as_ref(), &self.terms, presented, after, now())
            .map_err(|refusal| self.refused(&refusal, presented, Some(before)))?;
        let Some(_turn) = self.submitting.turn(pending.nonce()) else {
            return Err(self.refused(&payee::Refusal::Busy, presented, None));
        };
        let entrusted = pending.clone();
        self.with_ledger(move |ledger| ledger.entrust(entrusted))
            .await
            .map_err(|error| Declined::Unavailable(error.to_string()))?;
        let transaction = match self.submit(&pending).await {
            Ok(mined) => Some(mined.hash),
            // Another transaction may have brought it: then its authorization is spent, and the money is there.
            Err(ChainError::Refused { .. } | ChainError::Reverted { .. })
                if self.arrived(&pending, 0).await.map_err(unavailable)? =>
            {
                None
            }
            Err(error @ (ChainError::Refused { .. } | ChainError::Reverted { .. })) => {
                self.forget(&pending).await?;
                return Err(self.deposit_failed(presented, format!("the deposit failed: {error}")));
            }
            Err(error) => return Err(unavailable(error)),
        };
        if self.confirmations == 0 {
            self.forget(&pending).await?;
        }
        let chain = self.read_channel(channel_id).await.map_err(unavailable)?;
        Ok((chain, transaction))
    }

    /// The deposit as it is kept, if its authorization holds.
    fn pending(
        &self,
        deposit: &DepositPayload,
        presented: &Presented,
    ) -> Result<PendingDeposit, Declined> {
        let fail = |message| self.deposit_failed(presented, message);
        let amount = deposit.deposit.amount.0;
        // Its gas is ours to pay.
        if amount < self.terms.deposit_min {
            let (code, least) = (Code::DepositBelowMin, self.terms.deposit_min);
            let message = format!("a deposit of {amount} is too small: deposit {least} or more");
            return Err(self.decline(code.as_str(), message, presented.required));
        }
        let DepositAuthorization::Erc3009Authorization(authorization) =
            &deposit.deposit.authorization
        else {
            return Err(fail(
                "only EIP-3009 deposits are taken: use assetTransferMethod eip3009".into(),
            ));
        };
        let authorization = SignedDeposit {
            valid_after: Timestamp(authorization.valid_after.0),
            valid_before: Timestamp(authorization.valid_before.0),
            salt: authorization.salt.into(),
            signature: authorization.signature,
        };
        let channel_id = presented.voucher.voucher.channel_id;
        let collector = self.market.deployment().collector;
        let (payer, token) = (presented.config.payer, &self.terms.token);
        authorization
            .check(channel_id, payer, collector, amount, token)
            .map_err(|error| {
                fail(format!(
                    "the deposit's authorization does not hold: {error}"
                ))
            })?;
        Ok(PendingDeposit {
            config: presented.config,
            channel_id,
            amount,
            authorization,
            taken_at: now(),
        })
    }

    fn deposit_failed(&self, presented: &Presented, message: String) -> Declined {
        self.decline(Code::DepositFailed.as_str(), message, presented.required)
    }

    async fn submit(&self, pending: &PendingDeposit) -> Result<Mined, ChainError> {
        let PendingDeposit {
            config,
            amount,
            authorization,
            ..
        } = pending;
        self.market
            .deposit(&self.relay, config, *amount, authorization)
            .await
    }

    async fn arrived(&self, pending: &PendingDeposit, depth: u64) -> Result<bool, ChainError> {
        self.market
            .deposit_arrived(&pending.config, &pending.authorization, depth)
            .await
    }

    async fn forget(self: &Arc<Self>, pending: &PendingDeposit) -> Result<(), Declined> {
        let nonce = pending.nonce();
        self.with_ledger(move |ledger| ledger.forget_deposit(&nonce))
            .await
            .map_err(|error| Declined::Unavailable(error.to_string()))
    }

    /// Looks after deposits that are not settled: submits again what the chain has not got. One that cannot be looked
    /// after now keeps neither the others nor the claims back.
    pub(crate) async fn tend_deposits(self: &Arc<Self>) {
        let open: Vec<PendingDeposit> = self.ledger().deposits().take(ROUND_MAX).cloned().collect();
        for pending in open {
            if let Err(error) = self.tend(&pending).await {
                let channel = pending.channel_id;
                tracing::warn!(%error, %channel, "a deposit cannot be looked after now");
            }
        }
    }

    async fn tend(self: &Arc<Self>, pending: &PendingDeposit) -> Result<(), ChainError> {
        let Some(_turn) = self.submitting.turn(pending.nonce()) else {
            return Ok(());
        };
        let arrived = self.arrived(pending, 0).await?;
        let settled = match self.confirmations {
            0 => arrived,
            depth => self.arrived(pending, depth).await?,
        };
        let (channel, amount) = (pending.channel_id, pending.amount);
        let over = match pending.step(arrived, settled, now()) {
            DepositStep::Wait => false,
            DepositStep::Settled => true,
            DepositStep::Expired => {
                tracing::warn!(%channel, %amount, "a deposit did not come before its authorization ended; the payer keeps the money");
                true
            }
            DepositStep::Submit => match self.submit(pending).await {
                Ok(mined) => {
                    tracing::info!(%channel, %amount, transaction = %mined.hash, "submitted a deposit again");
                    self.confirmations == 0
                }
                // Cancelled by its payer, or the payer has spent the money: it may come back in a reorganization,
                // and costs nothing until its authorization ends.
                Err(error @ (ChainError::Refused { .. } | ChainError::Reverted { .. })) => {
                    tracing::info!(%error, %channel, "a deposit is not taken again");
                    false
                }
                Err(error) => return Err(error),
            },
        };
        if over && let Err(error) = self.forget(pending).await {
            tracing::warn!(?error, "a settled deposit stays in the ledger");
        }
        Ok(())
    }
}
