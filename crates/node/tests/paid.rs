//! What a buyer gets for its money: answers with receipts that hold, corrections that it can check, and a provider that
//! is really paid.

mod common;

use assay_node::Earnings;
use assay_payments::payer::LaneState;
use assay_payments::x402::{
    self, Decimal, Deposit, DepositAuthorization, DepositPayload, Erc3009Authorization,
    PAYMENT_RESPONSE, Payload, PaymentResponse,
};
use assay_protocol::{MicroUsd, Offer, Signed, StopReason};
use common::{Buyer, World, chat, completion, read, required, tokens};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_answer_is_paid_and_its_receipt_holds() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let (paid, response) = buyer.buy(COMPLETION, &completion(8)).await;
    let header: PaymentResponse =
        x402::decode(response.headers()[PAYMENT_RESPONSE].as_bytes()).unwrap();
    let told = read(response).await;
    buyer.settle(&world, &paid, &told);
    let receipt = told.receipt();
    let extra = header.extra.unwrap();
    assert_eq!(extra.charged_amount.unwrap().0, receipt.body.charged);
    assert_eq!(
        extra
            .channel_state
            .unwrap()
            .charged_cumulative_amount
            .unwrap()
            .0,
        receipt.body.cumulative
    );
    assert_eq!((told.ids.len(), told.stop()), (8, StopReason::MaxTokens));
    assert_eq!(told.finish_reason.as_deref(), Some("length"));
    assert_eq!(told.usage.as_ref().unwrap()["completion_tokens"], 8);
    let prompt: Vec<_> = std::iter::once(256)
        .chain(tokens("Once upon a time"))
        .collect();
    let prompt = if receipt.body.statement.n_prompt.0 == 16 {
        prompt[1..].to_vec()
    } else {
        prompt
    };
    assert!(
        world.honest(&prompt, &receipt, &told),
        "the engine says the same again"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_chat_says_what_the_plain_one_says() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let plain = buyer.ask(&world, CHAT, &chat(false)).await;
    let mut body = chat(true);
    body["stream_options"] = json!({ "include_usage": true });
    let streamed = buyer.ask(&world, CHAT, &body).await;
    assert_eq!((&plain.text, &plain.ids), (&streamed.text, &streamed.ids));
    assert!(streamed.done && streamed.chunks > 2, "{streamed:?}");
    assert_eq!(streamed.usage, plain.usage);
    assert_eq!(
        streamed.receipt().body.statement,
        plain.receipt().body.statement
    );
    assert_ne!(
        streamed.receipt().body.request_id,
        plain.receipt().body.request_id
    );
    let payment: PaymentResponse =
        serde_json::from_value(streamed.assay.payment.clone().unwrap()).unwrap();
    assert_eq!(
        payment.extra.unwrap().charged_amount.unwrap().0,
        streamed.receipt().body.charged
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_ids_and_an_exact_sampler_are_taken_as_they_are() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let mut sampler = assay_protocol::SamplerParams::greedy(5);
    sampler.temperature = assay_protocol::Temperature::Beta(300);
    sampler.seed = assay_protocol::B256::repeat_byte(9);
    let body = json!({ "model": common::MODEL, "prompt": [1, 2, 3], "stream": true, "assay": { "sampler": sampler } });
    let told = buyer.ask(&world, COMPLETION, &body).await;
    let statement = told.receipt().body.statement;
    assert_eq!(
        statement.prompt_root,
        assay_protocol::merkle::tokens_root(&[1, 2, 3])
    );
    assert_eq!(statement.sampler_hash, sampler.hash());
    assert!(world.honest(&[1, 2, 3], &told.receipt(), &told));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_request_learns_the_price_and_gets_nothing() {
    let world = World::new().await;
    let node = world.start().await;
    let buyer = Buyer::poor(&world, &node).await;
    let response = buyer.post(COMPLETION, &completion(8), None).await;
    assert_eq!(response.status(), 402);
    let required = required(&response);
    assert_eq!(required.error, None);
    assert_eq!(required.resource.url, format!("{}{COMPLETION}", buyer.url));
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "payment_required");
    // 16 bytes of prompt, perhaps a begin token, and 8 tokens of output.
    let amount = required.accepts[0].amount.0.0;
    assert!(
        [16 * 2 + 8 * 5, 17 * 2 + 8 * 5].contains(&amount),
        "{amount}"
    );
    assert_eq!(
        required.accepts[0],
        buyer.terms.requirements(MicroUsd(amount))
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_voucher_gets_a_correction_that_the_payer_can_prove() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    // The answer arrives, but the payer dies before it enters the charge.
    let (lost, response) = buyer.buy(COMPLETION, &completion(4)).await;
    let charged = read(response).await.receipt().body.charged;
    buyer
        .ledger
        .lose(lost.channel_id(), lost.request_id)
        .unwrap();

    let (stale, response) = buyer.buy(COMPLETION, &completion(4)).await;
    assert_eq!(response.status(), 402);
    let corrective = required(&response);
    assert_eq!(
        corrective.error.as_deref(),
        Some("invalid_batch_settlement_evm_cumulative_amount_mismatch")
    );
    assert!(
        buyer
            .ledger
            .correct(stale.channel_id(), &corrective)
            .unwrap()
    );
    let lane = buyer.ledger.lane(lost.channel_id()).unwrap();
    assert_eq!((lane.charged, lane.state), (charged, LaneState::Idle));
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_payment_buys_nothing() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 1).await;
    let requirements = buyer.quote(COMPLETION, &completion(4)).await;
    let paid = buyer.sign(&requirements);
    let payment = paid.payload(requirements);
    let mut body = completion(4);
    body["assay"]["request_id"] = json!(paid.request_id);
    let first = buyer.post(COMPLETION, &body, Some(&payment)).await;
    assert_eq!(first.status(), 200);
    read(first).await;
    let replay = buyer.post(COMPLETION, &completion(4), Some(&payment)).await;
    assert_eq!(replay.status(), 402);
    // With the same request id it is told where its receipt is, if the voucher were good.
    let requirements = buyer.quote(COMPLETION, &completion(4)).await;
    buyer
        .ledger
        .lose(paid.channel_id(), paid.request_id)
        .unwrap();
    let stale = buyer.sign(&requirements);
    let response = buyer
        .post(COMPLETION, &body, Some(&stale.payload(requirements)))
        .await;
    assert_eq!(response.status(), 409);
    let receipt = buyer
        .get(&format!("/assay/v1/receipts/{}", paid.request_id))
        .await;
    assert_eq!(receipt.status(), 200);
    assert_eq!(node.earnings().await.unwrap().requests, 1);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_opens_the_channel_and_pays_in_one_request() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::poor(&world, &node).await;
    let (config, amount) = (buyer.channel(0), MicroUsd(1_000_000));
    let authorization = world
        .market
        .authorize_deposit(&buyer.key, &config, amount)
        .await
        .unwrap();
    buyer.ledger.add(config, amount, MicroUsd(0)).unwrap();
    let requirements = buyer.quote(COMPLETION, &completion(4)).await;
    let paid = buyer.sign(&requirements);
    let mut payment = paid.payload(requirements);
    let deposit = Deposit {
        amount: x402::Amount(amount),
        authorization: DepositAuthorization::Erc3009Authorization(Erc3009Authorization {
            valid_after: Decimal(authorization.valid_after.0),
            valid_before: Decimal(authorization.valid_before.0),
            salt: authorization.salt.into(),
            signature: authorization.signature,
        }),
    };
    let (channel_config, voucher) = payment.payload.voucher();
    payment.payload = Payload::Deposit(DepositPayload {
        channel_config: *channel_config,
        voucher: *voucher,
        deposit,
    });
    let mut body = completion(4);
    body["assay"]["request_id"] = json!(paid.request_id);

    // Somebody else's authorization opens nothing.
    let mut forged = payment.clone();
    if let Payload::Deposit(body) = &mut forged.payload {
        body.deposit.amount = x402::Amount(MicroUsd(2_000_000));
    }
    let refused = buyer.post(COMPLETION, &body, Some(&forged)).await;
    assert_eq!(refused.status(), 402);
    assert_eq!(
        world
            .market
            .channel(paid.channel_id())
            .await
            .unwrap()
            .balance,
        MicroUsd(0)
    );

    let response = buyer.post(COMPLETION, &body, Some(&payment)).await;
    assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    let header: PaymentResponse =
        x402::decode(response.headers()[PAYMENT_RESPONSE].as_bytes()).unwrap();
    assert!(header.transaction.starts_with("0x"), "{header:?}");
    buyer.settle(&world, &paid, &read(response).await);
    assert_eq!(
        world
            .market
            .channel(paid.channel_id())
            .await
            .unwrap()
            .balance,
        amount
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_charged_arrives_in_the_vault() {
    let world = World::new().await;
    let node = world.start().await;
    let mut buyer = Buyer::new(&world, &node, 2).await;
    buyer.ask(&world, COMPLETION, &completion(4)).await;
    let second = buyer.ask(&world, COMPLETION, &completion(9)).await;
    let charged = buyer.ledger.totals().0;
    let earnings: Earnings = buyer.get("/assay/v1/earnings").await.json().await.unwrap();
    assert_eq!(
        (earnings.charged, earnings.unclaimed, earnings.requests),
        (charged, charged, 2)
    );
    assert_eq!(node.claim_now().await, Ok(charged));
    let earnings = node.earnings().await.unwrap();
    assert_eq!(
        (earnings.unclaimed, earnings.unsettled, earnings.waiting),
        (MicroUsd(0), MicroUsd(0), charged)
    );
    assert_eq!(
        node.claim_now().await,
        Ok(MicroUsd(0)),
        "a second claim pays nothing"
    );
    // The next request goes on from the claimed total, and a shutdown claims it.
    let third = buyer.ask(&world, COMPLETION, &completion(2)).await;
    assert!(third.receipt().body.cumulative > second.receipt().body.charged);
    let report = node.shutdown().await;
    assert_eq!(
        (report.drained, report.claimed, report.claim_error),
        (true, third.receipt().body.charged, None)
    );
    let pending = world
        .market
        .pending_payout(world.owner.address())
        .await
        .unwrap();
    assert_eq!(pending.waiting, buyer.ledger.totals().0);
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_are_signed_and_say_what_is_charged() {
    let world = World::new().await;
    let node = world.start().await;
    let buyer = Buyer::poor(&world, &node).await;
    let offers: Vec<Signed<Offer>> = buyer.get("/assay/v1/offers").await.json().await.unwrap();
    assert_eq!(offers.len(), 1);
    let offer = offers[0]
        .check(&world.market.domain(), world.hot.address())
        .unwrap();
    assert_eq!(
        (offer.provider, offer.model_id),
        (world.owner.address(), world.loaded.model.id())
    );
    assert_eq!(offer.price, common::price());
    let models: Value = buyer.get("/v1/models").await.json().await.unwrap();
    assert_eq!(
        (&models["object"], &models["data"][0]["id"]),
        (&json!("list"), &json!(common::MODEL))
    );
    assert_eq!(buyer.get("/healthz").await.status(), 200);
    node.shutdown().await;
}
