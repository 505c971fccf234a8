//! What each move costs, printed as a table, with budgets that a change may not break silently:
//! `cargo test --release -p assay-chain --test chain gas -- --nocapture`.

use crate::dispute::Doubt;
use crate::made::{GEMMA, Made, SMOL, manifest};
use crate::support::{Net, Scene};
use alloy::network::TransactionBuilder;
use alloy::providers::Provider;
use alloy::rpc::types::TransactionRequest;
use alloy_sol_types::SolCall;
use assay_chain::abi::IReferee;
use assay_chain::{Claim, encode_fact};
use assay_dispute::{Below, Fact, FactKind, Move, Stage};
use assay_protocol::channel::Voucher;
use assay_protocol::manifest::{Architecture, Dims};
use assay_protocol::trace::Op;
use assay_protocol::{Address, B256, MicroUsd, SamplerParams, StopReason, Temperature};

impl Scene {
    async fn claim_of(&self, salt: u8, total: u64) -> Claim {
        let config = self.config(salt).await;
        let voucher = Voucher {
            channel_id: self.market.channel_id(&config).unwrap(),
            max_claimable: MicroUsd(total),
        };
        let domain = self.market.channel_domain();
        Claim {
            config,
            voucher: self.payer.sign_voucher(voucher, &domain),
            total_claimed: MicroUsd(total),
        }
    }
}

/// What every row of the table may cost at most: a twentieth above what was measured.
const BUDGETS: [(&str, u64); 23] = [
    ("register, with a vault and a stake", 402_000),
    ("add stake", 91_000),
    ("unbond", 63_000),
    ("withdraw stake", 52_000),
    ("change the endpoint", 34_000),
    ("open a channel by a deposit", 123_000),
    ("top a channel up", 101_000),
    ("claim a channel for the first time", 83_000),
    ("claim 1 channel", 65_000),
    ("claim 10 channels", 273_000),
    ("claim 100 channels", 2_377_000),
    ("post the first record of a provider", 245_000),
    ("post a record", 138_000),
    ("post 100 records", 6_330_000),
    ("claim 1 channel and post its record", 184_000),
    ("settle to a receiver", 67_000),
    ("collect into the vault", 115_000),
    ("release to the provider", 60_000),
    ("refund to the payer", 71_000),
    ("ask for a withdrawal", 56_000),
    ("withdraw", 54_000),
    ("publish a manifest of one layer", 267_000),
    ("open a dispute", 157_000),
];

#[tokio::test]
async fn every_move_stays_within_its_gas() {
    let table = assay_chain::gas::table().await.unwrap();
    println!("{:<40} {:>12} {:>12}", "move", "gas", "budget");
    let mut dear = Vec::new();
    for row in &table.rows {
        let budget = BUDGETS.iter().find(|(name, _)| *name == row.operation);
        let budget = budget.map_or(0, |(_, budget)| *budget);
        println!("{:<40} {:>12} {budget:>12}", row.operation, row.gas);
        if row.gas > budget {
            dear.push(row.operation);
        }
    }
    println!(
        "\n{:<40} {:>12} {:>12}",
        "requests a claim", "claim", "with record"
    );
    for row in &table.per_request {
        let (claim, both) = (row.claim, row.claim_and_record);
        println!("{:<40} {claim:>12} {both:>12}", row.requests);
    }
    assert!(dear.is_empty(), "above budget: {dear:?}");
    assert_eq!(BUDGETS.len(), table.rows.len(), "a budget for every move");
    let most = table.per_request.last().expect("it is measured");
    assert_eq!(most.requests, 1_000);
    assert!(
        most.claim <= 100,
        "100 gas a request at 1,000 requests a claim"
    );
}

/// The dearest step that the referee takes, as a transaction of its own; its own table holds it to this.
const STEP_GAS: u64 = 300_000;

/// What a game about an answer of 512 + 256 tokens costs both sides together: the moves down to a
/// chunk's bytes, and the conviction. There is no model behind it to prove a step of: it is won by a
/// fact, which costs the same but for the step itself, and the dearest step is added.
async fn game_gas(architecture: Architecture, dims: Dims, op: Op, slow: bool) -> u64 {
    let scene = Scene::new(Net::embedded().await).await;
    let market = &scene.market;
    let model = manifest(architecture, dims);
    let sampler = SamplerParams {
        temperature: Temperature::Beta(1 << 16),
        top_k: 40,
        top_p_q16: 60_000,
        // One more than is given: a fact, by which the game is won below.
        ..SamplerParams::greedy(257)
    };
    market
        .publish_model(&scene.relay, &model.encode())
        .await
        .unwrap();
    // Where stakes burn, others did before; and the provider has money in its vault.
    market
        .mint(
            &scene.relay,
            Address::left_padding_from(&[0xde, 0xad]),
            MicroUsd(1),
        )
        .await
        .unwrap();
    let config = scene.config(1).await;
    market
        .open_channel(&scene.payer, &config, MicroUsd(50_000_000))
        .await
        .unwrap();
    let claim = scene.claim_of(1, 20_000_000).await;
    market
        .claim(&scene.relay, &scene.offer, &[claim])
        .await
        .unwrap();
    market
        .collect(&scene.relay, scene.owner.address())
        .await
        .unwrap();
    let tokens = |count: u32| (0..count).map(|i| i % dims.vocab).collect::<Vec<u32>>();
    let counts = (&tokens(512)[..], &tokens(256)[..]);
    let receipt = scene
        .receipt(&model, counts, &sampler, StopReason::MaxTokens)
        .await;
    let doubt = Doubt {
        model,
        sampler,
        receipt,
        challenger: scene.challenger().await,
    };
    let made = Made::new(&doubt.model, 512, 256, &doubt.sampler, Made::last_of(op));
    let mut total = 0;
    let mut spend = |what: &str, gas: u64| {
        println!("    {what:<20} {gas:>9}");
        total += gas;
    };
    let (id, opened) = market
        .open_dispute(&doubt.challenger, &doubt.receipt, &doubt.sampler)
        .await
        .unwrap();
    spend("open", opened.gas_used);
    let Below::Children(children) = made.below(&made.top()) else {
        panic!("ops are nodes");
    };
    let root = made.root();
    let post = Move::PostTrace { root, children };
    let dispute = scene.told(id).await;
    let posted = market.play(&scene.offer, &dispute, &post).await.unwrap();
    spend("post the trace", posted.gas_used);
    if slow {
        for (what, gas) in go_down(&scene, &doubt, &made, id).await {
            spend(&what, gas);
        }
    }
    let fact = Fact {
        kind: FactKind::NotAtTheLimit,
        position: 0,
        tokens: Vec::new(),
        sampler: doubt.sampler.encode(),
    };
    let won = market
        .prove_fact(&doubt.challenger, &doubt.receipt, &fact)
        .await
        .unwrap();
    let check = IReferee::factConvictsCall {
        statement: (&doubt.receipt.body.statement).into(),
        fact: encode_fact(&fact).into(),
    };
    let check = TransactionRequest::default()
        .with_to(market.deployment().referee)
        .with_input(check.abi_encode());
    let check = market.chain().provider().estimate_gas(check).await.unwrap();
    spend("convict", won.gas_used - check);
    spend("the dearest step", STEP_GAS);
    total
}

/// Requests and reveals, down to a chunk's bytes.
async fn go_down(scene: &Scene, doubt: &Doubt, made: &Made, id: B256) -> Vec<(String, u64)> {
    let market = &scene.market;
    let mut moves = Vec::new();
    loop {
        let dispute = scene.told(id).await;
        let (index, hash, siblings) = made.question(&dispute.game);
        let request = Move::Request {
            index,
            hash,
            siblings,
        };
        let asked = market.play(&doubt.challenger, &dispute, &request).await;
        moves.push(("request".to_owned(), asked.unwrap().gas_used));
        let dispute = scene.told(id).await;
        let node = dispute.game.held.unwrap().node;
        let below = made.below(&node);
        let what = match &below {
            Below::Children(nodes) => format!("reveal {} nodes", nodes.len()),
            Below::Bytes(bytes) => format!("reveal {} bytes", bytes.len()),
        };
        let reveal = Move::Reveal { below };
        let shown = market.play(&scene.offer, &dispute, &reveal).await;
        moves.push((what, shown.unwrap().gas_used));
        if node.stage == Stage::Bytes {
            return moves;
        }
    }
}

#[tokio::test]
async fn whole_games_stay_within_their_gas() {
    let (llama, gemma) = (Architecture::Llama, Architecture::Gemma3);
    let games = [
        ("SmolLM2-135M, a layer", llama, SMOL, Op::Layer(29)),
        ("SmolLM2-135M, a draw", llama, SMOL, Op::Sample),
        ("Gemma-3-270m, a layer", gemma, GEMMA, Op::Layer(17)),
        ("Gemma-3-270m, a draw", gemma, GEMMA, Op::Sample),
    ];
    for ((name, architecture, dims, op), slow) in games
        .into_iter()
        .flat_map(|game| [(game, false), (game, true)])
    {
        let (name, budget) = match slow {
            false => (format!("fast, {name}"), 720_000),
            true => (format!("slow, {name}"), 1_500_000),
        };
        println!("{name}");
        let gas = game_gas(architecture, dims, op, slow).await;
        println!("  {name:<36} {gas:>9} of {budget}");
        assert!(
            gas <= budget,
            "{name}: {gas} gas is above its budget of {budget}"
        );
    }
}
