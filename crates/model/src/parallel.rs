//! Rows over threads. The result does not depend on how many there are.

use std::ops::Range;
use std::thread;

/// Calls `work` on consecutive ranges that cover `0..count`; gives the results in order.
pub(crate) fn over_ranges<T: Send>(
    count: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let len = count.div_ceil(threads).max(1);
    let work = &work;
    thread::scope(|scope| {
        let handles: Vec<_> = (0..count)
            .step_by(len)
            .map(|start| scope.spawn(move || work(start..(start + len).min(count))))
            .collect();
        handles
            .into_iter()
            .map(|handle| {
                handle
                    .join()
                    .expect("workers return errors, they do not panic")
            })
            .collect()
    })
}
