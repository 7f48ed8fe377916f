use super::*;

/// A file of whole sectors, each filled with its own number, durable with its directory entry.
fn disk_with_file(seed: u64, sectors: u8) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    let file = disk.create("a").unwrap();
    file.write_at(0, &sectors_from(1, sectors)).unwrap();
    file.sync_data().unwrap();
    disk.sync_directory().unwrap();
    (disk, file)
}

fn sectors_from(first: u8, count: u8) -> Vec<u8> {
    (first..first + count).flat_map(|number| [number; SECTOR_BYTES]).collect()
}

#[test]
fn what_was_synced_survives_every_loss_of_power() {
    for seed in 0..200 {
        let (disk, _file) = disk_with_file(seed, 3);
        let disk = disk.lose_power();
        assert_eq!(disk.content("a"), Some(sectors_from(1, 3)));
    }
}

#[test]
fn every_subset_of_unsynced_sectors_survives_some_loss_of_power() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let (disk, file) = disk_with_file(seed, 3);
        file.write_at(0, &sectors_from(11, 3)).unwrap();
        let content = disk.lose_power().content("a").unwrap();
        assert_eq!(content.len(), 3 * SECTOR_BYTES);
        let subset: Vec<bool> = content
            .chunks(SECTOR_BYTES)
            .enumerate()
            .map(|(at, sector)| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
                assert!([at as u8 + 1, at as u8 + 11].contains(&sector[0]));
                sector[0] > 10
            })
            .collect();
        seen.insert(subset);
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn an_unsynced_length_may_or_may_not_have_happened() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (disk, file) = disk_with_file(seed, 1);
        file.allocate(0, 4096).unwrap();
        file.write_at(600, &[9; 100]).unwrap();
        let content = disk.lose_power().content("a").unwrap();
        assert_eq!(content[..SECTOR_BYTES], [1; SECTOR_BYTES]);
        assert!(content[SECTOR_BYTES..].iter().all(|byte| [0, 9].contains(byte)));
        lengths.insert(content.len());
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [SECTOR_BYTES, 4096]);
}

#[test]
fn directory_changes_are_lost_each_on_its_own_until_synced() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..400 {
        let (disk, _file) = disk_with_file(seed, 1);
        disk.create("b").unwrap().sync_data().unwrap();
        disk.rename("a", "c").unwrap();
        seen.insert(disk.lose_power().names());
    }
    let all = [vec!["a"], vec!["a", "b"], vec!["c"], vec!["b", "c"]];
    assert_eq!(seen, all.into_iter().map(|names| names.into_iter().map(str::to_owned).collect()).collect());
    let (disk, _file) = disk_with_file(1, 1);
    disk.remove("a").unwrap();
    disk.sync_directory().unwrap();
    assert_eq!(disk.lose_power().names(), Vec::<String>::new());
}

#[test]
fn a_durable_entry_does_not_make_the_content_durable() {
    let lost = (0..100).any(|seed| {
        let disk = SimDisk::new(seed);
        disk.create("a").unwrap().write_at(0, &[1; 2000]).unwrap();
        disk.sync_directory().unwrap();
        disk.lose_power().content("a").unwrap() != [1; 2000]
    });
    assert!(lost);
}

#[test]
fn after_a_failed_sync_later_syncs_succeed_and_prove_nothing() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..200 {
        let (disk, file) = disk_with_file(seed, 2);
        file.write_at(0, &sectors_from(11, 2)).unwrap();
        disk.fail(Operation::SyncData, 1);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        let mut read = vec![0; 2 * SECTOR_BYTES];
        file.read_at(0, &mut read).unwrap();
        assert_eq!(read, sectors_from(11, 2), "the page cache still has it");
        // Written again it is dirty again, and the next sync counts.
        file.write_at(0, &[11]).unwrap();
        file.sync_data().unwrap();
        let content = disk.lose_power().content("a").unwrap();
        assert_eq!(content[..SECTOR_BYTES], [11; SECTOR_BYTES]);
        if content[SECTOR_BYTES] == 12 { kept += 1 } else { lost += 1 }
    }
    assert!(lost > 20 && kept > 20, "lost {lost}, kept {kept}");
}

#[test]
fn a_killed_process_loses_nothing_and_its_handles() {
    let (disk, file) = disk_with_file(1, 1);
    file.write_at(0, &[7; 10]).unwrap();
    let after = disk.kill();
    assert_eq!(after.content("a").unwrap()[..10], [7; 10]);
    assert!(file.write_at(0, &[8]).is_err() && disk.list().is_err() && after.list().is_ok());
}

#[test]
fn a_machine_stops_at_the_operation_that_was_named() {
    for operations in 1..4 {
        let (disk, file) = disk_with_file(operations, 4);
        disk.crash_at(operations);
        let done = (0..5).take_while(|_| file.write_at(0, &[1]).is_ok()).count();
        assert_eq!(done as u64, operations - 1);
        assert!(disk.crashed() && file.sync_data().is_err());
        assert!(!disk.lose_power().crashed());
    }
}

#[test]
fn a_full_disk_refuses_what_is_not_allocated_and_takes_what_is() {
    let (disk, file) = disk_with_file(1, 2);
    disk.set_capacity(6 * SECTOR_BYTES as u64);
    file.allocate(0, 4 * SECTOR_BYTES as u64).unwrap();
    assert_eq!((disk.used_bytes(), disk.free_bytes().unwrap()), (2048, 1024));
    assert_eq!(file.allocate(2048, 2048).unwrap_err().kind(), io::ErrorKind::StorageFull);
    let other = disk.create("b").unwrap();
    other.write_at(0, &[1; 1024]).unwrap();
    assert_eq!(other.write_at(1024, &[1; 10]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_at(1024, &[5; 1024]).unwrap();
    disk.remove("b").unwrap();
    file.allocate(2048, 1024).unwrap();
}

#[test]
fn only_durable_bits_flip() {
    let (disk, file) = disk_with_file(1, 2);
    assert!(disk.flip_bit("a", 3));
    assert_eq!(disk.content("a").unwrap()[0], 1 ^ 8);
    file.write_at(600, &[1]).unwrap();
    assert!(!disk.flip_bit("a", 8 * 600) && !disk.flip_bit("a", 8 * 2000) && !disk.flip_bit("b", 0));
}

#[test]
fn a_lying_disk_keeps_nothing_for_sure() {
    let survivors = |seed| {
        let disk = SimDisk::new(seed);
        disk.set_lies(Lies { sync_data: true, sync_directory: true });
        let file = disk.create("a").unwrap();
        file.write_at(0, &[1; 100]).unwrap();
        file.sync_data().unwrap();
        disk.sync_directory().unwrap();
        disk.lose_power().content("a")
    };
    let all: std::collections::BTreeSet<_> = (0..100).map(survivors).collect();
    assert!(all.contains(&None) && all.contains(&Some(vec![])) && all.contains(&Some(vec![1; 100])));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let (mut disk, _) = disk_with_file(seed, 4);
        for round in 0..20 {
            let file = disk.open("a").or_else(|_| disk.create("a")).unwrap();
            file.write_at(round * 300, &[round as u8; 1000]).unwrap();
            disk.create(&format!("f{round}")).unwrap();
            disk = disk.lose_power();
        }
        disk.fingerprint()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
