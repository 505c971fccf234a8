//! What a proxy does to an honest node's answer: each variant is one way of misbehaving.

use std::sync::Arc;

use assay_protocol::{Receipt, TokenId};

/// Changes a receipt, which is then signed again with the node's own key.
pub type ReceiptEdit = Arc<dyn Fn(&mut Receipt) + Send + Sync>;

/// One way of misbehaving.
#[derive(Clone)]
pub enum Tamper {
    /// Passes everything on.
    Nothing,
    /// Takes the paid request and closes the connection.
    DiesBeforeFirstToken,
    /// Takes the paid request and says nothing, ever.
    NeverStarts,
    /// Sends this many token events and then nothing, ever.
    StallsAfter(usize),
    /// Sends this many token events and then closes the connection.
    BreaksOffAfter(usize),
    /// Sends this many token events and then a proper end without a receipt.
    NoReceiptAfter(usize),
    /// An error body under HTTP 200.
    ErrorBodyOver200,
    /// HTTP 500.
    ServerError,
    /// HTTP 429.
    Busy,
    /// A line without an end.
    EndlessLine,
    /// Sends JSON that is none.
    Gibberish,
    /// Changes the receipt and signs it again.
    Receipt(ReceiptEdit),
    /// Signs the receipt with a key that nobody registered.
    StrangersSignature,
    /// Sends the first receipt that it ever saw, again and again.
    ReplaysReceipt,
    /// Changes the token at this position in the stream, not in the receipt.
    SwapsToken { position: usize, to: TokenId },
    /// Sends one more token before the receipt.
    AddsToken(TokenId),
    /// Leaves out the last token event.
    DropsLastToken,
    /// Demands more than the offer says.
    DearerThanOffer,
    /// Demands to be paid at another address.
    OtherPayee,
}

impl std::fmt::Debug for Tamper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Nothing => "nothing",
            Self::DiesBeforeFirstToken => "dies before its first token",
            Self::NeverStarts => "never starts",
            Self::StallsAfter(_) => "stalls",
            Self::BreaksOffAfter(_) => "breaks off",
            Self::NoReceiptAfter(_) => "sends no receipt",
            Self::ErrorBodyOver200 => "sends an error body over 200",
            Self::ServerError => "answers 500",
            Self::Busy => "answers 429",
            Self::EndlessLine => "never ends a line",
            Self::Gibberish => "sends gibberish",
            Self::Receipt(_) => "changes the receipt",
            Self::StrangersSignature => "signs with a stranger's key",
            Self::ReplaysReceipt => "replays a receipt",
            Self::SwapsToken { .. } => "swaps a token",
            Self::AddsToken(_) => "adds a token",
            Self::DropsLastToken => "drops the last token",
            Self::DearerThanOffer => "demands more than its offer",
            Self::OtherPayee => "demands to be paid elsewhere",
        };
        f.write_str(name)
    }
}
