//! What a program asks with (`src/client`): both protocols, with and without TLS, and its bounds.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tilekeep::client::{
    Client, ClientErrorKind, Connection, Credential, CredentialError, Protocol, ServerUrl,
};
use tilekeep::config::Tls;
use tilekeep::origin::failing::{FailingOrigin, Fault, MemoryOrigin};
use tilekeep::tile::{Scale, TileCoord, TileFormat};

use crate::certificate::{certificate, trusting};
use crate::support::{self, Running, claims, config, spec, tileset, token};

const PATIENCE: Duration = Duration::from_secs(20);
const TILE: &str = "/world/3/4/2.png";

fn origin() -> Arc<FailingOrigin<MemoryOrigin>> {
    let origin = MemoryOrigin::new();
    let tileset = tileset(spec("world", TileFormat::Png));
    let coord = TileCoord::new(3, 4, 2).unwrap();
    origin.put(&tileset, coord, Scale::One, vec![7; 300_000], None);
    Arc::new(FailingOrigin::new(origin))
}

fn url(server: &Running) -> ServerUrl {
    let port = server.addresses.public.port();
    format!("http://127.0.0.1:{port}").parse().unwrap()
}

async fn get(connection: &mut Connection, who: &Credential) -> (StatusCode, usize) {
    let answer = connection.get(TILE, who, &HeaderMap::new(), PATIENCE).await;
    let answer = answer.unwrap();
    let status = answer.status;
    (status, answer.collect(1 << 20).await.unwrap().len())
}

#[tokio::test]
async fn a_token_or_a_log_in_opens_tiles_over_either_protocol() {
    let server = support::start(config([spec("world", TileFormat::Png)]), origin()).await;
    let bearer = Credential::token(&token(&claims())).unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = Client::new(url(&server), protocol);
        let mut connection = client.connect(PATIENCE).await.unwrap();
        let nobody = get(&mut connection, &Credential::Nobody).await;
        assert_eq!(nobody.0, StatusCode::UNAUTHORIZED);
        let whole = (StatusCode::OK, 300_000);
        assert_eq!(get(&mut connection, &bearer).await, whole);
        let cookie = Credential::log_in(&mut connection, "anna", "secret", PATIENCE).await;
        assert_eq!(get(&mut connection, &cookie.unwrap()).await, whole);
        let refused = Credential::log_in(&mut connection, "anna", "hunter2", PATIENCE).await;
        let Err(error @ CredentialError::Refused { .. }) = refused else {
            panic!("refused");
        };
        let text = error.to_string();
        assert!(text.contains("anna") && text.contains("401") && !text.contains("hunter2"));
        assert_eq!(connection.share().is_some(), protocol == Protocol::Http2);
    }
    server.stop().await;
}

#[tokio::test]
async fn waits_and_bodies_are_bounded() {
    let origin = origin();
    let served: Arc<dyn tilekeep::origin::Origin> = origin.clone();
    let server = support::start(config([spec("world", TileFormat::Png)]), served).await;
    let bearer = Credential::token(&token(&claims())).unwrap();
    let client = Client::new(url(&server), Protocol::Http1);
    let ask = async |deadline| {
        let mut connection = client.connect(PATIENCE).await.unwrap();
        let none = HeaderMap::new();
        connection.get(TILE, &bearer, &none, deadline).await
    };
    let small = ask(PATIENCE).await.unwrap().collect(1000).await;
    assert_eq!(small.unwrap_err().kind, ClientErrorKind::TooLarge);
    let discarded = ask(PATIENCE).await.unwrap().discard().await;
    assert_eq!(discarded.unwrap(), 300_000);

    origin.fail_always(Fault::Hang);
    let mut connection = client.connect(PATIENCE).await.unwrap();
    let late = connection
        .get(
            "/world/3/4/3.png",
            &bearer,
            &HeaderMap::new(),
            Duration::from_millis(50),
        )
        .await;
    let Err(late) = late else { panic!("late") };
    assert_eq!(late.kind, ClientErrorKind::Deadline);
    origin.heal();

    let gone = url(&server);
    server.ask_to_end();
    server.stop().await;
    let refused = Client::new(gone.clone(), Protocol::Http1)
        .connect(PATIENCE)
        .await;
    let Err(refused) = refused else {
        panic!("refused")
    };
    assert_eq!(refused.kind, ClientErrorKind::Unreachable);
    assert!(refused.detail.contains(&gone.to_string()), "{refused}");
}

#[tokio::test]
async fn over_tls_the_certificate_is_checked_and_http_2_agreed_on() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(folder.path());
    let mut config = config([spec("world", TileFormat::Png)]);
    config.server.tls = Some(Tls {
        cert: cert.clone(),
        key,
    });
    let server = support::start(config, origin()).await;
    let port = server.addresses.public.port();
    let url: ServerUrl = format!("https://localhost:{port}").parse().unwrap();
    let bearer = Credential::token(&token(&claims())).unwrap();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let client = Client::with_tls(url.clone(), protocol, Some(trusting(&cert)));
        let mut connection = client.connect(PATIENCE).await.unwrap();
        let got = get(&mut connection, &bearer).await;
        assert_eq!(got, (StatusCode::OK, 300_000));
    }
    let stranger = Client::new(url, Protocol::Http2).connect(PATIENCE).await;
    let Err(stranger) = stranger else {
        panic!("not trusted")
    };
    assert_eq!(stranger.kind, ClientErrorKind::Tls);
    server.stop().await;
}
