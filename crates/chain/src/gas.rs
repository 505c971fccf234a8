//! What each move of a market costs, measured: every operation is run on a chain in memory, by the same
//! code and the same rules (Prague, with the floor on calldata) that a real network runs. Nothing is
//! estimated and nothing is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use assay_protocol::channel::{ChannelConfig, Voucher};
use assay_protocol::manifest::{
    Architecture, AttentionScale, Dims, Fractions, GainEntry, LayerEntry, Manifest, MatrixEntry,
};
use assay_protocol::{
    Address, Answered, B256, DurationMs, Histogram, MicroUsd, Receipt, SamplerParams, Service,
    ServiceBatch, ServiceRecord, Statement, StopReason, Tier, Timestamp, TypedData,
};

use crate::connect::Chain;
use crate::deployment::DeployParams;
use crate::embedded::EmbeddedConfig;
use crate::error::ChainError;
use crate::keys::Key;
use crate::reader::Market;
use crate::sender::{Claim, Registration};
use crate::service::{ServiceEntry, ServicePost};

/// Channels in the largest batch that is measured.
const CHANNELS: u8 = 101;
/// When the chain in memory begins.
const START: u64 = 1_800_000_000;

/// One operation and the gas that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub operation: &'static str,
    pub gas: u64,
}

/// What a request costs where so many of one channel are settled by one claim, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerRequest {
    pub requests: u32,
    pub claim: u64,
    /// With the record of service, in the same transaction.
    pub claim_and_record: u64,
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub rows: Vec<Row>,
    pub per_request: Vec<PerRequest>,
}

/// Runs every operation once. Each is measured in the state that most of its kind are in: accounts and
/// channels that were used before, where a row does not say otherwise.
pub async fn table() -> Result<Table, ChainError> {
    let stage = Stage::new().await?;
    let mut table = Table {
        rows: Vec::new(),
        per_request: Vec::new(),
    };
    stage.provider(&mut table).await?;
    stage.channels(&mut table).await?;
    stage.records(&mut table).await?;
    stage.ends(&mut table).await?;
    stage.dispute(&mut table).await?;
    Ok(table)
}

/// A market in memory with one of each.
struct Stage {
    market: Market,
    clock: Arc<AtomicU64>,
    owner: Key,
    offer: Key,
    payer: Key,
    /// Pays for the gas of what anybody may send.
    relay: Key,
}

impl Table {
    fn row(&mut self, operation: &'static str, gas: u64) {
        self.rows.push(Row { operation, gas });
    }
}

impl Stage {
    async fn new() -> Result<Stage, ChainError> {
        let clock = Arc::new(AtomicU64::new(START));
        let time = clock.clone();
        let config = EmbeddedConfig::in_memory()
            .with_clock(Arc::new(move || Timestamp(time.load(Ordering::Relaxed))));
        let chain = Chain::embedded(config).await?;
        let key = |byte: u8| Key::from_bytes(&[byte; 32]).expect("these bytes are a key");
        let (owner, offer, payer, relay) = (key(1), key(2), key(3), key(4));
        let deployment = chain.deploy(&relay, &DeployParams::devnet()).await?;
        let market = chain.market(deployment).await?;
        // Where money goes, there was some before.
        for to in [&owner, &payer, &relay] {
            for _ in 0..2 {
                market
                    .mint(&relay, to.address(), MicroUsd(1_000_000_000))
                    .await?;
            }
        }
        Ok(Stage {
            market,
            clock,
            owner,
            offer,
            payer,
            relay,
        })
    }

    fn wait(&self, seconds: u64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    async fn provider(&self, table: &mut Table) -> Result<(), ChainError> {
        let market = &self.market;
        let registration = Registration {
            offer_key: self.offer.address(),
            payout: self.owner.address(),
            endpoint: "https://provider.example:9001".into(),
            models: vec![B256::repeat_byte(1)],
            stake: MicroUsd(50_000_000),
        };
        let registered = market.register(&self.owner, &registration).await?;
        table.row("register, with a vault and a stake", registered.gas_used);
        let staked = market.add_stake(&self.owner, MicroUsd(20_000_000)).await?;
        table.row("add stake", staked.gas_used);
        let unbonding = market.unbond(&self.owner, MicroUsd(10_000_000)).await?;
        table.row("unbond", unbonding.gas_used);
        self.wait(market.deployment().unbonding_s);
        let withdrawn = market.withdraw_stake(&self.owner).await?;
        table.row("withdraw stake", withdrawn.gas_used);
        let moved = market.update_endpoint(&self.owner, "https://provider.example:9002");
        table.row("change the endpoint", moved.await?.gas_used);
        Ok(())
    }

    async fn channels(&self, table: &mut Table) -> Result<(), ChainError> {
        let market = &self.market;
        for salt in 0..CHANNELS {
            let config = self.config(salt).await?;
            let opened = market.open_channel(&self.payer, &config, MicroUsd(1_000_000));
            let opened = opened.await?;
            match salt {
                // Its token balance was zero before the first of all.
                1 => table.row("open a channel by a deposit", opened.gas_used),
                2 => {
                    let topped = market.open_channel(&self.payer, &config, MicroUsd(1_000_000));
                    table.row("top a channel up", topped.await?.gas_used);
                }
                _ => {}
            }
        }
        let first = self.claim(0, 1, 10).await?;
        table.row("claim a channel for the first time", first);
        self.claim(0, CHANNELS, 100).await?;
        for (count, operation) in [
            (1, "claim 1 channel"),
            (10, "claim 10 channels"),
            (100, "claim 100 channels"),
        ] {
            let gas = self.claim(1, 1 + count, 200 + u64::from(count)).await?;
            table.row(operation, gas);
        }
        Ok(())
    }

    async fn records(&self, table: &mut Table) -> Result<(), ChainError> {
        let mut served = Service::default();
        let mut last = self.record(0, served).await?;
        // The first record of a channel, and of a provider, writes what was zero.
        for operation in ["post the first record of a provider", "post a record"] {
            served = more(served, 1)?;
            let record = self.record(0, served).await?;
            let post = self.post(&[(0, last, record)]).await?;
            let posted = self.market.post_service(&self.relay, &post).await?;
            table.row(operation, posted.gas_used);
            last = record;
        }
        let mut older = Vec::new();
        for salt in 1..CHANNELS {
            older.push(self.record(salt, Service::default()).await?);
        }
        for round in 1..=2 {
            let service = more(Service::default(), round)?;
            let mut records = Vec::new();
            for (salt, older) in (1..CHANNELS).zip(&mut older) {
                let record = self.record(salt, service).await?;
                records.push((salt, *older, record));
                *older = record;
            }
            let post = self.post(&records).await?;
            let posted = self.market.post_service(&self.relay, &post).await?;
            if round == 2 {
                table.row("post 100 records", posted.gas_used);
            }
        }

        // One channel, claimed again and again: what a request costs.
        let mut claimed = 1_000;
        for requests in [10u32, 100, 1_000] {
            claimed += u64::from(requests);
            let alone = self.claim(0, 1, claimed).await?;
            served = more(served, requests)?;
            let record = self.record(0, served).await?;
            claimed += u64::from(requests);
            let post = self.post(&[(0, last, record)]).await?;
            let claims = self.claims(0, 1, claimed).await?;
            let signed = self.market.sign_claims(&self.offer, &claims);
            let both = self
                .market
                .submit_claims(&self.relay, &signed, Some(&post))
                .await?;
            let both = both.mined.gas_used;
            last = record;
            if requests == 10 {
                table.row("claim 1 channel and post its record", both);
            }
            table.per_request.push(PerRequest {
                requests,
                claim: alone.div_ceil(requests.into()),
                claim_and_record: both.div_ceil(requests.into()),
            });
        }
        Ok(())
    }

    /// Money on its way to the provider, and back to the payer.
    async fn ends(&self, table: &mut Table) -> Result<(), ChainError> {
        let (market, provider) = (&self.market, self.owner.address());
        let vault = market.vault_of(provider).await?;
        market.collect(&self.relay, provider).await?;
        self.wait(2 * market.deployment().challenge_window_s);
        market.release(&self.relay, provider).await?;
        self.claim(1, 2, 400).await?;
        let settled = market.settle(&self.relay, vault).await?;
        table.row("settle to a receiver", settled.gas_used);
        self.claim(1, 2, 500).await?;
        let collected = market.collect(&self.relay, provider).await?;
        table.row("collect into the vault", collected.gas_used);
        self.wait(2 * market.deployment().challenge_window_s);
        let released = market.release(&self.relay, provider).await?;
        table.row("release to the provider", released.gas_used);
        let config = self.config(1).await?;
        for first in [true, false] {
            let refunded = market.refund(&self.relay, &self.offer, &config, MicroUsd(1_000));
            let refunded = refunded.await?;
            if !first {
                table.row("refund to the payer", refunded.gas_used);
            }
        }
        let asked = market
            .initiate_withdraw(&self.payer, &config, MicroUsd(1_000))
            .await?;
        table.row("ask for a withdrawal", asked.gas_used);
        self.wait(config.withdraw_delay_s);
        let withdrawn = market.finalize_withdraw(&self.payer, &config).await?;
        table.row("withdraw", withdrawn.gas_used);
        Ok(())
    }

    async fn dispute(&self, table: &mut Table) -> Result<(), ChainError> {
        let market = &self.market;
        let model = manifest();
        let published = market.publish_model(&self.relay, &model.encode()).await?;
        table.row("publish a manifest of one layer", published.gas_used);
        // So that the game is allowed to take bonds already.
        for opened_before in [false, true] {
            let sampler = SamplerParams::greedy(4);
            let prompt: &[u32] = if opened_before { &[5, 6, 7] } else { &[5, 6] };
            let statement =
                Statement::new(model.id(), prompt, &sampler, &[8, 9], StopReason::MaxTokens);
            let receipt = Receipt {
                statement,
                provider: self.owner.address(),
                payer: self.payer.address(),
                channel_id: B256::repeat_byte(4),
                charged: MicroUsd(100),
                cumulative: MicroUsd(200),
                served_at: market.chain().now().await?,
                ttft: DurationMs(10),
                duration: DurationMs(100),
                tier: Tier::Optimistic,
                request_id: B256::repeat_byte(0x1d),
            };
            let receipt = self.offer.sign(receipt, &market.domain());
            let (_, opened) = market.open_dispute(&self.relay, &receipt, &sampler).await?;
            if opened_before {
                table.row("open a dispute", opened.gas_used);
            }
        }
        Ok(())
    }

    async fn config(&self, salt: u8) -> Result<ChannelConfig, ChainError> {
        Ok(ChannelConfig {
            payer: self.payer.address(),
            payer_authorizer: Address::ZERO,
            receiver: self.market.vault_of(self.owner.address()).await?,
            receiver_authorizer: self.offer.address(),
            token: self.market.deployment().token,
            withdraw_delay_s: 900,
            // Like any other hash: no zeros that would be cheap to send.
            salt: alloy_primitives::keccak256([salt]),
        })
    }

    /// Claims this total from each of the channels, in one batch; returns the gas.
    async fn claim(&self, from: u8, to: u8, total: u64) -> Result<u64, ChainError> {
        let claims = self.claims(from, to, total).await?;
        let claimed = self.market.claim(&self.relay, &self.offer, &claims).await?;
        Ok(claimed.gas_used)
    }

    async fn claims(&self, from: u8, to: u8, total: u64) -> Result<Vec<Claim>, ChainError> {
        let mut claims = Vec::new();
        for salt in from..to {
            let config = self.config(salt).await?;
            let voucher = Voucher {
                channel_id: self.market.channel_id(&config)?,
                max_claimable: MicroUsd(total),
            };
            claims.push(Claim {
                config,
                voucher: self
                    .payer
                    .sign_voucher(voucher, &self.market.channel_domain()),
                total_claimed: MicroUsd(total),
            });
        }
        Ok(claims)
    }

    async fn record(&self, salt: u8, service: Service) -> Result<ServiceRecord, ChainError> {
        let channel_id = self.market.channel_id(&self.config(salt).await?)?;
        Ok(ServiceRecord {
            channel_id,
            service,
        })
    }

    /// Records in the places of older ones: channel, the older, the newer.
    async fn post(
        &self,
        records: &[(u8, ServiceRecord, ServiceRecord)],
    ) -> Result<ServicePost, ChainError> {
        let domain = self.market.deployment().scoreboard_domain();
        let mut entries = Vec::new();
        for (salt, previous, record) in records {
            let is_first = previous.service == Service::default();
            entries.push(ServiceEntry {
                config: self.config(*salt).await?,
                record: self.payer.sign(*record, &domain),
                previous: if is_first { NOTHING } else { *previous },
            });
        }
        let batch = ServiceBatch(records.iter().map(|(_, _, record)| *record).collect());
        Ok(ServicePost {
            provider: self.owner.address(),
            entries,
            signature: Some(self.offer.sign_digest(batch.digest(&domain))),
        })
    }
}

/// What stands in place of the record before the first.
const NOTHING: ServiceRecord = ServiceRecord {
    channel_id: B256::ZERO,
    service: Service {
        revenue: MicroUsd(0),
        prompt_tokens: 0,
        output_tokens: 0,
        requests: 0,
        failures: 0,
        ttft: Histogram([0; 8]),
        speed: Histogram([0; 8]),
    },
};

/// So many more requests, one micro-dollar each, in different classes.
fn more(mut service: Service, requests: u32) -> Result<Service, ChainError> {
    for request in 0..requests {
        let answer = Answered {
            charged: MicroUsd(1),
            prompt_tokens: 300,
            output_tokens: 200,
            ttft: DurationMs(50 << (request % 8)),
            rest: DurationMs(1_000 << (request % 8)),
        };
        // Not near any bound.
        service = service
            .answered(&answer)
            .map_err(|_| ChainError::BadAnswer {
                what: "service",
                why: "a count overflows".into(),
            })?;
    }
    Ok(service)
}

/// The least manifest that a game can be opened about; it is no model.
fn manifest() -> Manifest {
    let matrix = |rows: u32, cols: u32| MatrixEntry {
        rows,
        cols,
        sh: 30,
        root: B256::repeat_byte(7),
    };
    let gain = |len: u32| GainEntry {
        len,
        fs: 24,
        eps: 6_040,
        root: B256::repeat_byte(9),
    };
    let layer = LayerEntry {
        fractions: Fractions { q: 7, k: 8, v: 9 },
        window: 0,
        rope: 0,
        attention_norm: gain(64),
        q: matrix(64, 64),
        k: matrix(32, 64),
        v: matrix(32, 64),
        o: matrix(64, 64),
        ffn_norm: gain(64),
        gate: matrix(128, 64),
        up: matrix(128, 64),
        down: matrix(64, 128),
        gemma: None,
    };
    Manifest {
        architecture: Architecture::Llama,
        dims: Dims {
            layers: 1,
            width: 64,
            heads: 2,
            kv_heads: 1,
            head_dim: 32,
            ffn: 128,
            vocab: 288,
            context_max: 256,
        },
        residual_fraction: 10,
        attention_scale: AttentionScale { c: 47_274, csh: 10 },
        layers: vec![layer],
        final_norm: gain(64),
        embedding: matrix(288, 64),
        head: None,
        exp_root: B256::repeat_byte(1),
        act_root: B256::repeat_byte(2),
        rope_roots: vec![B256::repeat_byte(3)],
        tokenizer_hash: B256::repeat_byte(4),
        chat_template_hash: B256::ZERO,
        bos: None,
        eos: vec![2],
    }
}
