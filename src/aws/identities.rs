//! Everybody who signs, as operators see them: metrics, readiness, the wait at the start.

use std::time::Duration;

use super::keeper::{Kept, KeyStatus};
use crate::metrics::{CredentialOutcome, Label as _, Metrics};

/// Everybody who signs. Empty where tiles come from elsewhere.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// The first credentials, and whether S3 is asked with them.
    base: Option<(Kept, bool)>,
    roles: Vec<Kept>,
}

impl Identities {
    pub(super) fn new(base: Kept, base_reads: bool, roles: Vec<Kept>) -> Self {
        Self {
            base: Some((base, base_reads)),
            roles,
        }
    }

    /// Waits for the first answer of each, this long at most. False: somebody is still waiting.
    pub async fn first_answers(&self, patience: Duration) -> bool {
        let all = async {
            for keys in self.all() {
                keys.first_answer().await;
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    /// Each one's name and what its keys are worth.
    pub fn status(&self) -> Vec<(&str, KeyStatus)> {
        self.all()
            .map(|keys| (keys.name(), keys.status()))
            .collect()
    }

    /// Whether nobody who asks S3 has ever had keys: nothing can have been fetched yet.
    pub fn are_without_keys(&self) -> bool {
        let mut readers = self.readers().peekable();
        readers.peek().is_some() && readers.all(|keys| keys.status() == KeyStatus::Never)
    }

    /// Whether somebody who asks S3 cannot do so now.
    pub fn are_degraded(&self) -> bool {
        self.readers().any(|keys| !keys.status().is_usable())
    }

    /// Brings the metrics up to date.
    pub fn observe(&self, metrics: &Metrics) {
        for (name, status) in self.status() {
            metrics.credentials_expire_in(name, status.seconds());
        }
        for outcome in CredentialOutcome::ALL {
            let total = self.all().map(|keys| keys.count(*outcome)).sum();
            metrics.credential_refreshes.follow(*outcome, total);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Kept> {
        let base = self.base.iter().map(|(keys, _)| keys);
        base.chain(&self.roles)
    }

    fn readers(&self) -> impl Iterator<Item = &Kept> {
        let base = self.base.iter().filter(|(_, reads)| *reads);
        base.map(|(keys, _)| keys).chain(&self.roles)
    }
}
