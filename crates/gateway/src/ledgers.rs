//! The gateway's two files: the book of lanes, and what it must not forget of answers. Made together and on purpose;
//! a gateway that finds one of them without the other, or a key that was used before, does not pretend to be new.

use std::path::{Path, PathBuf};

use assay_chain::{ChainError, Key, Market};
use assay_payments::{LedgerError, PayerLedger, PayerLedgerError};
use assay_protocol::channel::ChannelDomain;
use assay_protocol::{Address, B256, MicroUsd};

use crate::lanes::{LaneTrouble, Lanes};
use crate::store::{Store, StoreError};

const LANES: &str = "lanes.redb";
const ANSWERS: &str = "gateway.redb";

/// Why the ledgers cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum LedgersError {
    #[error(transparent)]
    Lanes(#[from] PayerLedgerError),
    #[error(transparent)]
    Answers(#[from] StoreError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(
        "{missing} is missing, and {there} is not: restore it from a backup, or give up what was in it with `assay gateway recover`"
    )]
    Half { missing: PathBuf, there: PathBuf },
    #[error(
        "{payer} has opened {channels} channels on this chain, and there is no ledger of them in {folder}: restore lanes.redb and gateway.redb from a backup, or give up what was in them with `assay gateway recover`"
    )]
    Used {
        payer: Address,
        channels: usize,
        folder: PathBuf,
    },
    #[error(
        "the lanes in {folder} are of payer {found}, not of {expected}: use its key, or another folder"
    )]
    OtherPayer {
        folder: PathBuf,
        expected: Address,
        found: Address,
    },
    #[error("both ledgers are in {0}: nothing is to be recovered")]
    NothingLost(PathBuf),
    #[error("money in lost channels cannot be asked back: {0}")]
    Money(String),
    #[error("this machine gives no randomness")]
    NoRandomness,
    #[error("the ledgers' task stopped")]
    Stopped,
}

impl From<LedgerError> for LedgersError {
    fn from(error: LedgerError) -> Self {
        Self::Lanes(error.into())
    }
}

/// The two files of a folder.
struct Files {
    folder: PathBuf,
    lanes: PathBuf,
    answers: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            lanes: folder.join(LANES),
            answers: folder.join(ANSWERS),
        }
    }

    /// Which are there. A folder that cannot be read counts as full, and opening says why.
    fn there(&self) -> (bool, bool) {
        let there = |path: &Path| path.try_exists().unwrap_or(true);
        (there(&self.lanes), there(&self.answers))
    }
}

/// Makes both ledgers for a payer that never opened a channel on this chain; leaves them alone where they are. Returns
/// whether they were made. To be called before [`crate::start`], which makes none.
pub async fn create_ledgers(
    data_dir: &Path,
    market: &Market,
    payer: Address,
) -> Result<bool, LedgersError> {
    let files = Files::of(data_dir);
    let (lanes, answers) = files.there();
    if answers {
        // Both, or a loss that `start` names.
        return Ok(false);
    }
    let domain = market.channel_domain();
    if lanes && !is_unused(&files, domain).await? {
        return Ok(false);
    }
    // The book of lanes alone and empty is what a crash right here leaves behind.
    let channels = market.channels_of_payer(payer).await?.len();
    if channels > 0 {
        let folder = files.folder;
        return Err(LedgersError::Used {
            payer,
            channels,
            folder,
        });
    }
    off_the_threads(move || {
        if !lanes {
            PayerLedger::create(&files.lanes, domain)?;
        }
        Store::create(&files.answers, random()?)?;
        Ok(true)
    })
    .await
}

async fn is_unused(files: &Files, domain: ChannelDomain) -> Result<bool, LedgersError> {
    let path = files.lanes.clone();
    off_the_threads(move || Ok(PayerLedger::open(&path, domain)?.lanes().next().is_none())).await
}

/// Opens both, or says what is missing or wrong.
pub(crate) async fn open(
    data_dir: &Path,
    market: &Market,
    payer: Address,
) -> Result<(PayerLedger, Store), LedgersError> {
    let (files, domain) = (Files::of(data_dir), market.channel_domain());
    off_the_threads(move || {
        match files.there() {
            (true, false) => {
                return Err(LedgersError::Half {
                    missing: files.answers,
                    there: files.lanes,
                });
            }
            (false, true) => {
                return Err(LedgersError::Half {
                    missing: files.lanes,
                    there: files.answers,
                });
            }
            _ => {}
        }
        let ledger = PayerLedger::open(&files.lanes, domain)?;
        let stranger = ledger.lanes().find(|lane| lane.config.payer != payer);
        if let Some(found) = stranger.map(|lane| lane.config.payer) {
            return Err(LedgersError::OtherPayer {
                folder: files.folder,
                expected: payer,
                found,
            });
        }
        Ok((ledger, Store::open(&files.answers)?))
    })
    .await
}

/// What came of making lost ledgers anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Channels that the chain knows of this payer; all of them are closed now. Empty if the book of lanes was there.
    pub channels: Vec<B256>,
    /// What they hold beyond what was claimed. It was asked back, and comes when its delays are over.
    pub unclaimed: MicroUsd,
    /// Of it, what came back at once.
    pub back: MicroUsd,
    /// Whether the evidence of answers and the audit secret had to be made anew.
    pub new_answers: bool,
}

/// Makes whatever ledger is lost: the book of lanes from the chain's events, with every channel closed and its unclaimed
/// money asked back; the evidence of earlier answers is gone. Refuses where nothing is missing.
pub async fn recover(
    data_dir: &Path,
    market: &Market,
    payer: &Key,
) -> Result<Recovered, LedgersError> {
    let files = Files::of(data_dir);
    let (lanes, answers) = files.there();
    if lanes && answers {
        return Err(LedgersError::NothingLost(files.folder));
    }
    let mut recovered = Recovered {
        new_answers: !answers,
        ..Recovered::default()
    };
    let ledger = if lanes {
        None
    } else {
        let found = market.channels_of_payer(payer.address()).await?;
        for (config, state) in &found {
            let id = market.channel_id(config).map_err(ChainError::from)?;
            recovered.channels.push(id);
            let unclaimed = state.balance.0.saturating_sub(state.total_claimed.0);
            recovered.unclaimed.0 = recovered.unclaimed.0.saturating_add(unclaimed);
        }
        let (path, domain) = (files.lanes.clone(), market.channel_domain());
        let channels = found
            .into_iter()
            .map(|(config, state)| (config, state.balance, state.total_claimed));
        let channels: Vec<_> = channels.collect();
        Some(off_the_threads(move || Ok(PayerLedger::recover(&path, domain, channels)?)).await?)
    };
    if !answers {
        off_the_threads(move || Ok(Store::create(&files.answers, random()?)?)).await?;
    }
    if let Some(ledger) = ledger {
        let lanes = Lanes::new(
            ledger,
            market.clone(),
            payer.clone(),
            Default::default(),
            crate::config::GatewayLimits::default().chain,
        );
        let money = |trouble: LaneTrouble| LedgersError::Money(trouble.to_string());
        recovered.back = lanes.ask_all_back().await.map_err(money)?;
    }
    Ok(recovered)
}

fn random() -> Result<B256, LedgersError> {
    crate::gateway::random_word().ok_or(LedgersError::NoRandomness)
}

/// Opening a ledger waits for the disk.
async fn off_the_threads<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgersError> + Send + 'static,
) -> Result<T, LedgersError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| LedgersError::Stopped)?
}
