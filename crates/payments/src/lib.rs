//! x402 messages, channels, lanes and crash-safe ledgers of both sides.
