//! Every path against the scalar definitions, on random and on extreme inputs.

use proptest::prelude::*;

use super::*;
use crate::layout::{Codes, MatrixParts};
use crate::ops::linear;

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
            prop_oneof![Just((255, 28_000)), Just((2_047, 2_000))]
        )
            .prop_flat_map(move |(codes, (d, m))| {
                (
                    Just(codes),
                    vector(n / 32, extreme(-d, d)),
                    vector(n / 32, extreme(-m, m)),
                )
            })
            .prop_map(|(codes, d, m)| Codes::U4 { codes, d, m }),
        (
            vector(n, extreme(-16, 15).prop_map(|q| q as i8)),
            vector(n / 32, extreme(-2_047, 2_047))
        )
            .prop_map(|(codes, d)| Codes::I5 { codes, d }),
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
            (Just(parts), prop_oneof![1usize..6, 6usize..30]).prop_flat_map(move |(parts, count)| {
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
        let plain: Vec<Vec<i16>> = (0..rows).map(|row| {
            view.row(row, &mut w);
            w.clone()
        }).collect();
        for path in Path::all() {
            let mut sums = vec![0; count * rows];
            for panel in 0..view.panels() {
                let mut unpacked = vec![0; PANEL * cols];
                unpack_rows(path, &view, panel, &mut unpacked);
                let mut strips = vec![0; PANEL * cols];
                unpack(path, &view, panel, &mut strips);
                let task = Strip { w: &strips, step: 2 * PANEL, pairs: cols / 2, x: &xs, x_stride: cols, count };
                let mut acc = vec![1; PANEL * count];
                strip(path, task, &mut acc, PANEL, false);
                let mut twice = acc.clone();
                strip(path, task, &mut twice, PANEL, true);
                prop_assert!(acc.iter().zip(&twice).all(|(a, b)| a.wrapping_add(*a) == *b));
                if input.few() {
                    input.prepare(path);
                    for (token, acc) in acc.chunks_exact(PANEL).enumerate() {
                        let mut packed = vec![1; PANEL];
                        gemv(path, &view, panel, &input.single(token), &mut packed);
                        prop_assert_eq!(&packed, &acc, "{:?} panel {}", path, panel);
                    }
                }
                let abs = row_sums(path, &view, panel);
                for (lane, unpacked) in unpacked.chunks_exact(cols).enumerate() {
                    let row = panel * PANEL + lane;
                    let Some(plain) = plain.get(row) else {
                        // Rows that only fill a panel up: nothing, or the 16 taken off of nothing times D = 0.
                        prop_assert!(unpacked.iter().all(|w| *w == 0));
                        continue;
                    };
                    prop_assert_eq!(unpacked, plain);
                    let expected: u64 = plain.iter().map(|w| u64::from(w.unsigned_abs())).sum();
                    prop_assert_eq!(abs[lane], expected);
                    for token in 0..count {
                        let sum = dot(&xs[token * cols..][..cols], plain);
                        prop_assert_eq!(acc[token * PANEL + lane], sum, "{:?} row {}", path, row);
                        sums[token * rows + row] = sum;
                    }
                }
            }
            if sums.iter().any(|sum| sum.unsigned_abs() >= 1 << 30) {
                continue;
            }
            let mut out = vec![0; count * (rows + 3)];
            {
                let to = Shared::new(&mut out);
                let output = Output { to: &to, stride: rows + 3, offset: 2, shift, limit };
                for at in [0..view.panels() / 2, view.panels() / 2..view.panels()] {
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
        for path in Path::all() {
            let mut out = vec![0; acc.len()];
            let clamped = requantize(path, &acc, &bytes, shift, limit, &mut out);
            prop_assert_eq!(&out, &expected, "{:?}", path);
            prop_assert_eq!(clamped, expected.iter().filter(|y| y.abs() == limit).count() as u64);
        }
    }

    #[test]
    fn a_strip_of_any_step_is_its_definition_on_every_path(
        (step, pairs, count, w, x) in (0usize..5, 1usize..40, 1usize..30).prop_flat_map(|(extra, pairs, count)| {
            let step = 2 * (PANEL + extra);
            let values = extreme(i16::MIN, i16::MAX);
            (Just(step), Just(pairs), Just(count), vector(pairs * step + 32, values), vector(count * (2 * pairs + 3), extreme(-4095, 4095)))
        }),
    ) {
        let x_stride = 2 * pairs + 3;
        let task = Strip { w: &w, step, pairs, x: &x, x_stride, count };
        for path in Path::all() {
            let mut out = vec![9; count * (PANEL + 1)];
            strip(path, task, &mut out, PANEL + 1, false);
            for (j, out) in out.chunks_exact(PANEL + 1).enumerate() {
                for (row, out) in out[..PANEL].iter().enumerate() {
                    let expected = (0..2 * pairs).fold(0i32, |sum, k| {
                        let w = w[k / 2 * step + 2 * row + k % 2];
                        sum.wrapping_add(i32::from(w) * i32::from(x[j * x_stride + k]))
                    });
                    prop_assert_eq!(*out, expected, "{:?} vector {} row {}", path, j, row);
                }
                prop_assert_eq!(out[PANEL], 9);
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
        for path in Path::all() {
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
