//! The typed transcript: what both sides absorb, and the challenges that follow from it. Every absorption
//! carries its label and its length, so that no two sequences of absorptions share their bytes.

use p3_challenger::{
    CanObserve, FieldChallenger, GrindingChallenger, HashChallenger, SerializingChallenger64,
};
use p3_field::BasedVectorSpace;
use p3_keccak::Keccak256Hash;

use crate::field::{F, K};

/// What the commitment scheme drives directly.
pub type Challenger = SerializingChallenger64<F, HashChallenger<u8, Keccak256Hash, 32>>;

/// A Fiat–Shamir transcript over keccak-256.
#[derive(Clone)]
pub struct Transcript {
    challenger: Challenger,
}

impl Transcript {
    pub fn new(domain: &str) -> Self {
        let challenger = Challenger::from_hasher(domain.as_bytes().to_vec(), Keccak256Hash {});
        Transcript { challenger }
    }

    fn label(&mut self, label: &str, len: usize) {
        self.raw(&(label.len() as u64).to_be_bytes());
        self.raw(label.as_bytes());
        self.raw(&(len as u64).to_be_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        // A field element holds seven bytes of any value.
        for chunk in bytes.chunks(7) {
            let value = chunk
                .iter()
                .fold(0u64, |all, byte| all << 8 | u64::from(*byte));
            self.challenger.observe(F::new(value));
        }
    }

    pub fn absorb_bytes(&mut self, label: &str, bytes: &[u8]) {
        #[cfg(test)]
        if testing::ignored(label) {
            return;
        }
        self.label(label, bytes.len());
        self.raw(bytes);
    }

    pub fn absorb(&mut self, label: &str, values: &[K]) {
        #[cfg(test)]
        if testing::ignored(label) {
            return;
        }
        self.label(label, values.len());
        for value in values {
            let coefficients: &[F] = value.as_basis_coefficients_slice();
            self.challenger.observe_slice(coefficients);
        }
    }

    pub fn challenge(&mut self, label: &str) -> K {
        self.label(label, 0);
        let drawn = self.challenger.sample_algebra_element();
        #[cfg(test)]
        testing::record(label, drawn);
        drawn
    }

    /// A point of this many variables.
    pub fn point(&mut self, label: &str, variables: usize) -> Vec<K> {
        (0..variables).map(|_| self.challenge(label)).collect()
    }

    /// Finds a nonce after which the transcript shows that many bits of work.
    pub fn work(&mut self, bits: u32) -> F {
        self.challenger.grind(bits as usize)
    }

    /// Whether the nonce shows that work; absorbs it either way.
    pub fn worked(&mut self, bits: u32, nonce: F) -> bool {
        self.challenger.check_witness(bits as usize, nonce)
    }

    /// For the commitment scheme's own messages.
    pub fn challenger(&mut self) -> &mut Challenger {
        &mut self.challenger
    }
}

/// What shows the need of each absorption: one that is left out, and the challenges that were drawn.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::RefCell;

    use crate::field::K;

    thread_local! {
        static IGNORED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        static DRAWN: RefCell<Vec<(String, K)>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn ignored(label: &str) -> bool {
        IGNORED.with_borrow(|labels| labels.iter().any(|of| of == label))
    }

    pub(super) fn record(label: &str, drawn: K) {
        DRAWN.with_borrow_mut(|all| all.push((label.to_owned(), drawn)));
    }

    /// Runs without the absorptions of these labels.
    pub(crate) fn without<T>(labels: &[&str], run: impl FnOnce() -> T) -> T {
        IGNORED.set(labels.iter().map(|label| label.to_string()).collect());
        let result = run();
        IGNORED.take();
        result
    }

    /// The challenges that are drawn on the way.
    pub(crate) fn drawn<T>(run: impl FnOnce() -> T) -> (T, Vec<(String, K)>) {
        DRAWN.take();
        let result = run();
        (result, DRAWN.take())
    }
}
