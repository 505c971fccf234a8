//! Keys on the command line: made, imported, listed, put under another password; and no secret in any output.

mod support;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use support::{PASSWORD, Service, assay, free_address, run, run_json, stderr};

/// Known to everybody: a development key.
const RAW: &str = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const ADDRESS: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn secret_file(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    path.to_owned()
}

/// Runs a command with this on its standard input.
fn feed(data: &Path, args: &[&str], input: &str) -> Output {
    let mut command = assay(data);
    command.args(args).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn a_key_is_made_listed_and_put_under_another_password() {
    let data = tempfile::tempdir().unwrap();
    let made = run(data.path(), &["key", "new", "payer"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let list = run_json(data.path(), &["key", "list", "--json"]);
    let address = list[0]["address"].as_str().unwrap().to_owned();
    assert!(
        stdout(&made)
            .to_lowercase()
            .contains(&address.to_lowercase())
    );
    assert_eq!(list[0]["kind"], "encrypted");

    let again = run(data.path(), &["key", "new", "payer"]);
    assert!(
        stderr(&again).contains("never overwritten"),
        "{}",
        stderr(&again)
    );

    let new = secret_file(&data.path().join("new"), "another one\n");
    let new = new.to_str().unwrap();
    let change = ["key", "password", "payer", "--new-password-file", new];
    let changed = run(data.path(), &change);
    assert!(changed.status.success(), "{}", stderr(&changed));
    let old = run(data.path(), &change);
    assert!(stderr(&old).contains("wrong password"), "{}", stderr(&old));
    let told = run(data.path(), &["key", "address", "payer"]);
    assert_eq!(stdout(&told).trim().to_lowercase(), address.to_lowercase());
}

#[test]
fn raw_keys_come_from_standard_input_or_an_old_file_and_nowhere_else() {
    let data = tempfile::tempdir().unwrap();
    let imported = feed(
        data.path(),
        &["key", "import", "payer"],
        &format!("0x{RAW}\n"),
    );
    assert!(imported.status.success(), "{}", stderr(&imported));
    assert!(stdout(&imported).contains(ADDRESS), "{}", stdout(&imported));
    for (input, why) in [("", "no key"), ("hello", "no key"), (&RAW[1..], "no key")] {
        let refused = feed(data.path(), &["key", "import", "other"], input);
        assert!(stderr(&refused).contains(why), "{}", stderr(&refused));
        assert!(!stderr(&refused).contains("hello"), "{}", stderr(&refused));
    }
    // As an argument, it is not even understood.
    let argument = run(data.path(), &["key", "import", "other", RAW]);
    assert!(!argument.status.success());

    let old = secret_file(&data.path().join("keys/watcher.key"), &format!("0x{RAW}\n"));
    let listed = run(data.path(), &["key", "list"]);
    assert!(stdout(&listed).contains("RAW"), "{}", stdout(&listed));
    assert!(!stdout(&listed).contains(&RAW[..8]), "{}", stdout(&listed));
    let imported = run(
        data.path(),
        &["key", "import", "--from", old.to_str().unwrap()],
    );
    assert!(imported.status.success(), "{}", stderr(&imported));
    assert!(data.path().join("keys/watcher.json").exists());

    // From one folder's password to another's.
    let other = tempfile::tempdir().unwrap();
    let from = data.path().join("keys/watcher.json");
    let moved = run(
        other.path(),
        &["key", "import", "mine", "--from", from.to_str().unwrap()],
    );
    assert!(moved.status.success(), "{}", stderr(&moved));
    assert!(stdout(&moved).contains(ADDRESS));
}

#[test]
fn without_a_terminal_a_password_has_to_be_in_a_file() {
    let data = tempfile::tempdir().unwrap();
    let mut command = assay(data.path());
    let refused = command.env_remove("ASSAY_PASSWORD_FILE");
    let refused = refused.args(["key", "new", "payer"]).output().unwrap();
    assert!(
        stderr(&refused).contains("--password-file"),
        "{}",
        stderr(&refused)
    );

    let open = data.path().join("open");
    fs::write(&open, "x").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
    }
    let empty = secret_file(&data.path().join("empty"), "\n");
    let two = secret_file(&data.path().join("two"), "a\nb\n");
    let cases = [
        (open, "chmod 600"),
        (empty, "no password"),
        (two, "only line"),
        (data.path().join("nowhere"), "cannot read the password file"),
    ];
    for (file, hint) in cases {
        let file = file.to_str().unwrap();
        let refused = run(
            data.path(),
            &["key", "new", "payer", "--password-file", file],
        );
        assert!(
            stderr(&refused).contains(hint),
            "{file}: {}",
            stderr(&refused)
        );
    }
}

/// A whole session with logs at their loudest, from a known raw key on: nothing that opens anything is ever told.
#[test]
fn no_secret_is_in_any_output_of_a_session() {
    let data = tempfile::tempdir().unwrap();
    let chain_at = free_address();
    let rpc = format!("http://{chain_at}");
    let mut outputs = Vec::new();
    let mut note = |output: Output, name: &str| {
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        outputs.push((format!("{name}'s stdout"), stdout(&output)));
        outputs.push((format!("{name}'s stderr"), stderr(&output)));
    };
    let loud = ["--log", "trace"];
    for name in ["owner", "offer", "deployer", "payer", "watcher"] {
        let import = [&loud[..], &["key", "import", name]].concat();
        note(feed(data.path(), &import, &format!("{RAW}\n")), name);
    }
    let log = data.path().join("chain.log");
    let chain = Service::start_logging(
        data.path(),
        &["--log", "trace", "chain", "serve", "--listen", &chain_at],
        "ctrl-c stops it",
        &log,
    );
    let network = ["--rpc-url", &rpc];
    let commands: [&[&str]; 6] = [
        &["key", "list"],
        &["chain", "deploy"],
        &[
            "node",
            "init",
            "--public-url",
            "http://127.0.0.1:9",
            "--mint",
        ],
        &["node", "set-payout", ADDRESS],
        &["node", "unbond", "1"],
        &["chain", "status"],
    ];
    for words in commands {
        let on_chain = words[0] != "key";
        let network: &[&str] = if on_chain { &network } else { &[] };
        let args = [&loud[..], words, network].concat();
        note(run(data.path(), &args), &words.join(" "));
    }
    chain.interrupt();
    outputs.push((
        "the chain's log".to_owned(),
        fs::read_to_string(&log).unwrap(),
    ));
    let size: usize = outputs.iter().map(|(_, text)| text.len()).sum();
    assert!(
        size > 50_000,
        "the logs are not at their loudest: {size} bytes"
    );
    for (name, text) in outputs {
        let text = text.to_lowercase();
        assert!(!text.contains(RAW), "{name} shows a raw key");
        assert!(!text.contains(PASSWORD), "{name} shows the password");
    }
    // Nor in any file but the password's own.
    for file in files_in(data.path()) {
        let text = fs::read(&file).unwrap();
        let text = String::from_utf8_lossy(&text).to_lowercase();
        assert!(!text.contains(RAW), "{} holds a raw key", file.display());
        let own = file.ends_with("password");
        assert!(own || !text.contains(PASSWORD), "{}", file.display());
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    let paths = entries.map(|entry| entry.path());
    let each = paths.flat_map(|path| match path.is_dir() {
        true => files_in(&path),
        false => vec![path],
    });
    each.collect()
}
