//! The files that the rules read, with paths relative to the workspace; it holds text and decides nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub(crate) struct File {
    /// With forward slashes, relative to the workspace's root.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    /// The crate's folder name for a file under `crates/`.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Integration tests, benches and examples: code that no library or program links.
    pub(crate) fn is_test_target(&self) -> bool {
        ["/tests/", "/benches/", "/examples/"]
            .iter()
            .any(|folder| self.path.contains(folder))
    }

    pub(crate) fn is_generated(&self) -> bool {
        self.text
            .lines()
            .take(5)
            .any(|line| line.contains("@generated"))
    }
}

const SKIPPED: [&str; 4] = ["target", "node_modules", "out", "cache"];
const LOCKS: [&str; 4] = [
    "Cargo.lock",
    "package-lock.json",
    "yarn.lock",
    "pnpm-lock.yaml",
];

pub(crate) fn read(root: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                    pending.push(entry.path());
                }
            } else if kind.is_file() && is_read(&name) {
                files.push(File {
                    path: relative(root, entry.path()),
                    text: fs::read_to_string(entry.path())?,
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn is_read(name: &str) -> bool {
    name == "Cargo.toml" || LOCKS.contains(&name) || name.ends_with(".rs") || name.ends_with(".sol")
}

fn relative(root: &Path, path: PathBuf) -> String {
    let inside = path.strip_prefix(root).unwrap_or(&path);
    inside
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}
