//! A model that is only a manifest, and a trace of it that is only bytes: enough to play a game to its
//! end by the clock, and to convict by facts. Steps need a real model; they are tested where there is one.

use assay_dispute::{Below, Game, Node, Stage};
use assay_protocol::manifest::{
    Architecture, AttentionScale, Dims, Fractions, GainEntry, GemmaNorms, LayerEntry, Manifest,
    MatrixEntry,
};
use assay_protocol::trace::{
    LeafId, Op, Program, chunk_hashes, leaf_hash, op_root, trace_root, tree,
};
use assay_protocol::{B256, SamplerParams, merkle};

/// SmolLM2-135M's shape.
pub(crate) const SMOL: Dims = Dims {
    layers: 30,
    width: 576,
    heads: 9,
    kv_heads: 3,
    head_dim: 64,
    ffn: 1536,
    vocab: 49_152,
    context_max: 8_192,
};

/// Gemma-3-270m's.
pub(crate) const GEMMA: Dims = Dims {
    layers: 18,
    width: 640,
    heads: 4,
    kv_heads: 1,
    head_dim: 256,
    ffn: 2_048,
    vocab: 262_144,
    context_max: 8_192,
};

/// A manifest of this shape over roots of nothing.
pub(crate) fn manifest(architecture: Architecture, dims: Dims) -> Manifest {
    let matrix = |rows: u32, cols: u32| MatrixEntry {
        rows,
        cols,
        sh: 30,
        root: B256::repeat_byte(7),
    };
    let gain = |len: u32| GainEntry {
        len,
        fs: 24,
        eps: 6_040,
        root: B256::repeat_byte(9),
    };
    let gemma = architecture == Architecture::Gemma3;
    let (width, q, kv) = (
        dims.width,
        dims.heads * dims.head_dim,
        dims.kv_heads * dims.head_dim,
    );
    let norms = GemmaNorms {
        q_norm: gain(dims.head_dim),
        k_norm: gain(dims.head_dim),
        attention_post: gain(width),
        ffn_post: gain(width),
    };
    let layer = LayerEntry {
        fractions: Fractions { q: 7, k: 8, v: 9 },
        window: if gemma { 512 } else { 0 },
        rope: 0,
        attention_norm: gain(width),
        q: matrix(q, width),
        k: matrix(kv, width),
        v: matrix(kv, width),
        o: matrix(width, q),
        ffn_norm: gain(width),
        gate: matrix(dims.ffn, width),
        up: matrix(dims.ffn, width),
        down: matrix(width, dims.ffn),
        gemma: gemma.then_some(norms),
    };
    Manifest {
        architecture,
        dims,
        residual_fraction: 10,
        attention_scale: AttentionScale { c: 47_274, csh: 10 },
        layers: vec![layer; dims.layers as usize],
        final_norm: gain(width),
        embedding: matrix(dims.vocab, width),
        head: None,
        exp_root: B256::repeat_byte(1),
        act_root: B256::repeat_byte(2),
        rope_roots: vec![B256::repeat_byte(3)],
        tokenizer_hash: B256::repeat_byte(4),
        chat_template_hash: B256::ZERO,
        bos: None,
        eos: vec![2],
    }
}

/// A trace whose one vector is spelled out, and whose other leaves are hashes of nothing.
pub(crate) struct Made {
    program: Program,
    leaves: Vec<Vec<B256>>,
    /// The vector that is spelled out, and the chunk of it that the challenger is after.
    goal: (LeafId, u32),
    vector: Vec<u8>,
}

impl Made {
    pub(crate) fn new(
        manifest: &Manifest,
        n_prompt: u32,
        n_output: u32,
        sampler: &SamplerParams,
        goal: impl Fn(&Program) -> (LeafId, u32),
    ) -> Made {
        let program = Program::new(manifest, n_prompt, n_output, sampler).expect("it has a trace");
        let goal = goal(&program);
        let vector: Vec<u8> = (0..program.bytes(goal.0))
            .map(|i| (i % 251) as u8)
            .collect();
        let chunks = chunk_hashes(&program.parts(goal.0), &vector).expect("the vector fits");
        let mut leaves: Vec<Vec<B256>> = (0..program.ops())
            .map(|op| {
                let leaf = |row: u32| merkle::leaf(&[op.to_be_bytes(), row.to_be_bytes()].concat());
                (0..program.rows(op)).map(leaf).collect()
            })
            .collect();
        leaves[goal.0.op as usize][goal.0.row as usize] = leaf_hash(&chunks);
        Made {
            program,
            leaves,
            goal,
            vector,
        }
    }

    /// The last row and the last chunk of an op: what most levels lie above.
    pub(crate) fn last_of(op: Op) -> impl Fn(&Program) -> (LeafId, u32) {
        move |program| {
            let op = program.number(op);
            let leaf = LeafId {
                op,
                row: program.rows(op) - 1,
            };
            (leaf, program.chunks(leaf) - 1)
        }
    }

    fn roots(&self) -> Vec<B256> {
        self.leaves.iter().map(|rows| op_root(rows)).collect()
    }

    pub(crate) fn root(&self) -> B256 {
        trace_root(&self.roots())
    }

    pub(crate) fn top(&self) -> Node {
        Node::root(&self.program)
    }

    /// What the provider reveals of a node.
    pub(crate) fn below(&self, node: &Node) -> Below {
        let chunks = || chunk_hashes(&self.program.parts(self.goal.0), &self.vector).unwrap();
        let leaves = match node.stage {
            Stage::Ops => self.roots(),
            Stage::Rows => self.leaves[node.op as usize].clone(),
            Stage::Chunks => chunks(),
            Stage::Bytes => {
                let range = self.program.chunk_range(self.goal.0, self.goal.1).unwrap();
                return Below::Bytes(
                    self.vector[range.start as usize..range.end as usize].to_vec(),
                );
            }
        };
        Below::Children(tree::reveal(&leaves, node.height, node.index).expect("it exists"))
    }

    /// The challenger's next question on the way to the goal: index, hash, siblings.
    pub(crate) fn question(&self, game: &Game) -> (u32, B256, Vec<B256>) {
        let held = game.held.expect("a root is posted").node;
        let Below::Children(mut level) = self.below(&held) else {
            panic!("a chunk's bytes have nothing below");
        };
        let goal = match held.stage {
            Stage::Ops => self.goal.0.op,
            Stage::Rows => self.goal.0.row,
            _ => self.goal.1,
        };
        let levels = tree::descent(held.height);
        let index = (u64::from(goal) >> (held.height - levels)) - (held.index << levels);
        let hash = level[index as usize];
        let mut at = index as usize;
        let mut siblings = Vec::new();
        for _ in 0..levels {
            siblings.push(level.get(at ^ 1).copied().unwrap_or_default());
            level = level
                .chunks(2)
                .map(|pair| tree::fold(pair, 1).unwrap())
                .collect();
            at /= 2;
        }
        (index as u32, hash, siblings)
    }
}
