//! `application/x-www-form-urlencoded` (WHATWG URL §5), for queries and STS bodies; and XML text.

/// The pairs, decoded. Bytes that are no UTF-8 become U+FFFD, as the standard says.
pub(super) fn parse(text: &[u8]) -> Vec<(String, String)> {
    text.split(|&b| b == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
            let value = pair.get(at + 1..).unwrap_or_default();
            (decode(&pair[..at]), decode(value))
        })
        .collect()
}

fn decode(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let escaped = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, escaped) {
            (_, Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Percent-encodes what is not unreserved (RFC 3986 §2.3) or a slash: `encoding-type=url`.
pub(super) fn encode_key(key: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Text between XML tags.
pub(super) fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_decoded() {
        let pairs = parse(b"Action=AssumeRole&a+b=c%2Bd%zz&empty=&flag&=x&");
        let expected = [
            ("Action", "AssumeRole"),
            ("a b", "c+d%zz"),
            ("empty", ""),
            ("flag", ""),
            ("", "x"),
        ];
        assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_key_is_encoded_as_boto3_decodes_it() {
        assert_eq!(encode_key("a b/ü+%.png"), "a%20b/%C3%BC%2B%25.png");
    }
}
