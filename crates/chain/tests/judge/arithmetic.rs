//! The referee's arithmetic against `engine::ops`, function by function, on random and extreme numbers
//! within what a loaded model can bring about. `CASES` says how many of each.

use alloy_primitives::{I256, U256};
use alloy_sol_types::{SolCall, sol};
use assay_chain::artifacts;
use assay_engine::ops::{self, arith, attention, bfp, embed, linear, norm, rope, sampler};
use assay_protocol::{Address, B256};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::evm::Evm;

sol! {
    interface Harness {
        function rsh(int256[] calldata v, int256[] calldata s) external pure returns (int256[] memory);
        function clamp(int256[] calldata v, int256[] calldata limit) external pure returns (int256[] memory);
        function rowScale(uint256[] calldata a, uint256[] calldata scaleSquared) external pure returns (int256[] memory);
        function embed(int256[] calldata w, int256[] calldata e, int256[] calldata shift) external pure returns (int256[] memory);
        function requantize(int256[] calldata acc, int256[] calldata a, int256[] calldata shift, int256[] calldata limit) external pure returns (int256[] memory);
        function add(int256[] calldata x, int256[] calldata y) external pure returns (int256[] memory);
        function inverseRoot(uint256[] calldata ss) external pure returns (int256[] memory);
        function norm(int256[] calldata x, int256[] calldata inverse, int256[] calldata gain) external pure returns (int256[] memory);
        function exponent(int256[] calldata max, int256[] calldata base) external pure returns (int256[] memory);
        function product(int256[] calldata g, int256[] calldata u, int256[] calldata remainder) external pure returns (int256[] memory);
        function turn(int256[] calldata a, int256[] calldata b, int256[] calldata cos, int256[] calldata sin) external pure returns (int256[] memory);
        function quantizeQk(int256[] calldata turned, int256[] calldata fraction) external pure returns (int256[] memory);
        function quantizeV(int256[] calldata v, int256[] calldata fraction) external pure returns (int256[] memory);
        function distance(int256[] calldata below, int256[] calldata c, int256[] calldata csh) external pure returns (int256[] memory);
        function exponential(int256[] calldata t, int256[] calldata exp) external pure returns (int256[] memory);
        function share(uint256[] calldata e, uint256[] calldata z) external pure returns (int256[] memory);
        function weight(int256[] calldata below, uint256[] calldata beta, int256[] calldata exp) external pure returns (int256[] memory);
        function uniform(bytes32[] calldata seed, uint64[] calldata position) external pure returns (uint64[] memory);
        function dot(bytes calldata x, bytes calldata w) external pure returns (int256);
    }
}

/// Cases of each function in a run of the tests.
const CASES: usize = 100_000;
/// Cases in one call.
const BATCH: usize = 1_000;
/// Whole vectors are dearer.
const VECTORS: usize = 2_000;

struct Referee {
    evm: Evm,
    at: Address,
    random: TestRunner,
}

impl Referee {
    fn new() -> Referee {
        let mut evm = Evm::new();
        let at = evm.create(artifacts::arithmetic_harness());
        Referee {
            evm,
            at,
            // Always the same numbers: a difference is found again.
            random: TestRunner::deterministic(),
        }
    }

    fn ask<C: SolCall>(&mut self, call: &C) -> C::Return {
        self.evm.call(self.at, call).expect("an answer").value
    }

    /// Compares one function on all cases, each a row of numbers.
    fn check<const N: usize, C: SolCall<Return = Vec<I256>>>(
        &mut self,
        cases: impl Strategy<Value = [i64; N]>,
        call: impl Fn([Vec<i64>; N]) -> C,
        law: impl Fn([i64; N]) -> i64,
    ) {
        for _ in 0..CASES / BATCH {
            let rows: Vec<[i64; N]> = (0..BATCH)
                .map(|_| cases.new_tree(&mut self.random).expect("a case").current())
                .collect();
            let columns = std::array::from_fn(|i| rows.iter().map(|row| row[i]).collect());
            let found = self.ask(&call(columns));
            assert_eq!(found.len(), rows.len());
            for (row, found) in rows.iter().zip(found) {
                let name = C::SIGNATURE;
                assert_eq!(found, big(law(*row)), "{name} of {row:?}");
            }
        }
    }
}

fn big(v: i64) -> I256 {
    I256::try_from(v).expect("every i64 fits")
}

fn ints(v: &[i64]) -> Vec<I256> {
    v.iter().copied().map(big).collect()
}

fn uints(v: &[i64]) -> Vec<U256> {
    v.iter().map(|v| U256::from(*v as u64)).collect()
}

/// Numbers from `low` to `high`: any, of any size, and those at the edges.
fn range(low: i64, high: i64) -> impl Strategy<Value = i64> {
    let sized = (0u32..63, any::<i64>()).prop_map(|(bits, v)| v >> bits);
    let edge = prop::sample::select(vec![
        low,
        low.saturating_add(1),
        high,
        high.saturating_sub(1),
        0,
        1,
        -1,
        127,
        -128,
        2047,
        -2047,
        32_767,
        -32_768,
    ]);
    prop_oneof![4 => low..=high, 4 => sized, 1 => edge].prop_map(move |v| v.clamp(low, high))
}

/// A table like EXP: falling from 2^15.
fn exp() -> [u16; 256] {
    std::array::from_fn(|i| (32_768 - 64 * i) as u16)
}

fn exp_entries() -> Vec<I256> {
    exp().iter().map(|e| big((*e).into())).collect()
}

const RESIDUAL: i64 = ops::RESIDUAL_MAX as i64;

#[test]
fn shifts_limits_and_requantizing_agree() {
    let mut referee = Referee::new();
    let wide = (1 << 46) - 1;
    referee.check(
        (range(-wide, wide), range(-15, 62)).prop_map(|(v, s)| [v, s]),
        |[v, s]| Harness::rshCall {
            v: ints(&v),
            s: ints(&s),
        },
        |[v, s]| arith::rsh(v, s as i32),
    );
    let wider = (1 << 62) - 1;
    referee.check(
        (range(-wider, wider), range(1, 62)).prop_map(|(v, s)| [v, s]),
        |[v, s]| Harness::rshCall {
            v: ints(&v),
            s: ints(&s),
        },
        |[v, s]| arith::rsh(v, s as i32),
    );
    referee.check(
        (range(-wider, wider), range(1, RESIDUAL)).prop_map(|(v, limit)| [v, limit]),
        |[v, limit]| Harness::clampCall {
            v: ints(&v),
            limit: ints(&limit),
        },
        |[v, limit]| arith::clamp(v, limit as i32).into(),
    );
    let acc = ops::ACC_MAX;
    referee.check(
        (
            range(-acc, acc),
            range(1, 65_535),
            range(-15, 62),
            range(1, RESIDUAL),
        )
            .prop_map(|(acc, a, shift, limit)| [acc, a, shift, limit]),
        |[acc, a, shift, limit]| Harness::requantizeCall {
            acc: ints(&acc),
            a: ints(&a),
            shift: ints(&shift),
            limit: ints(&limit),
        },
        |[acc, a, s, limit]| {
            linear::requantize(acc as i32, a as u16, s as i32, limit as i32).into()
        },
    );
    referee.check(
        (range(-RESIDUAL, RESIDUAL), range(-(1 << 30), 1 << 30)).prop_map(|(x, y)| [x, y]),
        |[x, y]| Harness::addCall {
            x: ints(&x),
            y: ints(&y),
        },
        |[x, y]| linear::add(x as i32, y as i32).into(),
    );
}

#[test]
fn embedding_agrees() {
    let mut referee = Referee::new();
    referee.check(
        (range(0, 65_535), range(1, 1_023)).prop_map(|(a, scale)| [a, scale]),
        |[a, scale]| Harness::rowScaleCall {
            a: uints(&a),
            scaleSquared: uints(&scale),
        },
        |[a, scale]| embed::row_scale(a as u16, scale as u32),
    );
    referee.check(
        (range(-32_768, 32_767), range(0, 1 << 29), range(-15, 62))
            .prop_map(|(w, e, shift)| [w, e, shift]),
        |[w, e, shift]| Harness::embedCall {
            w: ints(&w),
            e: ints(&e),
            shift: ints(&shift),
        },
        |[w, e, shift]| embed::element(w as i16, e, shift as i32).into(),
    );
}

#[test]
fn norms_and_exponents_agree() {
    let mut referee = Referee::new();
    referee.check(
        (range(1, i64::MAX), any::<bool>()).prop_map(|(ss, high)| {
            // Sums of squares use all 64 bits.
            [if high {
                ss.wrapping_mul(2).wrapping_sub(1)
            } else {
                ss
            }]
        }),
        |[ss]| Harness::inverseRootCall { ss: uints(&ss) },
        |[ss]| norm::inverse_root(ss as u64),
    );
    let gain = (1 << 23) - 1;
    referee.check(
        (
            range(-RESIDUAL, RESIDUAL),
            range(1, i64::MAX),
            range(-gain, gain),
        )
            .prop_map(|(x, rest, gain)| {
                // The root is at least |x|, as its sum holds x².
                let ss = (x * x) as u64 + (rest as u64 >> 8) + 1;
                [x, norm::inverse_root(ss), gain]
            }),
        |[x, inverse, gain]| Harness::normCall {
            x: ints(&x),
            inverse: ints(&inverse),
            gain: ints(&gain),
        },
        |[x, inverse, gain]| norm::element(x as i32, inverse, gain as i32),
    );
    referee.check(
        (
            range(0, (1 << 62) - 1),
            prop::sample::select(vec![0, 4, 12]),
        )
            .prop_map(|(m, b)| [m, b]),
        |[max, base]| Harness::exponentCall {
            max: ints(&max),
            base: ints(&base),
        },
        |[max, base]| bfp::exponent(max, base as i32).into(),
    );
}

#[test]
fn positions_and_activations_agree() {
    let mut referee = Referee::new();
    let wide = 1 << 30;
    let (cos, a) = (1 << 14, || range(-wide, wide));
    let cases = (a(), a(), range(-cos, cos), range(-cos, cos));
    for _ in 0..CASES / BATCH {
        let rows: Vec<_> = (0..BATCH)
            .map(|_| {
                cases
                    .new_tree(&mut referee.random)
                    .expect("a case")
                    .current()
            })
            .collect();
        let column = |pick: fn(&(i64, i64, i64, i64)) -> i64| -> Vec<I256> {
            rows.iter().map(|row| big(pick(row))).collect()
        };
        let found = referee.ask(&Harness::turnCall {
            a: column(|row| row.0),
            b: column(|row| row.1),
            cos: column(|row| row.2),
            sin: column(|row| row.3),
        });
        for (row, found) in rows.iter().zip(found.chunks(2)) {
            let (first, second) =
                rope::turn(row.0 as i32, row.1 as i32, (row.2 as i16, row.3 as i16));
            assert_eq!(found, [big(first), big(second)], "turn of {row:?}");
        }
    }
    let turned = (1 << 46) - 1;
    referee.check(
        (range(-turned, turned), range(-12, 20)).prop_map(|(v, f)| [v, f]),
        |[turned, fraction]| Harness::quantizeQkCall {
            turned: ints(&turned),
            fraction: ints(&fraction),
        },
        |[turned, f]| rope::quantize(turned, f as i32).into(),
    );
    let v = i64::from(ops::QKV_MAX);
    referee.check(
        (range(-v, v), range(-12, 20)).prop_map(|(v, f)| [v, f]),
        |[v, fraction]| Harness::quantizeVCall {
            v: ints(&v),
            fraction: ints(&fraction),
        },
        |[v, f]| attention::quantize_v(v as i32, f as i32).into(),
    );
    // A table whose every entry differs from its neighbours; the referee is shown the right one.
    let table: Box<[u16; 65_536]> = (0..65_536u32)
        .map(|i| (i * 40_503 % 65_521) as u16)
        .collect::<Vec<_>>()
        .try_into()
        .expect("as long as the table is");
    let entry = |g: i64| i64::from(table[g.unsigned_abs().min(65_535) as usize]);
    let most = i64::from(ops::MLP_MAX);
    referee.check(
        (range(-most, most), range(-most, most)).prop_map(|(g, u)| [g, u]),
        |[g, u]| Harness::productCall {
            remainder: g.iter().map(|g| big(entry(*g))).collect(),
            g: ints(&g),
            u: ints(&u),
        },
        |[g, u]| ops::act::product(g as i32, u as i32, &table),
    );
}

#[test]
fn attention_agrees() {
    let mut referee = Referee::new();
    referee.check(
        (range(0, (1 << 35) - 1), range(0, 1 << 24), range(0, 62)).prop_map(|(b, c, s)| [b, c, s]),
        |[below, c, csh]| Harness::distanceCall {
            below: ints(&below),
            c: ints(&c),
            csh: ints(&csh),
        },
        |[below, c, csh]| attention::distance(below, c as u32, csh as i32),
    );
    referee.check(
        range(0, 1 << 59).prop_map(|t| [t]),
        |[t]| Harness::exponentialCall {
            t: ints(&t),
            exp: exp_entries(),
        },
        |[t]| attention::exponential(t, &exp()).into(),
    );
    // Close distances are what is common.
    referee.check(
        range(0, 20 << 8).prop_map(|t| [t]),
        |[t]| Harness::exponentialCall {
            t: ints(&t),
            exp: exp_entries(),
        },
        |[t]| attention::exponential(t, &exp()).into(),
    );
    referee.check(
        (range(0, 1 << 15), range(1 << 15, 1 << 35)).prop_map(|(e, z)| [e, z]),
        |[e, z]| Harness::shareCall {
            e: uints(&e),
            z: uints(&z),
        },
        |[e, z]| attention::share(e as u32, attention::reciprocal(z as u64)).into(),
    );
}

#[test]
fn sampling_agrees() {
    let mut referee = Referee::new();
    referee.check(
        (range(0, 1 << 28), range(1, (1 << 18) - 1)).prop_map(|(below, beta)| [below, beta]),
        |[below, beta]| Harness::weightCall {
            below: ints(&below),
            beta: uints(&beta),
            exp: exp_entries(),
        },
        |[below, beta]| sampler::weight(below, beta as u32, &exp()) as i64,
    );
    for _ in 0..CASES / BATCH {
        let cases = (any::<[u8; 32]>(), any::<u64>());
        let rows: Vec<_> = (0..BATCH)
            .map(|_| {
                cases
                    .new_tree(&mut referee.random)
                    .expect("a case")
                    .current()
            })
            .collect();
        let found = referee.ask(&Harness::uniformCall {
            seed: rows.iter().map(|(seed, _)| B256::from(*seed)).collect(),
            position: rows.iter().map(|(_, position)| *position).collect(),
        });
        for ((seed, position), found) in rows.iter().zip(found) {
            assert_eq!(found, sampler::uniform(&B256::from(*seed), *position));
        }
    }
}

#[test]
fn dot_products_agree() {
    let mut referee = Referee::new();
    let bytes = |v: &[i16]| v.iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>();
    let element = |most: i64| range(-most, most).prop_map(|v| v as i16);
    for case in 0..VECTORS {
        // Of a matrix, or of q and k: 12 bits by 16, or 13 by 13.
        let (x, w) = if case % 2 == 0 {
            (2047, 32_767)
        } else {
            (4095, 4095)
        };
        let n = 16 * (1 + case % 128);
        let extreme = case % 16 < 2;
        let mut vector = |most: i64| -> Vec<i16> {
            if extreme {
                return vec![if case % 32 < 16 { most } else { -most } as i16; n];
            }
            let tree = prop::collection::vec(element(most), n).new_tree(&mut referee.random);
            tree.expect("a vector").current()
        };
        let (x, w) = (vector(x), vector(w));
        // The sum may leave 32 bits here, as the loader refuses such rows; the referee's does not wrap.
        let law: i64 = x
            .iter()
            .zip(&w)
            .map(|(x, w)| i64::from(*x) * i64::from(*w))
            .sum();
        let found = referee.ask(&Harness::dotCall {
            x: bytes(&x).into(),
            w: bytes(&w).into(),
        });
        assert_eq!(found, big(law), "{n} elements");
        if law.abs() <= ops::ACC_MAX {
            assert_eq!(i64::from(linear::dot(&x, &w)), law);
        }
    }
}
