//! The disk is a liar: whatever is done to the files, never a wrong tile.

use std::os::unix::fs::FileExt;

use super::*;

fn copy(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).ok();
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 << (at % 8);
    file.write_all_at(&byte, at).unwrap();
}

/// Each key's tile or nothing, and how many there were.
fn all_true(tier: &DiskTier, all: &HashMap<TileKey, Stored>, byte: u64) -> usize {
    let found = all.iter().filter(|&(key, stored)| match get(tier, key) {
        Some(found) if found.validated_at().millis() == 0 => false, // stale: asked for again
        Some(found) => {
            assert_eq!(&found, stored, "byte {byte}");
            true
        }
        None => false,
    });
    found.count()
}

/// A folder with a segment of every kind of record, a reference and a touch among them.
fn sample(path: &Path) -> HashMap<TileKey, Stored> {
    let tier = open(path, SMALL);
    let mut all = HashMap::from([(key(0), absence(3)), (key(1), tile(1, 4, 60))]);
    let shared = noise(5, 600);
    all.insert(key(2), tile_of(shared.clone(), 6));
    all.insert(key(3), tile_of(shared, 7));
    for n in 0..4 {
        put(&tier, key(n), &all[&key(n)]);
        assert!(tier.wait_written(LONG));
    }
    put(&tier, key(9), &tile(9, 1, 100));
    tier.invalidate(&key(9));
    tier.touch(key(1), Timestamp::from_millis(4));
    close(tier);
    all
}

#[test]
fn with_any_byte_of_any_file_flipped_before_a_restart_no_wrong_tile_is_served() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = sample(good.path());
    let mut noticed = 0;
    for entry in std::fs::read_dir(good.path()).unwrap() {
        let entry = entry.unwrap();
        for at in 0..entry.metadata().unwrap().len() {
            copy(good.path(), bad.path());
            flip(&bad.path().join(entry.file_name()), at);
            let tier = open(bad.path(), SMALL);
            noticed += usize::from(all_true(&tier, &all, at) < all.len());
            assert_eq!(
                get(&tier, &key(9)).filter(|s| s.validated_at().millis() > 0),
                None
            );
        }
    }
    assert!(noticed > 800, "{noticed}");
}

#[test]
fn with_any_byte_of_a_segment_flipped_under_the_server_no_wrong_tile_is_served() {
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = sample(good.path());
    let segment = segments(good.path()).remove(0);
    let mut noticed = 0;
    for at in 0..segment.metadata().unwrap().len() {
        copy(good.path(), bad.path());
        let tier = open(bad.path(), SMALL);
        flip(&bad.path().join(segment.file_name().unwrap()), at);
        let missing = all.len() - all_true(&tier, &all, at);
        let counted = tier.stats().corrupt.iter().sum::<u64>();
        assert_eq!(
            missing > 0,
            counted > 0,
            "byte {at}: {missing} missing, {counted} counted"
        );
        noticed += missing;
        // Put again, it is there again.
        for (key, stored) in &all {
            put(&tier, *key, stored);
        }
        assert!(tier.wait_written(LONG));
        assert_eq!(all_true(&tier, &all, at), all.len());
    }
    assert!(noticed > 800, "{noticed}");
}

fn filled(path: &Path) -> HashMap<TileKey, Stored> {
    let tier = open(path, SMALL);
    let all: HashMap<_, _> = (0..300).map(|n| (key(n), tile(n, 1, 5000))).collect();
    for n in 0..300 {
        put(&tier, key(n), &all[&key(n)]);
    }
    close(tier);
    assert!(segments(path).len() > 5);
    all
}

#[test]
fn segments_truncated_zeroed_or_deleted_under_the_server_are_misses_with_counters() {
    let dir = tempfile::tempdir().unwrap();
    let all = filled(dir.path());
    let tier = open(dir.path(), SMALL);
    let files = segments(dir.path());
    let resize = |path: &Path, len| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(len).unwrap();
    };
    resize(&files[0], 40_000);
    resize(&files[1], 0);
    let len = files[2].metadata().unwrap().len();
    resize(&files[2], 0);
    resize(&files[2], len);
    std::fs::remove_file(&files[3]).unwrap();
    let found = all_true(&tier, &all, 0);
    assert!((100..200).contains(&found), "{found}");
    let stats = tier.stats();
    let damaged = stats.corrupt.iter().sum::<u64>();
    assert_eq!(damaged, 300 - found as u64, "{stats:?}");
    // And the server goes on, through the retirement of all of them.
    for n in 300..2000 {
        put(&tier, key(n), &tile(n, 1, 5000));
    }
    assert!(tier.wait_written(LONG));
    assert_eq!(get(&tier, &key(1999)), Some(tile(1999, 1, 5000)));
    drop(tier);
    all_true(&open(dir.path(), SMALL), &all, 0);
}

#[test]
fn segments_swapped_are_not_believed_live_or_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let tier = open(dir.path(), SMALL);
    // The same keys at the same offsets with the same lengths, in two generations.
    for generation in 1..3 {
        for n in 0..50 {
            put(&tier, key(n), &tile(n, generation, 5000));
        }
        assert!(tier.wait_written(LONG));
    }
    close(tier);
    let files = segments(dir.path());
    let tier = open(dir.path(), SMALL);
    let (a, b) = (
        std::fs::read(&files[0]).unwrap(),
        std::fs::read(&files[1]).unwrap(),
    );
    std::fs::write(&files[0], &b).unwrap();
    std::fs::write(&files[1], &a).unwrap();
    for n in 0..50 {
        let found = get(&tier, &key(n));
        assert!(found.is_none() || found == Some(tile(n, 2, 5000)));
    }
    assert!(tier.stats().corrupt.iter().sum::<u64>() > 40);
    drop(tier);
    let tier = open(dir.path(), SMALL);
    assert_eq!(tier.stats().segments_discarded, 2);
    assert!((0..50).all(|n| get(&tier, &key(n)).is_none_or(|found| found == tile(n, 2, 5000))));
}

#[test]
fn a_folder_of_another_format_is_discarded_and_foreign_files_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let all = filled(dir.path());
    let foreign = [
        "segment-1.txt",
        "notes",
        "segment-0000000000000001.tilekeep.bak",
    ];
    for name in foreign {
        std::fs::write(dir.path().join(name), "mine").unwrap();
    }
    for file in segments(dir.path()) {
        if file.to_string_lossy().ends_with(".tilekeep") {
            let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
            file.write_all_at(&[0], 4).unwrap();
        }
    }
    let tier = open(dir.path(), SMALL);
    let stats = tier.stats();
    assert!(stats.segments_discarded > 5 && stats.entries == 0 && stats.segments == 0);
    assert_eq!(all_true(&tier, &all, 0), 0);
    for name in foreign {
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), b"mine");
    }
    put(&tier, key(1), &all[&key(1)]);
    assert!(tier.wait_written(LONG));
    assert_eq!(get(&tier, &key(1)).as_ref(), Some(&all[&key(1)]));
}

#[test]
fn without_its_ledger_everything_is_stale_and_nothing_lost() {
    let dir = tempfile::tempdir().unwrap();
    let all = filled(dir.path());
    std::fs::remove_file(dir.path().join("ledger.tilekeep")).unwrap();
    for _ in 0..2 {
        let tier = open(dir.path(), SMALL);
        for key in all.keys() {
            assert_eq!(
                get(&tier, key).unwrap().validated_at(),
                Timestamp::default()
            );
        }
    }
    let tier = open(dir.path(), SMALL);
    assert_eq!(tier.stats().ledger_losses, 0);
    tier.touch(key(5), Timestamp::from_millis(99));
    assert!(tier.wait_written(LONG));
    drop(tier);
    let tier = open(dir.path(), SMALL);
    let at = |n| get(&tier, &key(n)).unwrap().validated_at().millis();
    assert_eq!((at(5), at(6)), (99, 0));
}
