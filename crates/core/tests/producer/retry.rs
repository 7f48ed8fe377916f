use std::time::Duration;

use baton_core::{DELAY_MAX, Retry};
use proptest::prelude::*;

fn retries() -> impl Strategy<Value = Retry> {
    (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(first, factor, max, attempts)| {
        let duration = |number: u32| Duration::from_micros(u64::from(number) * u64::from(number % 1_000));
        Retry::exponential(duration(first), factor % 10, duration(max)).max_attempts(attempts % 20)
    })
}

proptest! {
    #[test]
    fn a_delay_is_below_its_bound_and_ends_before_the_deadline(
        retry in retries(), failures in 1..100_u32, random in any::<u64>(), remaining_us in any::<u32>(),
    ) {
        let remaining = Duration::from_micros(remaining_us.into());
        match retry.delay(failures, random, Some(remaining)) {
            Some(delay) => {
                prop_assert!(failures < retry.attempts_max());
                prop_assert!(delay < remaining);
                prop_assert!(delay <= retry.bound(failures));
            }
            None => prop_assert!(failures >= retry.attempts_max() || remaining.is_zero()),
        }
    }

    #[test]
    fn bounds_grow_up_to_the_longest(retry in retries(), failures in 1..100_u32) {
        prop_assert!(retry.bound(failures) <= retry.bound(failures + 1));
        prop_assert!(retry.bound(failures) <= DELAY_MAX);
    }

    #[test]
    fn attempts_are_bounded(retry in retries(), random in any::<u64>()) {
        let attempts = 1 + (1..).take_while(|failures| retry.delay(*failures, random, None).is_some()).count();
        prop_assert_eq!(attempts, retry.attempts_max() as usize);
    }
}

#[test]
fn bounds_are_exponential_and_jitter_uses_all_of_them() {
    let retry = Retry::exponential(Duration::from_millis(100), 3, Duration::from_secs(2));
    let bounds: Vec<_> = (1..=5).map(|failures| retry.bound(failures).as_millis()).collect();
    assert_eq!(bounds, [100, 300, 900, 2_000, 2_000]);
    let delays = [0, 1 << 62, 1 << 63, u64::MAX].map(|random| retry.delay(2, random, None).unwrap().as_millis());
    assert_eq!(delays, [0, 75, 150, 299]);
}
