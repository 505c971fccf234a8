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

/// Providers, stakes, vaults; takes token, channels, arbiter, least stake, unbonding, window.
pub fn registry() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/Registry.json"))
}

/// The development chains' stablecoin.
pub fn test_dollar() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/TestDollar.json"))
}

/// Many reads in one call.
pub fn multicall3() -> Vec<u8> {
    bytecode(include_str!("../../../contracts/artifacts/Multicall3.json"))
}

/// Creation bytecode with its constructor's ABI-encoded arguments.
pub fn with_arguments(mut bytecode: Vec<u8>, arguments: &[u8]) -> Vec<u8> {
    bytecode.extend_from_slice(arguments);
    bytecode
}
