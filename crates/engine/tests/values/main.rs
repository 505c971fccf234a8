//! A prover's values: equal to the trace that is written plainly, to what `ops` make of their neighbours, and
//! none where anything clamps.

mod clamps;
mod neighbours;
#[path = "../../../testkit/src/tiny.rs"]
#[allow(dead_code, unreachable_pub)]
mod tiny;
mod traced;

use assay_engine::values::Pass;
use assay_protocol::TokenId;
use tiny::Tiny;

fn text(len: usize, vocab: u32) -> Vec<TokenId> {
    (0..len as u32)
        .map(|i| (i.wrapping_mul(i).wrapping_mul(31) + i * 7 + 3) % vocab)
        .collect()
}

#[test]
fn tokens_outside_the_vocabulary_have_no_values() {
    let model = Tiny::llama(11).model();
    assert!(Pass::new(&model, &[1, 288], 1).is_err());
    assert!(Pass::new(&model, &[], 1).is_err());
}
