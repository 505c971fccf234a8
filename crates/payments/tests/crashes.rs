//! Payer and payee crash at random moments, answers get lost, and still: nothing is charged twice, no promise is
//! forgotten, and both books agree as soon as they speak again. Prints its seeds.

mod common;

use std::collections::BTreeMap;

use assay_payments::payee::Presented;
use assay_payments::payer::{LaneState, Payee};
use assay_payments::x402::{Literal2, PaymentRequired, ResourceInfo};
use assay_payments::{AcceptError, Paid, PayeeLedger, PayerLedger, PayerLedgerError};
use assay_protocol::{B256, MicroUsd, keccak256};
use common::{Key, NOW, config, on_chain, receipt, terms};
use tempfile::TempDir;

const BALANCE: u64 = 1_000_000;
const LANES: u8 = 3;

/// Both sides and what an all-knowing observer saw.
struct World {
    dir: TempDir,
    key: Key,
    payer: Option<PayerLedger>,
    payee: Option<PayeeLedger>,
    /// The highest voucher that ever left the payer, by channel.
    sent: BTreeMap<B256, u64>,
    /// The sum of all receipts, by channel.
    receipted: BTreeMap<B256, u64>,
    random: u64,
    requests: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            dir: TempDir::new().unwrap(),
            key: Key::new(1),
            payer: None,
            payee: None,
            sent: BTreeMap::new(),
            receipted: BTreeMap::new(),
            random: seed,
            requests: 0,
        };
        let payer = world.dir.path().join("payer.redb");
        drop(PayerLedger::create(&payer, terms().channels).unwrap());
        drop(PayeeLedger::create(&world.dir.path().join("payee.redb"), terms()).unwrap());
        world.reopen_payer();
        world.reopen_payee();
        for lane in 0..LANES {
            let config = config(&world.key, lane);
            world
                .payer()
                .add(config, MicroUsd(BALANCE), MicroUsd(0))
                .unwrap();
        }
        world
    }

    fn payer(&mut self) -> &mut PayerLedger {
        self.payer.as_mut().unwrap()
    }

    fn payee(&mut self) -> &mut PayeeLedger {
        self.payee.as_mut().unwrap()
    }

    /// The process dies without a word and starts again from its file.
    fn reopen_payer(&mut self) {
        self.payer = None;
        let path = self.dir.path().join("payer.redb");
        self.payer = Some(PayerLedger::open(&path, terms().channels).unwrap());
    }

    fn reopen_payee(&mut self) {
        self.payee = None;
        let path = self.dir.path().join("payee.redb");
        self.payee = Some(PayeeLedger::open(&path, terms()).unwrap());
    }

    /// One chance in `n`.
    fn chance(&mut self, n: u64) -> bool {
        self.draw(n) == 0
    }

    fn draw(&mut self, below: u64) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    /// One request, with everything that can happen to it.
    fn request(&mut self) {
        self.requests += 1;
        let id = keccak256(self.requests.to_be_bytes());
        let ceiling = MicroUsd(1 + self.draw(200));
        let key = Key::new(1);
        let payee = Payee::from(&terms().requirements(MicroUsd(0)));
        let paid = self
            .payer()
            .pay(&payee, ceiling, id, NOW, |digest| key.sign(digest));
        let paid = match paid {
            Ok(paid) => paid,
            Err(PayerLedgerError::NoLane { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        if self.chance(12) {
            return self.reopen_payer();
        }
        self.send(paid, 2);
    }

    fn send(&mut self, paid: Paid, tries: u32) {
        let channel = paid.channel_id();
        let max = paid.voucher.voucher.max_claimable.0;
        let sent = self.sent.entry(channel).or_default();
        *sent = max.max(*sent);
        let presented = Presented {
            config: paid.config,
            voucher: paid.voucher,
            offered: paid.ceiling,
            required: paid.ceiling,
            request_id: paid.request_id,
        };
        let reservation = match self.payee().accept(&presented, on_chain(BALANCE), NOW) {
            Ok(reservation) => reservation,
            Err(AcceptError::Refused(refusal)) => {
                assert!(tries > 0, "a corrected payment is refused: {refusal}");
                return self.correct(paid, tries - 1);
            }
            Err(error) => panic!("{error}"),
        };
        if self.chance(12) {
            // The payee dies while it answers: no receipt, no charge.
            self.reopen_payee();
            return self.payer().lose(channel, paid.request_id).unwrap();
        }
        if self.chance(12) {
            // Not a token was served.
            self.payee().release(&reservation).unwrap();
            return self
                .payer()
                .settle(channel, paid.request_id, MicroUsd(0))
                .unwrap();
        }
        let charged = self.draw(paid.ceiling.0 + 1);
        let total = reservation.cumulative(MicroUsd(charged)).unwrap();
        let mut signed = receipt(channel, 0, charged, total.0);
        signed.body.request_id = paid.request_id;
        self.payee().charge(&reservation, &signed, NOW).unwrap();
        *self.receipted.entry(channel).or_default() += charged;
        match self.draw(12) {
            0 => self.reopen_payee(),
            // The answer is lost, and perhaps its reader with it.
            1 => return self.payer().lose(channel, paid.request_id).unwrap(),
            2 => return self.reopen_payer(),
            _ => {}
        }
        self.payer()
            .settle(channel, paid.request_id, MicroUsd(charged))
            .unwrap();
    }

    fn correct(&mut self, paid: Paid, tries: u32) {
        let channel = paid.channel_id();
        let account = self.payee().account(&channel).unwrap().clone();
        let resource = ResourceInfo {
            url: "http://node/".into(),
            description: None,
            mime_type: None,
        };
        let required = PaymentRequired {
            x402_version: Literal2,
            error: None,
            resource,
            accepts: vec![account.corrective(terms().requirements(paid.ceiling))],
            extensions: None,
        };
        assert!(
            self.payer().correct(channel, &required).unwrap(),
            "an honest correction is taken"
        );
        let key = Key::new(1);
        let again = self
            .payer()
            .pay_on(channel, paid.ceiling, paid.request_id, NOW, |digest| {
                key.sign(digest)
            });
        self.send(again.unwrap(), tries);
    }

    fn check(&mut self) {
        let lanes: Vec<_> = self.payer().lanes().cloned().collect();
        for lane in lanes {
            let id = lane.channel_id;
            let sent = self.sent.get(&id).copied().unwrap_or(0);
            let receipted = self.receipted.get(&id).copied().unwrap_or(0);
            assert!(lane.signed_max.0 >= sent, "a promise was forgotten");
            assert!(lane.signed_max.0 <= BALANCE);
            assert_ne!(
                lane.state,
                LaneState::Quarantined,
                "an honest payee is trusted"
            );
            if lane.state == LaneState::Idle {
                assert_eq!(
                    lane.charged.0, receipted,
                    "idle books agree with the receipts"
                );
            }
            if let Some(account) = self.payee().account(&id) {
                assert_eq!(
                    account.charged.0, receipted,
                    "every charge has its receipt, and every receipt its charge"
                );
                assert!(
                    account.voucher.voucher.max_claimable >= account.charged,
                    "what is charged can be claimed"
                );
                assert_eq!(account.running, None);
            }
        }
    }
}

#[test]
fn books_agree_after_crashes_at_random_moments() {
    for seed in 1..=3 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..120 {
            world.request();
            world.check();
        }
        assert!(world.receipted.values().sum::<u64>() > 0);
    }
}
