//! Which token comes: argmax, or a draw from what two thresholds keep. Thresholds, never a sort: each
//! is a value that partial counts and sums over blocks of ids can refute.

use assay_protocol::{B256, SamplerParams, Temperature, TokenId, keccak256};

use super::arith::rsh;

/// log2(e) at Q.15.
const LOG2_E_Q15: i64 = 47_274;
/// Octaves below the maximum from which a token has no weight.
const OCTAVES: i64 = 32;

/// The largest logit's id; the lowest of equals.
pub fn argmax(logits: &[i32]) -> TokenId {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as TokenId
}

/// A token's weight: `2^31·2^(−t/256)`, with `t = rsh(below·β·log2 e, 31)` in Q.8 of log2 units. `below`
/// (Q.16) is at most 2^28, so the product stays below 2^62.
#[inline(always)]
pub fn weight(below: i64, beta: u32, exp: &[u16; 256]) -> u64 {
    let t = rsh(below * i64::from(beta) * LOG2_E_Q15, 31);
    match t >> 8 {
        octaves @ 0..OCTAVES => {
            rsh(i64::from(exp[(t & 255) as usize]) << 16, octaves as i32) as u64
        }
        _ => 0,
    }
}

/// θ_k: the k-th largest logit, equals counted; the least there is where k is 0 or exceeds the count.
pub fn threshold_k(logits: &[i32], k: u32) -> i32 {
    if k == 0 || k as usize >= logits.len() {
        return i32::MIN;
    }
    let mut copy = logits.to_vec();
    let (_, kth, _) = copy.select_nth_unstable_by(k as usize - 1, |a, b| b.cmp(a));
    *kth
}

/// θ_p: the largest logit θ with `Σ_{logit ≥ θ} w · 65536 ≥ P·Z`, found by halving the range of θ. Sums
/// only grow as θ falls, so the halving is exact; tokens without weight change no sum.
pub fn threshold_p(logits: &[i32], weights: &[u64], top_p_q16: u32) -> i32 {
    if top_p_q16 >= 1 << 16 {
        return i32::MIN;
    }
    // Sums stay below 2^31 · 2^24 tokens; times 2^16 they need more than 64 bits.
    let total: u64 = weights.iter().sum();
    let wanted = u128::from(total) * u128::from(top_p_q16);
    let mut rest: Vec<(i32, u64)> = logits
        .iter()
        .zip(weights)
        .filter(|(_, w)| **w > 0)
        .map(|(logit, w)| (*logit, *w))
        .collect();
    // Invariant: `above` is the weight of all that was set aside as larger than anything in `rest`, it
    // does not suffice, and together with `rest` it does.
    let mut above: u64 = 0;
    loop {
        let (low, high) = rest
            .iter()
            .fold((i32::MAX, i32::MIN), |(low, high), (logit, _)| {
                (low.min(*logit), high.max(*logit))
            });
        if low >= high {
            return high;
        }
        let middle = (i64::from(low) + i64::from(high) + 1).div_euclid(2) as i32;
        let upper: u64 = rest
            .iter()
            .filter(|(l, _)| *l >= middle)
            .map(|(_, w)| *w)
            .sum();
        if u128::from(above + upper) << 16 >= wanted {
            rest.retain(|(logit, _)| *logit >= middle);
        } else {
            above += upper;
            rest.retain(|(logit, _)| *logit < middle);
        }
    }
}

/// 64 bits for the token at this position of the whole sequence (the prompt's first token is at 0).
pub fn uniform(seed: &B256, position: u64) -> u64 {
    let mut bytes = [0u8; 46];
    bytes[..32].copy_from_slice(seed.as_slice());
    bytes[32..38].copy_from_slice(b"sample");
    bytes[38..].copy_from_slice(&position.to_be_bytes());
    let hash = keccak256(bytes);
    u64::from_be_bytes(hash[..8].try_into().expect("a hash has 32 bytes"))
}

/// The token at `position`, given the logits there.
pub fn choose(logits: &[i32], params: &SamplerParams, position: u64, exp: &[u16; 256]) -> TokenId {
    let Temperature::Beta(beta) = params.temperature else {
        return argmax(logits);
    };
    let max = i64::from(logits.iter().copied().max().unwrap_or(0));
    let mut weights: Vec<u64> = logits
        .iter()
        .map(|logit| weight(max - i64::from(*logit), beta, exp))
        .collect();
    let least =
        threshold_k(logits, params.top_k).max(threshold_p(logits, &weights, params.top_p_q16));
    let mut kept: u64 = 0;
    for (w, logit) in weights.iter_mut().zip(logits) {
        if *logit < least {
            *w = 0;
        }
        kept += *w;
    }
    // The maximum is always kept and weighs 2^31, so `kept` > 0 and r < kept.
    let r = ((u128::from(uniform(&params.seed, position)) * u128::from(kept)) >> 64) as u64;
    let mut sum = 0;
    for (id, w) in weights.iter().enumerate() {
        sum += w;
        if sum > r {
            return id as TokenId;
        }
    }
    unreachable!("the last prefix sum is {sum} and r is below it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A straight line from 2^15 to 2^14: the table's shape without a float.
    fn exp() -> [u16; 256] {
        std::array::from_fn(|i| (32_768 - 64 * i) as u16)
    }

    fn params(beta: u32, top_k: u32, top_p_q16: u32) -> SamplerParams {
        SamplerParams {
            temperature: Temperature::Beta(beta),
            top_k,
            top_p_q16,
            seed: B256::repeat_byte(9),
            ..SamplerParams::greedy(1)
        }
    }

    fn weights(logits: &[i32], beta: u32) -> Vec<u64> {
        let max = i64::from(*logits.iter().max().unwrap());
        logits
            .iter()
            .map(|l| weight(max - i64::from(*l), beta, &exp()))
            .collect()
    }

    /// Which ids are kept, by sorting as the textbooks do, ties included.
    fn kept_by_sorting(logits: &[i32], params: &SamplerParams, weights: &[u64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by_key(|id| std::cmp::Reverse(logits[*id]));
        let total: u128 = weights.iter().map(|w| u128::from(*w)).sum();
        let k = if params.top_k == 0 {
            logits.len()
        } else {
            params.top_k as usize
        };
        let kth = logits[order[k.min(order.len()) - 1]];
        let mut sum = 0u128;
        let mut nucleus = i32::MIN;
        if params.top_p_q16 < 1 << 16 {
            for id in &order {
                sum += u128::from(weights[*id]);
                // The whole group of equals is in or out.
                let group: u128 = order
                    .iter()
                    .filter(|other| logits[**other] >= logits[*id])
                    .map(|other| u128::from(weights[*other]))
                    .sum();
                if group << 16 >= total * u128::from(params.top_p_q16) {
                    nucleus = logits[*id];
                    break;
                }
            }
            assert!(sum > 0);
        }
        let mut kept: Vec<usize> = (0..logits.len())
            .filter(|id| logits[*id] >= kth.max(nucleus))
            .collect();
        kept.sort();
        kept
    }

    /// The token by walking the kept ids in order.
    fn chosen_by_walking(logits: &[i32], params: &SamplerParams, position: u64) -> TokenId {
        let Temperature::Beta(beta) = params.temperature else {
            panic!("not greedy")
        };
        let weights = weights(logits, beta);
        let kept = kept_by_sorting(logits, params, &weights);
        let total: u128 = kept.iter().map(|id| u128::from(weights[*id])).sum();
        let r = (u128::from(uniform(&params.seed, position)) * total) >> 64;
        let mut sum = 0;
        for id in kept {
            sum += u128::from(weights[id]);
            if sum > r {
                return id as TokenId;
            }
        }
        panic!("r is below the total");
    }

    /// Logits with many ties and a few far outliers.
    fn logits() -> impl Strategy<Value = Vec<i32>> {
        let one = prop_oneof![
            -5i32..5,
            (-40i32..40).prop_map(|l| l << 14),
            -(1i32 << 27) + 1..1 << 27
        ];
        prop::collection::vec(one, 1..60)
    }

    proptest! {
        #[test]
        fn thresholds_keep_what_sorting_keeps(
            logits in logits(), beta in 1u32..2000, top_k in 0u32..70, top_p in 1u32..=65_536, position in any::<u64>(),
        ) {
            let params = params(beta, top_k, top_p);
            prop_assert_eq!(
                choose(&logits, &params, position, &exp()),
                chosen_by_walking(&logits, &params, position)
            );
        }

        #[test]
        fn greedy_takes_the_lowest_of_the_largest(logits in logits()) {
            let token = argmax(&logits) as usize;
            prop_assert!(logits.iter().all(|l| *l <= logits[token]));
            prop_assert!(logits[..token].iter().all(|l| *l < logits[token]));
        }
    }

    #[test]
    fn one_token_is_left_where_k_is_one_or_p_is_least() {
        let logits = [3 << 16, 9 << 16, 9 << 16, 1];
        for params in [params(256, 1, 1 << 16), params(256, 0, 1)] {
            for position in 0..50 {
                assert!(
                    [1, 2].contains(&choose(&logits, &params, position, &exp())),
                    "ties stay"
                );
            }
        }
    }

    #[test]
    fn draws_come_as_often_as_they_weigh() {
        let logits = [0, 1 << 16, 2 << 16, -(3 << 16), 1 << 15];
        let params = params(256, 0, 1 << 16);
        let weights = weights(&logits, 256);
        let total: u64 = weights.iter().sum();
        let draws = 40_000u64;
        let mut counts = [0u64; 5];
        for position in 0..draws {
            counts[choose(&logits, &params, position, &exp()) as usize] += 1;
        }
        for (count, w) in counts.iter().zip(&weights) {
            let expected = (draws * (w >> 8)) / (total >> 8);
            // Six standard deviations at most: sqrt(n·p) bounds one.
            let margin = 6 * expected.isqrt() + 6;
            assert!(
                count.abs_diff(expected) <= margin,
                "{counts:?} against {expected}"
            );
        }
    }

    #[test]
    fn the_uniform_draw_is_spelled_out() {
        // keccak256(07 ×32 ‖ "sample" ‖ 5), first eight bytes.
        let mut bytes = vec![7u8; 32];
        bytes.extend(b"sample");
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 5]);
        let expected = u64::from_be_bytes(keccak256(&bytes)[..8].try_into().unwrap());
        assert_eq!(uniform(&B256::repeat_byte(7), 5), expected);
        assert_ne!(uniform(&B256::repeat_byte(7), 6), expected);
    }

    #[test]
    fn far_tokens_weigh_nothing_and_the_widest_gap_does_not_overflow() {
        assert_eq!(weight(0, 256, &exp()), 1 << 31);
        assert_eq!(weight(1 << 28, (1 << 18) - 1, &exp()), 0);
        // β = 1 is T = 256: 2^28 at Q.16 is 4096, over 256 it is 16, times log2(e) 23 octaves.
        assert!(weight(1 << 28, 1, &exp()) > 0);
    }
}
