//! What a plan will cost, from a sample of its tiles.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use serde::Serialize;

use super::outcome::{Done, Verdict, judge};
use super::pace::Chance;
use super::plan::Plan;
use super::pool::{ANSWER, Pool};
use crate::client::ClientError;

/// What a plan comes to, as far as a sample tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// Tiles that were asked for; those that the server did not have, it has now.
    pub sampled: u64,
    /// Of these, those that there are not.
    pub absent: u64,
    /// Of these, those that the server had.
    pub stored: u64,
    /// Of these, those that could not be had: they count for nothing else.
    pub failed: u64,
    /// Bytes of the whole plan's bodies.
    pub bytes: f64,
    /// By how much that may be wrong either way (95 of 100 samples are within it).
    pub bytes_error: f64,
    /// Requests to S3 for the whole plan: what the server does not have, absent tiles too.
    pub s3_requests: f64,
    /// What they cost.
    pub s3_cost_usd: f64,
}

/// Asks for so many tiles of a plan, spread evenly by chance, one after the other, and counts on from them. `price`: in US
/// dollars for 1000 GET requests.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
pub async fn estimate(
    pool: &Pool,
    plan: &Plan,
    sample: u32,
    price: f64,
    seed: u64,
) -> Result<Estimate, ClientError> {
    let total = plan.total();
    let mut chance = Chance::new(seed);
    let mut numbers: Vec<u64> = if u64::from(sample) >= total {
        (0..total).collect()
    } else {
        (0..sample).map(|_| chance.below(total)).collect()
    };
    numbers.sort_unstable();
    numbers.dedup();
    let mut estimate = Estimate::default();
    let mut sizes = Vec::new();
    let mut walk = plan.walk();
    let mut headers = HeaderMap::new();
    headers.insert(
        ACCEPT_ENCODING,
        http::HeaderValue::from_static("gzip, br, zstd"),
    );
    for number in numbers {
        walk.seek(number);
        let Some(job) = walk.next() else { break };
        let mut connection = pool.take(0).await?;
        let path = job.leg.tileset.path(job.coord);
        let answer = connection
            .get(&path, &pool.credential(), &headers, ANSWER)
            .await?;
        let verdict = judge(answer.status, &answer.headers);
        let bytes = answer.discard().await?;
        pool.give_back(0, connection).await;
        estimate.sampled += 1;
        match verdict {
            Verdict::Done(done) => {
                match done {
                    Done::Absent => estimate.absent += 1,
                    Done::Stored { .. } => estimate.stored += 1,
                    _ => {}
                }
                sizes.push(if done == Done::Absent {
                    0.0
                } else {
                    bytes as f64
                });
            }
            _ => estimate.failed += 1,
        }
    }
    let tiles = total as f64;
    let (mean, error) = mean_and_error(&sizes);
    estimate.bytes = mean * tiles;
    estimate.bytes_error = if total == estimate.sampled {
        0.0
    } else {
        error * tiles
    };
    let asked = sizes.len().max(1) as f64;
    estimate.s3_requests = (1.0 - estimate.stored as f64 / asked) * tiles;
    estimate.s3_cost_usd = estimate.s3_requests / 1000.0 * price;
    Ok(estimate)
}

/// The mean and how far off it may be: 1.96 standard errors.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt();
    (mean, 1.96 * deviation / count.sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_of_equal_tiles_leaves_no_doubt() {
        assert_eq!(mean_and_error(&[]), (0.0, 0.0));
        assert_eq!(mean_and_error(&[5.0; 10]), (5.0, 0.0));
        let (mean, error) = mean_and_error(&[0.0, 10.0]);
        assert!((mean - 5.0).abs() < 1e-9 && error > 5.0);
    }
}
