//! Moves in plain words, for events, logs and terminals.

use assay_dispute::{Below, Fact, FactKind, Move, Node, Reveal, Stage};
use assay_protocol::trace::TOKEN_OP;

/// What a side did, as a sentence goes on after its name.
pub fn describe_move(play: &Move) -> String {
    match play {
        Move::PostTrace { root, children } => format!(
            "posts the root {} of its trace, and {} nodes below it",
            short(&root.to_string()),
            children.len()
        ),
        Move::Request { index, .. } => {
            format!("asks for what is below node {index} of the last reveal: there the traces part")
        }
        Move::Reveal { below } => describe_below(below),
        Move::Prove { step } => {
            let what = match step.op {
                TOKEN_OP => "a token of the answer",
                _ => "one element",
            };
            format!(
                "proves {what} false: {} openings of its trace, {} weight rows, {} table entries",
                step.openings.len(),
                step.rows.len(),
                step.entries.len()
            )
        }
        Move::ProveFact { fact } => describe_fact(fact),
        Move::Timeout => "ends the game: the other side's clock ran out".into(),
        Move::Close => "takes its bond back: the receipt is convicted already".into(),
    }
}

pub(crate) fn describe_fact(fact: &Fact) -> String {
    let why = fact_words(fact.kind);
    format!("proves the statement false by itself: {why}")
}

/// What a provider revealed, and where.
pub fn describe_reveal(reveal: &Reveal) -> String {
    format!("{} {}", describe_below(&reveal.below), place(&reveal.node))
}

fn describe_below(below: &Below) -> String {
    match below {
        Below::Children(children) => format!("reveals {} nodes", children.len()),
        Below::Bytes(bytes) => format!("reveals {} bytes", bytes.len()),
    }
}

fn place(node: &Node) -> String {
    match node.stage {
        Stage::Ops => "of the tree of ops".into(),
        Stage::Rows => format!("of the rows of op {}", node.op),
        Stage::Chunks => format!("of the vector of op {}, row {}", node.op, node.row),
        Stage::Bytes => format!(
            "of op {}, row {}: its chunk {}",
            node.op, node.row, node.index
        ),
    }
}

/// Why a statement is false by itself.
pub(crate) fn fact_words(kind: FactKind) -> &'static str {
    match kind {
        FactKind::TooManyTokens => "it has more output than the sampler allows",
        FactKind::NotAtTheLimit => "it says that it reached the limit, and it did not",
        FactKind::NotEnded => "it says that the text ended, and the last token is no end",
        FactKind::PastTheEnd => "it goes on after an end of text",
        FactKind::EndedOtherwise => "its last token is an end of text, and it gives another reason",
        FactKind::NoStopString => "it says that a stop string came, and none was asked for",
        FactKind::Context => "it has more positions than the model's context",
        FactKind::UnknownToken => "it has a token that the vocabulary does not have",
        FactKind::Empty => "it has no output and no reason for that",
    }
}

/// The beginning and the end of a long hexadecimal word.
pub(crate) fn short(text: &str) -> String {
    match (text.get(..8), text.get(text.len().saturating_sub(4)..)) {
        (Some(head), Some(tail)) if text.len() > 14 => format!("{head}…{tail}"),
        _ => text.to_owned(),
    }
}

/// What a challenger asked for.
pub(crate) fn describe_request(node: &Node) -> String {
    match node.stage {
        Stage::Bytes => format!("asks for the bytes {}", place(node)),
        _ => format!("asks for what is below node {} {}", node.index, place(node)),
    }
}
