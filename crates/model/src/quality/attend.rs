//! One head of float attention at one position. Compiled twice: plainly, and for AVX2 with FMA.
//! For the quality report alone.

use std::ops::Range;

const LANES: usize = 32;

/// Keys or values of one head: position j's vector starts at `j·stride + offset`.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub offset: usize,
}

impl<'a> Heads<'a> {
    #[inline(always)]
    fn at(&self, position: usize, len: usize) -> &'a [f32] {
        &self.data[position * self.stride + self.offset..][..len]
    }
}

/// Adds to `out` the values of the seen positions, weighted by the softmax of `q·k·scale`.
pub(super) fn attend(
    q: &[f32],
    k: Heads<'_>,
    v: Heads<'_>,
    seen: Range<usize>,
    scale: f32,
    out: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the two features were just found.
        return unsafe { attend_avx2(q, k, v, seen, scale, out) };
    }
    attend_with(q, k, v, seen, scale, out, |a, b, sum| sum + a * b);
}

/// # Safety
/// The processor must have AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn attend_avx2(
    q: &[f32],
    k: Heads<'_>,
    v: Heads<'_>,
    seen: Range<usize>,
    scale: f32,
    out: &mut [f32],
) {
    attend_with(q, k, v, seen, scale, out, |a: f32, b, sum| {
        a.mul_add(b, sum)
    });
}

#[inline(always)]
fn attend_with(
    q: &[f32],
    k: Heads<'_>,
    v: Heads<'_>,
    seen: Range<usize>,
    scale: f32,
    out: &mut [f32],
    fused: impl Fn(f32, f32, f32) -> f32,
) {
    let mut weights: Vec<f32> = Vec::with_capacity(seen.len());
    for j in seen.clone() {
        let (q, rest_q) = q.as_chunks::<LANES>();
        let (k, rest_k) = k.at(j, out.len()).as_chunks::<LANES>();
        let mut lanes = [0.0f32; LANES];
        for (q, k) in q.iter().zip(k) {
            for l in 0..LANES {
                lanes[l] = fused(q[l], k[l], lanes[l]);
            }
        }
        let rest: f32 = rest_q.iter().zip(rest_k).map(|(q, k)| q * k).sum();
        weights.push((lanes.iter().sum::<f32>() + rest) * scale);
    }
    let max = weights.iter().copied().fold(f32::MIN, f32::max);
    weights.iter_mut().for_each(|w| *w = (*w - max).exp());
    let sum: f32 = weights.iter().sum();
    for (j, weight) in seen.zip(&weights) {
        let weight = weight / sum;
        for (out, v) in out.iter_mut().zip(v.at(j, q.len())) {
            *out = fused(weight, *v, *out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_share_the_weight() {
        let (q, k) = (vec![1.0; 40], vec![0.5; 120]);
        let v: Vec<f32> = (0..120).map(|i| (i / 40) as f32).collect();
        let heads = |data| Heads {
            data,
            stride: 40,
            offset: 0,
        };
        for seen in [0..3, 1..3] {
            let expected = seen.clone().sum::<usize>() as f32 / seen.len() as f32;
            let mut fast = vec![0.0; 40];
            attend(&q, heads(&k), heads(&v), seen.clone(), 0.1, &mut fast);
            let mut plain = vec![0.0; 40];
            attend_with(
                &q,
                heads(&k),
                heads(&v),
                seen,
                0.1,
                &mut plain,
                |a, b, s| a * b + s,
            );
            for value in fast.iter().chain(&plain) {
                assert!((value - expected).abs() < 1e-5);
            }
        }
    }
}
