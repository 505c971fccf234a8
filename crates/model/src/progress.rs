//! How far a long job is.

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Bytes from the network.
    Download,
    /// Bytes out of the archive.
    Unpack,
    /// Steps of the conversion to integers.
    Import,
    /// Tokens of the calibration text.
    Calibrate,
    /// Tokens of the quality report.
    Quality,
}

/// A report to whoever draws the bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    pub done: u64,
    pub total: u64,
}
