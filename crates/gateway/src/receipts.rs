//! Is this receipt the one for what we asked, got and agreed to pay? Pure; `audit` judges the tokens
//! against the tokenizer, this file the commerce around them. Never decides what follows from a no.

use assay_audit::{Evidence, Fault, Format, SignatureFault, check_accounting};
use assay_model::Tokenizer;
use assay_protocol::{
    Address, B256, Domain, DurationMs, MicroUsd, Offer, Receipt, SamplerParams, SignatureChecked,
    Signed, StopReason, Tier, Timestamp, TokenCount, TokenId, Usage,
};

/// What this side knows of a request, whatever the provider says.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub domain: Domain,
    pub provider: Address,
    /// The provider's offer key, from the registry.
    pub signer: Address,
    pub offer: Signed<Offer>,
    pub payer: Address,
    pub channel_id: B256,
    pub request_id: B256,
    pub tier: Tier,
    /// What the channel owed before this request, by this side's own books.
    pub cumulative_before: MicroUsd,
    pub prompt: Vec<TokenId>,
    pub sampler: SamplerParams,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Delivered {
    pub receipt: Signed<Receipt>,
    pub output: Vec<TokenId>,
    pub cached: TokenCount,
    /// Whether this side left before the end.
    pub we_left: bool,
    pub at: Timestamp,
    /// From sending the request to its end, as this side saw it.
    pub took: DurationMs,
}

/// Why a receipt is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Signature(String),
    #[error("it is for request {stated}, not for {asked}: a replay")]
    OtherRequest { stated: B256, asked: B256 },
    #[error("it names payer {stated}, not {asked}")]
    OtherPayer { stated: Address, asked: Address },
    #[error("it names channel {stated}, the voucher was for {asked}")]
    OtherChannel { stated: B256, asked: B256 },
    #[error("its tier is {stated:?}, {asked:?} was asked for")]
    OtherTier { stated: Tier, asked: Tier },
    #[error("it claims {stated} in all on this channel, {expected} is due")]
    Cumulative {
        stated: MicroUsd,
        expected: MicroUsd,
    },
    #[error("it says that we left, but we did not: the answer was cut short")]
    CutUnasked,
    #[error("it is dated {stated}, but now is {now}", stated = .stated.0, now = .now.0)]
    Date { stated: Timestamp, now: Timestamp },
    #[error("it claims {stated} ms to the first token and {duration} ms in all, the whole request took {seen} ms",
        stated = .ttft.0, duration = .duration.0, seen = .seen.0)]
    Timing {
        ttft: DurationMs,
        duration: DurationMs,
        seen: DurationMs,
    },
    #[error("{0}")]
    Accounting(Fault),
}

impl Refused {
    /// Whether only a lie explains it. A key that was just rotated, a wrong clock or a shutdown in the
    /// middle of an answer are accidents that an honest node can have.
    pub(crate) fn is_a_lie(&self) -> bool {
        match self {
            Self::OtherRequest { .. }
            | Self::OtherPayer { .. }
            | Self::OtherChannel { .. }
            | Self::Cumulative { .. }
            | Self::Accounting(_) => true,
            Self::Signature(_)
            | Self::OtherTier { .. }
            | Self::CutUnasked
            | Self::Date { .. }
            | Self::Timing { .. } => false,
        }
    }
}

/// Clocks of two honest machines may differ by this many seconds.
const CLOCK_SKEW_S: u64 = 300;
/// Whole milliseconds and clock ticks round differently on two machines.
const TIMING_SLACK_MS: u32 = 1_000;

/// The evidence file of this answer, good or bad.
pub(crate) fn evidence(asked: &Asked, delivered: &Delivered) -> Evidence {
    Evidence {
        format: Format::V1,
        domain: asked.domain,
        signer: asked.signer,
        offer: asked.offer,
        receipt: delivered.receipt,
        prompt: asked.prompt.clone(),
        cached: delivered.cached,
        sampler: asked.sampler.clone(),
        output: delivered.output.clone(),
    }
}

/// Accepts a receipt or says what is wrong with it.
pub(crate) fn accept(
    asked: &Asked,
    delivered: &Delivered,
    evidence: &Evidence,
    tokenizer: &Tokenizer,
) -> Result<SignatureChecked<Receipt>, Refused> {
    let checked = evidence.check_signatures().map_err(|fault| match fault {
        // Well signed, and in a name that the key does not stand for.
        SignatureFault::DifferentProviders { receipt, offer } => {
            Refused::Accounting(Fault::OtherProvider {
                stated: receipt,
                asked: offer,
            })
        }
        fault => Refused::Signature(fault.to_string()),
    })?;
    let receipt = *checked.receipt;
    commerce(asked, delivered, &receipt)?;
    check_accounting(evidence, tokenizer).map_err(Refused::Accounting)?;
    Ok(checked.receipt)
}

/// Tokens that may be between a node and this side when a connection closes.
const IN_FLIGHT_MAX: u32 = 64;

/// Accepts the receipt of an answer that was cut while its last tokens were on their way: whoever
/// left cannot check tokens that it never saw, but bounds what they may cost.
pub(crate) fn accept_unseen(
    asked: &Asked,
    receipt: Signed<Receipt>,
    seen: u32,
    at: Timestamp,
) -> Result<SignatureChecked<Receipt>, Refused> {
    let checked = receipt
        .check(&asked.domain, asked.signer)
        .map_err(|error| Refused::Signature(error.to_string()))?;
    let delivered = Delivered {
        receipt,
        output: Vec::new(),
        cached: TokenCount(0),
        we_left: true,
        at,
        took: receipt.body.duration,
    };
    commerce(asked, &delivered, &receipt.body)?;
    let statement = &receipt.body.statement;
    let n_output = statement.n_output;
    if n_output
        .0
        .checked_sub(seen)
        .is_none_or(|more| more > IN_FLIGHT_MAX)
    {
        let (stated, actual) = (n_output.0, seen);
        return Err(Refused::Accounting(Fault::OutputCount { stated, actual }));
    }
    let prompt = TokenCount(u32::try_from(asked.prompt.len()).unwrap_or(u32::MAX));
    let usage = Usage {
        prompt,
        cached: TokenCount(0),
        output: n_output,
    };
    let due = asked.offer.body.price.charge(&usage).unwrap_or_default();
    if receipt.body.charged > due {
        let charged = receipt.body.charged;
        return Err(Refused::Accounting(Fault::Charge { charged, due }));
    }
    Ok(checked)
}

fn commerce(asked: &Asked, delivered: &Delivered, receipt: &Receipt) -> Result<(), Refused> {
    if receipt.provider != asked.provider {
        let (stated, asked) = (receipt.provider, asked.provider);
        return Err(Refused::Accounting(Fault::OtherProvider { stated, asked }));
    }
    if receipt.request_id != asked.request_id {
        return Err(Refused::OtherRequest {
            stated: receipt.request_id,
            asked: asked.request_id,
        });
    }
    if receipt.payer != asked.payer {
        return Err(Refused::OtherPayer {
            stated: receipt.payer,
            asked: asked.payer,
        });
    }
    if receipt.channel_id != asked.channel_id {
        return Err(Refused::OtherChannel {
            stated: receipt.channel_id,
            asked: asked.channel_id,
        });
    }
    if receipt.tier != asked.tier {
        return Err(Refused::OtherTier {
            stated: receipt.tier,
            asked: asked.tier,
        });
    }
    let expected = MicroUsd(asked.cumulative_before.0.saturating_add(receipt.charged.0));
    if receipt.cumulative != expected {
        return Err(Refused::Cumulative {
            stated: receipt.cumulative,
            expected,
        });
    }
    if receipt.statement.stop_reason == StopReason::Cut && !delivered.we_left {
        return Err(Refused::CutUnasked);
    }
    if receipt.served_at.0.abs_diff(delivered.at.0) > CLOCK_SKEW_S {
        return Err(Refused::Date {
            stated: receipt.served_at,
            now: delivered.at,
        });
    }
    // Performance is counter-signed: a provider may not claim to have worked longer than we waited.
    let most = delivered.took.0.saturating_add(TIMING_SLACK_MS);
    if receipt.ttft > receipt.duration || receipt.duration.0 > most {
        let (ttft, duration) = (receipt.ttft, receipt.duration);
        return Err(Refused::Timing {
            ttft,
            duration,
            seen: delivered.took,
        });
    }
    Ok(())
}
