//! The payer's books on disk. A voucher is durable here before anybody can send it, so that a crash never makes the
//! payer forget a promise; one process writes, and each lane has one request in flight.

use std::collections::BTreeMap;
use std::path::Path;

use assay_protocol::channel::{ChannelConfig, ChannelDomain, SignedVoucher, Voucher};
use assay_protocol::{Address, B256, MicroUsd, Signature, Timestamp};
use redb::{ReadableTable, TableDefinition};

use crate::payer::{Lane, LaneError, LaneState, choose};
use crate::store::{Kind, LedgerError, Store};
use crate::x402::{
    Literal2, Payload, PaymentPayload, PaymentRequired, PaymentRequirements, VoucherPayload,
};

/// Channel id → [`Lane`] as JSON.
const LANES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("lanes");
const KIND: Kind = Kind {
    format: "assay payer ledger 1",
    recover: "assay gateway recover",
};

/// Why the payer's ledger refuses.
#[derive(Debug, thiserror::Error)]
pub enum PayerLedgerError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Lane(#[from] LaneError),
    #[error("no lane to {receiver} can pay {ceiling} now: open another lane or top one up")]
    NoLane {
        receiver: Address,
        ceiling: MicroUsd,
    },
    #[error("channel {0} is not in the ledger")]
    UnknownChannel(B256),
    #[error("channel {0} is in the ledger already")]
    KnownChannel(B256),
}

/// A payment that is durable and may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paid {
    pub config: ChannelConfig,
    pub voucher: SignedVoucher,
    pub ceiling: MicroUsd,
    pub request_id: B256,
}

impl Paid {
    pub fn channel_id(&self) -> B256 {
        self.voucher.voucher.channel_id
    }

    /// The message for `PAYMENT-SIGNATURE`.
    pub fn payload(&self, accepted: PaymentRequirements) -> PaymentPayload {
        PaymentPayload {
            x402_version: Literal2,
            resource: None,
            accepted,
            payload: Payload::Voucher(VoucherPayload {
                channel_config: self.config.into(),
                voucher: self.voucher.into(),
            }),
            extensions: None,
        }
    }
}

/// All lanes of one payer.
pub struct PayerLedger {
    store: Store,
    domain: ChannelDomain,
    lanes: BTreeMap<B256, Lane>,
}

impl PayerLedger {
    /// Opens the books. Requests that were in flight when the process died leave their lanes unresolved.
    pub fn open(path: &Path, domain: ChannelDomain) -> Result<Self, LedgerError> {
        let store = if matches!(path.try_exists(), Ok(false)) {
            Store::create(path, KIND, &domain, |_| Ok(()))?
        } else {
            Store::open(path, KIND, &domain)?
        };
        let rows = store.write(|txn| {
            let table = txn.open_table(LANES)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                rows.push(row?.1.value().to_vec());
            }
            Ok(rows)
        })?;
        let mut lanes = BTreeMap::new();
        for row in rows {
            let lane: Lane = store.parse(&row)?;
            lanes.insert(lane.channel_id, lane.reopened());
        }
        Ok(Self {
            store,
            domain,
            lanes,
        })
    }

    /// Enters a channel that is open on the chain, with what the chain says about it.
    pub fn add(
        &mut self,
        config: ChannelConfig,
        balance: MicroUsd,
        claimed: MicroUsd,
    ) -> Result<B256, PayerLedgerError> {
        let id = config.id(&self.domain).map_err(LaneError::Proof)?;
        if self.lanes.contains_key(&id) {
            return Err(PayerLedgerError::KnownChannel(id));
        }
        self.put(Lane::new(config, id, balance, claimed))?;
        Ok(id)
    }

    /// The chain says that the channel holds this much now.
    pub fn set_balance(
        &mut self,
        channel_id: B256,
        balance: MicroUsd,
    ) -> Result<(), PayerLedgerError> {
        let lane = Lane {
            balance,
            ..self.lane(channel_id)?.clone()
        };
        self.put(lane)
    }

    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.values()
    }

    /// The lanes to one payee.
    pub fn lanes_to(&self, receiver: Address) -> impl Iterator<Item = &Lane> {
        self.lanes
            .values()
            .filter(move |lane| lane.config.receiver == receiver)
    }

    pub fn lane(&self, channel_id: B256) -> Result<&Lane, PayerLedgerError> {
        self.lanes
            .get(&channel_id)
            .ok_or(PayerLedgerError::UnknownChannel(channel_id))
    }

    /// Takes a free lane to `receiver` and signs the voucher for a request. When this returns, the promise is on disk.
    pub fn pay(
        &mut self,
        receiver: Address,
        ceiling: MicroUsd,
        request_id: B256,
        now: Timestamp,
        sign: impl FnOnce(&B256) -> Signature,
    ) -> Result<Paid, PayerLedgerError> {
        let no_lane = PayerLedgerError::NoLane { receiver, ceiling };
        let lane = choose(self.lanes_to(receiver), ceiling).ok_or(no_lane)?;
        self.pay_on(lane.channel_id, ceiling, request_id, now, sign)
    }

    /// The same on a given lane, as after a correction.
    pub fn pay_on(
        &mut self,
        channel_id: B256,
        ceiling: MicroUsd,
        request_id: B256,
        now: Timestamp,
        sign: impl FnOnce(&B256) -> Signature,
    ) -> Result<Paid, PayerLedgerError> {
        let (next, voucher): (Lane, Voucher) =
            self.lane(channel_id)?.start(ceiling, request_id, now)?;
        let config = next.config;
        // First the books, then the signature: a promise that nobody holds yet harms nobody.
        self.put(next)?;
        let signature = sign(&voucher.digest(&self.domain));
        Ok(Paid {
            config,
            voucher: SignedVoucher { voucher, signature },
            ceiling,
            request_id,
        })
    }

    /// The request ended with this charge; zero if it was refused before anything was served.
    pub fn settle(
        &mut self,
        channel_id: B256,
        request_id: B256,
        charged: MicroUsd,
    ) -> Result<(), PayerLedgerError> {
        let next = self.lane(channel_id)?.settled(request_id, charged)?;
        self.put(next)
    }

    /// The request's fate is unknown, as when a stream broke off without a receipt.
    pub fn lose(&mut self, channel_id: B256, request_id: B256) -> Result<(), PayerLedgerError> {
        let next = self.lane(channel_id)?.lost(request_id)?;
        self.put(next)
    }

    /// Takes a corrective 402 for the request in flight. True if the lane is idle again and the request can be paid
    /// anew with [`PayerLedger::pay_on`]; false if the answer corrects nothing here. A state that claims more than was
    /// promised quarantines the lane and is an error.
    pub fn correct(
        &mut self,
        channel_id: B256,
        required: &PaymentRequired,
    ) -> Result<bool, PayerLedgerError> {
        let extras = required.accepts.iter().map(|accepted| &accepted.extra);
        let state = extras.filter_map(|extra| {
            Some((extra.channel_state.as_ref()?, extra.voucher_state.as_ref()))
        });
        let Some((channel, proof)) = state
            .into_iter()
            .find(|(channel, _)| channel.channel_id == channel_id)
        else {
            return Ok(false);
        };
        let lane = self.lane(channel_id)?;
        match lane.corrected(&self.domain, channel, proof) {
            Ok(next) => self.put(next).map(|()| true),
            Err(error) => {
                let next = lane.quarantined();
                self.put(next)?;
                Err(error.into())
            }
        }
    }

    /// Signs nothing more on this lane.
    pub fn quarantine(&mut self, channel_id: B256) -> Result<(), PayerLedgerError> {
        let next = self.lane(channel_id)?.quarantined();
        self.put(next)
    }

    /// What was charged over all lanes, and what could still be claimed on top by requests not yet settled.
    pub fn totals(&self) -> (MicroUsd, MicroUsd) {
        let charged = self
            .lanes
            .values()
            .fold(0u64, |sum, lane| sum.saturating_add(lane.charged.0));
        let open = self
            .lanes
            .values()
            .filter(|lane| lane.state != LaneState::Idle);
        let at_risk = open.fold(0u64, |sum, lane| {
            sum.saturating_add(lane.signed_max.0.saturating_sub(lane.charged.0))
        });
        (MicroUsd(charged), MicroUsd(at_risk))
    }

    fn put(&mut self, lane: Lane) -> Result<(), PayerLedgerError> {
        let json = serde_json::to_vec(&lane).expect("a lane is plain data");
        self.store.write(|txn| {
            txn.open_table(LANES)?
                .insert(lane.channel_id.as_slice(), json.as_slice())?;
            Ok(())
        })?;
        self.lanes.insert(lane.channel_id, lane);
        Ok(())
    }
}
