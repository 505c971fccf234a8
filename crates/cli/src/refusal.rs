//! How the program says no: what is wrong, and the next thing to do.
//!
//! Libraries return facts; here a fact becomes a sentence for the person at the terminal.

use std::fmt;

/// An error whose cure is known.
#[derive(Debug)]
pub(crate) struct Refusal {
    what: String,
    next: String,
}

pub(crate) fn refusal(what: impl Into<String>, next: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(hint(what, next))
}

/// The same to put around another error, which stays its cause.
pub(crate) fn hint(what: impl Into<String>, next: impl Into<String>) -> Refusal {
    Refusal {
        what: what.into(),
        next: next.into(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Refusal {}

/// Writes an error to the terminal: the chain of causes on one line, the cure on the next.
pub(crate) fn report(error: &anyhow::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Some libraries repeat their source in their own message.
        if !causes.last().is_some_and(|last| last.ends_with(&text)) {
            causes.push(text);
        }
    }
    let mut out = format!("error: {}", causes.join(": "));
    // Looks through every layer of context, which a walk over the causes does not.
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        out.push_str(&format!("\n next: {}", refusal.next));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{hint, refusal, report};

    #[test]
    fn a_refusal_names_the_next_step() {
        let error = refusal("port 8080 is in use", "choose another with --listen")
            .context("cannot start the gateway");
        assert_eq!(
            report(&error),
            "error: cannot start the gateway: port 8080 is in use\n next: choose another with --listen"
        );
    }

    #[test]
    fn a_refusal_around_another_error_names_the_next_step_too() {
        let error = anyhow::anyhow!("no coins")
            .context(hint("it stopped", "send coins"))
            .context("cannot deploy");
        assert_eq!(
            report(&error),
            "error: cannot deploy: it stopped: no coins\n next: send coins"
        );
    }

    #[test]
    fn a_cause_that_repeats_its_source_is_said_once() {
        let error = anyhow::anyhow!("no such file").context("cannot read x: no such file");
        assert_eq!(report(&error), "error: cannot read x: no such file");
    }
}
