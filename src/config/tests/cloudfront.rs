//! `[cloudfront]`: what it needs of itself and of the other sections.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use base64::Engine as _;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A configuration around `[cloudfront]`: what is in `[server]` and `[session]`, and below it.
fn text(server: &str, session: &str, cloudfront: &str) -> String {
    format!(
        "[server]\n{server}\n[session]\nkeys = [{{ id = 'a', secret = '{KEY}' }}]\n{session}\n\
         [tilesets.world]\nbucket = 'b'\nkey = 'w/{{z}}/{{x}}/{{y}}.png'\n\
         [tilesets.open]\nbucket = 'b'\nkey = 'o/{{z}}/{{x}}/{{y}}.png'\naccess = 'public'\n\
         [cloudfront]\n{cloudfront}\n"
    )
}

fn pem() -> String {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let der = key.to_pkcs8v1().unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----")
}

fn whole(domain: &str, more: &str) -> String {
    let pem = pem();
    format!(
        "domain = '{domain}'\nkey_pair_id = 'K2JCJMDEHXQW5F'\nprivate_key = '''{pem}'''\n{more}"
    )
}

const PUBLIC_URL: &str = "public_url = 'https://tiles.example.com'";

/// The keys that are refused.
fn refused(server: &str, session: &str, cloudfront: &str) -> Vec<String> {
    match parse(&text(server, session, cloudfront)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.problems().iter().map(Problem::path).collect(),
    }
}

#[test]
fn one_host_needs_no_domain_and_every_private_tileset_goes_through() {
    let more = format!("origin_secret = '{SECRET}'");
    let config = parse(&text(PUBLIC_URL, "", &whole("tiles.example.com", &more))).unwrap();
    let cloudfront = config.cloudfront.unwrap();
    assert_eq!(cloudfront.tilesets, ["world"]);
    assert_eq!(cloudfront.origin_secrets.len(), 1);
    let shown = format!("{cloudfront:?}");
    assert!(
        !shown.contains(SECRET) && !shown.contains("BEGIN"),
        "{shown}"
    );
    assert!(parse(MINIMAL).unwrap().cloudfront.is_none());
}

#[test]
fn cookies_must_reach_both_hosts() {
    let of = |server, session, domain| refused(server, session, &whole(domain, ""));
    let cdn = "cdn.example.com";
    assert_eq!(of(PUBLIC_URL, "domain = 'example.com'", cdn), [""; 0]);
    let domain = ["cloudfront.domain"];
    assert_eq!(of(PUBLIC_URL, "", cdn), domain);
    assert_eq!(of(PUBLIC_URL, "domain = 'tiles.example.com'", cdn), domain);
    assert_eq!(
        of(PUBLIC_URL, "domain = 'example.com'", "d1.cloudfront.net"),
        domain
    );
    assert_eq!(
        of(PUBLIC_URL, "domain = 'example.com'", "badexample.com"),
        domain
    );
    assert_eq!(of("", "", "tiles.example.com"), domain);
    for bad in [
        "https://a.example",
        "a.example/x",
        "A.example",
        "a",
        "10.0.0.1",
    ] {
        assert_eq!(of(PUBLIC_URL, "", bad), domain, "{bad}");
    }
}

#[test]
fn each_key_is_looked_at() {
    let of = |cloudfront: &str| refused(PUBLIC_URL, "", cloudfront);
    assert_eq!(
        of("domain = 'tiles.example.com'"),
        ["cloudfront.key_pair_id", "cloudfront.private_key"]
    );
    let with = |more: &str| of(&whole("tiles.example.com", more));
    assert_eq!(
        with("origin_secret = 'short'"),
        ["cloudfront.origin_secret"]
    );
    assert_eq!(with("origin_secret = []"), ["cloudfront.origin_secret"]);
    let spaced = format!("origin_secret = ['{SECRET}', 'with blanks {SECRET}']");
    assert_eq!(with(&spaced), ["cloudfront.origin_secret[1]"]);
    let two = format!("origin_secret = ['{SECRET}', '{KEY}x']");
    assert_eq!(with(&two), [""; 0]);
    for tilesets in ["['wrold']", "['open']"] {
        assert_eq!(
            with(&format!("tilesets = {tilesets}")),
            ["cloudfront.tilesets"]
        );
    }
    assert_eq!(with("tilesets = ['world']"), [""; 0]);
    let group = whole("tiles.example.com", "").replace("K2JCJMDEHXQW5F", "4135ea2d-6df8");
    assert_eq!(of(&group), ["cloudfront.key_pair_id"]);
    let public = whole("tiles.example.com", "").replace("PRIVATE KEY", "PUBLIC KEY");
    let message = parse(&text(PUBLIC_URL, "", &public))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("holds a public key") && message.contains("openssl"),
        "{message}"
    );
}

#[test]
fn all_its_problems_are_told_at_once() {
    let all =
        "domain = 'cdn.example.com'\nkey_pair_id = 'k'\nprivate_key = 'x'\ntilesets = ['nowhere']";
    let keys = ["domain", "key_pair_id", "private_key", "tilesets"];
    let mut found = refused(PUBLIC_URL, "", all);
    found.sort();
    assert_eq!(found, keys.map(|key| format!("cloudfront.{key}")));
}

#[test]
fn more_tilesets_than_a_browser_takes_cookies_for_are_to_be_named() {
    use std::fmt::Write as _;
    let mut all = text(PUBLIC_URL, "", &whole("tiles.example.com", ""));
    for n in 0..8 {
        let _ = writeln!(
            all,
            "[tilesets.t{n}]\nbucket = 'b'\nkey = 't{n}/{{z}}/{{x}}/{{y}}.png'"
        );
    }
    let problems = parse(&all).unwrap_err();
    let paths: Vec<_> = problems.problems().iter().map(Problem::path).collect();
    assert_eq!(paths, ["cloudfront.tilesets"]);
    let named = all.replace(
        "[cloudfront]\n",
        "[cloudfront]\ntilesets = ['t1', 'world']\n",
    );
    assert_eq!(
        parse(&named).unwrap().cloudfront.unwrap().tilesets,
        ["t1", "world"]
    );
}
