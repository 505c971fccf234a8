//! Small GGUFs of both architectures, with every packing in them, through the whole way: import,
//! open, tokenize, run, compare with floats. No download.

mod common;

use std::sync::Arc;

use assay_model::catalog::Pinned;
use assay_model::gguf::Gguf;
use assay_model::{
    CatalogEntry, ChatMessage, EncodeOptions, ImportError, LoadedModel, OpenError, Store,
    StoreError, TemplateError, Tokenizer, TokenizerSpec, import, quality,
};
use assay_protocol::{ModelId, TokenId};
use common::TinyGguf;
use sha2::{Digest, Sha256};

const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}";

fn llama() -> TinyGguf {
    TinyGguf {
        gemma: false,
        seed: 1,
        template: Some(TEMPLATE),
    }
}

fn gemma() -> TinyGguf {
    TinyGguf {
        gemma: true,
        seed: 2,
        template: None,
    }
}

struct Imported {
    folder: tempfile::TempDir,
    gguf: Gguf,
    id: String,
}

impl Imported {
    fn new(tiny: &TinyGguf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gguf = Gguf::parse(Arc::new(tiny.bytes())).unwrap();
        let path = folder.path().join("tiny.assay");
        let id = import(&gguf, &path, &mut |_| {}).unwrap().to_string();
        Imported { folder, gguf, id }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("tiny.assay")).unwrap()
    }

    fn open(&self) -> LoadedModel {
        LoadedModel::open(&self.folder.path().join("tiny.assay"), "tiny").unwrap()
    }
}

/// These ids change only if the import's arithmetic, the calibration text or the formats change; then
/// every model has another id, and the catalogue's must follow. They are the same on every machine.
#[test]
fn an_import_gives_the_pinned_model() {
    for (tiny, expected) in [(llama(), LLAMA_ID), (gemma(), GEMMA_ID)] {
        let imported = Imported::new(&tiny);
        assert_eq!(imported.id, expected);
        let loaded = imported.open();
        assert_eq!(loaded.model.id().to_string(), expected);
        loaded.model.verify_roots().unwrap();
    }
}
const LLAMA_ID: &str = "0x054ff0f4081c4de9b62969a14d450248ba020b527023b8ac1d0a6be8df29ad1b";
const GEMMA_ID: &str = "0x5974ef7f34d2b4f418d5e63e387877c08177635b6222631446d3beaaebbaef92";

#[test]
fn two_imports_give_the_same_bytes() {
    for tiny in [llama(), gemma()] {
        assert!(Imported::new(&tiny).bytes() == Imported::new(&tiny).bytes());
    }
}

#[test]
fn another_weight_makes_another_model() {
    let other = TinyGguf { seed: 3, ..llama() };
    assert_ne!(Imported::new(&other).id, LLAMA_ID);
}

#[test]
fn the_integer_model_says_what_the_float_model_says() {
    for tiny in [llama(), gemma()] {
        let imported = Imported::new(&tiny);
        let loaded = imported.open();
        // Past the window, and over more than one chunk.
        let tokens: Vec<TokenId> = (0..300).map(|i| 4 + i * 7 % 256).collect();
        let report = quality::measure_on(
            &imported.gguf,
            &loaded,
            &[("toy", vec![tokens])],
            &mut |_| {},
        )
        .unwrap();
        assert_eq!(report.all.predictions, 299);
        assert!(report.all.integer.kl.mean < 0.002, "{report}");
        assert!(report.all.integer.top1.mean > 0.95, "{report}");
        assert!(
            report.all.integer.perplexity_change.mean.abs() < 0.01,
            "{report}"
        );
        assert_eq!(report.clamps.total(), 0, "{report}");
    }
}

#[test]
fn tokenizers_come_along() {
    let plain = EncodeOptions {
        add_bos: true,
        parse_special: false,
    };
    let llama = Imported::new(&llama()).open();
    let ids = llama.tokenizer.encode(" the t<eos>", plain).unwrap();
    assert_eq!(llama.tokenizer.decode(&ids), b" the t<eos>");
    // ` the` is one token; the metadata asks for no begin token.
    assert_eq!(ids.len(), 1 + 2 + 5);
    assert!(llama.tokenizer.is_eos(2) && llama.tokenizer.is_eos(3) && !llama.tokenizer.is_eos(1));
    let prompt = llama
        .chat_prompt(&[ChatMessage::new("user", "the<|im_end|>")])
        .unwrap();
    assert_eq!(prompt.iter().filter(|&&id| id == 3).count(), 1);

    let gemma = Imported::new(&gemma()).open();
    let ids = gemma.tokenizer.encode("the\nthé", plain).unwrap();
    assert_eq!(ids[0], 1, "SentencePiece models open with the begin token");
    assert_eq!(
        gemma.tokenizer.token_bytes(ids[1]),
        b" the",
        "and a space, unless they say otherwise"
    );
    assert_eq!(gemma.tokenizer.decode(&ids), " the\n thé".as_bytes());
    assert!(matches!(
        gemma.chat_prompt(&[]),
        Err(TemplateError::NoTemplate)
    ));
}

#[test]
fn a_damaged_model_file_is_refused() {
    let imported = Imported::new(&llama());
    let whole = imported.bytes();
    let path = imported.folder.path().join("damaged.assay");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        LoadedModel::open(&path, "damaged")
    };
    for len in [0, 1, 1000, whole.len() / 2, whole.len() - 1] {
        assert!(matches!(open(&whole[..len]), Err(OpenError::Load { .. })));
    }
    // The tokenizer's blob opens the file: the manifest pins it.
    let mut other = whole.clone();
    other[40] ^= 1;
    assert!(open(&other).is_err());
    // A weight is found by its root.
    let mut other = whole.clone();
    let at = whole.len() / 2;
    other[at] ^= 1;
    if let Ok(loaded) = open(&other) {
        assert!(loaded.model.verify_roots().is_err());
    }
}

#[test]
fn tampered_ggufs_are_refused_or_imported_but_never_panic() {
    let whole = llama().bytes();
    let folder = tempfile::tempdir().unwrap();
    let header = whole.len() - 700_000;
    let mut state = 7u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for round in 0..2000 {
        let mut tampered = whole.clone();
        for _ in 0..1 + next() % 4 {
            tampered[next() % header] = next() as u8;
        }
        let Ok(gguf) = Gguf::parse(Arc::new(tampered)) else {
            continue;
        };
        let _ = TokenizerSpec::from_gguf(&gguf).map(Tokenizer::new);
        // A whole import calibrates, which takes its time.
        if round % 500 == 0 {
            let _ = import(&gguf, &folder.path().join("x.assay"), &mut |_| {});
        }
    }
}

#[test]
fn a_model_that_is_not_supported_says_so() {
    let whole = llama().bytes();
    let name = b"llama";
    let at = whole
        .windows(name.len())
        .enumerate()
        .filter(|(_, window)| *window == name)
        .map(|(at, _)| at)
        .find(|&at| whole[at - 8..at] == 5u64.to_le_bytes())
        .unwrap();
    let mut other = whole;
    other[at..at + 5].copy_from_slice(b"mamba");
    let gguf = Gguf::parse(Arc::new(other)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    match import(&gguf, &folder.path().join("x.assay"), &mut |_| {}) {
        Err(ImportError::Architecture(name)) => assert_eq!(name, "mamba"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A catalogue entry for a file that is on disk already, as after an interrupted pull.
fn entry(gguf: &[u8], model_id: Option<ModelId>) -> CatalogEntry {
    CatalogEntry {
        name: "toy".to_owned(),
        about: String::new(),
        licence: String::new(),
        gguf: Pinned {
            bytes: gguf.len() as u64,
            sha256: Sha256::digest(gguf).into(),
        },
        sources: Vec::new(),
        model_id,
    }
}

#[test]
fn a_pull_ends_with_the_model_that_the_catalogue_names() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("models/toy");
    std::fs::create_dir_all(&home).unwrap();
    let gguf = llama().bytes();
    std::fs::write(home.join("model.gguf"), &gguf).unwrap();
    let store = Store::new(folder.path());

    let wrong = entry(&gguf, Some(ModelId::ZERO));
    assert!(matches!(
        store.pull(&wrong, &mut |_| {}),
        Err(StoreError::OtherModel { .. })
    ));
    assert_eq!(store.list().unwrap(), []);

    // What another version imported is replaced.
    std::fs::write(home.join("model.assay"), "an older import").unwrap();
    let right = entry(&gguf, Some(LLAMA_ID.parse().unwrap()));
    store.pull(&right, &mut |_| {}).unwrap();
    assert_eq!(store.list().unwrap()[0].id, right.model_id);

    // And what is here is not touched, even without the GGUF.
    std::fs::remove_file(home.join("model.gguf")).unwrap();
    store
        .pull(&right, &mut |_| panic!("nothing is to be done"))
        .unwrap();
}

#[test]
fn the_store_imports_lists_and_opens() {
    let folder = tempfile::tempdir().unwrap();
    let gguf = folder.path().join("My Model.gguf");
    std::fs::write(&gguf, llama().bytes()).unwrap();
    let store = Store::new(&folder.path().join("data"));
    let path = store.import(&gguf, &mut |_| {}).unwrap();
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&*listed[0].name, &listed[0].path), ("my-model", &path));
    let by_name = store.open("my-model").unwrap();
    let by_path = store.open(path.to_str().unwrap()).unwrap();
    assert_eq!(by_name.model.id(), by_path.model.id());
}
