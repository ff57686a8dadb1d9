//! The disk tier's traces, through foyer's and moka's memory caches and plain LRU: hit ratios for the same
//! bytes. The disk tier's own figures on these traces: `cargo bench --bench disk -- traces`.

#![allow(clippy::cast_precision_loss, reason = "ratios for people")]

#[path = "../../disk/trace.rs"]
#[allow(dead_code, reason = "the other bench's traces")]
mod trace;

use foyer_memory::{
    Cache, CacheBuilder, EvictionConfig, FifoConfig, LfuConfig, LruConfig, S3FifoConfig,
};

/// As the other bench has it.
const TILE: u64 = 8192;

fn main() {
    let accesses = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(400_000);
    for seed in [1, 2] {
        let trace = trace::viewports(accesses, seed);
        let capacity = trace::distinct(&trace) as u64 / 10 * TILE;
        let ratio = |hits: usize| hits as f64 / trace.len() as f64;
        println!("viewports {seed}, {accesses} accesses, room for 10 % of the tiles");
        println!(
            "  plain LRU       {:.4}",
            ratio(trace::lru(&trace, capacity, TILE))
        );
        println!(
            "  moka            {:.4}",
            ratio(trace::moka(&trace, capacity, TILE))
        );
        let configs: [(&str, EvictionConfig); 4] = [
            ("foyer, FIFO    ", FifoConfig::default().into()),
            ("foyer, LRU     ", LruConfig::default().into()),
            ("foyer, S3-FIFO ", S3FifoConfig::default().into()),
            ("foyer, w-LFU   ", LfuConfig::default().into()),
        ];
        for (name, config) in configs {
            println!("  {name} {:.4}", ratio(foyer(&trace, capacity, config)));
        }
    }
}

fn foyer(trace: &[u64], capacity: u64, config: EvictionConfig) -> usize {
    let cache: Cache<u64, ()> = CacheBuilder::new(usize::try_from(capacity).unwrap_or(usize::MAX))
        .with_shards(1)
        .with_eviction_config(config)
        .with_weighter(|_, ()| usize::try_from(TILE).unwrap_or(0))
        .build();
    let mut hits = 0;
    for tile in trace {
        if cache.get(tile).is_some() {
            hits += 1;
        } else {
            cache.insert(*tile, ());
        }
    }
    hits
}
