//! `assay model pull|import|list|show|commit|bench`: models on this machine.

use crate::home::Home;
use crate::models::{self, Bars};
use crate::output::{self, Table};
use anyhow::{Context, Result};
use assay_model::catalog;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Download a model by name and make it integer; resumes, and checks every byte against a pinned hash
    Pull {
        /// A name of `assay model list`, or the beginning of one
        #[arg(default_value = models::DEFAULT)]
        name: String,
    },
    /// Make a GGUF file integer: two imports of one file give the same model id
    Import {
        /// A llama or gemma3 model
        file: PathBuf,
    },
    /// Models here, and those that can be pulled
    List {
        #[arg(long)]
        json: bool,
    },
    /// One model's id, shape and hashes
    Show {
        #[arg(default_value = models::DEFAULT)]
        name: String,
        /// Recompute every root from the weights
        #[arg(long)]
        verify: bool,
        #[arg(long)]
        json: bool,
    },
    /// Commit to a model's weights: makes the key with which proofs are checked without the model
    Commit {
        #[arg(default_value = models::DEFAULT)]
        name: String,
        /// Where the key goes [default: the model's name with .key]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// How fast a model runs here
    Bench(crate::bench::Args),
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    let home = home.clone();
    // Models take every core for minutes.
    let task = tokio::task::spawn_blocking(move || match args.action {
        Action::Pull { name } => pull(&home, &name),
        Action::Import { file } => import(&home, &file),
        Action::List { json } => list(&home, json),
        Action::Show { name, verify, json } => show(&home, &name, verify, json),
        Action::Commit { name, out, json } => commit(&home, &name, out, json),
        Action::Bench(args) => crate::bench::run(&home, &args),
    });
    task.await.context("the work broke off")?
}

fn pull(home: &Home, name: &str) -> Result<()> {
    home.create()?;
    let name = models::pull(home, name)?;
    let model = models::open(home, &name)?;
    println!("{name} is here: model {}", model.model.id());
    Ok(())
}

fn import(home: &Home, file: &std::path::Path) -> Result<()> {
    home.create()?;
    let label = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut bars = Bars::new(&label);
    let path = models::store(home).import(file, &mut |progress| bars.show(progress))?;
    bars.finish();
    let model = models::store(home).open(&path.to_string_lossy())?;
    println!("imported to {}: model {}", path.display(), model.model.id());
    Ok(())
}

fn list(home: &Home, json: bool) -> Result<()> {
    let here = models::store(home).list()?;
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for entry in catalog::catalog() {
        let known = here.iter().find(|model| model.name == entry.name);
        let state = match known {
            Some(model) => format!("here, {}", output::bytes(model.bytes)),
            None => format!("{} to pull", output::bytes(entry.download_bytes())),
        };
        rows.push((
            entry.name,
            state,
            format!("{} ({})", entry.about, entry.licence),
        ));
    }
    for model in &here {
        if !rows.iter().any(|(name, ..)| *name == model.name) {
            rows.push((
                model.name.clone(),
                format!("here, {}", output::bytes(model.bytes)),
                "imported".to_owned(),
            ));
        }
    }
    if json {
        let json: Vec<_> = rows
            .iter()
            .map(|(name, state, about)| json!({ "name": name, "state": state, "about": about }))
            .collect();
        return output::print_json(&json);
    }
    let mut table = Table::new(&["model", "where", "what"]);
    for (name, state, about) in rows {
        table.row([name, state, about]);
    }
    print!("{}", table.render(""));
    Ok(())
}

fn commit(home: &Home, name: &str, out: Option<PathBuf>, json: bool) -> Result<()> {
    let loaded = models::open(home, name)?;
    let out = out.unwrap_or_else(|| PathBuf::from(format!("{}.key", loaded.name)));
    let (key, _) = assay_proof::setup(&loaded.model, crate::judge::threads())?;
    let bytes = key.to_bytes();
    std::fs::write(&out, &bytes).with_context(|| format!("cannot write {}", out.display()))?;
    if json {
        return output::print_json(&json!({
            "model": loaded.model.id(),
            "file": out,
            "bytes": bytes.len(),
            "key": key.hash(),
        }));
    }
    println!("model      {}", loaded.model.id());
    println!("key        {}", key.hash());
    println!(
        "file       {}, {}",
        out.display(),
        output::bytes(bytes.len() as u64)
    );
    println!(
        "whoever commits to the same model gets the same key; `assay verify --key` checks proofs with it"
    );
    Ok(())
}

fn show(home: &Home, name: &str, verify: bool, json: bool) -> Result<()> {
    let loaded = models::open(home, name)?;
    let manifest = loaded.model.manifest();
    if verify {
        loaded.model.verify_roots()?;
    }
    if json {
        return output::print_json(
            &json!({ "name": loaded.name, "id": loaded.model.id(), "roots_verified": verify, "manifest": format!("{:?}", manifest.dims) }),
        );
    }
    println!("name       {}", loaded.name);
    println!("id         {}", loaded.model.id());
    println!("shape      {:?}", manifest.dims);
    println!(
        "chats      {}",
        if loaded.template.is_some() {
            "yes, it has a chat template"
        } else {
            "no, it continues text"
        }
    );
    if verify {
        println!("roots      every root recomputed from the weights: they agree");
    }
    Ok(())
}
