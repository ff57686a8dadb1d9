//! `[events]`: where changes in buckets are told.

use super::aws::endpoint;
use super::section::Section;
use crate::aws::events::QueueUrl;

/// The queue of S3's event notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsConfig {
    /// The queue.
    pub queue: QueueUrl,
    /// Another server than the one in its URL.
    pub endpoint_url: Option<String>,
}

impl EventsConfig {
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let queue = section.read("sqs_queue_url", |item| {
            let url = item.word()?;
            match QueueUrl::parse(&url) {
                Some(queue) => Some(queue),
                None => item.refuse(
                    "is not the URL of an SQS queue",
                    "write it like \"https://sqs.eu-west-1.amazonaws.com/123456789012/tiles\": \
                     aws sqs get-queue-url --queue-name NAME prints it",
                ),
            }
        });
        let endpoint_url = section.read("sqs_endpoint_url", endpoint);
        if !section.is_empty() && !section.has("sqs_queue_url") {
            section.refuse(
                "sqs_queue_url",
                "is missing",
                "name the queue that the bucket's notifications go to, or remove the section",
            );
        }
        Some(Self {
            queue: queue?,
            endpoint_url,
        })
    }
}
