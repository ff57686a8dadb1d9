//! `ListObjectsV2`: pages, prefixes and delimiters.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::{
    CommonPrefix, ETag, EncodingType, ListObjectsV2Input, ListObjectsV2Output,
    Object as ObjectEntry,
};
use s3s::{S3Result, s3_error};

use super::form::encode_key;
use super::store::Bucket;

/// One page of a listing.
pub(super) fn list(
    bucket: &Bucket,
    input: ListObjectsV2Input,
) -> std::io::Result<S3Result<ListObjectsV2Output>> {
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().filter(|d| !d.is_empty());
    let most = usize::try_from(input.max_keys.unwrap_or(1000))
        .unwrap_or(0)
        .min(1000);
    // A token is the last key or common prefix of the page before.
    let after = match &input.continuation_token {
        Some(token) => match URL_SAFE_NO_PAD.decode(token).map(String::from_utf8) {
            Ok(Ok(after)) => Some(after),
            _ => {
                return Ok(Err(s3_error!(
                    InvalidArgument,
                    "The continuation token provided is incorrect"
                )));
            }
        },
        None => input.start_after.clone(),
    };
    let url = input
        .encoding_type
        .as_ref()
        .is_some_and(|e| e.as_str() == EncodingType::URL);
    let shown = |text: &str| {
        if url {
            encode_key(text)
        } else {
            text.to_owned()
        }
    };

    let (mut contents, mut prefixes, mut last) = (Vec::new(), Vec::new(), None::<String>);
    let mut truncated = false;
    for key in bucket.keys(&prefix)? {
        let common = delimiter.as_ref().and_then(|delimiter| {
            let end = key[prefix.len()..].find(delimiter.as_str())? + delimiter.len();
            Some(key[..prefix.len() + end].to_owned())
        });
        let item = common.as_ref().unwrap_or(&key);
        if after.as_ref().is_some_and(|after| item <= after) || last.as_ref() == Some(item) {
            continue;
        }
        if contents.len() + prefixes.len() >= most {
            truncated = most > 0;
            break;
        }
        last = Some(item.clone());
        if let Some(common) = common {
            prefixes.push(CommonPrefix {
                prefix: Some(shown(&common)),
            });
        } else if let Some(object) = bucket.get(&key)? {
            contents.push(ObjectEntry {
                key: Some(shown(&key)),
                size: i64::try_from(object.body.len()).ok(),
                e_tag: Some(ETag::Strong(object.etag.clone())),
                last_modified: Some(object.last_modified.into()),
                ..ObjectEntry::default()
            });
        }
    }
    Ok(Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(shown(&prefix)),
        delimiter: delimiter.as_deref().map(shown),
        max_keys: i32::try_from(most).ok(),
        key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
        is_truncated: Some(truncated),
        next_continuation_token: last
            .filter(|_| truncated)
            .map(|last| URL_SAFE_NO_PAD.encode(last)),
        continuation_token: input.continuation_token,
        start_after: input.start_after,
        encoding_type: input.encoding_type,
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        ..ListObjectsV2Output::default()
    }))
}
