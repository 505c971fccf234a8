//! Writes small GGUFs of both architectures with every packing in them, from a seed, for tests of
//! what is done with a GGUF. Their weights are random codes: they say nothing sensible.

use std::collections::BTreeMap;

pub(crate) struct TinyGguf {
    pub(crate) gemma: bool,
    pub(crate) seed: u64,
    pub(crate) template: Option<&'static str>,
}

const WIDTH: u64 = 256;
const FFN: u64 = 256;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const HEAD_DIM: u64 = 64;
const CONTEXT: u32 = 512;
/// 256 bytes, four control tokens, and what merging makes.
const MERGES: [&str; 3] = ["t h", "th e", "Ġ the"];

const F32: u32 = 0;
const F16: u32 = 1;
const Q4_1: u32 = 3;
const Q5_0: u32 = 6;
const Q8_0: u32 = 8;
const Q4_K: u32 = 12;
const Q6_K: u32 = 14;

impl TinyGguf {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = File {
            random: self.seed,
            ..File::default()
        };
        let name = if self.gemma { "gemma3" } else { "llama" };
        let layers = if self.gemma { 6 } else { 2 };
        file.string("general.architecture", name);
        for (key, value) in [
            ("block_count", layers),
            ("embedding_length", WIDTH as u32),
            ("feed_forward_length", FFN as u32),
            ("attention.head_count", HEADS as u32),
            ("attention.head_count_kv", KV_HEADS as u32),
            ("attention.key_length", HEAD_DIM as u32),
            ("context_length", CONTEXT),
        ] {
            file.uint(&format!("{name}.{key}"), value);
        }
        file.float(&format!("{name}.rope.freq_base"), 10_000.0);
        file.float(&format!("{name}.attention.layer_norm_rms_epsilon"), 1e-5);
        if self.gemma {
            file.uint("gemma3.attention.sliding_window", 32);
        }
        let vocab = self.tokenizer(&mut file);
        if let Some(template) = self.template {
            file.string("tokenizer.chat_template", template);
        }
        file.tensor("token_embd.weight", Q8_0, &[WIDTH, vocab]);
        file.tensor("output_norm.weight", F32, &[WIDTH]);
        if !self.gemma {
            file.tensor("output.weight", Q6_K, &[WIDTH, vocab]);
        }
        for layer in 0..layers {
            self.layer(&mut file, u64::from(layer));
        }
        file.finish()
    }

    fn layer(&self, file: &mut File, layer: u64) {
        let mut add = |part: &str, kind, shape: &[u64]| {
            file.tensor(&format!("blk.{layer}.{part}.weight"), kind, shape);
        };
        add("attn_norm", F32, &[WIDTH]);
        add("ffn_norm", F32, &[WIDTH]);
        add("attn_q", Q5_0, &[WIDTH, HEADS * HEAD_DIM]);
        add("attn_k", Q4_1, &[WIDTH, KV_HEADS * HEAD_DIM]);
        add("attn_v", Q8_0, &[WIDTH, KV_HEADS * HEAD_DIM]);
        add("attn_output", Q4_K, &[HEADS * HEAD_DIM, WIDTH]);
        add("ffn_gate", F16, &[WIDTH, FFN]);
        add("ffn_up", F32, &[WIDTH, FFN]);
        add("ffn_down", Q6_K, &[FFN, WIDTH]);
        if self.gemma {
            add("attn_q_norm", F32, &[HEAD_DIM]);
            add("attn_k_norm", F32, &[HEAD_DIM]);
            add("post_attention_norm", F32, &[WIDTH]);
            add("post_ffw_norm", F32, &[WIDTH]);
        }
    }

    /// A byte-level tokenizer for llama, SentencePiece for gemma; gives the number of tokens.
    fn tokenizer(&self, file: &mut File) -> u64 {
        let mut tokens: Vec<(String, i32, f32)> = Vec::new();
        for name in ["<|pad|>", "<|bos|>", "<eos>", "<|im_end|>"] {
            tokens.push((name.to_owned(), 3, -1000.0));
        }
        if self.gemma {
            tokens.extend((0..256).map(|b| (format!("<0x{b:02X}>"), 6, 0.0)));
            for (rank, piece) in ["▁", "t", "h", "e", "th", "the", "▁the"].iter().enumerate() {
                tokens.push(((*piece).to_owned(), 1, -(rank as f32)));
            }
            tokens.push(("\n".to_owned(), 4, 0.0));
        } else {
            tokens.extend((0..=255).map(|b| (letter(b).to_string(), 1, 0.0)));
            tokens.extend(MERGES.map(|merge| (merge.replace(' ', ""), 1, 0.0)));
            let merges: Vec<String> = MERGES.iter().map(|m| (*m).to_owned()).collect();
            file.strings("tokenizer.ggml.merges", &merges);
            file.string("tokenizer.ggml.pre", "smollm");
        }
        file.string(
            "tokenizer.ggml.model",
            if self.gemma { "llama" } else { "gpt2" },
        );
        let texts: Vec<String> = tokens.iter().map(|(text, ..)| text.clone()).collect();
        file.strings("tokenizer.ggml.tokens", &texts);
        file.words(
            "tokenizer.ggml.token_type",
            5,
            tokens.iter().map(|(_, class, _)| class.to_le_bytes()),
        );
        file.words(
            "tokenizer.ggml.scores",
            6,
            tokens.iter().map(|(.., score)| score.to_le_bytes()),
        );
        file.uint("tokenizer.ggml.bos_token_id", 1);
        file.uint("tokenizer.ggml.eos_token_id", 2);
        tokens.len() as u64
    }
}

/// GPT-2's letter for a byte.
fn letter(byte: u8) -> char {
    let code = u32::from(byte);
    let code = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        0..=0x20 => 0x100 + code,
        0x7f..=0xa0 => 0x121 + code - 0x7f,
        _ => 0x143,
    };
    char::from_u32(code).unwrap()
}

#[derive(Default)]
struct File {
    random: u64,
    metadata: BTreeMap<String, Vec<u8>>,
    tensors: Vec<(String, u32, Vec<u64>, u64)>,
    data: Vec<u8>,
}

impl File {
    fn string(&mut self, key: &str, value: &str) {
        self.metadata.insert(
            key.to_owned(),
            [&8u32.to_le_bytes()[..], &text(value)].concat(),
        );
    }

    fn uint(&mut self, key: &str, value: u32) {
        self.metadata.insert(
            key.to_owned(),
            [4u32.to_le_bytes(), value.to_le_bytes()].concat(),
        );
    }

    fn float(&mut self, key: &str, value: f32) {
        self.metadata.insert(
            key.to_owned(),
            [6u32.to_le_bytes(), value.to_le_bytes()].concat(),
        );
    }

    fn strings(&mut self, key: &str, values: &[String]) {
        let mut bytes = [9u32.to_le_bytes(), 8u32.to_le_bytes()].concat();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| text(value)));
        self.metadata.insert(key.to_owned(), bytes);
    }

    fn words(&mut self, key: &str, kind: u32, values: impl ExactSizeIterator<Item = [u8; 4]>) {
        let mut bytes = [9u32.to_le_bytes(), kind.to_le_bytes()].concat();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.flatten());
        self.metadata.insert(key.to_owned(), bytes);
    }

    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A 16-bit float between 2^-k and 2^(1-k), its sign by chance where asked.
    fn half(&mut self, k: u64, signed: bool) -> [u8; 2] {
        let r = self.next();
        let sign = if signed { (r >> 20 & 1) << 15 } else { 0 };
        ((sign | (15 - k) << 10 | (r & 1023)) as u16).to_le_bytes()
    }

    fn tensor(&mut self, name: &str, kind: u32, shape: &[u64]) {
        let offset = self.data.len() as u64;
        self.tensors
            .push((name.to_owned(), kind, shape.to_vec(), offset));
        let elements: u64 = shape.iter().product();
        let (len, bytes) = match kind {
            F32 => (1, 4),
            F16 => (1, 2),
            Q4_1 => (32, 20),
            Q5_0 => (32, 22),
            Q8_0 => (32, 34),
            Q4_K => (256, 144),
            _ => (256, 210),
        };
        for _ in 0..elements / len {
            let mut block: Vec<u8> = (0..bytes).map(|_| self.next() as u8).collect();
            match kind {
                // Norms around 1; weights around 0.
                F32 if shape.len() == 1 => {
                    let value = 0.75 + (self.next() % 1024) as f32 / 2048.0;
                    block = value.to_le_bytes().to_vec();
                }
                F32 => {
                    let value = ((self.next() % 2048) as f32 - 1024.0) / 8192.0;
                    block = value.to_le_bytes().to_vec();
                }
                F16 => block = self.half(4, true).to_vec(),
                Q4_1 => {
                    block[..2].copy_from_slice(&self.half(7, false));
                    let mut offset = self.half(4, false);
                    offset[1] |= 0x80;
                    block[2..4].copy_from_slice(&offset);
                }
                Q5_0 => block[..2].copy_from_slice(&self.half(8, true)),
                Q8_0 => block[..2].copy_from_slice(&self.half(11, false)),
                Q4_K => {
                    block[..2].copy_from_slice(&self.half(12, false));
                    block[2..4].copy_from_slice(&self.half(9, false));
                }
                _ => block[208..].copy_from_slice(&self.half(14, true)),
            }
            self.data.extend(block);
        }
        let len = self.data.len().next_multiple_of(32);
        self.data.resize(len, 0);
    }

    fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            file.extend(text(key));
            file.extend(value);
        }
        for (name, kind, shape, offset) in &self.tensors {
            file.extend(text(name));
            file.extend((shape.len() as u32).to_le_bytes());
            file.extend(shape.iter().flat_map(|n| n.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(self.data);
        file
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}
