//! A ledger is made on purpose, opened by one process, and refused with the reason and the way out. A crash while it is
//! made leaves nothing or a good one.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assay_payments::{LedgerError, PayeeLedger};
use common::{Key, NOW, on_chain, presented, receipt, terms};
use tempfile::TempDir;

/// Tells the child which folder it works in.
const FOLDER: &str = "ASSAY_TEST_LEDGERS";

/// This test binary again, as a process of its own.
fn child(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(std::env::var(FOLDER).expect("run by its parent only"))
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "no {path:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A ledger with a charge in it.
fn used(path: &Path) {
    let mut ledger = PayeeLedger::create(path, terms()).unwrap();
    let payment = presented(&Key::new(1), 30, 30, 30, 1);
    let reservation = ledger.accept(&payment, on_chain(1_000), NOW).unwrap();
    let receipt = receipt(reservation.channel_id, 1, 10, 10);
    ledger.charge(&reservation, &receipt, NOW).unwrap();
}

#[test]
fn a_missing_ledger_is_never_made_by_opening_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("payee.redb");
    let error = PayeeLedger::open(&path, terms()).err().unwrap();
    assert!(matches!(error, LedgerError::Missing { .. }));
    let told = error.to_string();
    assert!(
        told.contains("payee.redb") && told.contains("assay node recover"),
        "{told}"
    );
    assert!(!path.exists());
}

#[test]
fn a_ledger_is_never_made_over_a_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("folder/that/was/not/there/payee.redb");
    drop(PayeeLedger::create(&path, terms()).unwrap());
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(
        PayeeLedger::create(&path, terms()),
        Err(LedgerError::Exists(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let names: Vec<_> = path.parent().unwrap().read_dir().unwrap().collect();
    assert_eq!(names.len(), 1, "no draft stays behind: {names:?}");
    PayeeLedger::open(&path, terms()).unwrap();
}

#[test]
fn a_ledger_that_another_process_holds_is_refused_as_locked() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("payee.redb");
    let mut holder = child("the_child_that_holds_a_ledger", dir.path());
    wait_for(&dir.path().join("held"));
    let refused = PayeeLedger::open(&path, terms());
    let made_over = PayeeLedger::create(&path, terms());
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(matches!(refused, Err(LedgerError::Locked(_))));
    assert!(matches!(made_over, Err(LedgerError::Exists(_))));
    // A killed process holds nothing.
    PayeeLedger::open(&path, terms()).unwrap();
}

#[test]
#[ignore = "a process for the test above"]
fn the_child_that_holds_a_ledger() {
    let folder = folder();
    let _held = PayeeLedger::create(&folder.join("payee.redb"), terms()).unwrap();
    std::fs::write(folder.join("held"), b"").unwrap();
    std::thread::sleep(Duration::from_secs(30));
}

#[test]
fn a_process_killed_while_it_makes_ledgers_leaves_none_or_a_good_one() {
    for round in 0..12 {
        let dir = TempDir::new().unwrap();
        let mut maker = child("the_child_that_makes_ledgers", dir.path());
        wait_for(&dir.path().join("0.redb"));
        std::thread::sleep(Duration::from_millis(3 * round));
        maker.kill().unwrap();
        maker.wait().unwrap();
        let mut made = 0;
        while dir.path().join(format!("{made}.redb")).exists() {
            let path = dir.path().join(format!("{made}.redb"));
            PayeeLedger::open(&path, terms()).unwrap();
            made += 1;
        }
        // Whatever was left of the next one is in nobody's way.
        PayeeLedger::create(&dir.path().join(format!("{made}.redb")), terms()).unwrap();
    }
}

#[test]
#[ignore = "a process for the test above"]
fn the_child_that_makes_ledgers() {
    let folder = folder();
    for n in 0.. {
        PayeeLedger::create(&folder.join(format!("{n}.redb")), terms()).unwrap();
    }
}

#[test]
fn the_ledger_of_another_chain_or_another_side_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("payee.redb");
    let first = PayeeLedger::create(&path, terms()).unwrap();
    assert!(matches!(
        PayeeLedger::open(&path, terms()),
        Err(LedgerError::Locked(_))
    ));
    drop(first);
    let mut elsewhere = terms();
    elsewhere.channels.chain_id = 1;
    assert!(matches!(
        PayeeLedger::open(&path, elsewhere),
        Err(LedgerError::OtherChain { .. })
    ));
    let payer = assay_payments::PayerLedger::open(&path, terms().channels);
    assert!(matches!(payer, Err(LedgerError::OtherKind { .. })));
}

#[test]
fn a_file_that_is_no_ledger_is_refused_as_damaged() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("payee.redb");
    for bytes in [&b""[..], b"this was a ledger once", &[0; 4_096]] {
        std::fs::write(&path, bytes).unwrap();
        let error = PayeeLedger::open(&path, terms()).err().unwrap();
        assert!(matches!(error, LedgerError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn a_cut_off_ledger_is_refused_not_trusted() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("payee.redb");
    used(&path);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 3]).unwrap();
    assert!(PayeeLedger::open(&path, terms()).is_err());
}

#[test]
fn a_ledger_whose_bytes_rotted_is_refused_or_reads_as_it_was() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("payee.redb");
    used(&path);
    let (bytes, good) = (
        std::fs::read(&path).unwrap(),
        PayeeLedger::open(&path, terms()).unwrap().totals(),
    );
    let mut refused = 0;
    // Every page, at several places.
    for at in (0..bytes.len()).step_by(509) {
        let mut rotten = bytes.clone();
        rotten[at] ^= 0x55;
        std::fs::write(&path, rotten).unwrap();
        match PayeeLedger::open(&path, terms()) {
            Err(_) => refused += 1,
            Ok(ledger) => assert_eq!(ledger.totals(), good, "byte {at}"),
        }
    }
    assert!(refused > 0, "no page that matters was hit");
}
