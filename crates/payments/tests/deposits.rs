//! A payer crashes at random moments while its deposits get lost, wait, arrive and are taken back by reorganizations, and
//! still: no deposit is promised twice, and when the chain is quiet the books say what it says. Prints its seeds.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use assay_payments::PayerLedger;
use assay_payments::payer::{Deposit, Fate, Lane, Seen, Step};
use assay_protocol::channel::{ChannelConfig, DepositAuthorization};
use assay_protocol::{B256, MicroUsd, Signature, Timestamp};
use common::{Key, config, terms};
use tempfile::TempDir;

/// Blocks that a reorganization may take back.
const DEPTH: u64 = 4;
const LANES: u8 = 3;
const VALID_S: u64 = 600;

type Salt = u64;

/// A deposit on its way or in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    channel: B256,
    salt: Salt,
    amount: u64,
    valid_before: u64,
}

/// As much of a chain as deposits see of it.
#[derive(Default)]
struct Chain {
    block: u64,
    now: u64,
    pool: Vec<Sent>,
    mined: Vec<(u64, Sent)>,
}

impl Chain {
    fn used(&self, channel: B256, salt: Salt, below: u64) -> bool {
        let deep = self.block.saturating_sub(below);
        let of = |sent: &Sent| sent.channel == channel && sent.salt == salt;
        self.mined.iter().any(|(at, sent)| *at <= deep && of(sent))
    }

    fn balance(&self, channel: B256, below: u64) -> u64 {
        let deep = self.block.saturating_sub(below);
        let into = self
            .mined
            .iter()
            .filter(|(at, sent)| *at <= deep && sent.channel == channel);
        into.map(|(_, sent)| sent.amount).sum()
    }

    /// Puts what waits into a block, as the token lets it: once, and in time.
    fn mine(&mut self) {
        self.block += 1;
        self.now += 2;
        for sent in std::mem::take(&mut self.pool) {
            if self.now < sent.valid_before && !self.used(sent.channel, sent.salt, 0) {
                self.mined.push((self.block, sent));
            }
        }
    }

    /// The newest blocks are taken back; what was in them waits again or is forgotten.
    fn reorganize(&mut self, blocks: u64, forgets: bool) {
        let kept = self.block.saturating_sub(blocks);
        let (stay, gone): (Vec<_>, Vec<_>) = self.mined.drain(..).partition(|(at, _)| *at <= kept);
        self.mined = stay;
        if !forgets {
            self.pool.extend(gone.into_iter().map(|(_, sent)| sent));
        }
        // The other branch is as long.
    }

    fn see(&self, lane: &Lane) -> Seen {
        let deposit = match &lane.deposit {
            None => Fate::Absent,
            Some(deposit) => {
                let salt = salt(deposit);
                if !self.used(lane.channel_id, salt, 0) {
                    Fate::Absent
                } else if self.used(lane.channel_id, salt, DEPTH) {
                    Fate::Final
                } else {
                    Fate::Arrived
                }
            }
        };
        Seen {
            balance: MicroUsd(self.balance(lane.channel_id, 0)),
            claimed: MicroUsd(0),
            balance_final: MicroUsd(self.balance(lane.channel_id, DEPTH)),
            withdrawal: None,
            deposit,
            now: Timestamp(self.now),
        }
    }
}

fn salt(deposit: &Deposit) -> Salt {
    deposit.authorization.salt.to::<u64>()
}

struct World {
    dir: TempDir,
    key: Key,
    ledger: Option<PayerLedger>,
    chain: Chain,
    random: u64,
    salts: Salt,
    /// Every deposit that was ever signed, by channel.
    signed: BTreeMap<B256, Vec<Sent>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("payer.redb");
        let ledger = PayerLedger::create(&path, terms().channels).unwrap();
        Self {
            dir,
            key: Key::new(1),
            ledger: Some(ledger),
            chain: Chain {
                block: 100,
                now: 1_000_000,
                ..Chain::default()
            },
            random: seed,
            salts: 0,
            signed: BTreeMap::new(),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn ledger(&mut self) -> &mut PayerLedger {
        self.ledger.as_mut().unwrap()
    }

    /// The process dies without a word and starts again from its file.
    fn crash(&mut self) {
        self.ledger = None;
        let path = self.dir.path().join("payer.redb");
        self.ledger = Some(PayerLedger::open(&path, terms().channels).unwrap());
    }

    /// True if the process died just here.
    fn dies(&mut self) -> bool {
        let dies = self.draw(6) == 0;
        if dies {
            self.crash();
        }
        dies
    }

    fn lanes(&mut self) -> Vec<Lane> {
        self.ledger().lanes().cloned().collect()
    }

    /// Wants more money in a lane: what was written down comes first, as in the gateway.
    fn fund(&mut self) {
        let config: ChannelConfig = config(&self.key, self.random as u8 % LANES);
        let id = config.id(&terms().channels).unwrap();
        let known = self.lanes().into_iter().find(|lane| lane.channel_id == id);
        if known.as_ref().is_some_and(|lane| lane.deposit.is_some()) {
            return self.meet(id);
        }
        self.salts += 1;
        let amount = 1 + self.draw(1_000);
        let valid_before = self.chain.now + VALID_S;
        let deposit = Deposit {
            amount: MicroUsd(amount),
            authorization: DepositAuthorization {
                valid_after: Timestamp(0),
                valid_before: Timestamp(valid_before),
                salt: B256::left_padding_from(&self.salts.to_be_bytes()).into(),
                signature: Signature(Default::default()),
            },
            arrived: false,
        };
        if self.dies() {
            return;
        }
        let sent = Sent {
            channel: id,
            salt: self.salts,
            amount,
            valid_before,
        };
        // Nothing that was signed for this lane before can still come.
        for earlier in self.signed.entry(id).or_default() {
            let came = self.chain.used(id, earlier.salt, 0);
            assert!(
                came || self.chain.now >= earlier.valid_before,
                "two deposits of one lane are on their way: {earlier:?}, {sent:?}"
            );
        }
        self.signed.entry(id).or_default().push(sent);
        match known {
            Some(_) => self.ledger().top_up(id, deposit).unwrap(),
            None => {
                self.ledger().opening(config, deposit).unwrap();
            }
        }
        if self.dies() {
            return;
        }
        self.send(sent);
        if self.dies() {
            return;
        }
        self.meet(id);
    }

    /// It may be lost, wait, or be in a block at once.
    fn send(&mut self, sent: Sent) {
        match self.draw(4) {
            0 => {}
            1 => self.chain.pool.push(sent),
            _ => {
                self.chain.pool.push(sent);
                self.chain.mine();
            }
        }
    }

    fn meet(&mut self, id: B256) {
        let lane = self.ledger().lane(id).unwrap().clone();
        let seen = self.chain.see(&lane);
        let next = self.ledger().seen(id, &seen).unwrap();
        if self.dies() {
            return;
        }
        if let Step::Submit(deposit) = next.step(&seen) {
            self.send(Sent {
                channel: id,
                salt: salt(&deposit),
                amount: deposit.amount.0,
                valid_before: deposit.authorization.valid_before.0,
            });
        }
    }

    fn step(&mut self) {
        match self.draw(10) {
            0..=3 => self.fund(),
            4 => self.chain.mine(),
            5 => {
                let (blocks, forgets) = (self.draw(DEPTH), self.draw(2) == 0);
                self.chain.reorganize(blocks, forgets);
            }
            6 => self.chain.now += self.draw(VALID_S),
            7 => self.crash(),
            _ => {
                for lane in self.lanes() {
                    self.meet(lane.channel_id);
                }
            }
        }
        for (channel, signed) in &self.signed {
            let different: BTreeSet<_> = signed.iter().map(|sent| sent.salt).collect();
            assert_eq!(different.len(), signed.len());
            let most: u64 = signed.iter().map(|sent| sent.amount).sum();
            assert!(self.chain.balance(*channel, 0) <= most);
        }
    }

    /// Nothing happens any more, and the gateway looks at its lanes until nothing is on its way.
    fn settle(&mut self) {
        for _ in 0..200 {
            self.chain.mine();
            for lane in self.lanes() {
                self.meet(lane.channel_id);
            }
        }
        let lanes = self.lanes();
        assert!(lanes.iter().all(|lane| lane.deposit.is_none()));
        for lane in &lanes {
            assert_eq!(lane.balance.0, self.chain.balance(lane.channel_id, 0));
        }
        let books: u64 = lanes.iter().map(|lane| lane.balance.0).sum();
        let chain: u64 = self.chain.mined.iter().map(|(_, sent)| sent.amount).sum();
        assert_eq!(books, chain, "every deposit is in the books");
        assert_eq!(self.ledger().held().0, chain);
    }
}

#[test]
fn deposits_come_once_and_the_books_agree_after_crashes_and_reorganizations() {
    for seed in 1..=6 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.settle();
        assert!(!world.chain.mined.is_empty());
    }
}
