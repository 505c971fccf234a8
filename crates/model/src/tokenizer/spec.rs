//! A tokenizer as data: its pieces, its algorithm, and the blob that a model file holds.
//! The blob's hash stands in the manifest, so two nodes with one model read text alike.
//! No floats: SentencePiece scores are kept as their ranks, which is all that merging uses.

use assay_protocol::TokenId;
use assay_protocol::codec::{CodecError, Reader, Writer};

const TAG: &str = "assay/tokenizer/v1";
pub(crate) const PIECES_MAX: usize = 1 << 20;
pub(crate) const PIECE_BYTES_MAX: usize = 1 << 12;
pub(crate) const MERGES_MAX: usize = 1 << 21;
const EOS_MAX: usize = 16;

/// Everything that decides how text becomes tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerSpec {
    pub algorithm: Algorithm,
    /// Token id = index.
    pub pieces: Vec<Piece>,
    pub bos: Option<TokenId>,
    /// Tokens that end an answer.
    pub eos: Vec<TokenId>,
    /// Whether the model was trained with `bos` before every text.
    pub add_bos: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text's own bytes: no byte-to-letter mapping, no `▁` for a space.
    pub bytes: Box<[u8]>,
    pub class: PieceClass,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PieceClass {
    Normal = 0,
    /// Stands for no text; made from text only where the caller asks.
    Control = 1,
    /// Cut out of the text before the algorithm sees it, always.
    UserDefined = 2,
    /// One byte of a character that has no piece.
    Byte = 3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Algorithm {
    /// Byte pairs, merged in the order of the list; text is split first.
    Bpe {
        split: Split,
        merges: Vec<(TokenId, TokenId)>,
    },
    /// SentencePiece's greedy merges: of all neighbours, the pair whose piece ranks lowest.
    Spm {
        space_prefix: bool,
        /// One per piece, 0 the best score; equal scores share a rank.
        ranks: Vec<u32>,
    },
}

/// How text is cut into words before byte pairs merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Split {
    /// GPT-2's pattern.
    Gpt2 = 0,
    /// Every digit alone, then GPT-2's pattern.
    SmolLm = 1,
    /// No cuts.
    Whole = 2,
}

/// Why a tokenizer's data is no tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("tokenizer: {0}")]
    Codec(#[from] CodecError),
    #[error("tokenizer has {0} pieces, 1 to {PIECES_MAX} allowed")]
    PieceCount(usize),
    #[error("token {id} has {bytes} bytes")]
    PieceLength { id: usize, bytes: usize },
    #[error("token id {0} is outside the vocabulary")]
    NoSuchToken(TokenId),
    #[error("merge {0} makes no piece of the vocabulary")]
    DeadMerge(usize),
    #[error("{ranks} ranks for {pieces} pieces")]
    RankCount { ranks: usize, pieces: usize },
}

impl TokenizerSpec {
    /// A trivial tokenizer for tests: ids 0 to 255 are the bytes, then `<|bos|>`, `<|eos|>`,
    /// `<|user|>`, `<|assistant|>`, and unused control tokens up to `vocab_size` (at least 260).
    pub fn bytes(vocab_size: usize) -> Self {
        let normal = |byte: u8| Piece {
            bytes: Box::new([byte]),
            class: PieceClass::Normal,
        };
        let control = |name: String| Piece {
            bytes: name.into_bytes().into(),
            class: PieceClass::Control,
        };
        let mut pieces: Vec<Piece> = (0..=u8::MAX).map(normal).collect();
        for name in ["<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>"] {
            pieces.push(control(name.to_owned()));
        }
        for id in pieces.len()..vocab_size {
            pieces.push(control(format!("<|unused{id}|>")));
        }
        TokenizerSpec {
            algorithm: Algorithm::Bpe {
                split: Split::Whole,
                merges: Vec::new(),
            },
            pieces,
            bos: Some(256),
            eos: vec![257],
            add_bos: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let count = self.pieces.len();
        if !(1..=PIECES_MAX).contains(&count) {
            return Err(SpecError::PieceCount(count));
        }
        for (id, piece) in self.pieces.iter().enumerate() {
            let bytes = piece.bytes.len();
            let max = match piece.class {
                PieceClass::Byte => 1,
                _ => PIECE_BYTES_MAX,
            };
            if !(1..=max).contains(&bytes) {
                return Err(SpecError::PieceLength { id, bytes });
            }
        }
        let known = |&id: &TokenId| match (id as usize) < count {
            true => Ok(()),
            false => Err(SpecError::NoSuchToken(id)),
        };
        self.bos.iter().chain(&self.eos).try_for_each(known)?;
        match &self.algorithm {
            Algorithm::Bpe { merges, .. } => merges
                .iter()
                .try_for_each(|(left, right)| known(left).and_then(|()| known(right))),
            Algorithm::Spm { ranks, .. } if ranks.len() != count => Err(SpecError::RankCount {
                ranks: ranks.len(),
                pieces: count,
            }),
            Algorithm::Spm { .. } => Ok(()),
        }
    }

    /// The canonical bytes.
    pub fn to_blob(&self) -> Vec<u8> {
        let mut writer = Writer::new(TAG);
        writer.u8(self.add_bos.into());
        writer.u32(self.bos.unwrap_or(TokenId::MAX));
        writer.len(self.eos.len());
        for &id in &self.eos {
            writer.u32(id);
        }
        writer.len(self.pieces.len());
        for piece in &self.pieces {
            writer.u8(piece.class as u8).bytes(&piece.bytes);
        }
        match &self.algorithm {
            Algorithm::Bpe { split, merges } => {
                writer.u8(0).u8(*split as u8).len(merges.len());
                for &(left, right) in merges {
                    writer.u32(left).u32(right);
                }
            }
            Algorithm::Spm {
                space_prefix,
                ranks,
            } => {
                writer.u8(1).u8((*space_prefix).into()).len(ranks.len());
                for &rank in ranks {
                    writer.u32(rank);
                }
            }
        }
        writer.finish()
    }

    pub fn from_blob(blob: &[u8]) -> Result<Self, SpecError> {
        let mut reader = Reader::new(TAG, blob)?;
        let add_bos = flag(&mut reader)?;
        let bos = Some(reader.u32()?).filter(|&id| id != TokenId::MAX);
        let eos_count = reader.len(EOS_MAX)?;
        let eos = (0..eos_count)
            .map(|_| reader.u32())
            .collect::<Result<_, _>>()?;
        let mut pieces = Vec::new();
        for _ in 0..reader.len(PIECES_MAX)? {
            let class = match reader.u8()? {
                0 => PieceClass::Normal,
                1 => PieceClass::Control,
                2 => PieceClass::UserDefined,
                3 => PieceClass::Byte,
                other => return Err(bad("class of a piece", other)),
            };
            let bytes = reader.bytes_max(PIECE_BYTES_MAX)?.into();
            pieces.push(Piece { bytes, class });
        }
        let algorithm = match reader.u8()? {
            0 => {
                let split = match reader.u8()? {
                    0 => Split::Gpt2,
                    1 => Split::SmolLm,
                    2 => Split::Whole,
                    other => return Err(bad("split", other)),
                };
                let mut merges = Vec::new();
                for _ in 0..reader.len(MERGES_MAX)? {
                    merges.push((reader.u32()?, reader.u32()?));
                }
                Algorithm::Bpe { split, merges }
            }
            1 => {
                let space_prefix = flag(&mut reader)?;
                let mut ranks = Vec::new();
                for _ in 0..reader.len(PIECES_MAX)? {
                    ranks.push(reader.u32()?);
                }
                Algorithm::Spm {
                    space_prefix,
                    ranks,
                }
            }
            other => return Err(bad("algorithm", other)),
        };
        reader.finish()?;
        let spec = TokenizerSpec {
            algorithm,
            pieces,
            bos,
            eos,
            add_bos,
        };
        spec.check()?;
        Ok(spec)
    }
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, SpecError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(bad("flag", other)),
    }
}

fn bad(what: &'static str, value: u8) -> SpecError {
    SpecError::Codec(CodecError::BadValue {
        what,
        value: value.into(),
    })
}
