//! A part of an object: for archives, whose tiles are ranges.
//!
//! Invariant: the bytes are exactly those that were asked for, of exactly the object that was: `If-Match`
//! is sent, and what comes back is compared as well, so that a server that ignores `Range` or a condition
//! is found out and not believed.
//!
//! Checksums: those that S3 keeps are the whole object's, of which a part says nothing, and there are
//! servers that send them with a part nevertheless. They are not asked for.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;

use super::answer::{self, Failure, Said};
use super::{Attempt, Get, Progress, S3Origin, body, last_modified};
use crate::origin::pmtiles::{Part, RangeFuture, RangeReply, RangeRequest, RangeSource};
use crate::origin::{OriginError, OriginErrorKind, OriginValidator};

impl RangeSource for S3Origin {
    fn read(&self, request: RangeRequest) -> RangeFuture<'_> {
        Box::pin(async move {
            let get = Get {
                client: &self.clients_of(request.tileset.name()).part,
                bucket: &request.tileset.place().bucket,
                key: request.key,
                validator: request.unless.as_ref(),
                only: request.only.as_ref(),
                max_object: request.range.end - request.range.start,
                range: Some(request.range),
                progress: Progress::default(),
            };
            self.in_time(&PartOf(get), request.deadline).await
        })
    }
}

/// A part of the object.
struct PartOf<'a>(Get<'a>);

impl Attempt for PartOf<'_> {
    type Reply = RangeReply;

    fn get(&self) -> &Get<'_> {
        &self.0
    }

    fn once(&self) -> impl Future<Output = Result<RangeReply, Failure>> + Send {
        self.0.part()
    }
}

impl Get<'_> {
    async fn part(&self) -> Result<RangeReply, Failure> {
        self.progress.begin();
        let range = self.range.clone().unwrap_or_default();
        let sent = self
            .client
            .get_object()
            .bucket(self.bucket)
            .key(&self.key)
            .range(format!("bytes={}-{}", range.start, range.end - 1))
            .set_if_match(self.only.map(ToString::to_string))
            .set_if_none_match(self.validator.map(ToString::to_string))
            .send()
            .await;
        match sent {
            Ok(output) => self.read_part(output, &range).await,
            Err(error) => match answer::translate(&error, self)? {
                Said::NotModified => Ok(RangeReply::NotModified),
                Said::Changed => Ok(RangeReply::Changed),
                Said::NotFound => Ok(RangeReply::NotFound),
            },
        }
    }

    async fn read_part(
        &self,
        output: GetObjectOutput,
        asked: &Range<u64>,
    ) -> Result<RangeReply, Failure> {
        let validator = output.e_tag().and_then(OriginValidator::new);
        let validator = validator.ok_or_else(|| self.no_etag())?;
        if self.only.is_some_and(|only| *only != validator) {
            return Ok(RangeReply::Changed);
        }
        let wrong = |said: &str| {
            let detail = format!("{self}: {said}");
            Failure::for_good(OriginError::new(OriginErrorKind::Server, detail))
        };
        let Some((sent, size)) = output.content_range().and_then(content_range) else {
            return Err(wrong(
                "the whole object came, or no `Content-Range`: archives need a server that answers ranges",
            ));
        };
        // An object may end within what was asked for.
        let expected = asked.start..asked.end.min(size);
        if sent != expected {
            return Err(wrong("another range came than was asked for"));
        }
        let last_modified = last_modified(&output);
        let promised = Some(sent.end - sent.start);
        if output.content_length().and_then(|n| u64::try_from(n).ok()) != promised {
            return Err(wrong("`Content-Length` and `Content-Range` do not agree"));
        }
        let body = body::read(output.body, promised, self.max_object, self).await?;
        Ok(RangeReply::Part(Part {
            body,
            validator,
            last_modified,
            size,
        }))
    }
}

/// `bytes 0-126/70000` (RFC 9110 §14.4).
fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let size: u64 = size.trim().parse().ok()?;
    (first <= last && last < size).then_some((first..last + 1, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_read_or_refused() {
        assert_eq!(content_range("bytes 0-126/70000"), Some((0..127, 70_000)));
        for wrong in ["bytes 0-126/*", "bytes 5-4/9", "bytes 0-9/9", "0-1/2", ""] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }
}
