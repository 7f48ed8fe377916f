//! Batches that are none, or would fill the memory.

use baton_wire::records::{BatchBuilder, BatchHeader, Codec, NewRecord};
use bytes::Bytes;

use crate::support::batches::{self, batch};
use crate::support::client::Client;
use crate::support::requests::{self, ALL, PRODUCE};
use crate::support::server::Server;
use crate::{Bystander, MemoryWatch, alone};

const CORRUPT_MESSAGE: i16 = 2;
const MESSAGE_TOO_LARGE: i16 = 10;

/// The answer's error code and base offset.
fn produce(client: &mut Client, batch: Bytes) -> (i16, i64) {
    let answer = requests::produced(&client.call(PRODUCE, &requests::produce("t", 0, ALL, batch)));
    (answer.error_code, answer.base_offset)
}

fn server() -> Server {
    let server = Server::start();
    server.client().create_topic("t", 1, &[]);
    server.client().create_topic("bystander", 1, &[]);
    server
}

#[test]
fn changed_batches_are_answered_and_what_is_stored_can_be_read() {
    let _alone = alone();
    let server = server();
    let mut client = server.client();
    let memory = MemoryWatch::start();
    let good = batch(&["one", "two", "three"]);
    let (mut stored, mut refused) = (0, 0);
    for at in 0..good.len() {
        for change in [0x01, 0x40, 0x80, 0xff] {
            let mut changed = good.to_vec();
            changed[at] ^= change;
            let (code, _) = produce(&mut client, changed.clone().into());
            // Before the checksum are the base offset, the length, the epoch and the format: none of them is in it.
            let is_covered = at >= 17;
            assert!(!is_covered || code == CORRUPT_MESSAGE, "byte {at} ^ {change:#x} passed the checksum: {code}");
            // With a checksum that fits, the records themselves are looked at.
            if is_covered && at >= 21 {
                let checksum = BatchHeader::compute_checksum(&changed);
                changed[17..21].copy_from_slice(&checksum.to_be_bytes());
                let (code, _) = produce(&mut client, changed.into());
                *(if code == 0 { &mut stored } else { &mut refused }) += 1;
            }
        }
    }
    println!("{stored} changed batches stored, {refused} refused");
    assert!(stored > 20 && refused > 100, "values may change, structure may not");
    let mut next = client.offset_at("t", -2);
    let end = client.offset_at("t", -1);
    while next < end {
        let read = client.fetch("t", next, 1000);
        let records = batches::records(&read.records);
        assert!(!records.is_empty(), "a reader gets on from {next}");
        for record in records {
            assert_eq!(record.offset, next, "each offset once");
            next += 1;
        }
    }
    memory.finish("changed batches");
}

/// Far more than a batch may decompress to.
const BOMB_BYTES: usize = 400 << 20;

fn bomb(codec: Codec) -> Bytes {
    let zeros = vec![0; BOMB_BYTES];
    let record = NewRecord { value: Some(&zeros), timestamp: batches::now_ms(), ..NewRecord::default() };
    BatchBuilder::new(codec).record(record).build().expect("a batch").into()
}

#[test]
fn a_batch_that_decompresses_to_far_too_much_is_refused_without_being_held() {
    let _alone = alone();
    let server = server();
    let mut client = server.client();
    let bombs = [Codec::Gzip, Codec::Zstd].map(|codec| (codec, bomb(codec)));
    let bystander = Bystander::start(&server);
    let memory = MemoryWatch::start();
    for (codec, bomb) in bombs {
        assert!(bomb.len() < 1 << 20, "{codec:?}: {} bytes are small enough to be sent", bomb.len());
        for _ in 0..4 {
            assert_eq!(produce(&mut client, bomb.clone()), (MESSAGE_TOO_LARGE, -1), "{codec:?}");
        }
    }
    memory.finish("decompression bombs");
    bystander.finish("decompression bombs");
    assert_eq!(produce(&mut client, batch(&["fine"])), (0, 0));
}
