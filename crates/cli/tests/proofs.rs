//! `assay prove` and `assay verify` on files alone: a tiny model, an answer of its own, and what must be refused.

mod support;

use assay_audit::{Evidence, Format};
use assay_chain::Key;
use assay_engine::{Model, replay};
use assay_protocol::{
    Address, B256, Domain, DurationMs, MicroUsd, Offer, Price, Receipt, SamplerParams, Statement,
    StopReason, Tier, Timestamp, TokenCount, TokenId,
};
use assay_testkit::tiny::Tiny;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::{assay, stderr};

const PROMPT: [TokenId; 5] = [72, 101, 108, 108, 111];
const OUTPUT: usize = 4;

/// A folder with a model, and somebody who signs.
struct Home {
    dir: tempfile::TempDir,
    model: Model,
    key: Key,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tiny = Tiny::llama(1).with_text();
        let folder = dir.path().join("models/models/tiny");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("model.assay"), tiny.bytes()).unwrap();
        Self {
            dir,
            model: tiny.model(),
            key: Key::from_bytes(&[7; 32]).unwrap(),
        }
    }

    fn run(&self, args: &[&str]) -> Output {
        assay(self.dir.path())
            .env("ASSAY_MODELS_DIR", self.dir.path().join("models"))
            .args(args)
            .output()
            .unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the model answers.
    fn honest(&self) -> Vec<TokenId> {
        let sampler = SamplerParams::greedy(OUTPUT as u32);
        let mut output = vec![0; OUTPUT];
        for _ in 0..OUTPUT {
            output = replay::choices(&self.model, 1, &PROMPT, &sampler, &output).unwrap();
        }
        output
    }

    /// A receipt file that says that this was the answer.
    fn receipt(&self, name: &str, output: &[TokenId]) -> PathBuf {
        let sampler = SamplerParams::greedy(OUTPUT as u32);
        let model_id = self.model.id();
        let stop = StopReason::MaxTokens;
        let provider = Address::repeat_byte(2);
        let domain = Domain {
            chain_id: 1,
            verifying_contract: Address::repeat_byte(9),
        };
        let receipt = Receipt {
            statement: Statement::new(model_id, &PROMPT, &sampler, output, stop),
            provider,
            payer: Address::repeat_byte(3),
            channel_id: B256::repeat_byte(4),
            charged: MicroUsd(0),
            cumulative: MicroUsd(0),
            served_at: Timestamp(1_700_000_000),
            ttft: DurationMs(1),
            duration: DurationMs(2),
            tier: Tier::Proven,
            request_id: B256::repeat_byte(5),
        };
        let offer = Offer {
            provider,
            model_id,
            price: Price::default(),
            max_context: TokenCount(64),
            concurrency: 1,
            ttft_promise: DurationMs(1),
            expires_at: Timestamp(1_800_000_000),
        };
        let evidence = Evidence {
            format: Format::V1,
            domain,
            signer: self.key.address(),
            offer: self.key.sign(offer, &domain),
            receipt: self.key.sign(receipt, &domain),
            prompt: PROMPT.to_vec(),
            cached: TokenCount(0),
            sampler,
            output: output.to_vec(),
        };
        let path = self.path(name);
        std::fs::write(&path, serde_json::to_vec(&evidence).unwrap()).unwrap();
        path
    }

    fn verify(&self, proof: &Path, more: &[&str]) -> (bool, Value, String) {
        let args = [&["verify", text(proof), "--json"], more].concat();
        let output = self.run(&args);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.success(), report, stderr(&output))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_answer_is_proven_and_its_proof_proves_nothing_else() {
    let home = Home::new();
    let receipt = home.receipt("receipt.json", &home.honest());
    let proof = home.path("it.proof");
    let args = ["prove", text(&receipt), "--out", text(&proof), "--json"];
    let proved = home.run(&args);
    assert!(proved.status.success(), "{}", stderr(&proved));
    let told: Value = serde_json::from_slice(&proved.stdout).unwrap();
    assert!(told["proof_bytes"].as_u64().unwrap() > 1_000, "{told}");
    assert!(stderr(&proved).contains("witness"), "{}", stderr(&proved));

    let (holds, report, _) = home.verify(&proof, &[]);
    assert!(holds, "{report}");
    assert_eq!(
        (&report["proven"], &report["signatures"]),
        (&true.into(), &Value::Null)
    );
    let words = home.run(&["verify", text(&proof)]);
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(words.contains("proven: every token"), "{words}");

    // Another answer, with the same proof.
    let mut other = home.honest();
    other[2] ^= 1;
    let other = home.receipt("other.json", &other);
    let (holds, report, why) = home.verify(&proof, &[text(&other)]);
    assert!(!holds && report["proven"] == false, "{report}");
    assert!(why.contains("is not proven"), "{why}");

    let whole = std::fs::read(&proof).unwrap();
    for at in [whole.len() - 1, whole.len() / 2] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let path = home.path("changed.proof");
        std::fs::write(&path, changed).unwrap();
        assert!(!home.verify(&path, &[]).0, "a flipped bit at {at}");
    }
    let cut = home.path("cut.proof");
    std::fs::write(&cut, &whole[..whole.len() - 9]).unwrap();
    assert!(!home.verify(&cut, &[]).0, "a proof that breaks off");
    let (_, _, why) = home.verify(&receipt, &[]);
    assert!(why.contains("is no proof"), "{why}");
}

#[test]
fn a_false_answer_has_no_proof_that_holds() {
    let home = Home::new();
    let mut output = home.honest();
    output[1] ^= 1;
    let receipt = home.receipt("false.json", &output);
    let proof = home.path("false.proof");
    let args = ["prove", text(&receipt), "--out", text(&proof)];
    // A prover may say so, or make what nobody accepts.
    if home.run(&args).status.success() {
        let (holds, report, _) = home.verify(&proof, &[]);
        assert!(!holds, "{report}");
    }
}

#[test]
fn who_lacks_the_model_is_told_where_to_get_it() {
    let home = Home::new();
    let receipt = home.receipt("receipt.json", &home.honest());
    std::fs::remove_dir_all(home.path("models")).unwrap();
    let refused = home.run(&["prove", text(&receipt)]);
    assert!(!refused.status.success());
    assert!(
        stderr(&refused).contains("assay model pull"),
        "{}",
        stderr(&refused)
    );
}
