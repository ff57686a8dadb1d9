//! Buckets: whether they are there, in this region, for these keys; and what follows of them.

use std::collections::HashMap;

use aws_sdk_s3::Client;

use super::ask::{Ear, Heard, Site, Trouble};
use super::denial::{common, is_wrong_region};
use super::role::Reader;
use super::tile::TileLook;
use super::{Check, Finding, Report, all, cut_off, missing, privacy, tile};

/// What a bucket says to somebody without keys.
#[derive(Debug, Clone)]
pub(super) struct Unsigned {
    pub(super) bucket: String,
    /// Whether it let itself be listed.
    pub(super) listed: Result<(), Trouble>,
    pub(super) heard: Heard,
}

impl Unsigned {
    fn answered(&self) -> bool {
        let trouble = self.listed.as_ref().err();
        trouble.is_none_or(|trouble| trouble.refusal().is_some())
    }
}

/// Asks every bucket without a signature: that takes no keys, and tells the way to S3, its time, and
/// whether anybody may list.
pub(super) async fn ask_unsigned(site: &Site) -> Vec<Unsigned> {
    let client = site.s3(None);
    let questions = site.buckets().into_iter().map(|bucket| {
        let (client, clock) = (client.clone(), site.clock.clone());
        async move {
            let ear = Ear::new(clock);
            let call = format!("ListObjectsV2 s3://{bucket}, unsigned");
            let list = client.list_objects_v2().bucket(&bucket).max_keys(1);
            let sent = list.customize().interceptor(ear.clone()).send().await;
            Unsigned {
                bucket,
                listed: sent.map(|_| ()).map_err(|error| Trouble::of(call, &error)),
                heard: ear.heard(),
            }
        }
    });
    let answers = all(site.until, questions.collect()).await;
    answers.into_iter().flatten().collect()
}

/// Whether anybody answers where S3 should be.
pub(super) fn endpoint(site: &Site, unsigned: &[Unsigned]) -> Finding {
    let place = match &site.settings.endpoint_url {
        Some(url) => url.clone(),
        None => format!("AWS, {}", site.region()),
    };
    if unsigned.iter().any(Unsigned::answered) {
        return Finding::ok(Check::Endpoint, format!("S3 at {place} answers"));
    }
    let trouble = unsigned
        .iter()
        .find_map(|answer| answer.listed.as_ref().err());
    let Some(trouble) = trouble else {
        return cut_off(Check::Endpoint, &place);
    };
    Finding::failed(
        Check::Endpoint,
        trouble.to_string(),
        common(site, trouble, ""),
    )
}

/// A bucket as one reader finds it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) bucket: String,
    /// The reader's number.
    pub(super) reader: usize,
    /// Whether listing works; else why it is denied. `Err`: what its tiles wait for.
    pub(super) listing: Result<Result<(), Trouble>, Check>,
    finding: Finding,
}

/// Buckets, their privacy, their tiles.
pub(super) async fn findings(
    site: &Site,
    readers: &[Reader],
    unsigned: &[Unsigned],
    report: &mut Report<impl FnMut(&Finding)>,
) {
    let unreachable = !unsigned.iter().any(Unsigned::answered);
    let seen = look(site, readers, unreachable).await;
    for seen in &seen {
        report.add(seen.finding.clone()).ok();
    }
    let looks = tile::look(site, readers, &seen).await;
    let missing = missing::look(site, readers, &seen, &looks).await;
    let examples = examples(site, &looks);
    let privacy = privacy::look(site, readers, &seen, unsigned, &examples).await;
    for (private, _) in &privacy {
        report.add(private.clone()).ok();
    }
    for (_, block) in privacy {
        report.add(block).ok();
    }
    for look in looks {
        report.add(look.finding).ok();
    }
    for finding in missing {
        report.add(finding).ok();
    }
}

/// A tile that is there, of each bucket that has one.
fn examples(site: &Site, looks: &[TileLook]) -> HashMap<String, String> {
    let mut examples = HashMap::new();
    for ((tileset, _), look) in site.tilesets.iter().zip(looks) {
        if let Some(key) = &look.there {
            let bucket = tileset.place().bucket.clone();
            examples.entry(bucket).or_insert_with(|| key.clone());
        }
    }
    examples
}

/// Each bucket with each of its readers, once.
async fn look(site: &Site, readers: &[Reader], unreachable: bool) -> Vec<Seen> {
    let mut pairs: Vec<(usize, String, String)> = Vec::new();
    for (number, reader) in readers.iter().enumerate() {
        for tileset in &reader.tilesets {
            let place = site.tilesets[*tileset].0.place();
            let known = |(n, b, _): &(usize, String, String)| (*n, b) == (number, &place.bucket);
            if !pairs.iter().any(known) {
                let prefix = place.key.fixed_prefix().to_owned();
                pairs.push((number, place.bucket.clone(), prefix));
            }
        }
    }
    let waits = |number: &usize| match &readers[*number].s3 {
        _ if unreachable => Some(Check::Endpoint),
        Ok(_) => None,
        Err(on) => Some(*on),
    };
    let questions = pairs.iter().filter_map(|(number, bucket, prefix)| {
        if waits(number).is_some() {
            return None;
        }
        let client = readers[*number].s3.clone().ok()?;
        Some(list_one(client, bucket.clone(), prefix.clone()))
    });
    let mut answers = all(site.until, questions.collect()).await.into_iter();
    let mut seen = Vec::new();
    for (number, bucket, _) in pairs {
        let about = about(readers, number, &bucket);
        let (listing, finding) = match waits(&number) {
            Some(on) => (Err(on), Finding::waits(Check::Bucket, &about, on)),
            None => match answers.next().flatten() {
                Some(answer) => judge(site, &readers[number], &about, answer),
                None => (Err(Check::Bucket), cut_off(Check::Bucket, &about)),
            },
        };
        seen.push(Seen {
            bucket,
            reader: number,
            listing,
            finding,
        });
    }
    seen
}

/// What a bucket is called in a finding: with its reader, where there are several.
pub(super) fn about(readers: &[Reader], number: usize, bucket: &str) -> String {
    if readers.len() == 1 {
        bucket.to_owned()
    } else {
        format!("{bucket}, read by {}", readers[number].who)
    }
}

async fn list_one(client: Client, bucket: String, prefix: String) -> Result<(), Trouble> {
    let call = format!("ListObjectsV2 s3://{bucket}/{prefix}");
    let list = client.list_objects_v2().bucket(bucket).max_keys(1);
    let sent = list.set_prefix((!prefix.is_empty()).then_some(prefix));
    match sent.send().await {
        Ok(_) => Ok(()),
        Err(error) => Err(Trouble::of(call, &error)),
    }
}

type Listing = Result<Result<(), Trouble>, Check>;

fn judge(
    site: &Site,
    reader: &Reader,
    about: &str,
    answer: Result<(), Trouble>,
) -> (Listing, Finding) {
    let trouble = match answer {
        Ok(()) => {
            let reason = format!("{about}: there, and may be listed");
            return (Ok(Ok(())), Finding::ok(Check::Bucket, reason));
        }
        Err(trouble) => trouble,
    };
    let is_elsewhere = trouble.refusal().is_some_and(is_wrong_region);
    let unknown = matches!(trouble.refusal(), Some(refusal) if refusal.status == 501);
    if (trouble.is_denied() || unknown) && !is_elsewhere {
        let reason = format!("{about}: there, and may not be listed (see `missing_tile`)");
        return (Ok(Err(trouble)), Finding::ok(Check::Bucket, reason));
    }
    let remedy = common(site, &trouble, reader.from);
    let finding = Finding::failed(Check::Bucket, format!("{about}: {trouble}"), remedy);
    (Err(Check::Bucket), finding)
}
