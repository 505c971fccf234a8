//! Which key file is meant, and the password that opens it.
//!
//! A password comes from a file or from the terminal, never from an argument. The keys of the local market of
//! `assay up` are under a random password that lies beside them: they own test dollars.

use crate::home::Home;
use crate::network::is_development;
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::keys::{KeyError, KeyFile, Password};
use assay_chain::{Key, Market};
use std::cell::{Cell, OnceCell};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

/// No password is longer.
const PASSWORD_MAX: u64 = 4_096;
/// What to do where no password can be had.
const NAME_A_FILE: &str = "write the password into a file that only you may read, and name it with --password-file or ASSAY_PASSWORD_FILE";

/// Opens and makes the keys of one command. A password is asked for once.
pub(crate) struct Keyring<'a> {
    home: &'a Home,
    password: OnceCell<Password>,
    /// Opens the keys of a local market, where there is one in this folder.
    local: OnceCell<Option<Password>>,
    opened_local: Cell<bool>,
    /// Whether new keys go under the local market's password.
    makes_local: Cell<bool>,
    warned: Cell<bool>,
}

impl<'a> Keyring<'a> {
    pub(crate) fn new(home: &'a Home) -> Self {
        Self {
            home,
            password: OnceCell::new(),
            local: OnceCell::new(),
            opened_local: Cell::new(false),
            makes_local: Cell::new(false),
            warned: Cell::new(false),
        }
    }

    /// For a market: in the folder of a local one, new keys are as its own are, and nobody is asked for a password.
    pub(crate) fn on(home: &'a Home, market: &Market) -> Self {
        let keyring = Self::new(home);
        let development = is_development(market.deployment().chain_id);
        keyring
            .makes_local
            .set(development && home.password_file().is_none());
        keyring
    }

    /// The key in this file.
    pub(crate) fn open(&self, path: &Path) -> Result<Key> {
        match KeyFile::at(path)? {
            KeyFile::Plain(_) => {
                self.warn_of_plain(path);
                Ok(Key::load(path, &Password::new(String::new()))?)
            }
            KeyFile::Keystore(_) => {
                if let Some(local) = self.local()?
                    && let Some(key) = opened(path, local)?
                {
                    self.opened_local.set(true);
                    return Ok(key);
                }
                let name = path.display();
                let password = self.password(&format!("password of {name}: "), Asked::Once)?;
                Ok(Key::load(path, password)?)
            }
        }
    }

    /// The key in this file, or a fresh one in it.
    pub(crate) fn open_or_make(&self, path: &Path) -> Result<Key> {
        match found(path) {
            Some(path) => self.open(&path),
            None => self.make(path),
        }
    }

    /// A fresh key in a new file.
    pub(crate) fn make(&self, path: &Path) -> Result<Key> {
        let key = Key::random()?;
        self.store(&key, path)?;
        Ok(key)
    }

    /// Writes a key into a new file.
    pub(crate) fn store(&self, key: &Key, path: &Path) -> Result<()> {
        // Before anybody types a password in vain.
        if path.exists() {
            return Err(KeyError::Exists { path: path.into() }.into());
        }
        if self.makes_local.get()
            && let Some(local) = self.local()?
        {
            return Ok(key.store(path, local)?);
        }
        let prompt = format!("a password for the new key {}: ", path.display());
        Ok(key.store(path, self.password(&prompt, Asked::Twice)?)?)
    }

    /// Refuses keys of the local market anywhere else: whoever reads their folder has them.
    pub(crate) fn check_fit(&self, market: &Market) -> Result<()> {
        self.check_chain(market.deployment().chain_id)
    }

    pub(crate) fn check_chain(&self, chain_id: u64) -> Result<()> {
        if self.opened_local.get() && !is_development(chain_id) {
            return Err(refusal(
                format!(
                    "this key's password lies beside it, and chain {chain_id} is no development chain"
                ),
                "choose another folder with --data-dir, or give the key a password of yours with `assay key password`",
            ));
        }
        Ok(())
    }

    fn password(&self, prompt: &str, asked: Asked) -> Result<&Password> {
        if let Some(known) = self.password.get() {
            return Ok(known);
        }
        let password = match self.home.password_file() {
            Some(file) => password_in(file)?,
            None => asked_for(prompt, asked)?,
        };
        Ok(self.password.get_or_init(|| password))
    }

    fn local(&self) -> Result<Option<&Password>> {
        if let Some(known) = self.local.get() {
            return Ok(known.as_ref());
        }
        let local = local_password(self.home)?;
        Ok(self.local.get_or_init(|| local).as_ref())
    }

    fn warn_of_plain(&self, path: &Path) {
        if !self.warned.replace(true) {
            eprintln!(
                "warning: {0} holds a raw key, as earlier versions wrote them, and there may be more; \
                 `assay key import --from {0}` makes an encrypted one of it",
                path.display()
            );
        }
    }
}

/// The key if this password opens it, nothing if another one does.
fn opened(path: &Path, password: &Password) -> Result<Option<Key>> {
    match Key::load(path, password) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.is_wrong_password() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The keystore of this name, or the raw key that an earlier version wrote there.
pub(crate) fn found(path: &Path) -> Option<PathBuf> {
    let plain = path.with_extension("key");
    [path.to_owned(), plain].into_iter().find(|p| p.exists())
}

#[derive(Clone, Copy)]
pub(crate) enum Asked {
    Once,
    /// A password that nobody has typed before is typed twice.
    Twice,
}

/// The password in a file: its one line.
pub(crate) fn password_in(path: &Path) -> Result<Password> {
    let text = read_secret(path)
        .with_context(|| format!("cannot read the password file {}", path.display()))?;
    let line = text.trim_end_matches(['\n', '\r']);
    if line.is_empty() || line.contains(['\n', '\r']) {
        let what = format!("{} holds no password", path.display());
        return Err(refusal(
            what,
            "write the password into it, as its only line",
        ));
    }
    Ok(Password::new(line.to_owned()))
}

/// Also a pipe, as a shell makes it of `<(pass show assay)`; a regular file only if nobody else may read it.
fn read_secret(path: &Path) -> Result<String> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = facts.permissions().mode() & 0o777;
        if facts.is_file() && mode & 0o077 != 0 {
            return Err(refusal(
                format!("others may read it (mode {mode:o})"),
                format!("run `chmod 600 {}`", path.display()),
            ));
        }
    }
    let mut text = String::new();
    file.take(PASSWORD_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Asks at the terminal, without echo.
pub(crate) fn asked_for(prompt: &str, asked: Asked) -> Result<Password> {
    let no_terminal = || {
        refusal(
            "a password is needed, and there is no terminal to ask at",
            NAME_A_FILE,
        )
    };
    if !std::io::stderr().is_terminal() {
        return Err(no_terminal());
    }
    let password = rpassword::prompt_password(prompt).map_err(|_| no_terminal())?;
    if let Asked::Twice = asked {
        if password.is_empty() {
            return Err(refusal("an empty password protects nothing", "choose one"));
        }
        let again = rpassword::prompt_password("the same again: ").map_err(|_| no_terminal())?;
        if again != password {
            return Err(refusal("the two are not the same", "start again"));
        }
    }
    Ok(Password::new(password))
}

/// The keys of the local market, under the password that lies beside them.
pub(crate) struct LocalKeys<'a> {
    keyring: Keyring<'a>,
    password: Password,
}

impl<'a> LocalKeys<'a> {
    /// Makes the password where there is none.
    pub(crate) fn of(home: &'a Home) -> Result<Self> {
        let password = match local_password(home)? {
            Some(password) => password,
            None => make_local_password(home)?,
        };
        let keyring = Keyring::new(home);
        let _ = keyring.local.set(Some(password.clone()));
        Ok(Self { keyring, password })
    }

    pub(crate) fn open_or_make(&self, path: &Path) -> Result<Key> {
        match found(path) {
            // A key that is not under the market's password is somebody's own.
            Some(path) => self.keyring.open(&path),
            None => Ok(Key::create(path, &self.password)?),
        }
    }

    /// The key in this file if it is one of the market's.
    pub(crate) fn own(&self, path: &Path) -> Option<Key> {
        match KeyFile::at(path).ok()? {
            KeyFile::Plain(_) => self.keyring.open(path).ok(),
            KeyFile::Keystore(_) => opened(path, &self.password).ok()?,
        }
    }
}

fn local_password(home: &Home) -> Result<Option<Password>> {
    let path = home.market_password();
    match read_secret(&path) {
        Ok(text) if !text.trim().is_empty() => {
            Ok(Some(Password::of_random(text.trim().to_owned())))
        }
        // Killed before it was written: nothing is under it yet.
        Ok(_) => Ok(None),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    let source = error.downcast_ref::<std::io::Error>();
    source.is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// On disk, whole, before any key is under it.
fn make_local_password(home: &Home) -> Result<Password> {
    let path = home.market_password();
    let failed = || format!("cannot write {}", path.display());
    fs::create_dir_all(home.keys()).with_context(failed)?;
    let password = Password::random()?;
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&fresh).with_context(failed)?;
    writeln!(file, "{}", password.reveal())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&fresh, &path))
        .with_context(failed)?;
    Ok(password)
}
