//! Kills a node, a gateway and a chain, each a process of its own, at random moments under load, and then compares the
//! books of all three: nothing that was answered is lost, nothing is paid twice, no deposit is forgotten.
//! `ASSAY_CRASH_CYCLES` sets how often each is killed (20); `ASSAY_CRASH_SEED` plays one run's moments again.

mod support;

use assay_chain::{Chain, Deployment, Market};
use assay_protocol::{Address, MicroUsd};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Service, free_address, run, run_json, stderr};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Clients that ask all the time; as many as the gateway has lanes.
const CLIENTS: usize = 4;
/// The longest that a part lives under load before it is killed.
const LIFE_MS: u64 = 700;
/// What the gateway opens and tops up its channels by: so little that almost every request makes a deposit.
const DEPOSIT: &str = "0.000001";
const SIGN: &str = "ctrl-c stops it";
/// How long the books may take to come to rest once nothing is killed any more.
const REST_LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Part {
    Chain,
    Node,
    Gateway,
}

#[test]
fn a_node_killed_under_load_loses_no_charge_and_doubles_none() {
    kill_again_and_again(Part::Node);
}

#[test]
fn a_gateway_killed_under_load_signs_no_conflict_and_forgets_no_deposit() {
    kill_again_and_again(Part::Gateway);
}

#[test]
fn a_chain_killed_under_load_is_waited_for_and_tells_the_same_afterwards() {
    kill_again_and_again(Part::Chain);
}

fn kill_again_and_again(part: Part) {
    let cycles = number("ASSAY_CRASH_CYCLES").unwrap_or(20);
    let seed = number("ASSAY_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{part:?}: {cycles} kills, seed {seed}");
    let mut world = World::start();
    let load = Load::start(&world.gateway_url);
    for cycle in 0..cycles {
        // Every other life does some business first; the rest may end before they have begun.
        if cycle % 2 == 1 {
            load.wait_for_an_answer();
        }
        let life = (seed ^ cycle).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        std::thread::sleep(Duration::from_millis(20 + life % LIFE_MS));
        world.kill(part);
        world.revive(part);
    }
    let answers = load.stop();
    println!("{} answers reached a client", answers.len());
    world.compare(&answers);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Receipts that clients hold: request id → what it cost.
type Answers = BTreeMap<String, u64>;

/// Clients that ask until they are told to stop, whatever happens to who answers.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    runtime: Runtime,
    clients: Vec<tokio::task::JoinHandle<Answers>>,
}

impl Load {
    fn start(gateway: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime starts");
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let client = |index: usize| {
            let (stop, answered) = (stop.clone(), answered.clone());
            let url = gateway.to_owned();
            runtime.spawn(async move {
                let mut answers = Answers::new();
                let http = http();
                for question in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match ask(&http, &url, &format!("Question {question} of {index}?")).await {
                        Some((id, charged)) => {
                            let twice = answers.insert(id, charged);
                            assert!(twice.is_none(), "one receipt for two questions");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        // Somebody is dead: a moment later it may not be.
                        None => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
                answers
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self {
            stop,
            answered,
            clients,
            runtime,
        }
    }

    fn wait_for_an_answer(&self) {
        let (before, end) = (
            self.answered.load(Ordering::Relaxed),
            Instant::now() + REST_LIMIT,
        );
        while self.answered.load(Ordering::Relaxed) == before {
            assert!(Instant::now() < end, "nobody is answered any more");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Answers::new();
        for client in self.clients {
            let answers = self.runtime.block_on(client).expect("a client never fails");
            all.extend(answers);
        }
        all
    }
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().timeout(Duration::from_secs(20));
    builder.build().expect("a client is made")
}

/// One answer's receipt, if it came whole.
async fn ask(http: &reqwest::Client, url: &str, question: &str) -> Option<(String, u64)> {
    let body = json!({
        "model": "smollm2-135m-instruct",
        "messages": [{ "role": "user", "content": question }],
        "max_tokens": 6,
    });
    let url = format!("{url}/v1/chat/completions");
    let answer = http.post(url).json(&body).send().await.ok()?;
    let status = answer.status();
    let answer: Value = answer.json().await.ok()?;
    // A request that nobody could answer well would prove nothing, whoever lives.
    assert!(!status.is_client_error() || status == 429, "{answer}");
    let receipt = &answer["assay"]["receipt"]["body"];
    let id = receipt["request_id"].as_str()?.to_owned();
    Some((id, receipt["charged"].as_u64()?))
}

/// Chain, node and gateway, each with a folder of its own that outlives its process.
struct World {
    homes: [TempDir; 3],
    commands: [Vec<String>; 3],
    services: [Option<Service>; 3],
    deployment: Deployment,
    rpc: String,
    node_url: String,
    gateway_url: String,
}

impl World {
    fn start() -> Self {
        let homes = [(); 3].map(|()| tempfile::tempdir().expect("a folder is made"));
        let [chain_at, node_at, gateway_at] = [(); 3].map(|()| free_address());
        let file = homes[0].path().join("market.json");
        let file = file.to_str().expect("the path is text").to_owned();
        let rpc = format!("http://{chain_at}");
        let node_url = format!("http://{node_at}");
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let network = words(&format!("--rpc-url {rpc} --deployment {file}"));
        let with_network = |text: String| [words(&text), network.clone()].concat();

        let commands = [
            words(&format!("chain serve --listen {chain_at}")),
            with_network(format!("node run --listen {node_at} --threads 1")),
            with_network(format!(
                "gateway run --listen {gateway_at} --mint --audit-rate 5% --deposit {DEPOSIT} --threads 1"
            )),
        ];
        let chain = service(homes[0].path(), &commands[0]);
        let deploy = format!("chain deploy --rpc-url {rpc} --out {file}");
        succeed(homes[0].path(), &words(&deploy));
        let init = with_network(format!("node init --mint --public-url {node_url}"));
        succeed(homes[1].path(), &init);
        let node = service(homes[1].path(), &commands[1]);
        let gateway = service(homes[2].path(), &commands[2]);
        let text = std::fs::read_to_string(&file).expect("the deployment was written");
        Self {
            deployment: serde_json::from_str(&text).expect("it is a deployment"),
            homes,
            commands,
            services: [Some(chain), Some(node), Some(gateway)],
            rpc,
            node_url,
            gateway_url: format!("http://{gateway_at}"),
        }
    }

    fn kill(&mut self, part: Part) {
        let service = self.services[part as usize].take();
        service.expect("it runs").kill();
    }

    fn revive(&mut self, part: Part) {
        let index = part as usize;
        let service = service(self.homes[index].path(), &self.commands[index]);
        self.services[index] = Some(service);
    }

    /// The books of all three, once they are at rest.
    fn compare(mut self, answers: &Answers) {
        let runtime = Runtime::new().expect("a runtime starts");
        let status = runtime.block_on(self.at_rest());
        let earned = self.node(&["earnings"]);
        assert_eq!(
            earned["charged"], status["spent"],
            "both sides keep the same books: {status}"
        );
        let lanes = status["lanes"].as_array().expect("lanes are listed");
        for lane in lanes {
            assert_eq!(lane["state"], "idle", "no lane was given up: {lane}");
        }

        // Whatever a client holds, the gateway remembers, once, at the same price.
        let url = format!("{}/assay/v1/receipts?limit=10000", self.gateway_url);
        let listed = runtime.block_on(get(&url)).expect("receipts are listed");
        let listed = listed["data"].as_array().expect("a list");
        let ids: BTreeSet<&str> = listed.iter().filter_map(|e| e["id"].as_str()).collect();
        assert_eq!(ids.len(), listed.len(), "no receipt is listed twice");
        for (id, charged) in answers {
            let entry = listed.iter().find(|entry| entry["id"] == id.as_str());
            let entry = entry.unwrap_or_else(|| panic!("receipt {id} is lost"));
            assert_eq!(entry["charged"].as_u64(), Some(*charged));
        }
        let receipts: u64 = listed.iter().filter_map(|e| e["charged"].as_u64()).sum();
        let spent = status["spent"].as_u64().expect("an amount");
        assert!(receipts <= spent, "receipts of {receipts}, spent {spent}");

        // Every dollar that went into a channel is in a lane of the books, and the node cashes what it charged.
        let charged = MicroUsd(earned["charged"].as_u64().expect("an amount"));
        let balances: u64 = lanes.iter().filter_map(|l| l["balance"].as_u64()).sum();
        self.services[Part::Node as usize]
            .take()
            .expect("it runs")
            .interrupt();
        let providers = self.chain_status();
        let provider: Address =
            serde_json::from_value(providers["providers"][0]["address"].clone())
                .expect("a provider stands there");
        let (market, receiver) = runtime.block_on(async {
            let chain = Chain::connect(&self.rpc).await.expect("the chain answers");
            let market = chain.market(self.deployment.clone()).await;
            let market: Market = market.expect("the market is there");
            let vault = market.vault_of(provider).await.expect("it has a vault");
            let receiver = market.receiver(vault).await.expect("it has an account");
            (market, receiver)
        });
        assert_eq!(receiver.total_claimed, charged, "claimed once, and all");
        let held = runtime.block_on(market.balance(self.deployment.channels));
        assert_eq!(
            held.expect("a balance").0 + receiver.total_settled.0,
            balances,
            "every deposit is in the books"
        );
        println!(
            "spent and claimed {spent} micro-USD, deposited {balances}, over {} lanes, {} receipts",
            lanes.len(),
            listed.len()
        );
        for service in self.services.into_iter().rev().flatten() {
            service.interrupt();
        }
    }

    /// Asks over every lane until none has a request whose end it does not know.
    async fn at_rest(&self) -> Value {
        let (http, end) = (http(), Instant::now() + REST_LIMIT);
        loop {
            let mut clients = tokio::task::JoinSet::new();
            for _ in 0..CLIENTS {
                let (http, url) = (http.clone(), self.gateway_url.clone());
                clients.spawn(async move { ask(&http, &url, "And at last?").await });
            }
            let answered = clients.join_all().await.iter().flatten().count();
            let status = get(&format!("{}/assay/v1/status", self.gateway_url)).await;
            let status = status.expect("the gateway tells its state");
            let unknown = status["at_risk"] != 0 || status["active"] != 0;
            if answered == CLIENTS && !unknown {
                return status;
            }
            assert!(Instant::now() < end, "the books do not rest: {status}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn node(&self, what: &[&str]) -> Value {
        let args = [&["node"], what, &["--url", &self.node_url, "--json"]].concat();
        run_json(self.homes[1].path(), &args)
    }

    fn chain_status(&self) -> Value {
        let network = &self.commands[Part::Node as usize];
        let at = network.iter().position(|word| word == "--rpc-url");
        let mut args = vec!["chain", "status", "--json"];
        args.extend(
            network[at.expect("it is there")..]
                .iter()
                .map(String::as_str),
        );
        run_json(self.homes[0].path(), &args)
    }
}

fn service(home: &Path, command: &[String]) -> Service {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    Service::start(home, &command, SIGN)
}

fn succeed(home: &Path, command: &[String]) {
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let done = run(home, &command);
    assert!(done.status.success(), "{command:?}: {}", stderr(&done));
}

async fn get(url: &str) -> Option<Value> {
    let answer = http().get(url).send().await.ok()?;
    answer.json().await.ok()
}
