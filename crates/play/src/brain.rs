//! A thread that holds one trace and thinks about one game: the dispute crate's player keeps what it has computed
//! between moves, and none of it runs where connections are served. Ends when nobody asks any more.

use std::sync::mpsc;

use assay_dispute::{Below, DisputeError, Game, Move, Node, Player, Seen, Side, Step};
use assay_protocol::Timestamp;
use tokio::sync::oneshot;

use crate::case::SharedTrace;
use crate::parted::Parted;

type Answer<T> = oneshot::Sender<Result<T, DisputeError>>;

enum Question {
    Moves {
        game: Box<Game>,
        served: Option<Box<Seen>>,
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
        served: Option<&Seen>,
        side: Side,
        now: Timestamp,
    ) -> Result<Vec<Move>, Thoughtless> {
        let (game, served) = (Box::new(game.clone()), served.cloned().map(Box::new));
        self.ask(|answer| Question::Moves {
            game,
            served,
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

    async fn ask<T>(&self, question: impl FnOnce(Answer<T>) -> Question) -> Result<T, Thoughtless> {
        let (answer, answered) = oneshot::channel();
        let sent = self.questions.send(question(answer));
        sent.map_err(|_| Thoughtless::Gone)?;
        Ok(answered.await.map_err(|_| Thoughtless::Gone)??)
    }
}

fn think(trace: &SharedTrace, inbox: &mpsc::Receiver<Question>) {
    let mut player = Player::new(&**trace);
    while let Ok(question) = inbox.recv() {
        let player = player.as_mut().map_err(|error| error.clone());
        // Whoever asked and left needs no answer.
        match question {
            Question::Moves {
                game,
                served,
                side,
                now,
                answer,
            } => {
                let moves = player
                    .and_then(|player| player.next_moves(&game, served.as_deref(), side, now));
                let _ = answer.send(moves);
            }
            Question::Below { node, answer } => {
                let _ = answer.send(player.and_then(|player| player.below(&node)));
            }
            Question::Parted { step, answer } => {
                let _ = answer.send(Parted::by_step(&step, &**trace).map_err(Into::into));
            }
        }
    }
}
