//! Working ahead: what a job wishes to stay fresh is asked about before it is stale.

use tilekeep::origin::Lane;

use super::*;

impl World {
    /// What a job gets that wishes the tile to stay fresh for so long.
    async fn refreshed(&self, n: u32, wish: u64) -> Served {
        let (wanted, now) = (self.wanted(n), self.clock.now());
        let served = self.cache.lookup(wanted, Lane::Background, now).unwrap();
        let wish = Duration::from_secs(wish);
        let refreshed = self
            .cache
            .refresh(served, wanted, Lane::Background, wish, now);
        refreshed.await.unwrap()
    }
}

#[tokio::test]
async fn what_stays_fresh_for_as_long_as_is_wished_costs_no_request() {
    let world = World::new();
    world.put(1, "one");
    world.got(1).await;
    world.pass(60);
    assert_eq!(world.refreshed(1, 40).await.status, hit(Tier::Memory, 40));
    assert_eq!(world.origin.calls(), 1);
}

#[tokio::test]
async fn what_does_not_is_asked_about_while_it_is_fresh() {
    let world = World::new();
    world.put(1, "one");
    world.got(1).await;
    world.pass(60);
    world.put(1, "another");
    let served = world.refreshed(1, 41).await;
    let status = CacheStatus::Revalidated {
        found: Revalidation::Changed,
        collapsed: false,
    };
    assert_eq!(served.status, status);
    assert_eq!(served.held.body(), b"another");
    let another = Some("another".to_owned());
    assert_eq!(world.got(1).await, (another, hit(Tier::Memory, 100)));
    assert_eq!(world.origin.calls(), 2);
}

#[tokio::test]
async fn an_absence_is_left_to_its_own_time() {
    let world = World::new();
    world.got(1).await;
    let served = world.refreshed(1, 1_000).await;
    assert!(served.held.is_absence());
    assert_eq!(world.origin.calls(), 1);
}

#[tokio::test]
async fn where_the_origin_fails_what_is_fresh_is_a_hit_and_it_has_a_pause() {
    let world = World::new();
    world.put(1, "one");
    world.got(1).await;
    world.pass(60);
    world
        .origin
        .fail_next(1, Fault::error(OriginErrorKind::Server));
    assert_eq!(world.refreshed(1, 41).await.status, hit(Tier::Memory, 40));
    assert_eq!(world.refreshed(1, 41).await.status, hit(Tier::Memory, 40));
    assert_eq!(world.origin.calls(), 2, "not asked again at once");
    assert_eq!(world.metrics.revalidation_failures.get(), 1);
}
