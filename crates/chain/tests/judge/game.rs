//! Whole games on whole chains, embedded and anvil: a liar and an honest challenger with real traces,
//! move by move through the contracts, until the stake is taken. Prints what each side's moves cost.

use std::sync::atomic::{AtomicU8, Ordering};

use assay_chain::{Dispute, Key};
use assay_dispute::{Move, Outcome, Phase, Player, Reveal, Seen, Side, Trace};
use assay_engine::Model;
use assay_protocol::trace::{Element, Segment};
use assay_protocol::{B256, DurationMs, MicroUsd, Receipt, SamplerParams, Signed, Tier, TokenId};
use assay_testkit::tiny::Tiny;

use crate::court::{Case, answer, pick};
use crate::honest::{drawn, greedy, small, text};
use crate::liars::Flipped;
use crate::support::{Net, Scene, THOUSAND};

/// What a game cost.
#[derive(Debug, Default)]
pub(crate) struct Bill {
    moves: u32,
    open: u64,
    provider: u64,
    challenger: u64,
    last: u64,
}

impl Bill {
    pub(crate) fn whole(&self) -> u64 {
        self.open + self.provider + self.challenger
    }
}

/// Whether the provider shows its trace off the chain.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Fast,
    Slow,
}

/// A market with a doubted receipt in it.
pub(crate) struct Table {
    scene: Scene,
    challenger: Key,
    /// One game a receipt.
    receipts: AtomicU8,
}

impl Table {
    pub(crate) async fn new(net: Net, model: &Model) -> Table {
        let scene = Scene::new(net).await;
        let challenger = scene.net.key().await;
        let market = &scene.market;
        let minted = market.mint(&scene.relay, challenger.address(), THOUSAND);
        minted.await.expect("anybody mints");
        let manifest = model.manifest().encode();
        let published = market.publish_model(&scene.relay, &manifest).await;
        println!(
            "publish the manifest: {} gas",
            published.expect("it fits").gas_used
        );
        Table {
            scene,
            challenger,
            receipts: AtomicU8::new(0),
        }
    }

    async fn receipt(&self, case: &Case) -> Signed<Receipt> {
        let body = Receipt {
            statement: case.statement,
            provider: self.scene.owner.address(),
            payer: self.scene.payer.address(),
            channel_id: B256::repeat_byte(4),
            charged: MicroUsd(1_234),
            cumulative: MicroUsd(2_345),
            served_at: self.scene.net.block_time().await,
            ttft: DurationMs(12),
            duration: DurationMs(340),
            tier: Tier::Optimistic,
            request_id: B256::repeat_byte(self.receipts.fetch_add(1, Ordering::Relaxed)),
        };
        self.scene.offer.sign(body, &self.scene.market.domain())
    }

    async fn told(&self, id: B256) -> Dispute {
        let told = self.scene.market.dispute(id).await;
        told.expect("the chain answers").expect("a game")
    }

    /// Plays to the end; `theirs` is the trace that the provider defends with.
    pub(crate) async fn play(
        &self,
        case: &Case,
        theirs: &dyn Trace,
        path: Path,
    ) -> (Outcome, Bill) {
        let market = &self.scene.market;
        let receipt = self.receipt(case).await;
        let opened = market
            .open_dispute(&self.challenger, &receipt, case.trace.sampler())
            .await;
        let (id, mined) = opened.expect("the game opens");
        let mut bill = Bill {
            open: mined.gas_used,
            ..Bill::default()
        };
        let mut ours = case.player();
        let mut theirs = Player::new(theirs).expect("a whole trace");
        loop {
            let dispute = self.told(id).await;
            if let Phase::Over(outcome) = dispute.game.phase {
                return (outcome, bill);
            }
            let now = self.scene.net.block_time().await;
            let served = match (path, dispute.game.trace_root) {
                (Path::Fast, Some(root)) => Some(served(&mut ours, &mut theirs, case, root)),
                _ => None,
            };
            let provider = theirs.next_moves(&dispute.game, None, Side::Provider, now);
            let challenger = ours.next_moves(&dispute.game, served.as_ref(), Side::Challenger, now);
            let moves = [
                (&self.scene.offer, provider.expect("the provider's moves")),
                (
                    &self.challenger,
                    challenger.expect("the challenger's moves"),
                ),
            ];
            let mut moved = false;
            for (key, play) in moves
                .iter()
                .flat_map(|(key, moves)| moves.iter().map(move |play| (*key, play)))
            {
                let mined = market.play(key, &dispute, play).await.expect("a move");
                let of = match play {
                    Move::PostTrace { .. } | Move::Reveal { .. } => &mut bill.provider,
                    _ => &mut bill.challenger,
                };
                *of += mined.gas_used;
                bill.last = mined.gas_used;
                bill.moves += 1;
                moved = true;
            }
            if !moved {
                // Whose turn it is has nothing to say: its clock runs out.
                self.scene.net.advance(31).await;
                let turn = dispute.game.turn();
                let caller = match turn {
                    Some(Side::Challenger) => &self.scene.offer,
                    _ => &self.challenger,
                };
                let mined = market.play(caller, &dispute, &Move::Timeout).await;
                bill.last = mined.expect("time is called").gas_used;
            }
        }
    }
}

/// All that leads to the first difference, as a provider serves it off the chain.
fn served(ours: &mut Player<'_>, theirs: &mut Player<'_>, case: &Case, root: B256) -> Seen {
    let program = case.program();
    let mut seen = Seen::new(program, root);
    while let assay_dispute::Parting::Below(node) = ours.parting(&seen).expect("a parting") {
        let below = theirs.below(&node).expect("what a liar shows");
        seen.learn(program, &Reveal { node, below })
            .expect("what hashes");
    }
    seen
}

fn element(case: &Case, segment: Segment, seed: u64) -> Element {
    let program = case.program();
    let all: Vec<Element> = (0..program.ops())
        .flat_map(|op| (0..program.rows(op)).map(move |row| (op, row)))
        .map(|(op, row)| assay_protocol::trace::LeafId { op, row })
        .filter_map(|leaf| Some((leaf, program.part(leaf, segment)?)))
        .map(|(leaf, part)| Element {
            leaf,
            segment,
            index: pick(seed, part.len),
        })
        .collect();
    all[pick(seed ^ 1, all.len() as u64) as usize]
}

/// The games that are played on each chain, and how each must end.
async fn games(
    net: Net,
    model: &Model,
    prompt: &[TokenId],
    samplers: &[SamplerParams],
    wide: Segment,
) {
    let table = Table::new(net, model).await;
    for sampler in samplers {
        let case = Case::honest(model, prompt, sampler);
        for path in [Path::Slow, Path::Fast] {
            let before = table.stake().await;
            let liar = Flipped::new(&case.trace, element(&case, wide, 9), 9);
            let (outcome, bill) = table.play(&case, &liar, path).await;
            let name = if path == Path::Fast { "fast" } else { "slow" };
            println!(
                "{name} game over {wide:?}: {} gas in {} moves (open {}, provider {}, challenger {}, the step {})",
                bill.whole(),
                bill.moves,
                bill.open,
                bill.provider,
                bill.challenger,
                bill.last
            );
            assert_eq!(outcome, Outcome::Convicted);
            assert!(before > MicroUsd(0) && table.stake().await == MicroUsd(0));
            table.stake_again().await;
        }
        // A fool doubts an honest receipt: it has nothing to prove, and loses its bond.
        let (outcome, _) = table.play(&case, &case.trace, Path::Slow).await;
        assert_eq!(outcome, Outcome::Rejected);
        assert!(table.stake().await > MicroUsd(0));
        // The trace is honest and the answer is not.
        let (mut output, stop) = answer(model, prompt, sampler);
        output[0] = (output[0] + 1) % 200;
        let case = Case::of(model, prompt, sampler, &output, stop);
        let (outcome, bill) = table.play(&case, &case.trace, Path::Slow).await;
        println!(
            "game over a token: {} gas in {} moves",
            bill.whole(),
            bill.moves
        );
        assert_eq!(outcome, Outcome::Convicted);
        table.stake_again().await;
    }
}

impl Table {
    async fn stake(&self) -> MicroUsd {
        let owner = self.scene.owner.address();
        let provider = self.scene.market.provider(owner).await;
        provider
            .expect("the chain answers")
            .expect("it is known")
            .stake
    }

    /// The slashed provider comes back, as anybody may.
    async fn stake_again(&self) {
        let amount = MicroUsd(50_000_000);
        let staked = self.scene.market.add_stake(&self.scene.owner, amount).await;
        staked.expect("a stake");
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(future)
}

#[test]
fn whole_games_end_as_they_must_on_the_embedded_chain_and_on_anvil() {
    block_on(async {
        for tiny in [Tiny::llama(21), Tiny::gemma3(22)] {
            let model = small(tiny);
            let samplers = [greedy(3), drawn(2, 40, 60_000)];
            let prompt = text(6, 288);
            let embedded = Net::embedded().await;
            games(embedded, &model, &prompt, &samplers, Segment::Down).await;
            if let Some(anvil) = Net::anvil().await {
                games(anvil, &model, &prompt, &samplers[..1], Segment::ActX12).await;
            }
        }
    });
}

/// What the goals name: 512 + 256 tokens, the widest product, the slow path.
#[test]
#[ignore = "pulls the real models"]
fn real_games() {
    block_on(async {
        for name in ["smollm2-135m-instruct", "gemma-3-270m"] {
            let model = crate::real::model(name);
            let prompt = crate::real::prompt(512, model.manifest().dims.vocab);
            println!("{name}, 512 + 256 tokens");
            let net = Net::embedded().await;
            games(net, &model, &prompt, &[greedy(256)], Segment::Down).await;
        }
    });
}
