//! Batches that somebody damaged and then sealed with a checksum that fits: refused or read, never a panic.

use baton_wire::records::{BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Codec, NewRecord};
use proptest::prelude::*;

use crate::any_batch::{NOW_MS, look_at, seal};

fn batch(codec: Codec) -> Vec<u8> {
    let headers: [(&[u8], Option<&[u8]>); 2] = [(b"trace", Some(b"00-1")), (b"none", None)];
    let mut builder = BatchBuilder::new(codec);
    for value in [None, Some(&b""[..]), Some(b"value value value value"), Some(&[7; 300])] {
        builder = builder.record(NewRecord { timestamp: NOW_MS, key: Some(b"key"), value, headers: &headers });
    }
    builder.build().unwrap()
}

fn codecs() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn damaged_batches_are_refused_or_readable(
        codec in codecs(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut batch = batch(codec);
        for (at, byte) in damage {
            // The length stays, so that the damage is looked at and not the length.
            let at = 16 + at.index(batch.len() - 16);
            batch[at] = byte;
        }
        batch[16] = 2;
        seal(&mut batch);
        look_at(&batch);
    }

    #[test]
    fn any_bytes_in_place_of_the_records_are_refused_or_readable(
        codec in codecs(),
        records in proptest::collection::vec(any::<u8>(), 0..200),
        record_count in 1i32..4,
    ) {
        let mut header = BatchHeader::parse(&batch(codec)).unwrap();
        header.batch_length = (BATCH_HEADER_BYTES - 12 + records.len()) as i32;
        header.record_count = record_count;
        header.last_offset_delta = record_count - 1;
        let mut batch = [&header.to_bytes()[..], &records].concat();
        seal(&mut batch);
        look_at(&batch);
    }
}
