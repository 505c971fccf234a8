//! Counts results that stand at their limits. A clamp costs quality, never determinism: a model that
//! clamps on ordinary text should not be published.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many results stood at their limits, by site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClampCounts {
    /// q, k, v as they leave their matrices.
    pub qkv: u64,
    /// q and k after RoPE, at the layer's fraction.
    pub qk: u64,
    /// v at the layer's fraction.
    pub v: u64,
    /// gate and up.
    pub mlp: u64,
    /// Attention's and MLP's results before they are added.
    pub branch: u64,
    pub residual: u64,
    pub logits: u64,
}

impl ClampCounts {
    pub fn total(&self) -> u64 {
        let ClampCounts {
            qkv,
            qk,
            v,
            mlp,
            branch,
            residual,
            logits,
        } = self;
        qkv + qk + v + mlp + branch + residual + logits
    }
}

#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters that all threads add to.
#[derive(Default)]
pub(crate) struct Clamps {
    pub(crate) qkv: Count,
    pub(crate) qk: Count,
    pub(crate) v: Count,
    pub(crate) mlp: Count,
    pub(crate) branch: Count,
    pub(crate) residual: Count,
    pub(crate) logits: Count,
}

impl Clamps {
    pub(crate) fn counts(&self) -> ClampCounts {
        ClampCounts {
            qkv: self.qkv.get(),
            qk: self.qk.get(),
            v: self.v.get(),
            mlp: self.mlp.get(),
            branch: self.branch.get(),
            residual: self.residual.get(),
            logits: self.logits.get(),
        }
    }
}
