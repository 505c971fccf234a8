//! What this node would need to defend a receipt: the prompt, the answer and the sampler behind it. Durable before the
//! receipt leaves, because from then on anybody may ask for the trace. Kept as long as a game can come or last, then
//! forgotten. Judges nothing and sends nothing.

use std::path::{Path, PathBuf};

use assay_play::Case;
use assay_protocol::{B256, MicroUsd, Receipt, SamplerParams, Signed, Timestamp, TokenId};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

/// Request id → [`Kept`] as JSON.
const KEPT: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("kept");
/// When it was served, and its request id: the order in which things are forgotten.
const TIMES: TableDefinition<(u64, &[u8; 32]), ()> = TableDefinition::new("times");
/// Rows that one pruning removes at most, so that it never holds the disk for long.
const PRUNED_MAX: usize = 1_000;

/// Everything behind one signed statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) receipt: Signed<Receipt>,
    pub(crate) prompt: Vec<TokenId>,
    pub(crate) sampler: SamplerParams,
    pub(crate) output: Vec<TokenId>,
    /// A proof was bought with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proof: Option<Promised>,
}

/// A proof that is owed: what it costs and by when it was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Promised {
    pub(crate) price: MicroUsd,
    pub(crate) due: Timestamp,
}

impl From<Kept> for Case {
    fn from(kept: Kept) -> Self {
        Self {
            receipt: kept.receipt,
            prompt: kept.prompt,
            sampler: kept.sampler,
            output: kept.output,
        }
    }
}

/// The file in a node's data directory.
pub(crate) const FILE: &str = "defence.redb";

/// What a node that does not run kept of an answer, for who defends it by hand.
pub fn kept(data_dir: &Path, request_id: &B256) -> Result<Option<Case>, KeepError> {
    let path = data_dir.join(FILE);
    if !path.is_file() {
        return Ok(None);
    }
    Ok(Keep::open(&path)?.find(request_id)?.map(Case::from))
}

/// Why the evidence cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error(
        "the evidence at {0} is missing, and this node has signed receipts that it may have to defend: restore it from a backup, or give up what was signed with `assay node recover`"
    )]
    Missing(PathBuf),
    #[error("the evidence at {0} is in use by another process: stop that one first")]
    Locked(PathBuf),
    #[error(
        "the evidence at {path} cannot be opened ({reason}): restore it from a backup, or move it away and give up what was signed with `assay node recover`"
    )]
    Open { path: PathBuf, reason: String },
    #[error("the evidence cannot be read or written: {0}")]
    Database(String),
    #[error(
        "the evidence of request {id} is damaged ({reason}): restore it from a backup, or lose its game"
    )]
    Corrupt { id: B256, reason: String },
}

/// The open store.
pub(crate) struct Keep {
    database: Database,
}

fn failed(error: impl Into<redb::Error>) -> KeepError {
    KeepError::Database(error.into().to_string())
}

impl Keep {
    /// Opens the store that is there, or says that it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, KeepError> {
        if matches!(path.try_exists(), Ok(false)) {
            return Err(KeepError::Missing(path.to_owned()));
        }
        Self::create(path)
    }

    /// Opens the store, or makes it where there is none.
    pub(crate) fn create(path: &Path) -> Result<Self, KeepError> {
        let database = Database::create(path).map_err(|error| {
            let path = path.to_owned();
            match error {
                DatabaseError::DatabaseAlreadyOpen => KeepError::Locked(path),
                error => KeepError::Open {
                    path,
                    reason: error.to_string(),
                },
            }
        })?;
        let write = database.begin_write().map_err(failed)?;
        write.open_table(KEPT).map_err(failed)?;
        write.open_table(TIMES).map_err(failed)?;
        write.commit().map_err(failed)?;
        Ok(Self { database })
    }

    /// Keeps what stands behind a receipt; durable when this returns. The same request again replaces it: only the
    /// answer that was charged can be out, and it is the last one.
    pub(crate) fn add(&self, kept: &Kept) -> Result<(), KeepError> {
        let id = kept.receipt.body.request_id.0;
        let json = serde_json::to_vec(kept).expect("evidence is plain data");
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut table = write.open_table(KEPT).map_err(failed)?;
            table.insert(&id, json.as_slice()).map_err(failed)?;
            let mut times = write.open_table(TIMES).map_err(failed)?;
            let key = (kept.receipt.body.served_at.0, &id);
            times.insert(key, ()).map_err(failed)?;
        }
        write.commit().map_err(failed)
    }

    pub(crate) fn find(&self, id: &B256) -> Result<Option<Kept>, KeepError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(KEPT).map_err(failed)?;
        let row = table.get(&id.0).map_err(failed)?;
        row.map(|bytes| {
            serde_json::from_slice(bytes.value()).map_err(|error| KeepError::Corrupt {
                id: *id,
                reason: error.to_string(),
            })
        })
        .transpose()
    }

    /// Every answer that a proof was bought with, the oldest first.
    pub(crate) fn promised(&self) -> Result<Vec<Kept>, KeepError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(KEPT).map_err(failed)?;
        let mut promised = Vec::new();
        for row in table.iter().map_err(failed)? {
            let bytes = row.map_err(failed)?.1;
            // A damaged row keeps nobody from the others; whoever asks for it hears of it.
            match serde_json::from_slice::<Kept>(bytes.value()) {
                Ok(kept) if kept.proof.is_some() => promised.push(kept),
                Ok(_) | Err(_) => {}
            }
        }
        promised.sort_by_key(|kept| kept.receipt.body.served_at);
        Ok(promised)
    }

    /// Forgets what was served before `end`, but for `open` games. Returns how many answers that was.
    pub(crate) fn prune(&self, end: Timestamp, open: &[B256]) -> Result<usize, KeepError> {
        let write = self.database.begin_write().map_err(failed)?;
        let mut forgotten = 0;
        {
            let mut kept = write.open_table(KEPT).map_err(failed)?;
            let mut times = write.open_table(TIMES).map_err(failed)?;
            let mut old = Vec::new();
            for row in times.range(..(end.0, &[0; 32])).map_err(failed)? {
                let key = row.map_err(failed)?.0;
                let (at, id) = key.value();
                if !open.contains(&B256::from(*id)) {
                    old.push((at, *id));
                }
                if old.len() == PRUNED_MAX {
                    break;
                }
            }
            for (at, id) in old {
                times.remove((at, &id)).map_err(failed)?;
                let newer = match kept.get(&id).map_err(failed)? {
                    // Answered again later: that answer has a time of its own.
                    Some(row) => serde_json::from_slice::<Kept>(row.value())
                        .is_ok_and(|kept| kept.receipt.body.served_at.0 > at),
                    None => continue,
                };
                if !newer {
                    kept.remove(&id).map_err(failed)?;
                    forgotten += 1;
                }
            }
        }
        write.commit().map_err(failed)?;
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_chain::Key;
    use assay_protocol::{Address, Domain, DurationMs, MicroUsd, Statement, StopReason, Tier};

    fn kept(id: u8, served_at: u64, output: &[TokenId]) -> Kept {
        let sampler = SamplerParams::greedy(8);
        let statement =
            Statement::new(B256::ZERO, &[1, 2], &sampler, output, StopReason::MaxTokens);
        let body = Receipt {
            statement,
            provider: Address::ZERO,
            payer: Address::ZERO,
            channel_id: B256::ZERO,
            charged: MicroUsd(1),
            cumulative: MicroUsd(1),
            served_at: Timestamp(served_at),
            ttft: DurationMs(1),
            duration: DurationMs(2),
            tier: Tier::Optimistic,
            request_id: B256::repeat_byte(id),
        };
        let domain = Domain {
            chain_id: 1,
            verifying_contract: Address::ZERO,
        };
        Kept {
            receipt: Key::from_bytes(&[7; 32]).unwrap().sign(body, &domain),
            prompt: vec![1, 2],
            sampler,
            output: output.to_vec(),
            proof: None,
        }
    }

    #[test]
    fn what_was_kept_is_found_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keep.redb");
        let one = kept(1, 100, &[5, 6]);
        Keep::create(&path).unwrap().add(&one).unwrap();
        let keep = Keep::open(&path).unwrap();
        assert_eq!(keep.find(&B256::repeat_byte(1)).unwrap(), Some(one));
        assert_eq!(keep.find(&B256::repeat_byte(2)).unwrap(), None);
    }

    #[test]
    fn only_what_no_game_can_need_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::create(&dir.path().join("keep.redb")).unwrap();
        for (id, at) in [(1, 100), (2, 150), (3, 200)] {
            keep.add(&kept(id, at, &[5])).unwrap();
        }
        // The second is in a game.
        let open = [B256::repeat_byte(2)];
        assert_eq!(keep.prune(Timestamp(200), &open).unwrap(), 1);
        let there = |id| keep.find(&B256::repeat_byte(id)).unwrap().is_some();
        assert_eq!([there(1), there(2), there(3)], [false, true, true]);
        assert_eq!(keep.prune(Timestamp(200), &[]).unwrap(), 1);
        assert!(!there(2));
    }

    #[test]
    fn an_answer_that_was_made_again_is_kept_by_its_last_time() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::create(&dir.path().join("keep.redb")).unwrap();
        keep.add(&kept(1, 100, &[5])).unwrap();
        let again = kept(1, 300, &[6]);
        keep.add(&again).unwrap();
        assert_eq!(keep.prune(Timestamp(200), &[]).unwrap(), 0);
        assert_eq!(keep.find(&B256::repeat_byte(1)).unwrap(), Some(again));
    }

    #[test]
    fn promised_proofs_are_found_again_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::create(&dir.path().join("keep.redb")).unwrap();
        let promised = |id, at| Kept {
            proof: Some(Promised {
                price: MicroUsd(3),
                due: Timestamp(at + 60),
            }),
            ..kept(id, at, &[5])
        };
        for kept in [promised(1, 300), kept(2, 100, &[5]), promised(3, 200)] {
            keep.add(&kept).unwrap();
        }
        assert_eq!(
            keep.promised().unwrap(),
            [promised(3, 200), promised(1, 300)]
        );
    }
}
