//! Small files that several programs read: written whole or not at all.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// No file that this program keeps for itself is longer.
const BYTES_MAX: u64 = 16 << 20;

/// Puts a file in its place: a reader finds the old one or the new one, also after a crash.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(failed)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let written = File::create(&fresh)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written.with_context(failed)
}

/// What stands in a file; nothing where there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let failed = || format!("cannot read {}", path.display());
    match fs::metadata(path) {
        Ok(facts) if facts.len() > BYTES_MAX => {
            anyhow::bail!(
                "{} is too long to be a file of this program",
                path.display()
            )
        }
        Ok(_) => fs::read(path).map(Some).with_context(failed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(failed),
    }
}
