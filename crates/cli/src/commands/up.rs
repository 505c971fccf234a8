//! `assay up`: a whole local market in one command, until ctrl-c; with `--demo` it shows itself.
//!
//! With `--json` standard output carries one event a line, and everything for people goes to standard error.

use crate::ask::Gateway;
use crate::demo::{self, DemoPlan};
use crate::home::Home;
use crate::market::events::Listener;
use crate::market::plan;
use crate::market::{LocalMarket, MarketPlan};
use crate::output::{self, Table};
use crate::parse;
use crate::refusal::refusal;
use crate::tell::Tell;
use crate::{interrupt, models};
use anyhow::Result;
use assay_audit::{AuditPolicy, PartsPerMillion};
use assay_gateway::{ApiKey, CloudUpstream};
use assay_protocol::{MicroUsd, Price};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask a question, show answer, receipt, payment and audit, and leave
    #[arg(long)]
    demo: bool,

    /// After the demo, keep running
    #[arg(long, requires = "demo")]
    stay: bool,

    /// Add two dishonest nodes at tempting prices: one skips layers, one cuts answers short. With --demo, both are
    /// convicted on the chain
    #[arg(long)]
    with_cheater: bool,

    /// Honest nodes, each dearer than the one before
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=16))]
    nodes: u32,

    /// Where the gateway listens
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR:PORT")]
    listen: SocketAddr,

    /// Where the chain's JSON-RPC listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR:PORT")]
    rpc_listen: SocketAddr,

    /// A model of `assay model list`, or the beginning of its name
    #[arg(long, default_value = models::DEFAULT)]
    model: String,

    /// Share of every provider's answers that is re-executed, as in 5% [default: 50% of its first 8, then 10%]
    #[arg(long, value_parser = parse::share, value_name = "PERCENT")]
    audit_rate: Option<PartsPerMillion>,

    /// Only bench a provider whose answer is false, and leave it to watchtowers to take it to the chain
    #[arg(long, conflicts_with = "demo")]
    no_disputes: bool,

    /// Threads that compute [default: all cores]
    #[arg(long)]
    threads: Option<usize>,

    #[command(flatten)]
    cloud: CloudArgs,

    /// One JSON event a line on standard output
    #[arg(long)]
    json: bool,
}

/// A centralized fallback for when no node can serve. Its answers are labelled `unverified` everywhere.
#[derive(Debug, clap::Args)]
pub(crate) struct CloudArgs {
    /// An OpenAI-compatible address up to and with /v1
    #[arg(long, requires = "cloud_model", value_name = "URL")]
    cloud_url: Option<String>,

    /// Its name of the model that stands in
    #[arg(long, requires = "cloud_url", value_name = "NAME")]
    cloud_model: Option<String>,

    /// The environment variable that holds its key
    #[arg(long, requires = "cloud_url", value_name = "VARIABLE")]
    cloud_key_env: Option<String>,

    /// Its list price in dollars per million tokens, input/output, as in 0.15/0.60
    #[arg(long, requires = "cloud_url", value_parser = parse::price_pair, value_name = "IN/OUT")]
    cloud_price: Option<Price>,
}

impl CloudArgs {
    pub(crate) fn upstreams(&self) -> Result<Vec<CloudUpstream>> {
        let (Some(url), Some(model)) = (&self.cloud_url, &self.cloud_model) else {
            return Ok(Vec::new());
        };
        let key = match &self.cloud_key_env {
            None => None,
            Some(name) => {
                let value = std::env::var(name).map_err(|_| {
                    refusal(
                        format!("the environment has no {name}"),
                        format!("export {name}=… and start again"),
                    )
                })?;
                Some(ApiKey::new(&value))
            }
        };
        let name = url
            .split("://")
            .nth(1)
            .unwrap_or(url)
            .split('/')
            .next()
            .unwrap_or(url)
            .to_owned();
        Ok(vec![CloudUpstream {
            name,
            base_url: url.trim_end_matches('/').to_owned(),
            model: model.clone(),
            stands_in_for: None,
            key,
            price: self.cloud_price.unwrap_or_default(),
        }])
    }
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    let started = Instant::now();
    let tell = Tell::new(args.json);
    if args.nodes == 0 && !args.with_cheater && args.cloud.cloud_url.is_none() {
        return Err(refusal(
            "a market without nodes serves nobody",
            "give --nodes 1 or more, or a --cloud-url",
        ));
    }
    let clouds = args.cloud.upstreams()?;
    let lock = home.lock()?;
    // Found now, not after minutes of pulling.
    check_port(args.listen)?;
    tell.say(&format!(
        "assay {} · data in {}\n",
        env!("CARGO_PKG_VERSION"),
        home.data().display()
    ));
    let model = models::ready(home, &args.model).await?;
    let audit = args
        .audit_rate
        .map_or_else(AuditPolicy::default, AuditPolicy::flat);
    let plan = MarketPlan {
        nodes: plan::nodes(args.nodes, args.with_cheater),
        listen: args.listen,
        rpc_listen: args.rpc_listen,
        threads: args.threads.unwrap_or_else(crate::judge::threads),
        audit,
        disputes: !args.no_disputes,
        clouds,
    };
    let market = LocalMarket::start(home, lock, model.loaded, plan).await?;
    let facts = json!({
        "event": "ready",
        "url": market.file.url,
        "rpc_url": market.file.rpc_url,
        "model": market.file.model,
        "process": market.file.process,
        "nodes": market.file.nodes,
        "payer": market.payer,
        "deployment": market.market.deployment(),
        "new_chain": market.is_new,
        "bytes_downloaded": model.bytes_downloaded,
        "bytes_on_disk": home.bytes_on_disk(),
        "ready_ms": output::millis(started.elapsed()),
    });
    tell.event(&facts);
    tell.say(&overview(&market, &facts));

    let gateway = Gateway::at(&market.file.url)?;
    let outcome = tokio::select! {
        outcome = show(&args, &tell, &market, &gateway, started) => outcome,
        () = interrupt::asked() => Ok(()),
    };
    tell.say("\nstopping: answers end, vouchers are claimed …");
    let stopped = tokio::select! {
        stopped = market.stop() => stopped,
        () = interrupt::asked() => Err(refusal("stopped before everything was claimed", "nothing is lost: the next start claims it")),
    };
    let claimed = stopped?;
    tell.event(&json!({ "event": "stopped", "claimed": claimed }));
    tell.say(&format!(
        "stopped; {} claimed on the way out. `assay up` resumes from here",
        output::usd(claimed)
    ));
    outcome
}

/// The demo if it was asked for, then the market's news until somebody stops it.
async fn show(
    args: &Args,
    tell: &Tell,
    market: &LocalMarket,
    gateway: &Gateway,
    started: Instant,
) -> Result<()> {
    let mut news = Listener::start(gateway);
    if args.demo {
        let plan = DemoPlan {
            with_cheaters: args.with_cheater,
            program_started: started,
        };
        demo::run(&plan, tell, market, gateway, &mut news).await?;
        if !args.stay {
            return Ok(());
        }
    }
    tell.say("ctrl-c stops it");
    tell_news(&mut news, tell, |text| market.file.with_names(text)).await;
    Ok(())
}

/// Says what happens in a gateway, for as long as it runs.
pub(crate) async fn news_of(gateway: &Gateway, tell: Tell, words: impl Fn(&str) -> String) {
    tell_news(&mut Listener::start(gateway), &tell, words).await;
}

async fn tell_news(news: &mut Listener, tell: &Tell, words: impl Fn(&str) -> String) {
    while let Some(event) = news.next().await {
        if is_news(&event) {
            tell.say(&format!(
                "  {}",
                words(event["text"].as_str().unwrap_or_default())
            ));
        }
        tell.event(&event_line(event));
    }
    std::future::pending().await
}

/// What a person wants to hear while a market runs: everything out of the ordinary.
fn is_news(event: &serde_json::Value) -> bool {
    let kind = event["kind"].as_str().unwrap_or_default();
    matches!(
        kind,
        "retried"
            | "failed"
            | "refused"
            | "benched"
            | "unverified"
            | "missed"
            | "disputed"
            | "convicted"
            | "not_convicted"
            | "not_disputed"
    ) || (kind == "audited" && event["honest"] == false)
}

pub(crate) fn event_line(event: serde_json::Value) -> serde_json::Value {
    json!({ "event": "news", "news": event })
}

pub(crate) fn check_port(listen: SocketAddr) -> Result<()> {
    match std::net::TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(refusal(
            format!("{listen} is in use by another program"),
            format!(
                "choose another port, as in --listen {}:{}",
                listen.ip(),
                listen.port().wrapping_add(1).max(1024)
            ),
        )),
        Err(error) => Err(refusal(
            format!("cannot listen on {listen}: {error}"),
            "choose another address with --listen",
        )),
    }
}

fn overview(market: &LocalMarket, facts: &serde_json::Value) -> String {
    let file = &market.file;
    let mut table = Table::new(&[
        "node",
        "asks for a million tokens in / out",
        "stake",
        "at",
        "conduct",
    ]);
    for node in &file.nodes {
        table.row([
            node.name.clone(),
            format!(
                "{} / {}",
                dollars(node.price.input.0),
                dollars(node.price.output.0)
            ),
            output::usd(crate::market::STAKE),
            node.endpoint.clone(),
            node.conduct.words().to_owned(),
        ]);
    }
    let deployment = market.market.deployment();
    let bytes = |name: &str| output::bytes(facts[name].as_u64().unwrap_or(0));
    format!(
        "\n{}\n\
         model    {}\n\
         chain    {} contracts on chain {}, JSON-RPC at {}\n\
         gateway  {}/v1 speaks OpenAI\n\
         disk     {} in use, {} downloaded now\n\
         \n\
         try it:\n\
         \n  curl -N {}/v1/chat/completions -H 'content-type: application/json' \\\n    \
         -d '{{\"model\": \"{}\", \"stream\": true, \"messages\": [{{\"role\": \"user\", \"content\": \"What is the capital of France?\"}}]}}'\n\
         \nor `assay chat`, `assay receipt list`, `assay gateway status` in another terminal\n",
        table.render("  "),
        file.model,
        if market.is_new { "new" } else { "known" },
        deployment.chain_id,
        file.rpc_url,
        file.url,
        bytes("bytes_on_disk"),
        bytes("bytes_downloaded"),
        file.url,
        file.model,
    )
}

fn dollars(micro: u64) -> String {
    output::usd(MicroUsd(micro))
}
