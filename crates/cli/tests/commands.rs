//! Commands that need no market: help, models, and refusals.

mod support;

use support::{run, run_json, stderr};

#[test]
fn every_command_explains_itself() {
    let data = tempfile::tempdir().unwrap();
    for command in [
        "up", "chat", "receipt", "audit", "dispute", "watch", "model", "node", "gateway", "key",
        "chain",
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
