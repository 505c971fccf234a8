//! Verdicts on receipts by re-execution at prefill speed, and when to audit.
