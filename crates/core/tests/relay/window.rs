use baton_core::relay::{BadWindow, Claimed, Window};
use baton_core::stamp::SEQUENCE_MAX;
use proptest::prelude::*;

fn claimed() -> impl Strategy<Value = Claimed> {
    (any::<u32>(), any::<u32>(), 1..=SEQUENCE_MAX).prop_map(|(partition, epoch, sequence)| Claimed {
        partition,
        epoch,
        sequence,
    })
}

proptest! {
    #[test]
    fn a_window_comes_back_as_it_was(claims in prop::collection::btree_map(any::<i64>(), claimed(), 0..40)) {
        let mut window = Window::default();
        claims.iter().for_each(|(position, claimed)| window.insert(*position, *claimed));
        prop_assert_eq!(Window::decode(&window.encode()), Ok(window));
    }

    #[test]
    fn no_bytes_make_reading_a_window_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        _ = Window::decode(&bytes);
    }

    #[test]
    fn a_window_that_was_cut_is_refused(claims in prop::collection::btree_map(any::<i64>(), claimed(), 1..10), cut in any::<prop::sample::Index>()) {
        let mut window = Window::default();
        claims.iter().for_each(|(position, claimed)| window.insert(*position, *claimed));
        let bytes = window.encode();
        let cut = 1 + cut.index(bytes.len() - 1);
        prop_assert!(cut == bytes.len() || Window::decode(&bytes[..cut]).is_err());
    }
}

#[test]
fn claims_that_follow_each_other_take_few_bytes() {
    let mut window = Window::default();
    for number in 1..=512_u32 {
        let claimed = Claimed { partition: number % 12, epoch: 7, sequence: u64::from(1_000 + number / 12) };
        window.insert(1_000_000 + i64::from(number) * 16, claimed);
    }
    assert!(window.encode().len() < 512 * 5, "{} bytes", window.encode().len());
}

#[test]
fn a_window_of_a_newer_version_is_refused_and_nothing_is_an_empty_one() {
    assert_eq!(Window::decode(&[2, 0]), Err(BadWindow::Newer(2)));
    assert_eq!(Window::decode(&[]), Ok(Window::default()));
}
