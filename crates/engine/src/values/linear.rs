//! A matrix against all tokens. The kernels' strips take sixteen tokens where the pass gives them sixteen
//! rows, so that sums come out with tokens side by side.

use std::sync::Arc;

use super::parts::{Beyond, Shifts, each_part};
use super::{BfpValues, Clamped, LinearConstants, LinearValues, PANEL, Site};
use crate::crew::Crew;
use crate::kernels::{self, Path, Strip};

/// Panels of weights that are taken together: a multiple of what the widest strip takes at a time.
const PANELS: usize = 3;

/// Vectors as strips read them: sixteen tokens after sixteen tokens, for each pair of elements two of each
/// token. Tokens beyond the last are zeros.
pub(super) struct Packed {
    x: Vec<i16>,
    e: Vec<u8>,
    tokens: usize,
    cols: usize,
}

impl Packed {
    pub(super) fn new(crew: &Crew, input: &BfpValues) -> Packed {
        let tokens = input.e.len();
        let cols = input.x12.len() / tokens;
        let mut x = vec![0; tokens.next_multiple_of(PANEL) * cols];
        each_part(&crew.pool, &mut x, PANEL * cols, |block, x| {
            let first = block * PANEL;
            let lanes = PANEL.min(tokens - first);
            for (pair, x) in x.chunks_exact_mut(2 * PANEL).enumerate() {
                let row = |i: usize| &input.x12[(2 * pair + i) * tokens + first..][..lanes];
                for ((x, a), b) in x.chunks_exact_mut(2).zip(row(0)).zip(row(1)) {
                    x.copy_from_slice(&[*a, *b]);
                }
            }
        });
        Packed {
            x,
            e: input.e.clone(),
            tokens,
            cols,
        }
    }

    /// Rows of weights against all tokens.
    fn multiply(&self, path: Path, w: &[i16], out: &mut [i32]) {
        let (tokens, cols) = (self.tokens, self.cols);
        let strip = |block: usize, out: &mut [i32], stride| {
            let task = Strip {
                w: &self.x[block * PANEL * cols..][..PANEL * cols],
                step: 2 * PANEL,
                pairs: cols / 2,
                x: w,
                x_stride: cols,
                count: w.len() / cols,
            };
            kernels::strip(path, task, out, stride, false);
        };
        for block in 0..tokens / PANEL {
            strip(block, &mut out[block * PANEL..], tokens);
        }
        let rest = tokens % PANEL;
        if rest > 0 {
            let mut wide = vec![0; w.len() / cols * PANEL];
            strip(tokens / PANEL, &mut wide, PANEL);
            for (out, wide) in out.chunks_exact_mut(tokens).zip(wide.chunks_exact(PANEL)) {
                out[tokens - rest..].copy_from_slice(&wide[..rest]);
            }
        }
    }
}

/// The raw sums: row r of token t at `r·tokens + t`.
pub(super) fn accumulated(crew: &Crew, by: &LinearConstants<'_>, input: &Packed) -> Vec<i32> {
    let (tokens, path) = (input.tokens, crew.path);
    let mut acc = vec![0; by.rows * tokens];
    each_part(
        &crew.pool,
        &mut acc,
        PANELS * PANEL * tokens,
        |part, acc| {
            let mut w = vec![0; PANELS * PANEL * by.cols];
            let panels = part * PANELS..by.view().panels().min((part + 1) * PANELS);
            for (panel, w) in panels.zip(w.chunks_exact_mut(PANEL * by.cols)) {
                by.panel(panel, w);
            }
            input.multiply(path, &w[..acc.len() / tokens * by.cols], acc);
        },
    );
    acc
}

pub(super) fn linear(
    crew: &Crew,
    by: &LinearConstants<'_>,
    input: &Packed,
    (site, layer): (Site, usize),
) -> Result<LinearValues, Clamped> {
    let (tokens, path) = (input.tokens, crew.path);
    let acc = accumulated(crew, by, input);
    let shifts = Shifts::new(input.e.iter().map(|e| by.shift - i32::from(*e)));
    let beyond = Beyond::new();
    let mut z = vec![0; acc.len()];
    each_part(&crew.pool, &mut z, tokens, |row, z| {
        let a = i64::from(by.scale(row));
        path.run(|| {
            let acc = acc[row * tokens..][..tokens].iter();
            let results = shifts.of(acc.map(|acc| i64::from(*acc) * a));
            beyond.write(row, by.limit, results, z, |z| z as i32);
        });
    });
    beyond.found(site, layer)?;
    Ok(LinearValues {
        acc,
        z: Arc::new(z),
    })
}
