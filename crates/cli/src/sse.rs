//! Reads server-sent events from a byte stream: the `data:` payloads, one at a time, whatever the chunk borders.
//!
//! It decodes UTF-8 only over whole lines, so that a character cut in two between chunks stays whole.

/// The longest event that is taken; a gateway's events are far shorter.
const LINE_MAX: usize = 16 << 20;

#[derive(Debug, Default)]
pub(crate) struct EventReader {
    buffer: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventError {
    #[error("the gateway sent an event longer than {LINE_MAX} bytes")]
    TooLong,
    #[error("the gateway sent an event that is not UTF-8")]
    NotUtf8,
}

impl EventReader {
    /// Takes the next bytes and returns the events they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<String>, EventError> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut start = 0;
        while let Some(len) = self.buffer[start..].iter().position(|&byte| byte == b'\n') {
            let line = &self.buffer[start..start + len];
            start += len + 1;
            let line = std::str::from_utf8(line).map_err(|_| EventError::NotUtf8)?;
            if let Some(data) = line.trim_end_matches('\r').strip_prefix("data:") {
                events.push(data.trim_start().to_owned());
            }
        }
        self.buffer.drain(..start);
        if self.buffer.len() > LINE_MAX {
            return Err(EventError::TooLong);
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::EventReader;

    #[test]
    fn events_are_whole_wherever_the_chunks_are_cut() {
        let stream = "data: {\"a\":\"é\"}\r\n\r\n: ping\n\ndata:[DONE]\n\n".as_bytes();
        for cut in 0..stream.len() {
            let mut reader = EventReader::default();
            let mut events = reader.push(&stream[..cut]).unwrap();
            events.extend(reader.push(&stream[cut..]).unwrap());
            assert_eq!(events, ["{\"a\":\"é\"}", "[DONE]"], "cut at {cut}");
        }
    }
}
