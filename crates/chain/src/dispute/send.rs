//! The moves of a dispute as transactions. Decides nothing: whoever calls has decided.

use alloy_primitives::{Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolValue};
use assay_dispute::{Below, Fact, Move, Step};
use assay_protocol::{Address, B256, ModelId, Receipt, SamplerParams, Signed, TypedData};

use super::{Dispute, encode_fact, encode_step, to_abi};
use crate::abi::{IDisputeGame, IModels, ITestDollar};
use crate::error::ChainError;
use crate::keys::Key;
use crate::reader::Market;
use crate::transact::Mined;

/// The contract's name of a challenger's game about a receipt.
pub(super) fn game_id(receipt_digest: B256, challenger: Address) -> B256 {
    keccak256((receipt_digest, challenger).abi_encode())
}

impl Market {
    /// The game of this challenger about this receipt, whether it is open or not.
    pub fn game_id(&self, receipt: &Receipt, challenger: Address) -> B256 {
        game_id(receipt.digest(&self.domain()), challenger)
    }

    /// Stores a model's manifest where the referee reads it; anybody may, once is enough.
    pub async fn publish_model(&self, key: &Key, manifest: &[u8]) -> Result<Mined, ChainError> {
        let manifest = Bytes::copy_from_slice(manifest);
        let to = self.disputable()?.models;
        let input = IModels::publishCall { manifest }.abi_encode();
        self.chain.send("model", key, to, input).await
    }

    pub async fn is_published(&self, model: ModelId) -> Result<bool, ChainError> {
        let to = self.disputable()?.models;
        let call = IModels::isPublishedCall { modelId: model };
        self.chain.view("model", to, call).await
    }

    /// Doubts a receipt: the key's bond goes in. The first time, the game is allowed to take bonds
    /// from this key; it takes them in its own `open` and nowhere else.
    pub async fn open_dispute(
        &self,
        key: &Key,
        receipt: &Signed<Receipt>,
        sampler: &SamplerParams,
    ) -> Result<(B256, Mined), ChainError> {
        self.allow_bonds(key).await?;
        let call = IDisputeGame::openCall {
            receipt: to_abi(&receipt.body),
            signature: signature(receipt),
            sampler: sampler.encode().into(),
        };
        let mined = self.to_game("dispute", key, call).await?;
        Ok((self.game_id(&receipt.body, key.address()), mined))
    }

    /// The provider's first move. The key is the owner's or the present offer key.
    pub async fn post_trace(
        &self,
        key: &Key,
        receipt: &Receipt,
        challenger: Address,
        root: B256,
        children: &[B256],
    ) -> Result<Mined, ChainError> {
        let call = IDisputeGame::postTraceCall {
            receipt: to_abi(receipt),
            challenger,
            root,
            children: children.to_vec(),
        };
        self.to_game("trace", key, call).await
    }

    /// The challenger's question.
    pub async fn request(
        &self,
        key: &Key,
        receipt: &Receipt,
        index: u32,
        hash: B256,
        siblings: &[B256],
    ) -> Result<Mined, ChainError> {
        let call = IDisputeGame::requestCall {
            receipt: to_abi(receipt),
            index,
            child: hash,
            siblings: siblings.to_vec(),
        };
        self.to_game("request", key, call).await
    }

    /// The answer to it. Anybody may give it.
    pub async fn reveal(&self, key: &Key, game: B256, below: &Below) -> Result<Mined, ChainError> {
        match below {
            Below::Children(children) => {
                let children = children.clone();
                let call = IDisputeGame::revealCall { game, children };
                self.to_game("reveal", key, call).await
            }
            Below::Bytes(data) => {
                let data = Bytes::copy_from_slice(data);
                let call = IDisputeGame::revealDataCall { game, data };
                self.to_game("reveal", key, call).await
            }
        }
    }

    /// The challenger's proof: one false element. Ends the game.
    pub async fn prove(
        &self,
        key: &Key,
        receipt: &Receipt,
        step: &Step,
    ) -> Result<Mined, ChainError> {
        let call = IDisputeGame::proveCall {
            receipt: to_abi(receipt),
            step: encode_step(step).into(),
        };
        self.to_game("step", key, call).await
    }

    /// Convicts a receipt of a fact, with a game or without one; no bond is taken.
    pub async fn prove_fact(
        &self,
        key: &Key,
        receipt: &Signed<Receipt>,
        fact: &Fact,
    ) -> Result<Mined, ChainError> {
        let call = IDisputeGame::proveFactCall {
            receipt: to_abi(&receipt.body),
            signature: signature(receipt),
            fact: encode_fact(fact).into(),
        };
        self.to_game("fact", key, call).await
    }

    /// Convicts a provider of two receipts for one request; no bond is taken.
    pub async fn equivocation(
        &self,
        key: &Key,
        one: &Signed<Receipt>,
        other: &Signed<Receipt>,
    ) -> Result<Mined, ChainError> {
        let call = IDisputeGame::equivocationCall {
            one: to_abi(&one.body),
            oneSignature: signature(one),
            other: to_abi(&other.body),
            otherSignature: signature(other),
        };
        self.to_game("two receipts", key, call).await
    }

    /// Ends a game whose clock ran out. Anybody may.
    pub async fn timeout(
        &self,
        key: &Key,
        receipt: &Receipt,
        challenger: Address,
    ) -> Result<Mined, ChainError> {
        let call = IDisputeGame::timeoutCall {
            receipt: to_abi(receipt),
            challenger,
        };
        self.to_game("timeout", key, call).await
    }

    /// Brings the bond back from a game about a receipt that another one convicted. Anybody may.
    pub async fn close(
        &self,
        key: &Key,
        receipt: &Receipt,
        challenger: Address,
    ) -> Result<Mined, ChainError> {
        let call = IDisputeGame::closeCall {
            receipt: to_abi(receipt),
            challenger,
        };
        self.to_game("close", key, call).await
    }

    /// Pays what the game owes to an account because a transfer to it failed. Anybody may.
    pub async fn pay_owed(&self, key: &Key, account: Address) -> Result<Mined, ChainError> {
        self.to_game("owed", key, IDisputeGame::payOwedCall { account })
            .await
    }

    /// Makes one move of the dispute crate in this game.
    pub async fn play(
        &self,
        key: &Key,
        dispute: &Dispute,
        play: &Move,
    ) -> Result<Mined, ChainError> {
        let receipt = &dispute.receipt.body;
        let game = &dispute.game;
        match play {
            Move::PostTrace { root, children } => {
                self.post_trace(key, receipt, game.challenger, *root, children)
                    .await
            }
            Move::Request {
                index,
                hash,
                siblings,
            } => self.request(key, receipt, *index, *hash, siblings).await,
            Move::Reveal { below } => self.reveal(key, game.id, below).await,
            Move::Prove { step } => self.prove(key, receipt, step).await,
            Move::ProveFact { fact } => self.prove_fact(key, &dispute.receipt, fact).await,
            Move::Timeout => self.timeout(key, receipt, game.challenger).await,
            Move::Close => self.close(key, receipt, game.challenger).await,
        }
    }

    async fn allow_bonds(&self, key: &Key) -> Result<(), ChainError> {
        let deployment = self.disputable()?;
        let call = ITestDollar::allowanceCall {
            owner: key.address(),
            spender: deployment.dispute_game,
        };
        let allowed = self.chain.view("allowance", deployment.token, call).await?;
        if allowed >= U256::from(deployment.bond.0) {
            return Ok(());
        }
        let approve = ITestDollar::approveCall {
            spender: deployment.dispute_game,
            value: U256::MAX,
        };
        let input = approve.abi_encode();
        self.chain
            .send("allowance", key, deployment.token, input)
            .await?;
        Ok(())
    }

    async fn to_game<C: SolCall>(
        &self,
        what: &'static str,
        key: &Key,
        call: C,
    ) -> Result<Mined, ChainError> {
        let to = self.disputable()?.dispute_game;
        self.chain.send(what, key, to, call.abi_encode()).await
    }
}

fn signature(receipt: &Signed<Receipt>) -> Bytes {
    Bytes::copy_from_slice(receipt.signature.0.as_slice())
}
