//! What the bench's prompts are cut from: checked-in prose, so that no two prompts are alike and each is what people
//! write.

use anyhow::{Result, ensure};
use assay_model::{EncodeOptions, LoadedModel};
use assay_protocol::TokenId;

const PROSE: &str = include_str!("../../../model/src/quality/text/prose.txt");

/// From one prompt's beginning to the next one's, in tokens; odd and no round number, so that they fall anywhere.
const STRIDE: usize = 61;

/// The prose as a model's tokens.
pub(crate) struct Text {
    /// What opens every text of this model, where something does.
    bos: Option<TokenId>,
    tokens: Vec<TokenId>,
}

impl Text {
    pub(crate) fn new(loaded: &LoadedModel) -> Result<Text> {
        let options = EncodeOptions {
            add_bos: true,
            parse_special: false,
        };
        let mut tokens = loaded.tokenizer.encode(PROSE, options)?;
        let bos = loaded.tokenizer.spec().bos;
        let bos = bos.filter(|bos| tokens.first() == Some(bos));
        tokens.drain(..usize::from(bos.is_some()));
        ensure!(!tokens.is_empty(), "the tokenizer makes nothing of a text");
        Ok(Text { bos, tokens })
    }

    /// The prompt of this number: so many tokens from a place of its own, round the text's end where need be.
    pub(crate) fn prompt(&self, number: usize, len: usize) -> Vec<TokenId> {
        let from = number * STRIDE % self.tokens.len();
        let words = self.tokens.iter().cycle().skip(from);
        self.bos.iter().chain(words).copied().take(len).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_their_length_and_differ() {
        let text = Text {
            bos: Some(9_999),
            tokens: (0..1_000).collect(),
        };
        assert_eq!(text.prompt(0, 3), [9_999, 0, 1]);
        assert_eq!(text.prompt(2, 2), [9_999, 122]);
        assert_eq!(text.prompt(3, 2_000).len(), 2_000, "longer than the text");
        let bare = Text { bos: None, ..text };
        assert_eq!(bare.prompt(16, 25)[23..], [999, 0], "round the end");
    }
}
