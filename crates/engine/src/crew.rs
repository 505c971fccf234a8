//! The threads and kernels of a pass, and the two things that they share out: making a matrix's inputs
//! token by token, and multiplying row by row. Neither depends on how the work is shared out.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::kernels::{self, Output, Path, Vectors};
use crate::model::{Inner, Linear};
use crate::pool::Pool;
use crate::shared::Shared;

/// Tasks a thread that a product is shared out in, and the most panels that one takes.
const TASKS: usize = 4;
const PANELS_MAX: usize = 32;

thread_local! {
    static WIDE: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
}

/// Writes the 12-bit vector of a token and gives its exponent; the buffer is for what comes before.
type MakeInput<'a> = dyn Fn(usize, &mut Vec<i64>, &mut [i16]) -> i32 + Sync + 'a;

/// Threads, and the kernels that they run.
pub(crate) struct Crew {
    pub(crate) pool: Pool,
    pub(crate) path: Path,
}

/// A matrix and where in a token's outputs it writes.
pub(crate) struct Product<'a> {
    pub(crate) linear: &'a Linear,
    /// Added to the linear's shift.
    pub(crate) fraction: i32,
    pub(crate) offset: usize,
}

impl<'a> Product<'a> {
    pub(crate) fn new(linear: &'a Linear, offset: usize) -> Self {
        Product {
            linear,
            fraction: 0,
            offset,
        }
    }
}

impl Crew {
    /// Makes a matrix's inputs, one token a task.
    pub(crate) fn fill(
        &self,
        input: &mut Vectors,
        count: usize,
        cols: usize,
        each: &MakeInput<'_>,
    ) {
        input.resize(count, cols);
        {
            let (x, e) = (Shared::new(&mut input.x), Shared::new(&mut input.e));
            self.pool.run(count, &|t| {
                // Safety: one task a token.
                let (x, e) = unsafe { (x.slice(t * cols..(t + 1) * cols), e.slice(t..t + 1)) };
                e[0] = WIDE.with_borrow_mut(|wide| each(t, wide, x));
            });
        }
        input.prepare(self.path);
    }

    /// Several matrices over the same inputs; a token's outputs are `stride` apart. Gives how many results
    /// stand at their limit.
    pub(crate) fn multiply(
        &self,
        inner: &Inner,
        products: &[Product<'_>],
        input: &Vectors,
        out: &mut [i32],
        stride: usize,
    ) -> u64 {
        let views: Vec<_> = products
            .iter()
            .map(|product| product.linear.matrix.view(inner))
            .collect();
        let total: usize = views.iter().map(|view| view.panels()).sum();
        let step = (total / (self.pool.threads() * TASKS)).clamp(1, PANELS_MAX);
        let tasks: Vec<(usize, usize)> = views
            .iter()
            .enumerate()
            .flat_map(|(index, view)| {
                let starts = (0..view.panels()).step_by(step);
                starts.map(move |panel| (index, panel))
            })
            .collect();
        let (out, clamped, path) = (Shared::new(out), AtomicU64::new(0), self.path);
        self.pool.run(tasks.len(), &|task| {
            let (index, panel) = tasks[task];
            let (view, product) = (&views[index], &products[index]);
            let output = Output {
                to: &out,
                stride,
                offset: product.offset,
                shift: product.linear.shift + product.fraction,
                limit: product.linear.limit,
            };
            let panels = panel..(panel + step).min(view.panels());
            // Safety: tasks have different rows or, by their offsets, different matrices.
            let count = unsafe { kernels::matmul(path, view, panels, input, &output) };
            clamped.fetch_add(count, Ordering::Relaxed);
        });
        clamped.into_inner()
    }
}
