//! Disputes on the chain: `read` tells what `DisputeGame` and its events say as the dispute crate's
//! nouns, `send` makes transactions of its moves. This file turns nouns into ABI words and back; nothing
//! here decides a move.

mod read;
mod send;

use alloy_primitives::{Bytes, U256};
use alloy_sol_types::SolValue;
use assay_dispute::{Fact, Node, Opening, Stage, Step, TokenShown};
use assay_protocol::trace::{EntryShown, RowShown};
use assay_protocol::{
    DurationMs, MicroUsd, Receipt, Statement, StopReason, Tier, Timestamp, TokenCount,
};

use crate::abi;
use crate::abi::IDisputeGame::{Game as AbiGame, Receipt as AbiReceipt, Statement as AbiStatement};

pub(crate) use read::Events;
pub use read::{Conviction, Dispute, DisputeFilter};

/// `abi.encode(Step)`: what the referee is given of a step.
pub fn encode_step(step: &Step) -> Vec<u8> {
    abi::Step {
        op: step.op,
        row: step.row,
        chunk: step.chunk,
        slot: step.slot,
        witness: step.witness,
        openings: step.openings.iter().map(opening).collect(),
        rows: step.rows.iter().map(row).collect(),
        entries: step.entries.iter().map(entry).collect(),
        tokens: step.tokens.iter().map(token).collect(),
        sampler: Bytes::copy_from_slice(&step.sampler),
    }
    .abi_encode()
}

/// `abi.encode(Fact)`.
pub fn encode_fact(fact: &Fact) -> Vec<u8> {
    abi::Fact {
        kind: fact.kind as u8,
        position: fact.position,
        tokens: fact.tokens.iter().map(token).collect(),
        sampler: Bytes::copy_from_slice(&fact.sampler),
    }
    .abi_encode()
}

fn opening(opening: &Opening) -> abi::Opening {
    abi::Opening {
        op: opening.op,
        row: opening.row,
        first: opening.first,
        packing: opening.packing as u8,
        data: Bytes::copy_from_slice(&opening.data),
        siblings: opening.siblings.clone(),
        path: opening.path.clone(),
    }
}

fn row(row: &RowShown) -> abi::Row {
    abi::Row {
        format: row.format,
        data: Bytes::copy_from_slice(&row.data),
        path: row.path.clone(),
    }
}

fn entry(entry: &EntryShown) -> abi::Entry {
    abi::Entry {
        data: Bytes::copy_from_slice(&entry.data),
        path: entry.path.clone(),
    }
}

fn token(token: &TokenShown) -> abi::TokenOpening {
    abi::TokenOpening {
        token: token.token,
        path: token.path.clone(),
    }
}

impl From<&Statement> for AbiStatement {
    fn from(statement: &Statement) -> Self {
        AbiStatement {
            modelId: statement.model_id,
            promptRoot: statement.prompt_root,
            nPrompt: statement.n_prompt.0,
            samplerHash: statement.sampler_hash,
            outputRoot: statement.output_root,
            nOutput: statement.n_output.0,
            stopReason: statement.stop_reason as u8,
        }
    }
}

fn to_abi(receipt: &Receipt) -> AbiReceipt {
    AbiReceipt {
        statement: (&receipt.statement).into(),
        provider: receipt.provider,
        payer: receipt.payer,
        channelId: receipt.channel_id,
        chargedMicroUsd: receipt.charged.0,
        cumulative: receipt.cumulative.0,
        servedAt: receipt.served_at.0,
        ttftMs: receipt.ttft.0,
        durationMs: receipt.duration.0,
        tier: receipt.tier as u8,
        requestId: receipt.request_id,
    }
}

/// None where the words name no reason or no tier that there is: a provider may sign such, and no
/// payer takes it.
fn from_abi(receipt: &AbiReceipt) -> Option<Receipt> {
    let statement = &receipt.statement;
    Some(Receipt {
        statement: Statement {
            model_id: statement.modelId,
            prompt_root: statement.promptRoot,
            n_prompt: TokenCount(statement.nPrompt),
            sampler_hash: statement.samplerHash,
            output_root: statement.outputRoot,
            n_output: TokenCount(statement.nOutput),
            stop_reason: match statement.stopReason {
                1 => StopReason::EndOfText,
                2 => StopReason::MaxTokens,
                3 => StopReason::StopString,
                4 => StopReason::Cut,
                _ => return None,
            },
        },
        provider: receipt.provider,
        payer: receipt.payer,
        channel_id: receipt.channelId,
        charged: MicroUsd(receipt.chargedMicroUsd),
        cumulative: MicroUsd(receipt.cumulative),
        served_at: Timestamp(receipt.servedAt),
        ttft: DurationMs(receipt.ttftMs),
        duration: DurationMs(receipt.durationMs),
        tier: match receipt.tier {
            0 => Tier::None,
            1 => Tier::Staked,
            2 => Tier::Optimistic,
            3 => Tier::Proven,
            4 => Tier::Tolerant,
            5 => Tier::Unverified,
            _ => return None,
        },
        request_id: receipt.requestId,
    })
}

/// The contract names nodes as the dispute crate does: a tree's leaf is the next tree's top. In its events
/// a node is one word: `stage << 104 | height << 96 | op << 64 | row << 32 | index`.
fn node(word: U256) -> Option<Node> {
    let bits = |from: usize, mask: u64| (word >> from).as_limbs()[0] & mask;
    let word32 = |from: usize| bits(from, u32::MAX.into()) as u32;
    Some(Node {
        stage: Stage::numbered(bits(104, 0xff) as u8)?,
        op: word32(64),
        row: word32(32),
        height: bits(96, 0xff) as u32,
        index: word32(0).into(),
    })
}

/// The node that a game is at, as its events would name it.
fn held(game: &AbiGame) -> Option<Node> {
    let word = |value: u32, shift: usize| U256::from(value) << shift;
    node(
        word(game.stage.into(), 104)
            | word(game.height.into(), 96)
            | word(game.op, 64)
            | word(game.row, 32)
            | word(game.index, 0),
    )
}
