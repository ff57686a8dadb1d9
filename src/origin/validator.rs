//! What the origin calls the version of an object: S3's `ETag`, kept small.
//!
//! S3's is an MD5 in quotes nearly always, and is kept as its 16 bytes then: every entry of the memory tier has
//! one, and every disk hit reads one, without an allocation. Invariant: it is sent back as it was sent.

use std::fmt;

/// What the origin calls the version of an object that we hold: S3's `ETag`, quotes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginValidator(Spelling);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Spelling {
    /// `"<32 digits>"`, or `"<32 digits>-<parts>"` after a multipart upload; digits and letters as S3 has them.
    Md5 { sum: [u8; 16], parts: Option<u16> },
    /// Any other.
    Text(Box<str>),
}

impl OriginValidator {
    /// The longest that is kept: S3's are 34 to 40 bytes. A longer one is as good as none.
    pub const MAX_LEN: usize = 128;

    /// Keeps a validator if it is one that can be sent back.
    pub fn new(etag: &str) -> Option<Self> {
        let sendable = |b: u8| (0x21..=0x7e).contains(&b);
        if etag.is_empty() || etag.len() > Self::MAX_LEN {
            return None;
        }
        if let Some(md5) = Spelling::md5(etag.as_bytes()) {
            return Some(Self(md5));
        }
        etag.bytes()
            .all(sendable)
            .then(|| Self(Spelling::Text(etag.into())))
    }

    /// How long it is as text.
    pub fn text_len(&self) -> usize {
        match &self.0 {
            Spelling::Text(text) => text.len(),
            Spelling::Md5 { parts: None, .. } => 34,
            Spelling::Md5 { parts: Some(n), .. } => 36 + n.checked_ilog10().unwrap_or(0) as usize,
        }
    }

    /// What it takes beside itself, in bytes.
    pub fn allocated(&self) -> usize {
        match &self.0 {
            Spelling::Md5 { .. } => 0,
            Spelling::Text(text) => text.len(),
        }
    }
}

impl fmt::Display for OriginValidator {
    /// As it was sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Spelling::Text(text) => f.write_str(text),
            Spelling::Md5 { sum, parts } => {
                write!(f, "\"{:032x}", u128::from_be_bytes(*sum))?;
                if let Some(parts) = parts {
                    write!(f, "-{parts}")?;
                }
                f.write_str("\"")
            }
        }
    }
}

impl Spelling {
    /// The compact form of what [`fmt::Display`] would spell just so.
    fn md5(etag: &[u8]) -> Option<Self> {
        let inside = etag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let (digits, rest) = inside.split_first_chunk::<32>()?;
        let parts = match rest {
            [] => None,
            [b'-', count @ ..] => Some(part_count(count)?),
            _ => return None,
        };
        let mut sum = [0; 16];
        let mut all_hex = true;
        for (byte, pair) in sum.iter_mut().zip(digits.as_chunks::<2>().0) {
            let (high, low) = (nibble(pair[0]), nibble(pair[1]));
            all_hex &= high.1 & low.1;
            *byte = high.0 << 4 | low.0;
        }
        all_hex.then_some(Self::Md5 { sum, parts })
    }
}

/// A digit's value, and whether it is one. Without a branch: which digit comes is anybody's guess.
fn nibble(digit: u8) -> (u8, bool) {
    let decimal = digit.wrapping_sub(b'0') < 10;
    let letter = digit.wrapping_sub(b'a') < 6;
    let value = (digit & 0x0f) + u8::from(letter) * 9;
    (value, decimal | letter)
}

/// A decimal number without leading zeros or signs.
fn part_count(digits: &[u8]) -> Option<u16> {
    let plain = digits.iter().all(u8::is_ascii_digit)
        && (digits.len() == 1 || digits.first() != Some(&b'0'));
    let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validator_comes_back_as_it_was_sent() {
        for (text, compact) in [
            ("\"0123456789abcdef0123456789abcdef\"", true),
            ("\"00000000000000000000000000000000-1\"", true),
            ("\"0123456789abcdef0123456789abcdef-0\"", true),
            ("\"0123456789abcdef0123456789abcdef-65535\"", true),
            ("\"0123456789abcdef0123456789abcdef-65536\"", false),
            ("\"0123456789abcdef0123456789abcdef-07\"", false),
            ("\"0123456789abcdef0123456789abcdef-+7\"", false),
            ("\"0123456789abcdef0123456789abcdef-\"", false),
            ("\"0123456789abcdef0123456789abcdef7\"", false),
            ("\"0123456789ABCDEF0123456789abcdef\"", false),
            ("\"0123456789abcdef0123456789abcdeg\"", false),
            ("\"0123456789abcdef0123456789abcde:\"", false),
            ("\"+123456789abcdef0123456789abcdef\"", false),
            ("\"0123456789abcdef\"", false),
            ("0123456789abcdef0123456789abcdef", false),
            ("W/\"0123456789abcdef0123456789abcdef\"", false),
            ("\"\"", false),
            ("\"", false),
        ] {
            let kept = OriginValidator::new(text).unwrap();
            assert_eq!(kept.to_string(), text);
            assert_eq!(kept.text_len(), text.len(), "{text}");
            assert_eq!(kept.allocated() == 0, compact, "{text}");
        }
    }

    #[test]
    fn what_could_not_be_sent_back_is_as_good_as_none() {
        let long = "x".repeat(OriginValidator::MAX_LEN + 1);
        for text in ["", "\"a\nb\"", "\"a b\"", "\"\u{e9}\"", &long] {
            assert_eq!(OriginValidator::new(text), None, "{text}");
        }
    }

    #[test]
    fn each_digit_has_its_value_and_nothing_else_has() {
        for byte in 0..=u8::MAX {
            let lower_hex = !byte.is_ascii_uppercase() && byte.is_ascii_hexdigit();
            let (value, is_digit) = nibble(byte);
            assert_eq!(is_digit, lower_hex, "{byte:#x}");
            if lower_hex {
                let expected = char::from(byte).to_digit(16);
                assert_eq!(Some(u32::from(value)), expected);
            }
        }
    }
}
