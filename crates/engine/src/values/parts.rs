//! Sharing out an array among threads, part by part, and what all elementwise steps have in common: shifts
//! that differ by token, and finding the first result beyond a limit.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Clamped, Site};
use crate::pool::Pool;
use crate::shared::Shared;

/// Gives each part of `len` elements of `out` to `each`, with its number.
pub(super) fn each_part<T: Send>(
    pool: &Pool,
    out: &mut [T],
    len: usize,
    each: impl Fn(usize, &mut [T]) + Sync,
) {
    let (total, out) = (out.len(), Shared::new(out));
    pool.run(total.div_ceil(len), &|part| {
        let range = part * len..total.min((part + 1) * len);
        // Safety: one task a part.
        each(part, unsafe { out.slice(range) });
    });
}

/// A shift a token, prepared so that one expression serves either direction.
pub(super) struct Shifts(Vec<(u8, u8, i64)>);

impl Shifts {
    pub(super) fn new(shifts: impl Iterator<Item = i32>) -> Shifts {
        let each = |s: i32| match s {
            1.. => (0, s as u8, 1 << (s - 1)),
            _ => (-s as u8, 0, 0),
        };
        Shifts(shifts.map(each).collect())
    }

    /// `rsh(v, shift)` of these values, one a token.
    #[inline(always)]
    pub(super) fn of(
        &self,
        v: impl Iterator<Item = i64> + Clone,
    ) -> impl Iterator<Item = i64> + Clone {
        let shifts = self.0.iter();
        v.zip(shifts)
            .map(|(v, (left, right, half))| ((v << left) + half) >> right)
    }
}

/// The first place of an array where a result is beyond its limit.
pub(super) struct Beyond(AtomicU64);

impl Beyond {
    pub(super) fn new() -> Beyond {
        Beyond(AtomicU64::new(u64::MAX))
    }

    /// Writes a row's results, and notes where they are beyond the limit: then what is written is not used.
    #[inline(always)]
    pub(super) fn write<T>(
        &self,
        row: usize,
        limit: i32,
        results: impl Iterator<Item = i64> + Clone,
        out: &mut [T],
        narrow: impl Fn(i64) -> T,
    ) {
        let leaves = |v: i64| v.unsigned_abs() > limit.unsigned_abs().into();
        let mut any = false;
        for (out, v) in out.iter_mut().zip(results.clone()) {
            any |= leaves(v);
            *out = narrow(v);
        }
        if any {
            let token = results.clone().position(leaves).unwrap_or(0);
            let place = (row as u64) << 32 | token as u64;
            self.0.fetch_min(place, Ordering::Relaxed);
        }
    }

    /// An error where anything was noted.
    pub(super) fn found(self, site: Site, layer: usize) -> Result<(), Clamped> {
        match self.0.into_inner() {
            u64::MAX => Ok(()),
            place => Err(Clamped {
                site,
                layer: layer as u32,
                row: (place >> 32) as u32,
                token: place as u32,
            }),
        }
    }
}
