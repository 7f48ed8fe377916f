use std::collections::BTreeMap;

use baton_core::stamp::{Instance, SEQUENCE_MAX};
use baton_core::{
    BadReport, REPORT_BYTES_MAX, Ranges, Report, ReportedSequence, SequenceEvidence, TOPIC_BYTES_MAX, TopicPartition,
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

fn reports() -> impl Strategy<Value = Vec<Report>> {
    let sequence = (0..2_u32, 0..2_u32, evidence()).prop_map(|(epoch, partition, evidence)| ReportedSequence {
        epoch,
        partition: TopicPartition::new("orders", partition),
        evidence,
    });
    let report =
        (0..2_u32, any::<u64>(), prop::collection::vec(sequence, 0..4)).prop_map(|(instance, at_ms, sequences)| {
            Report { instance: Instance::new(format!("i-{instance}")).unwrap(), at_ms, sequences }
        });
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
    assert!(matches!(Report::decode(br#"{"version":2,"what":"ever"}"#), Err(BadReport::Newer(2))));
    assert!(matches!(Report::decode(&vec![b' '; REPORT_BYTES_MAX + 1]), Err(BadReport::TooLong(_))));
    assert!(matches!(Report::decode(report("").replace(r#""i""#, r#""a;b""#).as_bytes()), Err(BadReport::Instance(_))));
}
