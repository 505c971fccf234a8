//! The Rust bindings against the compiled contracts: every function and event that Rust names
//! exists as it names it, and every error that our contracts can give is one that Rust can read.

use std::collections::HashSet;

use alloy_primitives::{B256, keccak256};
use alloy_sol_types::{SolEventInterface, SolInterface};
use assay_chain::abi::{
    IChannels, ICollector, IDisputeGame, IModels, IPayoutVault, IReferee, IRegistry,
    IReputationAdapter, IScoreboard, ITestDollar,
};
use serde_json::Value;

/// OpenZeppelin's and Solidity's own, which mean a broken promise and no refusal of ours.
const FOREIGN: &[&str] = &[
    "ECDSA",
    "ERC20",
    "EIP712",
    "InvalidShortString",
    "StringTooLong",
    "ReentrancyGuard",
    "Safe",
    "FailedCall",
    "FailedDeployment",
    "InsufficientBalance",
    "AddressEmptyCode",
    "CloneArgumentsTooLong",
    "Create2",
];

struct Artifact {
    functions: HashSet<[u8; 4]>,
    events: HashSet<B256>,
    errors: Vec<(String, [u8; 4])>,
}

fn artifact(name: &str) -> Artifact {
    let root = env!("CARGO_MANIFEST_DIR");
    let path = format!("{root}/../../contracts/artifacts/{name}.json");
    let text = std::fs::read_to_string(path).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let mut artifact = Artifact {
        functions: HashSet::new(),
        events: HashSet::new(),
        errors: Vec::new(),
    };
    for entry in json["abi"].as_array().unwrap() {
        let (kind, name) = (&entry["type"], entry["name"].as_str().unwrap_or_default());
        let hash = keccak256(format!("{name}({})", types(&entry["inputs"])));
        let selector = [hash[0], hash[1], hash[2], hash[3]];
        match kind.as_str().unwrap() {
            "function" => drop(artifact.functions.insert(selector)),
            "event" => drop(artifact.events.insert(hash)),
            "error" => artifact.errors.push((name.into(), selector)),
            _ => {}
        }
    }
    artifact
}

fn types(inputs: &Value) -> String {
    let name = |input: &Value| {
        let kind = input["type"].as_str().unwrap();
        match kind.strip_prefix("tuple") {
            Some(array) => format!("({}){array}", types(&input["components"])),
            None => kind.to_owned(),
        }
    };
    let inputs = inputs
        .as_array()
        .map(|all| all.iter().map(name).collect::<Vec<_>>());
    inputs.unwrap_or_default().join(",")
}

fn check<Calls: SolInterface, Errors: SolInterface>(name: &str, events: &[B256]) {
    let artifact = artifact(name);
    for selector in Calls::selectors() {
        assert!(
            artifact.functions.contains(&selector),
            "{name}: function {selector:02x?}"
        );
    }
    for event in events {
        assert!(artifact.events.contains(event), "{name}: event {event}");
    }
    let known: HashSet<[u8; 4]> = Errors::selectors().collect();
    for (error, selector) in &artifact.errors {
        let foreign = FOREIGN.iter().any(|prefix| error.starts_with(prefix));
        assert!(foreign || known.contains(selector), "{name}: error {error}");
    }
}

fn hashes<E: SolEventInterface>(selectors: &[[u8; 32]]) -> Vec<B256> {
    assert_eq!(selectors.len(), E::COUNT);
    selectors.iter().copied().map(B256::from).collect()
}

#[test]
fn rust_and_solidity_name_the_same_things() {
    check::<ITestDollar::ITestDollarCalls, ITestDollar::ITestDollarErrors>(
        "TestDollar",
        &hashes::<ITestDollar::ITestDollarEvents>(ITestDollar::ITestDollarEvents::SELECTORS),
    );
    check::<IChannels::IChannelsCalls, IChannels::IChannelsErrors>(
        "Channels",
        &hashes::<IChannels::IChannelsEvents>(IChannels::IChannelsEvents::SELECTORS),
    );
    check::<IRegistry::IRegistryCalls, IRegistry::IRegistryErrors>(
        "Registry",
        &hashes::<IRegistry::IRegistryEvents>(IRegistry::IRegistryEvents::SELECTORS),
    );
    check::<IPayoutVault::IPayoutVaultCalls, IPayoutVault::IPayoutVaultErrors>(
        "PayoutVault",
        &hashes::<IPayoutVault::IPayoutVaultEvents>(IPayoutVault::IPayoutVaultEvents::SELECTORS),
    );
    check::<IDisputeGame::IDisputeGameCalls, IDisputeGame::IDisputeGameErrors>(
        "DisputeGame",
        &hashes::<IDisputeGame::IDisputeGameEvents>(IDisputeGame::IDisputeGameEvents::SELECTORS),
    );
    check::<IScoreboard::IScoreboardCalls, IScoreboard::IScoreboardErrors>(
        "Scoreboard",
        &hashes::<IScoreboard::IScoreboardEvents>(IScoreboard::IScoreboardEvents::SELECTORS),
    );
    check::<
        IReputationAdapter::IReputationAdapterCalls,
        IReputationAdapter::IReputationAdapterErrors,
    >(
        "ReputationAdapter",
        &hashes::<IReputationAdapter::IReputationAdapterEvents>(
            IReputationAdapter::IReputationAdapterEvents::SELECTORS,
        ),
    );
    // Their refusals mean a proof that does not verify; they are shown as bytes.
    for (name, selectors) in [
        (
            "Models",
            IModels::IModelsCalls::selectors().collect::<Vec<_>>(),
        ),
        (
            "StepReferee",
            IReferee::IRefereeCalls::selectors().collect(),
        ),
    ] {
        let artifact = artifact(name);
        for selector in selectors {
            assert!(
                artifact.functions.contains(&selector),
                "{name}: function {selector:02x?}"
            );
        }
    }
    let collector = artifact("Erc3009Collector");
    let known: HashSet<[u8; 4]> = ICollector::ICollectorErrors::selectors().collect();
    assert!(
        collector
            .errors
            .iter()
            .any(|(_, selector)| known.contains(selector))
    );
}
