//! A provider's life on the command line: a market of its own, a cold owner key, stake in and out, a lost ledger.

mod support;

use serde_json::Value;
use std::fs;
use std::path::Path;
use support::{Service, free_address, run, run_json, stderr};

fn good(home: &Path, args: &[&str]) -> String {
    let output = run(home, args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(home: &Path, args: &[&str], hint: &str) {
    let output = run(home, args);
    assert!(!output.status.success(), "{args:?} succeeded");
    let why = stderr(&output);
    assert!(why.contains(hint), "{args:?}: {why}");
}

#[test]
fn a_provider_keeps_its_owner_cold_and_outlives_the_loss_of_its_ledger() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [chain_home, home] = [folders[0].path(), folders[1].path()];
    let chain_at = free_address();
    let rpc = format!("http://{chain_at}");
    let serve = ["chain", "serve", "--listen", &chain_at];
    let chain = Service::start(chain_home, &serve, "ctrl-c stops it");

    // A market: what it costs comes first, and what it is can be checked.
    let rpc_url = ["--rpc-url", &rpc];
    let deploy = [&["chain", "deploy"], &rpc_url[..]].concat();
    let dry = good(chain_home, &[&deploy[..], &["--dry-run"]].concat());
    assert!(dry.contains("gas       about"), "{dry}");
    let deployments = chain_home.join("deployments.json");
    assert!(!deployments.exists(), "a dry run deploys nothing");
    refused(
        chain_home,
        &[&deploy[..], &["--network", "base-sepolia"]].concat(),
        "base-sepolia is chain 84532",
    );
    good(chain_home, &deploy);
    refused(chain_home, &deploy, "there already");
    let file = deployments.to_str().unwrap();
    let network = ["--rpc-url", &rpc, "--deployment", file];
    let verify = [&["chain", "verify", "--history"], &network[..]].concat();
    assert!(good(home, &verify).contains("holds"));
    let forged = forge(&deployments, home);
    let forged = [&["chain", "verify", "--deployment", &forged], &rpc_url[..]].concat();
    let output = run(home, &forged);
    assert!(!output.status.success(), "a forged deployment was verified");
    assert!(String::from_utf8_lossy(&output.stdout).contains("FAILS"));

    // The owner's key lies elsewhere.
    let cold = home.join("cold/owner.json");
    let cold = cold.to_str().unwrap();
    good(home, &["key", "new", cold]);
    let owner = ["--owner-key", cold];
    let init = [
        "node",
        "init",
        "--public-url",
        "http://127.0.0.1:9",
        "--mint",
    ];
    let init = [&init[..], &network[..], &owner[..]].concat();
    good(home, &init);
    let own = home.join("nodes/own");
    assert!(!own.join("owner.json").exists() && own.join("node.json").exists());
    let status = || -> Value {
        run_json(
            home,
            &[&["chain", "status", "--json"], &network[..]].concat(),
        )
    };
    let before = status()["providers"][0].clone();
    assert_eq!(before["score"]["convictions"], 0);

    // Stake in and out.
    let owned = [&network[..], &owner[..]].concat();
    let act = |words: &[&'static str]| [words, &owned[..]].concat();
    good(home, &act(&["node", "add-stake", "5", "--mint"]));
    assert_eq!(status()["providers"][0]["stake"], 30_000_000);
    assert!(good(home, &act(&["node", "unbond", "5"])).contains("withdraw-stake"));
    refused(home, &act(&["node", "unbond", "26"]), "only $25.00");
    refused(
        home,
        &act(&["node", "withdraw-stake"]),
        "cannot be taken yet",
    );
    assert!(good(home, &act(&["node", "release"])).contains("in no jail"));
    let own_key = [&["node", "release"], &network[..]].concat();
    refused(home, &own_key, "--owner-key");

    // The ledger is lost: nothing pretends that it never was.
    refused(home, &act(&["node", "recover"]), "is there");
    fs::rename(own.join("payee.redb"), home.join("lost.redb")).unwrap();
    let serve = [&["node", "run", "--listen", "127.0.0.1:0"], &network[..]].concat();
    refused(home, &serve, "assay node recover");
    refused(home, &init, "assay node recover");
    good(home, &act(&["node", "recover"]));
    let after = status()["providers"][0].clone();
    assert_eq!(after["address"], before["address"]);
    assert_ne!(
        after["offer_key"], before["offer_key"],
        "an old channel pays no new ledger"
    );
    let node = Service::start(home, &serve, "ctrl-c stops it");
    node.interrupt();

    // Nobody's claims, or no claims at all.
    let nothing = home.join("claims.json");
    fs::write(&nothing, "[]").unwrap();
    let relay = ["chain", "relay", "--file", nothing.to_str().unwrap()];
    assert!(good(home, &[&relay[..], &network[..]].concat()).contains("nothing"));
    fs::write(&nothing, "{\"claims\": 7}").unwrap();
    refused(
        home,
        &[&relay[..], &network[..]].concat(),
        "no signed claims",
    );
    chain.interrupt();
}

/// The same deployment with another scoreboard.
fn forge(deployments: &Path, home: &Path) -> String {
    let mut told: Value = serde_json::from_slice(&fs::read(deployments).unwrap()).unwrap();
    told["31337"]["scoreboard"] = told["31337"]["registry"].clone();
    let forged = home.join("forged.json");
    fs::write(&forged, told.to_string()).unwrap();
    forged.to_str().unwrap().to_owned()
}
