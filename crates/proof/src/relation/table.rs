//! The one table that all look-ups of a proof share: tagged tuples `(tag, v0, v1, v2)`. Ranges of every
//! width, the exponential, the gated activation. Whoever checks a proof evaluates its extension alone.

use p3_field::PrimeCharacteristicRing;

use crate::field::{F, K, eq_table, log2_ceil, signed};

/// Widest limb that one look-up bounds, in bits.
pub const LIMB: u32 = 18;
/// Most values of a tuple beside its tag.
pub const VALUES_MAX: usize = 3;
/// Gate values, Q.12: `g = hi·2^16 + lo` with hi in ±16.
const ACT_HIGH: i64 = 16;
const ACT_LOW: i64 = 1 << 16;
/// The table's length is a multiple of this, and so of any number of positions.
pub const PAGE: usize = 1 << 17;
/// Distances below the maximum that are looked up, in Q.8 octaves: beyond 16 octaves the exponential is 0.
const EXP_BITS: u32 = 16;
/// Distances of cells that no query sees may have either sign.
const UNSEEN_BITS: u32 = 17;

/// Which part of the table a tuple is looked up in; as a field element, the tuple's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    /// One value in [0, 2^bits), bits ≤ [`LIMB`].
    Bits(u32),
    /// One value in [0, len), for lengths that are no power of two.
    Below(u32),
    /// One value within ±limit.
    Within(u32),
    /// One value in [−2^(bits−1), 2^(bits−1)).
    Signed(u32),
    /// (v, x): v a value held within ±limit, x what was cut off.
    Held(u32),
    /// (d, e): e the exponential at a distance of d.
    Exp,
    /// (d, 0) for d of either sign: a cell that the query does not see.
    Unseen,
    /// (hi, lo, h): the gate `hi·2^16 + lo` within ±(2^20 − 1), h its activation in Q.16.
    Act,
}

/// Lengths in use, see `program`.
const LENGTHS: [u32; 4] = [4095, 511, 2047, 31];
const LIMITS: [u32; 2] = [2047, 4095];
const SIGNED: [u32; 1] = [16];
/// Values of 17 bits are held within a limit: sixteen times the wider one.
const HELD_BITS: u32 = 17;

impl Tag {
    pub fn number(self) -> u32 {
        match self {
            Tag::Bits(bits) => bits,
            Tag::Below(len) => 1 << 16 | len,
            Tag::Within(limit) => 3 << 16 | limit,
            Tag::Signed(bits) => 1 << 17 | bits,
            Tag::Held(limit) => 5 << 16 | limit,
            Tag::Exp => 1 << 18,
            Tag::Unseen => 1 << 18 | 1,
            Tag::Act => 1 << 18 | 2,
        }
    }

    fn bits(self) -> u32 {
        match self {
            Tag::Bits(bits) | Tag::Signed(bits) => bits,
            Tag::Below(len) => u32::BITS - (len - 1).leading_zeros(),
            Tag::Within(limit) => u32::BITS - (2 * limit).leading_zeros(),
            Tag::Held(_) => HELD_BITS,
            Tag::Exp => EXP_BITS,
            Tag::Unseen => UNSEEN_BITS,
            Tag::Act => 21,
        }
    }
}

/// The parts of the table and the functions that fill them.
#[derive(Clone)]
pub struct Table {
    /// Each begins at a multiple of its power-of-two size.
    segments: Vec<(Tag, usize)>,
    len: usize,
    exp: Vec<u16>,
    act: Vec<u16>,
}

impl Table {
    /// `exp` and `act` are the model's tables (256 and 65,536 entries).
    pub fn new(exp: &[u16], act: &[u16]) -> Table {
        let mut tags = vec![Tag::Act, Tag::Unseen, Tag::Exp];
        tags.extend(LIMITS.map(Tag::Held));
        tags.extend(SIGNED.map(Tag::Signed));
        tags.extend((0..=LIMB).map(Tag::Bits));
        tags.extend(LENGTHS.map(Tag::Below));
        tags.extend(LIMITS.map(Tag::Within));
        tags.sort_by_key(|tag| std::cmp::Reverse(tag.bits()));
        let mut len = 0;
        let mut segments = Vec::new();
        for tag in tags {
            segments.push((tag, len));
            len += 1 << tag.bits();
        }
        Table {
            segments,
            len: len.next_multiple_of(PAGE),
            exp: exp.to_vec(),
            act: act.to_vec(),
        }
    }

    /// Rows, a multiple of [`PAGE`].
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `ops::attention::exponential` of a distance.
    fn exponential(&self, d: i64) -> i64 {
        match d >> 8 {
            octaves @ 0..16 => {
                let e = i64::from(self.exp[(d & 255) as usize]);
                match octaves {
                    0 => e,
                    s => (e + (1 << (s - 1))) >> s,
                }
            }
            _ => 0,
        }
    }

    /// The ramp less its remainder, `ops::act` before u: max(g, 0)·16 − ACT[min(|g|, 65535)].
    pub fn activation(&self, g: i64) -> i64 {
        (g.max(0) << 4) - i64::from(self.act[g.unsigned_abs().min(65_535) as usize])
    }

    /// The tuple at a place of a part. Places beyond a part's values repeat one that it has.
    fn tuple(&self, tag: Tag, at: usize) -> [i64; VALUES_MAX] {
        let at = at as i64;
        match tag {
            Tag::Bits(_) => [at, 0, 0],
            Tag::Below(len) => [if at < i64::from(len) { at } else { 0 }, 0, 0],
            Tag::Within(limit) => {
                let limit = i64::from(limit);
                [(at - limit).min(limit), 0, 0]
            }
            Tag::Signed(bits) => [at - (1 << (bits - 1)), 0, 0],
            Tag::Held(limit) => {
                let (v, limit) = (at - (1 << (HELD_BITS - 1)), i64::from(limit));
                let held = v.clamp(-limit, limit);
                [held, v - held, 0]
            }
            Tag::Exp => [at, self.exponential(at), 0],
            Tag::Unseen => [at - (1 << (UNSEEN_BITS - 1)), 0, 0],
            Tag::Act => {
                // −2^20 itself would have been clamped.
                let at = at.max(1);
                let (hi, lo) = (at / ACT_LOW - ACT_HIGH, at % ACT_LOW);
                [hi, lo, self.activation(hi * ACT_LOW + lo)]
            }
        }
    }

    /// Where a tuple stands.
    pub fn find(&self, tag: Tag, values: &[i64]) -> Option<usize> {
        let (_, start) = *self.segments.iter().find(|(of, _)| *of == tag)?;
        let at = match tag {
            Tag::Bits(_) | Tag::Below(_) | Tag::Exp => values[0],
            Tag::Within(limit) => values[0] + i64::from(limit),
            Tag::Signed(bits) => values[0] + (1 << (bits - 1)),
            Tag::Held(_) => values[0] + values[1] + (1 << (HELD_BITS - 1)),
            Tag::Unseen => values[0] + (1 << (UNSEEN_BITS - 1)),
            Tag::Act => (values[0] + ACT_HIGH) * ACT_LOW + values[1],
        };
        let at = usize::try_from(at)
            .ok()
            .filter(|at| *at < 1 << tag.bits())?;
        let tuple = self.tuple(tag, at);
        let same = values.iter().zip(&tuple).all(|(a, b)| a == b);
        same.then_some(start + at)
    }

    /// What a look-up's denominator takes from α at each row: `tag + γ·v0 + γ²·v1 + γ³·v2`. Rows after
    /// the last part are (0, 0): the empty range's only value.
    pub fn keys(&self, gamma: K) -> Vec<K> {
        let mut keys = vec![K::ZERO; self.len];
        let powers = powers(gamma);
        for (tag, start) in &self.segments {
            let base = K::from_u32(tag.number());
            for (at, key) in keys[*start..][..1 << tag.bits()].iter_mut().enumerate() {
                *key = base;
                for (power, v) in powers.iter().zip(self.tuple(*tag, at)) {
                    *key += *power * signed(v);
                }
            }
        }
        keys
    }

    /// The extension of [`Table::keys`] at a point.
    pub fn key_at(&self, gamma: K, point: &[K]) -> K {
        let powers = powers(gamma);
        let mut sum = K::ZERO;
        for (tag, start) in &self.segments {
            let (low, high) = point.split_at(tag.bits() as usize);
            let prefix = start >> tag.bits();
            let here: K = high
                .iter()
                .enumerate()
                .map(|(bit, r)| {
                    if prefix >> bit & 1 == 1 {
                        *r
                    } else {
                        K::ONE - *r
                    }
                })
                .product();
            let values = self.values_at(*tag, low);
            let key: K = powers.iter().zip(values).map(|(p, v)| *p * v).sum();
            sum += here * (key + K::from_u32(tag.number()));
        }
        sum
    }

    /// The extensions of a part's values. The place itself is linear in its bits; what is not is summed.
    fn values_at(&self, tag: Tag, point: &[K]) -> [K; VALUES_MAX] {
        let place = |bits: &[K]| -> K {
            let bit = |(bit, r): (usize, &K)| *r * F::from_u64(1 << bit);
            bits.iter().enumerate().map(bit).sum()
        };
        let zero = K::ZERO;
        match tag {
            Tag::Bits(_) => [place(point), zero, zero],
            Tag::Signed(bits) => [place(point) - F::from_u64(1 << (bits - 1)), zero, zero],
            Tag::Unseen => [
                place(point) - F::from_u64(1 << (UNSEEN_BITS - 1)),
                zero,
                zero,
            ],
            Tag::Below(_) | Tag::Within(_) => {
                let weights = eq_table(point, 1 << tag.bits());
                let term = |(at, w): (usize, &K)| *w * signed(self.tuple(tag, at)[0]);
                [weights.iter().enumerate().map(term).sum(), zero, zero]
            }
            Tag::Held(_) => {
                let weights = eq_table(point, 1 << HELD_BITS);
                let term = |(at, w): (usize, &K)| *w * signed(self.tuple(tag, at)[0]);
                let held = weights.iter().enumerate().map(term).sum();
                [
                    held,
                    place(point) - F::from_u64(1 << (HELD_BITS - 1)) - held,
                    zero,
                ]
            }
            Tag::Exp => {
                // 16 octaves hold all that is not 0.
                let weights = eq_table(point, 16 << 8);
                let term = |(d, w): (usize, &K)| *w * signed(self.exponential(d as i64));
                let e = weights.iter().enumerate().map(term).sum();
                [place(point), e, zero]
            }
            Tag::Act => {
                let (low, high) = point.split_at(16);
                let (lo, hi) = (place(low), place(high) - F::from_i64(ACT_HIGH));
                let blocks = eq_table(high, 2 * ACT_HIGH as usize);
                // Far above: the ramp alone. Near 0: entry by entry. Far below: nothing.
                let far = (1..ACT_HIGH).map(|hi| {
                    let ramp = lo + F::from_i64(hi * ACT_LOW);
                    blocks[(hi + ACT_HIGH) as usize] * ramp * F::from_u64(16)
                });
                let weights = eq_table(low, ACT_LOW as usize);
                let near = [-1, 0].map(|hi: i64| {
                    let term = |(lo, w): (usize, &K)| {
                        *w * signed(self.activation(hi * ACT_LOW + lo as i64))
                    };
                    let sum: K = weights.iter().enumerate().map(term).sum();
                    blocks[(hi + ACT_HIGH) as usize] * sum
                });
                // The first place repeats the second.
                let first = blocks[0] * weights[0];
                let h: K = far.chain(near).sum();
                [hi, lo + first, h]
            }
        }
    }
}

fn powers(gamma: K) -> [K; VALUES_MAX] {
    [gamma, gamma * gamma, gamma * gamma * gamma]
}

/// Variables of a table's point.
pub fn variables(table: &Table) -> usize {
    log2_ceil(table.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let exp: Vec<u16> = (0..256).map(|i| 32_768 - 64 * i).collect();
        let act: Vec<u16> = (0..65_536u32).map(|i| ((65_535 - i) / 3) as u16).collect();
        Table::new(&exp, &act)
    }

    #[test]
    fn the_extension_is_that_of_the_keys() {
        let table = table();
        let gamma = K::from_u64(123_456_789);
        let point: Vec<K> = (0..variables(&table))
            .map(|i| K::from_u64(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i as u64 + 3) >> 1))
            .collect();
        let weights = eq_table(&point, table.len());
        let plain: K = table
            .keys(gamma)
            .iter()
            .zip(&weights)
            .map(|(k, w)| *k * *w)
            .sum();
        assert_eq!(table.key_at(gamma, &point), plain);
    }

    #[test]
    fn a_tuple_is_found_where_it_belongs_and_nowhere_else() {
        let table = table();
        let found = |tag, values: &[i64], expected| {
            assert_eq!(
                table.find(tag, values).is_some(),
                expected,
                "{tag:?} {values:?}"
            );
        };
        found(Tag::Bits(0), &[0], true);
        found(Tag::Bits(0), &[1], false);
        found(Tag::Bits(7), &[127], true);
        found(Tag::Bits(7), &[128], false);
        found(Tag::Bits(7), &[-1], false);
        found(Tag::Below(2047), &[2046], true);
        found(Tag::Below(2047), &[2047], false);
        found(Tag::Within(4095), &[-4095], true);
        found(Tag::Within(4095), &[4095], true);
        found(Tag::Within(4095), &[4096], false);
        found(Tag::Within(4095), &[-4096], false);
        found(Tag::Held(4095), &[-17, 0], true);
        found(Tag::Held(4095), &[4095, 61_440], true);
        found(Tag::Held(4095), &[4095, 61_441], false);
        found(Tag::Held(4095), &[-4095, 1], false);
        found(Tag::Held(4095), &[-4095, -1], true);
        found(Tag::Held(4095), &[5, 1], false);
        found(Tag::Exp, &[0, 32_768], true);
        found(Tag::Exp, &[0, 32_767], false);
        found(Tag::Exp, &[4096, 0], true);
        found(Tag::Exp, &[-1, 0], false);
        found(Tag::Unseen, &[-1, 0], true);
        found(Tag::Unseen, &[5, 1], false);
        let act = |g: i64| [g >> 16, g & 65_535, table.activation(g)];
        for g in [
            -(1 << 20) + 1,
            -65_536,
            -65_535,
            -1,
            0,
            1,
            65_535,
            65_536,
            (1 << 20) - 1,
        ] {
            found(Tag::Act, &act(g), true);
        }
        found(Tag::Act, &act(-(1 << 20)), false);
        found(Tag::Act, &[0, 0, 1], false);
    }
}
