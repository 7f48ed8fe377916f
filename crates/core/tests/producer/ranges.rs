use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use baton_core::Ranges;
use proptest::prelude::*;

/// Where the numbers lie: small ones meet often, the others are where additions overflow.
const BASES: [u64; 2] = [0, u64::MAX - 63];

#[derive(Debug, Clone)]
enum Step {
    Insert(u64),
    InsertRange(RangeInclusive<u64>),
    Remove(RangeInclusive<u64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0..64_u64, 0..64_u64).prop_map(|(one, other)| one..=other);
    let step = prop_oneof![
        3 => (0..64_u64).prop_map(Step::Insert),
        3 => range().prop_map(Step::InsertRange),
        1 => range().prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 0..60)
}

fn moved(range: &RangeInclusive<u64>, base: u64) -> RangeInclusive<u64> {
    base + range.start()..=base + range.end()
}

fn build(steps: &[Step], base: u64) -> (Ranges, BTreeSet<u64>) {
    let (mut ranges, mut model) = (Ranges::new(), BTreeSet::new());
    for step in steps {
        match step {
            Step::Insert(number) => assert_eq!(ranges.insert(base + number), model.insert(base + number)),
            Step::InsertRange(range) => {
                let new = moved(range, base).filter(|number| model.insert(*number)).count();
                assert_eq!(ranges.insert_range(moved(range, base)), new as u64);
            }
            Step::Remove(range) => {
                let removed = moved(range, base).filter(|number| model.remove(number)).count();
                assert_eq!(ranges.remove_range(moved(range, base)), removed as u64);
            }
        }
    }
    (ranges, model)
}

proptest! {
    #[test]
    fn ranges_hold_the_numbers_of_a_plain_set(steps in steps(), end in 0..2_usize) {
        let base = BASES[end];
        let (ranges, model) = build(&steps, base);
        prop_assert_eq!(ranges.iter().flatten().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(ranges.count(), model.len() as u64);
        prop_assert_eq!(ranges.first(), model.first().copied());
        prop_assert_eq!(ranges.last(), model.last().copied());
        prop_assert_eq!(ranges.is_empty(), model.is_empty());
        prop_assert_eq!(ranges.intervals(), ranges.iter().count());
        let apart: Vec<_> = ranges.iter().collect();
        prop_assert!(apart.windows(2).all(|pair| pair[0].end() + 1 < *pair[1].start()), "touching: {:?}", apart);
        for number in base..=base + 63 {
            prop_assert_eq!(ranges.contains(number), model.contains(&number));
            let frontier = (number..=base + 63).find(|number| !model.contains(number)).or((base + 63).checked_add(1));
            prop_assert_eq!(ranges.frontier(number), frontier, "from {}", number);
        }
    }

    #[test]
    fn what_is_missing_is_what_a_plain_set_lacks(steps in steps(), from in 0..64_u64, to in 0..64_u64, end in 0..2_usize) {
        let base = BASES[end];
        let (ranges, model) = build(&steps, base);
        let lacking: Vec<_> = (base + from..=base + to).filter(|number| !model.contains(number)).collect();
        let missing: Vec<_> = ranges.missing(base + from..=base + to).collect();
        prop_assert_eq!(missing.iter().cloned().flatten().collect::<Vec<_>>(), lacking);
        prop_assert!(missing.windows(2).all(|pair| pair[0].end() + 1 < *pair[1].start()), "touching: {:?}", missing);
    }

    #[test]
    fn sets_are_joined_and_subtracted_as_plain_sets_are(one in steps(), other in steps(), end in 0..2_usize) {
        let base = BASES[end];
        let ((one, one_model), (other, other_model)) = (build(&one, base), build(&other, base));
        prop_assert_eq!(one.intersects(&other), !one_model.is_disjoint(&other_model));
        let mut joined = one.clone();
        joined.union(&other);
        prop_assert_eq!(joined.iter().flatten().collect::<BTreeSet<_>>(), one_model.union(&other_model).copied().collect());
        let mut rest = one;
        rest.subtract(&other);
        prop_assert_eq!(rest.iter().flatten().collect::<BTreeSet<_>>(), one_model.difference(&other_model).copied().collect());
    }
}

#[test]
fn equal_sets_are_equal_however_they_came_about() {
    let forward: Ranges = [1..=3, 4..=6, 9..=9].into_iter().collect();
    let backward: Ranges = [9..=9, 2..=6, 1..=2].into_iter().collect();
    assert_eq!(forward, backward);
}

#[test]
fn all_of_u64_fits() {
    let mut all = Ranges::new();
    assert_eq!(all.insert_range(0..=u64::MAX), u64::MAX);
    assert_eq!((all.frontier(0), all.count(), all.missing(0..=u64::MAX).count()), (None, u64::MAX, 0));
    assert_eq!(all.remove_range(1..=u64::MAX), u64::MAX);
    assert_eq!(all.iter().collect::<Vec<_>>(), [0..=0]);
}

#[test]
fn numbers_in_order_take_one_interval() {
    let mut done = Ranges::new();
    for number in 1..=100_000 {
        assert!(done.insert(number));
    }
    assert_eq!(done.intervals(), 1);
}
