use std::collections::BTreeSet;

use baton_core::relay::{Seen, Shares, Turnover};
use proptest::prelude::*;

proptest! {
    /// All relays look in turn, and each takes and leaves at once.
    #[test]
    fn relays_come_to_even_shares_and_then_rest(shards in 1_u16..40, members in 1_usize..7) {
        let names: Vec<String> = (0..members).map(|member| format!("relay-{member}")).collect();
        let mut owners: Vec<Option<String>> = vec![None; shards.into()];
        let mut ours = vec![BTreeSet::new(); members];
        let mut last = 1;
        for _ in 0..20 {
            last = 0;
            for (member, ours) in ours.iter_mut().enumerate() {
                let seen: Vec<Seen> =
                    (0..shards).map(|shard| Seen { shard, owner: owners[usize::from(shard)].clone() }).collect();
                let Turnover { take, leave } = Shares::new(&names[member]).turnover(&names, &seen, ours);
                last += take.len() + leave.len();
                for shard in leave {
                    ours.remove(&shard);
                    owners[usize::from(shard)] = None;
                }
                for shard in take {
                    prop_assert!(owners[usize::from(shard)].is_none(), "a shard that is owned was taken");
                    ours.insert(shard);
                    owners[usize::from(shard)] = Some(names[member].clone());
                }
            }
        }
        prop_assert_eq!(last, 0, "they go on for ever");
        prop_assert!(owners.iter().all(Option::is_some));
        let sizes: Vec<usize> = ours.iter().map(BTreeSet::len).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{:?}", sizes);
    }
}

#[test]
fn a_relay_that_nobody_has_seen_yet_counts_itself() {
    let seen = [Seen { shard: 0, owner: None }, Seen { shard: 1, owner: None }];
    let turnover = Shares::new("b").turnover(&["a".to_owned()], &seen, &BTreeSet::new());
    assert_eq!(turnover.take.len(), 1);
}
