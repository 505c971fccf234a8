//! Keys: what a verifier without the weights holds.

use assay_engine::Model;
use assay_engine::layout::{LayerPart, Section};
use assay_proof::{
    Claim, ClaimError, Key, KeyError, KeyFile, Options, Proof, ProveError, Rejection, TooLong,
    WeightsCommitted, prove, prove_with, setup, verify,
};
use assay_protocol::manifest::Manifest;
use assay_protocol::{B256, SamplerParams, Statement, StopReason};
use assay_testkit::tiny::Tiny;

const PROMPT: [u32; 4] = [256, 72, 101, 108];

struct Case {
    model: Model,
    key: KeyFile,
    committed: WeightsCommitted,
}

impl Case {
    fn new(tiny: &Tiny) -> Case {
        let model = tiny.model();
        let (key, committed) = setup(&model, 2).unwrap();
        Case {
            model,
            key,
            committed,
        }
    }

    /// Makes a proof of an answer, and hands it to a check with its claim.
    fn claimed<T>(&self, output: &[u32], then: impl Fn(&Claim<'_>) -> T) -> T {
        let sampler = SamplerParams::greedy(output.len() as u32);
        let id = self.model.id();
        let statement = Statement::new(id, &PROMPT, &sampler, output, StopReason::MaxTokens);
        then(&Claim {
            statement: &statement,
            prompt: &PROMPT,
            sampler: &sampler,
            output,
        })
    }

    fn prove(&self, claim: &Claim<'_>) -> Result<Proof, ProveError> {
        let options = Options {
            threads: 2,
            weights: Some(&self.committed),
        };
        prove_with(&self.model, claim, &options, &mut |_| ())
    }
}

/// The model's own answer of one token.
fn answer(model: &Model) -> [u32; 1] {
    let sampler = SamplerParams::greedy(1);
    let chosen = assay_engine::replay::choices(model, 1, &PROMPT, &sampler, &[0]).unwrap();
    [chosen[0]]
}

#[test]
fn a_proof_that_opens_the_weights_holds_with_the_key_alone() {
    for tiny in [Tiny::llama(1), Tiny::gemma3(1)] {
        let case = Case::new(&tiny);
        case.claimed(&answer(&case.model), |claim| {
            let proof = case.prove(claim).unwrap();
            let key = KeyFile::from_bytes(&case.key.to_bytes()).unwrap();
            let proven = verify(&Key::Committed(&key), claim, &proof, 2).unwrap();
            assert_eq!(proven.statement, *claim.statement);
            assert!(proven.security.total().centibits() >= 10_000);
            // The weights still tell as much.
            verify(&Key::Weights(&case.model), claim, &proof, 2).unwrap();
        });
    }
}

#[test]
fn a_proof_that_leaves_the_weights_out_needs_them() {
    let case = Case::new(&Tiny::llama(1));
    case.claimed(&[1], |claim| {
        let proof = prove(&case.model, claim, 2, &mut |_| ()).unwrap();
        let found = verify(&Key::Committed(&case.key), claim, &proof, 2);
        assert_eq!(found.err(), Some(Rejection::WeightsNotOpened));
    });
}

#[test]
fn neither_the_key_nor_the_commitment_of_another_model_will_do() {
    let [case, other] = [1, 2].map(|seed| Case::new(&Tiny::llama(seed)));
    assert_ne!(case.key.hash(), other.key.hash());
    case.claimed(&[1], |claim| {
        let found = verify(
            &Key::Committed(&other.key),
            claim,
            &case.prove(claim).unwrap(),
            2,
        );
        let wrong = ClaimError::WrongModel {
            stated: case.model.id(),
            found: other.model.id(),
        };
        assert_eq!(found.err(), Some(Rejection::Claim(wrong)));
        let options = Options {
            threads: 2,
            weights: Some(&other.committed),
        };
        let found = prove_with(&case.model, claim, &options, &mut |_| ());
        assert_eq!(found.err(), Some(ProveError::WrongWeights));
    });
}

#[test]
fn a_key_is_a_function_of_the_model_and_has_one_encoding() {
    for tiny in [Tiny::llama(1), Tiny::gemma3(1)] {
        let case = Case::new(&tiny);
        let (again, _) = setup(&case.model, 1).unwrap();
        assert_eq!(again, case.key);
        assert_eq!(again.hash(), case.key.hash());
        let bytes = case.key.to_bytes();
        let read = KeyFile::from_bytes(&bytes).unwrap();
        assert_eq!(read, case.key);
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.model_id(), case.model.id());
    }
}

#[test]
fn a_changed_byte_of_a_key_is_refused_or_makes_another_key() {
    let case = Case::new(&Tiny::gemma3(1));
    let bytes = case.key.to_bytes();
    // Most near both ends, where the manifest and what it does not bind are; some of the tables.
    let ends = (0..2_000)
        .step_by(61)
        .chain((bytes.len() - 620..bytes.len()).step_by(17));
    let between = (2_000..bytes.len()).step_by(bytes.len() / 20);
    for at in ends.chain(between) {
        let mut other = bytes.clone();
        other[at] ^= 1 << (at % 8);
        if let Ok(other) = KeyFile::from_bytes(&other) {
            assert_ne!(other.hash(), case.key.hash(), "byte {at}");
        }
    }
}

#[test]
fn a_key_cut_short_or_made_longer_is_refused() {
    let bytes = Case::new(&Tiny::llama(1)).key.to_bytes();
    for len in (0..bytes.len()).step_by(bytes.len() / 50) {
        assert!(KeyFile::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
    assert!(KeyFile::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
}

#[test]
fn a_token_that_the_model_does_not_have_is_refused() {
    let case = Case::new(&Tiny::llama(1));
    case.claimed(&[288], |claim| {
        let unknown = ClaimError::UnknownToken {
            token: 288,
            vocab: 288,
        };
        let found = prove(&case.model, claim, 2, &mut |_| ());
        assert_eq!(found.err(), Some(ProveError::Claim(unknown.clone())));
    });
}

#[test]
fn a_statement_longer_than_a_commitment_holds_is_refused_at_once() {
    let mut tiny = Tiny::llama(1);
    // 16 heads and 2 layers: seven rows for each pair of 4,096 positions are beyond 2^31 values.
    (tiny.dims.heads, tiny.dims.kv_heads) = (16, 2);
    tiny.dims.context_max = 8_192;
    let case = Case::new(&tiny);
    case.claimed(&[1; 3_000], |claim| {
        let found = prove(&case.model, claim, 2, &mut |_| ());
        let too_long = TooLong {
            positions: PROMPT.len() + 2_999,
            padded: 4_096,
            most: 2_048,
        };
        assert_eq!(found.err(), Some(ProveError::TooLong(too_long)));
    });
}

type Change<'a> = &'a dyn Fn(&mut Manifest);

/// The key's bytes under another manifest.
fn under(key: &KeyFile, change: Change<'_>) -> Vec<u8> {
    let bytes = key.to_bytes();
    let (tag, rest) = bytes.split_at(4 + "assay/proof-key/v1".len());
    let old = key.manifest().encode();
    let mut manifest = key.manifest().clone();
    change(&mut manifest);
    let new = manifest.encode();
    let len = (new.len() as u32).to_be_bytes();
    [tag, &len, &new, &rest[4 + old.len()..]].concat()
}

#[test]
fn a_key_is_held_against_its_manifest_and_its_bounds() {
    let case = Case::new(&Tiny::llama(1));
    let read = |change: Change<'_>| KeyFile::from_bytes(&under(&case.key, change));
    assert_eq!(read(&|_| ()).as_ref(), Ok(&case.key));
    let other = B256::repeat_byte(7);
    let roots: [(Change<'_>, Section); 5] = [
        (
            &|m| m.layers[1].ffn_norm.root = other,
            Section::Layer(1, LayerPart::FfnNorm),
        ),
        (&|m| m.final_norm.root = other, Section::FinalNorm),
        (&|m| m.exp_root = other, Section::Exp),
        (&|m| m.act_root = other, Section::Act),
        (&|m| m.rope_roots[0] = other, Section::Rope(0)),
    ];
    for (change, of) in roots {
        let found = read(change);
        let expected = matches!(found, Err(KeyError::Root { section, .. }) if section == of);
        assert!(expected, "{of}: {found:?}");
    }
    let bounds: [Change<'_>; 7] = [
        &|m| m.final_norm.eps = 0,
        &|m| m.layers[0].attention_norm.eps = u64::MAX,
        &|m| m.layers[0].down.sh = 62,
        &|m| (m.embedding.sh, m.residual_fraction) = (62, 0),
        &|m| m.layers[1].q.rows += 1,
        &|m| m.dims.heads = 0,
        &|m| m.layers[0].rope = 1,
    ];
    for (number, change) in bounds.into_iter().enumerate() {
        let found = read(change);
        assert!(
            matches!(found, Err(KeyError::Bound(_))),
            "{number}: {found:?}"
        );
    }
    let vocab = |m: &mut Manifest, rows: u32| {
        (m.dims.vocab, m.embedding.rows) = (rows, rows);
        m.head.as_mut().unwrap().rows = rows;
    };
    let found = read(&|m| vocab(m, 1 << 20));
    let section = Section::Embedding;
    let missing = matches!(found, Err(KeyError::Section { section: of, .. }) if of == section);
    assert!(missing, "{found:?}");
    let found = read(&|m| vocab(m, 1 << 24));
    assert!(
        matches!(found, Err(KeyError::TooManyWeights(_))),
        "{found:?}"
    );
}
