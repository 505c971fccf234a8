//! A toy trace: the layout of a tiny model, and bytes out of a seed where a pass would compute. Only
//! what names a place is kept in range. A liar is a toy with lies in it.

use std::cell::Cell;

use assay_dispute::{Trace, TraceError};
use assay_protocol::manifest::{
    Architecture, AttentionScale, Dims, Fractions, GainEntry, GemmaNorms, LayerEntry, Manifest,
    MatrixEntry,
};
use assay_protocol::trace::{
    ElementId, EntryShown, LeafId, MatrixRef, Op, Program, RowShown, Segment, TableRef,
    chunk_hashes, leaf_hash, op_root, trace_root,
};
use assay_protocol::{B256, SamplerParams, Statement, StopReason, Temperature, TokenId, keccak256};

/// What a provider's trace has that the pass does not.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lie {
    /// One element is another.
    Element(ElementId),
    /// All from this vector on is garbage.
    From(LeafId),
}

#[derive(Clone)]
pub(crate) struct Toy {
    pub(crate) manifest: Manifest,
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) output: Vec<TokenId>,
    pub(crate) sampler: SamplerParams,
    pub(crate) reason: StopReason,
    pub(crate) choices: Vec<TokenId>,
    program: Program,
    seed: u64,
    lies: Vec<Lie>,
    leaves: Vec<Vec<B256>>,
    /// How often vectors were asked for: what would be runs of a model.
    pub(crate) runs: Cell<u32>,
}

/// The last token of the vocabulary ends an answer; toys do not say it.
pub(crate) const EOS: TokenId = 299;

/// How large a toy is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) gemma: bool,
    pub(crate) drawn: bool,
    pub(crate) n_prompt: u32,
    pub(crate) n_output: u32,
}

impl Size {
    pub(crate) fn small(gemma: bool, drawn: bool) -> Size {
        Size {
            gemma,
            drawn,
            n_prompt: 5,
            n_output: 3,
        }
    }
}

impl Toy {
    pub(crate) fn new(size: Size, seed: u64) -> Toy {
        let manifest = manifest(size.gemma);
        let mut random = Random::new(seed, &[1]);
        let mut tokens = |n: u32| -> Vec<TokenId> {
            (0..n)
                .map(|_| random.below(EOS.into()) as TokenId)
                .collect()
        };
        let (prompt, output) = (tokens(size.n_prompt), tokens(size.n_output));
        let sampler = match size.drawn {
            false => SamplerParams::greedy(size.n_output),
            true => SamplerParams {
                temperature: Temperature::Beta(300),
                top_k: 40,
                top_p_q16: 60_000,
                seed: B256::repeat_byte(7),
                ..SamplerParams::greedy(size.n_output)
            },
        };
        let program = Program::new(&manifest, size.n_prompt, size.n_output, &sampler).unwrap();
        let mut toy = Toy {
            manifest,
            prompt,
            choices: output.clone(),
            output,
            sampler,
            reason: StopReason::MaxTokens,
            program,
            seed,
            lies: Vec::new(),
            leaves: Vec::new(),
            runs: Cell::new(0),
        };
        let rows = |op| vec![B256::ZERO; toy.program.rows(op) as usize];
        toy.leaves = (0..toy.program.ops()).map(rows).collect();
        toy.hash(&toy.all_leaves());
        toy
    }

    /// The same statement with these lies in its trace.
    pub(crate) fn lying(&self, lies: &[Lie]) -> Toy {
        let mut liar = self.clone();
        liar.lies = lies.to_vec();
        let all = self.all_leaves();
        for lie in lies {
            match lie {
                Lie::Element(id) => liar.hash(&[id.leaf]),
                Lie::From(from) => liar.hash(all.split_at(all.partition_point(|l| l < from)).1),
            }
        }
        liar
    }

    /// The same trace, and a statement with another token at this place of the output.
    pub(crate) fn misstating(&self, output: u32) -> Toy {
        let mut other = self.clone();
        let token = &mut other.output[output as usize];
        *token = (*token + 1) % EOS;
        other
    }

    pub(crate) fn statement(&self) -> Statement {
        Statement::new(
            self.manifest.id(),
            &self.prompt,
            &self.sampler,
            &self.output,
            self.reason,
        )
    }

    pub(crate) fn root(&self) -> B256 {
        let roots: Vec<B256> = self.leaves.iter().map(|leaves| op_root(leaves)).collect();
        trace_root(&roots)
    }

    /// Every vector, in the order of computation.
    pub(crate) fn all_leaves(&self) -> Vec<LeafId> {
        let rows = |op| (0..self.program.rows(op)).map(move |row| LeafId { op, row });
        (0..self.program.ops()).flat_map(rows).collect()
    }

    /// Any element.
    pub(crate) fn pick(&self, seed: u64) -> ElementId {
        let mut random = Random::new(seed, &[2]);
        let leaves = self.all_leaves();
        let leaf = leaves[random.below(leaves.len() as u64) as usize];
        let parts = self.program.parts(leaf);
        let part = parts[random.below(parts.len() as u64) as usize];
        let (chunk, slot) = part.place(random.below(part.len)).unwrap();
        ElementId { leaf, chunk, slot }
    }

    /// Where two traces part, by looking at everything.
    pub(crate) fn first_difference(&self, other: &Toy) -> Option<ElementId> {
        self.all_leaves().into_iter().find_map(|leaf| {
            let (ours, theirs) = (self.vector(leaf), other.vector(leaf));
            let byte = ours.iter().zip(&theirs).position(|(a, b)| a != b)? as u64;
            let mut start = 0;
            for part in self.program.parts(leaf) {
                if byte < start + part.bytes() {
                    let index = (byte - start) / part.width.bytes() as u64;
                    let (chunk, slot) = part.place(index)?;
                    return Some(ElementId { leaf, chunk, slot });
                }
                start += part.bytes();
            }
            None
        })
    }

    pub(crate) fn vector(&self, leaf: LeafId) -> Vec<u8> {
        let mut bytes = self.honest(leaf, self.seed);
        for lie in &self.lies {
            match lie {
                Lie::From(from) if leaf >= *from => bytes = self.honest(leaf, !self.seed),
                Lie::Element(id) if leaf == id.leaf => {
                    let range = self.program.chunk_range(leaf, id.chunk).unwrap();
                    let element = self.program.locate(*id).unwrap();
                    let width = element.segment.width().bytes();
                    let at = range.start as usize + id.slot as usize * width;
                    // Its lowest bit, so that places mostly stay in range, and another now and then.
                    let flip = [1, 1, 0x80][(self.seed % 3) as usize];
                    bytes[at + width - 1] ^= flip;
                }
                _ => {}
            }
        }
        bytes
    }

    fn honest(&self, leaf: LeafId, seed: u64) -> Vec<u8> {
        let mut random = Random::new(seed, &[3, leaf.op.into(), leaf.row.into()]);
        let mut bytes = Vec::new();
        let op = self.program.op(leaf.op).unwrap();
        let d = *self.program.dims();
        for part in self.program.parts(leaf) {
            let start = bytes.len();
            let len = part.bytes() as usize;
            while bytes.len() < start + len {
                bytes.extend(random.next().to_be_bytes());
            }
            bytes.truncate(start + len);
            if part.segment == Segment::Logits {
                // Below 2^20, so that many have a weight.
                for logit in bytes[start..].chunks_exact_mut(4) {
                    (logit[0], logit[1]) = (0, logit[1] & 15);
                }
            }
            let places = match part.segment {
                Segment::Peak | Segment::FfnPeak => Some((1, 0..u64::from(d.width))),
                Segment::MixPeak => Some((1, 0..u64::from(d.heads * d.head_dim))),
                Segment::ActPeak => Some((1, 0..u64::from(d.ffn))),
                Segment::Top => Some((1, 0..u64::from(d.vocab))),
                Segment::Seen => {
                    let Op::Layer(layer) = op else { panic!() };
                    let from = self.program.first_seen(layer, leaf.row);
                    let sight = u64::from(from)..u64::from(leaf.row) + 1;
                    Some((d.heads as usize, sight))
                }
                _ => None,
            };
            let Some((count, range)) = places else {
                continue;
            };
            for number in 0..count {
                // The place, and what stands there: in reach of EXP, now and then.
                let place = range.start + random.below(range.end - range.start);
                let at = start + 16 * number;
                bytes[at..at + 8].copy_from_slice(&place.to_be_bytes());
                let max = match part.segment {
                    Segment::Seen => random.below(1 << 44),
                    _ => 1 << 20,
                };
                bytes[at + 8..at + 16].copy_from_slice(&max.to_be_bytes());
            }
        }
        bytes
    }

    fn hash(&mut self, leaves: &[LeafId]) {
        for leaf in leaves {
            let parts = self.program.parts(*leaf);
            let hash = leaf_hash(&chunk_hashes(&parts, &self.vector(*leaf)).unwrap());
            self.leaves[leaf.op as usize][leaf.row as usize] = hash;
        }
    }
}

impl Trace for Toy {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn prompt(&self) -> &[TokenId] {
        &self.prompt
    }

    fn output(&self) -> &[TokenId] {
        &self.output
    }

    fn sampler(&self) -> &SamplerParams {
        &self.sampler
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn leaves(&self, op: u32) -> &[B256] {
        &self.leaves[op as usize]
    }

    fn vectors(&self, wanted: &[LeafId]) -> Result<Vec<Vec<u8>>, TraceError> {
        self.runs.set(self.runs.get() + 1);
        Ok(wanted.iter().map(|leaf| self.vector(*leaf)).collect())
    }

    fn choices(&self) -> Result<Vec<TokenId>, TraceError> {
        Ok(self.choices.clone())
    }

    /// Says what was asked for.
    fn weight_row(&self, matrix: MatrixRef, row: u32) -> Result<RowShown, TraceError> {
        let entry = matrix.entry(&self.manifest).ok_or(no_such())?;
        (row < entry.rows)
            .then(|| RowShown {
                format: 0,
                data: format!("{matrix:?} {row}").into_bytes(),
                path: Vec::new(),
            })
            .ok_or(no_such())
    }

    fn entry(&self, table: TableRef, index: u32) -> Result<EntryShown, TraceError> {
        let (_, count) = table.root(&self.manifest).ok_or(no_such())?;
        (u64::from(index) < count)
            .then(|| EntryShown {
                data: format!("{table:?} {index}").into_bytes(),
                path: Vec::new(),
            })
            .ok_or(no_such())
    }
}

fn no_such() -> TraceError {
    TraceError("the toy has no such row or entry".into())
}

/// Numbers out of a seed, the same on every machine.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64, about: &[u64]) -> Random {
        let bytes: Vec<u8> = [&[seed], about]
            .concat()
            .iter()
            .flat_map(|v| v.to_be_bytes())
            .collect();
        let hash = keccak256(bytes);
        Random {
            state: u64::from_be_bytes(hash[..8].try_into().unwrap()),
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}

pub(crate) fn manifest(gemma: bool) -> Manifest {
    let matrix = |rows, cols| MatrixEntry {
        rows,
        cols,
        sh: 20,
        root: B256::repeat_byte(9),
    };
    let gain = |len| GainEntry {
        len,
        fs: 40,
        eps: 7,
        root: B256::repeat_byte(8),
    };
    let dims = Dims {
        layers: 2,
        width: 96,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        ffn: 160,
        vocab: 300,
        context_max: 400,
    };
    let (q, kv) = (dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim);
    let layer = |window| LayerEntry {
        fractions: Fractions { q: 9, k: 8, v: 8 },
        window,
        rope: 0,
        attention_norm: gain(dims.width),
        q: matrix(q, dims.width),
        k: matrix(kv, dims.width),
        v: matrix(kv, dims.width),
        o: matrix(dims.width, q),
        ffn_norm: gain(dims.width),
        gate: matrix(dims.ffn, dims.width),
        up: matrix(dims.ffn, dims.width),
        down: matrix(dims.width, dims.ffn),
        gemma: gemma.then(|| GemmaNorms {
            q_norm: gain(dims.head_dim),
            k_norm: gain(dims.head_dim),
            attention_post: gain(dims.width),
            ffn_post: gain(dims.width),
        }),
    };
    Manifest {
        architecture: match gemma {
            true => Architecture::Gemma3,
            false => Architecture::Llama,
        },
        dims,
        residual_fraction: 10,
        attention_scale: AttentionScale { c: 47_274, csh: 30 },
        layers: vec![layer(0), layer(3)],
        final_norm: gain(dims.width),
        embedding: matrix(dims.vocab, dims.width),
        head: None,
        exp_root: B256::repeat_byte(1),
        act_root: B256::repeat_byte(2),
        rope_roots: vec![B256::repeat_byte(3)],
        tokenizer_hash: B256::ZERO,
        chat_template_hash: B256::ZERO,
        bos: None,
        eos: vec![EOS],
    }
}
