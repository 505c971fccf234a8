//! Tiny models that can be talked to: the byte tokenizer and a chat template of its control tokens.

use assay_model::TokenizerSpec;

use crate::tiny::Tiny;

const TEMPLATE: &str = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\
                        {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

impl Tiny {
    /// With a tokenizer of the 256 bytes and a few control tokens, and a template that uses them.
    pub fn with_text(mut self) -> Tiny {
        self.tokenizer = TokenizerSpec::bytes(self.dims.vocab as usize).to_blob();
        self.chat_template = TEMPLATE.into();
        self
    }
}
