//! Text out of tokens as they come: never half a character, never a control token.
//! [`StopWatcher`] is the one definition of where an answer ends, shared by whoever serves it,
//! pays for it or audits it.

use assay_protocol::{SamplerParams, StopReason, TokenId};

use crate::tokenizer::Tokenizer;

/// Turns tokens into text piece by piece; the pieces join to the whole text.
#[derive(Debug, Clone)]
pub struct TextStream {
    tokenizer: Tokenizer,
    /// The start of a character whose rest has not come: at most three bytes.
    pending: Vec<u8>,
}

impl TextStream {
    pub fn new(tokenizer: Tokenizer) -> Self {
        TextStream {
            tokenizer,
            pending: Vec::new(),
        }
    }

    /// The text that is certain with this token.
    pub fn push(&mut self, id: TokenId) -> String {
        self.pending
            .extend_from_slice(self.tokenizer.token_bytes(id));
        let mut text = String::new();
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = after;
                    match error.error_len() {
                        // Bytes that no continuation can make a character.
                        Some(len) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &rest[len..];
                        }
                        None => break,
                    }
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }

    /// What is left when no token follows: a cut character shows as U+FFFD.
    pub fn finish(&mut self) -> String {
        match std::mem::take(&mut self.pending).is_empty() {
            true => String::new(),
            false => char::REPLACEMENT_CHARACTER.to_string(),
        }
    }
}

/// Follows an answer token by token and says when and why it ends.
///
/// The rule: an end-of-text token ends it and stands for no text; else a stop string that is
/// complete in the decoded text ends it, and the text is cut before the earliest one; else the
/// last of `max_tokens` ends it.
#[derive(Debug, Clone)]
pub struct StopWatcher {
    stream: TextStream,
    stops: Vec<String>,
    max_tokens: u32,
    tokens: u32,
    text: String,
    /// Bytes of `text` that [`StopWatcher::take_text`] gave out.
    taken: usize,
    reason: Option<StopReason>,
}

impl StopWatcher {
    pub fn new(tokenizer: Tokenizer, sampler: &SamplerParams) -> Self {
        StopWatcher {
            stream: TextStream::new(tokenizer),
            stops: sampler
                .stop
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
            max_tokens: sampler.max_tokens,
            tokens: 0,
            text: String::new(),
            taken: 0,
            reason: None,
        }
    }

    /// Takes the next token. Once a reason was given, the answer is over and tokens change nothing.
    pub fn push(&mut self, id: TokenId) -> Option<StopReason> {
        if self.reason.is_some() {
            return self.reason;
        }
        self.tokens += 1;
        if self.stream.tokenizer.is_eos(id) {
            return self.end(StopReason::EndOfText);
        }
        let new = self.stream.push(id);
        // A stop string that ends in the new text starts at most its own length before it.
        let reach = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self
            .text
            .floor_char_boundary(self.text.len().saturating_sub(reach));
        self.text.push_str(&new);
        let earliest = |stop: &String| self.text[from..].find(stop.as_str());
        if let Some(at) = self.stops.iter().filter_map(earliest).min() {
            self.text.truncate(from + at);
            self.stream.pending.clear();
            self.reason = Some(StopReason::StopString);
        } else if self.tokens >= self.max_tokens {
            return self.end(StopReason::MaxTokens);
        }
        self.reason
    }

    /// Ends an answer whose reader left; a reason that was found before stands.
    pub fn cut(&mut self) -> StopReason {
        match self.reason {
            Some(reason) => reason,
            None => {
                self.end(StopReason::Cut);
                StopReason::Cut
            }
        }
    }

    /// New text that no later token can take back: a possible start of a stop string waits.
    pub fn take_text(&mut self) -> String {
        let held = match self.reason {
            Some(_) => 0,
            None => self.held(),
        };
        let end = self.text.len() - held;
        // What was given out could not be the start of a stop string, so nothing is taken back.
        let new = self.text[self.taken.min(end)..end].to_owned();
        self.taken = self.taken.max(end);
        new
    }

    /// The answer's text so far, without the stop string.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn reason(&self) -> Option<StopReason> {
        self.reason
    }

    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    fn end(&mut self, reason: StopReason) -> Option<StopReason> {
        let rest = self.stream.finish();
        self.text.push_str(&rest);
        self.reason = Some(reason);
        self.reason
    }

    /// Length of the longest end of the text that a stop string starts with.
    fn held(&self) -> usize {
        let starts = |stop: &String| {
            let longest = self.text.len().min(stop.len() - 1);
            (1..=longest)
                .rev()
                .find(|&n| stop.is_char_boundary(n) && self.text.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(starts).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TokenizerSpec;

    const EOS: TokenId = 257;

    fn toy() -> Tokenizer {
        Tokenizer::new(TokenizerSpec::bytes(260)).unwrap()
    }

    fn watcher(max_tokens: u32, stop: &[&str]) -> StopWatcher {
        let mut sampler = SamplerParams::greedy(max_tokens);
        sampler.stop = stop.iter().map(|&s| s.to_owned()).collect();
        StopWatcher::new(toy(), &sampler)
    }

    /// Feeds bytes as tokens; gives what was streamed and why and where it ended.
    fn feed(mut watcher: StopWatcher, tokens: &[TokenId]) -> (String, Option<StopReason>, u32) {
        let mut streamed = String::new();
        for &id in tokens {
            let reason = watcher.push(id);
            streamed.push_str(&watcher.take_text());
            if reason.is_some() {
                break;
            }
        }
        assert!(watcher.text().starts_with(&streamed));
        if watcher.reason().is_some() {
            assert_eq!(watcher.text(), streamed);
        }
        (streamed, watcher.reason(), watcher.tokens())
    }

    fn bytes(text: &str) -> Vec<TokenId> {
        text.bytes().map(TokenId::from).collect()
    }

    #[test]
    fn a_character_in_three_tokens_comes_out_whole() {
        let mut stream = TextStream::new(toy());
        let parts: Vec<String> = "世!".bytes().map(|b| stream.push(b.into())).collect();
        assert_eq!(parts, ["", "", "世", "!"]);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn a_broken_character_shows_once() {
        let mut stream = TextStream::new(toy());
        assert_eq!(stream.push(0xe4), "");
        assert_eq!(stream.push(b'a'.into()), "\u{fffd}a");
        assert_eq!(stream.push(0xff), "\u{fffd}");
        assert_eq!(stream.push(0xe4), "");
        assert_eq!(stream.finish(), "\u{fffd}");
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn control_tokens_stand_for_no_text() {
        assert_eq!(TextStream::new(toy()).push(EOS), "");
    }

    #[test]
    fn a_stop_string_across_tokens_is_cut_off_and_never_streamed() {
        let tokens = bytes("one END two");
        let got = feed(watcher(100, &["END"]), &tokens);
        assert_eq!(got, ("one ".into(), Some(StopReason::StopString), 7));
    }

    #[test]
    fn a_false_start_of_a_stop_string_is_streamed_later() {
        let tokens = bytes("EEND!");
        let got = feed(watcher(100, &["END?"]), &tokens);
        assert_eq!(got, ("EEND!".into(), None, 5));
    }

    #[test]
    fn the_earliest_of_two_stop_strings_cuts() {
        let got = feed(watcher(100, &["cd", "bcd"]), &bytes("abcd"));
        assert_eq!(got, ("a".into(), Some(StopReason::StopString), 4));
    }

    #[test]
    fn a_stop_string_with_the_last_token_wins_over_the_count() {
        let got = feed(watcher(2, &["b"]), &bytes("ab"));
        assert_eq!(got.1, Some(StopReason::StopString));
        let got = feed(watcher(2, &["c"]), &bytes("abc"));
        assert_eq!(got, ("ab".into(), Some(StopReason::MaxTokens), 2));
    }

    #[test]
    fn an_end_of_text_token_wins_and_counts() {
        let mut tokens = bytes("ab");
        tokens.push(EOS);
        let got = feed(watcher(3, &["x"]), &tokens);
        assert_eq!(got, ("ab".into(), Some(StopReason::EndOfText), 3));
    }

    #[test]
    fn a_cut_answer_keeps_its_prefix() {
        let mut watcher = watcher(9, &["bc"]);
        for id in bytes("ab") {
            watcher.push(id);
        }
        assert_eq!(watcher.take_text(), "a");
        assert_eq!(watcher.cut(), StopReason::Cut);
        assert_eq!(watcher.take_text(), "b");
        assert_eq!(watcher.push(b'c'.into()), Some(StopReason::Cut));
    }
}
