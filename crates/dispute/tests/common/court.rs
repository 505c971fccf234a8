//! `DisputeGame.sol` in memory: whose turn it is, the clocks, and every hash that a move must match.
//! In place of a referee's arithmetic it has the honest trace: a step convicts if its element is false
//! there and all that the step shows before it is true.

use assay_dispute::{Below, Game, Held, Move, Node, Opening, Outcome, Phase, Reveal, Side, Step};
use assay_protocol::trace::{CHUNK, LeafId, Program, TOKEN_OP, tree};
use assay_protocol::{Address, B256, Timestamp, merkle};

use super::toy::Toy;

pub(crate) const RESPONSE_TIME: u32 = 10;
pub(crate) const EXTENSION: u32 = 20;

/// Why the contract would revert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Turn,
    TooLate,
    TooEarly,
    Hash,
    Count,
    Root,
    StepHolds,
    /// The step does not verify: it proves nothing.
    Step(&'static str),
}

pub(crate) struct Court {
    truth: Toy,
    program: Program,
    pub(crate) game: Game,
    pub(crate) now: u64,
    since: u64,
    /// Moves that the contract took.
    pub(crate) moves: u32,
    pub(crate) convicted_by: Option<Step>,
}

impl Court {
    /// A game about the statement of `truth`, just opened.
    pub(crate) fn open(truth: &Toy, program: &Program) -> Court {
        let mut court = Court {
            truth: truth.clone(),
            program: program.clone(),
            game: Game {
                id: B256::repeat_byte(1),
                receipt: B256::repeat_byte(2),
                statement: truth.statement(),
                sampling: 0,
                provider: Address::repeat_byte(3),
                challenger: Address::repeat_byte(4),
                trace_root: None,
                phase: Phase::Post,
                held: None,
                reveals: Vec::new(),
                deadline: Timestamp(0),
                purse_provider: EXTENSION,
                purse_challenger: EXTENSION,
            },
            now: 1000,
            since: 1000,
            moves: 0,
            convicted_by: None,
        };
        court.turn_to(Phase::Post);
        court
    }

    /// Another challenger's game about the same receipt: it starts below the posted root.
    pub(crate) fn open_another(&self) -> Court {
        let mut court = Court::open(&self.truth, &self.program);
        let mut game = court.game.clone();
        game.trace_root = self.game.trace_root;
        game.reveals = self.game.reveals.clone();
        if let Some(hash) = game.trace_root {
            game.held = Some(Held {
                node: Node::root(&self.program),
                hash,
            });
            game.phase = Phase::Request;
        }
        court.game = game;
        court
    }

    pub(crate) fn play(&mut self, side: Side, made: &Move) -> Result<(), Refused> {
        match made {
            Move::PostTrace { root, children } => {
                self.at(side, Side::Provider, Phase::Post)?;
                self.post(*root, children)
            }
            Move::Request {
                index,
                hash,
                siblings,
            } => {
                self.at(side, Side::Challenger, Phase::Request)?;
                self.request(*index, *hash, siblings)
            }
            Move::Reveal { below } => {
                self.at(side, Side::Provider, Phase::Reveal)?;
                self.reveal(below)
            }
            Move::Prove { step } => {
                self.at(side, Side::Challenger, Phase::Request)?;
                self.prove(step)
            }
            Move::Timeout => self.timeout(),
            Move::ProveFact { .. } | Move::Close => Err(Refused::Turn),
        }?;
        self.moves += 1;
        Ok(())
    }

    fn at(&self, side: Side, wanted: Side, phase: Phase) -> Result<(), Refused> {
        if side != wanted || self.game.phase != phase {
            return Err(Refused::Turn);
        }
        match self.now > self.game.deadline.0 {
            true => Err(Refused::TooLate),
            false => Ok(()),
        }
    }

    /// Ends a turn: what it took beyond the response time is spent.
    fn turn_to(&mut self, phase: Phase) {
        let over = (self.now - self.since).saturating_sub(RESPONSE_TIME.into()) as u32;
        match self.game.turn() {
            Some(Side::Provider) => self.game.purse_provider -= over,
            _ => self.game.purse_challenger -= over,
        }
        self.since = self.now;
        self.game.phase = phase;
        let purse = match self.game.turn() {
            Some(Side::Provider) => self.game.purse_provider,
            _ => self.game.purse_challenger,
        };
        self.game.deadline = Timestamp(self.now + u64::from(RESPONSE_TIME) + u64::from(purse));
    }

    fn post(&mut self, root: B256, children: &[B256]) -> Result<(), Refused> {
        let top = Node::root(&self.program);
        self.check_children(&top, root, children)?;
        if self.game.trace_root.is_some_and(|posted| posted != root) {
            return Err(Refused::Root);
        }
        self.game.trace_root = Some(root);
        self.game.held = Some(Held {
            node: top,
            hash: root,
        });
        self.note(top, Below::Children(children.to_vec()));
        Ok(())
    }

    fn note(&mut self, node: Node, below: Below) {
        self.game.reveals.push(Reveal { node, below });
        self.turn_to(Phase::Request);
    }

    fn check_children(&self, node: &Node, hash: B256, children: &[B256]) -> Result<(), Refused> {
        let (height, range) = node.child_range(&self.program).ok_or(Refused::Turn)?;
        if children.len() as u64 != range.end - range.start {
            return Err(Refused::Count);
        }
        let top = tree::fold(children, node.height - height).ok_or(Refused::Count)?;
        self.check_top(node, hash, top)
    }

    fn check_top(&self, node: &Node, hash: B256, top: B256) -> Result<(), Refused> {
        let got = match node.is_top(&self.program) {
            true => merkle::bind(node.count(&self.program), &top),
            false => top,
        };
        (got == hash).then_some(()).ok_or(Refused::Hash)
    }

    fn request(&mut self, index: u32, hash: B256, siblings: &[B256]) -> Result<(), Refused> {
        let held = self.game.held.ok_or(Refused::Turn)?;
        let children = held.node.children(&self.program).ok_or(Refused::Turn)?;
        let child = *children.get(index as usize).ok_or(Refused::Count)?;
        if siblings.len() as u32 != tree::descent(held.node.height) {
            return Err(Refused::Count);
        }
        let pair = |level: usize, hash: B256, sibling: B256| match index >> level & 1 {
            0 => tree::fold(&[hash, sibling], 1),
            _ => tree::fold(&[sibling, hash], 1),
        };
        let top = siblings
            .iter()
            .enumerate()
            .try_fold(hash, |hash, (level, sibling)| pair(level, hash, *sibling))
            .ok_or(Refused::Count)?;
        self.check_top(&held.node, held.hash, top)?;
        self.game.held = Some(Held { node: child, hash });
        self.turn_to(Phase::Reveal);
        Ok(())
    }

    fn reveal(&mut self, below: &Below) -> Result<(), Refused> {
        let held = self.game.held.ok_or(Refused::Turn)?;
        match (below, held.node.chunk()) {
            (Below::Children(children), None) => {
                self.check_children(&held.node, held.hash, children)?;
            }
            (Below::Bytes(bytes), Some((leaf, chunk))) => {
                if bytes.len() != self.program.chunk_len(leaf, chunk) {
                    return Err(Refused::Count);
                }
                if merkle::leaf(bytes) != held.hash {
                    return Err(Refused::Hash);
                }
            }
            _ => return Err(Refused::Count),
        }
        self.note(held.node, below.clone());
        Ok(())
    }

    fn prove(&mut self, step: &Step) -> Result<(), Refused> {
        let root = self.game.trace_root.ok_or(Refused::Turn)?;
        let shown = verified(&self.program, root, step).map_err(Refused::Step)?;
        if !self.is_false(root, step, &shown)? {
            return Err(Refused::StepHolds);
        }
        self.convicted_by = Some(step.clone());
        self.game.phase = Phase::Over(Outcome::Convicted);
        Ok(())
    }

    fn is_false(&self, root: B256, step: &Step, shown: &[Shown]) -> Result<bool, Refused> {
        if step.op == TOKEN_OP {
            let output = step.row as usize;
            let honest = root == self.truth.root();
            let stated = self.truth.output.get(output);
            return match honest && step.tokens.first().map(|t| &t.token) == stated {
                true => Ok(stated != self.truth.choices.get(output)),
                false => Err(Refused::Step("about another trace")),
            };
        }
        let (op, row) = (step.op, step.row);
        let id = assay_protocol::trace::ElementId {
            leaf: LeafId { op, row },
            chunk: step.chunk,
            slot: step.slot,
        };
        let element = self.program.locate(id).ok_or(Refused::Step("no element"))?;
        let width = element.segment.width().bytes();
        let at = step.slot as usize * width;
        for (leaf, chunk, bytes) in shown {
            let truth = self.truth.vector(*leaf);
            let range = self.program.chunk_range(*leaf, *chunk).unwrap();
            let truth = &truth[range.start as usize..range.end as usize];
            let in_question = (*leaf, *chunk) == (id.leaf, id.chunk);
            let before = if in_question { at } else { bytes.len() };
            if bytes[..before] != truth[..before] {
                return Err(Refused::Step("not the first difference"));
            }
        }
        let (leaf, chunk, bytes) = shown.first().ok_or(Refused::Step("nothing is shown"))?;
        if (*leaf, *chunk) != (id.leaf, id.chunk) {
            return Err(Refused::Step("another element is shown first"));
        }
        let truth = self.truth.vector(*leaf);
        let from = self.program.chunk_range(*leaf, *chunk).unwrap().start as usize + at;
        Ok(bytes[at..at + width] != truth[from..from + width])
    }

    fn timeout(&mut self) -> Result<(), Refused> {
        let turn = self.game.turn().ok_or(Refused::Turn)?;
        if self.now <= self.game.deadline.0 {
            return Err(Refused::TooEarly);
        }
        self.game.phase = Phase::Over(match turn {
            Side::Challenger => Outcome::Rejected,
            _ => Outcome::Convicted,
        });
        Ok(())
    }
}

/// A chunk that a step shows.
type Shown = (LeafId, u32, Vec<u8>);

/// Checks every opening of a step against the trace's root, as the referee does, and says what it shows.
pub(crate) fn verified(
    program: &Program,
    root: B256,
    step: &Step,
) -> Result<Vec<Shown>, &'static str> {
    let mut leaves: Vec<(LeafId, B256)> = Vec::new();
    let mut shown = Vec::new();
    for opening in &step.openings {
        let leaf = LeafId {
            op: opening.op,
            row: opening.row,
        };
        let chunks = chunks_of(program, leaf, opening).ok_or("bytes do not fill chunks")?;
        let hashes: Vec<B256> = chunks.iter().map(|chunk| merkle::leaf(chunk)).collect();
        let count = program.chunks(leaf).into();
        let hash = tree::range_root(count, opening.first.into(), &hashes, &opening.siblings)
            .map_err(|_| "the range does not fit")?;
        match leaves.iter().find(|(known, _)| *known == leaf) {
            Some((_, known)) if *known != hash => return Err("two hashes of one leaf"),
            Some(_) if !opening.path.is_empty() => return Err("a path is shown twice"),
            Some(_) => {}
            None if in_trace(program, root, leaf, hash, &opening.path) => leaves.push((leaf, hash)),
            None => return Err("a leaf is not in the trace"),
        }
        shown.extend((opening.first..).zip(chunks).map(|(at, c)| (leaf, at, c)));
    }
    Ok(shown)
}

fn in_trace(program: &Program, root: B256, leaf: LeafId, hash: B256, path: &[B256]) -> bool {
    let rows = u64::from(program.rows(leaf.op));
    let Some((in_op, in_trace)) = path.split_at_checked(merkle::depth(rows) as usize) else {
        return false;
    };
    let climb = |count: u64, index: u32, siblings: &[B256], hash: &B256| {
        let opening = merkle::Opening {
            count,
            index: index.into(),
            siblings: siblings.to_vec(),
        };
        opening.root(hash)
    };
    let op_root = climb(rows, leaf.row, in_op, &hash);
    let found = op_root.and_then(|op| climb(program.ops().into(), leaf.op, in_trace, &op));
    found == Ok(root)
}

/// As many whole chunks from the first on as the opening's data are of.
fn chunks_of(program: &Program, leaf: LeafId, opening: &Opening) -> Option<Vec<Vec<u8>>> {
    let mut lens = Vec::new();
    let bytes = loop {
        let len = program.chunk_len(leaf, opening.first + lens.len() as u32);
        assert!(len <= CHUNK);
        if len == 0 {
            return None;
        }
        lens.push(len);
        if let Some(bytes) = opening.bytes(lens.iter().sum()) {
            break bytes;
        }
    };
    let mut rest = bytes.as_slice();
    let chunks = lens.iter().map(|len| {
        let (chunk, after) = rest.split_at(*len);
        rest = after;
        chunk.to_vec()
    });
    Some(chunks.collect())
}
