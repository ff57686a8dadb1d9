use super::*;
use crate::tile::{KeySpace, Scale, TileCoord, TileKey};

fn number(number: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(number)
}

fn class(name: &str, per_second: u32, tiles: u32) -> QuotaClass {
    QuotaClass {
        name: name.to_owned(),
        requests_per_second: number(per_second),
        burst: None,
        distinct_tiles_per_hour: number(tiles),
        background: false,
    }
}

fn quotas() -> Quotas {
    let classes = vec![class("viewer", 10, 100), class("free", 0, 0)];
    Quotas::with_key(classes, [7; 16])
}

fn tile(x: u32) -> TileKey {
    let coord = TileCoord::new(20, x, 0).unwrap();
    TileKey::new(KeySpace::new("world", None), coord, Scale::One)
}

fn at(seconds: u64) -> Uptime {
    Uptime::from_secs(seconds)
}

/// How many new tiles this person gets.
fn passed(spender: &Spender, from: u32, now: Uptime) -> usize {
    let new = (from..from + 1_000).filter(|x| spender.spend_tile(tile(*x), now).is_ok());
    new.count()
}

fn limited(quotas: &Quotas, sub: &str) -> Arc<Spender> {
    quotas.spender(sub, None).unwrap().unwrap()
}

#[test]
fn a_session_without_a_class_has_the_first_and_an_unknown_one_none() {
    let quotas = quotas();
    assert_eq!(limited(&quotas, "ada").class(), "viewer");
    let named = quotas.spender("ada", Some("viewer")).unwrap().unwrap();
    assert!(Arc::ptr_eq(&named, &limited(&quotas, "ada")));
    assert!(quotas.spender("ada", Some("free")).unwrap().is_none());
    let refused = quotas.spender("ada", Some("vip")).unwrap_err();
    assert_eq!(refused, AuthError::UnknownQuota);
    assert!(
        Quotas::none()
            .spender("ada", Some("vip"))
            .unwrap()
            .is_none()
    );
    assert!(Quotas::none().spender("ada", None).unwrap().is_none());
}

#[test]
fn a_person_spends_one_budget_and_nobody_elses() {
    let quotas = quotas();
    assert_eq!(passed(&limited(&quotas, "ada"), 0, at(1)), 100);
    assert_eq!(passed(&limited(&quotas, "ada"), 5_000, at(1)), 0);
    let over = limited(&quotas, "ada")
        .spend_tile(tile(5_000), at(1))
        .unwrap_err();
    assert_eq!(over.limit, QuotaLimit::DistinctTiles);
    assert!(over.seen_are_served);
    assert_eq!(over.retry_after, Duration::from_secs(3_659));
    assert_eq!(passed(&limited(&quotas, "bob"), 0, at(1)), 100);
    assert_eq!(limited(&quotas, "ada").tiles_left(at(1)), Some(0));
    assert_eq!(limited(&quotas, "ada").tiles_left(at(3_660)), Some(100));
}

#[test]
fn a_class_without_a_burst_takes_five_seconds_worth_at_once() {
    let quotas = quotas();
    let ada = limited(&quotas, "ada");
    let passed = (0..100)
        .filter(|_| ada.spend_request(at(1)).is_ok())
        .count();
    assert_eq!(passed, 50);
    let over = ada.spend_request(at(1)).unwrap_err();
    assert_eq!(
        (over.limit, over.retry_after),
        (QuotaLimit::Rate, Duration::from_millis(100))
    );
}

#[test]
fn nobody_is_forgotten_while_anything_counts() {
    let quotas = quotas();
    passed(&limited(&quotas, "ada"), 0, at(1));
    limited(&quotas, "bob").spend_request(at(1)).unwrap();
    limited(&quotas, "eve");
    let held = limited(&quotas, "held");
    assert_eq!(quotas.people(), 4);
    quotas.sweep(at(2));
    assert_eq!(quotas.people(), 3, "eve has spent nothing");
    quotas.sweep(at(7));
    assert_eq!(quotas.people(), 2, "bob's bucket is full again");
    quotas.sweep(at(3_659));
    assert_eq!(passed(&limited(&quotas, "ada"), 5_000, at(3_659)), 0);
    quotas.sweep(at(3_660));
    assert_eq!(quotas.people(), 1);
    assert_eq!(quotas.table_bytes(), 0);
    drop(held);
    quotas.sweep(at(3_660));
    assert_eq!((quotas.people(), quotas.forgotten()), (0, 0));
}

#[test]
fn a_full_table_forgets_those_with_the_least_first_and_says_so() {
    let quotas = Quotas {
        people_of_a_shard: 40,
        ..quotas()
    };
    let held = limited(&quotas, "held");
    assert_eq!(passed(&held, 0, at(1)), 100);
    assert_eq!(passed(&limited(&quotas, "scraper"), 0, at(1)), 100);
    for n in 0..5_000 {
        let spender = limited(&quotas, &format!("person {n}"));
        spender.spend_tile(tile(n), at(1)).unwrap();
    }
    assert!(quotas.people() <= 40 * SHARDS, "{}", quotas.people());
    assert!(quotas.forgotten() >= 5_000 - 40 * SHARDS as u64);
    for (name, from) in [("held", 2_000), ("scraper", 2_000)] {
        assert_eq!(passed(&limited(&quotas, name), from, at(1)), 0, "{name}");
    }
    assert!(Arc::ptr_eq(&held, &limited(&quotas, "held")));
}

#[test]
fn refusals_are_told_once_a_minute_with_their_number() {
    let quotas = quotas();
    let ada = limited(&quotas, "ada");
    assert_eq!(ada.tell_refusals(at(10)), Some(1));
    for _ in 0..500 {
        assert_eq!(ada.tell_refusals(at(69)), None);
    }
    assert_eq!(limited(&quotas, "bob").tell_refusals(at(69)), Some(1));
    assert_eq!(ada.tell_refusals(at(70)), Some(501));
}

#[test]
fn another_key_is_another_sample_and_persons_differ_too() {
    let wide = |key, sub: &str| {
        let quotas = Quotas::with_key(vec![class("batch", 0, 10_000_000)], key);
        let spender = limited(&quotas, sub);
        for x in 0..20_000 {
            spender.spend_tile(tile(x), at(1)).unwrap();
        }
        spender.tiles_left(at(1)).unwrap()
    };
    let counts = [
        wide([1; 16], "ada"),
        wide([2; 16], "ada"),
        wide([1; 16], "bob"),
    ];
    assert_eq!(counts[0], wide([1; 16], "ada"), "repeatable");
    assert!(
        counts[0] != counts[1] && counts[0] != counts[2],
        "{counts:?}"
    );
}
