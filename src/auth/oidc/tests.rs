//! What an ID token has to be (OpenID Connect Core §3.1.3.7). The journey as a whole is tested with a real
//! provider, in `tests/it/oidc.rs`.

use bytes::Bytes;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::super::issuers::Fetched;
use super::super::testing::{hs256, pem_pair, ring};
use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const ISSUER: &str = "https://id.example.com";

/// Publishes one key set, wherever it is looked for.
struct Publishes(Bytes);

impl Fetch for Publishes {
    fn get(&self, _: &str) -> Fetching<Fetched> {
        let body = self.0.clone();
        Box::pin(async move {
            Ok(Fetched {
                body,
                max_age: None,
            })
        })
    }

    fn send(&self, _: HttpRequest) -> Fetching<HttpResponse> {
        unreachable!("no code is redeemed")
    }
}

fn provider() -> (Oidc, EncodingKey) {
    let (_, private) = pem_pair();
    let signs = EncodingKey::from_ed_pem(private.as_bytes()).unwrap();
    let key = Jwk::from_encoding_key(&signs, Algorithm::EdDSA).unwrap();
    let set = json!({ "keys": [key] }).to_string();
    let fetch: Arc<dyn Fetch> = Arc::new(Publishes(Bytes::from(set)));
    let settings = OidcSettings {
        issuer: ISSUER.to_owned(),
        client_id: "tilekeep".to_owned(),
        client_secret: Some(Secret::new("not to be seen")),
        scopes: Vec::new(),
        rights: Rights::default(),
        max_age: Duration::from_hours(1),
    };
    assert!(!format!("{settings:?}").contains("not to be seen"));
    let oidc = Oidc::new(settings, &ring(vec![hs256("a")]), &fetch).unwrap();
    (oidc, signs)
}

fn metadata() -> Metadata {
    Metadata {
        authorization_endpoint: format!("{ISSUER}/auth"),
        token_endpoint: format!("{ISSUER}/token"),
        jwks_uri: format!("{ISSUER}/keys"),
        secret_in_body: false,
        names_itself: true,
    }
}

fn claims(change: impl Fn(&mut Value)) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "sub": "grace", "aud": "tilekeep", "nonce": "n",
        "exp": NOW.secs() + 60, "auth_time": NOW.secs() - 10,
    });
    change(&mut claims);
    claims
}

/// How the check of a token with these claims ends.
async fn checked(typ: Option<&str>, claims: &Value) -> Result<Identity, &'static str> {
    let (oidc, signs) = provider();
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = typ.map(str::to_owned);
    let token = jsonwebtoken::encode(&header, claims, &signs).unwrap();
    oidc.check_id_token(&token, "n", &metadata(), NOW)
        .await
        .map_err(|error| error.label())
}

#[tokio::test]
async fn an_id_token_for_this_log_in_says_who_is_here() {
    for typ in [None, Some("JWT"), Some("application/jwt")] {
        let identity = checked(typ, &claims(|_| {})).await.unwrap();
        assert_eq!(identity.sub, "grace");
        assert_eq!(identity.issuer, ISSUER);
        assert_eq!(identity.auth_time.secs(), NOW.secs() - 10);
    }
    let among_others = claims(|claims| {
        claims["aud"] = json!(["tilekeep", "other"]);
        claims["azp"] = json!("tilekeep");
    });
    assert!(checked(None, &among_others).await.is_ok());
}

#[tokio::test]
async fn any_other_token_of_the_provider_is_refused() {
    for (name, value, reason) in [
        ("nonce", json!("another"), "wrong_nonce"),
        ("nonce", json!(null), "wrong_nonce"),
        ("aud", json!("other"), "wrong_audience"),
        ("aud", json!(["tilekeep", "other"]), "wrong_audience"),
        ("azp", json!("other"), "wrong_audience"),
        ("iss", json!("https://evil.example"), "unknown_issuer"),
        ("exp", json!(NOW.secs() - 31), "expired"),
        ("nbf", json!(NOW.secs() + 31), "not_yet_valid"),
        ("sub", json!(""), "malformed"),
        ("events", json!({}), "wrong_kind"),
    ] {
        let token = claims(|claims| claims[name] = value.clone());
        let refused = checked(None, &token).await.unwrap_err();
        assert_eq!(refused, reason, "{name}: {value}");
    }
    for typ in ["at+jwt", "logout+jwt", "JWS"] {
        let refused = checked(Some(typ), &claims(|_| {})).await;
        assert_eq!(refused.unwrap_err(), "wrong_kind", "{typ}");
    }
}
