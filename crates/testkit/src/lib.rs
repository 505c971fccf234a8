//! Tiny models, fakes and dishonest players, used from tests only.
