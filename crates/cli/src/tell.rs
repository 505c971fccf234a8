//! Says what happens: to people in words, or to a program as one JSON event a line. Never both on one stream.

use serde_json::Value;
use std::io::Write;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Tell {
    json: bool,
}

impl Tell {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// A line for people.
    pub(crate) fn say(&self, text: &str) {
        self.piece(&format!("{text}\n"));
    }

    /// A part of a line for people, shown at once.
    pub(crate) fn piece(&self, text: &str) {
        // A reader that went away is no reason to fail.
        if self.json {
            let _ = std::io::stderr().write_all(text.as_bytes());
        } else {
            let mut out = std::io::stdout();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }

    /// An event for a program.
    pub(crate) fn event(&self, event: &Value) {
        if self.json {
            let mut out = std::io::stdout();
            let _ = writeln!(out, "{event}").and_then(|()| out.flush());
        }
    }
}
