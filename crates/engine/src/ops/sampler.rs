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
