//! Any bytes as a record batch, as they are and with length, format and checksum made to fit.
#![no_main]

use baton_wire::records::{BATCH_HEADER_BYTES, split_batches};
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/wire/tests/hostile/any_batch.rs"]
mod any_batch;

fuzz_target!(|data: &[u8]| {
    for batch in split_batches(data).flatten() {
        any_batch::look_at(batch);
    }
    any_batch::look_at(data);
    if data.len() < BATCH_HEADER_BYTES {
        return;
    }
    let mut batch = data.to_vec();
    batch[..8].fill(0);
    batch[8..12].copy_from_slice(&((data.len() - 12) as u32).to_be_bytes());
    batch[16] = 2;
    // No flag but the codec.
    batch[21] = 0;
    batch[22] &= 7;
    // The last offset follows from the count.
    let count = i32::from(batch[60]).max(1);
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    // Now, and no producer.
    batch[27..35].copy_from_slice(&any_batch::NOW_MS.to_be_bytes());
    batch[43..57].fill(0xff);
    any_batch::seal(&mut batch);
    any_batch::look_at(&batch);
});
