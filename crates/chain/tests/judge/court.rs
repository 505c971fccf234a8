//! A referee with one statement before it: the trace that the engine makes of it, and steps about any
//! of its elements. The referee is called directly; the game around it is tested elsewhere.

use std::cell::RefCell;
use std::collections::BTreeMap;

use alloy_sol_types::{SolCall, SolValue};
use assay_audit::ModelTrace;
use assay_chain::abi::{IModels, IReferee};
use assay_chain::{artifacts, encode_step};
use assay_dispute::{Player, Seen, Step, Trace, TraceError};
use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest, Model};
use assay_protocol::manifest::Manifest;
use assay_protocol::trace::{
    Element, EntryShown, LeafId, MatrixRef, Op, Program, RowShown, Segment, TableRef,
};
use assay_protocol::{Address, B256, SamplerParams, Statement, StopReason, TokenId, keccak256};

use crate::evm::{Evm, Refused};

/// What a step cost.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Gas {
    whole: u64,
    /// The least that its calldata costs (EIP-7623).
    floor: u64,
    /// What its calldata costs as part of the whole, the transaction's base included.
    calldata: u64,
}

impl Gas {
    fn new(whole: u64, calldata: &[u8]) -> Gas {
        let zeros = calldata.iter().filter(|byte| **byte == 0).count() as u64;
        let tokens = zeros + 4 * (calldata.len() as u64 - zeros);
        Gas {
            whole,
            floor: 21_000 + 10 * tokens,
            calldata: 21_000 + 4 * tokens,
        }
    }
}

/// A referee on a bare EVM.
pub(crate) struct Court {
    evm: Evm,
    referee: Address,
    models: Address,
    /// The most gas that a step about each kind of element took.
    gas: BTreeMap<String, Gas>,
}

impl Court {
    pub(crate) fn new() -> Court {
        let mut evm = Evm::new();
        let models = evm.create(artifacts::models());
        let samples = evm.create(artifacts::with_arguments(
            artifacts::sample_referee(),
            &models.abi_encode(),
        ));
        let referee = evm.create(artifacts::with_arguments(
            artifacts::referee(),
            &samples.abi_encode(),
        ));
        Court {
            evm,
            referee,
            models,
            gas: BTreeMap::new(),
        }
    }

    pub(crate) fn publish(&mut self, manifest: &Manifest) {
        let call = IModels::publishCall {
            manifest: manifest.encode().into(),
        };
        self.evm
            .send(self.models, &call)
            .expect("a manifest is published");
    }

    /// What the referee says of a step.
    pub(crate) fn convicts(
        &mut self,
        case: &Case,
        root: B256,
        step: &Step,
    ) -> Result<bool, Refused> {
        let call = IReferee::convictsCall {
            statement: (&case.statement).into(),
            traceRoot: root,
            step: encode_step(step).into(),
        };
        let answer = self.evm.call(self.referee, &call)?;
        let most = self.gas.entry(case.kind(step)).or_default();
        *most = Gas::new(answer.gas, &call.abi_encode()).max(*most);
        Ok(answer.value)
    }

    pub(crate) fn print_gas(&self, title: &str) {
        println!("{title}: most gas of a step; of it calldata; its floor");
        for (kind, gas) in &self.gas {
            let Gas {
                whole,
                calldata,
                floor,
            } = gas;
            println!("  {kind:<24} {whole:>9} {calldata:>9} {floor:>9}");
        }
    }
}

/// A statement and the honest trace of it.
pub(crate) struct Case {
    pub(crate) statement: Statement,
    pub(crate) trace: Remembers<ModelTrace>,
}

/// What the model itself answers.
pub(crate) fn answer(
    model: &Model,
    prompt: &[TokenId],
    sampler: &SamplerParams,
) -> (Vec<TokenId>, StopReason) {
    let mut batcher = Batcher::new(model, 2, BatchLimits::default());
    let request = GenerationRequest::new(prompt.to_vec(), sampler.clone());
    batcher.submit(request).expect("a request that fits");
    let mut output = Vec::new();
    loop {
        for event in batcher.step() {
            match event.kind {
                EventKind::Prefilled { .. } => {}
                EventKind::Token(token) => output.push(token),
                EventKind::Finished(reason) => return (output, reason),
            }
        }
    }
}

impl Case {
    pub(crate) fn honest(model: &Model, prompt: &[TokenId], sampler: &SamplerParams) -> Case {
        let (output, stop) = answer(model, prompt, sampler);
        Case::of(model, prompt, sampler, &output, stop)
    }

    /// The case of any output: the trace is honest, the tokens need not be.
    pub(crate) fn of(
        model: &Model,
        prompt: &[TokenId],
        sampler: &SamplerParams,
        output: &[TokenId],
        stop: StopReason,
    ) -> Case {
        let trace = ModelTrace::new(model, 2, prompt.to_vec(), output.to_vec(), sampler.clone())
            .expect("a trace of a statement that fits");
        Case {
            statement: Statement::new(model.id(), prompt, sampler, output, stop),
            trace: Remembers::new(trace),
        }
    }

    pub(crate) fn program(&self) -> &Program {
        self.trace.program()
    }

    pub(crate) fn player(&self) -> Player<'_> {
        Player::new(&self.trace).expect("a whole trace")
    }

    /// Every element of the trace, in order.
    pub(crate) fn elements(&self) -> impl Iterator<Item = Element> + '_ {
        let program = self.program();
        (0..program.ops())
            .flat_map(|op| (0..program.rows(op)).map(move |row| LeafId { op, row }))
            .flat_map(|leaf| {
                program
                    .parts(leaf)
                    .into_iter()
                    .map(move |part| (leaf, part))
            })
            .flat_map(|(leaf, part)| {
                (0..part.len).map(move |index| Element {
                    leaf,
                    segment: part.segment,
                    index,
                })
            })
    }

    fn kind(&self, step: &Step) -> String {
        let program = self.program();
        let id = assay_protocol::trace::ElementId {
            leaf: LeafId {
                op: step.op,
                row: step.row,
            },
            chunk: step.chunk,
            slot: step.slot,
        };
        let op = match program.op(step.op) {
            Some(Op::Project(_)) => "Project",
            Some(Op::Columns(_)) => "Columns",
            Some(Op::Layer(_)) => "Layer",
            Some(Op::Embed) => "Embed",
            Some(Op::Final) => "Final",
            Some(Op::Sample) => "Sample",
            None if program.drawn() => return "TOKEN, drawn".into(),
            None => return "TOKEN, greedy".into(),
        };
        let segment = program.locate(id).map(|element| element.segment);
        format!("{op}.{:?}", segment.unwrap_or(Segment::Residual))
    }
}

/// A number that is anything, but the same every time.
pub(crate) fn pick(seed: u64, of: u64) -> u64 {
    let hash = keccak256(seed.to_be_bytes());
    u64::from_be_bytes(hash[..8].try_into().expect("eight bytes")) % of
}

/// Nothing was shown by the other side but a root that is one's own.
pub(crate) fn own_root(player: &mut Player<'_>, program: &Program) -> Seen {
    Seen::new(program, player.root().expect("a trace has a root"))
}

/// A trace that remembers the rows and entries that it showed: a test asks for the same ones often.
pub(crate) struct Remembers<T> {
    trace: T,
    rows: RefCell<BTreeMap<(MatrixRef, u32), RowShown>>,
    entries: RefCell<BTreeMap<(TableRef, u32), EntryShown>>,
}

impl<T> Remembers<T> {
    fn new(trace: T) -> Remembers<T> {
        Remembers {
            trace,
            rows: RefCell::default(),
            entries: RefCell::default(),
        }
    }
}

impl<T: Trace> Trace for Remembers<T> {
    fn manifest(&self) -> &Manifest {
        self.trace.manifest()
    }

    fn prompt(&self) -> &[TokenId] {
        self.trace.prompt()
    }

    fn output(&self) -> &[TokenId] {
        self.trace.output()
    }

    fn sampler(&self) -> &SamplerParams {
        self.trace.sampler()
    }

    fn program(&self) -> &Program {
        self.trace.program()
    }

    fn leaves(&self, op: u32) -> &[B256] {
        self.trace.leaves(op)
    }

    fn vectors(&self, wanted: &[LeafId]) -> Result<Vec<Vec<u8>>, TraceError> {
        self.trace.vectors(wanted)
    }

    fn choices(&self) -> Result<Vec<TokenId>, TraceError> {
        self.trace.choices()
    }

    fn weight_row(&self, matrix: MatrixRef, row: u32) -> Result<RowShown, TraceError> {
        if let Some(shown) = self.rows.borrow().get(&(matrix, row)) {
            return Ok(shown.clone());
        }
        let shown = self.trace.weight_row(matrix, row)?;
        self.rows.borrow_mut().insert((matrix, row), shown.clone());
        Ok(shown)
    }

    fn entry(&self, table: TableRef, index: u32) -> Result<EntryShown, TraceError> {
        if let Some(shown) = self.entries.borrow().get(&(table, index)) {
            return Ok(shown.clone());
        }
        let shown = self.trace.entry(table, index)?;
        let key = (table, index);
        self.entries.borrow_mut().insert(key, shown.clone());
        Ok(shown)
    }
}
