//! Every path against the scalar definitions, on random and on extreme inputs.

use proptest::prelude::*;

use super::*;
use crate::layout::{Codes, MatrixParts};
use crate::ops::linear;

fn paths() -> Vec<Path> {
    let detected = Path::detect();
    let mut paths = vec![Path::Portable];
    if detected != Path::Portable {
        paths.push(detected);
    }
    paths
}

/// Mostly the ends of the range, as sums and signs break there.
fn extreme(low: i16, high: i16) -> impl Strategy<Value = i16> {
    prop_oneof![Just(low), Just(high), low..=high]
}

fn vector<T: std::fmt::Debug>(
    len: usize,
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(of, len)
}

/// Codes and factors that no weight wraps with.
fn codes(rows: usize, cols: usize) -> impl Strategy<Value = Codes> {
    let n = rows * cols;
    let bytes = |len| {
        vector(
            len,
            prop_oneof![Just(0u8), Just(255), Just(128), any::<u8>()],
        )
    };
    let signed =
        move || bytes(n).prop_map(|bytes| bytes.into_iter().map(|b| b as i8).collect::<Vec<_>>());
    prop_oneof![
        (
            bytes(n / 2),
            vector(n / 32, extreme(-255, 255)),
            vector(n / 32, extreme(-28_000, 28_000))
        )
            .prop_map(|(codes, d, m)| Codes::U4 { codes, d, m }),
        (signed(), vector(n / 32, extreme(-255, 255)))
            .prop_map(|(codes, d)| Codes::I8x32 { codes, d }),
        (signed(), vector(n / 16, extreme(-255, 255)))
            .prop_map(|(codes, d)| Codes::I8x16 { codes, d }),
        vector(n, extreme(-32_767, 32_767)).prop_map(|weights| Codes::I16 { weights }),
    ]
}

fn matrix() -> impl Strategy<Value = MatrixParts> {
    (1usize..22, 1usize..12).prop_flat_map(|(rows, blocks)| {
        let cols = blocks * 32;
        (codes(rows, cols), vector(rows, any::<u16>())).prop_map(move |(codes, scales)| {
            MatrixParts {
                rows: rows as u32,
                cols: cols as u32,
                sh: 20,
                scales,
                codes,
            }
        })
    })
}

/// `ops::linear::dot`, but for sums that the loader would refuse.
fn dot(x: &[i16], w: &[i16]) -> i32 {
    x.iter().zip(w).fold(0i32, |sum, (x, w)| {
        sum.wrapping_add(i32::from(*x) * i32::from(*w))
    })
}

proptest! {
    #[test]
    fn a_product_is_its_definition_on_every_path(
        (parts, count, xs, shifts) in matrix().prop_flat_map(|parts| {
            let cols = parts.cols as usize;
            (Just(parts), 1usize..6).prop_flat_map(move |(parts, count)| {
                (Just(parts), Just(count), vector(count * cols, extreme(-2047, 2047)), vector(count, 0i32..20))
            })
        }),
        shift in -3i32..60,
        limit in prop_oneof![Just((1i32 << 24) - 1), Just((1 << 27) - 1), Just((1 << 20) - 1)],
    ) {
        let bytes = parts.to_bytes().unwrap();
        let view = MatrixView::parse(parts.rows, parts.cols, parts.sh, &bytes).unwrap();
        let (rows, cols) = (view.rows, view.cols);
        let mut input = Vectors::default();
        input.resize(count, cols);
        input.x.copy_from_slice(&xs);
        // Shifts to the left are bounded by the loader.
        input.e.iter_mut().zip(&shifts).for_each(|(e, s)| *e = (*s).min(shift + 15));
        input.prepare();
        let mut w = vec![0; cols];
        let mut expected = vec![0; count * (rows + 3)];
        for token in 0..count {
            for row in 0..rows {
                view.row(row, &mut w);
                let acc = dot(&xs[token * cols..(token + 1) * cols], &w).clamp(-(1 << 30), 1 << 30);
                let shift = shift - input.e[token];
                expected[token * (rows + 3) + 2 + row] = linear::requantize(acc, view.scale(row), shift, limit);
            }
        }
        // Sums beyond the bound cannot be requantized as an i32 would be; compare sums themselves there.
        for path in paths() {
            let mut raw = vec![0; rows];
            let mut tile = Vec::new();
            if count == 1 {
                on!(path, gemv(&view, 0..rows, &input, &mut raw, &mut tile));
                for (row, raw) in raw.iter().enumerate() {
                    view.row(row, &mut w);
                    prop_assert_eq!(*raw, dot(&xs, &w), "{:?} row {}", path, row);
                }
            }
            for row in 0..rows {
                let mut unpacked = vec![0; cols];
                unpack(path, &view, row, &mut unpacked);
                view.row(row, &mut w);
                prop_assert_eq!(&unpacked, &w);
            }
            let mut sums = vec![0; count * rows];
            let mut plain = vec![0; rows * cols];
            for (row, w) in plain.chunks_exact_mut(cols).enumerate() {
                view.row(row, w);
            }
            let task = Dots { w: &plain, w_stride: cols, rows, x: &xs, x_stride: cols, count, len: cols };
            dots(path, task, &mut sums, rows);
            for (i, sum) in sums.iter().enumerate() {
                let (token, row) = (i / rows, i % rows);
                prop_assert_eq!(*sum, dot(&xs[token * cols..][..cols], &plain[row * cols..][..cols]));
            }
            if sums.iter().any(|sum| sum.unsigned_abs() >= 1 << 30) {
                continue;
            }
            let mut out = vec![0; count * (rows + 3)];
            {
                let to = Shared::new(&mut out);
                let output = Output { to: &to, stride: rows + 3, offset: 2, shift, limit };
                for at in [0..rows / 2, rows / 2..rows] {
                    if !at.is_empty() {
                        // Safety: one thread.
                        unsafe { matmul(path, &view, at, &input, &output) };
                    }
                }
            }
            prop_assert_eq!(&out, &expected, "{:?}", path);
        }
    }

    #[test]
    fn requantizing_is_its_definition_on_every_path(
        acc in prop::collection::vec(prop_oneof![Just((1i32 << 30) - 1), Just(1 - (1i32 << 30)), -(1i32 << 30) + 1..1 << 30, -9i32..9], 1..20),
        a in any::<u16>(),
        shift in -15i32..63,
        limit in prop_oneof![Just((1i32 << 24) - 1), Just((1 << 27) - 1), Just((1 << 20) - 1)],
    ) {
        let scales: Vec<u16> = (0..acc.len() as u16).map(|i| if i == 0 { u16::MAX } else { a.wrapping_mul(i) }).collect();
        let bytes: Vec<u8> = scales.iter().flat_map(|a| a.to_le_bytes()).collect();
        let expected: Vec<i32> =
            acc.iter().zip(&scales).map(|(acc, a)| linear::requantize(*acc, *a, shift, limit)).collect();
        for path in paths() {
            let mut out = vec![0; acc.len()];
            let clamped = requantize(path, &acc, &bytes, shift, limit, &mut out);
            prop_assert_eq!(&out, &expected, "{:?}", path);
            prop_assert_eq!(clamped, expected.iter().filter(|y| y.abs() == limit).count() as u64);
        }
    }

    #[test]
    fn a_mix_is_its_definition_on_every_path(
        (dim, pairs, p, v) in (1usize..9, 1usize..20).prop_flat_map(|(blocks, pairs)| {
            let dim = blocks * 16;
            (Just(dim), Just(pairs), vector(2 * pairs, 0i16..=i16::MAX), vector(2 * pairs * dim, extreme(-2047, 2047)))
        }),
    ) {
        for path in paths() {
            let mut out = vec![0; dim];
            mix(path, &p, &v, &mut out);
            for (i, out) in out.iter().enumerate() {
                let expected = (0..2 * pairs).fold(0i32, |sum, j| {
                    let v = v[(j / 2 * dim + i) * 2 + j % 2];
                    sum.wrapping_add(i32::from(p[j]) * i32::from(v))
                });
                prop_assert_eq!(*out, expected, "{:?} element {}", path, i);
            }
        }
    }

    #[test]
    fn a_softmax_is_its_definition_on_every_path(
        below in prop::collection::vec(prop_oneof![Just(0u32), Just(u32::MAX), 0u32..1 << 12, 0u32..1 << 20, any::<u32>()], 1..40),
        repeat in prop_oneof![Just(1usize), Just(700)],
        c in prop_oneof![Just(0u32), Just(1 << 24), 0u32..1 << 24],
        csh in prop_oneof![Just(0i32), Just(62), 0i32..40],
        slope in 0u16..128,
    ) {
        use crate::ops::attention::{distance, exponential, reciprocal, share};
        // The maximum is there, as always.
        let mut below = below.repeat(repeat);
        below.push(0);
        let exp = ExpTable::new(std::array::from_fn(|i| 32_768 - slope * i as u16));
        let expected: Vec<u32> =
            below.iter().map(|b| exponential(distance((*b).into(), c, csh), &exp.narrow)).collect();
        let z: u64 = expected.iter().map(|e| u64::from(*e)).sum();
        for path in paths() {
            let mut e = vec![7; below.len()];
            prop_assert_eq!(exponentials(path, &below, (c, csh), &exp, &mut e), z, "{:?}", path);
            prop_assert_eq!(&e, &expected, "{:?}", path);
            if z > 1 << 15 {
                let mut p = vec![7; below.len()];
                shares(path, &e, reciprocal(z), &mut p);
                for (p, e) in p.iter().zip(&e) {
                    prop_assert_eq!(i64::from(*p), i64::from(share(*e, reciprocal(z))), "{:?}", path);
                }
            }
        }
    }
}
