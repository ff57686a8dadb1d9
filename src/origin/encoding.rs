//! How a stored tile's bytes are encoded: by looking at them, and by what was declared where
//! looking cannot tell.

use crate::origin::ContentEncoding;

/// A `Content-Encoding` that no client could be served with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the object declares Content-Encoding `{0}`, which is none of gzip, br, zstd: upload it again without"
)]
pub(crate) struct UnknownEncoding(String);

/// gzip's magic (RFC 1952 §2.3.1).
const GZIP: &[u8] = &[0x1f, 0x8b];
/// Zstandard's magic (RFC 8878 §3.1.1).
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The encoding of a body.
///
/// No tile format starts like gzip or zstd does, so that the first bytes decide: tiles are uploaded
/// compressed without a declaration, and declared without being compressed. Brotli has no magic and
/// is believed.
pub(crate) fn detect(
    declared: Option<&str>,
    body: &[u8],
) -> Result<ContentEncoding, UnknownEncoding> {
    let mut codings = declared
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        // `aws-chunked` is how the upload travelled; some servers keep the word.
        .filter(|c| {
            !["", "identity", "aws-chunked"]
                .iter()
                .any(|no| c.eq_ignore_ascii_case(no))
        });
    let coding = codings.next().unwrap_or_default().to_ascii_lowercase();
    if codings.next().is_some() {
        return Err(unknown(declared));
    }
    match coding.as_str() {
        "br" => Ok(ContentEncoding::Brotli),
        "" | "gzip" | "x-gzip" | "zstd" if body.starts_with(GZIP) => Ok(ContentEncoding::Gzip),
        "" | "gzip" | "x-gzip" | "zstd" if body.starts_with(ZSTD) => Ok(ContentEncoding::Zstd),
        "" | "gzip" | "x-gzip" | "zstd" => Ok(ContentEncoding::Identity),
        _ => Err(unknown(declared)),
    }
}

/// For a log line: short, and nothing that could break out of it.
fn unknown(declared: Option<&str>) -> UnknownEncoding {
    let shown = declared.unwrap_or_default().chars().take(60);
    UnknownEncoding(shown.flat_map(char::escape_debug).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContentEncoding::{Brotli, Gzip, Identity, Zstd};

    const GZIPPED: &[u8] = b"\x1f\x8b\x08rest";
    const ZSTANDARD: &[u8] = b"\x28\xb5\x2f\xfdrest";
    const PNG: &[u8] = b"\x89PNG\r\n";

    #[test]
    fn the_first_bytes_decide_where_they_can() {
        for (declared, body, expected) in [
            (None, PNG, Identity),
            (None, GZIPPED, Gzip),
            (None, ZSTANDARD, Zstd),
            (None, b"".as_slice(), Identity),
            (None, b"\x1f".as_slice(), Identity),
            (Some("gzip"), GZIPPED, Gzip),
            (Some("gzip"), PNG, Identity),
            (Some("X-GZIP"), GZIPPED, Gzip),
            (Some("gzip"), ZSTANDARD, Zstd),
            (Some("zstd"), PNG, Identity),
            (Some("br"), b"\x0b\x02".as_slice(), Brotli),
            (Some("aws-chunked"), PNG, Identity),
            (Some("aws-chunked,gzip"), GZIPPED, Gzip),
            (Some("gzip, aws-chunked"), GZIPPED, Gzip),
            (Some("identity"), GZIPPED, Gzip),
            (Some(""), PNG, Identity),
        ] {
            assert_eq!(detect(declared, body), Ok(expected), "{declared:?}");
        }
    }

    #[test]
    fn an_encoding_that_nobody_knows_is_said_and_not_guessed() {
        for declared in ["compress", "gzip, gzip", "br, gzip", "deflate"] {
            let error = detect(Some(declared), PNG).unwrap_err();
            assert!(error.to_string().contains(declared), "{error}");
        }
    }

    #[test]
    fn a_declared_encoding_cannot_break_a_log_line() {
        let error = detect(Some("a\nb"), PNG).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
    }
}
