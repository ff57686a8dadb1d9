//! What a missing tile answers: missing, or denied.

use aws_sdk_s3::Client;

use super::ask::{Site, Trouble};
use super::bucket::{Seen, about};
use super::denial::{common, list_bucket};
use super::role::Reader;
use super::tile::TileLook;
use super::{Check, Finding, all, cut_off};

/// What nobody has in a bucket.
const NO_SUCH_KEY: &str = "tilekeep-doctor/there-is-no-such-tile";

/// What a missing tile answers, of each bucket with each of its readers.
pub(super) async fn look(
    site: &Site,
    readers: &[Reader],
    seen: &[Seen],
    looks: &[TileLook],
) -> Vec<Finding> {
    let prefix = |seen: &Seen| {
        let numbers = readers[seen.reader].tilesets.iter();
        let mut places = numbers.map(|number| (number, site.tilesets[*number].0.place()));
        // What an archive has not is not asked of S3.
        let place =
            places.find(|(_, place)| place.bucket == seen.bucket && place.key.archive().is_none());
        place.map(|(number, place)| (*number, place.key.fixed_prefix()))
    };
    let ready = |seen: &Seen| -> Result<(Client, String), Check> {
        seen.listing.as_ref().map_err(|on| *on)?;
        let (number, prefix) = prefix(seen).ok_or(Check::Bucket)?;
        // Nothing can be read: then nothing can be said of what is missing.
        let look = &looks[number];
        let unreadable = look.finding.has_failed() && look.finding.reason.contains("GetObject");
        if unreadable {
            return Err(Check::Tile);
        }
        let client = readers[seen.reader].s3.clone()?;
        Ok((client, format!("{prefix}{NO_SUCH_KEY}")))
    };
    let questions = seen.iter().filter_map(|seen| {
        let (client, key) = ready(seen).ok()?;
        let bucket = seen.bucket.clone();
        Some(async move {
            let call = format!("GetObject s3://{bucket}/{key}");
            let sent = client.get_object().bucket(bucket).key(key).send().await;
            sent.map(|_| call.clone())
                .map_err(|error| Trouble::of(call, &error))
        })
    });
    let mut answers = all(site.until, questions.collect()).await.into_iter();
    let findings = seen.iter().map(|seen| {
        let about = about(readers, seen.reader, &seen.bucket);
        if seen.listing.is_ok() && prefix(seen).is_none() {
            let why = format!("{about}: archives alone, whose missing tiles S3 is not asked for");
            return Finding::skipped(Check::MissingTile, why);
        }
        match ready(seen) {
            Err(on) => Finding::waits(Check::MissingTile, &about, on),
            Ok(_) => match answers.next().flatten() {
                Some(answer) => judge(site, &readers[seen.reader], seen, &about, answer),
                None => cut_off(Check::MissingTile, &about),
            },
        }
    });
    findings.collect()
}

fn judge(
    site: &Site,
    reader: &Reader,
    seen: &Seen,
    about: &str,
    answer: Result<String, Trouble>,
) -> Finding {
    const CHECK: Check = Check::MissingTile;
    let trouble = match answer {
        Err(trouble) => trouble,
        Ok(call) => {
            let reason = format!("{about}: {call}: 200, though there is no such object");
            let remedy = "this server answers anything: is `endpoint_url` in [aws] that of an S3 endpoint, without a web \
                          server or a page for errors in front?";
            return Finding::failed(CHECK, reason, remedy);
        }
    };
    let code = trouble.code();
    if code == "NoSuchKey" {
        return Finding::ok(
            CHECK,
            format!("{about}: a missing tile is called missing (404 NoSuchKey)"),
        );
    }
    let reason = format!("{about}: {trouble}");
    let refusal = trouble.refusal();
    if refusal.is_some_and(|refusal| refusal.status == 404) {
        let remedy = "S3 says `NoSuchKey` of a missing object; Tilekeep takes a 404 without it for a fault: is \
                      `endpoint_url` in [aws] right, path and all?";
        return Finding::failed(CHECK, reason, remedy);
    }
    if !trouble.is_denied() {
        return Finding::failed(CHECK, reason, common(site, &trouble, reader.from));
    }
    let message = refusal.map_or("", |refusal| refusal.message.as_str());
    let reason = format!("{reason}: so each missing tile is answered 502, as if it were forbidden");
    let remedy = list_bucket(site, &seen.bucket, &reader.who, message);
    let why = if matches!(seen.listing, Ok(Ok(()))) {
        "without a \"Condition\" on s3:prefix: a GetObject has no prefix, so such a condition does not hold for it"
    } else {
        "the bucket's ARN, without `/*`: without it S3 says 403, not 404, of what is missing"
    };
    Finding::failed(CHECK, reason, format!("{remedy} ({why})"))
}
