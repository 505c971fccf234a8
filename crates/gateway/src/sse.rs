//! Server-sent events, incrementally: bytes in, `data` payloads out. Bounded: a peer that never ends
//! a line cannot make it grow without limit.

/// Collects bytes into events.
#[derive(Debug)]
pub(crate) struct SseReader {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {limit} bytes")]
pub(crate) struct TooLong {
    pub limit: usize,
}

impl SseReader {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            limit,
        }
    }

    /// Takes bytes as they come, split anywhere, and returns the payloads they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() + self.data.len() >= self.limit {
                    return Err(TooLong { limit: self.limit });
                }
                self.line.push(byte);
                continue;
            }
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            let line = std::mem::take(&mut self.line);
            if line.is_empty() {
                if self.has_data {
                    events.push(std::mem::take(&mut self.data));
                    self.has_data = false;
                }
            } else if let Some(value) = line.strip_prefix(b"data:") {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data
                    .extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                self.has_data = true;
            }
            // Comments, event names and ids carry nothing for us.
        }
        Ok(events)
    }
}

/// One event as it goes to a client.
pub(crate) fn frame(data: &str) -> String {
    format!("data: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], chunk: usize) -> Vec<String> {
        let mut reader = SseReader::new(1000);
        input
            .chunks(chunk)
            .flat_map(|bytes| reader.push(bytes).unwrap())
            .map(|event| String::from_utf8(event).unwrap())
            .collect()
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_split() {
        let input = b": hello\n\ndata: {\"a\":1}\n\nevent: x\ndata:two\r\ndata: lines\r\n\r\ndata: [DONE]\n\n";
        for chunk in 1..input.len() {
            assert_eq!(
                read(input, chunk),
                ["{\"a\":1}", "two\nlines", "[DONE]"],
                "by {chunk}"
            );
        }
    }

    #[test]
    fn an_event_without_its_blank_line_is_not_an_event() {
        assert!(read(b"data: half", 4).is_empty());
        assert!(read(b"data: half\n", 4).is_empty());
    }

    #[test]
    fn a_line_without_end_is_refused_and_not_stored() {
        let mut reader = SseReader::new(10);
        assert_eq!(reader.push(&[b'x'; 11]), Err(TooLong { limit: 10 }));
    }
}
