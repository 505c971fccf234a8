//! The nouns of the market: ids, amounts, statement, receipt, offer, manifest, and their canonical bytes.
