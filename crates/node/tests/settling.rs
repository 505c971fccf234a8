//! Money and reputation on their way: claims, records, refunds and deposits against an embedded chain, with everybody
//! who would have more than is theirs.

mod common;
#[path = "settling/on_anvil.rs"]
mod on_anvil;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use assay_chain::{Chain, ServiceEntry, ServicePost};
use assay_node::RecordsAnswer;
use assay_payments::PayeeLedger;
use assay_payments::payee_chain::PendingDeposit;
use assay_payments::x402::{self, PAYMENT_RESPONSE, Payload, PaymentResponse};
use assay_protocol::{
    Address, Answered, B256, DurationMs, MicroUsd, Receipt, Service, ServiceRecord, Signature,
    Signed, Timestamp,
};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response as AxumResponse};
use common::{Buyer, World, completion, read, required};
use serde_json::{Value, json};

const COMPLETION: &str = "/v1/completions";

/// What a payer counts of this answer.
fn answered(receipt: &Receipt) -> Answered {
    Answered {
        charged: receipt.charged,
        prompt_tokens: receipt.statement.n_prompt.0,
        output_tokens: receipt.statement.n_output.0,
        ttft: receipt.ttft,
        rest: DurationMs(receipt.duration.0 - receipt.ttft.0),
    }
}

impl Buyer {
    /// Buys one answer; returns its channel, and the service with it counted.
    async fn count(&mut self, world: &World, service: Service) -> (B256, Service) {
        let answer = self.ask(world, COMPLETION, &completion(4)).await;
        let receipt = answer.receipt().body;
        let service = service.answered(&answered(&receipt)).unwrap();
        (receipt.channel_id, service)
    }

    fn record(&self, world: &World, channel_id: B256, service: Service) -> Signed<ServiceRecord> {
        let domain = world.market.deployment().scoreboard_domain();
        let body = ServiceRecord {
            channel_id,
            service,
        };
        self.key.sign(body, &domain)
    }

    async fn report(&self, records: &[Signed<ServiceRecord>]) -> RecordsAnswer {
        let body = serde_json::to_value(records).unwrap();
        let response = self.post("/assay/v1/records", &body, None).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_posted_with_the_next_claims_also_after_their_payer_spoke_alone() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let mut service = Service::default();
    let mut id = B256::ZERO;
    for _ in 0..2 {
        (id, service) = buyer.count(&world, service).await;
    }
    let first = buyer.record(&world, id, service);
    assert_eq!(buyer.report(&[first]).await.taken, [id]);
    assert_eq!(buyer.report(&[first]).await.taken, [id], "again is no harm");
    node.claim_now().await.unwrap();
    let score = world.market.score(world.owner.address()).await.unwrap();
    assert_eq!((score.requests, score.revenue), (2, service.revenue));
    let earnings = node.earnings().await.unwrap();
    assert_eq!((earnings.records, earnings.records_posted), (1, 1));

    // The payer says by itself what the provider might not sign.
    let failed = buyer.record(&world, id, service.failed().unwrap());
    let alone = ServicePost {
        provider: world.owner.address(),
        entries: vec![ServiceEntry {
            config: buyer.channel(0),
            record: failed,
            previous: first.body,
        }],
        signature: None,
    };
    world.market.post_service(&buyer.key, &alone).await.unwrap();

    // The next record stands on that one, which this node has never seen.
    let (_, service) = buyer.count(&world, failed.body.service).await;
    let next = buyer.record(&world, id, service);
    assert_eq!(buyer.report(&[next]).await.taken, [id]);
    node.claim_now().await.unwrap();
    assert_eq!(
        world.market.posted_service(id).await.unwrap(),
        next.body.struct_hash()
    );
    let score = world.market.score(world.owner.address()).await.unwrap();
    assert_eq!((score.requests, score.revenue), (3, service.revenue));
    assert_eq!(node.earnings().await.unwrap().unclaimed, MicroUsd(0));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_scoreboard_would_refuse_keeps_no_claim_back() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let (id, service) = buyer.count(&world, Service::default()).await;
    let good = buyer.record(&world, id, service);
    buyer.report(&[good]).await;
    // Its payer reports more failures alone than it ever told the provider.
    let mut worse = service;
    (worse.revenue, worse.requests) = (MicroUsd(0), 0);
    (worse.prompt_tokens, worse.output_tokens) = (0, 0);
    (worse.ttft, worse.speed) = Default::default();
    worse.failures = 9;
    let alone = ServicePost {
        provider: world.owner.address(),
        entries: vec![ServiceEntry {
            config: buyer.channel(0),
            record: buyer.record(&world, id, worse),
            previous: ServiceRecord {
                channel_id: B256::ZERO,
                service: Service::default(),
            },
        }],
        signature: None,
    };
    world.market.post_service(&buyer.key, &alone).await.unwrap();
    node.claim_now().await.unwrap();
    let earnings = node.earnings().await.unwrap();
    assert_eq!(
        (earnings.unclaimed, earnings.records_posted),
        (MicroUsd(0), 0)
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_shrunk_and_swollen_records_are_refused_one_by_one() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let (id, service) = buyer.count(&world, Service::default()).await;
    let thief = Buyer::poor(&world, &node).await;
    let mut swollen = service;
    swollen.output_tokens = u64::MAX;
    let records = [
        thief.record(&world, id, service),
        buyer.record(&world, B256::repeat_byte(7), service),
        buyer.record(&world, id, swollen),
        buyer.record(&world, id, service),
        buyer.record(&world, id, Service::default()),
    ];
    let answer = buyer.report(&records).await;
    assert_eq!(answer.taken, [id]);
    let reasons: Vec<&str> = answer.refused.iter().map(|no| no.reason.as_str()).collect();
    for (reason, words) in
        reasons
            .iter()
            .zip(["voucher signer", "not known", "output tokens", "forgets"])
    {
        assert!(reason.contains(words), "{reason}");
    }
    for (body, status) in [
        (json!({}), 400),
        (json!([{ "body": 1 }]), 400),
        (json!(vec![records[3]; 65]), 400),
        (json!("x".repeat(70_000)), 413),
    ] {
        let response = buyer.post("/assay/v1/records", &body, None).await;
        assert_eq!(response.status(), status);
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_channel_comes_back_over_http_once() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let (paid, response) = buyer.buy(COMPLETION, &completion(4)).await;
    let told = read(response).await;
    buyer.settle(&world, &paid, &told);
    let charged = told.receipt().body.charged;
    let before = world.market.balance(buyer.key.address()).await.unwrap();

    let bare = buyer.get(COMPLETION).await;
    assert_eq!(bare.status(), 402, "the client asks what is wanted");
    assert_eq!(required(&bare).accepts.len(), 1);
    let error = |response: &reqwest::Response| required(response).error.unwrap();
    let stale = buyer.refund(&paid, charged.0 - 1, None).await;
    assert_eq!(
        error(&stale),
        "invalid_batch_settlement_evm_cumulative_amount_mismatch"
    );
    let state = required(&stale).accepts[0].extra.channel_state.clone();
    assert_eq!(
        state.unwrap().charged_cumulative_amount,
        Some(x402::Amount(charged))
    );
    let greedy = buyer.refund(&paid, charged.0, Some(10_000_001)).await;
    assert_eq!(
        error(&greedy),
        "invalid_batch_settlement_evm_refund_amount_invalid"
    );

    let part = buyer.refund(&paid, charged.0, Some(1_000_000)).await;
    assert_eq!(part.status(), 200);
    let all = buyer.refund(&paid, charged.0, None).await;
    assert_eq!(all.status(), 200);
    let first: PaymentResponse = x402::decode(all.headers()[PAYMENT_RESPONSE].as_bytes()).unwrap();
    assert!(first.success && first.transaction.starts_with("0x"));
    let again = buyer.refund(&paid, charged.0, None).await;
    assert_eq!(again.status(), 200, "who did not hear of it is told again");
    let second: PaymentResponse =
        x402::decode(again.headers()[PAYMENT_RESPONSE].as_bytes()).unwrap();
    assert_eq!(first, second);

    let state = world.market.channel(paid.channel_id()).await.unwrap();
    assert_eq!((state.balance, state.total_claimed), (charged, charged));
    let after = world.market.balance(buyer.key.address()).await.unwrap();
    assert_eq!(after.0 - before.0, 10_000_000 - charged.0);
    assert_eq!(node.earnings().await.unwrap().unclaimed, MicroUsd(0));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_at_work_is_not_refunded_and_a_payer_who_leaves_is_claimed_from_at_once() {
    let world = World::slow().await;
    let mut config = world.config();
    config.claims.interval = Duration::from_millis(50);
    // Neither value nor age: only the leaving is a reason.
    config.claims.policy.value = MicroUsd(u64::MAX);
    let node = assay_node::start(config).await.unwrap();
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let first = buyer
        .ask(&world, COMPLETION, &completion(4))
        .await
        .receipt();
    let id = first.body.channel_id;
    let long = json!({ "model": common::MODEL, "prompt": "Once", "max_tokens": 1_500, "stream": true, "temperature": 0 });
    let (paid, running) = buyer.buy(COMPLETION, &long).await;
    assert_eq!(running.status(), 200);
    let busy = buyer.refund(&paid, first.body.cumulative.0, None).await;
    assert_eq!(
        required(&busy).error.as_deref(),
        Some("invalid_batch_settlement_evm_channel_busy")
    );
    let channel = buyer.channel(0);
    world
        .market
        .initiate_withdraw(&buyer.key, &channel, MicroUsd(9_000_000))
        .await
        .unwrap();
    // Claimed while the request still runs.
    let mut claimed = MicroUsd(0);
    for _ in 0..400 {
        claimed = world.market.channel(id).await.unwrap().total_claimed;
        if claimed == first.body.cumulative {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(claimed, first.body.cumulative);
    drop(running);
    buyer.ledger.lose(id, paid.request_id).unwrap();
    // Whatever it promises from here on, it is served no more.
    for _ in 0..500 {
        let (next, response) = buyer.buy(COMPLETION, &completion(4)).await;
        assert_eq!(response.status(), 402);
        let error = required(&response).error.unwrap();
        buyer.ledger.lose(id, next.request_id).unwrap();
        if error.ends_with("channel_not_found") {
            node.shutdown().await;
            return;
        }
        assert!(error.ends_with("channel_busy"), "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the channel stays busy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_that_went_through_unheard_is_neither_lost_nor_doubled() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::poor(&world, &node).await;
    let amount = MicroUsd(1_000_000);
    let (paid, payment, body) = buyer.with_deposit(&world, 0, amount).await;
    let Payload::Deposit(sent) = &payment.payload else {
        panic!("it brings a deposit");
    };
    let x402::DepositAuthorization::Erc3009Authorization(inner) = &sent.deposit.authorization
    else {
        panic!("it is EIP-3009");
    };
    let authorization = assay_protocol::channel::DepositAuthorization {
        valid_after: Timestamp(inner.valid_after.0),
        valid_before: Timestamp(inner.valid_before.0),
        salt: inner.salt.into(),
        signature: inner.signature,
    };
    // The node sent it and died before it heard of it.
    world
        .market
        .deposit(&world.hot, &paid.config, amount, &authorization)
        .await
        .unwrap();
    let response = buyer.post(COMPLETION, &body, Some(&payment)).await;
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    buyer.settle(&world, &paid, &read(response).await);
    let state = world.market.channel(paid.channel_id()).await.unwrap();
    assert_eq!(state.balance, amount, "once");
    node.shutdown().await;

    // It wrote the authorization down and died before it sent it.
    let config = buyer.channel(1);
    let authorization = world
        .market
        .authorize_deposit(&buyer.key, &config, amount)
        .await
        .unwrap();
    let channel_id = world.market.channel_id(&config).unwrap();
    let path = assay_node::ledger_path(&world.config().data_dir);
    PayeeLedger::open(&path, buyer.terms.clone())
        .unwrap()
        .entrust(PendingDeposit {
            config,
            channel_id,
            amount,
            authorization,
            taken_at: Timestamp(1),
        })
        .unwrap();
    let node = world.start().await;
    let state = world.market.channel(channel_id).await.unwrap();
    assert_eq!(state.balance, amount, "sent at the start");
    assert_eq!(node.earnings().await.unwrap().deposits_settling, 0);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dust_deposit_and_a_voucher_from_elsewhere_buy_nothing() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::poor(&world, &node).await;
    let (paid, payment, body) = buyer.with_deposit(&world, 0, MicroUsd(99_999)).await;
    let response = buyer.post(COMPLETION, &body, Some(&payment)).await;
    assert_eq!(
        required(&response).error.as_deref(),
        Some("invalid_batch_settlement_evm_deposit_below_min_deposit")
    );
    let state = world.market.channel(paid.channel_id()).await.unwrap();
    assert_eq!(state.balance, MicroUsd(0));

    let mut buyer = Buyer::new(&world, &node, 1).await;
    let requirements = buyer.quote(COMPLETION, &completion(4)).await;
    let paid = buyer.sign(&requirements);
    let voucher = paid.voucher.voucher;
    let own = buyer.terms.channels;
    let mut vouchers = Vec::new();
    for (chain_id, contract) in [(1, own.contract), (own.chain_id, Address::repeat_byte(9))] {
        let elsewhere = assay_protocol::channel::ChannelDomain { chain_id, contract };
        vouchers.push(buyer.key.sign_voucher(voucher, &elsewhere));
    }
    // The same signature in its other form: s mirrored, v flipped.
    let mut twin = paid.voucher;
    twin.signature = malleable(twin.signature);
    vouchers.push(twin);
    for voucher in vouchers {
        let mut payment = paid.payload(requirements.clone());
        if let Payload::Voucher(body) = &mut payment.payload {
            body.voucher = voucher.into();
        }
        let response = buyer.post(COMPLETION, &completion(4), Some(&payment)).await;
        assert_eq!(
            required(&response).error.as_deref(),
            Some("invalid_batch_settlement_evm_voucher_signature")
        );
    }
    assert_eq!(node.earnings().await.unwrap().charged, MicroUsd(0));
    node.shutdown().await;
}

/// n − s and the other v: as valid to a careless verifier as the original.
fn malleable(signature: Signature) -> Signature {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xfe, 0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36,
        0x41, 0x41,
    ];
    let mut bytes = signature.0.0;
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(bytes[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        bytes[32 + at] = u8::try_from(digit + 256 * borrow).unwrap();
    }
    bytes[64] = 55 - bytes[64];
    Signature(bytes.into())
}

/// A chain's door that can be shut.
async fn door(State(open): State<Arc<AtomicBool>>, request: Request, next: Next) -> AxumResponse {
    if open.load(Ordering::SeqCst) {
        next.run(request).await
    } else {
        StatusCode::BAD_GATEWAY.into_response()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn known_channels_are_served_while_the_chain_is_away_and_deposits_wait() {
    let mut world = World::new().await;
    let open = Arc::new(AtomicBool::new(true));
    let router = world.market.chain().as_embedded().unwrap().router();
    let router = router.layer(middleware::from_fn_with_state(Arc::clone(&open), door));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let direct = world.market.clone();
    let deployment = direct.deployment().clone();
    world.market = Chain::connect(&url)
        .await
        .unwrap()
        .market(deployment)
        .await
        .unwrap();
    let mut config = world.config();
    config.limits.channel_ttl = Duration::from_secs(1);
    config.claims.interval = Duration::from_secs(600);
    let node = assay_node::start(config).await.unwrap();
    world.market = direct;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    let mut stranger = Buyer::poor(&world, &node).await;
    let (paid, payment, body) = stranger.with_deposit(&world, 0, MicroUsd(1_000_000)).await;

    open.store(false, Ordering::SeqCst);
    // The chain's word has to grow old.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    let response = stranger.post(COMPLETION, &body, Some(&payment)).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let error: Value = response.json().await.unwrap();
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("nothing was charged")
    );

    open.store(true, Ordering::SeqCst);
    let response = stranger.post(COMPLETION, &body, Some(&payment)).await;
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    stranger.settle(&world, &paid, &read(response).await);
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    assert!(node.shutdown().await.claim_error.is_none());
    server.abort();
}
