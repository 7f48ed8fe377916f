use baton_core::trace::{TRACEPARENT_BYTES, TraceParent};
use proptest::prelude::*;

const EXAMPLE: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_traceparent_is_read_and_passed_on() {
    let parent = TraceParent::parse(EXAMPLE).unwrap();
    assert_eq!((parent.trace(), parent.span()), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7));
    assert!(parent.sampled());
    assert_eq!(parent.encode(), EXAMPLE);
    assert_eq!(parent.child(0xabc).encode(), &b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01"[..]);
}

#[test]
fn zeros_which_are_forbidden_are_never_written() {
    assert_eq!(
        TraceParent::root(0, 0, false).child(0).encode(),
        &b"00-00000000000000000000000000000001-0000000000000001-00"[..]
    );
}

#[test]
fn what_is_no_traceparent_is_refused() {
    for bad in [
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
    ] {
        assert!(TraceParent::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_newer_version_is_read_as_far_as_it_is_known_and_written_as_00() {
    let newer = b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-comes-after";
    let parent = TraceParent::parse(newer).unwrap();
    assert_eq!(parent.encode(), &b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"[..]);
}

proptest! {
    #[test]
    fn what_was_written_is_read(trace in any::<u128>(), span in any::<u64>(), sampled in any::<bool>()) {
        let root = TraceParent::root(trace, span, sampled);
        prop_assert_eq!(root.encode().len(), TRACEPARENT_BYTES);
        prop_assert_eq!(TraceParent::parse(&root.encode()), Ok(root));
    }

    #[test]
    fn no_header_makes_the_parser_panic(header in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = TraceParent::parse(&header);
    }
}
