//! Where a token or a password could turn up, and what the time of an answer could tell.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tilekeep::app::Provided;
use tilekeep::auth::{Grants, IfExists, PasswordHash, User, Users, add_user};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::TileFormat;

use super::{FORM, JSON, SAME, TILE, cookie, log_in, server};
use crate::support::{self, claims, config, spec, token};

#[tokio::test]
async fn a_token_in_an_address_opens_nothing() {
    let server = server().await;
    let token = token(&claims());
    for path in [
        format!("{TILE}?token={token}"),
        format!("{TILE}?access_token={token}"),
        format!("{TILE}?tilekeep_session={token}"),
        format!("/world.json?access_token={token}"),
        format!("/session?access_token={token}"),
    ] {
        let answer = server.send(Method::GET, &path, &[], "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    // RFC 6750 §2.2 knows it in a body, too.
    let body = format!("access_token={token}");
    let answer = server
        .send(Method::POST, "/session", &[FORM, SAME], body)
        .await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    server.stop().await;
}

#[tokio::test]
async fn no_answer_repeats_a_token_or_a_password() {
    let server = server().await;
    let good = token(&claims());
    let bad = format!("{good}x");
    let secrets = [good.as_str(), "hunter2-hunter2"];
    let mut answers = Vec::new();
    for bearer in [
        format!("Bearer {bad}"),
        format!("Basic {bad}"),
        format!("Bearer {good} x"),
    ] {
        for path in [TILE, "/", "/world.json", "/session"] {
            answers.push(
                server
                    .send(Method::GET, path, &[("authorization", &bearer)], "")
                    .await,
            );
        }
    }
    let dead = format!("tilekeep_session={bad}");
    answers.push(
        server
            .send(Method::GET, "/session", &[("cookie", &dead)], "")
            .await,
    );
    answers.push(server.get("/session").await);
    answers.push(server.get("/").await);
    answers.push(server.get("/map").await);
    answers.push(log_in(&server, "hunter2-hunter2", "hunter2-hunter2", &[]).await);
    let wrong = "username=anna&password=hunter2-hunter2&next=/";
    answers.push(
        server
            .send(Method::POST, "/session", &[FORM, SAME], wrong)
            .await,
    );
    for answer in answers {
        let shown = format!(
            "{:?} {}",
            answer.headers,
            String::from_utf8_lossy(&answer.body)
        );
        for secret in secrets {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    // The one answer that has a token is the one that asked for it with one.
    let by_cookie = log_in(&server, "anna", "secret", &[]).await;
    let value = cookie(&by_cookie);
    let value = value.split_once('=').unwrap().1.to_owned();
    assert!(!String::from_utf8_lossy(&by_cookie.body).contains(&value));
    server.stop().await;
}

#[tokio::test]
async fn a_log_in_costs_one_hash_whoever_asks_and_answers_alike() {
    let user = |name: &str| User {
        name: name.into(),
        hash: PasswordHash::of("secret").unwrap(),
        grants: Grants::default(),
    };
    let users = Users::fixed(vec![user("anna")]).unwrap();
    let provided = Provided {
        origin: Some(Arc::new(MemoryOrigin::new())),
        users: Some(users.clone()),
        ..Provided::default()
    };
    let server = support::start_with(config([spec("world", TileFormat::Png)]), provided).await;
    let mut seen = Vec::new();
    for (n, name) in ["anna", "nobody", "Anna", "anna ", "anna\0"]
        .into_iter()
        .enumerate()
    {
        let answer = log_in(&server, name, "wrong", &[]).await;
        assert_eq!(users.hashes(), n as u64 + 1, "{name:?}");
        let mut headers = answer.headers.clone();
        headers.remove("date");
        seen.push((answer.status, format!("{headers:?}"), answer.body));
    }
    assert_eq!(seen[0].0, StatusCode::UNAUTHORIZED);
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    server.stop().await;
}

#[tokio::test]
async fn names_of_any_length_are_counted_by_address() {
    let server = server().await;
    let mut last = StatusCode::OK;
    for n in 0..21 {
        let long = format!("{}{n}", "x".repeat(300));
        last = log_in(&server, &long, "guess", &[]).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    server.stop().await;
}

const AWS_SECRET: &str = "an-aws-secret-of-the-tests";

/// The program, and every line of its log so far.
struct Program {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn serve(file: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tilekeep"))
            .args(["serve", "--config"])
            .arg(file)
            .env("TILEKEEP_LOG", "trace")
            .env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lines.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The public side's address, once it has been logged.
    async fn address(&self) -> String {
        for _ in 0..600 {
            let log = self.log();
            if let Some((_, rest)) = log.split_once("tiles and pages on ") {
                return rest.split("/,").next().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it did not start: {}", self.log());
    }
}

#[cfg(feature = "demo")]
#[tokio::test]
async fn the_log_has_nothing_of_what_is_signed_and_lent_at_any_level() {
    use tilekeep::aws::AccessKeys;
    use tilekeep::embedded_s3::{EmbeddedS3, EmbeddedS3Settings, RoleSettings};

    const ROLE: &str = "arn:aws:iam::000000000000:role/tiles";
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        keys: Some(AccessKeys {
            access_key_id: "AKIAEXAMPLE".into(),
            secret_access_key: AWS_SECRET.into(),
            session_token: None,
        }),
        roles: vec![RoleSettings {
            arn: ROLE.into(),
            external_id: None,
            policy: None,
            max_duration: Duration::from_hours(1),
        }],
        ..EmbeddedS3Settings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tilekeep.toml");
    let url = s3.endpoint_url();
    let text = format!(
        "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n\
         [session]\nkeys = [{{ id = 'k', secret = '{KEY}' }}]\n\
         [aws]\nregion = 'eu-west-1'\nendpoint_url = '{url}'\nsts_endpoint_url = '{url}'\n\
         assume_role = {{ arn = '{ROLE}' }}\n\
         [tilesets.world]\nbucket = 'b'\nkey = 'world/{{z}}/{{x}}/{{y}}.png'\ndelivery = 'redirect'\n"
    );
    std::fs::write(&file, text).unwrap();
    let program = Program::serve(&file);
    let base = program.address().await;
    let who = tilekeep::auth::Claims {
        exp: tilekeep::clock::Clock::System.now().secs() + 86_400,
        scope: Some("tiles sign credentials".into()),
        ..claims()
    };
    let secret = tilekeep::auth::Secret::new(KEY);
    let material = tilekeep::auth::KeyMaterial::Hs256 { secret };
    let id = "k".to_owned();
    let keys = tilekeep::auth::KeyRing::new(vec![tilekeep::auth::KeySettings { id, material }]);
    let bearer = format!("Bearer {}", keys.unwrap().mint(&who).unwrap());
    let client = Client::builder(TokioExecutor::new()).build_http();
    let send = async |method: &str, path: &str, body: &'static str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header("authorization", &bearer);
        let body = Full::new(bytes::Bytes::from(body));
        let response = client.request(request.body(body).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        (head, body.collect().await.unwrap().to_bytes())
    };
    let (_, signed) = send("POST", "/sign/world/0/0/0.png", "").await;
    let (redirect, _) = send("GET", "/world/0/0/0.png", "").await;
    let (head, lent) = send("POST", "/credentials", r#"{"tileset":"world"}"#).await;
    assert_eq!(redirect.status, StatusCode::FOUND);
    assert_eq!(head.status, StatusCode::OK, "{lent:?}");
    let signed: serde_json::Value = serde_json::from_slice(&signed).unwrap();
    let lent: serde_json::Value = serde_json::from_slice(&lent).unwrap();
    let query = |url: &str| url.rsplit_once("X-Amz-Signature=").unwrap().1.to_owned();
    for _ in 0..200 {
        if program.log().contains("were lent") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = program.log();
    assert!(log.contains("were lent") && log.contains("anna"), "{log}");
    for secret in [
        &query(signed["url"].as_str().unwrap())[..64],
        &query(redirect.headers["location"].to_str().unwrap())[..64],
        lent["SecretAccessKey"].as_str().unwrap(),
        lent["SessionToken"].as_str().unwrap(),
        lent["AccessKeyId"].as_str().unwrap(),
        AWS_SECRET,
        KEY,
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
    s3.shutdown().await;
}

const KEY: &str = "the-signing-key-of-the-tests-0123456789";
const PASSWORD: &str = "correct-horse-battery";

/// A configuration whose origin is out of reach, and its users; `anna` has the password.
fn configured(folder: &Path) -> PathBuf {
    let users = folder.join("users.toml");
    let grants = Grants {
        tilesets: vec!["*".into()],
        ..Grants::default()
    };
    add_user(&users, "anna", PASSWORD, &grants, IfExists::Refuse).unwrap();
    let file = folder.join("tilekeep.toml");
    let text = format!(
        "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\n\
         [session]\nkeys = [{{ id = 'k', secret = '{KEY}' }}]\n\
         [login]\nusers_file = 'users.toml'\n\
         [aws]\nregion = 'eu-west-1'\nendpoint_url = 'http://127.0.0.1:1'\n\
         [origin]\ndeadline = '2s'\n\
         [tilesets.world]\nbucket = 'b'\nkey = '{{z}}/{{x}}/{{y}}.png'\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn the_log_has_no_token_and_no_password_at_any_level() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::serve(&configured(folder.path()));
    let base = program.address().await;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let send = async |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(bytes::Bytes::from(body.to_owned()));
        let response = client.request(request.body(body).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        body.collect().await.unwrap();
        head
    };
    let log_in = async |user: &str, password: &str| {
        let body = serde_json::json!({ "username": user, "password": password }).to_string();
        send("POST", "/session", &[JSON], &body).await
    };
    let head = log_in("anna", PASSWORD).await;
    assert_eq!(head.status, StatusCode::OK);
    let set = head.headers["set-cookie"].to_str().unwrap().to_owned();
    let cookie = set.split(';').next().unwrap();
    let token = cookie.split_once('=').unwrap().1;
    // Mistyped: the password as a name, or nearly right, or in a body that breaks off.
    log_in(PASSWORD, "x").await;
    log_in("anna", "wrong-horse-battery").await;
    let broken = format!("{{\"username\":\"anna\",\"password\":\"{PASSWORD}\"");
    send("POST", "/session", &[JSON], &broken).await;
    let (bearer, forged) = (format!("Bearer {token}"), format!("Bearer {token}x"));
    let in_address = format!("{TILE}?access_token={token}");
    let with_cookie = [("cookie", cookie), SAME];
    send("GET", TILE, &with_cookie, "").await;
    send("GET", TILE, &[("authorization", &bearer)], "").await;
    send("GET", "/session", &[("authorization", &forged)], "").await;
    send("GET", &in_address, &with_cookie, "").await;
    send("POST", "/session/renew", &with_cookie, "").await;
    send("DELETE", "/session", &with_cookie, "").await;

    for _ in 0..200 {
        if program.log().contains("logged out") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = program.log();
    assert!(
        log.contains("logged in") && log.contains("logged out"),
        "{log}"
    );
    let signature = token.rsplit('.').next().unwrap();
    for secret in [KEY, PASSWORD, "wrong-horse", signature, AWS_SECRET, cookie] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}
