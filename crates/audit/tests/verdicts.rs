//! Every attack on a receipt that tokens, price and model alone can refute, one test each; and honest
//! answers of many samplers, of which not one may be accused.

use std::sync::OnceLock;

use assay_audit::{
    ActualStop, Evidence, Fault, Format, Place, SignatureFault, Verdict, check_accounting,
    reexecute,
};
use assay_engine::{BatchLimits, Batcher, EventKind, GenerationRequest, Model};
use assay_model::{StopWatcher, Tokenizer, TokenizerSpec};
use assay_protocol::{
    Address, B256, Domain, DurationMs, MicroUsd, MicroUsdPerMillionTokens, Offer, Price, Receipt,
    SamplerParams, Signature, Signed, Statement, StopReason, Temperature, Tier, Timestamp,
    TokenCount, TokenId, TypedData, Usage, merkle,
};
use assay_testkit::tiny::Tiny;
use k256::ecdsa::SigningKey;

const EOS: TokenId = 257;

struct Signer(SigningKey);

impl Signer {
    fn new(n: u8) -> Self {
        Self(SigningKey::from_slice(&[n; 32]).unwrap())
    }

    fn address(&self) -> Address {
        Address::from_public_key(self.0.verifying_key())
    }

    fn sign<T: TypedData>(&self, body: T) -> Signed<T> {
        let (signature, recovery) = self
            .0
            .sign_prehash_recoverable(body.digest(&domain()).as_slice())
            .unwrap();
        let mut bytes = [0u8; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = 27 + recovery.to_byte();
        Signed {
            body,
            signature: Signature(bytes.into()),
        }
    }
}

fn domain() -> Domain {
    Domain {
        chain_id: 31_337,
        verifying_contract: Address::repeat_byte(0x12),
    }
}

fn tokenizer() -> Tokenizer {
    Tokenizer::new(TokenizerSpec::bytes(288)).unwrap()
}

fn model() -> Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Tiny::llama(7).model()).clone()
}

fn prompt(text: &str) -> Vec<TokenId> {
    text.bytes().map(TokenId::from).collect()
}

/// What an honest node does: generate until the watcher says that the answer ends.
fn generate(
    model: &Model,
    prompt: &[TokenId],
    sampler: &SamplerParams,
) -> (Vec<TokenId>, StopReason) {
    let mut batcher = Batcher::new(model, 1, BatchLimits::default());
    let request = GenerationRequest::new(prompt.to_vec(), sampler.clone());
    batcher.submit(request).unwrap();
    let mut watcher = StopWatcher::new(tokenizer(), sampler);
    let mut output = Vec::new();
    loop {
        for event in batcher.step() {
            if let EventKind::Token(id) = event.kind {
                output.push(id);
                if let Some(reason) = watcher.push(id) {
                    return (output, reason);
                }
            }
        }
    }
}

fn price() -> Price {
    let price = MicroUsdPerMillionTokens;
    Price {
        input: price(50_000),
        cached_input: price(5_000),
        output: price(100_000),
    }
}

/// The file that an honest provider's answer leaves.
fn evidence(
    prompt: Vec<TokenId>,
    sampler: SamplerParams,
    output: Vec<TokenId>,
    stop: StopReason,
) -> Evidence {
    let key = Signer::new(5);
    let provider = Address::repeat_byte(0xaa);
    let model_id = model().id();
    let count = |n: usize| TokenCount(n as u32);
    let usage = Usage {
        prompt: count(prompt.len()),
        cached: TokenCount(0),
        output: count(output.len()),
    };
    let offer = Offer {
        provider,
        model_id,
        price: price(),
        max_context: TokenCount(2048),
        concurrency: 4,
        ttft_promise: DurationMs(500),
        expires_at: Timestamp(2_000),
    };
    let charged = offer.price.charge(&usage).unwrap();
    let receipt = Receipt {
        statement: Statement::new(model_id, &prompt, &sampler, &output, stop),
        provider,
        payer: Address::repeat_byte(0xbb),
        channel_id: B256::repeat_byte(1),
        charged,
        cumulative: charged,
        served_at: Timestamp(1_000),
        ttft: DurationMs(20),
        duration: DurationMs(100),
        tier: Tier::Staked,
        request_id: B256::repeat_byte(2),
    };
    Evidence {
        format: Format::V1,
        domain: domain(),
        signer: key.address(),
        offer: key.sign(offer),
        receipt: key.sign(receipt),
        prompt,
        cached: TokenCount(0),
        sampler,
        output,
    }
}

fn honest(sampler: SamplerParams) -> Evidence {
    let prompt = prompt("tell me");
    let (output, stop) = generate(&model(), &prompt, &sampler);
    evidence(prompt, sampler, output, stop)
}

fn seeded(max_tokens: u32) -> SamplerParams {
    SamplerParams {
        temperature: Temperature::Beta(256),
        seed: B256::repeat_byte(9),
        ..SamplerParams::greedy(max_tokens)
    }
}

/// The whole audit: accounting, then re-execution.
fn audit(evidence: &Evidence) -> Verdict {
    match check_accounting(evidence, &tokenizer()) {
        Err(reason) => Verdict::Dishonest { reason },
        Ok(()) => reexecute(&model(), 1, evidence).unwrap(),
    }
}

fn check(evidence: &Evidence, expected: impl Fn(&Fault) -> bool) {
    match audit(evidence) {
        Verdict::Dishonest { reason } => assert!(expected(&reason), "{reason}"),
        verdict => panic!("{verdict}"),
    }
}

/// Makes the receipt agree with changed tokens, as a liar would.
fn restate(evidence: &mut Evidence, stop: StopReason) {
    let body = &mut evidence.receipt.body;
    body.statement = Statement::new(
        body.statement.model_id,
        &evidence.prompt,
        &evidence.sampler,
        &evidence.output,
        stop,
    );
    let count = |n: usize| TokenCount(n as u32);
    let usage = Usage {
        prompt: count(evidence.prompt.len()),
        cached: evidence.cached,
        output: count(evidence.output.len()),
    };
    body.charged = price().charge(&usage).unwrap();
    body.cumulative = body.charged;
}

#[test]
fn an_honest_answer_passes_and_survives_a_trip_through_its_file() {
    let evidence = honest(seeded(40));
    let n = evidence.output.len() as u32;
    assert_eq!(audit(&evidence), Verdict::Honest { tokens: n });
    evidence.check_signatures().unwrap();
    let file = serde_json::to_string(&evidence).unwrap();
    assert_eq!(serde_json::from_str::<Evidence>(&file).unwrap(), evidence);
}

#[test]
fn no_honest_answer_of_any_sampler_is_accused() {
    let (model, tokenizer) = (model(), tokenizer());
    let mut stops = [0usize; 4];
    for seed in 0..200u64 {
        let pick = |n: u64, k: u64| (seed / n) % k;
        let mut sampler = SamplerParams {
            temperature: if pick(1, 4) == 0 {
                Temperature::Greedy
            } else {
                Temperature::Beta(64 << pick(4, 4))
            },
            top_k: [0, 1, 5, 40][pick(2, 4) as usize],
            top_p_q16: [65_536, 60_000, 30_000, 1][pick(3, 4) as usize],
            seed: B256::left_padding_from(&seed.to_be_bytes()),
            max_tokens: 1 + (seed % 37) as u32,
            stop: Vec::new(),
        };
        let prompt = prompt(&format!("question {seed}"));
        let (mut output, mut stop) = generate(&model, &prompt, &sampler);
        if seed % 3 == 0 {
            // A text that will occur: random tokens seldom spell one that was thought up.
            let text = String::from_utf8_lossy(&tokenizer.decode(&output)).into_owned();
            let middle = text.chars().nth(text.chars().count() / 2);
            sampler.stop = middle.map(String::from).into_iter().collect();
            (output, stop) = generate(&model, &prompt, &sampler);
        }
        stops[stop as usize - 1] += 1;
        let evidence = evidence(prompt, sampler, output, stop);
        check_accounting(&evidence, &tokenizer).unwrap_or_else(|f| panic!("seed {seed}: {f}"));
        let verdict = reexecute(&model, 1, &evidence).unwrap();
        assert!(verdict.is_honest(), "seed {seed}: {verdict}");
    }
    assert!(
        stops[1] > 0 && stops[2] > 0,
        "the mix ends in several ways: {stops:?}"
    );
}

#[test]
fn a_changed_token_is_named_with_the_models_own() {
    let mut evidence = honest(seeded(20));
    let right = evidence.output[7];
    evidence.output[7] = if right == 65 { 66 } else { 65 };
    restate(&mut evidence, StopReason::MaxTokens);
    check(
        &evidence,
        |f| matches!(f, Fault::FalseToken { position: 7, recomputed, .. } if *recomputed == right),
    );
}

#[test]
fn an_answer_of_a_cheaper_computation_is_caught() {
    let sampler = seeded(30);
    let prompt = prompt("tell me");
    let (output, stop) = generate(&model().without_layers(&[1]), &prompt, &sampler);
    let evidence = evidence(prompt, sampler, output, stop);
    check(&evidence, |f| {
        matches!(f, Fault::FalseToken { .. } | Fault::EndedEarly { .. })
    });
}

#[test]
fn a_forged_end_of_text_is_an_early_end() {
    let mut evidence = honest(seeded(30));
    evidence.output.truncate(5);
    evidence.output.push(EOS);
    restate(&mut evidence, StopReason::EndOfText);
    check(&evidence, |f| {
        matches!(f, Fault::EndedEarly { position: 5, .. })
    });
}

#[test]
fn a_truncated_answer_cannot_claim_any_reason_to_stop() {
    for stated in [
        StopReason::EndOfText,
        StopReason::MaxTokens,
        StopReason::StopString,
    ] {
        let mut evidence = honest(seeded(30));
        evidence.output.truncate(5);
        restate(&mut evidence, stated);
        let expected = Fault::StopReason {
            stated,
            actual: ActualStop::Nothing,
        };
        check(&evidence, |f| *f == expected);
    }
}

#[test]
fn a_cut_answer_is_checked_as_a_true_prefix() {
    let mut evidence = honest(seeded(30));
    evidence.output.truncate(5);
    restate(&mut evidence, StopReason::Cut);
    assert_eq!(audit(&evidence), Verdict::Honest { tokens: 5 });
    evidence.output[2] ^= 1;
    restate(&mut evidence, StopReason::Cut);
    check(&evidence, |f| {
        matches!(f, Fault::FalseToken { position: 2, .. })
    });
}

#[test]
fn tokens_after_the_end_are_not_paid_for() {
    let mut evidence = honest(SamplerParams {
        max_tokens: 10,
        ..seeded(10)
    });
    evidence.output.push(65);
    restate(&mut evidence, StopReason::MaxTokens);
    check(&evidence, |f| {
        matches!(
            f,
            Fault::PastTheEnd {
                position: 9,
                reason: StopReason::MaxTokens
            }
        )
    });
}

#[test]
fn a_stop_string_that_was_passed_over_is_noticed() {
    let mut evidence = honest(seeded(30));
    let early = char::from(
        evidence
            .output
            .iter()
            .copied()
            .find(|id| *id < 128)
            .unwrap_or(65) as u8,
    );
    evidence.sampler.stop = vec![early.to_string()];
    restate(&mut evidence, StopReason::MaxTokens);
    check(&evidence, |f| {
        matches!(
            f,
            Fault::PastTheEnd {
                reason: StopReason::StopString,
                ..
            } | Fault::StopReason { .. }
        )
    });
}

#[test]
fn a_token_that_does_not_exist_is_refused_before_the_model_sees_it() {
    let mut evidence = honest(seeded(10));
    evidence.output[3] = 288;
    restate(&mut evidence, StopReason::MaxTokens);
    check(&evidence, |f| {
        matches!(
            f,
            Fault::UnknownToken {
                place: Place::Output,
                position: 3,
                id: 288,
                vocab: 288
            }
        )
    });
}

#[test]
fn a_receipt_for_another_prompt_is_noticed() {
    let mut evidence = honest(seeded(10));
    evidence.receipt.body.statement.prompt_root = merkle::tokens_root(&prompt("tell us"));
    check(&evidence, |f| matches!(f, Fault::PromptRoot { .. }));
    evidence.receipt.body.statement.n_prompt.0 += 1;
    check(&evidence, |f| {
        matches!(
            f,
            Fault::PromptCount {
                stated: 8,
                actual: 7
            }
        )
    });
}

#[test]
fn a_changed_sampler_or_a_ground_seed_is_noticed() {
    let mut evidence = honest(seeded(10));
    let other = SamplerParams {
        seed: B256::repeat_byte(10),
        ..evidence.sampler.clone()
    };
    evidence.receipt.body.statement.sampler_hash = other.hash();
    check(&evidence, |f| matches!(f, Fault::SamplerHash { .. }));
}

#[test]
fn a_receipt_for_other_tokens_than_delivered_is_noticed() {
    let mut evidence = honest(seeded(10));
    evidence.output[0] ^= 1;
    check(&evidence, |f| matches!(f, Fault::OutputRoot { .. }));
    evidence.output.pop();
    check(&evidence, |f| {
        matches!(
            f,
            Fault::OutputCount {
                stated: 10,
                actual: 9
            }
        )
    });
}

#[test]
fn an_overcharge_of_one_micro_dollar_is_noticed() {
    let mut evidence = honest(seeded(10));
    evidence.receipt.body.charged.0 += 1;
    let due = MicroUsd(evidence.receipt.body.charged.0 - 1);
    check(
        &evidence,
        |f| matches!(f, Fault::Charge { due: d, .. } if *d == due),
    );
}

#[test]
fn more_cached_tokens_than_the_prompt_has_are_noticed() {
    let mut evidence = honest(seeded(10));
    evidence.cached = TokenCount(8);
    check(&evidence, |f| {
        *f == Fault::CachedCount {
            cached: 8,
            prompt: 7,
        }
    });
}

#[test]
fn an_answer_begun_after_its_offer_expired_is_noticed() {
    let mut evidence = honest(seeded(10));
    evidence.receipt.body.served_at = Timestamp(2_001);
    check(&evidence, |f| matches!(f, Fault::OfferExpired { .. }));
    // One that began before and ended after is fine: a quote holds for what began in time.
    evidence.receipt.body.duration = DurationMs(1_000);
    assert!(audit(&evidence).is_honest());
}

#[test]
fn another_models_receipt_is_noticed_and_another_model_gives_no_verdict() {
    let mut evidence = honest(seeded(10));
    let other = Tiny::llama(8).model();
    let refused = reexecute(&other, 1, &evidence).unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("pull or import the model it names"),
        "{refused}"
    );
    evidence.receipt.body.statement.model_id = other.id();
    check(&evidence, |f| matches!(f, Fault::OtherModel { .. }));
}

#[test]
fn a_context_longer_than_offered_is_noticed() {
    let mut evidence = honest(seeded(10));
    evidence.offer.body.max_context = TokenCount(16);
    check(&evidence, |f| {
        *f == Fault::ContextExceeded {
            tokens: 17,
            context: 16,
        }
    });
}

#[test]
fn a_changed_receipt_loses_its_signature() {
    let mut evidence = honest(seeded(10));
    evidence.receipt.body.charged.0 += 1;
    assert!(matches!(
        evidence.check_signatures(),
        Err(SignatureFault::Receipt { .. })
    ));
}

#[test]
fn an_offer_of_somebody_else_does_not_vouch_for_a_price() {
    let mut evidence = honest(seeded(10));
    evidence.offer = Signer::new(6).sign(evidence.offer.body);
    assert!(matches!(
        evidence.check_signatures(),
        Err(SignatureFault::Offer { .. })
    ));
    let mut offer = evidence.offer.body;
    offer.provider = Address::repeat_byte(0xcc);
    evidence.offer = Signer::new(5).sign(offer);
    assert!(matches!(
        evidence.check_signatures(),
        Err(SignatureFault::DifferentProviders { .. })
    ));
}

#[test]
fn only_faults_that_rest_on_the_signature_alone_convince_a_third_party() {
    let convinces = Fault::FalseToken {
        position: 0,
        claimed: 1,
        recomputed: 2,
    };
    assert!(convinces.convinces_a_third_party());
    let charge = Fault::Charge {
        charged: MicroUsd(2),
        due: MicroUsd(1),
    };
    assert!(!charge.convinces_a_third_party());
}
