//! The consumer's side: OpenAI surface, routing, payment, receipts, audits, cloud fallback.
