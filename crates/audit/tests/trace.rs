//! A model's trace as the dispute takes it: consistent with itself, the same on every thread count, and
//! parting from a cheaper model's exactly where that one leaves something out.

use assay_audit::ModelTrace;
use assay_dispute::{Below, Node, Player, Reveal, Seen, Trace, TraceError};
use assay_engine::Model;
use assay_protocol::manifest::Manifest;
use assay_protocol::merkle::Opening;
use assay_protocol::trace::{
    ElementId, EntryShown, LeafId, MatrixRef, Op, Program, RowShown, Segment, TableRef,
    chunk_hashes, leaf_hash,
};
use assay_protocol::{B256, SamplerParams, Temperature, TokenId, merkle};
use assay_testkit::tiny::Tiny;

fn sampler(drawn: bool) -> SamplerParams {
    SamplerParams {
        temperature: match drawn {
            true => Temperature::Beta(200),
            false => Temperature::Greedy,
        },
        top_k: 9,
        ..SamplerParams::greedy(9)
    }
}

fn trace(model: &Model, threads: usize, drawn: bool) -> ModelTrace {
    let prompt: Vec<TokenId> = (0..140).map(|i| i * 7 % 256).collect();
    ModelTrace::new(model, threads, prompt, vec![5, 6, 7], sampler(drawn)).unwrap()
}

/// The first element of another's trace that is not one's own, by comparing whole vectors: what a player
/// must find by walking the trees. `None` where the two are the same.
fn first_difference(own: &dyn Trace, other: &dyn Trace) -> Result<Option<ElementId>, TraceError> {
    let program = own.program();
    if other.program() != program {
        return Err(TraceError("the traces are of different shapes".into()));
    }
    let differs = |op: u32| {
        let (own, other) = (own.leaves(op), other.leaves(op));
        own.iter().zip(other).position(|(a, b)| a != b)
    };
    let Some((op, row)) = (0..program.ops()).find_map(|op| Some((op, differs(op)?))) else {
        return Ok(None);
    };
    let leaf = LeafId {
        op,
        row: row as u32,
    };
    let bytes = |trace: &dyn Trace| trace.vectors(&[leaf]).map(|vectors| vectors.concat());
    let (own, other) = (bytes(own)?, bytes(other)?);
    // The hashes differ, so the bytes do, unless a vector is not what was hashed.
    let other_than_hashed = || TraceError(format!("{leaf:?} is not the vector that was hashed"));
    let byte = own.iter().zip(&other).position(|(a, b)| a != b);
    let mut rest = byte.ok_or_else(other_than_hashed)? as u64;
    for part in program.parts(leaf) {
        if rest < part.bytes() {
            let index = rest / part.width.bytes() as u64;
            return Ok(program.element(leaf, part.segment, index));
        }
        rest -= part.bytes();
    }
    Err(other_than_hashed())
}

#[test]
fn leaves_are_those_of_the_vectors_whoever_asks() {
    for (tiny, drawn) in [(Tiny::llama(1), true), (Tiny::gemma3(2), false)] {
        let model = tiny.model();
        let trace = trace(&model, 2, drawn);
        let program = trace.program();
        for op in 0..program.ops() {
            let leaves: Vec<LeafId> = (0..program.rows(op))
                .map(|row| LeafId { op, row })
                .collect();
            let vectors = trace.vectors(&leaves).unwrap();
            assert_eq!(vectors, trace.vectors(&leaves).unwrap());
            for ((leaf, bytes), hash) in leaves.iter().zip(&vectors).zip(trace.leaves(op)) {
                let chunks = chunk_hashes(&program.parts(*leaf), bytes).unwrap();
                assert_eq!(leaf_hash(&chunks), *hash, "{leaf:?}");
            }
        }
        assert!(trace.leaves(program.ops()).is_empty());
        assert_eq!(
            first_difference(&trace, &self::trace(&model, 1, drawn)),
            Ok(None)
        );
    }
}

#[test]
fn a_layer_left_out_is_the_first_difference() {
    for tiny in [Tiny::llama(3), Tiny::gemma3(4)] {
        let model = tiny.model();
        let honest = trace(&model, 2, true);
        for (left_out, op) in [(0, Op::Project(0)), (1, Op::Project(1))] {
            let cheap = trace(&model.without_layers(&[left_out]), 2, true);
            let program = honest.program();
            let leaf = program.leaf(op, 0);
            let first = program.element(leaf, Segment::Squares, 0).unwrap();
            assert_eq!(first_difference(&honest, &cheap), Ok(Some(first)));
        }
        let other = Tiny::llama(5).model();
        let shorter = ModelTrace::new(&other, 1, vec![1], vec![2], sampler(true)).unwrap();
        assert!(first_difference(&honest, &shorter).is_err());
    }
}

/// A provider that flips one element of an honest trace and hashes what it then has.
struct Flipped<'a> {
    honest: &'a ModelTrace,
    leaf: LeafId,
    byte: usize,
    leaves: Vec<B256>,
}

impl<'a> Flipped<'a> {
    fn new(honest: &'a ModelTrace, leaf: LeafId, byte: usize) -> Self {
        let mut flipped = Flipped {
            honest,
            leaf,
            byte,
            leaves: honest.leaves(leaf.op).to_vec(),
        };
        let bytes = flipped.vectors(&[leaf]).unwrap().concat();
        let chunks = chunk_hashes(&honest.program().parts(leaf), &bytes).unwrap();
        flipped.leaves[leaf.row as usize] = leaf_hash(&chunks);
        flipped
    }
}

impl Trace for Flipped<'_> {
    fn manifest(&self) -> &Manifest {
        self.honest.manifest()
    }
    fn prompt(&self) -> &[TokenId] {
        self.honest.prompt()
    }
    fn output(&self) -> &[TokenId] {
        self.honest.output()
    }
    fn sampler(&self) -> &SamplerParams {
        self.honest.sampler()
    }
    fn program(&self) -> &Program {
        self.honest.program()
    }
    fn leaves(&self, op: u32) -> &[B256] {
        match op == self.leaf.op {
            true => &self.leaves,
            false => self.honest.leaves(op),
        }
    }
    fn vectors(&self, wanted: &[LeafId]) -> Result<Vec<Vec<u8>>, TraceError> {
        let mut vectors = self.honest.vectors(wanted)?;
        for (leaf, bytes) in wanted.iter().zip(&mut vectors) {
            if *leaf == self.leaf {
                bytes[self.byte] ^= 1;
            }
        }
        Ok(vectors)
    }
    fn choices(&self) -> Result<Vec<TokenId>, TraceError> {
        self.honest.choices()
    }
    fn weight_row(&self, matrix: MatrixRef, row: u32) -> Result<RowShown, TraceError> {
        self.honest.weight_row(matrix, row)
    }
    fn entry(&self, table: TableRef, index: u32) -> Result<EntryShown, TraceError> {
        self.honest.entry(table, index)
    }
}

#[test]
fn one_flipped_element_is_found_and_a_step_is_built_whatever_the_op() {
    for (tiny, drawn) in [(Tiny::llama(6), true), (Tiny::gemma3(7), true)] {
        let model = tiny.model();
        let honest = trace(&model, 2, drawn);
        let program = honest.program();
        for op in 0..program.ops() {
            let leaf = LeafId {
                op,
                row: program.rows(op) - 1,
            };
            let mut start = 0;
            for part in program.parts(leaf) {
                // The last byte of the segment's middle element.
                let index = part.len / 2;
                let width = part.width.bytes() as u64;
                let byte = (start + (index + 1) * width - 1) as usize;
                start += part.bytes();
                let flipped = Flipped::new(&honest, leaf, byte);
                let id = program.element(leaf, part.segment, index).unwrap();
                assert_eq!(first_difference(&honest, &flipped), Ok(Some(id)));
                let step = convict(&honest, &flipped);
                assert_eq!((step.op, step.row, step.chunk, step.slot), {
                    (leaf.op, leaf.row, id.chunk, id.slot)
                });
            }
        }
    }
}

/// Asks the cheat for what it must show, until a step is there.
fn convict(honest: &ModelTrace, cheat: &dyn Trace) -> assay_dispute::Step {
    let mut provider = Player::new(cheat).unwrap();
    let mut challenger = Player::new(honest).unwrap();
    let mut seen = Seen::new(honest.program(), provider.root().unwrap());
    for _ in 0..100 {
        match challenger.parting(&seen).unwrap() {
            assay_dispute::Parting::Nowhere => panic!("the roots are equal"),
            assay_dispute::Parting::Below(node) => {
                let below: Below = provider.below(&node).unwrap();
                let reveal = Reveal { node, below };
                seen.learn(honest.program(), &reveal).unwrap();
            }
            assay_dispute::Parting::At(element) => {
                return challenger.step(&seen, element, None).unwrap();
            }
        }
    }
    panic!("the trace has no end");
}

#[test]
fn what_is_shown_of_the_model_leads_to_the_manifest() {
    let model = Tiny::gemma3(8).model();
    let trace = trace(&model, 2, false);
    let manifest = model.manifest();
    let stated = MatrixRef::Down(1).entry(manifest).unwrap();
    let shown = trace.weight_row(MatrixRef::Down(1), 3).unwrap();
    let opening = Opening {
        count: stated.rows.into(),
        index: 3,
        siblings: shown.path.clone(),
    };
    let leaf = merkle::leaf(&shown.leaf_data(stated.cols as usize).unwrap());
    assert_eq!(opening.verify(&stated.root, &leaf), Ok(()));
    let (root, count) = TableRef::QNorm(0).root(manifest).unwrap();
    let shown = trace.entry(TableRef::QNorm(0), 31).unwrap();
    let opening = Opening {
        count,
        index: 31,
        siblings: shown.path,
    };
    assert_eq!(opening.verify(&root, &merkle::leaf(&shown.data)), Ok(()));
    assert!(trace.entry(TableRef::QNorm(2), 0).is_err());
    let root = Node::root(trace.program());
    assert!(Player::new(&trace).unwrap().below(&root).is_ok());
}
