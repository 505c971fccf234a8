//! Proofs of answers that were bought with one: made in the background, one at a time, in the order of the answers, and
//! kept for who asks. What is to be proven is what `keep` holds, so nothing is lost with the process: a start finds every
//! promise again, and makes whatever proof is not there. Judges nothing; takes no money.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use assay_engine::Model;
use assay_openai::ApiError;
use assay_payments::LedgerError;
use assay_proof::{Claim, Progress};
use assay_protocol::{Address, B256, Timestamp, proof_payment_id};
use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock::now;
use crate::config::ProofConfig;
use crate::keep::{Keep, KeepError, Kept, Promised};
use crate::till::Till;

/// The folder in a node's data directory: one file a proof, named by its request.
const FOLDER: &str = "proofs";
const EXTENSION: &str = "proof";
/// How often old proofs are forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// Why proofs cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ProofsError {
    #[error("proofs cannot be kept in {path}: {source}")]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// How far a proof is, as `GET …/proof` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum State {
    Waiting {
        /// Proofs that are made before it.
        ahead: usize,
    },
    Proving {
        phase: &'static str,
        done: u32,
        of: u32,
    },
    Ready {
        made_at: Timestamp,
    },
    Failed {
        reason: String,
    },
}

/// A promised proof.
#[derive(Clone, Debug)]
struct Job {
    payer: Address,
    promised: Promised,
    paid: bool,
    state: State,
}

impl Job {
    /// Work that this payer may still leave unpaid. A proof that came late is not owed.
    fn is_owed(&self) -> bool {
        match self.state {
            State::Waiting { .. } | State::Proving { .. } => true,
            State::Ready { made_at } => !self.paid && made_at <= self.promised.due,
            State::Failed { .. } => false,
        }
    }
}

#[derive(Default)]
struct Jobs {
    all: BTreeMap<B256, Job>,
    /// Those that wait, in the order in which they are made.
    queue: VecDeque<B256>,
}

/// All proofs of this node.
pub(crate) struct Proofs {
    config: ProofConfig,
    folder: PathBuf,
    jobs: Mutex<Jobs>,
    more: Notify,
}

impl Proofs {
    /// Finds what an earlier life promised, made and left.
    pub(crate) async fn open(
        config: ProofConfig,
        data_dir: &Path,
        keep: &Arc<Keep>,
        till: &Arc<Till>,
    ) -> Result<Arc<Self>, ProofsError> {
        let folder = data_dir.join(FOLDER);
        let keep = Arc::clone(keep);
        let looking = till.with_ledger({
            let folder = folder.clone();
            move |ledger| -> Result<Jobs, ProofsError> {
                std::fs::create_dir_all(&folder).map_err(|source| ProofsError::Folder {
                    path: folder.clone(),
                    source,
                })?;
                let mut jobs = Jobs::default();
                for kept in keep.promised()? {
                    let body = &kept.receipt.body;
                    let (id, Some(promised)) = (body.request_id, kept.proof) else {
                        continue;
                    };
                    // What was never charged was never promised either.
                    if ledger.receipt(&id)? != Some(kept.receipt) {
                        continue;
                    }
                    let paid = ledger.receipt(&proof_payment_id(&id))?.is_some();
                    jobs.add(id, body.payer, promised, made_at(&file(&folder, &id)), paid);
                }
                Ok(jobs)
            }
        });
        let jobs = looking.await?;
        Ok(Arc::new(Self {
            config,
            folder,
            jobs: Mutex::new(jobs),
            more: Notify::new(),
        }))
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this payer may buy a further proof now.
    pub(crate) fn room(&self, payer: Address) -> Result<(), ApiError> {
        let jobs = self.jobs();
        if jobs.queue.len() >= self.config.queue_max {
            let wait_ms = 60_000;
            let mut error = ApiError::busy(wait_ms);
            error.body.message = format!(
                "{} proofs are waiting here already: ask later, or for another verification",
                jobs.queue.len()
            );
            return Err(error);
        }
        let owed = jobs.all.values();
        let owed = owed
            .filter(|job| job.payer == payer && job.is_owed())
            .count();
        if owed >= self.config.unpaid_max {
            let message = format!(
                "{owed} proofs for this payer are under way or unpaid, which is the most: pay for what is there"
            );
            let mut error = ApiError::new(429, "rate_limit_error", "proofs_unpaid", message);
            error.retry_after_ms = Some(60_000);
            return Err(error);
        }
        Ok(())
    }

    /// The answer of this request is charged: its proof is owed.
    pub(crate) fn promise(&self, id: B256, payer: Address, promised: Promised) {
        self.jobs().add(id, payer, promised, None, false);
        self.more.notify_one();
    }

    /// Requests whose proof is still to be made.
    pub(crate) fn unmade(&self) -> Vec<B256> {
        let jobs = self.jobs();
        let unmade = jobs
            .all
            .iter()
            .filter(|(_, job)| matches!(job.state, State::Waiting { .. } | State::Proving { .. }));
        unmade.map(|(id, _)| *id).collect()
    }

    /// How far this proof is, and what was promised of it; None where none was.
    pub(crate) fn look(&self, id: &B256) -> Option<(State, Promised)> {
        let jobs = self.jobs();
        let job = jobs.all.get(id)?;
        let state = match &job.state {
            State::Waiting { .. } => State::Waiting {
                ahead: jobs.queue.iter().take_while(|other| *other != id).count(),
            },
            state => state.clone(),
        };
        Some((state, job.promised))
    }

    /// The bytes of a proof that is ready.
    pub(crate) async fn bytes(&self, id: &B256) -> std::io::Result<Vec<u8>> {
        let path = file(&self.folder, id);
        let reading = tokio::task::spawn_blocking(move || std::fs::read(path));
        reading.await.map_err(std::io::Error::other)?
    }

    /// Its price is in the books.
    pub(crate) fn paid(&self, id: &B256) {
        if let Some(job) = self.jobs().all.get_mut(id) {
            job.paid = true;
        }
    }

    fn set(&self, id: &B256, state: State) {
        if let Some(job) = self.jobs().all.get_mut(id) {
            job.state = state;
        }
    }

    /// Forgets proofs that are older than they are kept.
    fn prune(&self, now: Timestamp) {
        let kept_s = self.config.kept.as_secs();
        let old = |made_at: Timestamp| made_at.plus_seconds(kept_s) < now;
        let Ok(files) = std::fs::read_dir(&self.folder) else {
            return;
        };
        for path in files.flatten().map(|file| file.path()) {
            if made_at(&path).is_some_and(old)
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "an old proof cannot be removed");
            }
        }
        self.jobs().all.retain(|_, job| match job.state {
            State::Ready { made_at } => !old(made_at),
            State::Failed { .. } => !old(job.promised.due),
            State::Waiting { .. } | State::Proving { .. } => true,
        });
    }
}

impl Jobs {
    fn add(
        &mut self,
        id: B256,
        payer: Address,
        promised: Promised,
        made_at: Option<Timestamp>,
        paid: bool,
    ) {
        let state = match made_at {
            Some(made_at) => State::Ready { made_at },
            None => {
                self.queue.push_back(id);
                State::Waiting { ahead: 0 }
            }
        };
        let job = Job {
            payer,
            promised,
            paid,
            state,
        };
        self.all.insert(id, job);
    }
}

fn file(folder: &Path, id: &B256) -> PathBuf {
    folder.join(format!("{id}.{EXTENSION}"))
}

/// When a file was written, if it is there.
fn made_at(path: &Path) -> Option<Timestamp> {
    let written = path.metadata().ok()?.modified().ok()?;
    Some(Timestamp(
        written.duration_since(UNIX_EPOCH).ok()?.as_secs(),
    ))
}

/// Proves until told to stop.
pub(crate) async fn run(app: Arc<App>, proofs: Arc<Proofs>, stop: CancellationToken) {
    let work = async {
        let mut pruned: Option<tokio::time::Instant> = None;
        loop {
            if pruned.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
                pruned = Some(tokio::time::Instant::now());
                proofs.prune(now());
            }
            let next = proofs.jobs().queue.pop_front();
            let Some(id) = next else {
                let idle = tokio::time::timeout(PRUNE_EVERY, proofs.more.notified());
                let _ = idle.await;
                continue;
            };
            let state = match make(&app, &proofs, id).await {
                Ok(made_at) => {
                    tracing::info!(%id, "the proof is made");
                    State::Ready { made_at }
                }
                // The next start tries again: a newer program, or more memory, may do it.
                Err(reason) => {
                    tracing::error!(%id, reason, "an answer cannot be proven");
                    State::Failed { reason }
                }
            };
            proofs.set(&id, state);
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Makes one proof; it is durable when this returns.
async fn make(app: &Arc<App>, proofs: &Arc<Proofs>, id: B256) -> Result<Timestamp, String> {
    let keep = Arc::clone(&app.keep);
    let kept = tokio::task::spawn_blocking(move || keep.find(&id)).await;
    let kept = kept.map_err(|error| error.to_string())?;
    let kept = kept.map_err(|error| error.to_string())?;
    let kept = kept.ok_or("the evidence of this answer is not here any more")?;
    let model_id = kept.receipt.body.statement.model_id;
    let ware = app.wares.iter().find(|ware| ware.id == model_id);
    let ware = ware.ok_or_else(|| format!("this node does not serve model {model_id} any more"))?;
    let bytes = prove(proofs, ware.loaded.model.clone(), kept).await?;
    let path = file(&proofs.folder, &id);
    let written = tokio::task::spawn_blocking(move || write(&path, &bytes)).await;
    let written = written.map_err(|error| error.to_string())?;
    written.map_err(|error| format!("the proof cannot be written: {error}"))?;
    Ok(now())
}

/// Proves on a thread of its own, which nobody waits for: a node that stops leaves it to the process's end.
async fn prove(proofs: &Arc<Proofs>, model: Model, kept: Kept) -> Result<Vec<u8>, String> {
    let id = kept.receipt.body.request_id;
    let (prover, threads) = (
        Arc::clone(&proofs.config.prover),
        proofs.config.threads.max(1),
    );
    let (sender, receiver) = oneshot::channel();
    let told = Arc::downgrade(proofs);
    let work = move || {
        let claim = Claim {
            statement: &kept.receipt.body.statement,
            prompt: &kept.prompt,
            sampler: &kept.sampler,
            output: &kept.output,
        };
        let mut progress = |Progress { phase, done, of }: Progress| {
            if let Some(proofs) = told.upgrade() {
                let phase = phase.label();
                proofs.set(&id, State::Proving { phase, done, of });
            }
        };
        let _ = sender.send(prover.prove(&model, &claim, threads, &mut progress));
    };
    let thread = std::thread::Builder::new().name("assay-prover".into());
    thread.spawn(work).map_err(|error| error.to_string())?;
    // A prover that panics drops its end.
    receiver
        .await
        .unwrap_or_else(|_| Err("the prover broke off".into()))
}

/// Whole or not at all: a crash leaves a draft that nobody reads.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension("draft");
    let mut file = std::fs::File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}
