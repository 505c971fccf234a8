//! Server-sent events: the frames of a streamed answer.

use assay_openai::{Answer, AssayAnswer, Envelope};
use bytes::Bytes;
use serde::Serialize;

use crate::session::{Done, Part};

/// A comment, which clients skip: it keeps the connection from looking dead.
const ALIVE: &[u8] = b": alive\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";

/// The frames of a part.
pub(crate) fn frames(envelope: &Envelope, include_usage: bool, part: Part) -> Bytes {
    match part {
        Part::Alive => Bytes::from_static(ALIVE),
        Part::Text { text, ids } => frame(&envelope.chunk(text, ids)),
        // No [DONE] after an error: nobody shall take a broken answer for a whole one.
        Part::Failed(error) => frame(&error.json()),
        Part::Done(done) => {
            let (stop, usage) = (done.stop, include_usage.then_some(done.usage));
            let events = envelope.end(stop, usage, extension(*done));
            let mut bytes = events.iter().flat_map(frame::<Answer>).collect::<Vec<u8>>();
            bytes.extend_from_slice(DONE);
            bytes.into()
        }
    }
}

/// The first frame of a chat.
pub(crate) fn opening(envelope: &Envelope) -> Option<Bytes> {
    envelope.opening().as_ref().map(frame::<Answer>)
}

/// The `assay` field of a finished answer.
pub(crate) fn extension(done: Done) -> AssayAnswer {
    AssayAnswer {
        token_ids: Vec::new(),
        sampler: Some(done.sampler),
        receipt: Some(done.receipt),
        payment: serde_json::to_value(&done.payment).ok(),
        final_at: None,
        proof_due: None,
    }
}

fn frame<T: Serialize>(message: &T) -> Bytes {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, message).expect("messages are plain data with string keys");
    bytes.extend_from_slice(b"\n\n");
    bytes.into()
}
