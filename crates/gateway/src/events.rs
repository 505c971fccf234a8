//! What happens in the gateway, told in plain words to whoever listens. Keeps a short memory for
//! late listeners; never blocks the one who tells, never carries a key.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use assay_play::Played;
use assay_protocol::{Address, B256, MicroUsd, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub sequence: u64,
    pub at: Timestamp,
    #[serde(flatten)]
    pub what: What,
    /// The same in plain words.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    Discovered {
        provider: Address,
        endpoint: String,
    },
    Routed {
        request_id: B256,
        provider: Address,
        ceiling: MicroUsd,
        why: String,
    },
    Retried {
        request_id: B256,
        provider: Address,
        reason: String,
    },
    Failed {
        request_id: B256,
        reason: String,
    },
    Funded {
        provider: Address,
        channel_id: B256,
        deposit: MicroUsd,
    },
    Receipt {
        request_id: B256,
        provider: Address,
        tokens: u32,
    },
    Paid {
        request_id: B256,
        provider: Address,
        charged: MicroUsd,
        cumulative: MicroUsd,
    },
    Refused {
        request_id: B256,
        provider: Address,
        reason: String,
    },
    Audited {
        request_id: B256,
        provider: Address,
        honest: bool,
        reason: String,
    },
    /// The proof of an answer was checked and holds: the answer is final.
    Proven {
        request_id: B256,
        provider: Address,
        bytes: u64,
        verified_ms: u64,
        price: MicroUsd,
    },
    /// No proof that holds came; the answer is re-executed instead, and nothing is paid for a proof.
    NotProven {
        request_id: B256,
        provider: Address,
        reason: String,
    },
    Benched {
        request_id: B256,
        provider: Address,
        reason: String,
    },
    Unverified {
        request_id: B256,
        cloud: String,
    },
    /// A dispute was opened on the chain.
    Disputed {
        request_id: B256,
        provider: Address,
        game: B256,
        bond: MicroUsd,
        gas: u64,
    },
    /// Somebody moved in it.
    Moved {
        request_id: B256,
        provider: Address,
        game: B256,
        #[serde(flatten)]
        played: Played,
    },
    /// The provider lost its stake.
    Convicted {
        request_id: B256,
        provider: Address,
        /// Nothing where the statement was false by itself.
        game: Option<B256>,
        conviction: Verdict,
    },
    /// A game ended without a conviction.
    NotConvicted {
        request_id: B256,
        provider: Address,
        game: B256,
        bond: MicroUsd,
        reason: String,
    },
    /// A false answer that is not taken to the chain.
    NotDisputed {
        request_id: B256,
        provider: Address,
        reason: String,
    },
}

/// Who got what of a stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub winner: Address,
    pub slashed: MicroUsd,
    pub to_winner: MicroUsd,
    pub to_payer: MicroUsd,
    pub burned: MicroUsd,
}

impl What {
    fn words(&self) -> String {
        match self {
            Self::Discovered { provider, endpoint } => {
                format!("found {} at {endpoint}", short(provider))
            }
            Self::Routed { provider, why, .. } => format!("asked {}: {why}", short(provider)),
            Self::Retried {
                provider, reason, ..
            } => {
                format!(
                    "{} failed before its first token ({reason}); asking another",
                    short(provider)
                )
            }
            Self::Failed { reason, .. } => format!("the request failed: {reason}"),
            Self::Funded {
                provider, deposit, ..
            } => {
                format!("put {deposit} into a channel with {}", short(provider))
            }
            Self::Receipt {
                provider, tokens, ..
            } => {
                format!("{} signed a receipt for {tokens} tokens", short(provider))
            }
            Self::Paid {
                provider,
                charged,
                cumulative,
                ..
            } => {
                format!(
                    "{} is owed {charged} for it, {cumulative} in all on this channel",
                    short(provider)
                )
            }
            Self::Refused {
                provider, reason, ..
            } => {
                format!("the receipt of {} was refused: {reason}", short(provider))
            }
            Self::Audited {
                provider,
                honest: true,
                reason,
                ..
            } => {
                format!("audited {}: {reason}", short(provider))
            }
            Self::Audited {
                provider, reason, ..
            } => {
                format!("audited {} and caught it: {reason}", short(provider))
            }
            Self::Proven {
                provider,
                bytes,
                verified_ms,
                price,
                ..
            } => format!(
                "the proof by {} holds ({bytes} bytes, checked in {verified_ms} ms): the answer is final, and {price} due for it",
                short(provider)
            ),
            Self::NotProven {
                provider, reason, ..
            } => format!(
                "no proof by {}: {reason}; its answer is re-executed instead",
                short(provider)
            ),
            Self::Benched {
                provider, reason, ..
            } => {
                format!(
                    "{} is benched and not paid further: {reason}",
                    short(provider)
                )
            }
            Self::Unverified { cloud, .. } => {
                format!("no node could serve; cloud '{cloud}' answered, and nobody can check it")
            }
            Self::Disputed {
                provider,
                game,
                bond,
                gas,
                ..
            } => format!(
                "dispute {} against {} is open on the chain, with a bond of {bond} ({gas} gas)",
                short_game(game),
                short(provider)
            ),
            Self::Moved {
                provider,
                game,
                played,
                ..
            } => {
                let who = match played.ours {
                    true => "this gateway".to_owned(),
                    false => short(provider),
                };
                let gas = played
                    .gas
                    .map_or(String::new(), |gas| format!(" ({gas} gas)"));
                format!("dispute {}: {who} {}{gas}", short_game(game), played.action)
            }
            Self::Convicted {
                provider,
                conviction,
                ..
            } => format!(
                "{} is convicted on the chain and loses its stake of {}: {} to the challenger, {} to the payer, {} burned",
                short(provider),
                conviction.slashed,
                conviction.to_winner,
                conviction.to_payer,
                conviction.burned
            ),
            Self::NotConvicted {
                provider,
                game,
                reason,
                ..
            } => format!(
                "dispute {} against {} ended without a conviction: {reason}",
                short_game(game),
                short(provider)
            ),
            Self::NotDisputed {
                provider, reason, ..
            } => format!("no dispute against {}: {reason}", short(provider)),
        }
    }
}

/// A game as people read it.
pub(crate) fn short_game(game: &B256) -> String {
    game.to_string().chars().take(10).collect()
}

/// A provider as people read it.
pub(crate) fn short(address: &Address) -> String {
    let text = address.to_string();
    format!("{}…{}", &text[..6], &text[text.len() - 4..])
}

/// Where things are told.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    memory: Mutex<Memory>,
}

#[derive(Debug)]
struct Memory {
    next: u64,
    past: VecDeque<Event>,
    most: usize,
}

impl Events {
    pub(crate) fn new(most: usize) -> Self {
        let memory = Memory {
            next: 0,
            past: VecDeque::new(),
            most: most.max(1),
        };
        Self {
            sender: broadcast::channel(most.max(1)).0,
            memory: Mutex::new(memory),
        }
    }

    pub(crate) fn tell(&self, at: Timestamp, what: What) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            sequence: memory.next,
            at,
            text: what.words(),
            what,
        };
        tracing::info!(target: "assay_gateway::events", "{}", event.text);
        memory.next += 1;
        if memory.past.len() == memory.most {
            memory.past.pop_front();
        }
        memory.past.push_back(event.clone());
        // Nobody listening is no failure. Sent under the lock, so that listeners see them in order.
        let _ = self.sender.send(event);
    }

    /// What is remembered from sequence number `from` on, and a stream of what follows, without a gap.
    pub(crate) fn listen(&self, from: u64) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let past = memory
            .past
            .iter()
            .filter(|e| e.sequence >= from)
            .cloned()
            .collect();
        (past, self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(reason: &str) -> What {
        What::Failed {
            request_id: B256::ZERO,
            reason: reason.into(),
        }
    }

    #[test]
    fn a_late_listener_hears_the_last_events_and_then_the_new_ones() {
        let events = Events::new(2);
        for reason in ["a", "b", "c"] {
            events.tell(Timestamp(1), failed(reason));
        }
        let (past, mut coming) = events.listen(0);
        assert_eq!(past.iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2]);
        events.tell(Timestamp(2), failed("d"));
        let next = coming.try_recv().unwrap();
        assert_eq!(
            (next.sequence, next.text.as_str()),
            (3, "the request failed: d")
        );
    }

    #[test]
    fn an_event_is_json_with_its_kind_and_its_words() {
        let events = Events::new(2);
        events.tell(Timestamp(7), failed("x"));
        let json = serde_json::to_value(&events.listen(0).0[0]).unwrap();
        assert_eq!(json["kind"], "failed");
        assert_eq!(json["text"], "the request failed: x");
        assert_eq!(json["at"], 7);
    }
}
