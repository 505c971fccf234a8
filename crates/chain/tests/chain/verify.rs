//! A deployment is believed only where its code and its ties hold: each contract that was swapped, patched
//! or made for another market is named.

use alloy::providers::Provider;
use alloy_primitives::Bytes;
use assay_chain::{Chain, Check, DeployParams, Deployment};
use assay_protocol::{Address, MicroUsd};
use serde_json::json;

use crate::market::on_every_chain;
use crate::support::{Net, Scene};

async fn failing(chain: &Chain, deployment: &Deployment) -> Vec<Check> {
    let checks = chain.verify(deployment).await.expect("the chain answers");
    checks.into_iter().filter(|check| !check.holds).collect()
}

fn names(checks: &[Check]) -> Vec<&str> {
    checks.iter().map(|check| check.what.as_str()).collect()
}

#[test]
fn a_market_of_this_program_holds_in_every_check() {
    on_every_chain(|scene| async move {
        let chain = scene.market.chain();
        let checks = chain.verify(scene.market.deployment()).await.unwrap();
        let failing: Vec<_> = checks.iter().filter(|check| !check.holds).collect();
        assert!(failing.is_empty(), "{failing:#?}");
        // Nine contracts' code, their ties, rules and token.
        assert!(checks.len() >= 28, "{}", checks.len());
    });
}

#[test]
fn a_registry_that_names_another_arbiter_is_named() {
    on_every_chain(|scene| async move {
        let chain = scene.market.chain();
        let ours = scene.market.deployment().clone();
        let params = DeployParams {
            token: Some(ours.token),
            ..DeployParams::devnet()
        };
        let theirs = chain.deploy(&scene.relay, &params).await.unwrap();
        // Everything is genuine code, but the registry answers to another market's game.
        let mixed = Deployment {
            registry: theirs.registry,
            vault_implementation: theirs.vault_implementation,
            ..ours.clone()
        };
        let failing = failing(chain, &mixed).await;
        let arbiter = failing
            .iter()
            .find(|check| check.what.starts_with("the registry's arbiter"))
            .unwrap_or_else(|| panic!("{failing:#?}"));
        assert_eq!(arbiter.address, theirs.registry);
        assert_eq!(arbiter.found, theirs.dispute_game.to_string());
        let said = names(&failing);
        for what in ["the dispute game's registry", "the scoreboard's registry"] {
            assert!(said.iter().any(|name| name.starts_with(what)), "{said:?}");
        }
        // Its code, too, says whose it is.
        let code = failing
            .iter()
            .find(|check| check.what.starts_with("the code of registry"));
        assert!(code.is_some_and(|check| check.found.contains(&theirs.dispute_game.to_string())));
    });
}

#[test]
fn other_rules_than_the_file_says_are_named() {
    on_every_chain(|scene| async move {
        let chain = scene.market.chain();
        let mut told = scene.market.deployment().clone();
        told.challenge_window_s += 1;
        told.bond = MicroUsd(1);
        told.token_version = "2".into();
        let failing = failing(chain, &told).await;
        let said = names(&failing);
        for what in [
            "the challenge window is 61",
            "the bond is 1",
            "the token's EIP-712 domain",
        ] {
            assert!(said.iter().any(|name| name.starts_with(what)), "{said:?}");
        }
    });
}

#[test]
fn an_address_with_other_code_or_none_is_named() {
    on_every_chain(|scene| async move {
        let chain = scene.market.chain();
        let ours = scene.market.deployment().clone();
        let nowhere = Deployment {
            models: Address::repeat_byte(0x55),
            ..ours.clone()
        };
        let failed = failing(chain, &nowhere).await;
        let models = failed
            .iter()
            .find(|check| check.what.contains("code of models"));
        assert_eq!(models.expect("it is named").found, "there is no code");
        // A contract of ours in another's place.
        let swapped = Deployment {
            scoreboard: ours.token,
            ..ours
        };
        let failed = failing(chain, &swapped).await;
        let board = failed
            .iter()
            .find(|check| check.what.contains("code of scoreboard"));
        assert!(board.expect("it is named").found.starts_with("other code"));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_patched_byte_is_found_in_every_contract() {
    let Some(net) = Net::anvil().await else {
        return;
    };
    let scene = Scene::new(net).await;
    let chain = scene.market.chain();
    let d = scene.market.deployment();
    for (name, address) in [
        ("channels", d.channels),
        ("collector", d.collector),
        ("registry", d.registry),
        ("payout vault", d.vault_implementation),
        ("dispute game", d.dispute_game),
        ("referee", d.referee),
        ("models", d.models),
        ("scoreboard", d.scoreboard),
    ] {
        let provider = chain.provider();
        let whole = provider.get_code_at(address).await.unwrap();
        // The last byte: the functions before it still answer.
        let mut patched = whole.to_vec();
        *patched.last_mut().expect("there is code") ^= 1;
        for (code, is_ours) in [(Bytes::from(patched), false), (whole, true)] {
            let _: Option<bool> = provider
                .raw_request("anvil_setCode".into(), json!([address, code]))
                .await
                .unwrap();
            let failed = failing(chain, d).await;
            match is_ours {
                true => assert!(failed.is_empty(), "{failed:#?}"),
                false => assert_eq!(
                    names(&failed),
                    [format!("the code of {name} is this program's")]
                ),
            }
        }
    }
}

#[tokio::test]
async fn a_deployment_remembers_its_block_or_says_that_it_does_not_know() {
    let scene = Scene::new(Net::embedded().await).await;
    let ours = scene.market.deployment();
    assert!(ours.deployed_block.is_some_and(|block| block > 0));
    let chain = scene.market.chain();
    let read = chain
        .read_deployment(ours.registry, ours.collector, ours.scoreboard)
        .await
        .unwrap();
    assert_eq!(
        read.deployed_block, None,
        "this chain keeps no states of old"
    );
    assert_eq!(
        Deployment {
            deployed_block: ours.deployed_block,
            ..read
        },
        *ours
    );
    let mut old = serde_json::to_value(ours).unwrap();
    old["deployed_block"] = 0.into();
    for field in ["scoreboard", "reputation_adapter", "confirmations"] {
        old.as_object_mut().unwrap().remove(field);
    }
    let old: Deployment =
        serde_json::from_value(old).expect("files of an earlier version are read");
    assert_eq!((old.deployed_block, old.scoreboard), (None, Address::ZERO));

    let Some(net) = Net::anvil().await else {
        return;
    };
    let scene = Scene::new(net).await;
    let ours = scene.market.deployment();
    let chain = scene.market.chain();
    let read = chain
        .read_deployment(ours.registry, ours.collector, ours.scoreboard)
        .await
        .unwrap();
    assert_eq!(read, *ours);
}
