//! An identity provider's keys for tests: generated, published by a small server that counts and can fail.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::LOCATION;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A key pair with its name.
pub struct Pair {
    pub kid: &'static str,
    pub algorithm: Algorithm,
    pub signs: EncodingKey,
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

impl Pair {
    pub fn rsa(kid: &'static str) -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        Self {
            kid,
            algorithm: Algorithm::RS256,
            signs: EncodingKey::from_rsa_pem(pem(der.as_ref()).as_bytes()).unwrap(),
        }
    }

    pub fn p256(kid: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = pair.to_pkcs8v1().unwrap();
        Self {
            kid,
            algorithm: Algorithm::ES256,
            signs: EncodingKey::from_ec_pem(pem(der.as_ref()).as_bytes()).unwrap(),
        }
    }

    pub fn ed25519(kid: &'static str) -> Self {
        let der = Ed25519KeyPair::generate().unwrap().to_pkcs8v1().unwrap();
        Self {
            kid,
            algorithm: Algorithm::EdDSA,
            signs: EncodingKey::from_ed_pem(pem(der.as_ref()).as_bytes()).unwrap(),
        }
    }

    /// As a provider publishes it.
    pub fn jwk(&self) -> Value {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.signs, self.algorithm).unwrap())
                .unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(self.algorithm, Some(self.kid), "JWT", claims)
    }

    pub fn sign_as(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        typ: &str,
        claims: &Value,
    ) -> String {
        let mut header = Header::new(algorithm);
        header.kid = kid.map(str::to_owned);
        header.typ = Some(typ.to_owned());
        jsonwebtoken::encode(&header, claims, &self.signs).unwrap()
    }
}

/// A set of public keys.
pub fn set(pairs: &[&Pair]) -> String {
    json!({ "keys": pairs.iter().map(|pair| pair.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Serves one document on loopback.
#[derive(Clone)]
pub struct Publisher {
    pub url: String,
    inner: Arc<Inner>,
}

struct Inner {
    document: Mutex<String>,
    status: AtomicU16,
    hits: AtomicUsize,
}

impl Publisher {
    pub async fn start(document: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys.json", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            document: Mutex::new(document),
            status: AtomicU16::new(200),
            hits: AtomicUsize::new(0),
        });
        let publisher = Self { url, inner };
        let serving = publisher.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                let service = service_fn(move |request: http::Request<_>| {
                    let answer = serving.answer(request.uri().path());
                    drop::<http::Request<hyper::body::Incoming>>(request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .keep_alive(false)
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        publisher
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let document = self.inner.document.lock().unwrap().clone();
        // Where a redirect would lead, were one followed.
        let status = match path {
            "/keys.json" => {
                self.inner.hits.fetch_add(1, Ordering::Relaxed);
                StatusCode::from_u16(self.inner.status.load(Ordering::Relaxed)).unwrap()
            }
            _ => StatusCode::OK,
        };
        let mut response = Response::new(Full::new(Bytes::from(document)));
        *response.status_mut() = status;
        if status.is_redirection() {
            let place = http::HeaderValue::from_static("/elsewhere");
            response.headers_mut().insert(LOCATION, place);
        }
        response
    }

    pub fn publish(&self, document: String) {
        *self.inner.document.lock().unwrap() = document;
    }

    pub fn answers_with(&self, status: u16) {
        self.inner.status.store(status, Ordering::Relaxed);
    }

    pub fn hits(&self) -> usize {
        self.inner.hits.load(Ordering::Relaxed)
    }
}
