//! The optimistic tier: every answer is re-executed, whatever the audit policy, and is final only after its window.

use assay_gateway::AuditState;
use assay_protocol::{Tier, Timestamp};
use serde_json::json;

use crate::common::{World, error, never};

#[tokio::test(flavor = "multi_thread")]
async fn every_optimistic_answer_is_re_executed_and_final_only_after_its_window() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let client = world.gateway_with(|c| c.audit = never()).await;
    let more = json!({ "assay": { "verification": "optimistic" } });
    for n in 0..3 {
        let streamed = client.stream(&format!("question {n}"), more.clone()).await;
        assert_eq!(streamed.headers["x-assay-tier"], "optimistic");
        assert!(
            streamed.last["assay"]["final_at"].is_u64(),
            "{:?}",
            streamed.last
        );
        client.stream("and one by the coin", json!({})).await;
    }
    let window_s = world.market.deployment().challenge_window_s;
    for receipt in client.audits_done().await {
        let evidence = client
            .get_json(&format!("/assay/v1/receipts/{}", receipt.id))
            .await;
        let served_at = evidence["receipt"]["body"]["served_at"].as_u64().unwrap();
        let end = Timestamp(served_at + window_s);
        if receipt.tier != Tier::Optimistic {
            assert_eq!(
                (receipt.audit.clone(), receipt.final_at),
                (AuditState::NotSampled, None)
            );
            assert!(!receipt.is_final(end));
            continue;
        }
        assert_eq!(evidence["receipt"]["body"]["tier"], "optimistic");
        assert!(
            matches!(receipt.audit, AuditState::Honest { .. }),
            "{receipt:?}"
        );
        assert_eq!(receipt.final_at, Some(end));
        assert!(!receipt.is_final(Timestamp(end.0 - 1)));
        assert!(receipt.is_final(end));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_nobody_delivers_is_refused() {
    let world = World::new().await;
    let _node = world.honest(300_000).await;
    let client = world.gateway().await;
    let response = client
        .chat("hi", json!({ "assay": { "verification": "tolerant" } }))
        .await;
    let (status, _, message) = error(response).await;
    assert_eq!(status, 400);
    assert!(message.contains("'optimistic'"), "{message}");
    // This one is known, and nobody here offers it.
    let response = client
        .chat("hi", json!({ "assay": { "verification": "proven" } }))
        .await;
    let (status, code, message) = error(response).await;
    assert_eq!((status, code.as_str()), (503, "proofs_not_offered"));
    assert!(message.contains("offers no proofs"), "{message}");
}
