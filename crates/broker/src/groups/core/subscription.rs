//! The topics in a consumer's subscription: the one thing that the coordinator reads of what members say to each other.

use std::collections::BTreeSet;

/// The topics of a `ConsumerProtocolSubscription`, of any version: all begin alike. `None` if it is not one.
pub(super) fn topics(metadata: &[u8]) -> Option<BTreeSet<Box<str>>> {
    let (_version, mut rest) = metadata.split_first_chunk::<2>()?;
    let (count, after) = rest.split_first_chunk::<4>()?;
    rest = after;
    let count = u32::try_from(i32::from_be_bytes(*count)).ok()?;
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (name, after) = after.split_at_checked(length)?;
        topics.insert(Box::from(std::str::from_utf8(name).ok()?));
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(version: i16, names: &[&str], tail: &[u8]) -> Vec<u8> {
        let mut bytes = version.to_be_bytes().to_vec();
        bytes.extend((names.len() as i32).to_be_bytes());
        for name in names {
            bytes.extend((name.len() as i16).to_be_bytes());
            bytes.extend(name.as_bytes());
        }
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn topics_are_read_from_every_version() {
        for version in [0, 1, 2, 3, 99] {
            let bytes = subscription(version, &["orders", "payments", "orders"], &[0xff; 9]);
            let expected: BTreeSet<Box<str>> = ["orders".into(), "payments".into()].into();
            assert_eq!(topics(&bytes), Some(expected));
        }
        assert_eq!(topics(&subscription(0, &[], &[])), Some(BTreeSet::new()));
    }

    #[test]
    fn what_is_no_subscription_gives_no_topics() {
        let whole = subscription(1, &["orders"], &[]);
        for cut in 0..whole.len() {
            assert_eq!(topics(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(topics(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(topics(&[0, 0, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(topics(&[0, 0, 0, 0, 0, 1, 0xff, 0xfe]), None);
        assert_eq!(topics(&[0, 0, 0, 0, 0, 1, 0, 1, 0xff]), None);
    }
}
