use std::num::NonZeroU32;

use baton_core::partitioner::{Sticky, murmur2, partition_of_key};
use proptest::prelude::*;

const VECTORS: &str = include_str!("../vectors/partitions.csv");

fn count(partitions: u32) -> NonZeroU32 {
    NonZeroU32::new(partitions).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn keys_go_where_the_real_clients_send_them() {
    let lines: Vec<Vec<&str>> =
        VECTORS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(',').collect()).collect();
    assert!(lines.len() >= 200, "{} vectors", lines.len());
    for length in 0..=32 {
        assert!(lines.iter().any(|line| line[0].len() == 2 * length), "no key of {length} bytes");
    }
    for line in lines {
        let key = bytes(line[0]);
        assert_eq!(murmur2(&key).to_string(), line[1], "hash of {}", line[0]);
        for (partitions, expected) in [6, 100, 1_000_003].into_iter().zip(&line[2..]) {
            assert_eq!(partition_of_key(&key, count(partitions)).to_string(), *expected, "{} of {partitions}", line[0]);
        }
    }
}

proptest! {
    #[test]
    fn a_partition_is_left_when_a_batch_is_full_and_never_for_itself(
        sizes in prop::collection::vec((0..400_usize, any::<u32>()), 1..200),
        partitions in 1..20_u32,
    ) {
        let mut sticky = Sticky::new(1_000);
        let (mut current, mut filled) = (None, 0);
        for (size, random) in sizes {
            let mut drawn = false;
            let partition = sticky.next(size, count(partitions), || { drawn = true; random });
            prop_assert!(partition < partitions);
            prop_assert_eq!(drawn, current.is_none() || filled >= 1_000);
            if drawn {
                prop_assert!(partitions == 1 || Some(partition) != current);
                filled = 0;
            } else {
                prop_assert_eq!(Some(partition), current);
            }
            current = Some(partition);
            filled += size;
        }
    }
}

#[test]
fn a_partition_that_is_gone_is_left_at_once() {
    let mut sticky = Sticky::default();
    assert_eq!(sticky.next(1, count(10), || u32::MAX), 9);
    assert_eq!(sticky.next(1, count(3), || u32::MAX), 2);
}

#[test]
fn every_other_partition_is_as_likely() {
    let mut drawn = [0_u32; 5];
    for step in 0..1_000_u32 {
        let mut sticky = Sticky::new(0);
        sticky.next(1, count(5), || u32::MAX / 2);
        drawn[sticky.next(1, count(5), || step * (u32::MAX / 1_000)) as usize] += 1;
    }
    assert_eq!(drawn[2], 0);
    assert!(drawn.iter().all(|count| *count == 0 || (249..=251).contains(count)), "{drawn:?}");
}
