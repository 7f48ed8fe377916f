//! Any bytes in the files of a log: patched anywhere, or as the body of a checkpoint, of an index file or of a control
//! frame whose checksums fit. Opening the log may refuse, but neither panic nor hang nor take what it was not given.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use baton_log::{Disk, Log, LogOptions, NoObserver, ReadMode, SystemClock};
use baton_testkit::SimDisk;
use baton_wire::records::{BatchBuilder, BatchHeader, Codec, NewRecord};
use libfuzzer_sys::fuzz_target;

/// Where the frames of a segment begin.
const FIRST_FRAME: u64 = 64;

fn options() -> LogOptions {
    LogOptions { segment_bytes: 4096, reserve_step_bytes: 8192, free_bytes_min: 0, ..LogOptions::default() }
}

fn open(disk: &SimDisk) -> Option<Log> {
    Log::open(Arc::new(disk.copy()), Arc::new(SystemClock), options(), Arc::new(NoObserver)).ok().map(|(log, _)| log)
}

/// A log with a few segments, index files and checkpoints.
fn template() -> &'static SimDisk {
    static TEMPLATE: OnceLock<SimDisk> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let disk = SimDisk::new(1);
        let opened = Log::open(Arc::new(disk.clone()), Arc::new(SystemClock), options(), Arc::new(NoObserver));
        let (log, _) = opened.expect("a new log opens");
        log.create_topic("t", [1; 16], 2, BTreeMap::new()).expect("created");
        log.commit_once();
        let topic = log.catalog().topic("t").expect("just created").clone();
        let value = [7_u8; 300];
        for n in 0..30 {
            let record = NewRecord { value: Some(&value), ..NewRecord::default() };
            let batch = BatchBuilder::new(Codec::None).producer(5, 0, n).record(record).build().expect("built");
            let header = BatchHeader::parse(&batch).expect("whole");
            log.append(topic.partitions[n as usize % 2], &header, &batch).expect("appended");
            log.commit_once();
            log.maintain_once();
        }
        disk
    })
}

fn sealed(magic: &[u8; 8], body: &[u8]) -> Vec<u8> {
    let mut file = magic.to_vec();
    file.extend(1_u16.to_le_bytes());
    file.extend(0_u16.to_le_bytes());
    file.extend(crc32c::crc32c(body).to_le_bytes());
    file.extend((body.len() as u64).to_le_bytes());
    file.extend(body);
    file
}

fn control_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = b"BATN\0\0\0\0".to_vec();
    frame.extend(1000_u64.to_le_bytes());
    frame.extend((FIRST_FRAME as u32).to_le_bytes());
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(u32::MAX.to_le_bytes());
    frame.extend(0x02FF_FFFF_u32.to_le_bytes());
    frame.extend((-1_i64).to_le_bytes());
    frame.extend(0_i64.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[8..]), payload);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame.extend(payload);
    frame
}

fn replace(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let _ = disk.remove(name);
    if let Ok(file) = disk.create(name) {
        let _ = file.write_at(0, bytes);
    }
}

fn names(disk: &SimDisk, ending: &str) -> Vec<String> {
    let mut names: Vec<String> = disk.names().into_iter().filter(|name| name.ends_with(ending)).collect();
    names.sort();
    names
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let disk = template().copy();
    match choice % 4 {
        0 => {
            let Some((file, patch)) = rest.split_first_chunk::<3>() else { return };
            let all = { let mut all = disk.names(); all.sort(); all };
            let name = &all[file[0] as usize % all.len()];
            let at = u64::from(u16::from_le_bytes([file[1], file[2]]));
            if let Ok(opened) = disk.open(name) {
                let _ = opened.write_at(at % opened.len().unwrap_or(1).max(1), patch);
            }
        }
        1 => if let Some(name) = names(&disk, ".checkpoint").last() { replace(&disk, name, &sealed(b"BATONCHK", rest)) },
        2 => if let Some(name) = names(&disk, ".index").first() { replace(&disk, name, &sealed(b"BATONIDX", rest)) },
        _ => if let Some(name) = names(&disk, ".log").last() && let Ok(file) = disk.open(name) {
            let _ = file.write_at(FIRST_FRAME, &control_frame(rest));
        },
    }
    let Some(log) = open(&disk) else { return };
    for topic in log.catalog().topics() {
        for partition in topic.partitions.iter().take(16) {
            let Some(bounds) = log.bounds(*partition) else { continue };
            let _ = log.read(*partition, bounds.log_start, 1 << 20, true, ReadMode::Blocking);
            let _ = log.offset_at_time(*partition, 0);
        }
    }
    log.stats();
});
