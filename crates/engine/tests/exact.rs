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

#[test]
fn a_windowed_layer_sees_exactly_its_window() {
    let mut tiny = Tiny::gemma3(4);
    tiny.window = 512;
    tiny.dims.layers = 1;
    let model = tiny.model();
    let tokens = text(700, 288);
    let whole = fast(&model, 2, &tokens);
    for last in [510, 511, 512, 513, 640, 699] {
        let check = |at: usize, seen: bool| {
            let mut other = tokens[..=last].to_vec();
            other[at] = (other[at] + 1) % 288;
            let logits = fast(&model, 2, &other).pop().unwrap();
            assert_eq!(logits != whole[last], seen, "position {at} from {last}");
        };
        let first = (last + 1).saturating_sub(512);
        check(first, true);
        check(last, true);
        if first > 0 {
            check(first - 1, false);
            check(0, false);
        }
    }
    // And bit for bit, across the edge, with both kinds of layer.
    let mut tiny = Tiny::gemma3(5);
    tiny.window = 512;
    let model = tiny.model();
    assert!(fast(&model, 3, &tokens) == reference::logits(&model, &tokens).unwrap());
}

#[test]
fn heads_wider_than_an_i32_of_products_keep_their_bits() {
    let mut tiny = Tiny::gemma3(6);
    tiny.dims.head_dim = 256;
    tiny.dims.heads = 2;
    tiny.dims.kv_heads = 1;
    let model = tiny.model();
    let tokens = text(150, 288);
    assert!(fast(&model, 2, &tokens) == reference::logits(&model, &tokens).unwrap());
}

#[test]
fn odd_widths_and_single_heads_keep_their_bits() {
    for (width, ffn, heads, kv_heads, head_dim) in [
        (96, 160, 3, 1, 32),
        (32, 32, 2, 2, 16),
        (160, 224, 2, 1, 48),
        (64, 96, 1, 1, 32),
    ] {
        for mut tiny in [Tiny::llama(7), Tiny::gemma3(8)] {
            tiny.dims.width = width;
            tiny.dims.ffn = ffn;
            tiny.dims.heads = heads;
            tiny.dims.kv_heads = kv_heads;
            tiny.dims.head_dim = head_dim;
            let model = tiny.model();
            let tokens = text(40, 288);
            let plain = reference::logits(&model, &tokens).unwrap();
            assert!(fast(&model, 2, &tokens) == plain, "{:?}", tiny.dims);
            // One token at a time is another path through the kernels.
            let one = fast(&model, 1, &tokens[..1]);
            assert!(one[0] == plain[0], "{:?}", tiny.dims);
        }
    }
}
