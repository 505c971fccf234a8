//! The provider's daemon: an OpenAI-compatible server that is paid per token and signs receipts.
