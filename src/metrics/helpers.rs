//! What is counted of the helpers that hand out AWS's own access.

use super::{CounterBy, Registry, SignOutcome, VendOutcome};

/// Their counters.
#[derive(Debug)]
pub struct HelperMetrics {
    /// Wishes for signed URLs, redirects' too.
    pub signed: CounterBy<SignOutcome>,
    /// Wishes for credentials.
    pub vended: CounterBy<VendOutcome>,
}

impl HelperMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            signed: CounterBy::new(
                registry,
                "tilekeep_signed_urls_total",
                "Wishes for signed URLs, those of redirects too, by how they ended.",
                "outcome",
            ),
            vended: CounterBy::new(
                registry,
                "tilekeep_lent_credentials_total",
                "Wishes for AWS credentials of one's own, by how they ended.",
                "outcome",
            ),
        }
    }
}
