//! Text to token ids and back. Reads only a [`TokenizerSpec`]: never a GGUF, never a network.
//! Start at [`Tokenizer::encode`]; the pieces are in `spec`, the two algorithms in `bpe` and `spm`.

mod bpe;
mod from_gguf;
mod merge;
mod spec;
mod special;
mod split;
mod spm;

use std::collections::HashMap;
use std::sync::Arc;

use assay_protocol::TokenId;

pub use from_gguf::TokenizerImportError;
pub use spec::{Algorithm, Piece, PieceClass, SpecError, Split, TokenizerSpec};

use special::{Fragment, SpecialIndex};

/// Longest text that one call encodes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Marks a break that no special token may cross and that no token stands for; see
/// [`crate::ChatTemplate`]. One of Unicode's 32 noncharacters, chosen so that the text has none.
pub(crate) type Guard = char;

/// How a text is to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Put the begin-of-text token in front, if the model's metadata asks for one.
    pub add_bos: bool,
    /// Read `<|im_start|>` and its like as control tokens. Never set this for a user's own text:
    /// it would let the user write the other side's turns.
    pub parse_special: bool,
}

/// Why a text has no token ids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("text has {bytes} bytes, at most {TEXT_BYTES_MAX} are encoded; send a shorter one")]
    TooLong { bytes: usize },
}

/// A model's tokenizer; a clone shares the tables.
#[derive(Debug, Clone)]
pub struct Tokenizer(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    spec: TokenizerSpec,
    /// Text of the pieces that merging may make: special tokens are not among them.
    text: HashMap<Box<[u8]>, TokenId>,
    bytes: [Option<TokenId>; 256],
    merges: bpe::MergeTable,
    special: SpecialIndex,
}

impl Tokenizer {
    pub fn new(spec: TokenizerSpec) -> Result<Self, SpecError> {
        spec.check()?;
        let mut text = HashMap::with_capacity(spec.pieces.len());
        let mut bytes = [None; 256];
        for (id, piece) in (0..).zip(&spec.pieces) {
            match piece.class {
                PieceClass::Normal => {
                    text.entry(piece.bytes.clone()).or_insert(id);
                }
                PieceClass::Byte => bytes[usize::from(piece.bytes[0])] = Some(id),
                // Cut out of the text before the algorithm sees it, or never made from text.
                PieceClass::UserDefined | PieceClass::Control => {}
            }
        }
        let mut merges = HashMap::new();
        if let Algorithm::Bpe { merges: list, .. } = &spec.algorithm {
            merges = bpe::merge_table(&spec.pieces, list, &text)?;
        }
        let special = SpecialIndex::new(&spec.pieces);
        Ok(Tokenizer(Arc::new(Tables {
            spec,
            text,
            bytes,
            merges,
            special,
        })))
    }

    /// Reads what [`TokenizerSpec::to_blob`] wrote.
    pub fn from_blob(blob: &[u8]) -> Result<Self, SpecError> {
        Self::new(TokenizerSpec::from_blob(blob)?)
    }

    pub fn spec(&self) -> &TokenizerSpec {
        &self.0.spec
    }

    pub fn vocab_size(&self) -> usize {
        self.0.spec.pieces.len()
    }

    /// Whether the model says with this token that it is done.
    pub fn is_eos(&self, id: TokenId) -> bool {
        self.0.spec.eos.contains(&id)
    }

    /// Whether this token stands for no text of the answer.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.piece(id)
            .is_some_and(|piece| piece.class == PieceClass::Control)
    }

    /// The control token with exactly this text.
    pub fn control_id(&self, text: &str) -> Option<TokenId> {
        self.0.special.control_id(text.as_bytes())
    }

    /// The token ids of a text.
    ///
    /// A byte that the vocabulary has no token for (SmolLM2 lacks a few control characters) is
    /// left out, as the reference implementations do.
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<TokenId>, EncodeError> {
        self.encode_guarded(text, options, None)
    }

    /// As [`Tokenizer::encode`]; special tokens do not reach across a guard, and guards vanish.
    pub(crate) fn encode_guarded(
        &self,
        text: &str,
        options: EncodeOptions,
        guard: Option<Guard>,
    ) -> Result<Vec<TokenId>, EncodeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(EncodeError::TooLong { bytes: text.len() });
        }
        let tables = &*self.0;
        let mut ids = Vec::new();
        if let (true, true, Some(bos)) = (options.add_bos, tables.spec.add_bos, tables.spec.bos) {
            ids.push(bos);
        }
        // A control token stands before the text's start too, as far as the space prefix goes.
        let mut after_special = true;
        for fragment in tables.special.split(text, options.parse_special) {
            match fragment {
                Fragment::Special(id) => {
                    ids.push(id);
                    after_special = true;
                }
                Fragment::Text(text) => {
                    let unguarded: String;
                    let text = match guard {
                        Some(guard) if text.contains(guard) => {
                            unguarded = text.replace(guard, "");
                            &unguarded
                        }
                        _ => text,
                    };
                    match &tables.spec.algorithm {
                        Algorithm::Bpe { split, .. } => bpe::encode(tables, *split, text, &mut ids),
                        Algorithm::Spm { space_prefix, .. } => {
                            let prefix = *space_prefix && after_special;
                            spm::encode(tables, text, prefix, &mut ids);
                        }
                    }
                    after_special = false;
                }
            }
        }
        Ok(ids)
    }

    /// The text with a guard after the first character of every control token's name in it.
    pub(crate) fn guard_control_names(&self, text: &str, guard: Guard) -> String {
        self.0.special.guard_control_names(text, guard)
    }

    /// The bytes of the text that the tokens stand for; control tokens stand for none.
    pub fn decode(&self, ids: &[TokenId]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id));
        }
        bytes
    }

    /// One token's bytes; none for a control token or an id outside the vocabulary.
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        match self.piece(id) {
            Some(piece) if piece.class != PieceClass::Control => &piece.bytes,
            _ => &[],
        }
    }

    /// What a token is called in print: a control token by its name.
    pub fn token_name(&self, id: TokenId) -> String {
        self.piece(id).map_or_else(
            || format!("<token {id}>"),
            |piece| String::from_utf8_lossy(&piece.bytes).into_owned(),
        )
    }

    fn piece(&self, id: TokenId) -> Option<&Piece> {
        self.0.spec.pieces.get(id as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy() -> Tokenizer {
        Tokenizer::new(TokenizerSpec::bytes(300)).unwrap()
    }

    #[test]
    fn a_text_survives_the_round_trip() {
        let tokenizer = toy();
        let text = "héllo\n\0 世界 <|eos|>";
        let ids = tokenizer.encode(text, EncodeOptions::default()).unwrap();
        assert_eq!(tokenizer.decode(&ids), text.as_bytes());
    }

    #[test]
    fn control_tokens_are_read_only_where_asked() {
        let tokenizer = toy();
        let eos = tokenizer.control_id("<|eos|>").unwrap();
        let read = |parse_special| {
            let options = EncodeOptions {
                add_bos: false,
                parse_special,
            };
            tokenizer.encode("a<|eos|>", options).unwrap()
        };
        assert_eq!(read(true), [97, eos]);
        assert_eq!(read(false).len(), 8);
        assert!(tokenizer.is_eos(eos));
    }

    #[test]
    fn an_id_outside_the_vocabulary_has_no_text() {
        assert_eq!(toy().decode(&[1_000_000, 97]), b"a");
    }

    #[test]
    fn the_blob_holds_all_of_the_tokenizer() {
        let spec = TokenizerSpec::bytes(300);
        let blob = spec.to_blob();
        assert_eq!(TokenizerSpec::from_blob(&blob).unwrap(), spec);
        assert_eq!(
            Tokenizer::from_blob(&blob[..blob.len() - 1])
                .unwrap_err()
                .to_string(),
            TokenizerSpec::from_blob(&blob[..blob.len() - 1])
                .unwrap_err()
                .to_string()
        );
    }

    #[test]
    fn an_oversized_text_is_refused() {
        let text = "a".repeat(TEXT_BYTES_MAX + 1);
        assert_eq!(
            toy().encode(&text, EncodeOptions::default()),
            Err(EncodeError::TooLong { bytes: text.len() })
        );
    }
}
