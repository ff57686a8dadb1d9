//! What proxies, and those who pretend to be one, say of a request.

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, FORWARDED, HeaderName};

use super::header_values;
use crate::http::{encoding, forwarded};

pub(super) fn run(data: &[u8]) {
    let names = [
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-proto"),
        HeaderName::from_static("x-forwarded-host"),
        FORWARDED,
        ACCEPT_ENCODING,
    ];
    let mut headers = HeaderMap::new();
    for (nth, value) in header_values(data).enumerate() {
        headers.append(&names[nth % names.len()], value);
    }
    let peer = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let said = forwarded::said(&trusted, peer, &headers);
    if let Some(host) = said.host {
        assert!(!host.is_empty(), "{headers:?}");
        let plain = |b: u8| b.is_ascii_graphic() && !b"/@?#\\<>\"'`,;%".contains(&b);
        assert!(host.bytes().all(plain), "{host:?}");
    }
    // Who is nobody's proxy is believed nothing: it is the client itself.
    if said.client != peer {
        let written = headers.values().any(|value| !value.is_empty());
        assert!(written, "a client out of nothing");
    }
    let takes = encoding::accepts(&headers, "gzip");
    let mentioned = headers.get_all(ACCEPT_ENCODING).iter().any(|value| {
        let text = value.to_str().unwrap_or("").to_ascii_lowercase();
        text.contains("gzip") || text.contains('*')
    });
    assert!(!takes || mentioned);
}
