//! The folder that everything of one user lives in, and the lock that keeps two markets out of it.
//!
//! It names paths and takes the lock; what stands in the files is their owners' business.

use crate::refusal::refusal;
use anyhow::{Context, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// Flags that every command takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HomeArgs {
    /// Folder for keys, chain, receipts and models [default: the platform's data folder]
    #[arg(long, global = true, env = "ASSAY_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Folder for pulled and imported models [default: the data folder]
    #[arg(long, global = true, env = "ASSAY_MODELS_DIR", value_name = "DIR")]
    models_dir: Option<PathBuf>,

    /// The file with the password of your keys [default: asked at the terminal]
    #[arg(long, global = true, env = "ASSAY_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub(crate) struct Home {
    data: PathBuf,
    models: PathBuf,
    password_file: Option<PathBuf>,
}

impl HomeArgs {
    pub(crate) fn resolve(&self) -> Result<Home> {
        let data = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => directories::ProjectDirs::from("", "", "assay")
                .map(|dirs| dirs.data_dir().to_path_buf())
                .ok_or_else(|| {
                    refusal("no home folder is known", "name a folder with --data-dir")
                })?,
        };
        let models = self.models_dir.clone().unwrap_or_else(|| data.clone());
        Ok(Home {
            data,
            models,
            password_file: self.password_file.clone(),
        })
    }
}

impl Home {
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn models(&self) -> &Path {
        &self.models
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }

    /// The keystore of this name.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.keys().join(format!("{name}.json"))
    }

    /// A key by what its user calls it: `owner` and `offer` are the node's, any other word is a keystore of the keys
    /// folder, and the rest are files.
    pub(crate) fn key_named(&self, name: &str) -> PathBuf {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        match name {
            "owner" | "offer" => self.node("own").join(format!("{name}.json")),
            _ if name.chars().all(is_word) && !name.is_empty() => self.key(name),
            _ => PathBuf::from(name),
        }
    }

    /// What the keys of the local market are under.
    pub(crate) fn market_password(&self) -> PathBuf {
        self.keys().join("market.password")
    }

    /// Where the password of the user's own keys stands, if a file was named.
    pub(crate) fn password_file(&self) -> Option<&Path> {
        self.password_file.as_deref()
    }

    pub(crate) fn chain_file(&self) -> PathBuf {
        self.data.join("chain").join("chain.redb")
    }

    /// Where markets stand, chain by chain.
    pub(crate) fn deployments(&self) -> PathBuf {
        self.data.join("deployments.json")
    }

    /// Where earlier versions kept the one market that they knew.
    pub(crate) fn old_deployment(&self) -> PathBuf {
        self.data.join("chain").join("deployment.json")
    }

    pub(crate) fn nodes(&self) -> PathBuf {
        self.data.join("nodes")
    }

    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.nodes().join(name)
    }

    pub(crate) fn gateway(&self) -> PathBuf {
        self.data.join("gateway")
    }

    /// Where the gateway keeps its answers.
    pub(crate) fn gateway_ledger(&self) -> PathBuf {
        self.gateway().join("gateway.redb")
    }

    /// What a running market tells to other commands: addresses, ports, deployment.
    pub(crate) fn market_file(&self) -> PathBuf {
        self.data.join("market.json")
    }

    /// What the folders of this home take on disk, models included.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        let apart = !self.models.starts_with(&self.data);
        bytes_in(&self.data) + if apart { bytes_in(&self.models) } else { 0 }
    }

    /// Makes the folder, for this user alone: it holds keys.
    pub(crate) fn create(&self) -> Result<()> {
        let existed = self.data.is_dir();
        fs::create_dir_all(&self.data)
            .with_context(|| format!("cannot make the folder {}", self.data.display()))?;
        #[cfg(unix)]
        if !existed {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&self.data, fs::Permissions::from_mode(0o700))
                .with_context(|| format!("cannot protect the folder {}", self.data.display()))?;
        }
        Ok(())
    }

    /// Refuses while another process holds the folder; the lock goes with the returned value.
    pub(crate) fn lock(&self) -> Result<HomeLock> {
        self.create()?;
        let path = self.data.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(HomeLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(refusal(
                format!("another assay is running in {}", self.data.display()),
                "stop it with ctrl-c, or give this one its own folder with --data-dir",
            )),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Held while a market runs. The operating system drops it with the process, however that ends.
#[derive(Debug)]
pub(crate) struct HomeLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::Home;

    #[test]
    fn a_second_market_in_one_folder_is_refused_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home {
            data: folder.path().join("data"),
            models: folder.path().join("models"),
            password_file: None,
        };
        let first = home.lock().unwrap();
        assert!(
            home.lock()
                .unwrap_err()
                .to_string()
                .contains("another assay is running")
        );
        drop(first);
        home.lock().unwrap();
    }
}
