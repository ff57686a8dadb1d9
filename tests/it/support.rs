//! A whole server on free ports, and a client that shows every header.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tilekeep::app::{Addresses, App, Provided};
use tilekeep::auth::{
    Claims, Grants, KeyMaterial, KeyRing, KeySettings, PasswordHash, Secret, User, Users,
};
use tilekeep::clock::{Clock, Timestamp};
use tilekeep::config::{CacheConfig, Config, Server, TilesetConfig};
use tilekeep::origin::Origin;
use tilekeep::shutdown::Trigger;
use tilekeep::tile::{Access, Bounds, BrowserCaching, Delivery, TileFormat, Tileset, TilesetSpec};
use tokio::task::JoinHandle;

/// When the tests' clocks start.
pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);

const KEY: &[u8] = b"a key for tests, of 32 bytes or more";

/// A tileset that tests change.
pub fn spec(name: &str, format: TileFormat) -> TilesetSpec {
    TilesetSpec {
        name: name.into(),
        bucket: "bucket".into(),
        key: format!("{name}/{{z}}/{{x}}/{{y}}.{{ext}}"),
        format,
        minzoom: 0,
        maxzoom: 5,
        bounds: Bounds::WORLD,
        attribution: String::new(),
        version: None,
        missing: None,
        delivery: Delivery::Proxy,
        browser: BrowserCaching::default(),
        access: Access::Session,
        tilejson: serde_json::Map::new(),
    }
}

/// A checked tileset.
pub fn tileset(spec: TilesetSpec) -> Arc<Tileset> {
    Arc::new(Tileset::new(spec).unwrap())
}

/// A configuration for free loopback ports and these tilesets, memory tier alone.
pub fn config(tilesets: impl IntoIterator<Item = TilesetSpec>) -> Config {
    let tilesets: Vec<_> = tilesets
        .into_iter()
        .map(|spec| TilesetConfig {
            tileset: tileset(spec),
            assume_role: None,
        })
        .collect();
    let first = tilesets.first().map(|t| t.tileset.name().to_owned());
    Config {
        server: Server {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            default_tileset: first,
            shutdown_grace: Duration::from_secs(5),
            ..Server::default()
        },
        cache: CacheConfig {
            memory: 64 << 20,
            ..CacheConfig::default()
        },
        tilesets,
        ..Config::default()
    }
}

/// A running server.
pub struct Running {
    pub addresses: Addresses,
    pub clock: Clock,
    trigger: Trigger,
    served: JoinHandle<()>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// A header's text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The claims of somebody who may see everything for a day.
pub fn claims() -> Claims {
    serde_json::from_value(serde_json::json!({
        "sub": "anna", "exp": START.secs() + 86_400, "tilesets": ["*"],
    }))
    .unwrap()
}

/// A token that the tests' servers believe.
pub fn token(claims: &Claims) -> String {
    keys().mint(claims).unwrap()
}

/// The keys behind [`token`].
pub fn keys() -> KeyRing {
    let material = KeyMaterial::Hs256 {
        secret: Secret::new(KEY),
    };
    KeyRing::new(vec![KeySettings {
        id: "test".into(),
        material,
    }])
    .unwrap()
}

/// Starts a server over an origin; `anna` logs in with `secret`.
pub async fn start(config: Config, origin: Arc<dyn Origin>) -> Running {
    start_with(
        config,
        Provided {
            origin: Some(origin),
            ..Provided::default()
        },
    )
    .await
}

/// Starts a server over whatever is provided.
pub async fn start_with(config: Config, provided: Provided) -> Running {
    let clock = Clock::manual(START);
    let user = |name: &str, password: &str| User {
        name: name.into(),
        hash: PasswordHash::of(password).unwrap(),
        grants: Grants {
            tilesets: vec!["*".into()],
            scope: Some("tiles explain".into()),
            maxzoom: None,
            bounds: None,
            quota: None,
        },
    };
    let users = Users::fixed(vec![user("anna", "secret"), user("bert", "other")]).unwrap();
    let provided = Provided {
        keys: Some(keys()),
        users: provided.users.or(Some(users)),
        clock: clock.clone(),
        ..provided
    };
    launch(config, provided).await
}

/// Starts a server over exactly what is provided, its clock and its keys too.
pub async fn launch(config: Config, provided: Provided) -> Running {
    let clock = provided.clock.clone();
    let app = App::start(config, provided).await.unwrap();
    let (addresses, trigger) = (app.addresses(), app.trigger());
    let served = tokio::spawn(async move { app.run().await.unwrap() });
    let client = Client::builder(TokioExecutor::new()).build_http();
    Running {
        addresses,
        clock,
        trigger,
        served,
        client,
    }
}

impl Running {
    /// Sends a request to the public side.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send_to(self.addresses.public, method, path, headers, body)
            .await
    }

    /// Sends a request to one of its sides.
    pub async fn send_to(
        &self,
        to: std::net::SocketAddr,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{to}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// GET with a bearer token for everything, and further headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {}", token(&claims()));
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        self.send(Method::GET, path, &all, "").await
    }

    /// GET with a bearer token for everything.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    /// GET with other claims.
    pub async fn get_as(&self, claims: &Claims, path: &str) -> Answer {
        let bearer = format!("Bearer {}", token(claims));
        self.send(Method::GET, path, &[("authorization", &bearer)], "")
            .await
    }

    /// Asks it to end, and does not wait.
    pub fn ask_to_end(&self) {
        self.trigger.fire();
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) {
        drop(self.client);
        self.trigger.fire();
        self.served.await.unwrap();
    }
}
