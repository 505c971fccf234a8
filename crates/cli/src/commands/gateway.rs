//! `assay gateway run|recover|status`: the consumer's side alone, on any market, and how it stands.

use crate::commands::up::{CloudArgs, news_of};
use crate::home::Home;
use crate::keyring::{self, Keyring};
use crate::live::{UrlArgs, provider_name};
use crate::network::{self, DepthArgs, NetworkArgs};
use crate::output::{self, Table};
use crate::refusal::refusal;
use crate::tell::Tell;
use crate::{interrupt, models, parse};
use anyhow::{Context, Result};
use assay_audit::{AuditPolicy, PartsPerMillion};
use assay_gateway::{GatewayConfig, Status};
use assay_openai::Fallback;
use assay_protocol::MicroUsd;
use std::net::SocketAddr;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Buy from a market's nodes and serve OpenAI's surface
    Run(Box<RunArgs>),
    /// After a ledger was lost: find this gateway's channels on the chain and ask for what is unclaimed in them
    Recover(RecoverArgs),
    /// What a gateway knows of its nodes, its money and its audits
    Status {
        #[command(flatten)]
        url: UrlArgs,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    depth: DepthArgs,
    /// The key whose money is spent [default: `payer` of `assay key list`, made if it is not there]
    #[arg(long, value_name = "NAME|FILE")]
    key: Option<String>,
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// A model of `assay model list`, or the beginning of its name; its weights are for the audits
    #[arg(long, default_value = models::DEFAULT)]
    model: String,
    /// Share of every provider's answers that is re-executed, as in 5% [default: 50% of its first 8, then 10%]
    #[arg(long, value_parser = parse::share, value_name = "PERCENT")]
    audit_rate: Option<PartsPerMillion>,
    /// The most that it may put into channels in its life, in dollars
    #[arg(long, value_parser = parse::dollars, default_value = "5", value_name = "DOLLARS")]
    deposits_max: MicroUsd,
    /// What it opens a channel with, and tops it up by, in dollars: at most this is ever at stake with one provider's lane
    #[arg(long, value_parser = parse::dollars, value_name = "DOLLARS")]
    deposit: Option<MicroUsd>,
    /// Mint the deposits' money where the stablecoin is the test dollar
    #[arg(long)]
    mint: bool,
    /// Only bench a provider whose answer is false, and take nobody to the chain
    #[arg(long)]
    no_disputes: bool,
    /// The largest bond that a dispute may put up, in dollars
    #[arg(long, value_parser = parse::dollars, default_value = "25", value_name = "DOLLARS")]
    bond_max: MicroUsd,
    /// Post failures that a provider has not let count for a day by this payer's word alone; that costs gas
    #[arg(long)]
    report_failures: bool,
    /// Threads of an audit [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    cloud: CloudArgs,
}

#[derive(Debug, clap::Args)]
struct RecoverArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// The key whose money was spent [default: `payer` of `assay key list`]
    #[arg(long, value_name = "NAME|FILE")]
    key: Option<String>,
}

pub(crate) async fn run(args: Args, home: &Home) -> Result<()> {
    match args.action {
        Action::Run(args) => serve(*args, home).await,
        Action::Recover(args) => recover(args, home).await,
        Action::Status { url, json } => status(home, &url, json).await,
    }
}

async fn serve(args: RunArgs, home: &Home) -> Result<()> {
    let clouds = args.cloud.upstreams()?;
    home.create()?;
    crate::commands::up::check_port(args.listen)?;
    let market = args.network.market_at(home, args.depth).await?;
    let keyring = Keyring::on(home, &market);
    let payer = home.key_named(args.key.as_deref().unwrap_or("payer"));
    let payer = keyring.open_or_make(&payer)?;
    keyring.check_fit(&market)?;
    let model = models::ready(home, &args.model).await?.loaded;
    let name = model.name.clone();
    let poll = network::poll(&market);
    let mut config = GatewayConfig::new(args.listen, home.gateway(), market, payer, vec![model]);
    config.disputes.poll = poll;
    config.audit = args
        .audit_rate
        .map_or_else(AuditPolicy::default, AuditPolicy::flat);
    config.audit_threads = args.threads.unwrap_or_else(crate::judge::threads);
    config.spending.deposits_max = args.deposits_max;
    if let Some(deposit) = args.deposit {
        config.spending.deposit = deposit;
    }
    config.records.post_alone = args.report_failures;
    config.disputes.open = !args.no_disputes;
    config.disputes.bond_max = args.bond_max;
    config.fallback = if clouds.is_empty() {
        Fallback::Never
    } else {
        Fallback::Cloud
    };
    config.clouds = clouds;
    let (market, payer) = (config.market.clone(), config.payer.clone());
    // Of a gateway that is not new, what is not in the account may lie in its channels.
    if args.mint || !home.gateway_ledger().exists() {
        let least = if args.mint {
            args.deposits_max
        } else {
            config.spending.deposit
        };
        network::funds(&market, &payer, least, args.mint).await?;
    }
    assay_gateway::create_ledgers(&config.data_dir, &market, payer.address())
        .await
        .context("the gateway has no ledgers")?;
    let gateway = assay_gateway::start(config)
        .await
        .context("cannot start the gateway")?;
    println!(
        "gateway  {}/v1 serves {name}; ctrl-c stops it",
        gateway.url()
    );
    let client = crate::ask::Gateway::at(&gateway.url())?;
    tokio::select! {
        () = news_of(&client, Tell::new(false), |text| text.to_owned()) => {}
        () = interrupt::asked() => {}
    }
    gateway.shutdown().await;
    Ok(())
}

async fn recover(args: RecoverArgs, home: &Home) -> Result<()> {
    let path = home.key_named(args.key.as_deref().unwrap_or("payer"));
    let path = keyring::found(&path).ok_or_else(|| {
        refusal(
            format!("there is no key {}", path.display()),
            "without the payer's key its channels cannot be closed: restore it from a backup",
        )
    })?;
    let market = args.network.market(home).await?;
    let keyring = Keyring::on(home, &market);
    let payer = keyring.open(&path)?;
    keyring.check_fit(&market)?;
    let recovered = assay_gateway::recover(&home.gateway(), &market, &payer)
        .await
        .context("the ledgers cannot be made anew")?;
    println!(
        "{} channels of {} were found on the chain and are closed; new ones are opened as they are needed",
        recovered.channels.len(),
        payer.address()
    );
    println!(
        "{} in them are unclaimed: {} are back, the rest was asked for and comes when its delays are over",
        output::usd(recovered.unclaimed),
        output::usd(recovered.back)
    );
    if recovered.new_answers {
        println!("the evidence of earlier answers is lost: they can be disputed no more");
    }
    println!("next: assay gateway run");
    Ok(())
}

async fn status(home: &Home, url: &UrlArgs, json: bool) -> Result<()> {
    let value = url.gateway(home)?.get("/assay/v1/status").await?;
    if json {
        return output::print_json(&value);
    }
    let status: Status =
        serde_json::from_value(value).context("the gateway's status is of unknown shape")?;
    let mut table = Table::new(&[
        "node",
        "state",
        "in / out per million",
        "proofs",
        "answers",
        "audited",
        "first token",
        "spent",
        "why",
    ]);
    for provider in &status.providers {
        let record = &provider.record;
        let price = provider.offers.first().map_or("-".to_owned(), |offer| {
            format!(
                "{} / {}",
                output::usd(MicroUsd(offer.price.input.0)),
                output::usd(MicroUsd(offer.price.output.0))
            )
        });
        let proofs = provider.offers.first().and_then(|offer| offer.proof);
        let proofs = proofs.map_or("-".to_owned(), |proof| output::usd(MicroUsd(proof.price.0)));
        let why = match (&record.bench, &provider.trouble) {
            (Some(bench), _) => bench.reason.clone(),
            (None, Some(trouble)) => trouble.clone(),
            (None, None) => String::new(),
        };
        table.row([
            provider_name(home, &provider.address),
            provider.state.clone(),
            price,
            proofs,
            record.answers.to_string(),
            format!("{} of them, {} honest", record.audited, record.found_honest),
            record
                .ttft_ms
                .map_or("-".to_owned(), |ms| format!("{ms} ms")),
            output::usd(record.spent),
            why,
        ]);
    }
    let models: Vec<String> = status
        .models
        .iter()
        .map(|model| format!("{} ({} tokens)", model.name, model.context))
        .collect();
    println!("models    {}", models.join(", "));
    println!("payer     {}", status.payer);
    println!(
        "balance   {} outside of its {} channels",
        status.balance.map_or("unknown".to_owned(), output::usd),
        status.lanes.len()
    );
    println!(
        "spent     {} by signed receipts; vouchers allow {} beyond that",
        output::usd(status.spent),
        output::usd(status.at_risk)
    );
    println!(
        "audits    {} of a provider's first {} answers, {} of the later ones",
        status.audit.newcomer_rate, status.audit.newcomer_answers, status.audit.rate
    );
    let disputes = &status.disputes;
    println!(
        "disputes  {} going on, {} convictions ({} as challenger, {} as payer), {} lost",
        disputes.pending,
        disputes.convicted,
        output::usd(disputes.bounties),
        output::usd(disputes.refunds),
        disputes.lost
    );
    if !status.clouds.is_empty() {
        println!(
            "clouds    {} (unverified, only when no node can serve)",
            status.clouds.join(", ")
        );
    }
    println!();
    print!("{}", table.render(""));
    Ok(())
}
