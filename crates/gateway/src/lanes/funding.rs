//! Where lanes meet the chain: a deposit is written down, sent, and looked for until the chain has it; a closed lane's
//! money is asked back. Each step may be the last before a crash, and the next look goes on from there: what to do is
//! `assay_payments::payer`'s to say, by the books and the chain's word.

use assay_chain::{ChainError, ChannelState};
use assay_payments::payer::{Deposit, Fate, Lane, LaneState, Seen, Step, Withdrawal};
use assay_protocol::channel::ChannelConfig;
use assay_protocol::{B256, MicroUsd, Timestamp};

use super::{Ask, LaneTrouble, Lanes};

impl Lanes {
    /// Ends a deposit that is on its way, tops up a free lane that holds too little, or opens another one. Returns what
    /// was deposited anew. The caller has the turn.
    pub(super) async fn fund(&self, ask: Ask) -> Result<Option<MicroUsd>, LaneTrouble> {
        let delay = ask.payee.withdraw_delay_s;
        if delay > self.spending.withdraw_delay_s_max {
            return Err(LaneTrouble::WithdrawDelay(delay));
        }
        if let Some(wait) = self.away.wait() {
            return Err(LaneTrouble::Away(wait));
        }
        let lanes: Vec<Lane> = {
            let ledger = self.lock();
            let usable = ledger
                .lanes()
                .filter(|lane| lane.is_open() && lane.pays(&ask.payee));
            usable.cloned().collect()
        };
        // The same money is never promised twice: what was written down comes first.
        let coming = lanes
            .iter()
            .find(|lane| lane.deposit.is_some_and(|deposit| !deposit.arrived));
        if let Some(lane) = coming {
            self.meet(lane.channel_id).await?;
            return Ok(None);
        }
        let amount = self.spending.deposit.max(ask.ceiling);
        self.can_spend(amount).await?;
        let free = lanes
            .iter()
            .find(|lane| lane.deposit.is_none() && !matches!(lane.state, LaneState::InFlight(_)));
        if free.is_none() && lanes.len() >= self.spending.lanes_per_provider {
            return Err(LaneTrouble::AllBusy(lanes.len()));
        }
        let config = match free {
            Some(lane) => lane.config,
            None => self.new_channel(&ask)?,
        };
        let authorizing = self.market.authorize_deposit(&self.payer, &config, amount);
        let deposit = Deposit {
            amount,
            authorization: self.away.ask(self.patience.answer, authorizing).await?,
            arrived: false,
        };
        let known = free.map(|lane| lane.channel_id);
        let channel_id = self
            .books(move |ledger| match known {
                Some(channel_id) => ledger.top_up(channel_id, deposit).map(|()| channel_id),
                None => ledger.opening(config, deposit),
            })
            .await?;
        self.submit(&config, &deposit).await?;
        self.meet(channel_id).await?;
        Ok(Some(amount))
    }

    /// Within this gateway's own limit, and in its account.
    async fn can_spend(&self, amount: MicroUsd) -> Result<(), LaneTrouble> {
        let held = self.lock().held();
        let limit = self.spending.deposits_max;
        let left = MicroUsd(limit.0.saturating_sub(held.0));
        if amount > left {
            return Err(LaneTrouble::Limit {
                needed: amount,
                limit,
                left,
            });
        }
        let payer = self.payer.address();
        let asking = self.market.balance(payer);
        let balance = self.away.ask(self.patience.answer, asking).await?;
        if balance < amount {
            return Err(LaneTrouble::Empty {
                payer,
                balance,
                needed: amount,
            });
        }
        Ok(())
    }

    fn new_channel(&self, ask: &Ask) -> Result<ChannelConfig, LaneTrouble> {
        let payer = self.payer.address();
        Ok(ChannelConfig {
            payer,
            payer_authorizer: payer,
            receiver: ask.payee.receiver,
            receiver_authorizer: ask.payee.authorizer,
            token: ask.payee.token,
            withdraw_delay_s: ask.payee.withdraw_delay_s,
            salt: crate::gateway::random_word().ok_or(LaneTrouble::NoRandomness)?,
        })
    }

    async fn submit(&self, config: &ChannelConfig, deposit: &Deposit) -> Result<(), LaneTrouble> {
        let Deposit {
            amount,
            authorization,
            ..
        } = deposit;
        let sending = self
            .market
            .deposit(&self.payer, config, *amount, authorization);
        let sent = self.away.ask(self.patience.mined, sending).await;
        if let Err(error) = sent {
            // It may have come all the same, by an earlier sending: then there is nothing to complain of.
            let asking = self.arrived(config, deposit, 0);
            if self.away.ask(self.patience.answer, asking).await? {
                return Ok(());
            }
            return Err(error.into());
        }
        Ok(())
    }

    /// Looks at a lane's channel, enters what the chain says, and sends what follows from that, but for asking money
    /// back: returns the lane and how much is to be asked for. The caller has the turn.
    pub(super) async fn meet(&self, channel_id: B256) -> Result<(Lane, MicroUsd), LaneTrouble> {
        let lane = self.lock().lane(channel_id)?.clone();
        let (lane, step) = self.look(&lane).await?;
        let lane = match step {
            Step::Nothing => lane,
            Step::AskBack(amount) => return Ok((lane, amount)),
            Step::Submit(deposit) => {
                self.submit(&lane.config, &deposit).await?;
                self.look(&lane).await?.0
            }
            Step::TakeBack => {
                let taking = self.market.finalize_withdraw(&self.payer, &lane.config);
                self.away.ask(self.patience.mined, taking).await?;
                self.look(&lane).await?.0
            }
        };
        Ok((lane, MicroUsd::ZERO))
    }

    async fn look(&self, lane: &Lane) -> Result<(Lane, Step), LaneTrouble> {
        let seen = self.away.ask(self.patience.answer, self.see(lane)).await?;
        let channel_id = lane.channel_id;
        let (was_open, next) = (
            lane.is_open(),
            self.books(move |ledger| ledger.seen(channel_id, &seen))
                .await?,
        );
        if was_open && !next.is_open() {
            tracing::warn!(%channel_id, claimed = %seen.claimed, charged = %lane.charged,
                "a channel was closed: the chain tells of it what these books do not know");
        }
        let step = next.step(&seen);
        Ok((next, step))
    }

    /// The chain's word about a lane's channel. The deposit is asked for before the balance, so that a deposit that came
    /// is always in it.
    async fn see(&self, lane: &Lane) -> Result<Seen, ChainError> {
        let depth = self.market.deployment().confirmations;
        let deposit = match &lane.deposit {
            None => Fate::Absent,
            Some(deposit) if !self.arrived(&lane.config, deposit, 0).await? => Fate::Absent,
            Some(_) if depth == 0 => Fate::Final,
            Some(deposit) => match self.arrived(&lane.config, deposit, depth).await {
                Ok(true) => Fate::Final,
                Ok(false) | Err(ChainError::NoHistory { .. }) => Fate::Arrived,
                Err(error) => return Err(error),
            },
        };
        let state = self.market.channel(lane.channel_id).await?;
        let balance_final = if depth == 0 || lane.is_open() {
            state.balance
        } else {
            match self.market.channel_at(lane.channel_id, depth).await {
                Ok(deep) => deep.balance,
                // A node that forgot is no reason to count money as back.
                Err(ChainError::NoHistory { .. }) => lane.balance,
                Err(error) => return Err(error),
            }
        };
        // Only who waits for a time needs to know it.
        let waits = lane.deposit.is_some() || state.withdrawal.is_some();
        let now = if waits {
            self.market.chain().now().await?
        } else {
            Timestamp(0)
        };
        Ok(Seen {
            balance: state.balance,
            claimed: state.total_claimed,
            balance_final,
            withdrawal: withdrawal(lane, &state),
            deposit,
            now,
        })
    }

    async fn arrived(
        &self,
        config: &ChannelConfig,
        deposit: &Deposit,
        depth: u64,
    ) -> Result<bool, ChainError> {
        self.market
            .deposit_arrived(config, &deposit.authorization, depth)
            .await
    }

    /// Looks at every lane that the chain may still change. Returns what is to be asked back. Stops at a chain that
    /// does not answer; a lane that has another trouble does not keep the others.
    pub(crate) async fn look_at_all(&self) -> Result<Vec<(Lane, MicroUsd)>, LaneTrouble> {
        let mut asked = Vec::new();
        for lane in self.all().into_iter().filter(Lane::is_unsettled) {
            if let Some(wait) = self.away.wait() {
                return Err(LaneTrouble::Away(wait));
            }
            let _turn = self.turn.lock().await;
            match self.meet(lane.channel_id).await {
                Ok((_, MicroUsd::ZERO)) => {}
                Ok(back) => asked.push(back),
                Err(error @ LaneTrouble::Chain(ChainError::Unreachable(_))) => return Err(error),
                Err(error) => {
                    tracing::warn!(channel_id = %lane.channel_id, %error, "a channel cannot be looked after now");
                }
            }
        }
        Ok(asked)
    }

    /// Looks at one lane again, as after its provider said that it gave money back. Returns what is still to be asked for.
    pub(crate) async fn look_again(
        &self,
        channel_id: B256,
    ) -> Result<(Lane, MicroUsd), LaneTrouble> {
        let _turn = self.turn.lock().await;
        self.meet(channel_id).await
    }

    /// Starts the delay after which a closed lane's money can be taken.
    pub(crate) async fn ask_back(&self, lane: &Lane, amount: MicroUsd) -> Result<(), LaneTrouble> {
        let _turn = self.turn.lock().await;
        let asking = self
            .market
            .initiate_withdraw(&self.payer, &lane.config, amount);
        self.away.ask(self.patience.mined, asking).await?;
        Ok(())
    }

    /// Starts the delays of all closed lanes, and takes what is ready. Returns what came back.
    pub(crate) async fn ask_all_back(&self) -> Result<MicroUsd, LaneTrouble> {
        let before = self.lock().held();
        for (lane, amount) in self.look_at_all().await? {
            self.ask_back(&lane, amount).await?;
        }
        Ok(MicroUsd(before.0.saturating_sub(self.lock().held().0)))
    }
}

fn withdrawal(lane: &Lane, state: &ChannelState) -> Option<Withdrawal> {
    let withdrawal = state.withdrawal?;
    let delay_s = lane.config.withdraw_delay_s;
    Some(Withdrawal {
        amount: withdrawal.amount,
        ready_at: withdrawal.initiated_at.plus_seconds(delay_s),
    })
}
