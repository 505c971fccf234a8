//! Files that hold a secret: read only if nobody else may, written whole or not at all, never over another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{KeyError, random_bytes};

/// No keystore is longer.
const SIZE_MAX: u64 = 64 << 10;

/// The text of a secret file. What is checked is the file that was opened, whatever its name means a moment later.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let failed = |source| KeyError::Read {
        path: path.to_owned(),
        source,
    };
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    let file = File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    if !facts.is_file() {
        return Err(failed(io::Error::other("it is no regular file")));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = facts.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
    }
    let mut text = Zeroizing::new(String::with_capacity(4096));
    let read = file.take(SIZE_MAX + 1).read_to_string(&mut text);
    let malformed = || KeyError::Malformed {
        path: path.to_owned(),
    };
    match read {
        Ok(_) if text.len() as u64 > SIZE_MAX => Err(malformed()),
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(malformed()),
        Err(error) => Err(failed(error)),
    }
}

/// Writes a new file with mode 0600; it is on disk before this returns. Refuses where a file is.
pub(super) fn write_new(path: &Path, text: &str) -> Result<(), KeyError> {
    let fresh = write_beside(path, text)?;
    // A link, unlike a rename, fails where something stands already.
    let linked = fs::hard_link(&fresh.path, path);
    let placed = match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !path.exists() => {
            // Some file systems know no links.
            fs::rename(&fresh.path, path)
        }
        other => other,
    };
    placed
        .and_then(|()| sync_folder(path))
        .map_err(|source| failed_write(path, source))
}

/// Puts a file in the place of another: a reader finds the old one or the new one.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), KeyError> {
    let fresh = write_beside(path, text)?;
    fs::rename(&fresh.path, path)
        .and_then(|()| sync_folder(path))
        .map_err(|source| failed_write(path, source))
}

/// A file that goes away again unless it was renamed.
struct Fresh {
    path: PathBuf,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn write_beside(path: &Path, text: &str) -> Result<Fresh, KeyError> {
    let failed = |source| failed_write(path, source);
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = folder.join(format!(".{name}.{}", hex::encode(random_bytes::<8>()?)));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&fresh).map_err(failed)?;
    let fresh = Fresh { path: fresh };
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    Ok(fresh)
}

fn failed_write(path: &Path, source: io::Error) -> KeyError {
    match source.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists {
            path: path.to_owned(),
        },
        _ => KeyError::Write {
            path: path.to_owned(),
            source,
        },
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The name is on disk with the file.
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder_of(path))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
