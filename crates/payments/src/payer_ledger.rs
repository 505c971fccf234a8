//! The payer's books on disk. A voucher is durable here before anybody can send it, so that a crash never makes the
//! payer forget a promise; one process writes, and each lane has one request in flight.

use std::collections::BTreeMap;
use std::path::Path;

use assay_protocol::channel::{ChannelConfig, ChannelDomain, SignedVoucher, Voucher};
use assay_protocol::{
    Address, Answered, B256, MicroUsd, Service, ServiceRecord, Signature, Timestamp,
};
use redb::{ReadableTable, TableDefinition};

use crate::payer::{Deposit, Lane, LaneError, LaneState, Payee, Reported, Seen, choose};
use crate::store::{Kind, LedgerError, Store};
use crate::x402::{
    Literal2, Payload, PaymentPayload, PaymentRequired, PaymentRequirements, RefundPayload,
    VoucherPayload,
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
    /// Makes the books of a payer that never had any, where no file is.
    pub fn create(path: &Path, domain: ChannelDomain) -> Result<Self, LedgerError> {
        Self::create_with(path, domain, std::iter::empty())
    }

    /// Makes books in place of lost ones: these channels are the payer's, and all of them are closed. Either all of it
    /// is on disk afterwards or nothing.
    pub fn recover(
        path: &Path,
        domain: ChannelDomain,
        channels: impl IntoIterator<Item = (ChannelConfig, MicroUsd, MicroUsd)>,
    ) -> Result<Self, PayerLedgerError> {
        let lanes = channels.into_iter().map(|(config, balance, claimed)| {
            let id = config.id(&domain).map_err(LaneError::Proof)?;
            Ok(Lane::recovered(config, id, balance, claimed))
        });
        let lanes: Vec<Lane> = lanes.collect::<Result<_, LaneError>>()?;
        Ok(Self::create_with(path, domain, lanes)?)
    }

    fn create_with(
        path: &Path,
        domain: ChannelDomain,
        lanes: impl IntoIterator<Item = Lane>,
    ) -> Result<Self, LedgerError> {
        let lanes: BTreeMap<B256, Lane> = lanes
            .into_iter()
            .map(|lane| (lane.channel_id, lane))
            .collect();
        let store = Store::create(path, KIND, &domain, |txn| {
            let mut table = txn.open_table(LANES)?;
            for lane in lanes.values() {
                table.insert(lane.channel_id.as_slice(), json(lane).as_slice())?;
            }
            Ok(())
        })?;
        Ok(Self {
            store,
            domain,
            lanes,
        })
    }

    /// Opens the books. Requests that were in flight when the process died leave their lanes unresolved.
    pub fn open(path: &Path, domain: ChannelDomain) -> Result<Self, LedgerError> {
        let store = Store::open(path, KIND, &domain)?;
        let rows = store.read(|txn| {
            let table = match txn.open_table(LANES) {
                Ok(table) => table,
                // An earlier version made the table with the first lane.
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
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

    /// Writes down a channel that is to be opened with this deposit. When this returns it may be sent.
    pub fn opening(
        &mut self,
        config: ChannelConfig,
        deposit: Deposit,
    ) -> Result<B256, PayerLedgerError> {
        let id = config.id(&self.domain).map_err(LaneError::Proof)?;
        if self.lanes.contains_key(&id) {
            return Err(PayerLedgerError::KnownChannel(id));
        }
        self.put(Lane::opening(config, id, deposit))?;
        Ok(id)
    }

    /// Writes down a further deposit into a channel. When this returns it may be sent.
    pub fn top_up(&mut self, channel_id: B256, deposit: Deposit) -> Result<(), PayerLedgerError> {
        let next = self.lane(channel_id)?.topped_up(deposit)?;
        self.put(next)
    }

    /// Takes the chain's word about a channel. Returns what became of its lane.
    pub fn seen(&mut self, channel_id: B256, seen: &Seen) -> Result<Lane, PayerLedgerError> {
        let lane = self.lane(channel_id)?;
        let next = lane.seen(seen);
        if next != *lane {
            self.put(next.clone())?;
        }
        Ok(next)
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

    /// Takes a free lane to `payee` and signs the voucher for a request. When this returns, the promise is on disk.
    pub fn pay(
        &mut self,
        payee: &Payee,
        ceiling: MicroUsd,
        request_id: B256,
        now: Timestamp,
        sign: impl FnOnce(&B256) -> Signature,
    ) -> Result<Paid, PayerLedgerError> {
        let receiver = payee.receiver;
        let no_lane = PayerLedgerError::NoLane { receiver, ceiling };
        let lanes = self.lanes.values().filter(|lane| lane.pays(payee));
        let lane = choose(lanes, ceiling).ok_or(no_lane)?;
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

    /// The request ended with this charge and counts for nothing: it was refused before anything was served.
    pub fn settle(
        &mut self,
        channel_id: B256,
        request_id: B256,
        charged: MicroUsd,
    ) -> Result<(), PayerLedgerError> {
        let next = self.lane(channel_id)?.settled(request_id, charged)?;
        self.put(next)
    }

    /// The request ended in a receipt that holds: charge and count are one entry.
    pub fn answered(
        &mut self,
        channel_id: B256,
        request_id: B256,
        answer: &Answered,
    ) -> Result<(), PayerLedgerError> {
        let next = self.lane(channel_id)?.answered(request_id, answer)?;
        self.put(next)
    }

    /// The request's fate is unknown through nobody's fault, as when this side left.
    pub fn lose(&mut self, channel_id: B256, request_id: B256) -> Result<(), PayerLedgerError> {
        let next = self.lane(channel_id)?.lost(request_id)?;
        self.put(next)
    }

    /// The same through the provider's fault, as when its stream broke off without a receipt: counted in one entry.
    pub fn fail(&mut self, channel_id: B256, request_id: B256) -> Result<(), PayerLedgerError> {
        let next = self.lane(channel_id)?.failed(request_id)?;
        self.put(next)
    }

    /// Notes what a provider said to the totals of a channel.
    pub fn reported(
        &mut self,
        record: &ServiceRecord,
        said: Reported,
        at: Timestamp,
    ) -> Result<(), PayerLedgerError> {
        let lane = self.lane(record.channel_id)?;
        self.put(lane.reported(record.service, said, at))
    }

    /// Notes what the scoreboard shows of a channel.
    pub fn posted(
        &mut self,
        channel_id: B256,
        posted: Service,
        at: Timestamp,
    ) -> Result<(), PayerLedgerError> {
        let lane = self.lane(channel_id)?;
        let next = lane.posted(posted, at);
        if next == *lane {
            return Ok(());
        }
        self.put(next)
    }

    /// Asks a payee for what is left of a closed channel; promises no more than was charged.
    pub fn refund(
        &self,
        channel_id: B256,
        accepted: PaymentRequirements,
        sign: impl FnOnce(&B256) -> Signature,
    ) -> Result<PaymentPayload, PayerLedgerError> {
        let lane = self.lane(channel_id)?;
        let voucher = lane.closing_voucher();
        let signature = sign(&voucher.digest(&self.domain));
        Ok(PaymentPayload {
            x402_version: Literal2,
            resource: None,
            accepted,
            payload: Payload::Refund(RefundPayload {
                channel_config: lane.config.into(),
                voucher: SignedVoucher { voucher, signature }.into(),
                amount: None,
            }),
            extensions: None,
        })
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

    /// What is in channels or on its way there.
    pub fn held(&self) -> MicroUsd {
        let lanes = self.lanes.values();
        MicroUsd(lanes.fold(0u64, |sum, lane| sum.saturating_add(lane.held().0)))
    }

    fn put(&mut self, lane: Lane) -> Result<(), PayerLedgerError> {
        let json = json(&lane);
        self.store.write(|txn| {
            txn.open_table(LANES)?
                .insert(lane.channel_id.as_slice(), json.as_slice())?;
            Ok(())
        })?;
        self.lanes.insert(lane.channel_id, lane);
        Ok(())
    }
}

fn json(lane: &Lane) -> Vec<u8> {
    serde_json::to_vec(lane).expect("a lane is plain data")
}
