//! The sampler's parameters: the part of a request that decides, with the logits, which token comes.
//!
//! They are integers, so that a statement is true or false on every machine (NUMERICS, Sampling).

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Reader, Writer};

const TAG: &str = "assay/sampler/v1";
/// β must stay below 2^18 for the sampler's products to stay below 2^62.
pub const BETA_MAX: u32 = (1 << 18) - 1;
/// `top_p` in Q0.16: all of the probability.
pub const TOP_P_ALL: u32 = 1 << 16;
pub const STOP_STRINGS_MAX: usize = 4;
pub const STOP_BYTES_MAX: usize = 256;

/// How sharp the choice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Temperature {
    /// The largest logit; the lowest id wins a tie.
    Greedy,
    /// `β = rint(256 / T)`, from 1 to [`BETA_MAX`].
    Beta(u32),
}

/// Everything of the sampler that a statement binds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SamplerParams {
    pub temperature: Temperature,
    /// Keep the k largest logits; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set with this share of the probability, in Q0.16; 65,536 keeps all.
    pub top_p_q16: u32,
    pub seed: B256,
    /// Most output tokens, an end-of-text token included.
    pub max_tokens: u32,
    /// Texts that end the answer where they first occur in the decoded output.
    pub stop: Vec<String>,
}

/// Why sampler parameters are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    #[error("beta {0} is outside 1..={BETA_MAX}")]
    Beta(u32),
    #[error("top_p {0}/65536 is outside 1..=65536")]
    TopP(u32),
    #[error("max_tokens must be at least 1")]
    NoTokens,
    #[error("{0} stop strings given, at most {STOP_STRINGS_MAX} allowed")]
    TooManyStops(usize),
    #[error("a stop string has {0} bytes, 1 to {STOP_BYTES_MAX} allowed")]
    StopLength(usize),
}

impl SamplerParams {
    /// The largest logit at every position.
    pub fn greedy(max_tokens: u32) -> Self {
        SamplerParams {
            temperature: Temperature::Greedy,
            top_k: 0,
            top_p_q16: TOP_P_ALL,
            seed: B256::ZERO,
            max_tokens,
            stop: Vec::new(),
        }
    }

    /// Refuses what the arithmetic's bounds do not cover.
    pub fn validate(&self) -> Result<(), SamplerError> {
        if let Temperature::Beta(beta) = self.temperature
            && !(1..=BETA_MAX).contains(&beta)
        {
            return Err(SamplerError::Beta(beta));
        }
        if !(1..=TOP_P_ALL).contains(&self.top_p_q16) {
            return Err(SamplerError::TopP(self.top_p_q16));
        }
        if self.max_tokens == 0 {
            return Err(SamplerError::NoTokens);
        }
        if self.stop.len() > STOP_STRINGS_MAX {
            return Err(SamplerError::TooManyStops(self.stop.len()));
        }
        let bad = |stop: &&String| stop.is_empty() || stop.len() > STOP_BYTES_MAX;
        match self.stop.iter().find(bad) {
            Some(stop) => Err(SamplerError::StopLength(stop.len())),
            None => Ok(()),
        }
    }

    /// The canonical bytes; `hash()` of them stands in the statement.
    pub fn encode(&self) -> Vec<u8> {
        self.writer().finish()
    }

    pub fn hash(&self) -> B256 {
        self.writer().hash()
    }

    fn writer(&self) -> Writer {
        let mut writer = Writer::new(TAG);
        // β starts at 1, so 0 is free to say greedy.
        writer.u32(match self.temperature {
            Temperature::Greedy => 0,
            Temperature::Beta(beta) => beta,
        });
        writer
            .u32(self.top_k)
            .u32(self.top_p_q16)
            .b256(&self.seed)
            .u32(self.max_tokens)
            .len(self.stop.len());
        for stop in &self.stop {
            writer.str(stop);
        }
        writer
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(TAG, bytes)?;
        let temperature = match reader.u32()? {
            0 => Temperature::Greedy,
            beta => Temperature::Beta(beta),
        };
        let (top_k, top_p_q16) = (reader.u32()?, reader.u32()?);
        let (seed, max_tokens) = (reader.b256()?, reader.u32()?);
        let stop = (0..reader.len(STOP_STRINGS_MAX)?)
            .map(|_| Ok(reader.str()?.to_owned()))
            .collect::<Result<_, CodecError>>()?;
        reader.finish()?;
        Ok(SamplerParams {
            temperature,
            top_k,
            top_p_q16,
            seed,
            max_tokens,
            stop,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SamplerParams {
        SamplerParams {
            temperature: Temperature::Beta(366),
            top_k: 40,
            top_p_q16: 62_259,
            seed: B256::repeat_byte(7),
            max_tokens: 64,
            stop: vec!["\n\n".into()],
        }
    }

    #[test]
    fn the_bytes_are_spelled_out() {
        assert_eq!(
            hex::encode(sample().encode()),
            "0000001061737361792f73616d706c65722f76310000016e000000280000f3330707070707070707070707070707070707070707070707070707070707070707000000400000000100000002\
             0a0a"
        );
        assert_eq!(SamplerParams::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn every_field_changes_the_hash() {
        let changes: [fn(&mut SamplerParams); 6] = [
            |s| s.temperature = Temperature::Greedy,
            |s| s.top_k = 41,
            |s| s.top_p_q16 -= 1,
            |s| s.seed.0[31] ^= 1,
            |s| s.max_tokens += 1,
            |s| s.stop.clear(),
        ];
        for change in changes {
            let mut other = sample();
            change(&mut other);
            assert_ne!(other.hash(), sample().hash());
        }
    }

    #[test]
    fn parameters_outside_the_bounds_are_refused() {
        let check = |change: fn(&mut SamplerParams), expected| {
            let mut params = sample();
            change(&mut params);
            assert_eq!(params.validate(), Err(expected));
        };
        assert_eq!(sample().validate(), Ok(()));
        check(
            |s| s.temperature = Temperature::Beta(0),
            SamplerError::Beta(0),
        );
        check(
            |s| s.temperature = Temperature::Beta(1 << 18),
            SamplerError::Beta(1 << 18),
        );
        check(|s| s.top_p_q16 = 0, SamplerError::TopP(0));
        check(|s| s.top_p_q16 = 65_537, SamplerError::TopP(65_537));
        check(|s| s.max_tokens = 0, SamplerError::NoTokens);
        check(
            |s| s.stop = vec!["a".into(); 5],
            SamplerError::TooManyStops(5),
        );
        check(
            |s| s.stop = vec![String::new()],
            SamplerError::StopLength(0),
        );
    }
}
