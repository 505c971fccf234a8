//! The two real models, pulled through the catalogue into cargo's own temporary folder (346 MB once;
//! later runs download nothing). Ignored unless asked for:
//! `cargo nextest run --release -p assay-model --run-ignored only`.

use std::path::Path;

use assay_engine::replay;
use assay_model::gguf::Gguf;
use assay_model::{
    ChatMessage, EncodeOptions, LoadedModel, StopWatcher, Store, Tokenizer, TokenizerSpec, catalog,
    import, quality,
};
use assay_protocol::{SamplerParams, TokenId};

const SMOLLM2: &str = "smollm2-135m-instruct";
const GEMMA3: &str = "gemma-3-270m";

fn store() -> Store {
    Store::new(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("models"))
}

fn pulled(name: &str) -> LoadedModel {
    let entry = catalog::find(name).unwrap();
    store().pull(&entry, &mut |_| {}).unwrap();
    store().open(name).unwrap()
}

fn gguf(name: &str) -> Gguf {
    pulled(name);
    Gguf::open(&store().gguf(name).unwrap()).unwrap()
}

/// Pulling checks the id against the catalogue; this imports once more.
#[test]
#[ignore = "pulls the real models"]
fn the_catalogue_names_the_models_that_an_import_gives() {
    let folder = tempfile::tempdir().unwrap();
    for entry in catalog::catalog() {
        let id = import(
            &gguf(&entry.name),
            &folder.path().join("again.assay"),
            &mut |_| {},
        )
        .unwrap();
        assert_eq!(Some(id), entry.model_id, "{}", entry.name);
        assert_eq!(pulled(&entry.name).model.id(), id);
        pulled(&entry.name).model.verify_roots().unwrap();
    }
}

/// `data/tokens.jsonl` was made with llama.cpp; see `data/make`.
#[test]
#[ignore = "pulls the real models"]
fn both_tokenizers_agree_with_llama_cpp() {
    let tokenizers = [SMOLLM2, GEMMA3].map(|name| {
        let spec = TokenizerSpec::from_gguf(&gguf(name)).unwrap();
        Tokenizer::from_blob(&spec.to_blob()).unwrap()
    });
    let mut compared = 0;
    for line in include_str!("data/tokens.jsonl").lines().skip(1) {
        let row: Vec<serde_json::Value> = serde_json::from_str(line).unwrap();
        let text = row[0].as_str().unwrap();
        for (model, tokenizer) in tokenizers.iter().enumerate() {
            for parse_special in [false, true] {
                // Where parsing makes no difference the row has no second set.
                let column = if parse_special && row.len() > 3 { 3 } else { 1 } + model;
                let expected: Vec<TokenId> = serde_json::from_value(row[column].clone()).unwrap();
                let options = EncodeOptions {
                    add_bos: false,
                    parse_special,
                };
                let got = tokenizer.encode(text, options).unwrap();
                assert_eq!(got, expected, "model {model}, text {text:?}");
                compared += 1;
            }
        }
    }
    assert!(compared > 2500, "{compared}");
}

fn answer(loaded: &LoadedModel, prompt: &[TokenId], max_tokens: u32) -> String {
    let sampler = SamplerParams::greedy(max_tokens);
    let mut watcher = StopWatcher::new(loaded.tokenizer.clone(), &sampler);
    let mut output = Vec::new();
    while watcher.reason().is_none() {
        // The last choice does not depend on what stands there yet.
        output.push(0);
        let choices = replay::choices(&loaded.model, 2, prompt, &sampler, &output).unwrap();
        *output.last_mut().unwrap() = *choices.last().unwrap();
        watcher.push(*choices.last().unwrap());
    }
    watcher.text().to_owned()
}

#[test]
#[ignore = "pulls the real models"]
fn smollm2_answers_a_question() {
    let loaded = pulled(SMOLLM2);
    let turns = [ChatMessage::new("user", "What is the capital of France?")];
    let prompt = loaded.chat_prompt(&turns).unwrap();
    let text = answer(&loaded, &prompt, 24);
    assert!(text.contains("Paris"), "{text}");
}

#[test]
#[ignore = "pulls the real models"]
fn gemma_continues_a_sentence() {
    let loaded = pulled(GEMMA3);
    let options = EncodeOptions {
        add_bos: true,
        parse_special: false,
    };
    let prompt = loaded
        .tokenizer
        .encode("One, two, three, four,", options)
        .unwrap();
    let text = answer(&loaded, &prompt, 4);
    assert!(text.starts_with(" five, six"), "{text}");
}

#[test]
#[ignore = "pulls the real models"]
fn the_integer_models_stay_closer_to_floats_than_llama_cpps_way() {
    for name in [SMOLLM2, GEMMA3] {
        let loaded = pulled(name);
        let options = EncodeOptions {
            add_bos: true,
            parse_special: false,
        };
        let text = include_str!("../src/quality/text/documentation.txt");
        let mut tokens = loaded.tokenizer.encode(text, options).unwrap();
        tokens.truncate(300);
        let report =
            quality::measure_on(&gguf(name), &loaded, &[("docs", vec![tokens])], &mut |_| {})
                .unwrap();
        let (ours, theirs) = (report.all.integer, report.all.llama_cpp);
        assert!(ours.kl.mean < 0.0015, "{name}\n{report}");
        assert!(ours.kl.mean < 0.5 * theirs.kl.mean, "{name}\n{report}");
        assert!(ours.top1.mean > 0.95, "{name}\n{report}");
        assert_eq!(report.clamps.total(), 0, "{name}\n{report}");
    }
}
