//! One file that shows an answer to be the model's: the receipt with what it is about, and its proof. A stranger needs
//! nothing beside it but the model. What is read is bounded, and nothing in it is believed here.

use crate::refusal::refusal;
use anyhow::{Context, Result};
use assay_audit::Evidence;
use assay_proof::Proof;
use std::io::{Read, Write};
use std::path::Path;

/// The version of this container stands in its first bytes.
const MAGIC: &[u8] = b"assay-proof-file-v1\n";
/// Evidence of the longest context is below a tenth of this.
const EVIDENCE_BYTES_MAX: usize = 16 << 20;

/// What such a file holds.
pub(crate) struct ProofFile {
    pub(crate) evidence: Evidence,
    pub(crate) proof: Proof,
}

impl ProofFile {
    /// The magic, the length of the evidence (u32, big-endian), the evidence as JSON, the proof.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let evidence = serde_json::to_vec(&self.evidence)?;
        let length = u32::try_from(evidence.len()).context("the evidence is too long")?;
        let proof = self.proof.as_bytes();
        Ok([MAGIC, &length.to_be_bytes(), &evidence, proof].concat())
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let rest = bytes
            .strip_prefix(MAGIC)
            .context("it does not begin as one")?;
        let (length, rest) = rest.split_first_chunk::<4>().context("it breaks off")?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > EVIDENCE_BYTES_MAX {
            anyhow::bail!("its receipt would have {length} bytes");
        }
        let (evidence, proof) = rest.split_at_checked(length).context("it breaks off")?;
        Ok(Self {
            evidence: serde_json::from_slice(evidence).context("its receipt does not parse")?,
            proof: Proof::from_bytes(proof.to_vec())?,
        })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<u64> {
        let bytes = self.to_bytes()?;
        let failed = || format!("cannot write {}", path.display());
        let mut file = std::fs::File::create(path).with_context(failed)?;
        file.write_all(&bytes).with_context(failed)?;
        file.sync_all().with_context(failed)?;
        Ok(bytes.len() as u64)
    }
}

/// A file that is meant to be a proof.
pub(crate) enum Shown {
    /// With its receipt.
    Whole(Box<ProofFile>),
    /// The bytes that a node or a gateway serves.
    Bare(Proof),
}

pub(crate) fn read(path: &Path) -> Result<Shown> {
    let most = MAGIC.len() + 4 + EVIDENCE_BYTES_MAX + Proof::BYTES_MAX;
    let failed = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).with_context(failed)?;
    let mut bytes = Vec::new();
    let read = file.take(most as u64 + 1).read_to_end(&mut bytes);
    read.with_context(failed)?;
    let no_proof = |error: anyhow::Error| {
        refusal(
            format!("{} is no proof: {error:#}", path.display()),
            "make one with `assay prove RECEIPT`",
        )
    };
    if bytes.len() > most {
        return Err(no_proof(anyhow::anyhow!("it has more than {most} bytes")));
    }
    if bytes.starts_with(MAGIC) {
        let whole = ProofFile::parse(&bytes).map_err(no_proof)?;
        return Ok(Shown::Whole(Box::new(whole)));
    }
    let bare = Proof::from_bytes(bytes).map_err(|error| no_proof(error.into()))?;
    Ok(Shown::Bare(bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.proof");
        std::fs::write(&path, bytes).unwrap();
        match read(&path) {
            Ok(_) => panic!("taken"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn what_is_no_proof_is_refused_before_it_is_believed() {
        let with = |rest: &[u8]| [MAGIC, rest].concat();
        let check = |bytes: &[u8], said: &str| {
            let refused = refused(bytes);
            assert!(refused.contains(said), "{refused}");
        };
        check(b"", "is no proof");
        check(b"hello", "is no proof");
        check(&with(b""), "breaks off");
        check(&with(&[0, 0]), "breaks off");
        check(&with(&[255; 4]), "would have 4294967295 bytes");
        check(&with(&[0, 0, 0, 9, 1]), "breaks off");
        check(&with(b"\0\0\0\x02{}"), "does not parse");
    }
}
