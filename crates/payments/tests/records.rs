//! A payee lets a record of service count only if it says nothing that its own books do not.

mod common;

use assay_payments::payee_records::RecordRefusal;
use assay_payments::{PayeeLedger, RecordError};
use assay_protocol::{
    Address, Answered, B256, Domain, DurationMs, Histogram, MicroUsd, Service, ServiceRecord,
    Signature, Signed, TypedData,
};
use common::{Key, NOW, on_chain, presented, receipt, terms};
use tempfile::TempDir;

const SCOREBOARD: Domain = Domain {
    chain_id: 31_337,
    verifying_contract: Address::repeat_byte(0x5c),
};

/// What the payer saw of the three requests that `ledger` serves.
fn service(answers: u32) -> Service {
    let answer = Answered {
        charged: MicroUsd(10),
        prompt_tokens: 1,
        output_tokens: 1,
        ttft: DurationMs(120),
        rest: DurationMs(0),
    };
    (0..answers).fold(Service::default(), |service, _| {
        service.answered(&answer).unwrap()
    })
}

/// Three requests of ten micro-dollars, one token in and one out.
fn ledger(dir: &TempDir) -> (PayeeLedger, B256) {
    let mut ledger = PayeeLedger::create(&dir.path().join("payee.redb"), terms()).unwrap();
    let mut id = B256::ZERO;
    for n in 1..=3 {
        let payment = presented(&Key::new(1), 10 * u64::from(n), 10, 10, n);
        let reservation = ledger.accept(&payment, on_chain(1_000), NOW).unwrap();
        id = reservation.channel_id;
        let receipt = receipt(id, n, 10, 10 * u64::from(n));
        ledger.charge(&reservation, &receipt, NOW).unwrap();
    }
    (ledger, id)
}

fn sign(key: &Key, channel_id: B256, service: Service) -> Signed<ServiceRecord> {
    let body = ServiceRecord {
        channel_id,
        service,
    };
    Signed {
        body,
        signature: key.sign(&body.digest(&SCOREBOARD)),
    }
}

fn refusal(ledger: &mut PayeeLedger, record: &Signed<ServiceRecord>) -> RecordRefusal {
    match ledger.take_record(record, &SCOREBOARD, 50, NOW) {
        Err(RecordError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_record_of_what_was_served_is_kept_and_a_newer_one_replaces_it() {
    let dir = TempDir::new().unwrap();
    let (mut ledger, id) = ledger(&dir);
    let key = Key::new(1);
    for answers in [1, 1, 3] {
        let record = sign(&key, id, service(answers));
        ledger.take_record(&record, &SCOREBOARD, 50, NOW).unwrap();
    }
    let posted = sign(&key, id, service(1)).body;
    ledger.posted(&id, Some(posted)).unwrap();
    drop(ledger);
    let ledger = PayeeLedger::open(&dir.path().join("payee.redb"), terms()).unwrap();
    let rows: Vec<_> = ledger.records().collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].record.body.service, service(3));
    assert_eq!(rows[0].previous(), posted);
    assert!(rows[0].can_be_posted(MicroUsd(30)));
    assert!(
        !rows[0].can_be_posted(MicroUsd(29)),
        "only what was paid weighs"
    );
}

#[test]
fn a_record_that_says_more_or_less_or_is_not_the_payers_is_refused() {
    let dir = TempDir::new().unwrap();
    let (mut ledger, id) = ledger(&dir);
    let key = Key::new(1);
    let stranger = sign(&key, B256::repeat_byte(1), service(1));
    assert!(matches!(
        refusal(&mut ledger, &stranger),
        RecordRefusal::UnknownChannel(_)
    ));
    let forged = sign(&Key::new(2), id, service(1));
    assert!(matches!(
        refusal(&mut ledger, &forged),
        RecordRefusal::Signature(_)
    ));
    let mut elsewhere = sign(&key, id, service(1));
    let other = Domain {
        chain_id: 1,
        ..SCOREBOARD
    };
    elsewhere.signature = key.sign(&elsewhere.body.digest(&other));
    assert!(matches!(
        refusal(&mut ledger, &elsewhere),
        RecordRefusal::Signature(_)
    ));
    let mut bent = sign(&key, id, service(1));
    bent.signature = Signature(Default::default());
    assert!(matches!(
        refusal(&mut ledger, &bent),
        RecordRefusal::Signature(_)
    ));

    let more = |change: fn(&mut Service)| {
        let mut service = service(3);
        change(&mut service);
        sign(&key, id, service)
    };
    for (what, record) in [
        ("answers", sign(&key, id, service(4))),
        (
            "prompt tokens",
            more(|service| service.prompt_tokens = u64::MAX),
        ),
        ("output tokens", more(|service| service.output_tokens += 1)),
        (
            "micro-dollars",
            more(|service| service.revenue = MicroUsd(31)),
        ),
    ] {
        let told = refusal(&mut ledger, &record);
        assert!(
            matches!(told, RecordRefusal::MoreThanServed { what: field, .. } if field == what),
            "{what}: {told}"
        );
    }
    let unsound = more(|service| service.ttft = Histogram([u32::MAX; 8]));
    assert_eq!(refusal(&mut ledger, &unsound), RecordRefusal::Unsound);
    let spoiled = more(|service| service.failures = 6);
    assert!(matches!(
        refusal(&mut ledger, &spoiled),
        RecordRefusal::TooManyFailures { .. }
    ));
    let full = more(|service| service.failures = u32::MAX);
    assert!(matches!(
        refusal(&mut ledger, &full),
        RecordRefusal::TooManyFailures { .. }
    ));

    let good = more(|service| service.failures = 2);
    ledger.take_record(&good, &SCOREBOARD, 50, NOW).unwrap();
    assert_eq!(
        refusal(&mut ledger, &sign(&key, id, service(3))),
        RecordRefusal::Shrunk,
        "failures are not taken back"
    );
    assert_eq!(ledger.records().count(), 1);
}
