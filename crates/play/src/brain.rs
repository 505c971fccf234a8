//! A thread that holds one trace and thinks about one game: the dispute crate's player keeps what it has computed
//! between moves, and none of it runs where connections are served. Ends when nobody asks any more.

use std::sync::mpsc;

use assay_dispute::{
    Below, DisputeError, Game, Move, Node, Parting, Player, Reveal, Seen, Side, Step,
};
use assay_protocol::Timestamp;
use tokio::sync::oneshot;

use crate::case::SharedTrace;
use crate::parted::Parted;

type Answer<T> = oneshot::Sender<Result<T, DisputeError>>;

enum Question {
    Moves {
        game: Box<Game>,
        side: Side,
        now: Timestamp,
        answer: Answer<Vec<Move>>,
    },
    Below {
        node: Node,
        answer: Answer<Below>,
    },
    Parted {
        step: Box<Step>,
        answer: Answer<Parted>,
    },
    Descend {
        game: Box<Game>,
        reveal: Option<Box<Reveal>>,
        answer: Answer<Parting>,
    },
    Whereabouts {
        game: Box<Game>,
        answer: Answer<Option<Parted>>,
    },
}

/// A handle on the thread; clones are cheap.
#[derive(Clone)]
pub struct Brain {
    questions: mpsc::Sender<Question>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Thoughtless {
    #[error(transparent)]
    Dispute(#[from] DisputeError),
    #[error("the thread that holds the trace is gone")]
    Gone,
}

impl Brain {
    /// Starts to think about a trace.
    pub fn new(trace: SharedTrace) -> std::io::Result<Self> {
        let (questions, inbox) = mpsc::channel();
        std::thread::Builder::new()
            .name("dispute".into())
            .spawn(move || think(&trace, &inbox))?;
        Ok(Self { questions })
    }

    /// What a side does now.
    pub(crate) async fn moves(
        &self,
        game: &Game,
        side: Side,
        now: Timestamp,
    ) -> Result<Vec<Move>, Thoughtless> {
        let game = Box::new(game.clone());
        self.ask(|answer| Question::Moves {
            game,
            side,
            now,
            answer,
        })
        .await
    }

    /// What stands below a node of the trace.
    pub async fn below(&self, node: Node) -> Result<Below, Thoughtless> {
        self.ask(|answer| Question::Below { node, answer }).await
    }

    /// What a step shows, for who watches.
    pub(crate) async fn parted(&self, step: &Step) -> Result<Parted, Thoughtless> {
        let step = Box::new(step.clone());
        self.ask(|answer| Question::Parted { step, answer }).await
    }

    /// Takes what the provider showed off the chain, if it holds, and says where that leads. Moves count on it from then
    /// on.
    pub(crate) async fn descend(
        &self,
        game: &Game,
        reveal: Option<Reveal>,
    ) -> Result<Parting, Thoughtless> {
        let (game, reveal) = (Box::new(game.clone()), reveal.map(Box::new));
        self.ask(|answer| Question::Descend {
            game,
            reveal,
            answer,
        })
        .await
    }

    /// Where the provider's trace parts from this one, as far as it was revealed; nothing until a root was posted.
    pub async fn whereabouts(&self, game: &Game) -> Result<Option<Parted>, Thoughtless> {
        let game = Box::new(game.clone());
        self.ask(|answer| Question::Whereabouts { game, answer })
            .await
    }

    async fn ask<T>(&self, question: impl FnOnce(Answer<T>) -> Question) -> Result<T, Thoughtless> {
        let (answer, answered) = oneshot::channel();
        let sent = self.questions.send(question(answer));
        sent.map_err(|_| Thoughtless::Gone)?;
        Ok(answered.await.map_err(|_| Thoughtless::Gone)??)
    }
}

fn think(trace: &SharedTrace, inbox: &mpsc::Receiver<Question>) {
    let mut player = Player::new(&**trace);
    // What the provider showed off the chain, checked.
    let mut served = None;
    while let Ok(question) = inbox.recv() {
        let player = player.as_mut().map_err(|error| error.clone());
        // Whoever asked and left needs no answer.
        match question {
            Question::Moves {
                game,
                side,
                now,
                answer,
            } => {
                let moves =
                    player.and_then(|player| player.next_moves(&game, served.as_ref(), side, now));
                let _ = answer.send(moves);
            }
            Question::Below { node, answer } => {
                let _ = answer.send(player.and_then(|player| player.below(&node)));
            }
            Question::Descend {
                game,
                reveal,
                answer,
            } => {
                let reveal = reveal.as_deref();
                let _ = answer.send(
                    player.and_then(|player| descend(player, trace, &game, &mut served, reveal)),
                );
            }
            Question::Whereabouts { game, answer } => {
                let found = player.and_then(|player| whereabouts(player, trace, &game));
                let _ = answer.send(found);
            }
            Question::Parted { step, answer } => {
                let _ = answer.send(Parted::by_step(&step, &**trace).map_err(Into::into));
            }
        }
    }
}

fn descend(
    player: &mut Player,
    trace: &SharedTrace,
    game: &Game,
    served: &mut Option<Seen>,
    reveal: Option<&Reveal>,
) -> Result<Parting, DisputeError> {
    let seen = player.seen(game, served.as_ref())?;
    let mut seen = seen.ok_or(DisputeError::NothingHeld)?;
    if let Some(reveal) = reveal {
        seen.learn(trace.program(), reveal)?;
    }
    let parting = player.parting(&seen)?;
    *served = Some(seen);
    Ok(parting)
}

fn whereabouts(
    player: &mut Player,
    trace: &SharedTrace,
    game: &Game,
) -> Result<Option<Parted>, DisputeError> {
    let Some(seen) = player.seen(game, None)? else {
        return Ok(None);
    };
    let program = trace.program();
    Ok(match player.parting(&seen)? {
        Parting::Nowhere => match player.false_token()? {
            Some((output, chosen)) => Some(Parted::token(&**trace, output, Some(chosen))),
            None => Some(Parted::Nowhere),
        },
        Parting::Below(node) => Parted::hidden(program, &node),
        Parting::At(id) => {
            let theirs = seen.chunk(id.leaf, id.chunk);
            let ours = Parted::own_chunk(&**trace, id)?;
            Parted::at(program, id, ours.as_deref(), theirs)
        }
    })
}
