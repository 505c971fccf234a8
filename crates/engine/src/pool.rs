//! A small persistent pool: the calling thread and its workers share out numbered tasks. What is
//! computed cannot depend on who computes it, as tasks write disjoint parts. Workers wait a few
//! microseconds for the next round, then sleep: a server's other threads are not starved.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Turns of a spin loop before giving way, and of giving way before sleeping.
const SPINS: u32 = 300;
const YIELDS: u32 = 16;
/// `state` is the round's number above, whether it takes workers, and how many are in it.
const OPEN: u64 = 1 << 31;
const ROUND: u64 = 1 << 32;

type Task<'a> = dyn Fn(usize) + Sync + 'a;

/// The threads of an engine. A plain number is that many with nothing done to them.
#[derive(Clone, Default)]
pub struct Threads {
    /// In all, the one that calls included, which is there in any case.
    pub count: usize,
    /// Runs once on each of them before anything else, with the thread's number; the caller's is 0. For what
    /// only the caller's system knows how to do, such as pinning.
    pub on_start: Option<Arc<dyn Fn(usize) + Send + Sync>>,
}

impl From<usize> for Threads {
    fn from(count: usize) -> Threads {
        Threads {
            count,
            on_start: None,
        }
    }
}

/// Threads that wait for rounds of tasks.
pub(crate) struct Pool {
    round: Arc<Round>,
    workers: Vec<JoinHandle<()>>,
    /// One caller at a time: a pool may be sent, not shared.
    one_caller: PhantomData<Cell<()>>,
}

struct Round {
    state: AtomicU64,
    task: UnsafeCell<Option<(*const Task<'static>, usize)>>,
    next: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
}

// Safety: `task` is written by the caller only while no worker is in the round, and read by workers only
// while they are in it; `state` orders the two.
unsafe impl Send for Round {}
unsafe impl Sync for Round {}

impl Pool {
    pub(crate) fn new(threads: impl Into<Threads>) -> Pool {
        let Threads { count, on_start } = threads.into();
        let round = Arc::new(Round {
            state: AtomicU64::new(0),
            task: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
        });
        // A thread that cannot be had is one fewer, not an error: results do not depend on it.
        let workers = (1..count)
            .filter_map(|number| {
                let (round, on_start) = (round.clone(), on_start.clone());
                std::thread::Builder::new()
                    .name("assay-engine".into())
                    .spawn(move || {
                        if let Some(on_start) = on_start {
                            on_start(number);
                        }
                        round.work()
                    })
                    .ok()
            })
            .collect();
        if let Some(on_start) = on_start {
            on_start(0);
        }
        Pool {
            round,
            workers,
            one_caller: PhantomData,
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` to `task(count − 1)`, each once, on all threads; returns when all are done.
    pub(crate) fn run(&self, count: usize, task: &Task<'_>) {
        if self.workers.is_empty() || count <= 1 {
            return (0..count).for_each(task);
        }
        let round = &self.round;
        // Safety: no worker is in a round (the last one was waited for and closed), so nobody reads;
        // the lifetime is erased only until this function returns, which it does when no worker is
        // in the round any more.
        unsafe {
            let task: *const Task<'static> =
                std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task);
            *round.task.get() = Some((task, count));
        }
        round.next.store(0, Ordering::Relaxed);
        let number = round.state.load(Ordering::Relaxed) & !(ROUND - 1);
        round
            .state
            .store(number.wrapping_add(ROUND) | OPEN, Ordering::SeqCst);
        if round.sleeping.load(Ordering::SeqCst) > 0 {
            let _guard = round.lock.lock().unwrap_or_else(PoisonError::into_inner);
            round.wake.notify_all();
        }
        // Closing waits for the workers even if a task panics here, as they borrow what unwinding drops.
        let close = Close(round);
        round.share(task, count);
        drop(close);
        if round.panicked.swap(false, Ordering::Relaxed) {
            panic!("a task of the engine's pool panicked");
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.round.stop.store(true, Ordering::SeqCst);
        {
            let _guard = self
                .round
                .lock
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.round.wake.notify_all();
        }
        for worker in self.workers.drain(..) {
            // A worker catches its tasks' panics.
            let _ = worker.join();
        }
    }
}

/// Shuts the round to newcomers and waits for those within.
struct Close<'a>(&'a Round);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.fetch_and(!OPEN, Ordering::AcqRel) & !OPEN;
        let mut turns = 0;
        while state & (OPEN - 1) != 0 {
            turns += 1;
            if turns < SPINS {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
            state = self.0.state.load(Ordering::Acquire);
        }
    }
}

impl Round {
    /// Takes tasks until none is left.
    fn share(&self, task: &Task<'_>, count: usize) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return;
            }
            task(index);
        }
    }

    fn work(&self) {
        let mut seen = 0;
        while let Some(state) = self.wait(seen) {
            seen = state & !(ROUND - 1);
            if !self.enter(state) {
                continue;
            }
            // Safety: between `enter` and the subtraction below the caller neither writes nor returns.
            let (task, count) = unsafe { (*self.task.get()).expect("a round has a task") };
            let run = std::panic::AssertUnwindSafe(|| {
                // Safety: as above; the caller keeps the task alive.
                self.share(unsafe { &*task }, count);
            });
            if std::panic::catch_unwind(run).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.state.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Joins the round if it is still open.
    fn enter(&self, mut state: u64) -> bool {
        let number = state & !(ROUND - 1);
        while state & OPEN != 0 && state & !(ROUND - 1) == number {
            let entered = self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match entered {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// The state of an open round after `seen`; `None` when the pool is dropped.
    fn wait(&self, seen: u64) -> Option<u64> {
        let ready = || {
            let state = self.state.load(Ordering::SeqCst);
            (state & OPEN != 0 && state & !(ROUND - 1) != seen).then_some(state)
        };
        for turn in 0..SPINS + YIELDS {
            if let Some(state) = ready() {
                return Some(state);
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if turn < SPINS {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Counted before looking again, so that a caller who opens a round after the look sees a sleeper.
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            if let Some(state) = ready() {
                break Some(state);
            }
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        };
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_threads() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for count in (0..40).chain([1000]) {
                let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.run(count, &|i| {
                    runs[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    runs.iter().all(|n| n.load(Ordering::Relaxed) == 1),
                    "{threads} threads"
                );
            }
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        let run = std::panic::AssertUnwindSafe(|| {
            pool.run(64, &|i| assert!(i != 33, "task 33"));
        });
        assert!(std::panic::catch_unwind(run).is_err());
        let done = AtomicUsize::new(0);
        pool.run(64, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 64);
    }

    #[test]
    fn every_thread_starts_with_what_the_caller_wants_done() {
        let started = Arc::new(Mutex::new(Vec::new()));
        let seen = started.clone();
        let pool = Pool::new(Threads {
            count: 4,
            on_start: Some(Arc::new(move |number| {
                let thread = std::thread::current().id();
                seen.lock().unwrap().push((number, thread));
            })),
        });
        pool.run(64, &|_| ());
        drop(pool);
        let mut started = started.lock().unwrap().clone();
        started.sort_unstable_by_key(|(number, _)| *number);
        assert!(started.iter().map(|(number, _)| *number).eq(0..4));
        assert_eq!(started[0].1, std::thread::current().id());
        assert!(
            started[1..]
                .iter()
                .all(|(_, thread)| *thread != started[0].1)
        );
    }
}
