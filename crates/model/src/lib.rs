//! From the outside world to the integer model: GGUF import, tokenizer, chat template, pinned download.
