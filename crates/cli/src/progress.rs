//! Progress of long work on standard error: a bar with an estimate on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

pub(crate) struct Bar {
    label: String,
    bar: ProgressBar,
    started: Instant,
    terminal: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Bytes,
    Steps,
}

impl Bar {
    pub(crate) fn start(label: &str, unit: Unit, total: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let template = match unit {
            Unit::Bytes => {
                "  {msg:<28} [{bar:30}] {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left"
            }
            Unit::Steps => "  {msg:<28} [{bar:30}] {pos} of {len}  {eta} left",
        };
        let bar = if terminal {
            ProgressBar::new(total)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(label.to_owned());
        if terminal {
            bar.enable_steady_tick(Duration::from_millis(250));
        } else {
            eprintln!("  {label} …");
        }
        Self {
            label: label.to_owned(),
            bar,
            started: Instant::now(),
            terminal,
        }
    }

    pub(crate) fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// Where work resumes, so that the estimate counts only what is left.
    pub(crate) fn resume_at(&self, done: u64) {
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    pub(crate) fn finish(self, outcome: &str) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs();
        if self.terminal || seconds > 0 {
            eprintln!("  {:<28} {outcome} in {seconds} s", self.label);
        } else {
            eprintln!("  {:<28} {outcome}", self.label);
        }
    }
}
