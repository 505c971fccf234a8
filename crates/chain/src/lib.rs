//! Contract bindings, the embedded EVM and any JSON-RPC endpoint behind one type.
