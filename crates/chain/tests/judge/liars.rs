//! Whoever changes one element of a trace, or states a token that the trace does not choose, is
//! convicted by one step.

use std::collections::BTreeMap;

use assay_dispute::{Parting, Player, Reveal, Seen, Trace, TraceError};
use assay_protocol::manifest::Manifest;
use assay_protocol::trace::{
    Element, EntryShown, LeafId, MatrixRef, Program, RowShown, Segment, TableRef, Width,
    chunk_hashes, leaf_hash,
};
use assay_protocol::{B256, SamplerParams, TokenId};
use assay_testkit::tiny::Tiny;

use crate::court::{Case, Court, own_root, pick};
use crate::honest::{drawn, greedy, small, text};

/// An honest trace with one element changed; everything else is kept.
pub(crate) struct Flipped<'a, T> {
    honest: &'a T,
    leaf: LeafId,
    bytes: Vec<u8>,
    leaves: Vec<B256>,
}

impl<'a, T: Trace> Flipped<'a, T> {
    /// Changes the element to one of a few other values, chosen by `seed`.
    pub(crate) fn new(honest: &'a T, element: Element, seed: u64) -> Flipped<'a, T> {
        let program = honest.program();
        let parts = program.parts(element.leaf);
        let before: u64 = parts
            .iter()
            .take_while(|part| part.segment != element.segment)
            .map(|part| part.bytes())
            .sum();
        let width = element.segment.width().bytes();
        let at = before as usize + element.index as usize * width;
        let mut bytes = honest.vectors(&[element.leaf]).expect("a vector").concat();
        change(element.segment.width(), &mut bytes[at..at + width], seed);
        let hash = leaf_hash(&chunk_hashes(&parts, &bytes).expect("a whole vector"));
        let mut leaves = honest.leaves(element.leaf.op).to_vec();
        leaves[element.leaf.row as usize] = hash;
        Flipped {
            honest,
            leaf: element.leaf,
            bytes,
            leaves,
        }
    }
}

fn change(width: Width, bytes: &mut [u8], seed: u64) {
    let old = bytes.to_vec();
    let value = |v: i64| v.to_be_bytes()[8 - bytes.len()..].to_vec();
    let signed = old
        .iter()
        .fold(-i64::from(old[0] >> 7), |v, b| v << 8 | i64::from(*b));
    let choices = [
        value(signed.wrapping_add(1)),
        value(signed.wrapping_sub(1)),
        value(signed.wrapping_neg()),
        value(0),
        value(i64::MIN >> (64 - 8 * width.bytes())),
        value(i64::MAX >> (64 - 8 * width.bytes())),
    ];
    let others: Vec<_> = choices.into_iter().filter(|v| *v != old).collect();
    bytes.copy_from_slice(&others[pick(seed, others.len() as u64) as usize]);
}

impl<T: Trace> Trace for Flipped<'_, T> {
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
        for (leaf, vector) in wanted.iter().zip(&mut vectors) {
            if *leaf == self.leaf {
                vector.clone_from(&self.bytes);
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

/// Walks the liar's trace down to where it parts from one's own, as the game does.
fn walk(own: &mut Player<'_>, liar: &mut Player<'_>, program: &Program) -> (Seen, Parting, u32) {
    let mut seen = Seen::new(program, liar.root().expect("a root"));
    let mut reveals = 0;
    loop {
        match own.parting(&seen).expect("a parting") {
            Parting::Below(node) => {
                let below = liar.below(&node).expect("what a liar shows");
                seen.learn(program, &Reveal { node, below })
                    .expect("what hashes");
                reveals += 1;
            }
            found => return (seen, found, reveals),
        }
    }
}

/// Convicts a liar that changed this element, and gives how many reveals led to it.
pub(crate) fn convict(court: &mut Court, case: &Case, element: Element, seed: u64) -> u32 {
    let liar = Flipped::new(&case.trace, element, seed);
    let mut own = case.player();
    let mut liar = Player::new(&liar).expect("a whole trace");
    let (seen, parting, reveals) = walk(&mut own, &mut liar, case.program());
    let place = case
        .program()
        .element(element.leaf, element.segment, element.index)
        .expect("an element of the trace");
    assert_eq!(parting, Parting::At(place), "{element:?}");
    let step = own.step(&seen, place, None).expect("a step");
    let said = court.convicts(case, seen.root(), &step);
    assert_eq!(said, Ok(true), "{element:?}, seed {seed}");
    reveals
}

/// Convicts a flip of every kind of element of the case, `each` times at places chosen by `seed`.
fn convict_flips(court: &mut Court, case: &Case, each: u64, seed: u64) -> u32 {
    let mut kinds: BTreeMap<(u32, Segment), Vec<Element>> = BTreeMap::new();
    for element in case.elements() {
        // All layers are alike: a kind is an op's family and a segment.
        let program = case.program();
        let op = match element.leaf.op {
            0 => 0,
            op if op > 3 * program.dims().layers => op,
            op => 1 + (op - 1) % 3,
        };
        kinds
            .entry((op, element.segment))
            .or_default()
            .push(element);
    }
    let mut convicted = 0;
    let mut most_reveals = 0;
    for ((op, segment), elements) in &kinds {
        for i in 0..each {
            let seed = seed ^ pick(u64::from(*op) << 16 | *segment as u64, u64::MAX) ^ i;
            let element = elements[pick(seed, elements.len() as u64) as usize];
            most_reveals = most_reveals.max(convict(court, case, element, seed));
            convicted += 1;
        }
    }
    println!(
        "{} kinds of elements, {convicted} flips convicted, {most_reveals} reveals at most",
        kinds.len()
    );
    convicted
}

#[test]
fn a_flip_of_any_kind_of_element_is_convicted() {
    for (seed, tiny) in [(5, Tiny::llama(5)), (6, Tiny::gemma3(6))] {
        let model = small(tiny);
        let mut court = Court::new();
        court.publish(model.manifest());
        for sampler in [greedy(3), drawn(3, 40, 60_000)] {
            let case = Case::honest(&model, &text(6, 288), &sampler);
            convict_flips(&mut court, &case, 6, seed);
        }
        // Beyond a block of positions, and beyond the window.
        let case = Case::honest(&model, &text(150, 288), &greedy(2));
        convict_flips(&mut court, &case, 2, seed);
    }
}

#[test]
fn a_token_that_the_model_does_not_choose_is_convicted() {
    for tiny in [Tiny::llama(7), Tiny::gemma3(8)] {
        let model = small(tiny);
        let mut court = Court::new();
        court.publish(model.manifest());
        for sampler in [
            greedy(4),
            drawn(4, 0, 1 << 16),
            drawn(4, 7, 1 << 16),
            drawn(4, 0, 40_000),
            drawn(4, 30, 60_000),
        ] {
            let prompt = text(6, 288);
            let (honest, stop) = crate::court::answer(&model, &prompt, &sampler);
            for at in 0..honest.len() {
                let mut output = honest.clone();
                output[at] = (output[at] + 1 + pick(at as u64, 250) as u32) % 256;
                let case = Case::of(&model, &prompt, &sampler, &output, stop);
                let mut player = case.player();
                let seen = own_root(&mut player, case.program());
                let found = player.false_token().expect("choices");
                let (output, better) = found.expect("a false token");
                assert_eq!(output as usize, at);
                let step = player.token_step(&seen, output, better).expect("a step");
                assert_eq!(court.convicts(&case, seen.root(), &step), Ok(true));
            }
        }
    }
}
