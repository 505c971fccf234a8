//! The steps of the code's descent on four columns at once, each compiled twice: for any machine, and for
//! those with AVX2, which is asked for at run time.

use super::words::{Four, add, scale, sub};

/// Constants of a run: b, b² and b³, and of the field: i² = −1.
#[derive(Clone, Copy)]
pub(super) struct Roots {
    pub(super) powers: [u64; 3],
    pub(super) i: u64,
}

/// `wide` coefficients from number `first` of each row, where the rows are `stride` coefficients long.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) stride: usize,
    pub(super) first: usize,
    pub(super) wide: usize,
}

fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Copies a strip of the rows that fill `out`.
pub(super) fn gather(source: impl Fn(usize) -> Four, out: &mut [Four], rows: Rows) {
    match has_avx2() {
        // SAFETY: the machine has AVX2.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { avx2::gather(source, out, rows) },
        _ => body::gather(source, out, rows),
    }
}

/// A run's remainder to those of its two parts, for ±root.
pub(super) fn halve(values: &mut [Four], root: u64) {
    match has_avx2() {
        // SAFETY: the machine has AVX2.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { avx2::halve(values, root) },
        _ => body::halve(values, root),
    }
}

/// A run's remainder to those of its four parts.
pub(super) fn split(values: &mut [Four], roots: Roots) {
    match has_avx2() {
        // SAFETY: the machine has AVX2.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { avx2::split(values, roots) },
        _ => body::split(values, roots),
    }
}

/// `split`, and again, as far as parts of length `until`; for values that the nearest caches hold. `table` has
/// the powers for each run.
pub(super) fn split_all(values: &mut [Four], until: usize, table: &[[u64; 3]], run: usize, i: u64) {
    match has_avx2() {
        // SAFETY: the machine has AVX2.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { avx2::split_all(values, until, table, run, i) },
        _ => body::split_all(values, until, table, run, i),
    }
}

/// `split` transposed.
pub(super) fn join(values: &mut [Four], roots: Roots) {
    match has_avx2() {
        // SAFETY: the machine has AVX2.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { avx2::join(values, roots) },
        _ => body::join(values, roots),
    }
}

/// `halve` transposed.
pub(super) fn join_halves(values: &mut [Four], root: u64) {
    match has_avx2() {
        // SAFETY: the machine has AVX2.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { avx2::join_halves(values, root) },
        _ => body::join_halves(values, root),
    }
}

/// Polynomials at a point, given as its powers.
pub(super) fn evaluate(coefficients: &[Four], powers: &[u64]) -> Four {
    match has_avx2() {
        // SAFETY: the machine has AVX2.
        #[cfg(target_arch = "x86_64")]
        true => unsafe { avx2::evaluate(coefficients, powers) },
        _ => body::evaluate(coefficients, powers),
    }
}

/// The same bodies again. They are inlined, so that the compiler may use the wider registers in them.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Four, Roots, Rows, body};

    #[target_feature(enable = "avx2")]
    pub(super) fn gather(source: impl Fn(usize) -> Four, out: &mut [Four], rows: Rows) {
        body::gather(source, out, rows);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn halve(values: &mut [Four], root: u64) {
        body::halve(values, root);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn split(values: &mut [Four], roots: Roots) {
        body::split(values, roots);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn split_all(
        values: &mut [Four],
        until: usize,
        table: &[[u64; 3]],
        run: usize,
        i: u64,
    ) {
        body::split_all(values, until, table, run, i);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn join(values: &mut [Four], roots: Roots) {
        body::join(values, roots);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn join_halves(values: &mut [Four], root: u64) {
        body::join_halves(values, root);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn evaluate(coefficients: &[Four], powers: &[u64]) -> Four {
        body::evaluate(coefficients, powers)
    }
}

mod body {
    use super::{Four, Roots, Rows, add, scale, sub};

    /// f0 + f1·c + f2·c² + f3·c³ for c = b, −b, ib and −ib.
    #[inline(always)]
    fn branches(f: [Four; 4], roots: Roots) -> [Four; 4] {
        let [b1, b2, b3] = roots.powers;
        let (f1, f2, f3) = (scale(f[1], b1), scale(f[2], b2), scale(f[3], b3));
        let (even, odd) = (add(f[0], f2), add(f1, f3));
        let (turned, across) = (sub(f[0], f2), scale(sub(f1, f3), roots.i));
        [
            add(even, odd),
            sub(even, odd),
            add(turned, across),
            sub(turned, across),
        ]
    }

    #[inline(always)]
    fn quarters(values: &mut [Four]) -> [&mut [Four]; 4] {
        let quarter = values.len() / 4;
        let (low, high) = values.split_at_mut(2 * quarter);
        let (a, b) = low.split_at_mut(quarter);
        let (c, d) = high.split_at_mut(quarter);
        [a, b, c, d]
    }

    #[inline(always)]
    pub(super) fn gather(source: impl Fn(usize) -> Four, out: &mut [Four], rows: Rows) {
        for (row, out) in out.chunks_exact_mut(rows.wide).enumerate() {
            let first = row * rows.stride + rows.first;
            for (i, out) in out.iter_mut().enumerate() {
                *out = source(first + i);
            }
        }
    }

    #[inline(always)]
    pub(super) fn halve(values: &mut [Four], root: u64) {
        let half = values.len() / 2;
        let (low, high) = values.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            let odd = scale(*high, root);
            (*low, *high) = (add(*low, odd), sub(*low, odd));
        }
    }

    #[inline(always)]
    pub(super) fn split(values: &mut [Four], roots: Roots) {
        let [a, b, c, d] = quarters(values);
        for ((a, b), (c, d)) in a.iter_mut().zip(b).zip(c.iter_mut().zip(d)) {
            [*a, *b, *c, *d] = branches([*a, *b, *c, *d], roots);
        }
    }

    #[inline(always)]
    pub(super) fn split_all(
        values: &mut [Four],
        until: usize,
        table: &[[u64; 3]],
        run: usize,
        i: u64,
    ) {
        let (mut len, mut run) = (values.len(), run);
        while len > until {
            for (part, powers) in values.chunks_exact_mut(len).zip(&table[run..]) {
                let powers = *powers;
                split(part, Roots { powers, i });
            }
            (len, run) = (len / 4, 4 * run);
        }
    }

    #[inline(always)]
    pub(super) fn join(values: &mut [Four], roots: Roots) {
        let [b1, b2, b3] = roots.powers;
        let [a, b, c, d] = quarters(values);
        for ((a, b), (c, d)) in a.iter_mut().zip(b).zip(c.iter_mut().zip(d)) {
            let (plus, minus) = (add(*a, *b), sub(*a, *b));
            let (across, turned) = (add(*c, *d), scale(sub(*c, *d), roots.i));
            *a = add(plus, across);
            *b = scale(add(minus, turned), b1);
            *c = scale(sub(plus, across), b2);
            *d = scale(sub(minus, turned), b3);
        }
    }

    #[inline(always)]
    pub(super) fn join_halves(values: &mut [Four], root: u64) {
        let half = values.len() / 2;
        let (low, high) = values.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            (*low, *high) = (add(*low, *high), scale(sub(*low, *high), root));
        }
    }

    #[inline(always)]
    pub(super) fn evaluate(coefficients: &[Four], powers: &[u64]) -> Four {
        let products = coefficients.iter().zip(powers);
        products.fold([0; 4], |sum, (value, power)| {
            add(sum, scale(*value, *power))
        })
    }
}
