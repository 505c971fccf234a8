//! Tiny random models of both architectures, made in memory from a seed by integers alone: the same
//! seed gives the same bytes, and so the same model id, on every machine. They say nothing sensible,
//! by the same arithmetic as a real model. Depends on nothing above `engine`.

use std::sync::Arc;

use assay_engine::Model;
use assay_engine::layout::{
    ACT_LEN, Codes, EXP_LEN, FileBuilder, Format, GainParts, LayerPart, MatrixParts, Section,
};
use assay_protocol::manifest::{
    Architecture, AttentionScale, Dims, Fractions, GainEntry, GemmaNorms, LayerEntry, Manifest,
    MatrixEntry,
};
use assay_protocol::{B256, TokenId};

/// What to make. Change the fields of [`Tiny::llama`] or [`Tiny::gemma3`].
#[derive(Debug, Clone)]
pub struct Tiny {
    pub architecture: Architecture,
    pub seed: u64,
    pub dims: Dims,
    /// Of every second layer, gemma's windowed ones.
    pub window: u32,
    /// Whether the embedding serves as the head.
    pub tied: bool,
    pub bos: Option<TokenId>,
    pub eos: Vec<TokenId>,
    /// Bytes for the tokenizer's and the template's sections; none are written where empty.
    pub tokenizer: Vec<u8>,
    pub chat_template: Vec<u8>,
}

impl Tiny {
    pub fn llama(seed: u64) -> Tiny {
        Tiny {
            architecture: Architecture::Llama,
            seed,
            dims: Dims {
                layers: 2,
                width: 64,
                heads: 4,
                kv_heads: 2,
                head_dim: 32,
                ffn: 128,
                vocab: 288,
                context_max: 2048,
            },
            window: 0,
            tied: false,
            // As in a byte tokenizer: 256 bytes, then begin and end.
            bos: Some(256),
            eos: vec![257],
            tokenizer: Vec::new(),
            chat_template: Vec::new(),
        }
    }

    pub fn gemma3(seed: u64) -> Tiny {
        Tiny {
            architecture: Architecture::Gemma3,
            window: 64,
            tied: true,
            ..Tiny::llama(seed)
        }
    }

    /// The model, opened.
    pub fn model(&self) -> Model {
        Model::open(Arc::new(self.bytes())).expect("a tiny model is valid")
    }

    /// The model file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut maker = Maker {
            random: self.seed,
            file: FileBuilder::new(Vec::new()),
            tiny: self,
        };
        let manifest = maker.manifest();
        maker
            .file
            .finish(&manifest)
            .expect("memory takes every write")
    }
}

struct Maker<'a> {
    random: u64,
    file: FileBuilder<Vec<u8>>,
    tiny: &'a Tiny,
}

impl Maker<'_> {
    fn manifest(&mut self) -> Manifest {
        let tiny = self.tiny;
        let d = tiny.dims;
        let gemma = tiny.architecture == Architecture::Gemma3;
        let layers: Vec<LayerEntry> = (0..d.layers as u16)
            .map(|index| self.layer(index, gemma))
            .collect();
        let embedding = self.matrix(Section::Embedding, d.vocab, d.width, Format::I8x32, 21);
        let head =
            (!tiny.tied).then(|| self.matrix(Section::Head, d.vocab, d.width, Format::I8x32, 23));
        let final_norm = self.gain(Section::FinalNorm, d.width, 1 << 10);
        let exp = exp();
        let exp_root = self
            .file
            .table(Section::Exp, &exp)
            .expect("memory takes every write");
        let act_root = self
            .file
            .table(Section::Act, &act(&exp))
            .expect("memory takes every write");
        let rope_roots = (0..1 + u8::from(gemma))
            .map(|index| {
                let pairs = rope(d.head_dim / 2, d.context_max, index.into());
                let frequencies = d.head_dim as usize / 2;
                self.file
                    .rope(index, &pairs, frequencies)
                    .expect("memory takes every write")
            })
            .collect();
        Manifest {
            architecture: tiny.architecture,
            dims: d,
            residual_fraction: if gemma { 8 } else { 10 },
            attention_scale: attention_scale(d.head_dim),
            layers,
            final_norm,
            embedding,
            head,
            exp_root,
            act_root,
            rope_roots,
            tokenizer_hash: self.blob(Section::Tokenizer, &tiny.tokenizer),
            chat_template_hash: self.blob(Section::ChatTemplate, &tiny.chat_template),
            bos: tiny.bos,
            eos: tiny.eos.clone(),
        }
    }

    fn layer(&mut self, index: u16, gemma: bool) -> LayerEntry {
        let d = self.tiny.dims;
        let (q, kv) = (d.heads * d.head_dim, d.kv_heads * d.head_dim);
        let at = |part| Section::Layer(index, part);
        let windowed = index.is_multiple_of(2);
        LayerEntry {
            fractions: Fractions { q: 9, k: 8, v: 8 },
            window: if windowed { self.tiny.window } else { 0 },
            rope: u8::from(gemma && !windowed),
            attention_norm: self.gain(at(LayerPart::AttentionNorm), d.width, 1 << 10),
            q: self.matrix(at(LayerPart::Q), q, d.width, Format::U4, 25),
            k: self.matrix(at(LayerPart::K), kv, d.width, Format::I5, 25),
            v: self.matrix(at(LayerPart::V), kv, d.width, Format::I8x16, 25),
            o: self.matrix(at(LayerPart::O), d.width, q, Format::U4, 25),
            ffn_norm: self.gain(at(LayerPart::FfnNorm), d.width, 1 << 10),
            gate: self.matrix(at(LayerPart::Gate), d.ffn, d.width, Format::I16, 25),
            up: self.matrix(at(LayerPart::Up), d.ffn, d.width, Format::U4, 25),
            down: self.matrix(at(LayerPart::Down), d.width, d.ffn, Format::I8x16, 25),
            gemma: gemma.then(|| GemmaNorms {
                q_norm: self.gain(at(LayerPart::QNorm), d.head_dim, 1 << 24),
                k_norm: self.gain(at(LayerPart::KNorm), d.head_dim, 1 << 24),
                attention_post: self.gain(at(LayerPart::AttentionPost), d.width, 1 << 32),
                ffn_post: self.gain(at(LayerPart::FfnPost), d.width, 1 << 32),
            }),
        }
    }

    /// Random codes and factors with weights of about ±150, so that a matrix of scale 2^-25 and a few
    /// dozen columns gives results of about the size of its inputs.
    fn matrix(
        &mut self,
        section: Section,
        rows: u32,
        cols: u32,
        format: Format,
        sh: u8,
    ) -> MatrixEntry {
        let count = (rows * cols) as usize;
        let factors = count / format.block().max(1);
        let factor = |maker: &mut Self, from: i16, to: i16| {
            let size = from + maker.below((to - from) as u64) as i16;
            if maker.below(2) == 0 { size } else { -size }
        };
        let codes = match format {
            Format::U4 => {
                let codes = (0..count / 2).map(|_| self.below(256) as u8).collect();
                let d: Vec<i16> = (0..factors).map(|_| factor(self, 10, 30)).collect();
                let m = d
                    .iter()
                    .map(|d| -d * 15 / 2 + self.below(9) as i16 - 4)
                    .collect();
                Codes::U4 { codes, d, m }
            }
            Format::I5 => Codes::I5 {
                codes: (0..count).map(|_| self.below(32) as i8 - 16).collect(),
                d: (0..factors).map(|_| factor(self, 6, 18)).collect(),
            },
            Format::I8x32 => Codes::I8x32 {
                codes: (0..count)
                    .map(|_| self.below(255) as u8 as i8)
                    .map(|q| q.max(-127))
                    .collect(),
                d: (0..factors).map(|_| factor(self, 1, 3)).collect(),
            },
            Format::I8x16 => Codes::I8x16 {
                codes: (0..count).map(|_| self.below(64) as i8 - 32).collect(),
                d: (0..factors).map(|_| factor(self, 3, 9)).collect(),
            },
            Format::I16 => Codes::I16 {
                weights: (0..count).map(|_| self.below(301) as i16 - 150).collect(),
            },
        };
        let scales = (0..rows)
            .map(|_| 30_000 + self.below(30_000) as u16)
            .collect();
        let parts = MatrixParts {
            rows,
            cols,
            sh,
            scales,
            codes,
        };
        self.file
            .matrix(section, &parts)
            .expect("memory takes every write")
    }

    /// Gains around 1, and an epsilon of 2^-20 or so of the mean square 1.
    fn gain(&mut self, section: Section, len: u32, eps: u64) -> GainEntry {
        // sqrt(64)·1·2^(Fs−24) = 2^21 at Fs = 42; other lengths give gains that are a little off 1.
        let gains = (0..len)
            .map(|_| (3 << 19) + self.below(1 << 20) as i32)
            .collect();
        let parts = GainParts { gains, fs: 42, eps };
        self.file
            .gain(section, &parts)
            .expect("memory takes every write")
    }

    fn blob(&mut self, section: Section, bytes: &[u8]) -> B256 {
        if bytes.is_empty() {
            return B256::ZERO;
        }
        self.file
            .blob(section, bytes)
            .expect("memory takes every write")
    }

    /// SplitMix64, then the remainder: as even as a test needs.
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// `2^15·2^(−i/256)` by repeated multiplication with 2^(−1/256) at Q.62.
fn exp() -> [u16; EXP_LEN] {
    const STEP: u128 = 4_599_216_278_082_138_665;
    let mut power = 1u128 << 62;
    std::array::from_fn(|_| {
        let entry = ((power + (1 << 46)) >> 47) as u16;
        power = (power * STEP) >> 62;
        entry
    })
}

/// `z/(1 + e^z)` from the EXP table; the tiny gemma makes do with it as well.
fn act(exp: &[u16; EXP_LEN]) -> Vec<u16> {
    (0..ACT_LEN as u64)
        .map(|z| {
            // z is Q.12, t = z·log2(e) in Q.8.
            let t = (z * 47_274) >> 19;
            let e = u64::from(exp[(t & 255) as usize]) >> (t >> 8).min(63);
            ((z << 4) * e / (32_768 + e)) as u16
        })
        .collect()
}

/// Rotations by the angle of half-tangent 2^-(frequency + 2 + slower), position after position, at
/// Q.14.
fn rope(frequencies: u32, positions: u32, slower: u32) -> Vec<(i16, i16)> {
    let steps: Vec<(i64, i64)> = (0..frequencies)
        .map(|i| {
            let n = (2 + i + slower).min(20);
            let (one, t2) = (1i64 << (2 * n), 1i64);
            (
                ((one - t2) << 30) / (one + t2),
                ((2 << n) << 30) / (one + t2),
            )
        })
        .collect();
    let mut at = vec![(1i64 << 30, 0i64); steps.len()];
    let mut pairs = Vec::new();
    for _ in 0..positions {
        for ((cos, sin), (c, s)) in at.iter_mut().zip(&steps) {
            let q14 = |v: i64| ((v + (1 << 15)) >> 16).clamp(-16_384, 16_384) as i16;
            pairs.push((q14(*cos), q14(*sin)));
            let round = |v: i64| (v + (1 << 29)) >> 30;
            (*cos, *sin) = (round(*cos * c - *sin * s), round(*cos * s + *sin * c));
        }
    }
    pairs
}

/// `log2(e)/sqrt(head_dim)·2^8` at 2^17.
fn attention_scale(head_dim: u32) -> AttentionScale {
    const LOG2_E_Q25: u64 = 48_408_812;
    AttentionScale {
        c: (LOG2_E_Q25 * LOG2_E_Q25 / u64::from(head_dim)).isqrt() as u32,
        csh: 17,
    }
}
