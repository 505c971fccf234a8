//! Which provider serves a request: price for this request, measured speed, record. Pure: state,
//! time and the coin are arguments, so the policy is tested on data. Never sends anything.
//!
//! Costs and times are compared relative to the best on offer, so that the policy needs no exchange
//! rate between money and seconds: at equal weights a node that costs twice as much must be more
//! than twice as fast to win.

use std::fmt::Write as _;

use assay_protocol::{Address, MicroUsd, Offer, ProofOffer, Timestamp, TokenCount, Usage};

use crate::prior::{self, ChainsWord};

/// What the policy values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingPolicy {
    /// Weight of the price, against the cheapest.
    pub price_weight: u32,
    /// Weight of the time to a whole answer, against the fastest.
    pub speed_weight: u32,
    /// An answer is expected to have at most this many tokens, whatever the request allows.
    pub expected_output: TokenCount,
    /// One request in so many goes to the provider that has been unused the longest; 0 never.
    pub explore_one_in: u64,
}

impl Default for RoutingPolicy {
    fn default() -> Self {
        Self {
            price_weight: 2,
            speed_weight: 1,
            expected_output: TokenCount(128),
            explore_one_in: 16,
        }
    }
}

/// What the policy must know of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub prompt: TokenCount,
    pub max_tokens: u32,
    /// The most that this request may cost, with its proof.
    pub max_price: Option<MicroUsd>,
    /// Whether the answer is to be proven.
    pub proven: bool,
}

/// What a provider showed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    pub ttft_ms: u32,
    pub us_per_token: u32,
}

/// A provider with a signed offer for the model, as the gateway knows it now.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub offer: Offer,
    /// On which terms it proves, if it does.
    pub proof: Option<ProofOffer>,
    /// As this gateway measured it.
    pub speed: Option<Speed>,
    /// What the chain says of one that was not measured here.
    pub told: Option<ChainsWord>,
    /// Unix milliseconds of its last answer; 0 if it never gave one.
    pub last_used_ms: u64,
    /// This gateway's requests on it now.
    pub in_flight: u32,
    /// Failures in a row, up to now.
    pub failures: u32,
    /// Unix milliseconds before which it rests after failures.
    pub resting_until_ms: u64,
    /// Why it is benched, if it is.
    pub benched: Option<String>,
}

/// The decision with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub provider: Address,
    /// The most that the answer can cost there: what the voucher must cover.
    pub ceiling: MicroUsd,
    /// The most that its proof costs on top, paid apart.
    pub proof: MicroUsd,
    /// The terms of that proof, if one is wanted.
    pub terms: Option<ProofOffer>,
    pub why: String,
    /// The others, each with why not.
    pub passed_over: Vec<(Address, String)>,
}

/// Nobody can serve; each with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoRoute {
    pub reasons: Vec<(Address, Refusal)>,
}

/// Why a provider cannot serve this request now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("benched: {0}")]
    Benched(String),
    #[error("it is in jail until {0}")]
    Jailed(u64),
    #[error("its offer has expired")]
    Expired,
    #[error("{needed} tokens do not fit its context of {context}")]
    Context { needed: u64, context: u32 },
    #[error("it offers no proofs")]
    NoProofs,
    #[error("it proves answers of up to {most} tokens with their prompt, this could have {needed}")]
    ProofTooLong { needed: u64, most: u32 },
    #[error("it could cost {ceiling}, the request allows {allowed}")]
    TooDear {
        ceiling: MicroUsd,
        allowed: MicroUsd,
    },
    #[error("its price is absurd")]
    AbsurdPrice,
    #[error("it failed {failures} times in a row and rests for {for_ms} ms")]
    Resting { failures: u32, for_ms: u64 },
    #[error("all its {0} places are taken by this gateway")]
    Full(u32),
    #[error("it was tried for this request")]
    Tried,
}

struct Scored<'a> {
    candidate: &'a Candidate,
    ceiling: MicroUsd,
    proof: MicroUsd,
    terms: Option<ProofOffer>,
    /// Expected cost in 10^-12 dollars.
    cost: u128,
    /// Expected milliseconds, if it was measured.
    time_ms: Option<u64>,
    /// The same by the chain's word, if it was not.
    told_ms: Option<u64>,
}

/// Chooses a provider. `coin` is the request's own randomness, `tried` are those that already failed it.
pub(crate) fn choose(
    policy: &RoutingPolicy,
    wanted: &Wanted,
    candidates: &[Candidate],
    tried: &[Address],
    now_ms: u64,
    coin: u64,
) -> Result<Choice, NoRoute> {
    let mut able = Vec::new();
    let mut reasons = Vec::new();
    for candidate in candidates {
        match admit(policy, wanted, candidate, tried, now_ms) {
            Ok(scored) => able.push(scored),
            Err(refusal) => reasons.push((candidate.offer.provider, refusal)),
        }
    }
    // Whoever only rests or is full is better than nobody, but for the failures of this very request.
    if able.is_empty() {
        return Err(NoRoute { reasons });
    }
    let cheapest = able.iter().map(|s| s.cost).min().unwrap_or(0).max(1);
    // What was measured here is the mark, wherever anything was.
    let fastest = able.iter().filter_map(|s| s.time_ms).min();
    let told = able.iter().filter_map(|s| s.told_ms).min();
    let fastest = fastest.or(told).unwrap_or(1).max(1);
    let explored = explore(policy, &able, coin);
    let best = explored.unwrap_or_else(|| {
        let key = |s: &Scored<'_>| {
            (
                score(policy, s, cheapest, fastest),
                s.candidate.last_used_ms,
                s.candidate.offer.provider,
            )
        };
        (0..able.len()).min_by_key(|i| key(&able[*i])).unwrap_or(0)
    });
    let mut passed_over: Vec<_> = able
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != best)
        .map(|(_, s)| (s.candidate.offer.provider, describe(s, cheapest, fastest)))
        .collect();
    passed_over.extend(reasons.iter().map(|(who, why)| (*who, why.to_string())));
    let chosen = &able[best];
    let mut why = describe(chosen, cheapest, fastest);
    if explored.is_some() {
        why.push_str("; chosen to measure it again, as one request in ");
        let _ = write!(why, "{}", policy.explore_one_in);
    }
    Ok(Choice {
        provider: chosen.candidate.offer.provider,
        ceiling: chosen.ceiling,
        proof: chosen.proof,
        terms: chosen.terms,
        why,
        passed_over,
    })
}

fn admit<'a>(
    policy: &RoutingPolicy,
    wanted: &Wanted,
    candidate: &'a Candidate,
    tried: &[Address],
    now_ms: u64,
) -> Result<Scored<'a>, Refusal> {
    let offer = &candidate.offer;
    if tried.contains(&offer.provider) {
        return Err(Refusal::Tried);
    }
    if let Some(reason) = &candidate.benched {
        return Err(Refusal::Benched(reason.clone()));
    }
    if let Some(told) = &candidate.told
        && told.is_jailed(Timestamp(now_ms / 1000))
    {
        return Err(Refusal::Jailed(told.jailed_until.0));
    }
    if offer.expires_at <= Timestamp(now_ms / 1000) {
        return Err(Refusal::Expired);
    }
    let needed = u64::from(wanted.prompt.0) + u64::from(wanted.max_tokens);
    if needed > u64::from(offer.max_context.0) {
        return Err(Refusal::Context {
            needed,
            context: offer.max_context.0,
        });
    }
    let charge = |output| {
        let usage = Usage {
            prompt: wanted.prompt,
            cached: TokenCount(0),
            output,
        };
        offer.price.charge(&usage).map_err(|_| Refusal::AbsurdPrice)
    };
    let ceiling = charge(TokenCount(wanted.max_tokens))?;
    let terms = proof_terms(wanted, candidate, now_ms)?;
    let proof = terms.map_or(Ok(MicroUsd::ZERO), |terms| {
        terms.charge(wanted.prompt, TokenCount(wanted.max_tokens))
    });
    let proof = proof.map_err(|_| Refusal::AbsurdPrice)?;
    let whole = ceiling.checked_add(proof);
    let whole = whole.map_err(|_| Refusal::AbsurdPrice)?;
    if let Some(allowed) = wanted.max_price
        && whole > allowed
    {
        return Err(Refusal::TooDear {
            ceiling: whole,
            allowed,
        });
    }
    if candidate.resting_until_ms > now_ms {
        let for_ms = candidate.resting_until_ms - now_ms;
        return Err(Refusal::Resting {
            failures: candidate.failures,
            for_ms,
        });
    }
    if candidate.in_flight >= offer.concurrency {
        return Err(Refusal::Full(offer.concurrency));
    }
    let expected = wanted.max_tokens.min(policy.expected_output.0);
    let proof_price = terms.map_or(0, |terms| u128::from(terms.price.0));
    // Sums of four products of a u32 and a u64: below 2^98.
    let cost = u128::from(wanted.prompt.0) * (u128::from(offer.price.input.0) + proof_price)
        + u128::from(expected) * (u128::from(offer.price.output.0) + proof_price);
    // Requests already there share the machine.
    let time = |speed: Speed| {
        prior::time_ms(&speed, TokenCount(expected)) * (1 + u64::from(candidate.in_flight))
    };
    let told = candidate.told.filter(|_| candidate.speed.is_none());
    Ok(Scored {
        candidate,
        ceiling,
        proof,
        terms,
        cost,
        time_ms: candidate.speed.map(time),
        told_ms: told.and_then(|told| told.speed()).map(time),
    })
}

/// The terms on which this answer would be proven there; nothing if it is not to be.
fn proof_terms(
    wanted: &Wanted,
    candidate: &Candidate,
    now_ms: u64,
) -> Result<Option<ProofOffer>, Refusal> {
    if !wanted.proven {
        return Ok(None);
    }
    let current = |terms: &ProofOffer| terms.expires_at > Timestamp(now_ms / 1000);
    let terms = candidate.proof.filter(current).ok_or(Refusal::NoProofs)?;
    let needed = u64::from(wanted.prompt.0) + u64::from(wanted.max_tokens);
    let most = terms.max_tokens.0;
    if needed > u64::from(most) {
        return Err(Refusal::ProofTooLong { needed, most });
    }
    Ok(Some(terms))
}

/// Weighted permille of the best; an unmeasured node is taken to be as fast as the fastest, unless the chain says worse.
fn score(policy: &RoutingPolicy, s: &Scored<'_>, cheapest: u128, fastest: u64) -> u128 {
    let cost = s.cost.saturating_mul(1000) / cheapest;
    let unmeasured = s.told_ms.unwrap_or(fastest).max(fastest);
    let time = u128::from(s.time_ms.unwrap_or(unmeasured)) * 1000 / u128::from(fastest);
    let base = cost
        .saturating_mul(u128::from(policy.price_weight))
        .saturating_add(time * u128::from(policy.speed_weight));
    let doubt = match (&s.candidate.speed, &s.candidate.told) {
        (None, Some(told)) => told.doubt_permille(),
        _ => 1000,
    };
    base.saturating_mul(u128::from(s.candidate.failures) + 1)
        .saturating_mul(doubt)
        / 1000
}

fn explore(policy: &RoutingPolicy, able: &[Scored<'_>], coin: u64) -> Option<usize> {
    if policy.explore_one_in == 0 || able.len() < 2 || !coin.is_multiple_of(policy.explore_one_in) {
        return None;
    }
    (0..able.len()).min_by_key(|i| {
        let candidate = able[*i].candidate;
        (candidate.last_used_ms, candidate.offer.provider)
    })
}

fn describe(s: &Scored<'_>, cheapest: u128, fastest: u64) -> String {
    let mut text = format!("at most {}", s.ceiling);
    if s.proof > MicroUsd::ZERO {
        let _ = write!(text, " and {} for its proof", s.proof);
    }
    let cost = s.cost.saturating_mul(100) / cheapest;
    if s.cost <= cheapest {
        text.push_str(" (cheapest)");
    } else {
        let _ = write!(text, " ({}.{:02}x the cheapest)", cost / 100, cost % 100);
    }
    match s.time_ms {
        None => {
            match s.told_ms {
                Some(ms) => {
                    let _ = write!(text, ", about {ms} ms by the chain's word");
                }
                None => text.push_str(", speed not measured yet"),
            }
            if let Some(told) = s.candidate.told.filter(|told| told.convictions > 0) {
                let _ = write!(text, ", convicted {} times", told.convictions);
            }
        }
        Some(ms) if ms <= fastest => {
            let _ = write!(text, ", about {ms} ms (fastest)");
        }
        Some(ms) => {
            let times = u128::from(ms) * 100 / u128::from(fastest);
            let _ = write!(
                text,
                ", about {ms} ms ({}.{:02}x the fastest)",
                times / 100,
                times % 100
            );
        }
    }
    if s.candidate.failures > 0 {
        let _ = write!(text, ", {} failures in a row", s.candidate.failures);
    }
    text
}

impl NoRoute {
    /// The refusals that time alone ends: resting or full.
    pub(crate) fn is_busy(&self) -> bool {
        self.reasons.iter().any(|(_, r)| {
            matches!(
                r,
                Refusal::Resting { .. } | Refusal::Full(_) | Refusal::Tried
            )
        })
    }

    /// Some provider could serve if only more were allowed to be spent.
    pub(crate) fn is_too_dear(&self) -> bool {
        self.reasons
            .iter()
            .any(|(_, r)| matches!(r, Refusal::TooDear { .. }))
    }

    /// Nobody proves such an answer.
    pub(crate) fn is_unproven(&self) -> bool {
        let unproven = |r: &Refusal| matches!(r, Refusal::NoProofs | Refusal::ProofTooLong { .. });
        self.reasons.iter().any(|(_, r)| unproven(r)) && !self.is_busy() && !self.is_too_dear()
    }

    /// One sentence for the user.
    pub(crate) fn explain(&self) -> String {
        if self.reasons.is_empty() {
            return "no provider offers this model now".into();
        }
        let mut text = String::from("no provider can serve this request: ");
        for (i, (who, why)) in self.reasons.iter().enumerate() {
            let _ = write!(text, "{}{who}: {why}", if i == 0 { "" } else { "; " });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::{B256, DurationMs, MicroUsdPerMillionTokens, Price};

    const NOW: u64 = 1_000_000_000;

    fn node(n: u8, output_price: u64) -> Candidate {
        Candidate {
            offer: Offer {
                provider: Address::repeat_byte(n),
                model_id: B256::ZERO,
                price: Price {
                    input: MicroUsdPerMillionTokens(output_price / 2),
                    cached_input: MicroUsdPerMillionTokens(output_price / 4),
                    output: MicroUsdPerMillionTokens(output_price),
                },
                max_context: TokenCount(2048),
                concurrency: 4,
                ttft_promise: DurationMs(500),
                expires_at: Timestamp(NOW / 1000 + 60),
            },
            proof: None,
            speed: Some(Speed {
                ttft_ms: 100,
                us_per_token: 10_000,
            }),
            told: None,
            last_used_ms: NOW - 1000,
            in_flight: 0,
            failures: 0,
            resting_until_ms: 0,
            benched: None,
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            prompt: TokenCount(100),
            max_tokens: 100,
            max_price: None,
            proven: false,
        }
    }

    /// The same node, with proofs at this price.
    fn prover(n: u8, output_price: u64, price: u64) -> Candidate {
        let plain = node(n, output_price);
        let proof = ProofOffer {
            provider: plain.offer.provider,
            model_id: plain.offer.model_id,
            price: MicroUsdPerMillionTokens(price),
            max_tokens: TokenCount(256),
            delay_s: 60,
            expires_at: plain.offer.expires_at,
        };
        Candidate {
            proof: Some(proof),
            ..plain
        }
    }

    fn route(candidates: &[Candidate], tried: &[Address]) -> Result<Choice, NoRoute> {
        choose(
            &RoutingPolicy::default(),
            &wanted(),
            candidates,
            tried,
            NOW,
            1,
        )
    }

    fn check(candidates: &[Candidate], expected: u8) {
        let choice = route(candidates, &[]).unwrap();
        assert_eq!(
            choice.provider,
            Address::repeat_byte(expected),
            "{choice:?}"
        );
    }

    #[test]
    fn the_cheapest_of_equals_serves() {
        check(&[node(1, 300_000), node(2, 100_000), node(3, 200_000)], 2);
    }

    #[test]
    fn a_much_slower_node_does_not_win_by_a_small_discount() {
        let mut slow = node(1, 90_000);
        slow.speed = Some(Speed {
            ttft_ms: 1_000,
            us_per_token: 100_000,
        });
        check(&[slow, node(2, 100_000)], 2);
    }

    #[test]
    fn a_much_dearer_node_does_not_win_by_a_little_speed() {
        let mut fast = node(1, 1_000_000);
        fast.speed = Some(Speed {
            ttft_ms: 90,
            us_per_token: 9_000,
        });
        check(&[fast, node(2, 100_000)], 2);
    }

    #[test]
    fn an_unmeasured_node_gets_the_benefit_of_the_doubt() {
        let mut fresh = node(1, 100_000);
        (fresh.speed, fresh.last_used_ms) = (None, 0);
        check(&[fresh, node(2, 100_000)], 1);
    }

    /// Never used here, with what the chain says of it.
    fn stranger(n: u8, output_price: u64, told: ChainsWord) -> Candidate {
        Candidate {
            speed: None,
            told: Some(told),
            last_used_ms: 0,
            ..node(n, output_price)
        }
    }

    fn told(ttft_ms: u32, us_per_token: u32) -> ChainsWord {
        ChainsWord {
            requests: 100,
            ttft_ms: Some(ttft_ms),
            us_per_token: Some(us_per_token),
            success_ppm: Some(1_000_000),
            ..ChainsWord::default()
        }
    }

    #[test]
    fn a_stranger_that_the_chain_calls_slow_starts_from_that() {
        let slow = stranger(1, 100_000, told(8_000, 500_000));
        check(&[slow.clone(), node(2, 100_000)], 2);
        let choice = route(&[slow, node(2, 100_000)], &[]).unwrap();
        assert!(
            choice.passed_over[0].1.contains("by the chain's word"),
            "{choice:?}"
        );
    }

    #[test]
    fn a_good_name_on_the_chain_is_worth_no_more_than_none() {
        // Who pays itself for a fine record is not preferred to who has none.
        let famous = stranger(2, 100_000, told(100, 6_250));
        let mut unknown = node(1, 100_000);
        (unknown.speed, unknown.last_used_ms) = (None, 0);
        check(&[famous.clone(), unknown], 1);
        // And the measured one is not made to look slow by it.
        check(&[famous, node(3, 80_000)], 3);
    }

    #[test]
    fn failures_and_convictions_on_the_chain_weigh_until_measured_here() {
        let shaky = ChainsWord {
            success_ppm: Some(500_000),
            ..told(100, 10_000)
        };
        check(&[stranger(1, 90_000, shaky), node(2, 100_000)], 2);
        let convicted = ChainsWord {
            convictions: 1,
            ..ChainsWord::default()
        };
        check(&[stranger(1, 90_000, convicted), node(2, 100_000)], 2);
        let mut measured = stranger(1, 90_000, shaky);
        measured.speed = node(1, 1).speed;
        check(&[measured, node(2, 100_000)], 1);
    }

    #[test]
    fn one_request_in_sixteen_measures_whoever_was_unused_the_longest() {
        let mut dear = node(1, 900_000);
        dear.last_used_ms = 5;
        let nodes = [dear, node(2, 100_000)];
        let pick =
            |coin| choose(&RoutingPolicy::default(), &wanted(), &nodes, &[], NOW, coin).unwrap();
        assert_eq!(pick(32).provider, Address::repeat_byte(1));
        assert!(pick(32).why.contains("chosen to measure it again"));
        let dear_ones = (0..1600)
            .filter(|c| pick(*c).provider == Address::repeat_byte(1))
            .count();
        assert_eq!(dear_ones, 100);
    }

    #[test]
    fn a_busy_node_counts_as_slower() {
        let mut busy = node(1, 100_000);
        busy.in_flight = 3;
        check(&[busy, node(2, 110_000)], 2);
    }

    #[test]
    fn failures_in_a_row_weigh_against_a_cheap_node() {
        let mut shaky = node(1, 90_000);
        shaky.failures = 1;
        check(&[shaky, node(2, 100_000)], 2);
    }

    #[test]
    fn who_cannot_serve_is_refused_with_the_reason() {
        let refuse = |change: fn(&mut Candidate), expected: Refusal| {
            let mut candidate = node(1, 100_000);
            change(&mut candidate);
            let refused = route(&[candidate], &[]).unwrap_err();
            assert_eq!(refused.reasons, [(Address::repeat_byte(1), expected)]);
        };
        refuse(
            |c| c.benched = Some("lied".into()),
            Refusal::Benched("lied".into()),
        );
        refuse(
            |c| {
                c.told = Some(ChainsWord {
                    jailed_until: Timestamp(NOW / 1000 + 1),
                    ..ChainsWord::default()
                });
            },
            Refusal::Jailed(NOW / 1000 + 1),
        );
        refuse(
            |c| c.offer.expires_at = Timestamp(NOW / 1000),
            Refusal::Expired,
        );
        refuse(
            |c| c.offer.max_context = TokenCount(199),
            Refusal::Context {
                needed: 200,
                context: 199,
            },
        );
        refuse(
            |c| (c.failures, c.resting_until_ms) = (3, NOW + 500),
            Refusal::Resting {
                failures: 3,
                for_ms: 500,
            },
        );
        refuse(|c| c.in_flight = 4, Refusal::Full(4));
    }

    #[test]
    fn a_proof_is_asked_of_who_proves_and_its_price_counts() {
        let go = |wanted: Wanted, candidates: &[Candidate]| {
            choose(&RoutingPolicy::default(), &wanted, candidates, &[], NOW, 1)
        };
        let proven = Wanted {
            proven: true,
            ..wanted()
        };
        let (none, dear, cheap) = (
            node(1, 10_000),
            prover(2, 100_000, 900_000),
            prover(3, 120_000, 500_000),
        );
        let all = [none.clone(), dear.clone(), cheap.clone()];
        let choice = go(proven, &all).unwrap();
        // 200 tokens at 500,000 micro-USD a million.
        assert_eq!(choice.provider, cheap.offer.provider);
        assert_eq!(
            (choice.ceiling, choice.proof),
            (MicroUsd(18), MicroUsd(100))
        );
        assert_eq!(go(wanted(), &all).unwrap().proof, MicroUsd::ZERO);

        let refused = go(proven, &[none]).unwrap_err();
        assert_eq!(refused.reasons[0].1, Refusal::NoProofs);
        assert!(refused.is_unproven());
        let mut late = cheap.clone();
        late.proof.as_mut().unwrap().expires_at = Timestamp(NOW / 1000);
        let refused = go(proven, &[late]).unwrap_err();
        assert_eq!(refused.reasons[0].1, Refusal::NoProofs);
        let long = Wanted {
            max_tokens: 157,
            ..proven
        };
        let refused = go(long, std::slice::from_ref(&cheap)).unwrap_err();
        let (needed, most) = (257, 256);
        assert_eq!(refused.reasons[0].1, Refusal::ProofTooLong { needed, most });
        let poor = Wanted {
            max_price: Some(MicroUsd(117)),
            ..proven
        };
        let refused = go(poor, &[cheap]).unwrap_err();
        assert!(refused.is_too_dear() && !refused.is_unproven());
    }

    #[test]
    fn a_request_is_never_routed_above_its_max_price() {
        let limited = Wanted {
            max_price: Some(MicroUsd(14)),
            ..wanted()
        };
        let go = |candidates: &[Candidate]| {
            choose(&RoutingPolicy::default(), &limited, candidates, &[], NOW, 1)
        };
        // 100 tokens in at 50,000 and 100 out at 100,000 micro-USD a million: 15.
        let refused = go(&[node(1, 100_000)]).unwrap_err();
        let expected = Refusal::TooDear {
            ceiling: MicroUsd(15),
            allowed: MicroUsd(14),
        };
        assert_eq!(refused.reasons[0].1, expected);
        assert_eq!(
            go(&[node(1, 100_000), node(2, 90_000)]).unwrap().ceiling,
            MicroUsd(14)
        );
    }

    #[test]
    fn a_node_that_failed_this_request_is_not_tried_again() {
        let nodes = [node(1, 100_000), node(2, 200_000)];
        let first = route(&nodes, &[]).unwrap().provider;
        let second = route(&nodes, &[first]).unwrap().provider;
        assert_ne!(first, second);
        assert!(route(&nodes, &[first, second]).unwrap_err().is_busy());
    }

    #[test]
    fn the_choice_explains_itself() {
        let mut slow = node(2, 100_000);
        slow.speed = Some(Speed {
            ttft_ms: 220,
            us_per_token: 20_000,
        });
        let choice = route(&[node(1, 300_000), slow], &[]).unwrap();
        assert_eq!(
            choice.why,
            "at most $0.000015 (cheapest), about 2220 ms (2.01x the fastest)"
        );
        assert_eq!(
            choice.passed_over[0].1,
            "at most $0.000045 (3.00x the cheapest), about 1100 ms (fastest)"
        );
    }
}
