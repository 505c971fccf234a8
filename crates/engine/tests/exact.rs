//! The fast pass equals the plain one, bit for bit, however it is threaded, batched or cut.

#[path = "../../testkit/src/tiny.rs"]
#[allow(dead_code, unreachable_pub)]
mod tiny;

use assay_engine::{Model, reference, run};
use assay_protocol::TokenId;
use tiny::Tiny;

/// A text that visits the vocabulary without pattern.
fn text(len: usize, vocab: u32) -> Vec<TokenId> {
    (0..len as u32)
        .map(|i| (i * i * 31 + i * 7 + 3) % vocab)
        .collect()
}

fn fast(model: &Model, threads: usize, tokens: &[TokenId]) -> Vec<Vec<i32>> {
    run::logits(model, threads, tokens, 0, &|_, logits| logits.to_vec())
        .unwrap()
        .0
}

#[test]
fn fast_equals_plain_on_both_architectures() {
    for tiny in [Tiny::llama(1), Tiny::gemma3(2)] {
        let model = tiny.model();
        model.verify_roots().unwrap();
        let tokens = text(200, 288);
        let plain = reference::logits(&model, &tokens).unwrap();
        for threads in [1, 2, 3] {
            let (logits, clamps) =
                run::logits(&model, threads, &tokens, 0, &|_, logits| logits.to_vec()).unwrap();
            assert!(
                logits == plain,
                "{:?} on {threads} threads",
                tiny.architecture
            );
            println!("{:?} {clamps:?}", tiny.architecture);
        }
        let spread = plain[199].iter().max().unwrap() - plain[199].iter().min().unwrap();
        println!(
            "{:?} {:?} spread {}",
            tiny.architecture,
            &plain[199][..8],
            spread >> 16
        );
    }
}

#[test]
fn a_context_beyond_1024_keeps_its_bits() {
    let model = Tiny::llama(3).model();
    let tokens = text(1500, 288);
    assert!(fast(&model, 2, &tokens) == reference::logits(&model, &tokens).unwrap());
}
