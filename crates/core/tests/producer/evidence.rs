use std::collections::BTreeMap;

use baton_core::stamp::{Instance, SEQUENCE_MAX};
use baton_core::{
    BadReport, ConsumedSequence, Consumption, Counts, GroupEvidence, Ledger, REPORT_BYTES_MAX,
    REPORTED_GROUP_BYTES_MAX, Ranges, Report, ReportedSequence, Seen, SequenceEvidence, SequenceName, TOPIC_BYTES_MAX,
    TopicPartition, Unstamped,
};
use proptest::prelude::*;

const DOCUMENT: &str = include_str!("../../../../docs/EVIDENCE.md");

type Known = BTreeMap<(Instance, u32, TopicPartition), SequenceEvidence>;

fn merged<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Known {
    let mut known = Known::new();
    for report in reports {
        for sequence in &report.sequences {
            let name = (report.instance.clone(), sequence.epoch, sequence.partition.clone());
            known.entry(name).or_default().merge(&sequence.evidence);
        }
    }
    known
}

fn ledger<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Ledger {
    let mut ledger = Ledger::default();
    reports.into_iter().for_each(|report| ledger.add(report));
    ledger
}

/// Each number ended in one way, or has not.
fn evidence() -> impl Strategy<Value = SequenceEvidence> {
    (prop::collection::vec(0..4_u8, 0..60), any::<bool>()).prop_map(|(ends, closed)| {
        let numbers = |kind| -> Ranges {
            ends.iter().zip(1..).filter(|(end, _)| **end == kind).map(|(_, number)| number..=number).collect()
        };
        let (acknowledged, not_stored, unknown) = (numbers(1), numbers(2), numbers(3));
        SequenceEvidence { highest: ends.len() as u64, acknowledged, not_stored, unknown, closed }
    })
}

/// What a consumer saw: each of it may be true of any number.
fn consumption() -> impl Strategy<Value = Option<Consumption>> {
    let partition = |number| TopicPartition::new("orders", number);
    let sequence =
        (0..2_u32, 0..2_u32, prop::collection::vec(0..128_u8, 0..40)).prop_map(move |(epoch, number, seen)| {
            let (instance, mut evidence) = (Instance::new("p").unwrap(), GroupEvidence::default());
            for (bits, sequence) in seen.into_iter().zip(1..) {
                let which = Seen::ALL.into_iter().filter(|seen| bits >> (*seen as u8) & 1 == 1);
                which.for_each(|seen| _ = evidence.of_mut(seen).insert(sequence));
            }
            ConsumedSequence { name: SequenceName { partition: partition(number), instance, epoch }, evidence }
        });
    let unstamped = (0..3_u32, prop::collection::vec(0..Seen::ALL.len(), 0..20)).prop_map(move |(number, seen)| {
        let mut counts = Counts::default();
        seen.into_iter().for_each(|at| counts.add(Seen::ALL[at]));
        Unstamped { partition: partition(number), counts }
    });
    let lists = (prop::collection::vec(sequence, 0..4), prop::collection::vec(unstamped, 0..3));
    let consumption = ("[a-zä\"]{1,9}", lists, 0..5_u64).prop_map(|(group, (sequences, unstamped), untold)| {
        Consumption { group: group.into(), sequences, unstamped, untold }
    });
    prop::option::of(consumption)
}

fn reports() -> impl Strategy<Value = Vec<Report>> {
    let sequence = (0..2_u32, 0..2_u32, evidence()).prop_map(|(epoch, partition, evidence)| ReportedSequence {
        epoch,
        partition: TopicPartition::new("orders", partition),
        evidence,
    });
    let report = (0..2_u32, any::<u64>(), prop::collection::vec(sequence, 0..4), consumption()).prop_map(
        |(instance, at_ms, sequences, consumption)| Report {
            instance: Instance::new(format!("i-{instance}")).unwrap(),
            at_ms,
            sequences,
            consumption,
        },
    );
    prop::collection::vec(report, 0..6)
}

proptest! {
    #[test]
    fn merging_does_not_depend_on_order_or_repetition(
        (reports, shuffled) in reports().prop_flat_map(|reports| {
            let twice: Vec<_> = reports.iter().chain(&reports).cloned().collect();
            (Just(reports), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(merged(&reports), merged(&shuffled));
        prop_assert_eq!(ledger(&reports), ledger(&shuffled));
    }

    #[test]
    fn what_was_written_is_read(reports in reports()) {
        for report in reports {
            prop_assert_eq!(Report::decode(&report.encode()).unwrap(), report);
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize, reports in reports()) {
        let _ = Report::decode(&bytes);
        for report in reports {
            let json = report.encode();
            let mut torn = json[..cut.min(json.len())].to_vec();
            torn.extend(&bytes);
            let _ = Report::decode(&torn);
        }
    }
}

#[test]
fn large_reports_are_split_and_say_the_same_together() {
    let long = |number: u64| SEQUENCE_MAX - 200_000 + number;
    let mut evidence = SequenceEvidence { highest: SEQUENCE_MAX, closed: true, ..SequenceEvidence::default() };
    for number in (1..60_000).step_by(6) {
        evidence.acknowledged.insert(long(number));
        evidence.not_stored.insert(long(number + 2));
        evidence.unknown.insert(long(number + 4));
    }
    // A name that JSON makes six times as long.
    let topic = "\u{1}".repeat(TOPIC_BYTES_MAX);
    let sequence = |partition| ReportedSequence {
        epoch: u32::MAX,
        partition: TopicPartition::new(topic.as_str(), partition),
        evidence: if partition == 500 {
            evidence.clone()
        } else {
            SequenceEvidence { highest: 1, ..SequenceEvidence::default() }
        },
    };
    let whole = Report {
        instance: Instance::new("\"".repeat(24)).unwrap(),
        at_ms: u64::MAX,
        sequences: (0..1_000).map(sequence).collect(),
        consumption: None,
    };
    let split = Report::split(&whole.instance, whole.at_ms, whole.sequences.clone());
    assert!((5..20).contains(&split.len()), "{} reports", split.len());
    let read: Vec<_> = split
        .iter()
        .map(|report| {
            assert!(report.encode().len() <= REPORT_BYTES_MAX, "{} bytes", report.encode().len());
            Report::decode(&report.encode()).unwrap()
        })
        .collect();
    assert_eq!(merged(&read), merged([&whole]));
    let closed = read.iter().flat_map(|report| &report.sequences).filter(|sequence| sequence.evidence.closed).count();
    assert_eq!(closed, 1, "the last piece alone says that it is closed");
}

#[test]
fn what_was_consumed_is_split_and_says_the_same_together() {
    // Names that JSON makes as long as it can.
    let (topic, group) = ("\u{1}".repeat(TOPIC_BYTES_MAX), "\u{1}".repeat(REPORTED_GROUP_BYTES_MAX));
    let partition = |number| TopicPartition::new(topic.as_str(), number);
    let name = |number| SequenceName {
        partition: partition(number),
        instance: Instance::new("\"".repeat(24)).unwrap(),
        epoch: u32::MAX,
    };
    let mut evidence = GroupEvidence::default();
    for (at, seen) in Seen::ALL.into_iter().enumerate() {
        let numbers = (1..20_000 + at as u64).step_by(3);
        numbers.for_each(|number| _ = evidence.of_mut(seen).insert(SEQUENCE_MAX - 100_000 + number));
    }
    let sequence = |number| ConsumedSequence {
        name: name(number),
        evidence: if number == 200 { evidence.clone() } else { GroupEvidence::default() },
    };
    let mut counts = Counts::default();
    Seen::ALL.into_iter().for_each(|seen| counts.add(seen));
    let unstamped = |number| Unstamped { partition: partition(number), counts };
    let consumption = Consumption {
        group: group.as_str().into(),
        sequences: (0..300).map(sequence).collect(),
        unstamped: (0..300).map(unstamped).collect(),
        untold: u64::MAX,
    };
    let instance = Instance::new("\"".repeat(24)).unwrap();
    let split = Report::split_consumption(&instance, u64::MAX, consumption.clone());
    assert!((8..30).contains(&split.len()), "{} reports", split.len());
    let read: Vec<_> = split
        .iter()
        .map(|report| {
            assert!(report.encode().len() <= REPORT_BYTES_MAX, "{} bytes", report.encode().len());
            Report::decode(&report.encode()).unwrap()
        })
        .collect();
    let whole = Report { instance, at_ms: 0, sequences: Vec::new(), consumption: Some(consumption) };
    assert_eq!(ledger(&read), ledger([&whole]));
}

/// What an auditor of a version knew that knew producers only.
#[test]
fn who_knows_producers_only_reads_a_report_of_a_consumer_and_finds_nothing_in_it() {
    #[derive(serde::Deserialize)]
    struct Old {
        version: u32,
        instance: String,
        sequences: Vec<serde_json::Value>,
    }
    let mut witness = baton_core::consumer::Witness::new(Instance::new("c").unwrap(), "g".into(), 1);
    let delivery = baton_core::Delivery {
        from: TopicPartition::new("orders", 0),
        offset: 0,
        key: None,
        payload: None,
        headers: std::iter::once(("baton", "1;a;p;7;3"))
            .map(|(name, value)| baton_core::Header { name: name.into(), value: Some(value.into()) })
            .collect(),
        timestamp_ms: None,
        delivered_before: None,
    };
    witness.saw(&delivery, Seen::Applied, 0);
    let json = witness.take_reports(1)[0].encode();
    let old: Old = serde_json::from_slice(&json).unwrap();
    assert_eq!((old.version, old.instance.as_str(), old.sequences.len()), (1, "c", 0));
}

/// One number for each thing that can become of a message.
#[test]
fn a_ledger_names_the_stage_in_which_a_message_is_missing() {
    let name =
        SequenceName { partition: TopicPartition::new("orders", 0), instance: Instance::new("p").unwrap(), epoch: 7 };
    let set = |numbers: &[u64]| -> Ranges { numbers.iter().map(|number| *number..=*number).collect() };
    let produced = SequenceEvidence {
        highest: 11,
        acknowledged: set(&[1, 2, 3, 4, 5, 6, 7]),
        not_stored: set(&[8, 9]),
        unknown: set(&[10]),
        closed: true,
    };
    let mut consumed = GroupEvidence::default();
    for (seen, numbers) in [
        (Seen::Delivered, &[2, 3, 5, 6, 9, 10, 11][..]),
        (Seen::Applied, &[3, 4, 10, 11]),
        (Seen::Parked, &[4, 5]),
        (Seen::DeadLettered, &[6]),
        (Seen::DoneBefore, &[7]),
    ] {
        *consumed.of_mut(seen) = set(numbers);
    }
    let by_producer = Report {
        instance: name.instance.clone(),
        at_ms: 0,
        sequences: vec![ReportedSequence { epoch: 7, partition: name.partition.clone(), evidence: produced }],
        consumption: None,
    };
    let consumption = Consumption {
        group: "g".into(),
        sequences: vec![ConsumedSequence { name: name.clone(), evidence: consumed }],
        unstamped: Vec::new(),
        untold: 2,
    };
    let by_consumer = &Report::split_consumption(&Instance::new("g-1").unwrap(), 0, consumption)[0];
    let ledger = ledger([by_consumer, &by_producer, by_consumer]);
    let account = ledger.accounts("g", "orders").next().unwrap().1;
    assert_eq!(account.not_delivered, set(&[1]), "4 and 7 have ended, so they were delivered");
    assert_eq!(account.not_ended, set(&[2, 9]));
    assert_eq!(account.still_parked, set(&[5]));
    assert_eq!(account.not_acknowledged, set(&[10, 11]));
    assert_eq!(account.not_stored, set(&[9]), "8 was not delivered, as it should be");
    assert!(!account.is_balanced());
    assert_eq!((ledger.untold("g"), ledger.untold("other")), (2, 0));
    // A group that has said nothing misses all that was acknowledged.
    assert_eq!(ledger.accounts("other", "orders").next().unwrap().1.not_delivered.count(), 7);
    assert_eq!(ledger.accounts("g", "payments").count(), 0);
}

#[test]
fn numbers_that_have_not_ended_are_in_flight() {
    let evidence = SequenceEvidence {
        highest: 9,
        acknowledged: [1..=3, 6..=6].into_iter().collect(),
        not_stored: [4..=4].into_iter().collect(),
        unknown: [8..=8].into_iter().collect(),
        closed: false,
    };
    assert_eq!(evidence.in_flight().iter().collect::<Vec<_>>(), [5..=5, 7..=7, 9..=9]);
}

#[test]
fn the_example_of_the_document_is_a_report() {
    let (_, example) = DOCUMENT.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let report = Report::decode(example.as_bytes()).unwrap();
    let [orders, payments] = &report.sequences[..] else { panic!("{report:?}") };
    assert_eq!(
        (report.instance.as_str(), orders.epoch, orders.partition.to_string()),
        ("orders-1", 7, "orders-3".into())
    );
    assert_eq!(orders.evidence.in_flight().iter().collect::<Vec<_>>(), [1040..=1042]);
    assert!(payments.evidence.closed && !orders.evidence.closed);
    let compact: serde_json::Value = serde_json::from_str(example).unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&report.encode()).unwrap(),
        compact,
        "every field is written as it is read"
    );
}

#[test]
fn the_example_of_a_consumer_is_a_report() {
    let example = DOCUMENT.split("```json\n").nth(2).and_then(|text| text.split_once("```")).unwrap().0;
    let report = Report::decode(example.as_bytes()).unwrap();
    let Consumption { group, sequences, unstamped, untold } = report.consumption.clone().unwrap();
    assert_eq!((&*group, unstamped.len(), untold), ("beans-svc", 1, 2));
    assert_eq!(sequences[0].name.to_string(), "orders-3 of orders-1 in epoch 7");
    assert!(Seen::ALL.into_iter().all(|seen| !sequences[0].evidence.of(seen).is_empty()), "each field is shown");
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&report.encode()).unwrap(),
        serde_json::from_str::<serde_json::Value>(example).unwrap(),
        "every field is written as it is read"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let report = |sequence: &str| format!(r#"{{"version":1,"instance":"i","at_ms":1,"sequences":[{sequence}]}}"#);
    let sequence = |rest: &str| report(&format!(r#"{{"topic":"t","partition":0,"epoch":1,"highest":9{rest}}}"#));
    assert!(Report::decode(sequence("").as_bytes()).is_ok());
    assert!(Report::decode(sequence(r#","added_later":1"#).as_bytes()).is_ok());
    for (rest, what) in [
        (r#","acknowledged":[[3,2]]"#, "ends before it begins"),
        (r#","acknowledged":[[0,2]]"#, "not between 1"),
        (r#","unknown":[[9,10]]"#, "not between 1"),
        (r#","acknowledged":[[1,5]],"unknown":[[5,5]]"#, "ended in two ways"),
        (r#","acknowledged":[[1,5]],"not_stored":[[2,2]]"#, "ended in two ways"),
        (r#","unknown":[[1,5]],"not_stored":[[2,2]]"#, "ended in two ways"),
    ] {
        let error = Report::decode(sequence(rest).as_bytes()).unwrap_err();
        assert!(
            matches!(error, BadReport::Sequence { index: 0, .. }) && error.to_string().contains(what),
            "{rest}: {error}"
        );
    }
    let high = r#"{"topic":"t","partition":0,"epoch":1,"highest":9007199254740992}"#;
    assert!(matches!(Report::decode(report(high).as_bytes()), Err(BadReport::Sequence { .. })));
    assert!(matches!(
        Report::decode(report(r#"{"topic":"","partition":0,"epoch":1,"highest":1}"#).as_bytes()),
        Err(BadReport::Sequence { .. })
    ));
    let consumed = |group: &str, entry: &str| {
        format!(r#"{{"version":1,"instance":"i","at_ms":1,"sequences":[]{group},"consumed":[{entry}]}}"#)
    };
    let entry = |rest: &str| format!(r#"{{"topic":"t","partition":0,"instance":"p","epoch":1{rest}}}"#);
    let group = r#","group":"g""#;
    assert!(Report::decode(consumed(group, &entry("")).as_bytes()).is_ok());
    assert!(Report::decode(consumed(group, &entry(r#","added_later":{"a":[1]}"#)).as_bytes()).is_ok());
    for wrong in [
        entry(r#","applied":[[3,2]]"#),
        entry(r#","parked":[[0,2]]"#),
        entry(r#","filtered":[[1,9007199254740992]]"#),
        entry("").replace(r#""p""#, r#""p;""#),
        entry("").replace(r#""t""#, r#""""#),
    ] {
        let error = Report::decode(consumed(group, &wrong).as_bytes()).unwrap_err();
        assert!(matches!(error, BadReport::Consumed { index: 0, .. }), "{wrong}: {error}");
    }
    let long = format!(r#","group":"{}""#, "g".repeat(REPORTED_GROUP_BYTES_MAX + 1));
    for group in ["", r#","group":"""#, &long] {
        assert!(matches!(Report::decode(consumed(group, &entry("")).as_bytes()), Err(BadReport::Group)), "{group}");
    }
    assert!(matches!(Report::decode(br#"{"version":2,"what":"ever"}"#), Err(BadReport::Newer(2))));
    assert!(matches!(Report::decode(&vec![b' '; REPORT_BYTES_MAX + 1]), Err(BadReport::TooLong(_))));
    assert!(matches!(Report::decode(report("").replace(r#""i""#, r#""a;b""#).as_bytes()), Err(BadReport::Instance(_))));
}
