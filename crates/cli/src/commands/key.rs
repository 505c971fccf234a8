//! `assay key new|import|list|address|password`: the keys of this data folder, each an encrypted file.
//!
//! No raw key is shown, and none is taken from an argument: other programs could read it there.

use crate::home::Home;
use crate::keyring::{self, Asked, Keyring};
use crate::output::{self, Table};
use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_chain::{Key, KeyFile, Password};
use serde_json::json;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a key
    New {
        /// What to call it, or the file to write
        name: String,
    },
    /// Encrypt a raw key from standard input, or a key from another file
    Import {
        /// What to call it, or the file to write [default: the other file's name, with .json]
        #[arg(required_unless_present = "from")]
        name: Option<String>,
        /// Another keystore, or a raw key as earlier versions of this program wrote them
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// The file with the other keystore's password [default: the same as for the new one]
        #[arg(long, requires = "from", value_name = "FILE")]
        from_password_file: Option<PathBuf>,
    },
    /// The keys of this data folder
    List {
        #[arg(long)]
        json: bool,
    },
    /// A key's address
    Address {
        /// What it is called, or its file
        name: String,
    },
    /// Put a key under another password
    Password {
        /// What it is called, or its file
        name: String,
        /// The file with the new password [default: asked at the terminal]
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
}

pub(crate) fn run(args: Args, home: &Home) -> Result<()> {
    home.create()?;
    match args.action {
        Action::New { name } => {
            let path = home.key_named(&name);
            tell(&Keyring::new(home).make(&path)?, &path);
            Ok(())
        }
        Action::Import {
            name,
            from,
            from_password_file,
        } => import(home, name, from, from_password_file),
        Action::List { json } => list(home, json),
        Action::Address { name } => {
            println!("{}", address(home, &existing(home, &name)?)?);
            Ok(())
        }
        Action::Password {
            name,
            new_password_file,
        } => change(home, &existing(home, &name)?, new_password_file),
    }
}

fn tell(key: &Key, path: &Path) {
    println!("{}  {}", key.address(), path.display());
}

fn existing(home: &Home, name: &str) -> Result<PathBuf> {
    let path = home.key_named(name);
    keyring::found(&path).ok_or_else(|| {
        refusal(
            format!("there is no key {}", path.display()),
            "see `assay key list`, or make one with `assay key new`",
        )
    })
}

fn import(
    home: &Home,
    name: Option<String>,
    from: Option<PathBuf>,
    from_password_file: Option<PathBuf>,
) -> Result<()> {
    let keyring = Keyring::new(home);
    let key = match &from {
        None => raw_key()?,
        Some(from) => match (KeyFile::at(from)?, from_password_file) {
            (KeyFile::Keystore(_), Some(file)) => Key::load(from, &keyring::password_in(&file)?)?,
            (KeyFile::Keystore(_), None) => keyring.open(from)?,
            (KeyFile::Plain(_), _) => Key::load(from, &Password::new(String::new()))?,
        },
    };
    let path = match (name, &from) {
        (Some(name), _) => home.key_named(&name),
        (None, Some(from)) => from.with_extension("json"),
        (None, None) => anyhow::bail!("a name is required"),
    };
    keyring.store(&key, &path)?;
    tell(&key, &path);
    if let Some(from) = from
        && let KeyFile::Plain(_) = KeyFile::at(&from)?
    {
        println!(
            "the raw key in {} is the same: delete that file once this one has a backup",
            from.display()
        );
    }
    Ok(())
}

/// From standard input, without echo where somebody types it.
fn raw_key() -> Result<Key> {
    /// 64 digits, 0x, and whatever space is around.
    const MOST: u64 = 1_024;
    let mut text = Password::new(String::new());
    if std::io::stdin().is_terminal() {
        text = keyring::asked_for("the raw key, 64 hex digits (not shown): ", Asked::Once)?;
    } else {
        let mut read = String::new();
        std::io::stdin()
            .take(MOST)
            .read_to_string(&mut read)
            .context("cannot read a key from standard input")?;
        if !read.is_empty() {
            text = Password::new(read);
        }
    }
    Key::from_hex(text.reveal()).map_err(|error| {
        refusal(
            format!("standard input holds no key: {error}"),
            "pipe a raw key into this command, or name a keystore with --from",
        )
    })
}

fn list(home: &Home, json: bool) -> Result<()> {
    let mut folders = vec![home.keys()];
    if let Ok(nodes) = std::fs::read_dir(home.nodes()) {
        folders.extend(nodes.flatten().map(|node| node.path()));
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let Ok(files) = std::fs::read_dir(folder) else {
            continue;
        };
        paths.extend(files.flatten().map(|file| file.path()));
    }
    paths.sort();
    let mut rows = Vec::new();
    for path in paths {
        // Other files lie there too; what is no key is not listed, a key with a fault is.
        let is_key = path.extension().is_some_and(|e| e == "json" || e == "key");
        let (address, kind) = match KeyFile::at(&path) {
            _ if !is_key || path.ends_with("node.json") => continue,
            Ok(KeyFile::Keystore(address)) => (address, "encrypted".to_owned()),
            Ok(KeyFile::Plain(address)) => (
                Some(address),
                format!("RAW: assay key import --from {}", path.display()),
            ),
            Err(error) => (None, error.to_string()),
        };
        rows.push((address, kind, path));
    }
    if json {
        let rows = rows
            .iter()
            .map(|(address, kind, path)| json!({ "address": address, "kind": kind, "file": path }));
        return output::print_json(&rows.collect::<Vec<_>>());
    }
    let mut table = Table::new(&["address", "kind", "file"]);
    for (address, kind, path) in rows {
        let address = address.map_or("-".to_owned(), |address| address.to_string());
        table.row([address, kind, path.display().to_string()]);
    }
    if table.is_empty() {
        println!("no keys yet; see `assay key new` and `assay key import`");
    } else {
        print!("{}", table.render(""));
    }
    Ok(())
}

/// What the file says of itself, or what is in it.
fn address(home: &Home, path: &Path) -> Result<assay_protocol::Address> {
    match KeyFile::at(path)?.address() {
        Some(address) => Ok(address),
        None => Ok(Keyring::new(home).open(path)?.address()),
    }
}

fn change(home: &Home, path: &Path, new: Option<PathBuf>) -> Result<()> {
    if let KeyFile::Plain(_) = KeyFile::at(path)? {
        return Err(refusal(
            format!("{} is under no password", path.display()),
            format!("encrypt it with assay key import --from {}", path.display()),
        ));
    }
    let key = Keyring::new(home).open(path)?;
    let new = match new {
        Some(file) => keyring::password_in(&file)?,
        None => keyring::asked_for("the new password: ", Asked::Twice)?,
    };
    key.replace(path, &new)?;
    println!("{} is under its new password", path.display());
    Ok(())
}
