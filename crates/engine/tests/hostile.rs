//! A hostile model file gives an error or another valid model, never a panic.

#[allow(dead_code, unreachable_pub)]
#[path = "../../testkit/src/tiny.rs"]
mod tiny;

use std::sync::Arc;

use assay_engine::layout::{File, LayoutError, Section, manifest_range};
use assay_engine::{BoundError, LoadError, Model, calibrate, run};
use assay_protocol::manifest::{Dims, Manifest};
use tiny::Tiny;

fn small() -> Tiny {
    let mut tiny = Tiny::gemma3(20);
    tiny.dims = Dims {
        layers: 1,
        width: 32,
        heads: 2,
        kv_heads: 1,
        head_dim: 16,
        ffn: 32,
        vocab: 64,
        context_max: 16,
    };
    tiny.bos = None;
    tiny.eos = vec![1];
    tiny
}

/// Opens the bytes and, where they open, runs them: whatever passes the checks must not overflow.
fn try_out(bytes: Vec<u8>) -> Result<Model, LoadError> {
    let model = Model::open(Arc::new(bytes))?;
    run::logits(&model, 1, &[1, 2, 3, 0, 1], 0, &|_, logits| logits[0]).unwrap();
    Ok(model)
}

#[test]
fn every_truncation_is_refused() {
    let bytes = small().bytes();
    for len in (0..bytes.len())
        .step_by(997)
        .chain(bytes.len() - 300..bytes.len())
    {
        assert!(
            Model::open(Arc::new(bytes[..len].to_vec())).is_err(),
            "{len} bytes were accepted"
        );
    }
}

#[test]
fn flipped_bits_never_panic_and_never_pass_the_roots() {
    let bytes = small().bytes();
    let model = try_out(bytes.clone()).unwrap();
    model.verify_roots().unwrap();
    // Directory, footer and manifest densely, the rest (mostly tables) sparsely.
    let dense = manifest_range(&bytes).unwrap().start * 8;
    let bits = (0..dense)
        .step_by(40_009)
        .chain((dense..bytes.len() * 8).step_by(61));
    let mut accepted = 0;
    for bit in bits {
        let mut other = bytes.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        let Ok(other) = try_out(other) else { continue };
        accepted += 1;
        // Padding and a reserved field carry no meaning; everything else is caught by id or root.
        if other.id() == model.id() && other.verify_roots().is_ok() {
            let logits = |model| {
                run::logits(model, 1, &[1, 2, 3], 0, &|_, l| l.to_vec())
                    .unwrap()
                    .0
            };
            assert_eq!(
                logits(&other),
                logits(&model),
                "bit {bit} changes the model unseen"
            );
        }
    }
    assert!(accepted > 0);
}

#[test]
fn a_row_that_could_overflow_is_refused() {
    let tiny = small();
    let mut bytes = tiny.bytes();
    let file = File::parse(&bytes).unwrap();
    let range = file
        .range(Section::Layer(0, assay_engine::layout::LayerPart::Gate))
        .unwrap();
    // A plain matrix: the weights are the section's end.
    for short in bytes[range][128..].chunks_exact_mut(2) {
        short.copy_from_slice(&i16::MAX.to_le_bytes());
    }
    assert!(matches!(
        Model::open(Arc::new(bytes)),
        Err(LoadError::Bound(BoundError::Row { .. }))
    ));
}

#[test]
fn manifests_that_the_arithmetic_does_not_cover_are_refused() {
    let bytes = small().bytes();
    let range = manifest_range(&bytes).unwrap();
    let manifest = Manifest::decode(&bytes[range.clone()]).unwrap();
    let check = |change: fn(&mut Manifest)| {
        let mut manifest = manifest.clone();
        change(&mut manifest);
        let mut bytes = bytes.clone();
        bytes[range.clone()].copy_from_slice(&manifest.encode());
        let result = Model::open(Arc::new(bytes));
        assert!(matches!(result, Err(LoadError::Bound(_))), "{result:?}");
    };
    check(|m| m.layers[0].fractions.q = 127);
    check(|m| m.layers[0].fractions.v = -128);
    check(|m| m.attention_scale.c = u32::MAX);
    check(|m| m.attention_scale.csh = 255);
    check(|m| m.residual_fraction = 40);
    check(|m| m.layers[0].attention_norm.eps = 0);
    check(|m| m.layers[0].attention_norm.eps = u64::MAX);
    check(|m| m.layers[0].gemma.as_mut().unwrap().q_norm.fs = 20);
    check(|m| m.layers[0].q.sh = 200);
    check(|m| m.layers[0].down.sh = 0);
    check(|m| m.layers[0].rope = 9);
    check(|m| m.dims.head_dim = 0);
    check(|m| m.dims.kv_heads = 0);
    check(|m| m.dims.vocab = u32::MAX);
    check(|m| m.dims.context_max = u32::MAX);
    check(|m| m.dims.width = u32::MAX);
    check(|m| m.eos = vec![64]);
}

#[test]
fn a_file_without_a_section_names_it() {
    let mut bytes = small().bytes();
    let end = bytes.len() - 64;
    let entries = bytes[end - 24 * 3..end].to_vec();
    // The last entry is the tag of the layer's last part; make it a duplicate of the one before.
    bytes[end - 24..end].copy_from_slice(&entries[24..48]);
    assert!(matches!(
        Model::open(Arc::new(bytes)),
        Err(LoadError::Layout(LayoutError::Misplaced(_)))
    ));
}

#[test]
fn calibration_does_not_depend_on_the_fractions_it_replaces() {
    let tiny = small();
    let sequences = vec![vec![1, 2, 3, 4, 5, 6], vec![9, 8, 7]];
    let bytes = tiny.bytes();
    let range = manifest_range(&bytes).unwrap();
    let with = |f: i8| {
        let mut bytes = bytes.clone();
        let mut manifest = Manifest::decode(&bytes[range.clone()]).unwrap();
        manifest.layers[0].fractions = assay_protocol::manifest::Fractions { q: f, k: f, v: f };
        bytes[range.clone()].copy_from_slice(&manifest.encode());
        Model::open(Arc::new(bytes)).unwrap()
    };
    let found = calibrate::fractions(&with(5), 2, &sequences).unwrap();
    assert_eq!(
        found,
        calibrate::fractions(&with(9), 1, &sequences).unwrap()
    );
    assert!((5..12).contains(&found[0].q), "{found:?}");
}
