//! The compiled contracts: creation bytecode out of `contracts/artifacts/`, which CI proves fresh.
//! No Solidity compiler is needed to build this.

/// An artifact as `contracts/build` writes it.
#[derive(serde::Deserialize)]
struct Artifact {
    bytecode: String,
}

fn bytecode(json: &str) -> Vec<u8> {
    let artifact: Artifact = serde_json::from_str(json).expect("an artifact is JSON");
    let digits = artifact.bytecode.trim_start_matches("0x");
    hex::decode(digits).expect("an artifact's bytecode is hex, with no library to link")
}

/// x402-compatible channels.
pub fn channels() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/Channels.json"))
}

/// Pulls EIP-3009 deposits; takes the channels' address.
pub fn erc3009_collector() -> Vec<u8> {
    bytecode(include_str!(
        "../../../contracts/artifacts/Erc3009Collector.json"
    ))
}

/// The development chains' stablecoin.
pub fn test_dollar() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/TestDollar.json"))
}

/// Manifests, stored as code.
pub fn models() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/Models.json"))
}

/// Judges what the sampler chose, and facts; takes the models' address.
pub fn sample_referee() -> Vec<u8> {
    bytecode(include_str!(
        "../../../contracts/artifacts/SampleReferee.json"
    ))
}

/// Recomputes one element; takes the sample referee's address.
pub fn referee() -> Vec<u8> {
    bytecode(include_str!(
        "../../../contracts/artifacts/StepReferee.json"
    ))
}

/// The disputes and, made by it, the registry; takes token, channels, referee, least stake, unbonding,
/// window, and the game's rules: bond, response time, extension.
pub fn dispute_game() -> Vec<u8> {
    bytecode(include_str!(
        "../../../contracts/artifacts/DisputeGame.json"
    ))
}

/// Providers and stakes; the dispute game makes it.
pub fn registry() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/Registry.json"))
}

/// The code behind every provider's vault; the registry makes it.
pub fn payout_vault() -> Vec<u8> {
    bytecode(include_str!(
        "../../../contracts/artifacts/PayoutVault.json"
    ))
}

/// What providers served, added up; takes the registry's address.
pub fn scoreboard() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/Scoreboard.json"))
}

/// Carries scores into ERC-8004's registry; takes scoreboard, identity registry, reputation registry, period.
pub fn reputation_adapter() -> Vec<u8> {
    bytecode(include_str!(
        "../../../contracts/artifacts/ReputationAdapter.json"
    ))
}

/// Many reads in one call.
pub fn multicall3() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/Multicall3.json"))
}

/// The referee's arithmetic by itself, for tests.
pub fn arithmetic_harness() -> Vec<u8> {
    bytecode(include_str!(
        "../../../contracts/artifacts/ArithmeticHarness.json"
    ))
}

/// Creation bytecode with its constructor's ABI-encoded arguments.
pub fn with_arguments(mut bytecode: Vec<u8>, arguments: &[u8]) -> Vec<u8> {
    bytecode.extend_from_slice(arguments);
    bytecode
}
