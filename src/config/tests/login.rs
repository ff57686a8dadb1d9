//! `[login]`: issuers and the identity provider.

use super::*;
use crate::auth::ClaimName;
use crate::config::IssuerKeySource;

const SESSION: &str = "[session]\nkeys = [{ id = 'a', secret = { env = 'KEY' } }]\n";

/// Each: the keys of an issuer, from its line on, and what is said of it; lines count from its head.
const ISSUER: &[(&str, &str)] = &[
    (
        "audience = 't'\njwks_url = 'https://i.example/k'\ngrants = { tilesets = ['*'] }",
        "login.issuers[0].issuer:1",
    ),
    (
        "issuer = 'tilekeep'\naudience = 't'\njwks_url = 'https://i.example/k'\ngrants = {}",
        "login.issuers[0].issuer:2",
    ),
    (
        "issuer = 'i'\njwks_url = 'https://i.example/k'\ngrants = {}",
        "login.issuers[0].audience:1",
    ),
    (
        "issuer = 'i'\naudience = 't'\ngrants = {}",
        "login.issuers[0]:1",
    ),
    (
        "issuer = 'i'\naudience = 't'\ngrants = {}\njwks_url = 'https://i.example/k'\nsecret = '0123456789abcdef0123456789abcdeg'",
        "login.issuers[0]:1",
    ),
    (
        "issuer = 'i'\naudience = 't'\ngrants = {}\njwks_url = 'http://i.example/k'",
        "login.issuers[0].jwks_url:5",
    ),
    (
        "issuer = 'i'\naudience = 't'\ngrants = {}\njwks_url = 'https://a:b@i.example/k'",
        "login.issuers[0].jwks_url:5",
    ),
    (
        "issuer = 'i'\naudience = 't'\ngrants = {}\njwks_url = 'https://i.example/k#x'",
        "login.issuers[0].jwks_url:5",
    ),
    (
        "issuer = 'i'\naudience = 't'\ngrants = {}\nsecret = 'short'",
        "login.issuers[0].secret:5",
    ),
    (
        "issuer = 'i'\naudience = 't'\ngrants = {}\nsecret = { env = 'KEY' }",
        "login.issuers:1",
    ),
    (
        "issuer = 'i'\naudience = 't'\njwks_url = 'https://i.example/k'",
        "login.issuers[0].grants:1",
    ),
    (
        "issuer = 'i'\naudience = 't'\njwks_url = 'https://i.example/k'\ngrants = { scope = 'fly', maxzoom = 31, bounds = [1, 2, 3], tileset = ['*'] }",
        "login.issuers[0].grants.bounds:5 login.issuers[0].grants.maxzoom:5 login.issuers[0].grants.scope:5 login.issuers[0].grants.tileset:5",
    ),
    (
        "issuer = 'i'\naudience = 't'\njwks_url = 'https://i.example/k'\ntrust_claims = ['sub']",
        "login.issuers[0].trust_claims[0]:5",
    ),
    (
        "issuer = 'i'\naudience = 't'\njwks_url = 'https://i.example/k'\ntrust_claims = ['tilesets']\nalgorithm = 'none'",
        "login.issuers[0].algorithm:6",
    ),
    (
        "issuer = 'i'\naudience = 't'\njwks_url = 'https://i.example/k'\ngrants = { quota = 'batch' }\n[[quotas]]\nname = 'viewer'",
        "login.issuers:1",
    ),
];

/// The same for the provider.
const OIDC: &[(&str, &str)] = &[
    ("client_id = 'c'\ngrants = {}", "login.oidc.issuer:1"),
    (
        "issuer = 'http://i.example'\nclient_id = 'c'\ngrants = {}",
        "login.oidc.issuer:2",
    ),
    (
        "issuer = 'https://i.example?x'\nclient_id = 'c'\ngrants = {}",
        "login.oidc.issuer:2",
    ),
    (
        "issuer = 'i.example'\nclient_id = 'c'\ngrants = {}",
        "login.oidc.issuer:2",
    ),
    (
        "issuer = 'https://i.example'\ngrants = {}",
        "login.oidc.client_id:1",
    ),
    (
        "issuer = 'https://i.example'\nclient_id = 'c'",
        "login.oidc.grants:1",
    ),
    (
        "issuer = 'https://i.example'\nclient_id = 'c'\ngrants = {}\nclient_secret = { env = 'NONE' }\nscopes = ['openid email']\nscope = 'openid'",
        "login.oidc.client_secret.env:5 login.oidc.scope:7 login.oidc.scopes[0]:6",
    ),
];

fn said(head: &str, cases: &[(&str, &str)]) {
    let before = SESSION.lines().count();
    for (keys, expected) in cases {
        let lines = MINIMAL.lines().count() + before;
        let text = format!("{MINIMAL}{SESSION}{head}\n{keys}\n");
        let problems = parse(&text).unwrap_err();
        let place = |p: &Problem| format!("{}:{}", p.path(), p.line.unwrap_or(0) - lines);
        let mut found: Vec<_> = problems.problems().iter().map(place).collect();
        found.sort();
        assert_eq!(found.join(" "), *expected, "{keys}");
    }
}

#[test]
fn each_rule_of_an_issuer_names_its_key_and_line() {
    said("[[login.issuers]]", ISSUER);
}

#[test]
fn each_rule_of_the_provider_names_its_key_and_line() {
    said("[login.oidc]", OIDC);
}

#[test]
fn any_way_in_needs_a_key_to_sign_with() {
    for way in [
        "[[login.issuers]]\nissuer = 'i'\naudience = 't'\njwks_url = 'https://i.example/k'\ngrants = {}",
        "[login.oidc]\nissuer = 'https://i.example'\nclient_id = 'c'\ngrants = {}",
    ] {
        assert_eq!(added(way), ["session.keys:0"], "{way}");
    }
    let taken = format!(
        "{SESSION}cookie = 'tilekeep_login'\n[login.oidc]\nissuer = 'https://i.example'\nclient_id = 'c'\ngrants = {{}}"
    );
    assert_eq!(added(&taken), ["login.oidc:4"]);
}

#[test]
fn two_issuers_of_one_name_are_one_too_many() {
    let issuer = "[[login.issuers]]\nissuer = 'i'\naudience = 't'\njwks_url = 'https://i.example/k'\ngrants = {}\n";
    let twice = format!("{SESSION}{issuer}{issuer}");
    assert_eq!(added(&twice), ["login.issuers[1].issuer:9"]);
}

#[test]
fn ways_in_are_read_as_written() {
    let text = format!(
        "{MINIMAL}{SESSION}
        [[login.issuers]]
        issuer = 'app'
        audience = 'tiles'
        secret = '0123456789abcdef0123456789abcdeg'
        trust_claims = ['tilesets', 'maxzoom']
        [[login.issuers]]
        issuer = 'https://id.example.com'
        jwks_url = 'http://127.0.0.1:4000/jwks?x=1'
        audience = 'tiles'
        grants = {{ tilesets = ['*'], scope = 'tiles sign', maxzoom = 9, bounds = [0, 0, 1, 1], quota = 'viewer' }}
        [login.oidc]
        issuer = 'https://id.example.com/realm/'
        client_id = 'tilekeep'
        client_secret = {{ env = 'KEY' }}
        grants = {{ tilesets = ['w'] }}
        "
    );
    let login = parse(&text).map_err(|p| p.to_string()).unwrap().login;
    let [app, provider] = &login.issuers[..] else {
        panic!("{:?}", login.issuers);
    };
    assert_eq!(app.trust_claims, [ClaimName::Tilesets, ClaimName::Maxzoom]);
    assert!(matches!(app.keys, IssuerKeySource::Secret(_)));
    assert!(app.grants.tilesets.is_empty());
    assert_eq!(provider.grants.scope.as_deref(), Some("tiles sign"));
    assert_eq!(provider.grants.maxzoom, Some(9));
    let oidc = login.oidc.as_ref().unwrap();
    assert_eq!(oidc.scopes, ["openid"]);
    assert_eq!(oidc.name, "single sign-on");
    assert!(oidc.client_secret.is_some());
    assert!(!format!("{login:?}").contains(KEY));
}
