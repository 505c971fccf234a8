//! Commands that need no market: help, models, and refusals.

mod support;

use support::{run, run_json, stderr};

#[test]
fn every_command_explains_itself() {
    let data = tempfile::tempdir().unwrap();
    for command in [
        "up", "chat", "receipt", "audit", "prove", "verify", "dispute", "watch", "model", "node",
        "gateway", "key", "chain",
    ] {
        let help = run(data.path(), &[command, "--help"]);
        assert!(help.status.success(), "{command}: {}", stderr(&help));
        assert!(
            String::from_utf8_lossy(&help.stdout).contains("Usage: assay"),
            "{command}"
        );
    }
}

#[test]
fn models_that_can_be_pulled_are_listed() {
    let data = tempfile::tempdir().unwrap();
    let list = run_json(data.path(), &["model", "list", "--json"]);
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|model| model["name"].as_str())
        .collect();
    assert!(names.contains(&"smollm2-135m-instruct"), "{names:?}");
}

#[test]
fn what_is_not_there_is_refused_with_the_next_step() {
    let data = tempfile::tempdir().unwrap();
    let nowhere = ["--url", "http://127.0.0.1:9"];
    let cases: [(&[&str], &str); 9] = [
        (&["receipt", "verify", "no/such/file.json"], "receipt show"),
        (&["receipt", "list", nowhere[0], nowhere[1]], "assay up"),
        (&["model", "import", "no-such-file.gguf"], "no-such-file"),
        (&["model", "pull", "no-such-model"], "smollm2"),
        (
            &["node", "run", "--rpc-url", "http://127.0.0.1:9"],
            "assay node init",
        ),
        (&["chain", "status"], "assay up"),
        (&["dispute", "list"], "assay up"),
        (&["dispute", "open", "no/such/file.json"], "assay up"),
        (&["watch"], "--gateway"),
    ];
    for (args, hint) in cases {
        let refused = run(data.path(), args);
        assert!(!refused.status.success(), "{args:?} succeeded");
        assert!(
            stderr(&refused).starts_with("error: "),
            "{args:?}: {}",
            stderr(&refused)
        );
        assert!(
            stderr(&refused).contains(hint),
            "{args:?}: {}",
            stderr(&refused)
        );
    }
}

#[test]
fn a_file_that_is_no_receipt_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("x.json");
    for content in ["", "{}", "[1, 2]", "\u{0}"] {
        std::fs::write(&file, content).unwrap();
        let refused = run(data.path(), &["receipt", "verify", file.to_str().unwrap()]);
        assert!(!refused.status.success());
        assert!(
            stderr(&refused).contains("no receipt file"),
            "{}",
            stderr(&refused)
        );
    }
}

#[test]
fn a_model_is_benched_with_every_figure_a_script_reads() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("models/tiny");
    std::fs::create_dir_all(&folder).unwrap();
    let tiny = assay_testkit::tiny::Tiny::llama(7).with_text();
    std::fs::write(folder.join("model.assay"), tiny.bytes()).unwrap();
    let models = data.path().to_str().unwrap();
    let bench = |more: &[&str]| {
        let args = ["model", "bench", "--models-dir", models, "--runs", "2"];
        let sizes = ["--prefill", "40", "--decode", "8", "--answer", "16"];
        run(data.path(), &[&args[..], &sizes, more].concat())
    };

    let found = bench(&["--all", "--json"]);
    assert!(found.status.success(), "{}", stderr(&found));
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    let model = &found["models"][0];
    assert_eq!(model["name"], "tiny");
    assert_eq!(model["file_bytes"], tiny.bytes().len());
    let row = &model["rows"][0];
    assert_eq!(row["threads"], 1);
    assert_eq!(row["prefill"]["runs"].as_array().unwrap().len(), 2);
    let batches: Vec<_> = (0..3).map(|i| row["decode"][i]["batch"].as_u64()).collect();
    assert_eq!(batches, [Some(1), Some(4), Some(8)]);
    for figure in [
        &found["machine"]["rooflines"][0]["bytes_per_s"],
        &found["machine"]["rooflines"][0]["multiply_adds_per_s"],
        &model["open"]["open_us"][1],
        &model["open"]["first_token_us"][1],
        &row["prefill"]["tokens_per_s"]["median"],
        &row["prefill"]["roofline"]["percent"]["median"],
        &row["decode"][2]["tokens_per_s"]["min"],
        &row["decode"][2]["runs"][1]["micros"],
        &row["audit"]["percent"]["max"],
        &row["audit"]["runs"][0]["generate_us"],
    ] {
        assert!(figure.as_f64().is_some_and(|n| n > 0.0), "{found:#}");
    }

    let table = bench(&["tiny", "--only", "decode", "--batch", "2", "--threads", "1"]);
    assert!(table.status.success(), "{}", stderr(&table));
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.contains("×2") && !table.contains("prefill"),
        "{table}"
    );
    let too_long = bench(&["tiny", "--prefill", "4000"]);
    assert!(!too_long.status.success());
    assert!(
        stderr(&too_long).contains("--prefill"),
        "{}",
        stderr(&too_long)
    );
}
