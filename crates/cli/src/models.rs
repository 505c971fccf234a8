//! Models on this machine: pulled by name, imported once, opened from then on.

use crate::home::Home;
use crate::output;
use crate::progress::{Bar, Unit};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_model::{CatalogEntry, LoadedModel, Progress, Stage, Store, catalog};

/// The beginning of a catalogue name.
pub(crate) const DEFAULT: &str = "smollm2";

pub(crate) struct ReadyModel {
    pub(crate) loaded: LoadedModel,
    /// By this call; 0 when everything was here.
    pub(crate) bytes_downloaded: u64,
}

pub(crate) fn store(home: &Home) -> Store {
    Store::new(home.models())
}

/// What a name that somebody typed means.
enum Named {
    /// Imported already, under this name.
    Here(String),
    /// To be pulled: it is not here, or an older version of this program imported it.
    Known(Box<CatalogEntry>),
}

fn resolve(store: &Store, name: &str) -> Result<Named> {
    let mut here: Vec<String> = store.list()?.into_iter().map(|model| model.name).collect();
    here.retain(|name| catalog::find(name).is_none_or(|entry| store.has(&entry)));
    if here.iter().any(|known| known == name) {
        return Ok(Named::Here(name.to_owned()));
    }
    let known = catalog::catalog();
    let mut fits: Vec<&str> = known.iter().map(|entry| entry.name.as_str()).collect();
    fits.extend(here.iter().map(String::as_str));
    fits.sort_unstable();
    fits.dedup();
    let all = fits.join(", ");
    fits.retain(|known| known.starts_with(name));
    match fits[..] {
        [only] => match (here.iter().any(|known| known == only), catalog::find(only)) {
            (false, Some(entry)) => Ok(Named::Known(Box::new(entry))),
            _ => Ok(Named::Here(only.to_owned())),
        },
        [] => Err(refusal(
            format!("no model is called '{name}'"),
            format!("name one of {all}, or bring a GGUF file with `assay model import FILE`"),
        )),
        _ => Err(refusal(
            format!("several models begin with '{name}'"),
            format!("name one of {}", fits.join(", ")),
        )),
    }
}

/// Opens a model, after pulling and importing it if it is not here yet.
pub(crate) async fn ready(home: &Home, name: &str) -> Result<ReadyModel> {
    let (store, name) = (store(home), name.to_owned());
    let task = tokio::task::spawn_blocking(move || {
        let (name, bytes_downloaded) = match resolve(&store, &name)? {
            Named::Here(name) => (name, 0),
            Named::Known(entry) => (entry.name.clone(), pull_now(&store, &entry)?),
        };
        let loaded = store
            .open(&name)
            .with_context(|| format!("cannot open model {name}"))?;
        Ok(ReadyModel {
            loaded,
            bytes_downloaded,
        })
    });
    task.await.context("the model's import broke off")?
}

/// Opens a model that is here, or says how to get it.
pub(crate) fn open(home: &Home, name: &str) -> Result<LoadedModel> {
    let store = store(home);
    if std::path::Path::new(name).is_file() {
        return Ok(store.open(name)?);
    }
    match resolve(&store, name)? {
        Named::Here(name) => Ok(store.open(&name)?),
        Named::Known(entry) => Err(refusal(
            format!(
                "model {} is not on this machine as this version imports it",
                entry.name
            ),
            format!("run `assay model pull {}`", entry.name),
        )),
    }
}

/// Sees to it that a model of this name is here; returns its whole name.
pub(crate) fn pull(home: &Home, name: &str) -> Result<String> {
    let store = store(home);
    match resolve(&store, name)? {
        Named::Here(name) => Ok(name),
        Named::Known(entry) => {
            pull_now(&store, &entry)?;
            Ok(entry.name)
        }
    }
}

/// Brings a model of the catalogue; returns the bytes that came over the network.
fn pull_now(store: &Store, entry: &CatalogEntry) -> Result<u64> {
    let mut bars = Bars::new(&entry.name);
    store
        .pull(entry, &mut |progress| bars.show(progress))
        .map_err(|error| {
            refusal(
                format!("cannot pull {}: {error}", entry.name),
                "run the same command again: it resumes where it stopped",
            )
        })?;
    Ok(bars.finish())
}

/// One bar a stage, the next one when the work moves on.
pub(crate) struct Bars {
    name: String,
    now: Option<(Stage, Bar, Progress)>,
    downloaded: u64,
    resumed_at: Option<u64>,
}

impl Bars {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            now: None,
            downloaded: 0,
            resumed_at: None,
        }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        match &mut self.now {
            Some((stage, bar, last)) if *stage == progress.stage => {
                bar.set(progress.done, progress.total);
                *last = progress;
            }
            _ => {
                self.end_stage();
                let (verb, unit) = match progress.stage {
                    Stage::Download => ("pull", Unit::Bytes),
                    Stage::Unpack => ("unpack", Unit::Bytes),
                    Stage::Import => ("import", Unit::Steps),
                    Stage::Calibrate => ("calibrate", Unit::Steps),
                    Stage::Quality => ("measure", Unit::Steps),
                };
                let bar = Bar::start(&format!("{verb} {}", self.name), unit, progress.total);
                if progress.stage == Stage::Download {
                    self.resumed_at.get_or_insert(progress.done);
                    bar.resume_at(progress.done);
                } else {
                    bar.set(progress.done, progress.total);
                }
                self.now = Some((progress.stage, bar, progress));
            }
        }
    }

    fn end_stage(&mut self) {
        let Some((stage, bar, last)) = self.now.take() else {
            return;
        };
        let outcome = match stage {
            Stage::Download => {
                let fresh = last.done.saturating_sub(self.resumed_at.unwrap_or(0));
                self.downloaded = fresh;
                output::bytes(fresh)
            }
            Stage::Unpack => output::bytes(last.done),
            Stage::Import | Stage::Calibrate | Stage::Quality => "done".to_owned(),
        };
        bar.finish(&outcome);
    }

    /// Ends the last bar; returns the bytes that were downloaded.
    pub(crate) fn finish(mut self) -> u64 {
        self.end_stage();
        self.downloaded
    }
}
