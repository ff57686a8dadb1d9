//! Content codings: which one a client takes, and how a stored tile is decoded for one that does not.

use std::io::Read;

use bytes::Bytes;
use http::header::ACCEPT_ENCODING;

use super::request_head::{Fields, text};
use crate::origin::ContentEncoding;

/// A decoded tile is never larger: what would grow beyond is a decompression bomb, not a tile.
const MAX_DECODED: u64 = 64 << 20;

/// The coding's name (RFC 9110 §8.4.1); `None` for bytes as they are.
pub fn name(encoding: ContentEncoding) -> Option<&'static str> {
    match encoding {
        ContentEncoding::Identity => None,
        ContentEncoding::Gzip => Some("gzip"),
        ContentEncoding::Brotli => Some("br"),
        ContentEncoding::Zstd => Some("zstd"),
    }
}

/// Whether the client takes this coding. A client that says nothing gets plain bytes: it is a tool
/// that would not look (RFC 9110 §12.5.3 allows either).
pub fn accepts<'r>(fields: impl Into<Fields<'r>>, coding: &str) -> bool {
    let mut any = false;
    for list in fields.into().all(&ACCEPT_ENCODING) {
        for member in text(list).unwrap_or("").split(',') {
            let (token, parameters) = member.split_once(';').unwrap_or((member, ""));
            let token = token.trim();
            let named = token.eq_ignore_ascii_case(coding)
                || (coding == "gzip" && token.eq_ignore_ascii_case("x-gzip"));
            if named {
                return !refused(parameters);
            }
            any |= token == "*" && !refused(parameters);
        }
    }
    any
}

/// Whether a member's weight is zero.
fn refused(parameters: &str) -> bool {
    parameters.split(';').any(|parameter| {
        let (name, weight) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0_f32)
    })
}

/// Why a stored tile could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not of this coding.
    #[error("the stored tile cannot be decoded: {0}")]
    Damaged(#[from] std::io::Error),
    /// More than a tile can be.
    #[error("the stored tile grows beyond {MAX_DECODED} bytes when it is decoded")]
    TooLarge,
}

/// The plain bytes of an encoded tile.
pub fn decode(encoding: ContentEncoding, body: &[u8]) -> Result<Bytes, DecodeError> {
    match encoding {
        ContentEncoding::Identity => Ok(Bytes::copy_from_slice(body)),
        ContentEncoding::Gzip => bounded(flate2::read::MultiGzDecoder::new(body)),
        ContentEncoding::Brotli => bounded(brotli_decompressor::Decompressor::new(body, 4096)),
        ContentEncoding::Zstd => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(body)
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            bounded(decoder)
        }
    }
}

fn bounded(reader: impl Read) -> Result<Bytes, DecodeError> {
    let mut plain = Vec::new();
    reader.take(MAX_DECODED + 1).read_to_end(&mut plain)?;
    if plain.len() as u64 > MAX_DECODED {
        return Err(DecodeError::TooLarge);
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use http::HeaderMap;

    use super::*;

    fn takes_gzip(value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
        accepts(&headers, "gzip")
    }

    #[test]
    fn weights_and_stars_are_understood() {
        for value in [
            "gzip",
            "br, gzip;q=0.1",
            "GZIP",
            "*",
            "x-gzip",
            "deflate, *;q=0.5",
        ] {
            assert!(takes_gzip(value), "{value}");
        }
        for value in [
            "",
            "identity",
            "gzip;q=0",
            "gzip; Q=0.000, *",
            "*;q=0",
            "br",
        ] {
            assert!(!takes_gzip(value), "{value}");
        }
        assert!(!accepts(&HeaderMap::new(), "gzip"));
    }

    #[test]
    fn a_gzipped_tile_comes_back_plain() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"vector tile").unwrap();
        let body = Bytes::from(encoder.finish().unwrap());
        assert_eq!(decode(ContentEncoding::Gzip, &body).unwrap(), "vector tile");
    }

    #[test]
    fn a_damaged_tile_or_a_bomb_is_an_error() {
        assert!(decode(ContentEncoding::Gzip, &Bytes::from_static(b"\x1f\x8bnot")).is_err());
        assert!(decode(ContentEncoding::Zstd, &Bytes::from_static(b"nothing")).is_err());
        assert!(
            decode(
                ContentEncoding::Brotli,
                &Bytes::from_static(b"\xff\xff\xff")
            )
            .is_err()
        );
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeros = vec![0; 1 << 20];
        for _ in 0..65 {
            encoder.write_all(&zeros).unwrap();
        }
        let bomb = Bytes::from(encoder.finish().unwrap());
        assert!(matches!(
            decode(ContentEncoding::Gzip, &bomb),
            Err(DecodeError::TooLarge)
        ));
    }
}
