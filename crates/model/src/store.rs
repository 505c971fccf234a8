//! The folder where models live: `models/NAME/model.assay` beside the GGUF that it was made from, and
//! `downloads/` for what is on its way. Two processes never write the same model at once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use assay_engine::layout;
use assay_protocol::ModelId;

use crate::catalog::CatalogEntry;
use crate::download::{DownloadError, Downloader};
use crate::gguf::{Gguf, GgufError};
use crate::import::{self, ImportError};
use crate::loaded::{LoadedModel, OpenError};
use crate::progress::Progress;

const MODEL_FILE: &str = "model.assay";
const GGUF_FILE: &str = "model.gguf";
const NAME_LEN_MAX: usize = 64;

/// Why a model could not be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use {path}: {error}; check that the folder is yours and the disk has room")]
    Io { path: PathBuf, error: io::Error },
    #[error("{0:?} is no model name: use letters, digits, dot, dash and underscore")]
    Name(String),
    #[error(
        "no model {0:?} here; `assay model list` shows what there is, `assay model pull` brings one"
    )]
    Unknown(String),
    #[error(transparent)]
    Download(#[from] DownloadError),
    #[error("cannot read {path}: {error}")]
    Gguf { path: PathBuf, error: GgufError },
    #[error("cannot import {path}: {error}")]
    Import {
        path: PathBuf,
        #[source]
        error: Box<ImportError>,
    },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(
        "{name} was imported as {got}, the catalogue says {expected}; this build imports another way than the one that was published"
    )]
    OtherModel {
        name: String,
        got: ModelId,
        expected: ModelId,
    },
}

/// A model that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredModel {
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
    /// What its manifest says; `None` if it does not read.
    pub id: Option<ModelId>,
    /// The GGUF that it was made from, where it is kept.
    pub gguf: Option<PathBuf>,
}

/// The models under one data folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Nothing is created before it is needed.
    pub fn new(data_dir: &Path) -> Self {
        Store {
            folder: data_dir.to_owned(),
        }
    }

    /// Downloads and imports a model, unless it is here; gives the model file's path. What was
    /// interrupted is resumed; what an older version of this program imported otherwise is imported
    /// again from the GGUF that it kept.
    pub fn pull(
        &self,
        entry: &CatalogEntry,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf, StoreError> {
        let downloader = Downloader::new(&self.folder.join("downloads"));
        self.pull_with(&downloader, entry, progress)
    }

    /// As [`Store::pull`], with a downloader of the caller's.
    pub fn pull_with(
        &self,
        downloader: &Downloader,
        entry: &CatalogEntry,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf, StoreError> {
        let home = self.home(&entry.name)?;
        let model = home.join(MODEL_FILE);
        if self.has(entry) {
            return Ok(model);
        }
        self.create(&self.folder.join("downloads"))?;
        self.create(&home)?;
        let _lock = self.lock(&home)?;
        // Another process may have been quicker.
        if self.has(entry) {
            return Ok(model);
        }
        let gguf = home.join(GGUF_FILE);
        downloader.gguf(entry, &gguf, progress)?;
        let id = self.convert(&gguf, &model, progress)?;
        match entry.model_id {
            Some(expected) if expected != id => {
                let _ = fs::remove_file(&model);
                Err(StoreError::OtherModel {
                    name: entry.name.clone(),
                    got: id,
                    expected,
                })
            }
            _ => Ok(model),
        }
    }

    /// Whether a model of the catalogue is here as this version of the program imports it.
    pub fn has(&self, entry: &CatalogEntry) -> bool {
        self.home(&entry.name)
            .is_ok_and(|home| is_current(&home.join(MODEL_FILE), entry))
    }

    /// Imports a GGUF under its file's name; gives the model file's path. The GGUF stays where it is.
    pub fn import(
        &self,
        gguf: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PathBuf, StoreError> {
        let stem = gguf.file_stem().unwrap_or_default().to_string_lossy();
        let name: String = stem
            .chars()
            .map(|c| match c {
                c if c.is_ascii_alphanumeric() || "._-".contains(c) => c.to_ascii_lowercase(),
                _ => '-',
            })
            .take(NAME_LEN_MAX)
            .collect();
        let home = self.home(&name)?;
        self.create(&home)?;
        let _lock = self.lock(&home)?;
        let model = home.join(MODEL_FILE);
        self.convert(gguf, &model, progress)?;
        Ok(model)
    }

    /// Opens a model by its name here, or a model file by its path.
    pub fn open(&self, name_or_path: &str) -> Result<LoadedModel, StoreError> {
        let path = Path::new(name_or_path);
        if path.is_file() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            return Ok(LoadedModel::open(path, &name)?);
        }
        let model = self.home(name_or_path)?.join(MODEL_FILE);
        match model.is_file() {
            true => Ok(LoadedModel::open(&model, name_or_path)?),
            false => Err(StoreError::Unknown(name_or_path.to_owned())),
        }
    }

    /// The GGUF that a model here was pulled as, if it was.
    pub fn gguf(&self, name: &str) -> Option<PathBuf> {
        let path = self.home(name).ok()?.join(GGUF_FILE);
        path.is_file().then_some(path)
    }

    /// The models that are here, by name.
    pub fn list(&self) -> Result<Vec<StoredModel>, StoreError> {
        let models = self.models();
        let error = |error| StoreError::Io {
            path: models.clone(),
            error,
        };
        let entries = match fs::read_dir(&models) {
            Ok(entries) => entries,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(other) => return Err(error(other)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(error)?.file_name();
            let name = name.to_string_lossy().into_owned();
            let path = models.join(&name).join(MODEL_FILE);
            if let Ok(meta) = fs::metadata(&path) {
                found.push(StoredModel {
                    bytes: meta.len(),
                    id: stored_id(&path),
                    gguf: self.gguf(&name),
                    name,
                    path,
                });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn convert(
        &self,
        gguf: &Path,
        model: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ModelId, StoreError> {
        let file = Gguf::open(gguf).map_err(|error| StoreError::Gguf {
            path: gguf.to_owned(),
            error,
        })?;
        import::import(&file, model, progress).map_err(|error| StoreError::Import {
            path: gguf.to_owned(),
            error: Box::new(error),
        })
    }

    fn models(&self) -> PathBuf {
        self.folder.join("models")
    }

    /// A model's own folder. The name is checked: it becomes a path.
    fn home(&self, name: &str) -> Result<PathBuf, StoreError> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match (1..=NAME_LEN_MAX).contains(&name.len())
            && !name.starts_with('.')
            && name.chars().all(fine)
        {
            true => Ok(self.models().join(name)),
            false => Err(StoreError::Name(name.to_owned())),
        }
    }

    fn create(&self, folder: &Path) -> Result<(), StoreError> {
        fs::create_dir_all(folder).map_err(|error| StoreError::Io {
            path: folder.to_owned(),
            error,
        })
    }

    /// Waits until no other process works on this model; the lock ends with the file's handle.
    fn lock(&self, home: &Path) -> Result<File, StoreError> {
        let path = home.join(".lock");
        let take = || {
            let file = File::create(&path)?;
            file.lock()?;
            Ok(file)
        };
        take().map_err(|error| StoreError::Io {
            path: path.clone(),
            error,
        })
    }
}

/// The id in a model file's manifest. Reads no weights.
fn stored_id(path: &Path) -> Option<ModelId> {
    let file = File::open(path).ok()?;
    // SAFETY: the map is read-only and lives for this call; model files are replaced by renaming.
    let map = unsafe { memmap2::Mmap::map(&file) }.ok()?;
    let manifest = layout::File::parse(&map).ok()?.manifest(&map).ok()?;
    Some(manifest.id())
}

/// Whether a model file is the one that the catalogue names.
fn is_current(path: &Path, entry: &CatalogEntry) -> bool {
    match (stored_id(path), entry.model_id) {
        (Some(found), Some(expected)) => found == expected,
        (found, None) => found.is_some(),
        (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path() {
        let store = Store::new(Path::new("/nowhere"));
        for name in ["", "..", ".x", "a/b", "a\\b", "a b", "ü", &"x".repeat(65)] {
            assert!(
                matches!(store.open(name), Err(StoreError::Name(_))),
                "{name}"
            );
        }
        assert!(matches!(store.open("smollm2"), Err(StoreError::Unknown(_))));
    }

    #[test]
    fn an_empty_folder_has_no_models() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Store::new(folder.path()).list().unwrap(), []);
    }

    #[test]
    fn a_file_that_is_no_gguf_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let gguf = folder.path().join("x.gguf");
        fs::write(&gguf, "GGUF but not really").unwrap();
        let store = Store::new(folder.path());
        assert!(matches!(
            store.import(&gguf, &mut |_| {}),
            Err(StoreError::Gguf { .. })
        ));
        assert_eq!(store.list().unwrap(), []);
    }
}
