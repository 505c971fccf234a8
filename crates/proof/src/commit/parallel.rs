//! Independent pieces of work, taken by as many threads as the caller allows.

use std::sync::Mutex;

/// Runs every item once; pieces should be long beside a lock.
pub(super) fn each<T: Send>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    work: impl Fn(T) + Sync,
) {
    let items = Mutex::new(items);
    let take = || {
        loop {
            let next = items.lock().expect("no thread panics here").next();
            let Some(item) = next else { return };
            work(item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(take);
        }
        take();
    });
}
