//! Sign-in at a real OpenID provider: npm's `oidc-provider`, started by each test on a free port.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tilekeep::auth::ClaimName;
use tilekeep::clock::Clock;
use tilekeep::config::{LoginGrants, LoginOidc, SecretValue, WebOrigin};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Scale, TileCoord, TileFormat};

use crate::support::{self, Answer, Running, config, spec, tileset};

/// The provider: ends with the test, also with one that is killed, because its input does.
struct Provider {
    issuer: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Provider {
    fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc");
        installed(&folder);
        let mut child = Command::new("node")
            .arg("provider.js")
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs Node 20 or newer");
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let issuer = line(&mut output)["issuer"].as_str().unwrap().to_owned();
        Self {
            issuer,
            child,
            input,
            output,
        }
    }

    /// Registers the server, and waits until the provider answers.
    fn register(&mut self, server: &Running) {
        self.register_with(server, &["client_secret_basic", "client_secret_post"]);
    }

    /// The same, where clients prove themselves in these ways.
    fn register_with(&mut self, server: &Running, methods: &[&str]) {
        let redirect_uri = format!("{}/login/oidc/callback", base(server));
        let client = json!({ "redirect_uri": redirect_uri, "methods": methods });
        writeln!(self.input, "{client}").unwrap();
        line(&mut self.output);
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(output: &mut impl std::io::BufRead) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    serde_json::from_str(&line)
        .expect("the provider did not start: try `node provider.js` in tests/oidc")
}

/// The provider's packages, as locked. A test that cannot have them fails: nobody should believe that
/// sign-in was tested.
fn installed(folder: &Path) {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        if folder.join("node_modules/oidc-provider").is_dir() {
            return;
        }
        let npm = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .status();
        assert!(
            npm.is_ok_and(|status| status.success()),
            "the OpenID provider is not installed: run `npm ci` in tests/oidc (it needs Node 20 and npm)"
        );
    });
}

fn login(provider: &Provider, client_id: &str, secret: Option<&str>) -> LoginOidc {
    LoginOidc {
        issuer: provider.issuer.clone(),
        client_id: client_id.to_owned(),
        client_secret: secret.map(SecretValue::new),
        scopes: vec!["openid".to_owned()],
        grants: LoginGrants {
            tilesets: vec!["world".to_owned()],
            ..LoginGrants::default()
        },
        trust_claims: Vec::new(),
        name: "Example".to_owned(),
    }
}

fn confidential(provider: &Provider) -> LoginOidc {
    login(provider, "tilekeep", SECRET)
}

async fn server(oidc: LoginOidc) -> Running {
    let world = spec("world", TileFormat::Png);
    let memory = MemoryOrigin::new();
    let at = TileCoord::new(0, 0, 0).unwrap();
    memory.put(&tileset(world.clone()), at, Scale::One, "tile", None);
    let mut config = config([world]);
    config.login.oidc = Some(oidc);
    let server = support::start(config, Arc::new(memory)).await;
    // The provider's tokens are of today.
    server.clock.set(Clock::System.now());
    server
}

/// As much of a browser as this takes: cookies by host and port, redirects one by one.
#[derive(Default)]
struct Browser {
    jar: BTreeMap<(String, String), String>,
}

impl Browser {
    async fn send(&mut self, method: Method, url: &str, form: &str) -> Answer {
        let host = url.split('/').nth(2).unwrap().to_owned();
        let cookies: Vec<_> = self
            .jar
            .iter()
            .filter(|((of, _), _)| *of == host)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let mut request = Request::builder().method(method).uri(url);
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        if !form.is_empty() {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let request = request
            .body(Full::new(Bytes::from(form.to_owned())))
            .unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        for set in parts.headers.get_all("set-cookie") {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            let (value, attributes) = rest.split_once(';').unwrap_or((rest, ""));
            let key = (host.clone(), name.to_owned());
            if value.is_empty() || attributes.contains("Max-Age=0") {
                self.jar.remove(&key);
            } else {
                self.jar.insert(key, value.to_owned());
            }
        }
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn get(&mut self, url: &str) -> Answer {
        self.send(Method::GET, url, "").await
    }

    /// Signs in and consents at the provider, from its authorization address until it sends the browser
    /// back: to which address, not followed.
    async fn at_the_provider(&mut self, start: &str, back: &str) -> String {
        let base = start.split('/').take(3).collect::<Vec<_>>().join("/");
        let mut url = start.to_owned();
        for _ in 0..20 {
            let mut answer = self.get(&url).await;
            if answer.status == StatusCode::OK {
                let page = String::from_utf8(answer.body.to_vec()).unwrap();
                let action = between(&page, "action=\"", "\"");
                let form = if page.contains("name=\"login\"") {
                    "prompt=login&login=grace&password=x"
                } else {
                    "prompt=consent"
                };
                let action = absolute(&base, &action);
                answer = self.send(Method::POST, &action, form).await;
            }
            assert!(answer.status.is_redirection(), "{url}: {answer:?}");
            url = absolute(&base, answer.header("location"));
            if url.starts_with(back) {
                return url;
            }
        }
        panic!("the provider goes round in circles: {url}");
    }
}

fn between(text: &str, before: &str, after: &str) -> String {
    let (_, rest) = text.split_once(before).unwrap();
    rest.split_once(after).unwrap().0.to_owned()
}

fn absolute(base: &str, url: &str) -> String {
    if url.starts_with('/') {
        format!("{base}{url}")
    } else {
        url.to_owned()
    }
}

/// The same address with another value of this parameter.
fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let (path, query) = url.split_once('?').unwrap();
    let parameter = |pair: &str| match pair.split_once('=') {
        Some((known, _)) if known == name => format!("{name}={value}"),
        _ => pair.to_owned(),
    };
    let query: Vec<_> = query.split('&').map(parameter).collect();
    format!("{path}?{}", query.join("&"))
}

fn base(server: &Running) -> String {
    format!("http://{}", server.addresses.public)
}

/// Sets out from the server: where the browser is sent to.
async fn set_out(browser: &mut Browser, server: &Running, next: &str) -> String {
    let start = format!("{}/login/oidc?next={next}", base(server));
    let answer = browser.get(&start).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    answer.header("location").to_owned()
}

/// All the way to the callback's address, which is not asked for yet.
async fn nearly_back(browser: &mut Browser, server: &Running) -> String {
    let out = set_out(browser, server, "/map").await;
    browser.at_the_provider(&out, &base(server)).await
}

fn page(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

fn has_no_session(answer: &Answer) {
    let set = answer.headers.get_all("set-cookie");
    let session = set
        .iter()
        .any(|set| set.to_str().unwrap().starts_with("tilekeep_session="));
    assert!(!session, "{answer:?}");
    assert!(page(answer).contains("href=\"/login/oidc?next="));
}

async fn signs_in(client_id: &str, secret: Option<&str>, methods: &[&str]) {
    let mut provider = Provider::start();
    let server = server(login(&provider, client_id, secret)).await;
    provider.register_with(&server, methods);
    let mut browser = Browser::default();
    let shown = browser
        .get(&format!("{}/login?next=/map", base(&server)))
        .await;
    assert!(page(&shown).contains("Sign in with Example"));
    let link = between(&page(&shown), "id=\"login-oidc\" href=\"", "\"");
    assert_eq!(link, "/login/oidc?next=/map");

    let out = set_out(&mut browser, &server, "/map%23x").await;
    for part in [
        "response_type=code",
        "code_challenge_method=S256",
        "&nonce=",
        "&state=",
    ] {
        assert!(out.contains(part), "{out}");
    }
    let back = browser.at_the_provider(&out, &base(&server)).await;
    let arrived = browser.get(&back).await;
    assert_eq!(arrived.status, StatusCode::SEE_OTHER, "{arrived:?}");
    assert_eq!(arrived.header("location"), "/map#x");
    let host = server.addresses.public.to_string();
    let names: Vec<_> = browser.jar.keys().filter(|(of, _)| *of == host).collect();
    assert_eq!(
        names,
        [&(host, "tilekeep_session".to_owned())],
        "the journey's cookie is gone"
    );
    let tile = format!("{}/world/0/0/0.png", base(&server));
    assert_eq!(browser.get(&tile).await.status, StatusCode::OK);
    let session = browser
        .get(&format!("{}/session", base(&server)))
        .await
        .json();
    assert_eq!(session["sub"], "grace");
    // Its ID token claims more, and is not trusted with it.
    assert_eq!(session["tilesets"], json!(["world"]));
    assert_eq!(session["scope"], "tiles");
    server.stop().await;
}

const SECRET: Option<&str> = Some("a secret: with / and % in it");

#[tokio::test]
async fn who_signs_in_at_the_provider_sees_tiles() {
    let methods = ["client_secret_basic", "client_secret_post"];
    signs_in("tilekeep", SECRET, &methods).await;
}

#[tokio::test]
async fn a_provider_may_want_the_secret_in_the_body() {
    signs_in("tilekeep", SECRET, &["client_secret_post"]).await;
}

#[tokio::test]
async fn a_public_client_has_no_secret() {
    signs_in("tilekeep-public", None, &["client_secret_basic"]).await;
}

#[tokio::test]
async fn what_was_tampered_with_on_the_way_begins_no_session() {
    let mut provider = Provider::start();
    let server = server(confidential(&provider)).await;
    provider.register(&server);
    let mut browser = Browser::default();
    let back = nearly_back(&mut browser, &server).await;
    let jar = browser.jar.clone();
    // The state of another journey, none, and another provider's name.
    for wrong in [
        with_parameter(&back, "state", "another"),
        with_parameter(&back, "state", ""),
        format!("{back}&state=twice"),
        with_parameter(&back, "iss", "https%3A%2F%2Fevil.example"),
        with_parameter(&back, "code", "another"),
        back.split_once('?').unwrap().0.to_owned(),
    ] {
        browser.jar.clone_from(&jar);
        let answer = browser.get(&wrong).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        has_no_session(&answer);
    }
    // Another browser: log-in CSRF.
    let mut other = Browser::default();
    set_out(&mut other, &server, "/").await;
    let answer = other.get(&back).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    has_no_session(&answer);
    // A nonce, and a challenge, that are not this journey's.
    for (parameter, status) in [
        ("nonce", StatusCode::BAD_GATEWAY),
        ("code_challenge", StatusCode::BAD_REQUEST),
    ] {
        let out = set_out(&mut browser, &server, "/").await;
        let other = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        let out = with_parameter(&out, parameter, other);
        let back = browser.at_the_provider(&out, &base(&server)).await;
        let answer = browser.get(&back).await;
        assert_eq!(answer.status, status, "{parameter}");
        has_no_session(&answer);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_code_is_good_once_and_a_journey_and_an_id_token_end() {
    let mut provider = Provider::start();
    let server = server(confidential(&provider)).await;
    provider.register(&server);
    let mut browser = Browser::default();
    let back = nearly_back(&mut browser, &server).await;
    let jar = browser.jar.clone();
    assert_eq!(browser.get(&back).await.status, StatusCode::SEE_OTHER);
    let mut again = Browser { jar: jar.clone() };
    let answer = again.get(&back).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "the provider's no");
    has_no_session(&answer);
    assert_eq!(browser.get(&back).await.status, StatusCode::BAD_REQUEST);

    let begun = server.clock.now();
    let mut late = Browser { jar };
    let back = nearly_back(&mut late, &server).await;
    server.clock.set(begun + Duration::from_mins(10));
    assert_eq!(late.get(&back).await.status, StatusCode::BAD_REQUEST);

    server.clock.set(begun);
    let back = nearly_back(&mut late, &server).await;
    // The provider's ID tokens live for a minute, and clocks may differ by half of one.
    server.clock.set(begun + Duration::from_mins(5));
    let answer = late.get(&back).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "expired");
    has_no_session(&answer);
    server.stop().await;
}

#[tokio::test]
async fn the_providers_no_and_its_absence_are_said_in_words() {
    let mut provider = Provider::start();
    let mut oidc = confidential(&provider);
    oidc.trust_claims = vec![ClaimName::Tilesets];
    let server = server(oidc).await;
    let mut browser = Browser::default();
    let start = format!("{}/login/oidc?next=//evil.example", base(&server));
    let answer = browser.get(&start).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.header("retry-after").is_empty());
    assert!(page(&answer).contains("cannot be reached"));
    provider.register(&server);
    server.clock.advance(Duration::from_secs(6));
    let out = browser.get(&start).await.header("location").to_owned();
    let state = between(&format!("{out}&"), "state=", "&");
    let callback = format!("{}/login/oidc/callback", base(&server));
    let said = |error: &str| format!("{callback}?error={error}&state={state}");
    let jar = browser.jar.clone();
    for (error, status, words) in [
        ("access_denied", StatusCode::FORBIDDEN, "did not let you in"),
        (
            "temporarily_unavailable",
            StatusCode::SERVICE_UNAVAILABLE,
            "in trouble",
        ),
        ("%3Cb%3Ebold", StatusCode::BAD_GATEWAY, "not accepted"),
    ] {
        browser.jar.clone_from(&jar);
        let answer = browser.get(&said(error)).await;
        assert_eq!(answer.status, status, "{error}");
        assert!(page(&answer).contains(words), "{error}");
        assert!(!page(&answer).contains("bold"));
        has_no_session(&answer);
    }
    // Without its state it is nobody's answer.
    let answer = browser
        .get(&format!("{callback}?error=access_denied"))
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    // Where to go was another host: it is the front page. This time `tilesets` is trusted.
    browser.jar.clone_from(&jar);
    let back = browser.at_the_provider(&out, &base(&server)).await;
    let arrived = browser.get(&back).await;
    assert_eq!(arrived.header("location"), "/");
    let session = browser
        .get(&format!("{}/session", base(&server)))
        .await
        .json();
    assert_eq!(session["tilesets"], json!(["*"]));
    server.stop().await;
}

#[tokio::test]
async fn behind_https_the_journey_has_a_host_cookie_and_the_public_address() {
    let mut provider = Provider::start();
    let mut config = config([spec("world", TileFormat::Png)]);
    config.login.oidc = Some(confidential(&provider));
    config.server.public_url = Some(WebOrigin::parse("https://tiles.example.com").unwrap());
    config.session.domain = Some("example.com".to_owned());
    let server = support::start(config, Arc::new(MemoryOrigin::new())).await;
    provider.register(&server);
    let answer = server.send(Method::GET, "/login/oidc", &[], "").await;
    let set = answer.header("set-cookie");
    assert!(set.starts_with("__Host-tilekeep_login="), "{set}");
    for part in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Max-Age=600"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Domain"), "of this host alone: {set}");
    let here = "redirect_uri=https%3A%2F%2Ftiles.example.com%2Flogin%2Foidc%2Fcallback";
    assert!(answer.header("location").contains(here));
    server.stop().await;
}

#[tokio::test]
async fn without_a_provider_there_is_no_such_page() {
    let server = support::start(
        config([spec("world", TileFormat::Png)]),
        Arc::new(MemoryOrigin::new()),
    )
    .await;
    for path in ["/login/oidc", "/login/oidc/callback?state=x&code=y"] {
        let answer = server.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    let answer = server.send(Method::GET, "/login", &[], "").await;
    assert!(!page(&answer).contains("login-oidc"));
    server.stop().await;
}
