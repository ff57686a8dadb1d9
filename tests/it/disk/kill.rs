//! `kill -9` in a loop, while tiles are written, evicted, touched and invalidated.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use super::*;

const FOLDER: &str = "TILEKEEP_TEST_DISK_FOLDER";
const ROUND: &str = "TILEKEEP_TEST_DISK_ROUND";
const KEYS: u32 = 1200;
const ROUNDS: u64 = 220;

fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

/// The tile that a key has in a generation; every tenth is a shared one.
fn truth(n: u32, generation: u64) -> Stored {
    let seed = u64::from(n).wrapping_mul(31) ^ generation;
    if generation % 10 == 3 {
        tile_of(noise(generation % 5, 4000), generation)
    } else {
        tile(n, generation, 100 + usize::try_from(seed % 9000).unwrap())
    }
}

/// Not a test of its own: the role of the child, which is killed. Each operation that has returned
/// is told on stdout: eight bytes, key, and generation, whose top bit says 'invalidated'.
#[test]
fn a_child_that_writes_until_it_is_killed() {
    let (Ok(folder), Ok(round)) = (std::env::var(FOLDER), std::env::var(ROUND)) else {
        return;
    };
    let round: u64 = round.parse().unwrap();
    let tier = DiskTier::open(settings(Path::new(&folder), SMALL)).unwrap();
    let mut out = std::io::stdout().lock();
    let mut state = round;
    for nth in 0..100_000 {
        let generation = round * 100_000 + nth;
        let n = u32::try_from(random(&mut state)).unwrap() % KEYS;
        let mut told = generation << 16 | u64::from(n);
        match random(&mut state) % 8 {
            0 => {
                tier.invalidate(&key(n));
                told |= 1 << 63;
            }
            1 => drop(get(&tier, &key(n))),
            2 => {
                let hot = key(n % 20);
                drop(get(&tier, &hot));
                tier.put(key(n), truth(n, generation));
            }
            _ => drop(tier.put(key(n), truth(n, generation))),
        }
        out.write_all(&told.to_le_bytes()).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn after_every_kill_nine_each_tile_served_is_the_true_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut invalidated: BTreeMap<u32, u64> = BTreeMap::new();
    let mut state = 7;
    let (mut served, mut retired, mut scanned) = (0, 0, 0);
    // On a busy machine a child may be killed before anything of it is on the disk: then there are more of them.
    for round in 1..=2 * ROUNDS {
        if round > ROUNDS && scanned > ROUNDS / 2 {
            break;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "disk::kill::a_child_that_writes_until_it_is_killed",
            ])
            .args(["--nocapture", "--quiet"])
            .env(FOLDER, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A moment is a number of operations: from none to some segments full.
        let mut heard = child.stdout.take().unwrap();
        let operations = random(&mut state) % 400 * (random(&mut state) % 2 + 1);
        let mut told = vec![0; 16 + usize::try_from(operations).unwrap() * 8];
        heard.read_exact(&mut told).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        heard.read_to_end(&mut told).unwrap();
        // The test harness has said something before the child did.
        let start = told.windows(4).position(|w| w == b"test").unwrap_or(0);
        let start = told[start..]
            .iter()
            .position(|&b| b == b'\n')
            .map_or(0, |at| start + at + 1);
        for word in told[start..].chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().unwrap());
            if word >> 63 == 1 {
                let n = u32::try_from(word & 0xffff).unwrap();
                assert!(n < KEYS, "not what a child says");
                invalidated.insert(n, (word & !(1 << 63)) >> 16);
            }
        }
        let tier = open(dir.path(), SMALL);
        for n in 0..KEYS {
            let Some(found) = get(&tier, &key(n)) else {
                continue;
            };
            let Stored::Tile(mut found) = found else {
                panic!("key {n} was never absent");
            };
            let generation = found.last_modified.unwrap() - 1_700_000_000;
            if found.validated_at == Timestamp::default() {
                // A newer one was not taken, so this one was known to be outdated.
                found.validated_at = Timestamp::from_millis(generation);
            }
            let right = Stored::Tile(found) == truth(n, generation);
            assert!(right, "key {n}, generation {generation}, in round {round}");
            let dead = invalidated.get(&n).copied().unwrap_or(0);
            assert!(generation > dead, "key {n} rose again in round {round}");
            served += 1;
        }
        let figures = tier.stats();
        assert!(figures.used_bytes <= SMALL && capacity::on_disk(dir.path()) <= SMALL);
        assert_eq!(figures.corrupt.iter().sum::<u64>(), 0, "{figures:?}");
        assert_eq!(figures.ledger_losses, 0);
        retired += figures.segments_retired;
        scanned += figures.segments_scanned;
    }
    assert!(served > 100 * ROUNDS, "{served} served");
    assert!(scanned > ROUNDS / 2, "{scanned} scanned, {retired} retired");
}
