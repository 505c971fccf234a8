//! The roofline: the least time that this machine needs for a piece of work, as it must read so many bytes and make so
//! many multiply-adds and can do both at once. Both speeds are measured here, now, on as many threads as the work gets.

use super::figures::{Run, Spread};
use assay_engine::layout::{LayerPart, Section};
use assay_engine::{Model, roofline};
use serde::Serialize;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Larger than caches are, most of the time.
const BUFFER: usize = 256 << 20;
/// Multiply-adds a thread; a tenth of a second or so.
const MULTIPLY_ADDS: u64 = 1 << 33;
/// The best of so many passes: this is what the machine can do, not what it did beside other work.
const PASSES: usize = 5;

/// What so many threads can do at best.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Roofline {
    pub(crate) threads: usize,
    pub(crate) bytes_per_s: f64,
    pub(crate) multiply_adds_per_s: f64,
    pub(crate) instruction: &'static str,
}

/// What must be read and multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    bytes: u64,
    multiply_adds: u64,
}

/// Which of the two takes longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    Memory,
    Arithmetic,
}

/// How near runs came.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Share {
    pub(crate) bound: Bound,
    pub(crate) percent: Spread,
}

impl Roofline {
    pub(crate) fn measure(threads: usize) -> Roofline {
        // Not zeros: pages that were never written are all the same one.
        let buffer = vec![1u8; BUFFER];
        let pieces: Vec<&[u8]> = buffer.chunks(BUFFER.div_ceil(threads)).collect();
        let reading = best(threads, &|thread| roofline::read(pieces[thread]));
        let multiplying = best(threads, &|_| roofline::multiply_adds(MULTIPLY_ADDS) as u64);
        Roofline {
            threads,
            bytes_per_s: BUFFER as f64 / reading.as_secs_f64(),
            multiply_adds_per_s: (MULTIPLY_ADDS * threads as u64) as f64
                / multiplying.as_secs_f64(),
            instruction: roofline::instruction(),
        }
    }

    /// The least time for some work, in seconds.
    fn least(&self, work: Work) -> (Bound, f64) {
        let memory = work.bytes as f64 / self.bytes_per_s;
        let arithmetic = work.multiply_adds as f64 / self.multiply_adds_per_s;
        match memory > arithmetic {
            true => (Bound::Memory, memory),
            false => (Bound::Arithmetic, arithmetic),
        }
    }

    /// That time as a share of what runs of the work took.
    pub(crate) fn share(&self, work: Work, runs: &[Run]) -> Share {
        let (bound, least) = self.least(work);
        let percent = runs.iter().map(|run| 100.0 * least / run.seconds());
        Share {
            bound,
            percent: Spread::of(percent),
        }
    }
}

/// The shortest time in which all threads did the same once; they start together.
fn best(threads: usize, work: &(dyn Fn(usize) -> u64 + Sync)) -> Duration {
    let barrier = Barrier::new(threads);
    let pass = |thread: usize| {
        (0..PASSES)
            .map(|_| {
                barrier.wait();
                let started = Instant::now();
                std::hint::black_box(work(thread));
                barrier.wait();
                started.elapsed()
            })
            .min()
            .unwrap_or_default()
    };
    std::thread::scope(|scope| {
        for thread in 1..threads {
            scope.spawn(move || pass(thread));
        }
        pass(0)
    })
}

/// What a model's passes must read and multiply, from its manifest and file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cost {
    /// Of every token.
    pub(crate) body_bytes: u64,
    pub(crate) body_multiply_adds: u64,
    /// Of every token whose successor is wanted.
    pub(crate) head_bytes: u64,
    pub(crate) head_multiply_adds: u64,
    /// Keys and values that a position keeps, all layers.
    pub(crate) cache_bytes_per_position: u64,
    #[serde(skip)]
    attention: Attention,
}

#[derive(Clone, Debug)]
struct Attention {
    /// How far back each layer sees; 0 sees all.
    windows: Vec<u64>,
    /// Of one layer and one position that is seen.
    bytes: u64,
    multiply_adds: u64,
}

impl Attention {
    fn at(&self, position: u64) -> Work {
        let seen = |window: &u64| match window {
            0 => position + 1,
            window => (position + 1).min(*window),
        };
        let seen: u64 = self.windows.iter().map(seen).sum();
        Work {
            bytes: seen * self.bytes,
            multiply_adds: seen * self.multiply_adds,
        }
    }

    fn over(&self, positions: std::ops::Range<usize>) -> Work {
        let each = positions.map(|position| self.at(position as u64));
        each.fold(
            Work {
                bytes: 0,
                multiply_adds: 0,
            },
            |all, one| Work {
                bytes: all.bytes + one.bytes,
                multiply_adds: all.multiply_adds + one.multiply_adds,
            },
        )
    }
}

impl Cost {
    pub(crate) fn of(model: &Model) -> Cost {
        let manifest = model.manifest();
        let dims = &manifest.dims;
        let bytes = |section| model.blob(section).map_or(0, |bytes| bytes.len() as u64);
        let (mut body_bytes, mut body_multiply_adds) = (0, 0);
        for (index, layer) in (0u16..).zip(&manifest.layers) {
            for (part, matrix) in [
                (LayerPart::Q, &layer.q),
                (LayerPart::K, &layer.k),
                (LayerPart::V, &layer.v),
                (LayerPart::O, &layer.o),
                (LayerPart::Gate, &layer.gate),
                (LayerPart::Up, &layer.up),
                (LayerPart::Down, &layer.down),
            ] {
                body_bytes += bytes(Section::Layer(index, part));
                body_multiply_adds += u64::from(matrix.rows) * u64::from(matrix.cols);
            }
        }
        let head = match manifest.head {
            Some(_) => Section::Head,
            None => Section::Embedding,
        };
        // A key and a value of 16 bits.
        let bytes_seen = u64::from(dims.kv_heads) * u64::from(dims.head_dim) * 4;
        Cost {
            body_bytes,
            body_multiply_adds,
            head_bytes: bytes(head),
            head_multiply_adds: u64::from(dims.vocab) * u64::from(dims.width),
            cache_bytes_per_position: bytes_seen * u64::from(dims.layers),
            attention: Attention {
                windows: manifest.layers.iter().map(|l| l.window.into()).collect(),
                bytes: bytes_seen,
                multiply_adds: u64::from(dims.heads) * u64::from(dims.head_dim) * 2,
            },
        }
    }

    /// A prompt, to its first token. Keys and values are read again and again, but from caches.
    pub(crate) fn prefill(&self, tokens: usize) -> Work {
        let attention = self.attention.over(0..tokens);
        Work {
            bytes: self.body_bytes + self.head_bytes,
            multiply_adds: tokens as u64 * self.body_multiply_adds
                + self.head_multiply_adds
                + attention.multiply_adds,
        }
    }

    /// So many sequences that take so many steps together after a prompt of a few tokens, which the first step takes
    /// as a whole. Weights are read once a step.
    pub(crate) fn decode(&self, batch: usize, prompt: usize, steps: usize) -> Work {
        let (batch, rows) = (batch as u64, (prompt + steps - 1) as u64);
        let attention = self.attention.over(0..prompt + steps - 1);
        let body = rows * self.body_multiply_adds;
        let head = steps as u64 * self.head_multiply_adds;
        Work {
            bytes: steps as u64 * (self.body_bytes + self.head_bytes) + batch * attention.bytes,
            multiply_adds: batch * (body + head + attention.multiply_adds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost() -> Cost {
        Cost {
            body_bytes: 1_000,
            body_multiply_adds: 2_000,
            head_bytes: 100,
            head_multiply_adds: 300,
            cache_bytes_per_position: 16,
            attention: Attention {
                windows: vec![0, 2],
                bytes: 8,
                multiply_adds: 10,
            },
        }
    }

    #[test]
    fn attention_sees_what_its_window_lets_it() {
        let seen: Vec<u64> = (0..4).map(|p| cost().attention.at(p).bytes / 8).collect();
        assert_eq!(seen, [2, 4, 5, 6]);
    }

    #[test]
    fn weights_are_read_once_a_step_and_multiplied_once_a_token() {
        let prefill = cost().prefill(3);
        assert_eq!(
            (prefill.bytes, prefill.multiply_adds),
            (1_100, 6_000 + 300 + 110)
        );
        let decode = cost().decode(4, 2, 3);
        assert_eq!(decode.bytes, 3 * 1_100 + 4 * (2 + 4 + 5 + 6) * 8);
        assert_eq!(
            decode.multiply_adds,
            4 * (4 * 2_000 + 3 * 300 + (2 + 4 + 5 + 6) * 10)
        );
    }

    #[test]
    fn the_slower_of_the_two_bounds() {
        let line = Roofline {
            threads: 1,
            bytes_per_s: 1_000.0,
            multiply_adds_per_s: 10_000.0,
            instruction: "none",
        };
        let work = |bytes, multiply_adds| Work {
            bytes,
            multiply_adds,
        };
        assert_eq!(line.least(work(500, 1_000)), (Bound::Memory, 0.5));
        assert_eq!(line.least(work(500, 10_000)), (Bound::Arithmetic, 1.0));
        let runs = [
            Run::new(1, Duration::from_secs(1)),
            Run::new(1, Duration::from_secs(2)),
        ];
        let share = line.share(work(500, 0), &runs);
        assert_eq!((share.percent.min, share.percent.max), (25.0, 50.0));
    }

    #[test]
    fn both_speeds_are_measured() {
        let best = best(2, &|_| roofline::multiply_adds(1_000_000) as u64);
        assert!(best > Duration::ZERO);
    }
}
