use std::collections::BTreeSet;

use baton_core::MessageId;
use baton_core::ids::{BadSegment, NoSnowflake, SNOWFLAKE_AHEAD_MS_MAX, Segments, Snowflake, UuidV7};
use proptest::prelude::*;

#[test]
fn a_uuid_is_laid_out_as_rfc_9562_has_it() {
    // The example of RFC 9562, A.6, except for the highest bit of rand_a: it is 0 in a first id.
    let random = (0x4c3_u128 << 64) | (0x18c4_dc0c_0c07_398f << 2);
    assert_eq!(UuidV7::new().next(0x017f_22e2_79b0, random).as_str(), "017f22e2-79b0-74c3-98c4-dc0c0c07398f");
    assert_eq!(UuidV7::new().next(u64::MAX, u128::MAX).as_str(), "ffffffff-ffff-77ff-bfff-ffffffffffff");
    assert_eq!(UuidV7::new().next(0, 0).as_str(), "00000000-0000-7000-8000-000000000000");
}

proptest! {
    #[test]
    fn uuids_grow_whatever_the_clock_does(steps in prop::collection::vec((0..20_u64, any::<u128>()), 2..300)) {
        let mut maker = UuidV7::new();
        let ids: Vec<_> = steps.iter().map(|(now_ms, random)| maker.next(*now_ms, *random)).collect();
        prop_assert!(ids.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()), "{:?}", ids);
    }

    #[test]
    fn snowflakes_grow_whatever_the_clock_does(steps in prop::collection::vec(0..20_u64, 2..300)) {
        let mut maker = Snowflake::new(1_000, 5).unwrap();
        let ids: Vec<_> = steps.iter().map(|now_ms| maker.next(1_000 + now_ms).unwrap()).collect();
        prop_assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", ids);
    }

    #[test]
    fn numbers_of_segments_grow_and_are_what_was_allotted(
        steps in prop::collection::vec((0..4_u8, 1..30_u64), 1..300),
    ) {
        let mut segments = Segments::new();
        let (mut next, mut allotted, mut taken) = (1, BTreeSet::new(), Vec::new());
        let mut asked = false;
        for (step, length) in steps {
            match step {
                0 | 1 => taken.extend(segments.take()),
                2 if asked => {
                    segments.supply(next..next + length).unwrap();
                    allotted.extend(next..next + length);
                    (next, asked) = (next + length + 3, false);
                }
                _ => {
                    let again = segments.ask();
                    prop_assert!(!(asked && again), "asked twice");
                    asked |= again;
                }
            }
        }
        while let Some(number) = segments.take() {
            taken.push(number);
        }
        prop_assert_eq!(taken, allotted.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn uuids_grow_when_a_millisecond_is_used_up() {
    let mut maker = UuidV7::new();
    let ids: Vec<_> = (0..10_000).map(|_| maker.next(7, u128::MAX)).collect();
    assert!(ids.is_sorted_by(|one, other| one < other));
    let time = |id: &MessageId| u64::from_str_radix(&id.as_str()[9..13], 16).unwrap();
    assert_eq!(
        (time(&ids[0]), time(&ids[2_048]), time(&ids[2_049])),
        (7, 7, 8),
        "2,048 ids fit, and one that begins there"
    );
}

#[test]
fn a_snowflake_is_time_node_and_sequence() {
    let mut maker = Snowflake::new(1_600_000_000_000, 1_023).unwrap();
    let first = maker.next(1_600_000_000_001).unwrap();
    let second = maker.next(1_600_000_000_001).unwrap();
    assert_eq!((first >> 22, (first >> 12) & 0x3ff, first & 0xfff, second), (1, 1_023, 0, first + 1));
    assert!(Snowflake::new(0, 1_024).is_err());
}

#[test]
fn a_snowflake_runs_ahead_of_the_clock_up_to_its_bound() {
    let mut maker = Snowflake::new(0, 1).unwrap();
    let reached = maker.next(10_000).unwrap();
    let back_ms = 10_000 - SNOWFLAKE_AHEAD_MS_MAX;
    assert_eq!(maker.next(back_ms), Ok(reached + 1));
    let error = NoSnowflake::Ahead { by_ms: SNOWFLAKE_AHEAD_MS_MAX + 1, max_ms: SNOWFLAKE_AHEAD_MS_MAX };
    assert_eq!(maker.next(back_ms - 1), Err(error));
    assert_eq!(maker.next(back_ms), Ok(reached + 2), "a refusal uses up nothing");
}

#[test]
fn more_snowflakes_than_fit_a_millisecond_come_from_the_next_and_are_bounded() {
    let mut maker = Snowflake::new(0, 1).unwrap().ahead_max_ms(2);
    let ids: Vec<_> = (0..3 * 4_096).map(|_| maker.next(9).unwrap()).collect();
    assert!(ids.is_sorted_by(|one, other| one < other));
    assert_eq!((ids[0] >> 22, ids[4_095] >> 22, ids[4_096] >> 22, maker.reached_ms()), (9, 9, 10, 11));
    assert_eq!(maker.next(9), Err(NoSnowflake::Ahead { by_ms: 3, max_ms: 2 }));
    assert_eq!(maker.next(10).unwrap() >> 22, 12);
}

#[test]
fn a_snowflake_that_is_resumed_repeats_nothing() {
    let mut before = Snowflake::new(500, 1).unwrap();
    let last = before.next(10_000).unwrap();
    let mut after = Snowflake::new(500, 1).unwrap().resume(before.reached_ms());
    assert!(after.next(9_990).unwrap() > last);
}

#[test]
fn times_that_do_not_fit_a_snowflake_are_refused() {
    let mut maker = Snowflake::new(500, 1).unwrap();
    assert_eq!(maker.next(499), Err(NoSnowflake::BeforeEpoch));
    assert_eq!(maker.next(500 + (1 << 41)), Err(NoSnowflake::UsedUp));
    assert!(maker.next(500 + (1 << 41) - 1).unwrap() < 1 << 63);
}

#[test]
fn the_next_segment_is_asked_for_when_a_fifth_is_left() {
    let mut segments = Segments::new();
    assert_eq!((segments.take(), segments.ask(), segments.ask()), (None, true, false));
    segments.supply(1..11).unwrap();
    for number in 1..=8 {
        assert_eq!((segments.take(), segments.ask()), (Some(number), number == 8), "{number}");
    }
    segments.failed();
    assert!(segments.ask(), "what failed is asked for again");
    segments.supply(11..21).unwrap();
    assert_eq!((segments.take(), segments.take(), segments.take()), (Some(9), Some(10), Some(11)));
}

#[test]
fn a_segment_that_was_allotted_before_is_refused() {
    let mut segments = Segments::new();
    assert_eq!(segments.supply(1..2), Err(BadSegment::Unasked(1..2)));
    assert!(segments.ask());
    segments.supply(100..110).unwrap();
    while segments.take().is_some() {}
    assert!(segments.ask());
    assert_eq!(segments.supply(109..120), Err(BadSegment::Again { segment: 109..120, floor: 110 }));
    assert!(segments.ask());
    assert_eq!(segments.supply(120..120), Err(BadSegment::Empty(120..120)));
}
