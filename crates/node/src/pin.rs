//! Keeps each of an engine's threads on a core of its own, where the system can: they then share no core with each other
//! and keep their caches. Answers do not depend on it.

use assay_engine::Threads;

/// So many threads, on the cores that this process may use, in their order; round again where there are fewer cores.
#[cfg(target_os = "linux")]
pub(crate) fn pinned(count: usize) -> Result<Threads, PinError> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let allowed = sched_getaffinity(None).map_err(|error| PinError::Failed(error.into()))?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    if cores.is_empty() {
        return Err(PinError::Unsupported);
    }
    let pin = move |thread: usize| {
        let mut set = CpuSet::new();
        set.set(cores[thread % cores.len()]);
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!(thread, %error, "a thread of the engine is not pinned");
        }
    };
    Ok(Threads {
        count,
        on_start: Some(std::sync::Arc::new(pin)),
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pinned(_count: usize) -> Result<Threads, PinError> {
    Err(PinError::Unsupported)
}

/// Why threads cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("this system cannot pin threads: start without pinning")]
    Unsupported,
    #[error("the cores that this process may use cannot be read: {0}; start without pinning")]
    Failed(std::io::Error),
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::thread::sched_getaffinity;

    use super::*;

    #[test]
    fn a_pinned_thread_has_one_core_and_other_threads_keep_theirs() {
        let before = sched_getaffinity(None).unwrap().count();
        let threads = pinned(3).unwrap();
        assert_eq!(threads.count, 3);
        let on_start = threads.on_start.unwrap();
        for thread in 0..3 {
            let on_start = on_start.clone();
            let cores = std::thread::spawn(move || {
                on_start(thread);
                sched_getaffinity(None).unwrap().count()
            });
            assert_eq!(cores.join().unwrap(), 1);
        }
        assert_eq!(sched_getaffinity(None).unwrap().count(), before);
    }
}
