use baton_core::stamp::{BadInstance, BadStamp, Instance, SEQUENCE_MAX, STAMP_BYTES_MAX, STAMP_HEADER, Stamp};
use baton_core::{BadMessageId, Headers, MESSAGE_ID_BYTES_MAX, MessageId};
use proptest::prelude::*;

const DOCUMENT: &str = include_str!("../../../../docs/STAMP.md");

fn stamp(id: &str, instance: &str, epoch: u32, sequence: u64) -> Stamp {
    Stamp { id: MessageId::new(id).unwrap(), instance: Instance::new(instance).unwrap(), epoch, sequence }
}

/// The rows of the table under a heading, without its head: what stands between backticks is taken as it is.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = DOCUMENT.split_once(heading).unwrap();
    let rows =
        section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
    let cells =
        |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
    rows.map(cells).collect()
}

#[test]
fn the_document_holds_what_is_written_and_read() {
    let rows = table("## Test vectors");
    assert!(rows.len() >= 6, "{} rows", rows.len());
    for row in rows {
        let [header, id, instance, epoch, sequence] = &row[..] else { panic!("{row:?}") };
        let stamp = stamp(id, instance, epoch.parse().unwrap(), sequence.parse().unwrap());
        assert_eq!(stamp.encode(), header.as_bytes());
        assert_eq!(Stamp::decode(header.as_bytes()), Ok(stamp));
    }
}

#[test]
fn the_document_holds_what_is_refused() {
    let rows = table("## What is refused");
    assert!(rows.len() >= 10, "{} rows", rows.len());
    for row in rows {
        let error = Stamp::decode(row[0].as_bytes()).unwrap_err();
        assert_eq!(format!("{error:?}").split(['(', ' ']).next().unwrap(), row[1], "{}", row[0]);
    }
}

#[test]
fn a_stamp_with_a_uuid_has_96_bytes_at_most_with_its_name() {
    let longest = stamp(&"f".repeat(36), &"i".repeat(24), u32::MAX, SEQUENCE_MAX);
    assert_eq!(STAMP_HEADER.len() + longest.encode().len(), 96);
}

#[test]
fn the_longest_stamp_is_read_and_one_byte_more_is_not() {
    let longest = stamp(&"f".repeat(MESSAGE_ID_BYTES_MAX), &"i".repeat(24), u32::MAX, SEQUENCE_MAX);
    let mut header = longest.encode().to_vec();
    assert_eq!(header.len(), STAMP_BYTES_MAX);
    assert_eq!(Stamp::decode(&header), Ok(longest));
    header.push(b'0');
    assert_eq!(Stamp::decode(&header), Err(BadStamp::TooLong(STAMP_BYTES_MAX + 1)));
}

#[test]
fn a_newer_version_is_told_from_nonsense_however_long_it_is() {
    let newer = format!("2;{}", "x".repeat(10_000));
    assert_eq!(Stamp::decode(newer.as_bytes()), Err(BadStamp::Newer(2)));
    assert_eq!(Stamp::decode(b"0;a;b;1;1"), Err(BadStamp::Version));
    assert_eq!(Stamp::decode("é;a;b;1;1".as_bytes()), Err(BadStamp::Version));
}

#[test]
fn names_of_instances_are_checked() {
    assert_eq!(Instance::new(""), Err(BadInstance::Length(0)));
    assert_eq!(Instance::new("x".repeat(25)), Err(BadInstance::Length(25)));
    assert_eq!(Instance::new("a;b"), Err(BadInstance::Character(';', 1)));
    assert_eq!(Instance::new("aé"), Err(BadInstance::Character('é', 1)));
    assert_eq!(Stamp::decode(b"1;\xff;b;1;1"), Err(BadStamp::Id(BadMessageId::Character('\u{fffd}', 0))));
}

#[test]
fn of_several_stamps_the_last_one_counts() {
    let (first, last) = (stamp("a", "i", 1, 1), stamp("b", "i", 1, 2));
    let mut headers = Headers::default();
    assert_eq!(Stamp::of(&headers), Ok(None));
    headers.push(STAMP_HEADER, Some(first.encode()));
    headers.push(STAMP_HEADER, Some(last.encode()));
    assert_eq!(Stamp::of(&headers), Ok(Some(last)));
}

proptest! {
    #[test]
    fn what_was_written_is_read(id in "[!-:<-~]{1,128}", instance in "[!-:<-~]{1,24}", epoch in any::<u32>(), sequence in 1..=SEQUENCE_MAX) {
        let stamp = stamp(&id, &instance, epoch, sequence);
        let header = stamp.encode();
        prop_assert!(header.len() <= STAMP_BYTES_MAX);
        prop_assert_eq!(Stamp::decode(&header), Ok(stamp));
    }

    #[test]
    fn a_stamp_is_written_in_one_way_only(header in "1;[a-c;]{1,4};[a;]{1,3};[0-9+;]{1,3};[0-9 ]{1,3}") {
        if let Ok(stamp) = Stamp::decode(header.as_bytes()) {
            prop_assert_eq!(stamp.encode(), header.as_bytes());
        }
    }

    #[test]
    fn no_header_makes_the_parser_panic(header in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Stamp::decode(&header);
        let _ = Stamp::decode(&[b"1;", &header[..]].concat());
    }
}
