//! The whole program, end to end, with the real model: what a newcomer does, and what can go wrong around it.

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::{Market, http, http_text, run, run_json, stderr};

fn chat(market: &Market, question: &str, max_tokens: u32) -> Value {
    let body = json!({
        "model": market.model(),
        "messages": [{ "role": "user", "content": question }],
        "temperature": 0,
        "max_tokens": max_tokens,
    });
    let url = format!("{}/v1/chat/completions", market.url());
    let (status, answer) = http("POST", &url, Some(body.to_string().as_bytes()));
    assert_eq!(status, 200, "{answer}");
    answer
}

fn text(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"]
        .as_str()
        .expect("the answer has a text")
}

fn addresses(market: &Market) -> Vec<Value> {
    let nodes = market.ready["nodes"]
        .as_array()
        .expect("the ready event lists nodes");
    nodes.iter().map(|node| node["address"].clone()).collect()
}

#[test]
fn an_answer_is_streamed_paid_receipted_audited_and_remembered() {
    let data = tempfile::tempdir().unwrap();
    let market = Market::start(data.path(), &[]);
    assert_eq!(market.ready["new_chain"], true);

    // An answer with its receipt.
    let answer = chat(&market, "What is the capital of France?", 24);
    assert!(text(&answer).contains("Paris"), "{answer}");
    let receipt = &answer["assay"]["receipt"]["body"];
    let id = receipt["request_id"].as_str().unwrap().to_owned();
    assert_eq!(
        receipt["statement"]["n_output"],
        answer["usage"]["completion_tokens"]
    );
    assert!(receipt["charged"].as_u64().unwrap() > 0);
    // One request in sixteen explores, so any of the nodes may have served it.
    assert!(
        addresses(&market).contains(&receipt["provider"]),
        "{receipt}"
    );

    // Streaming ends with [DONE] and carries the same receipt fields.
    let body = json!({ "model": market.model(), "stream": true, "max_tokens": 8, "messages": [{ "role": "user", "content": "Hi" }] });
    let url = format!("{}/v1/chat/completions", market.url());
    let (status, stream) = http_text("POST", &url, Some(body.to_string().as_bytes()));
    assert_eq!(status, 200);
    assert!(stream.trim_end().ends_with("data: [DONE]"), "{stream}");
    assert!(stream.contains("\"receipt\""), "{stream}");

    // The list, one receipt as a file, its check alone, and its audit.
    let list = run_json(data.path(), &["receipt", "list", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    let evidence = run(data.path(), &["receipt", "show", &id, "--json"]);
    let file = data.path().join("receipt.json");
    std::fs::write(&file, &evidence.stdout).unwrap();
    let file = file.to_str().unwrap();
    let judged = run_json(data.path(), &["receipt", "verify", file, "--json"]);
    for check in ["signatures", "accounting", "answer"] {
        assert_eq!(judged[check]["result"], "holds", "{judged}");
    }
    let audited = run_json(data.path(), &["audit", &id, "--json"]);
    assert_eq!(audited["verdict"], "honest", "{audited}");

    // One flipped token is caught, and one flipped price.
    let mut forged: Value = serde_json::from_slice(&evidence.stdout).unwrap();
    let token = forged["output"][2].as_u64().unwrap();
    forged["output"][2] = json!(token ^ 1);
    let forged_file = data.path().join("forged.json");
    std::fs::write(&forged_file, forged.to_string()).unwrap();
    let refused = run(
        data.path(),
        &["receipt", "verify", forged_file.to_str().unwrap()],
    );
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stdout).contains("FAILS"),
        "{refused:?}"
    );

    // Everything is still there after ctrl-c, without a gateway and with the next one.
    let before = addresses(&market);
    assert!(market.interrupt().success());
    let offline = run_json(data.path(), &["receipt", "list", "--json"]);
    assert_eq!(offline.as_array().unwrap().len(), 2);
    let market = Market::start(data.path(), &[]);
    assert_eq!(market.ready["new_chain"], false);
    assert_eq!(
        market.ready["bytes_downloaded"], 0,
        "nothing is pulled twice"
    );
    assert_eq!(addresses(&market), before, "the same keys");
    let again = chat(&market, "What is the capital of France?", 24);
    assert_eq!(
        text(&again),
        text(&answer),
        "the same question, greedily, has the same answer"
    );
    let list = run_json(data.path(), &["receipt", "list", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 3);
    assert!(market.terminate().success(), "SIGTERM stops it as cleanly");
}

#[test]
fn a_killed_market_resumes_and_loses_no_money() {
    let data = tempfile::tempdir().unwrap();
    let market = Market::start(data.path(), &[]);
    let before = chat(&market, "Name three fruits.", 12);
    let owed = before["assay"]["receipt"]["body"]["cumulative"]
        .as_u64()
        .unwrap();
    market.kill();

    let market = Market::start(data.path(), &[]);
    assert_eq!(market.ready["new_chain"], false);
    let list = run_json(data.path(), &["receipt", "list", "--json"]);
    assert_eq!(
        list[0]["id"],
        before["assay"]["receipt"]["body"]["request_id"]
    );
    let after = chat(&market, "Name three fruits.", 12);
    let body = &after["assay"]["receipt"]["body"];
    if body["channel_id"] == before["assay"]["receipt"]["body"]["channel_id"] {
        let charged = body["charged"].as_u64().unwrap();
        assert_eq!(
            body["cumulative"].as_u64().unwrap(),
            owed + charged,
            "the channel goes on where it was"
        );
    }
    assert!(market.interrupt().success());
}

#[test]
fn what_is_taken_is_refused_with_the_next_step() {
    let data = tempfile::tempdir().unwrap();
    let market = Market::start(data.path(), &[]);

    // The same folder.
    let second = run(data.path(), &["up", "--listen", "127.0.0.1:0"]);
    assert!(!second.status.success());
    assert!(
        stderr(&second).contains("--data-dir"),
        "{}",
        stderr(&second)
    );

    // The same port.
    let other = tempfile::tempdir().unwrap();
    let address = market.url().trim_start_matches("http://").to_owned();
    let taken = run(other.path(), &["up", "--listen", &address]);
    assert!(!taken.status.success());
    assert!(stderr(&taken).contains("--listen"), "{}", stderr(&taken));
    assert!(market.interrupt().success());

    // No market at all.
    let nobody = run(
        other.path(),
        &["chat", "--url", "http://127.0.0.1:9", "hello"],
    );
    assert!(!nobody.status.success());
    assert!(stderr(&nobody).contains("assay up"), "{}", stderr(&nobody));
    let unknown = run(
        other.path(),
        &["up", "--model", "no-such-model", "--listen", "127.0.0.1:0"],
    );
    assert!(stderr(&unknown).contains("smollm2"), "{}", stderr(&unknown));
}

#[test]
fn bad_requests_get_openai_errors_and_cost_nothing() {
    let data = tempfile::tempdir().unwrap();
    let market = Market::start(data.path(), &["--nodes", "1"]);
    let model = market.model();
    let hello = json!([{ "role": "user", "content": "hello" }]);
    let long = "word ".repeat(30_000);
    let bodies: Vec<(u16, Vec<u8>)> = vec![
        (400, b"{not json".to_vec()),
        (400, b"\xff\xfe".to_vec()),
        (400, b"[]".to_vec()),
        (400, json!({ "model": model }).to_string().into()),
        (400, json!({ "messages": hello }).to_string().into()),
        (
            404,
            json!({ "model": "gpt-99", "messages": hello })
                .to_string()
                .into(),
        ),
        (
            400,
            json!({ "model": model, "messages": [] }).to_string().into(),
        ),
        (
            400,
            json!({ "model": model, "messages": hello, "temperature": -1 })
                .to_string()
                .into(),
        ),
        (
            400,
            json!({ "model": model, "messages": hello, "temperature": "hot" })
                .to_string()
                .into(),
        ),
        (
            400,
            json!({ "model": model, "messages": hello, "max_tokens": -3 })
                .to_string()
                .into(),
        ),
        (
            400,
            json!({ "model": model, "messages": hello, "max_tokens": 1e300 })
                .to_string()
                .into(),
        ),
        (
            400,
            json!({ "model": model, "messages": hello, "max_tokens": 1_000_000 })
                .to_string()
                .into(),
        ),
        (
            400,
            json!({ "model": model, "messages": hello, "n": 4 })
                .to_string()
                .into(),
        ),
        (
            400,
            json!({ "model": model, "messages": [{ "role": "user", "content": long }] })
                .to_string()
                .into(),
        ),
    ];
    let url = format!("{}/v1/chat/completions", market.url());
    for (expected, body) in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let (status, answer) = http("POST", &url, Some(&body));
        assert_eq!(status, expected, "{shown} gave {answer}");
        let error = &answer["error"];
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{shown} gave {answer}"
        );
        assert!(
            error["type"].is_string() && error["code"].is_string(),
            "{shown} gave {answer}"
        );
    }
    let list = run_json(data.path(), &["receipt", "list", "--json"]);
    assert_eq!(list, json!([]), "nothing was bought");
    let status = run_json(data.path(), &["gateway", "status", "--json"]);
    assert_eq!(status["spent"], 0);
    let (status, _) = http("GET", &format!("{}/nowhere", market.url()), None);
    assert_eq!(status, 404);
    assert!(market.interrupt().success());
}

#[test]
fn the_demo_shows_answer_payment_and_verdict() {
    let data = tempfile::tempdir().unwrap();
    let mut market = Market::launch(data.path(), &["--demo"]);
    let limit = Duration::from_secs(400);
    let ready = market.wait_for("ready", limit);
    assert_eq!(ready["nodes"].as_array().unwrap().len(), 3);
    let answer = market.wait_for("answer", limit);
    assert!(
        answer["text"].as_str().unwrap().contains("Paris"),
        "{answer}"
    );
    let payment = market.wait_for("payment", limit);
    assert_eq!(
        payment["claimed"], payment["owed"],
        "the voucher is worth what is owed"
    );
    assert_eq!(
        payment["in_vault"], payment["owed"],
        "and lies in the vault until the window closes"
    );
    let verdict = market.wait_for("verdict", limit);
    assert_eq!(verdict["audit"]["verdict"], "honest", "{verdict}");
    market.wait_for("stopped", limit);
    assert!(market.wait().success());
}

#[test]
fn both_cheats_are_convicted_slashed_and_not_asked_again() {
    let data = tempfile::tempdir().unwrap();
    let mut market = Market::launch(data.path(), &["--demo", "--with-cheater"]);
    let limit = Duration::from_secs(500);
    let ready = market.wait_for("ready", limit);
    let stake = 25_000_000;
    let cheats: Vec<Value> = ready["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["conduct"] != "honest")
        .map(|node| node["address"].clone())
        .collect();
    assert_eq!(cheats.len(), 2);
    let mut kinds = Vec::new();
    for _ in &cheats {
        let convicted = market.wait_for("convicted", limit);
        assert!(cheats.contains(&convicted["provider"]), "{convicted}");
        let verdict = &convicted["conviction"];
        assert_eq!(verdict["slashed"], stake);
        assert_eq!(verdict["winner"], ready["payer"]);
        assert_eq!(verdict["to_winner"], stake * 30 / 100);
        let refund = verdict["to_payer"].as_u64().unwrap();
        assert!(refund >= stake / 5 && refund >= convicted["charged"].as_u64().unwrap());
        assert!(
            convicted["gas_gateway"].as_u64().unwrap() > 0,
            "{convicted}"
        );
        assert!(
            convicted["gas_provider"].as_u64().unwrap() > 0,
            "{convicted}"
        );
        kinds.push(convicted["parted"]["what"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(
        kinds,
        ["element", "token"],
        "one by its trace, one by its token"
    );
    let caught = market.wait_for("caught", limit);
    assert_eq!(caught["caught"].as_array().unwrap().len(), 2, "{caught}");
    assert_eq!(
        caught["honest_benched"],
        json!([]),
        "no honest node loses anything"
    );
    for node in caught["stakes"].as_array().unwrap() {
        let cheats = node["node"].as_str().unwrap().starts_with("cheat");
        assert_eq!(node["stake"], if cheats { 0 } else { stake }, "{caught}");
    }
    assert!(!cheats.contains(&caught["then_served_by"]), "{caught}");
    market.wait_for("stopped", limit);
    assert!(market.wait().success());

    // What they signed convicts them offline as well, from the ledger on disk.
    let list = run_json(data.path(), &["receipt", "list", "--json"]);
    let bad: Vec<&Value> = list
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["dispute"]["state"] == "convicted")
        .collect();
    assert_eq!(bad.len(), 2, "{list}");
    let id = bad[0]["id"].as_str().unwrap().to_owned();
    let verified = run(data.path(), &["receipt", "verify", &id]);
    assert!(!verified.status.success());
    let words = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(words.contains("FAILS        answer"), "{words}");

    // The next start knows that they have nothing left to lose, and asks nobody twice.
    let mut again = Market::launch(data.path(), &["--demo", "--with-cheater"]);
    let caught = again.wait_for("caught", limit);
    assert_eq!(caught["questions"], 0, "{caught}");
    assert!(again.wait().success());
}

#[test]
fn a_watchtower_and_a_hand_convict_what_a_gateway_only_benches() {
    let data = tempfile::tempdir().unwrap();
    let tower = tempfile::tempdir().unwrap();
    let args = ["--with-cheater", "--no-disputes", "--audit-rate", "0%"];
    let market = Market::start(data.path(), &args);
    let (rpc, url) = (market.ready["rpc_url"].as_str().unwrap(), market.url());
    let deployment = data.path().join("deployments.json");
    let network = [
        "--rpc-url",
        rpc,
        "--deployment",
        deployment.to_str().unwrap(),
    ];
    let cheat = |name: &str| {
        let nodes = market.ready["nodes"].as_array().unwrap().iter();
        let mut named = nodes.filter(|node| node["name"] == name);
        named.next().unwrap()["address"].clone()
    };
    // One request in sixteen explores: asks until this node has answered.
    let ask = |question: &str, provider: &Value| loop {
        let answer = chat(&market, question, 12);
        let receipt = &answer["assay"]["receipt"]["body"];
        if receipt["provider"] == *provider {
            return receipt.clone();
        }
    };
    // The cheapest cheats, and a tower that was only told the gateway's address finds out.
    let (truncates, skips) = (cheat("cheat-2"), cheat("cheat-1"));
    ask("What is the capital of France?", &truncates);
    let watch = [
        &["watch", "--gateway", &url, "--once", "--mint", "--json"],
        &network[..],
    ]
    .concat();
    let watched = run(tower.path(), &watch);
    let events = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(watched.status.success(), "{events}{}", stderr(&watched));
    let sum: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    let convicted = sum["sum"]["convicted"].as_u64().unwrap();
    assert!(convicted >= 1, "{events}{}", stderr(&watched));
    assert!(sum["sum"]["bounties"].as_u64().unwrap() > 0, "{events}");

    let list = run_json(data.path(), &["dispute", "list", "--json"]);
    let about = |provider: &Value| {
        let all = list.as_array().unwrap().iter();
        let mut about = all.filter(|dispute| dispute["provider"] == *provider);
        about.next()
    };
    let first = about(&truncates).expect("a dispute about the cheapest");
    assert_eq!(first["state"], "convicted", "{list}");
    let game = first["game"].as_str().unwrap();
    let shown = run_json(data.path(), &["dispute", "show", &game[..14], "--json"]);
    assert_eq!(shown["stake"], 0, "{shown}");
    assert!(shown["parted"]["what"].is_string(), "{shown}");
    let shown = run(data.path(), &["dispute", "show", game]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("where the two traces part"), "{text}");

    // The other cheat, by hand: open, then one step at a time.
    market_forgets(&market, &truncates);
    if about(&skips).is_some() {
        // The router explored it before, and the tower saw that as well.
        return;
    }
    let second = ask("Write one sentence about the sea.", &skips);
    let id = second["request_id"].as_str().unwrap();
    let opened = run(data.path(), &["dispute", "open", id, "--no-play", "--mint"]);
    assert!(opened.status.success(), "{}", stderr(&opened));
    let list = run_json(data.path(), &["dispute", "list", "--open", "--json"]);
    let game = list[0]["game"].as_str().unwrap().to_owned();
    let mut steps = String::new();
    for _ in 0..100 {
        let state = run_json(data.path(), &["dispute", "list", "--json"]);
        let state = state
            .as_array()
            .unwrap()
            .iter()
            .find(|dispute| dispute["game"] == game.as_str());
        if state.unwrap()["state"] == "convicted" {
            break;
        }
        let step = run(data.path(), &["dispute", "step", &game]);
        steps.push_str(&String::from_utf8_lossy(&step.stdout));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(steps.contains("proves one element false"), "{steps}");
    assert!(market.interrupt().success());
}

/// Waits until the gateway does not ask this provider any more.
fn market_forgets(market: &Market, provider: &Value) {
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while std::time::Instant::now() < end {
        let (_, status) = http("GET", &format!("{}/assay/v1/status", market.url()), None);
        let providers = status["providers"].as_array().unwrap();
        if !providers.iter().any(|known| known["address"] == *provider) {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("the gateway still knows {provider}");
}
