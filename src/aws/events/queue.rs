//! Which queue: its URL, what that says of region, account and name, and a client for it.

use aws_config::Region;
use aws_credential_types::provider::SharedCredentialsProvider;
use serde_json::json;

use crate::aws::{Aws, AwsError, Kept};

/// The URL of a queue, as SQS gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueUrl {
    url: String,
    endpoint: String,
    host: String,
    account: String,
    name: String,
}

impl QueueUrl {
    /// Reads `https://sqs.REGION.amazonaws.com/ACCOUNT/NAME`, or that of a server that speaks SQS's API. `None` for
    /// what is no such URL.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, path) = rest.split_once('/')?;
        let (before, name) = path.rsplit_once('/')?;
        let account = before.rsplit('/').next()?;
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, port)| {
                let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
                if digits { host } else { authority }
            });
        let word = |text: &str, signs: &[u8]| {
            let is = |b: u8| b.is_ascii_alphanumeric() || signs.contains(&b);
            !text.is_empty() && text.bytes().all(is)
        };
        let sound = matches!(scheme, "http" | "https")
            && word(authority, b".-:[]")
            && before
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"/-_.".contains(&b))
            && word(account, b"-_.")
            && word(name, b"-_.")
            && name.len() <= 80
            && url.len() <= 1024;
        sound.then(|| Self {
            url: url.to_owned(),
            endpoint: format!("{scheme}://{authority}"),
            host: host.to_owned(),
            account: account.to_owned(),
            name: name.to_owned(),
        })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Where it is, by its own word.
    fn region(&self) -> Option<&str> {
        if !self.is_of_aws() {
            return None;
        }
        let mut labels = self.host.split('.');
        labels.find(|label| {
            let (last, parts) = (
                label.rsplit('-').next().unwrap_or(""),
                label.split('-').count(),
            );
            parts >= 3 && last.bytes().all(|b| b.is_ascii_digit()) && !last.is_empty()
        })
    }

    fn is_of_aws(&self) -> bool {
        self.host.ends_with(".amazonaws.com") || self.host.ends_with(".amazonaws.com.cn")
    }

    /// What a role's session may do with it, where the role is assumed for nothing else.
    fn session_policy(&self, partition: &str, region: &str) -> String {
        let (account, name) = (&self.account, &self.name);
        let mut statements = vec![json!({
            "Sid": "ReadEvents",
            "Effect": "Allow",
            "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage"],
            "Resource": format!("arn:{partition}:sqs:{region}:{account}:{name}"),
        })];
        if self.is_of_aws() {
            // A session policy is an intersection: without it a queue under SSE-KMS could not be read.
            statements.push(json!({
                "Sid": "DecryptThroughSqs",
                "Effect": "Allow",
                "Action": "kms:Decrypt",
                "Resource": "*",
                "Condition": { "StringLike": { "kms:ViaService": "sqs.*.amazonaws.com*" } },
            }));
        }
        json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
    }
}

impl Aws {
    /// A client for this queue, and whose keys sign: the role's for all, in a session of its own that may read the
    /// queue and nothing else, or the first credentials. The endpoint is the queue's own server unless another is given.
    pub(super) fn queue_client(
        &self,
        queue: &QueueUrl,
        endpoint: Option<&str>,
    ) -> Result<(aws_sdk_sqs::Client, Kept), AwsError> {
        let region = queue.region().unwrap_or(self.region()).to_owned();
        let keys = match &self.settings.assume_role {
            Some(role) => {
                let partition = role.arn.split(':').nth(1).unwrap_or("aws");
                let policy = queue.session_policy(partition, &region);
                self.assume_with(role, Some(policy))?
            }
            None => self.keys.clone(),
        };
        // As for S3: what fails is repeated by us, who know what is at stake.
        let config = aws_sdk_sqs::config::Builder::from(&self.base)
            .region(Region::new(region))
            .endpoint_url(endpoint.unwrap_or(&queue.endpoint))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .stalled_stream_protection(
                aws_config::stalled_stream_protection::StalledStreamProtectionConfig::disabled(),
            )
            .credentials_provider(SharedCredentialsProvider::new(keys.clone()));
        Ok((aws_sdk_sqs::Client::from_conf(config.build()), keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queues_url_says_where_it_is() {
        for (url, endpoint, region, name) in [
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/tiles",
                "https://sqs.eu-west-1.amazonaws.com",
                Some("eu-west-1"),
                "tiles",
            ),
            (
                "https://vpce-0a1-b2.sqs.us-gov-east-1.vpce.amazonaws.com/1/t.fifo",
                "https://vpce-0a1-b2.sqs.us-gov-east-1.vpce.amazonaws.com",
                Some("us-gov-east-1"),
                "t.fifo",
            ),
            (
                "https://sqs.cn-north-1.amazonaws.com.cn/1/t",
                "https://sqs.cn-north-1.amazonaws.com.cn",
                Some("cn-north-1"),
                "t",
            ),
            (
                "http://127.0.0.1:9324/000000000000/t",
                "http://127.0.0.1:9324",
                None,
                "t",
            ),
            (
                "http://localhost:4566/queue/us-east-1/000000000000/t",
                "http://localhost:4566",
                None,
                "t",
            ),
        ] {
            let queue = QueueUrl::parse(url).unwrap();
            assert_eq!((queue.as_str(), queue.endpoint.as_str()), (url, endpoint));
            assert_eq!((queue.region(), queue.name.as_str()), (region, name));
        }
        let queue = QueueUrl::parse("https://sqs.eu-west-1.amazonaws.com/123/tiles").unwrap();
        let policy = queue.session_policy("aws", "eu-west-1");
        assert!(policy.contains("\"arn:aws:sqs:eu-west-1:123:tiles\""));
        assert!(policy.contains("kms:Decrypt"));
    }

    #[test]
    fn what_is_no_queues_url_is_refused() {
        for url in [
            "",
            "tiles",
            "arn:aws:sqs:eu-west-1:123:tiles",
            "https://sqs.eu-west-1.amazonaws.com",
            "https://sqs.eu-west-1.amazonaws.com/",
            "https://sqs.eu-west-1.amazonaws.com/tiles",
            "https://user:pw@host/1/tiles",
            "ftp://host/1/tiles",
            "https://host/1/tiles?x=1",
            "https://host/1/ti les",
            "https://host/1/",
        ] {
            assert_eq!(QueueUrl::parse(url), None, "{url}");
        }
    }
}
