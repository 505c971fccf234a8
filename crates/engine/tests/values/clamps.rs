//! Models that clamp, made from ones that do not: the pass refuses exactly where the engine counts clamps,
//! but for what the cache holds within its bits.

use std::sync::Arc;

use assay_engine::layout::{File, manifest_range};
use assay_engine::values::{Pass, Site, ValuesError};
use assay_engine::{Model, run};
use assay_protocol::manifest::{LayerEntry, Manifest, MatrixEntry};

use crate::text;
use crate::tiny::Tiny;

/// A model whose manifest was changed, where it opens.
fn changed(bytes: &[u8], change: &dyn Fn(&mut Manifest)) -> Option<Model> {
    let file = File::parse(bytes).unwrap();
    let mut manifest = file.manifest(bytes).unwrap();
    change(&mut manifest);
    let mut bytes = bytes.to_vec();
    let range = manifest_range(&bytes).unwrap();
    bytes[range].copy_from_slice(&manifest.encode());
    Model::open(Arc::new(bytes)).ok()
}

/// Where the pass first clamps, which is somewhere exactly where the engine counts clamps.
fn first_clamp(model: &Model) -> Option<Site> {
    let tokens = text(32, 288);
    let (_, clamps) = run::logits(model, 1, &tokens, 0, &|_, _| ()).unwrap();
    let all_layers = |mut pass: Pass<'_>| -> Result<(), ValuesError> {
        while let Some(values) = pass.next_layer() {
            values?;
        }
        Ok(())
    };
    let found = match Pass::new(model, &tokens, 2).and_then(all_layers) {
        Ok(()) => None,
        Err(ValuesError::Clamped(clamped)) => Some(clamped.site),
        Err(error) => panic!("{error}"),
    };
    let counted = clamps.total() > clamps.logits + clamps.qk + clamps.v;
    assert_eq!(found.is_some(), counted, "{found:?}, {clamps:?}");
    found
}

fn lower(entry: &mut MatrixEntry, by: u8) {
    entry.sh = entry.sh.saturating_sub(by);
}

type Change<'a> = &'a dyn Fn(&mut Manifest, u8);

/// The largest change that opens and does not clamp at this site.
fn largest(bytes: &[u8], change: Change<'_>, site: Site) -> u8 {
    let clamps = |by: &u8| match changed(bytes, &|manifest| change(manifest, *by)) {
        Some(model) => first_clamp(&model) == Some(site),
        None => true,
    };
    (1..20).find(clamps).unwrap_or(20) - 1
}

#[test]
fn a_pass_that_clamps_has_no_values() {
    let layer = |manifest: &mut Manifest, by: &dyn Fn(&mut LayerEntry)| by(&mut manifest.layers[1]);
    let changes: [(Change<'_>, &[Site]); 8] = [
        (&|m, by| lower(&mut m.embedding, by), &[Site::Embedding]),
        (&|m, by| layer(m, &|l| lower(&mut l.q, by)), &[Site::Q]),
        (&|m, by| layer(m, &|l| lower(&mut l.k, by)), &[Site::K]),
        (&|m, by| layer(m, &|l| lower(&mut l.v, by)), &[Site::V]),
        (&|m, by| layer(m, &|l| lower(&mut l.o, by)), &[Site::O]),
        (
            &|m, by| layer(m, &|l| lower(&mut l.gate, by)),
            &[Site::Gate],
        ),
        (&|m, by| layer(m, &|l| lower(&mut l.up, by)), &[Site::Up]),
        (
            &|m, by| layer(m, &|l| lower(&mut l.down, by)),
            &[Site::Down],
        ),
    ];
    let mut seen = Vec::new();
    for tiny in [Tiny::llama(12), Tiny::gemma3(13)] {
        let bytes = tiny.bytes();
        for ((change, sites), by) in changes.iter().flat_map(|c| (0..20).map(move |by| (c, by))) {
            let Some(model) = changed(&bytes, &|manifest| change(manifest, by)) else {
                continue;
            };
            let site = first_clamp(&model);
            assert!(
                site.is_none_or(|site| sites.contains(&site)),
                "{site:?}, not {sites:?}"
            );
            seen.extend(site);
        }
    }
    for site in changes.iter().flat_map(|(_, sites)| sites.iter()) {
        assert!(seen.contains(site), "{site:?}");
    }
}

#[test]
fn a_residual_that_clamps_has_no_values_though_its_branches_do_not() {
    let embedding: Change<'_> = &|m, by| lower(&mut m.embedding, by);
    let o: Change<'_> = &|m, by| lower(&mut m.layers[0].o, by);
    let down: Change<'_> = &|m, by| lower(&mut m.layers[0].down, by);
    for (branch, site, sum) in [
        (o, Site::O, Site::Middle),
        (down, Site::Down, Site::Residual),
    ] {
        let found = (0..20).any(|seed| {
            let bytes = Tiny::llama(seed).bytes();
            let x = largest(&bytes, embedding, Site::Embedding);
            let y = largest(&bytes, branch, site);
            let both = changed(&bytes, &|m| {
                embedding(m, x);
                branch(m, y);
            });
            first_clamp(&both.unwrap()) == Some(sum)
        });
        assert!(found, "{sum:?}");
    }
}
