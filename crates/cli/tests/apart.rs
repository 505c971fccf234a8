//! Chain, node and gateway as programs of their own, each with its own folder, as on machines of their own.

mod support;

use support::{Service, free_address, run, run_json, stderr};

#[test]
fn chain_node_and_gateway_run_apart_and_do_business() {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let [chain_home, node_home, gateway_home] = [0, 1, 2].map(|index: usize| folders[index].path());
    let [chain_at, node_at, gateway_at] = [(); 3].map(|()| free_address());
    let rpc = format!("http://{chain_at}");
    let node_url = format!("http://{node_at}");
    let gateway_url = format!("http://{gateway_at}");
    let deployment = chain_home.join("market.deployment.json");
    let deployment = deployment.to_str().unwrap();
    let network = ["--rpc-url", &rpc, "--deployment", deployment];

    let chain = Service::start(
        chain_home,
        &["chain", "serve", "--listen", &chain_at],
        "ctrl-c stops it",
    );
    let deployed = run(
        chain_home,
        &["chain", "deploy", "--rpc-url", &rpc, "--out", deployment],
    );
    assert!(deployed.status.success(), "{}", stderr(&deployed));

    // A stake has to come from somewhere.
    let init = [&["node", "init", "--public-url", &node_url], &network[..]].concat();
    let poor = run(node_home, &init);
    assert!(stderr(&poor).contains("--mint"), "{}", stderr(&poor));
    let rich = run(node_home, &[&init[..], &["--mint"]].concat());
    assert!(rich.status.success(), "{}", stderr(&rich));

    let node = [&["node", "run", "--listen", &node_at], &network[..]].concat();
    let node = Service::start(node_home, &node, "ctrl-c stops it");
    let gateway = [
        &["gateway", "run", "--listen", &gateway_at, "--mint"],
        &network[..],
    ]
    .concat();
    let gateway = Service::start(gateway_home, &gateway, "ctrl-c stops it");

    let asked = run(
        gateway_home,
        &[
            "chat",
            "--url",
            &gateway_url,
            "--temperature",
            "0",
            "What is the capital of France?",
        ],
    );
    let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(
        asked.status.success() && answer.contains("Paris"),
        "{answer}{}",
        stderr(&asked)
    );
    assert!(answer.contains("receipt 0x"), "{answer}");

    let earned = run_json(
        node_home,
        &["node", "earnings", "--url", &node_url, "--json"],
    );
    let status = run_json(
        gateway_home,
        &["gateway", "status", "--url", &gateway_url, "--json"],
    );
    assert!(earned["charged"].as_u64().unwrap() > 0);
    assert_eq!(
        earned["charged"], status["spent"],
        "both sides keep the same books"
    );

    gateway.interrupt();
    node.interrupt();
    let seen = run_json(
        chain_home,
        &[&["chain", "status", "--json"], &network[..]].concat(),
    );
    assert_eq!(
        seen["providers"][0]["waiting"], earned["charged"],
        "what was earned lies in the vault"
    );

    // A gateway that lost its ledgers does not begin anew in silence; the chain knows its channels.
    let lost = gateway_home.join("lost");
    std::fs::rename(gateway_home.join("gateway"), &lost).unwrap();
    let again = [&["gateway", "run", "--listen", &gateway_at], &network[..]].concat();
    let refused = run(gateway_home, &again);
    let why = stderr(&refused);
    assert!(why.contains("assay gateway recover"), "{why}");
    let recover = [&["gateway", "recover"], &network[..]].concat();
    let recovered = run(gateway_home, &recover);
    assert!(recovered.status.success(), "{}", stderr(&recovered));
    let told = String::from_utf8_lossy(&recovered.stdout).into_owned();
    assert!(told.contains("channels of 0x"), "{told}");
    let nothing_lost = run(gateway_home, &recover);
    assert!(stderr(&nothing_lost).contains("nothing is to be recovered"));
    chain.interrupt();
}
