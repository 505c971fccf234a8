//! The engine's thread: several answers at once through one `Batcher`. Takes jobs over a channel, sends tokens back over
//! one channel each, and knows nothing of money or HTTP.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use assay_engine::{
    BatchLimits, BatchStats, Batcher, EventKind, GenerationRequest, MemoryUse, Model, SequenceId,
    SubmitError, Threads,
};
use assay_protocol::{StopReason, TokenId};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What the engine says about one job. The channel is bounded by the job's `max_tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Comes before the first token: so many tokens of the prompt were found in the cache.
    Prefilled {
        reused: u32,
    },
    Token(TokenId),
    Finished(StopReason),
    /// The engine does not take this job; the reason is for the log.
    Refused(String),
}

/// Names a job for its cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct JobId(u64);

enum Command {
    Submit {
        job: JobId,
        request: GenerationRequest,
        outputs: UnboundedSender<Output>,
    },
    Cancel(JobId),
}

/// A handle on the engine's thread; clones are cheap. The thread ends when the last one is gone.
#[derive(Clone)]
pub(crate) struct Worker {
    commands: Sender<Command>,
    next: Arc<AtomicU64>,
    alive: Arc<AtomicBool>,
    did: Arc<Mutex<Option<Did>>>,
}

/// What the engine has done so far, and how full its memory is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Did {
    pub(crate) stats: BatchStats,
    pub(crate) memory: MemoryUse,
}

/// Says when its thread is over, however it ended.
struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A job in the engine. Dropping it cancels the job.
pub(crate) struct Job {
    id: JobId,
    commands: Sender<Command>,
    pub(crate) outputs: UnboundedReceiver<Output>,
}

impl Drop for Job {
    fn drop(&mut self) {
        // The thread may be gone already, and its jobs with it.
        let _ = self.commands.send(Command::Cancel(self.id));
    }
}

impl Worker {
    /// Starts the thread.
    pub(crate) fn start(
        model: Model,
        threads: Threads,
        limits: BatchLimits,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (commands, inbox) = channel();
        let alive = Arc::new(AtomicBool::new(true));
        let guard = Alive(Arc::clone(&alive));
        let did = Arc::default();
        let tell = Arc::clone(&did);
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || {
                let _guard = guard;
                let batcher = Batcher::new(&model, threads, limits);
                Loop {
                    batcher,
                    did: tell,
                    waiting: VecDeque::new(),
                    running: HashMap::new(),
                }
                .run(&inbox);
            })?;
        Ok((
            Self {
                commands,
                next: Arc::default(),
                alive,
                did,
            },
            thread,
        ))
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// As of its last step; nothing before its first.
    pub(crate) fn did(&self) -> Option<Did> {
        *self.did.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job. If the engine is gone, its output channel is closed at once.
    pub(crate) fn submit(&self, request: GenerationRequest) -> Job {
        let id = JobId(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, outputs) = unbounded_channel();
        let _ = self.commands.send(Command::Submit {
            job: id,
            request,
            outputs: sender,
        });
        Job {
            id,
            commands: self.commands.clone(),
            outputs,
        }
    }
}

struct Waiting {
    job: JobId,
    request: GenerationRequest,
    outputs: UnboundedSender<Output>,
}

struct Loop {
    batcher: Batcher,
    did: Arc<Mutex<Option<Did>>>,
    /// Jobs that the batch has no room for yet, oldest first.
    waiting: VecDeque<Waiting>,
    running: HashMap<SequenceId, (JobId, UnboundedSender<Output>)>,
}

impl Loop {
    fn run(&mut self, inbox: &Receiver<Command>) {
        loop {
            let idle = self.batcher.is_idle() && self.waiting.is_empty();
            if idle {
                match inbox.recv() {
                    Ok(command) => self.obey(command),
                    Err(RecvError) => return,
                }
            }
            loop {
                match inbox.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.admit();
            self.step();
        }
    }
    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit {
                job,
                request,
                outputs,
            } => {
                self.waiting.push_back(Waiting {
                    job,
                    request,
                    outputs,
                });
            }
            Command::Cancel(job) => {
                self.waiting.retain(|waiting| waiting.job != job);
                let running = self
                    .running
                    .iter()
                    .find(|(_, (running, _))| *running == job);
                if let Some(sequence) = running.map(|(sequence, _)| *sequence) {
                    self.batcher.cancel(sequence);
                    self.running.remove(&sequence);
                }
            }
        }
    }

    /// Moves waiting jobs into the batch, oldest first: a large one is not overtaken for ever by small ones.
    fn admit(&mut self) {
        while let Some(next) = self.waiting.front() {
            match self.batcher.submit(next.request.clone()) {
                Err(SubmitError::Busy) => return,
                Ok(sequence) => {
                    if let Some(Waiting { job, outputs, .. }) = self.waiting.pop_front() {
                        self.running.insert(sequence, (job, outputs));
                    }
                }
                Err(error) => {
                    if let Some(refused) = self.waiting.pop_front() {
                        let _ = refused.outputs.send(Output::Refused(error.to_string()));
                    }
                }
            }
        }
    }

    fn step(&mut self) {
        let events = self.batcher.step();
        let did = Did {
            stats: self.batcher.stats(),
            memory: self.batcher.memory(),
        };
        *self.did.lock().unwrap_or_else(PoisonError::into_inner) = Some(did);
        for event in events {
            let Some((_, outputs)) = self.running.get(&event.sequence) else {
                continue;
            };
            let (output, over) = match event.kind {
                EventKind::Prefilled { reused } => (Output::Prefilled { reused }, false),
                EventKind::Token(id) => (Output::Token(id), false),
                EventKind::Finished(reason) => (Output::Finished(reason), true),
            };
            // A job whose reader is gone sends its own cancellation.
            let _ = outputs.send(output);
            if over {
                self.running.remove(&event.sequence);
            }
        }
    }
}
