//! Nodes that fail or lie, each behind a proxy that spoils exactly one thing: what the client sees,
//! what is paid, and what becomes of the node. Every attack on receipts has a sentence for a name.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Client, Player, World, error, never};
use assay_audit::AuditPolicy;
use assay_gateway::AuditState;
use assay_protocol::{B256, MicroUsd, Receipt, StopReason, Tier};
use assay_testkit::market::Tamper;
use serde_json::json;

/// A cheap node that misbehaves and a dear one that does not.
async fn pair(world: &World, tamper: Tamper) -> (Player, Player) {
    (
        world.tampered(100_000, tamper).await,
        world.honest(900_000).await,
    )
}

async fn impatient(world: &World) -> Client {
    world
        .gateway_with(|c| {
            c.audit = AuditPolicy::always();
            c.limits.first_token = Duration::from_millis(700);
            c.limits.next_token = Duration::from_millis(700);
        })
        .await
}

/// The bad node fails before its first token, the good one answers, and nothing is paid to the bad.
async fn retried(tamper: Tamper) {
    let name = format!("{tamper:?}");
    let world = World::new().await;
    let (bad, good) = pair(&world, tamper).await;
    let client = impatient(&world).await;
    let streamed = client.stream("hello", json!({})).await;
    assert!(streamed.done && streamed.error.is_none(), "{name}");
    assert_eq!(
        streamed.headers["x-assay-provider"],
        good.address().to_string().as_str(),
        "{name}"
    );
    let receipts = client.audits_done().await;
    assert_eq!(receipts.len(), 1, "{name}");
    let status = client.status().await;
    assert_eq!(
        status.spent, receipts[0].charged,
        "{name}: only the good node is paid"
    );
    let record = &status
        .providers
        .iter()
        .find(|p| p.address == bad.address())
        .unwrap()
        .record;
    assert_eq!((record.answers, record.spent), (0, MicroUsd(0)), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_before_its_first_token_is_replaced() {
    retried(Tamper::DiesBeforeFirstToken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_starts_is_replaced_after_the_first_token_timeout() {
    retried(Tamper::NeverStarts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_is_retried_elsewhere() {
    retried(Tamper::ServerError).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_node_is_passed_over_without_blame() {
    retried(Tamper::Busy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_body_over_http_200_is_not_paid() {
    retried(Tamper::ErrorBodyOver200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_an_end_does_not_fill_the_memory() {
    retried(Tamper::EndlessLine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gibberish_is_retried_elsewhere() {
    retried(Tamper::Gibberish).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_demands_more_than_its_offer_gets_no_voucher() {
    retried(Tamper::DearerThanOffer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_wants_to_be_paid_elsewhere_gets_no_voucher() {
    retried(Tamper::OtherPayee).await;
}

/// The bad node fails after its first token: the client is told, and no whole answer is pretended.
async fn told(tamper: Tamper, says: &str) {
    let world = World::new().await;
    let _bad = world.tampered(100_000, tamper).await;
    let client = impatient(&world).await;
    let streamed = client.stream("hello", json!({})).await;
    assert!(!streamed.ids.is_empty() && !streamed.done, "{streamed:?}");
    let error = streamed.error.expect("an error frame");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains(says) && message.contains("not a whole answer"),
        "{message}"
    );
    assert_eq!(client.status().await.totals.charged, MicroUsd(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls_in_the_middle_ends_with_an_error_frame() {
    told(Tamper::StallsAfter(3), "did not come in time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_off_ends_with_an_error_frame() {
    told(Tamper::BreaksOffAfter(3), "broke off").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_a_receipt_is_not_taken_for_success() {
    told(Tamper::NoReceiptAfter(3), "without a receipt").await;
}

/// A receipt that does not hold: the answer ends with an error, the evidence is kept, the node is
/// benched, and no further voucher is signed for it.
async fn refused(tamper: Tamper, says: &str) {
    let name = format!("{tamper:?}: {says}");
    let world = World::new().await;
    let (bad, good) = pair(&world, tamper).await;
    let client = world.gateway_with(|c| c.audit = never()).await;
    // A replay needs a first receipt; every other attack succeeds at once.
    let mut streamed = client.stream("hello", json!({})).await;
    if streamed.error.is_none() {
        streamed = client.stream("hello again", json!({})).await;
    }
    let error = streamed
        .error
        .unwrap_or_else(|| panic!("{name}: no error frame"));
    assert!(
        error["message"].as_str().unwrap().contains(says),
        "{name}: {error}"
    );
    assert!(!streamed.done, "{name}");
    let benched = client.benched().await;
    assert_eq!(benched.len(), 1, "{name}: {benched:?}");
    assert_eq!(benched[0].0, bad.address(), "{name}");
    assert!(benched[0].1.contains(says), "{name}: {benched:?}");
    let entries = client.receipts().await;
    assert!(
        matches!(&entries[0].audit, AuditState::Refused { reason } if reason.contains(says)),
        "{name}"
    );
    // It is not asked again, and its lanes are closed.
    let paid = bad.proxy.as_ref().unwrap().paid_requests();
    let next = client.stream("and now?", json!({})).await;
    assert_eq!(
        next.headers["x-assay-provider"],
        good.address().to_string().as_str(),
        "{name}"
    );
    assert_eq!(bad.proxy.as_ref().unwrap().paid_requests(), paid, "{name}");
    assert!(
        client
            .status()
            .await
            .lanes
            .iter()
            .any(|lane| lane.state == "closed"),
        "{name}"
    );
}

fn edit(change: impl Fn(&mut Receipt) + Send + Sync + 'static) -> Tamper {
    Tamper::Receipt(Arc::new(change))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overcharge_is_refused() {
    let dear = edit(|r| {
        r.charged.0 += 1;
        r.cumulative.0 += 1;
    });
    refused(dear, "price times usage").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cumulative_total_that_does_not_add_up_is_refused() {
    refused(edit(|r| r.cumulative.0 += 1), "in all on this channel").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_receipt_is_refused() {
    refused(Tamper::ReplaysReceipt, "a replay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_spliced_onto_another_channel_is_refused() {
    refused(
        edit(|r| r.channel_id = B256::repeat_byte(9)),
        "the voucher was for",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_another_payer_is_refused() {
    refused(edit(|r| r.payer.0[0] ^= 1), "names payer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_in_the_name_of_another_provider_is_refused() {
    refused(edit(|r| r.provider.0[0] ^= 1), "was bought from").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_another_model_is_refused() {
    refused(edit(|r| r.statement.model_id.0[0] ^= 1), "names model").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_another_prompt_is_refused() {
    refused(edit(|r| r.statement.prompt_root.0[0] ^= 1), "prompt root").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_another_sampler_is_refused() {
    refused(edit(|r| r.statement.sampler_hash.0[0] ^= 1), "sampler hash").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_more_tokens_than_delivered_is_refused() {
    refused(edit(|r| r.statement.n_output.0 += 1), "were delivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_with_another_output_root_is_refused() {
    refused(edit(|r| r.statement.output_root.0[0] ^= 1), "output root").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_swapped_in_the_stream_is_refused() {
    refused(
        Tamper::SwapsToken {
            position: 2,
            to: 65,
        },
        "output root",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_left_out_of_the_stream_is_refused() {
    refused(Tamper::DropsLastToken, "were delivered").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_reason_to_stop_is_refused() {
    refused(
        edit(|r| r.statement.stop_reason = StopReason::EndOfText),
        "stopped for",
    )
    .await;
}

/// An accident's look: refused and unpaid, but benched only when it happens three times in a row.
async fn forgiven_twice(tamper: Tamper, says: &str) {
    let world = World::new().await;
    let bad = world.tampered(100_000, tamper).await;
    let client = world.gateway_with(|c| c.audit = never()).await;
    for round in 1..=3 {
        let streamed = loop {
            let response = client.chat("hello", json!({ "stream": true })).await;
            if response.status() == 200 {
                break response.text().await.unwrap();
            }
            // It rests for a few milliseconds after a failure.
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(
            streamed.contains(says) && !streamed.contains("[DONE]"),
            "{streamed}"
        );
        assert_eq!(
            client.benched().await.len(),
            usize::from(round == 3),
            "round {round}"
        );
    }
    assert_eq!(client.benched().await[0].0, bad.address());
    assert_eq!(client.status().await.totals.charged, MicroUsd(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_signed_by_a_stranger_is_refused() {
    forgiven_twice(
        Tamper::StrangersSignature,
        "not signed by the provider's offer key",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_that_nobody_asked_for_is_refused() {
    forgiven_twice(
        edit(|r| r.statement.stop_reason = StopReason::Cut),
        "cut short",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_with_another_tier_is_refused() {
    forgiven_twice(edit(|r| r.tier = Tier::None), "tier").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_from_yesterday_is_refused() {
    forgiven_twice(edit(|r| r.served_at.0 -= 86_400), "dated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_cannot_claim_more_time_than_passed() {
    forgiven_twice(edit(|r| r.duration.0 += 60_000), "whole request took").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_after_the_end_are_neither_shown_nor_paid() {
    let world = World::new().await;
    let _bad = world.tampered(100_000, Tamper::AddsToken(65)).await;
    let client = world.gateway().await;
    let streamed = client.stream("hello", json!({})).await;
    assert_eq!(streamed.ids.len(), 24);
    let message = streamed.error.unwrap()["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("went on after the answer had ended"),
        "{message}"
    );
    assert_eq!(client.status().await.totals.charged, MicroUsd(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_node_fails_the_client_reads_why() {
    let world = World::new().await;
    let _bad = world.tampered(100_000, Tamper::ServerError).await;
    let client = world.gateway().await;
    let (status, code, message) = error(client.chat("hello", json!({})).await).await;
    assert_eq!((status, code.as_str()), (502, "providers_failed"));
    assert!(message.contains("status 500: boom"), "{message}");
    assert_eq!(client.status().await.spent, MicroUsd(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_node_is_full_the_client_is_told_when_to_come_back() {
    let world = World::new().await;
    let _busy = world.tampered(100_000, Tamper::Busy).await;
    let client = world.gateway().await;
    let response = client.chat("hello", json!({})).await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_whose_request_was_lost_is_corrected_by_proof_and_used_again() {
    let world = World::slow().await;
    let node = world.tampered(3_000_000, Tamper::BreaksOffAfter(3)).await;
    let client = world
        .gateway_with(|c| {
            c.audit = never();
            c.spending.lanes_per_provider = 1;
        })
        .await;
    let broken = client.stream("hello", json!({ "max_tokens": 200 })).await;
    assert!(broken.error.is_some());
    assert_eq!(client.status().await.lanes[0].state, "unresolved");
    node.proxy.as_ref().unwrap().set(Tamper::Nothing);
    // The node charged for the prefix that it had sent, and shows our own voucher for it.
    let answer = loop {
        let response = client.chat("hello", json!({ "max_tokens": 4 })).await;
        if response.status() == 200 {
            break response.json::<serde_json::Value>().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    let status = client.status().await;
    assert_eq!(
        (status.lanes.len(), status.lanes[0].state.as_str()),
        (1, "idle")
    );
    let receipts = client.receipts().await;
    assert_eq!(receipts.len(), 1);
    let lost = status.spent.0 - receipts[0].charged.0;
    let whole = crate::common::price(3_000_000).output.0 * 200 / 1_000_000;
    assert!(lost > 0 && lost < whole, "{lost} of {whole}");
    assert!(client.benched().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_recovers_is_used_again() {
    let world = World::new().await;
    let (shaky, _good) = pair(&world, Tamper::ServerError).await;
    let client = world.gateway_with(|c| c.audit = never()).await;
    client.ask("hello", json!({})).await;
    shaky.proxy.as_ref().unwrap().set(Tamper::Nothing);
    let mut served = false;
    for _ in 0..50 {
        let streamed = client.stream("hello", json!({})).await;
        served |= streamed.headers["x-assay-provider"] == shaky.address().to_string().as_str();
        if served {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(served, "a node that failed once was never asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_stops_the_node_and_pays_the_prefix() {
    let world = World::slow().await;
    let node = world.honest(3_000_000).await;
    let client = world
        .gateway_with(|c| c.audit = AuditPolicy::always())
        .await;
    // A seed with which the answer does not end by itself before anybody can leave.
    let mut seed = 0;
    loop {
        let probe = json!({ "max_tokens": 100, "seed": seed });
        let answer = client.ask("hello", probe).await;
        if answer["choices"][0]["finish_reason"] == "length" {
            break;
        }
        seed += 1;
    }
    let before = client.status().await.lanes[0].charged;
    let probes = client.audits_done().await.len();
    let more = json!({ "max_tokens": 1500, "seed": seed, "stream": true });
    let body = crate::common::chat("hello", more);
    let mut response = client.post("/v1/chat/completions", &body).await;
    assert_eq!(response.status(), 200);
    let mut seen = 0;
    while seen < 4 {
        let chunk = response.chunk().await.unwrap().unwrap();
        seen += String::from_utf8_lossy(&chunk).matches("token_ids").count();
    }
    drop(response);
    // The lane is free and settled again; what it cost is a prefix, not the answer.
    let lane = loop {
        let lanes = client.status().await.lanes;
        if lanes[0].state != "in flight" {
            break lanes[0].clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(lane.state, "idle");
    let whole = crate::common::price(3_000_000).output.0 * 1500 / 1_000_000;
    let cost = lane.charged.0 - before.0;
    assert!(cost > 0 && cost < whole / 2, "{cost} of {whole}");
    // Tokens may have been on their way when the connection closed: then the prefix is paid, and
    // there is nothing to audit.
    let receipts = client.audits_done().await;
    for receipt in &receipts[..receipts.len() - probes] {
        assert_eq!(receipt.stop_reason, StopReason::Cut);
    }
    for receipt in &receipts {
        assert!(
            matches!(receipt.audit, AuditState::Honest { .. }),
            "{receipt:?}"
        );
    }
    assert!(client.benched().await.is_empty());
    // And the market goes on.
    client.ask("again", json!({ "max_tokens": 2 })).await;
    assert_eq!(client.receipts().await[0].provider, node.address());
}
