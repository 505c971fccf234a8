//! The integer-exact forward pass, its kernels, KV cache, batching and sampler.
