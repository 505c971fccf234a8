//! A chain that changes its mind: transactions that a reorganization or a full pool drops, that wait too
//! long, or whose nonces it takes back; and reads of states that it may still take back. Anvil can do all
//! of that; the embedded chain cannot.

use std::future::Future;
use std::time::{Duration, Instant};

use alloy::providers::Provider;
use assay_chain::{Chain, ChainError, ChannelState, Market, Patience};
use assay_protocol::{B256, MicroUsd};
use serde_json::{Value, json};

use crate::support::{Net, Scene};

fn patience() -> Patience {
    Patience {
        mined: Duration::from_secs(30),
        look_every: Duration::from_millis(50),
        replace_after: Duration::from_millis(200),
        ..Patience::default()
    }
}

struct Unsteady {
    scene: Scene,
    /// The market through a handle that looks after its transactions at short intervals.
    market: Market,
}

impl Unsteady {
    async fn new() -> Option<Unsteady> {
        let net = Net::anvil().await?;
        let scene = Scene::new(net).await;
        let chain = scene
            .net
            .with_patience(patience())
            .await
            .expect("anvil has a url");
        let market = chain
            .market(scene.market.deployment().clone())
            .await
            .unwrap();
        Some(Unsteady { scene, market })
    }

    fn chain(&self) -> &Chain {
        self.market.chain()
    }

    async fn tell(&self, method: &'static str, params: Value) -> Value {
        let asked = self.chain().provider().raw_request(method.into(), params);
        asked.await.unwrap_or_else(|e| panic!("{method}: {e}"))
    }

    async fn mine(&self) {
        self.tell("evm_mine", json!([])).await;
    }

    async fn waiting(&self) -> u64 {
        let status = self.tell("txpool_status", json!([])).await;
        let count = |what: &str| {
            let word = status[what].as_str().expect("a count");
            u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("in hex")
        };
        count("pending") + count("queued")
    }

    async fn has(&self, hash: B256) -> bool {
        let found = self.chain().provider().get_transaction_receipt(hash).await;
        found.expect("anvil answers").is_some()
    }

    /// A dollar's millionth to the relay, minted by it.
    fn mint(
        &self,
    ) -> impl Future<Output = Result<assay_chain::Mined, ChainError>> + Send + 'static {
        let (market, key) = (self.market.clone(), self.scene.relay.clone());
        async move { market.mint(&key, key.address(), MicroUsd(1)).await }
    }

    async fn minted(&self) -> u64 {
        let account = self.scene.relay.address();
        self.market.balance(account).await.unwrap().0
    }
}

/// Asks until it is so.
async fn until<F: Future<Output = bool>>(what: &str, mut is: impl FnMut() -> F) {
    let start = Instant::now();
    while !is().await {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_the_pool_drops_is_sent_again_and_happens_once() {
    let Some(net) = Unsteady::new().await else {
        return;
    };
    net.tell("evm_setAutomine", json!([false])).await;
    let minting = tokio::spawn(net.mint());
    until("it waits", async || net.waiting().await == 1).await;
    net.tell("anvil_dropAllTransactions", json!([])).await;
    until("it waits again", async || net.waiting().await == 1).await;
    net.mine().await;
    minting.await.unwrap().unwrap();
    assert_eq!(net.minted().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_a_reorganization_took_back_is_mined_again_as_the_same() {
    let Some(net) = Unsteady::new().await else {
        return;
    };
    let account = net.scene.relay.address();
    for method in ["anvil_rollback", "anvil_reorg", "evm_revert"] {
        let before = net.minted().await;
        let snapshot = net.tell("evm_snapshot", json!([])).await;
        let first = net.mint().await.unwrap();
        let second = net.mint().await.unwrap();
        match method {
            "anvil_rollback" => net.tell(method, json!([2])).await,
            "anvil_reorg" => net.tell(method, json!([2, []])).await,
            _ => net.tell(method, json!([snapshot])).await,
        };
        if net.has(first.hash).await {
            // This anvil puts what it took back into the pool by itself.
            continue;
        }
        assert_eq!(net.minted().await, before, "{method}");
        let again = net.chain().resend_dropped(account).await.unwrap();
        assert_eq!(again, [first.hash, second.hash], "{method}");
        until("both are back", async || net.has(second.hash).await).await;
        assert_eq!(net.minted().await, before + 2, "{method}");
        assert!(
            net.chain()
                .resend_dropped(account)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonce_that_a_reorganization_emptied_is_filled_for_the_next_transaction() {
    let Some(net) = Unsteady::new().await else {
        return;
    };
    let lost = net.mint().await.unwrap();
    net.tell("anvil_rollback", json!([1])).await;
    assert_eq!(net.minted().await, 0);
    // Its nonce is one too high for the chain, until the lost one is there again.
    net.mint().await.unwrap();
    assert!(net.has(lost.hash).await);
    assert_eq!(net.minted().await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_pays_too_little_is_replaced_and_happens_once() {
    let Some(net) = Unsteady::new().await else {
        return;
    };
    net.tell("evm_setAutomine", json!([false])).await;
    let minting = tokio::spawn(net.mint());
    until("it waits", async || net.waiting().await == 1).await;
    // A hundred times the base fee that it was made for.
    net.tell("anvil_setNextBlockBaseFeePerGas", json!(["0x174876e800"]))
        .await;
    net.mine().await;
    assert_eq!(net.minted().await, 0, "it does not pay enough");
    until("a version that pays more is mined", async || {
        net.mine().await;
        net.minted().await == 1
    })
    .await;
    minting.await.unwrap().unwrap();
    for _ in 0..3 {
        net.mine().await;
    }
    assert_eq!((net.minted().await, net.waiting().await), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nonce_that_another_process_took_is_told_and_not_waited_for() {
    let Some(net) = Unsteady::new().await else {
        return;
    };
    net.tell("evm_setAutomine", json!([false])).await;
    let minting = tokio::spawn(net.mint());
    until("it waits", async || net.waiting().await == 1).await;
    net.tell("anvil_dropAllTransactions", json!([])).await;
    // The same key elsewhere uses the nonce for something else, at once.
    let other = net.scene.market.chain().clone();
    let elsewhere = other
        .market(net.scene.market.deployment().clone())
        .await
        .unwrap();
    let key = net.scene.relay.clone();
    net.tell("evm_setAutomine", json!([true])).await;
    let took = elsewhere
        .mint(&key, net.scene.payer.address(), MicroUsd(5))
        .await;
    let first = minting.await.unwrap();
    // Whoever came first has the nonce; the other one is told, or took the next.
    match (took, first) {
        (Ok(_), Err(ChainError::Overtaken { .. })) => assert_eq!(net.minted().await, 0),
        (Ok(_), Ok(_)) => assert_eq!(net.minted().await, 1),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_is_believed_only_as_deep_as_it_lies() {
    let Some(net) = Unsteady::new().await else {
        return;
    };
    let (scene, market) = (&net.scene, &net.market);
    let config = scene.config(1).await;
    let id = market.channel_id(&config).unwrap();
    market
        .open_channel(&scene.payer, &config, MicroUsd(1_000))
        .await
        .unwrap();
    let opened = ChannelState {
        balance: MicroUsd(1_000),
        ..ChannelState::default()
    };
    assert_eq!(market.channel_at(id, 0).await.unwrap(), opened);
    assert_eq!(
        market.channel_at(id, 1).await.unwrap(),
        ChannelState::default()
    );
    net.mine().await;
    net.mine().await;
    assert_eq!(market.channel_at(id, 2).await.unwrap(), opened);
    assert_eq!(
        market.channel_at(id, 3).await.unwrap(),
        ChannelState::default()
    );
    // Before the contract was there, and before the chain was.
    let head = market.chain().block_number().await.unwrap();
    for depth in [head, head + 1, u64::MAX] {
        assert_eq!(
            market.channel_at(id, depth).await.unwrap(),
            ChannelState::default()
        );
    }
    net.tell("anvil_rollback", json!([3])).await;
    assert_eq!(
        market.channel_at(id, 0).await.unwrap(),
        ChannelState::default()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_keeps_no_history_says_so() {
    let scene = Scene::new(Net::served().await).await;
    let id = scene.market.channel_id(&scene.config(1).await).unwrap();
    let error = scene.market.channel_at(id, 1).await.unwrap_err();
    assert!(matches!(error, ChainError::NoHistory { .. }), "{error}");
    assert!(
        error.to_string().contains("ask one that keeps its history"),
        "{error}"
    );
}
