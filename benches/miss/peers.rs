//! What asks the bucket without a server around it: the bare SDK, a signed request over plain hyper, and
//! Tilekeep's own origin. Each is a process that reads "from count" on its standard input, fetches so many
//! objects, and says so.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tilekeep::aws::{AccessKeys, Aws, AwsSettings, CredentialSource};
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{Lane, Origin as _, OriginReply, OriginRequest, Urgency};
use tilekeep::tile::{
    Access, Bounds, BrowserCaching, Delivery, Scale, TileCoord, TileFormat, Tileset, TilesetSpec,
};

use crate::{BUCKET, SECRET_KEY, key, place};

/// Somebody who can fetch.
#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
enum Peer {
    Sdk(aws_sdk_s3::Client),
    Signed {
        client: Client<HttpConnector, Empty<Bytes>>,
        endpoint: Arc<str>,
        identity: Arc<aws_smithy_runtime_api::client::identity::Identity>,
    },
    Origin(Arc<S3Origin>, Arc<Tileset>),
}

/// Until its standard input ends.
pub fn serve(name: &str, endpoint: &str, concurrency: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let peer = Peer::new(name, endpoint).await;
        for line in std::io::stdin().lock().lines() {
            let line = line.unwrap();
            let (from, count) = line.split_once(' ').unwrap();
            let (from, count): (usize, usize) = (from.parse().unwrap(), count.parse().unwrap());
            let next = Arc::new(AtomicUsize::new(from));
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..concurrency {
                let (peer, next) = (peer.clone(), next.clone());
                tasks.spawn(async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= from + count {
                            break;
                        }
                        assert!(peer.fetch(number).await > 1000);
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
            println!("done");
            std::io::stdout().flush().unwrap();
        }
    });
}

impl Peer {
    async fn new(name: &str, endpoint: &str) -> Self {
        let credentials = Credentials::new("bench", SECRET_KEY, None, None, "bench");
        match name {
            // As its own guide has it.
            "sdk" => {
                let config = aws_config::defaults(BehaviorVersion::latest())
                    .region(Region::new("us-east-1"))
                    .endpoint_url(endpoint)
                    .credentials_provider(credentials)
                    .load()
                    .await;
                let config = aws_sdk_s3::config::Builder::from(&config).force_path_style(true);
                Self::Sdk(aws_sdk_s3::Client::from_conf(config.build()))
            }
            "signed" => Self::Signed {
                client: Client::builder(TokioExecutor::new()).build_http(),
                endpoint: endpoint.into(),
                identity: Arc::new(credentials.into()),
            },
            "origin" => {
                let settings = AwsSettings {
                    region: Some("us-east-1".into()),
                    endpoint_url: Some(endpoint.into()),
                    path_style: true,
                    ..AwsSettings::default()
                };
                let keys = AccessKeys {
                    access_key_id: "bench".into(),
                    secret_access_key: SECRET_KEY.into(),
                    session_token: None,
                };
                let aws = Aws::load(settings, CredentialSource::Keys(keys))
                    .await
                    .unwrap();
                let origin = S3Origin::new(&aws.s3_client(None, &[]).unwrap());
                let tileset = Tileset::new(tileset()).unwrap();
                Self::Origin(Arc::new(origin), Arc::new(tileset))
            }
            _ => panic!("no peer is called {name}"),
        }
    }

    /// How many bytes came.
    async fn fetch(&self, number: usize) -> usize {
        match self {
            Self::Sdk(client) => {
                let get = client.get_object().bucket(BUCKET).key(key(number));
                let output = get.send().await.unwrap();
                output.body.collect().await.unwrap().into_bytes().len()
            }
            Self::Signed {
                client,
                endpoint,
                identity,
            } => {
                let uri = format!("{endpoint}/{BUCKET}/{}", key(number));
                #[allow(
                    clippy::disallowed_methods,
                    reason = "a signature says when it was made"
                )]
                let now = SystemTime::now();
                let params = v4::SigningParams::builder()
                    .identity(identity)
                    .region("us-east-1")
                    .name("s3")
                    .time(now)
                    .settings(SigningSettings::default())
                    .build()
                    .unwrap()
                    .into();
                let what = SignableRequest::new(
                    "GET",
                    &uri,
                    std::iter::once(("x-amz-content-sha256", "UNSIGNED-PAYLOAD")),
                    SignableBody::UnsignedPayload,
                )
                .unwrap();
                let (signed, _) = sign(what, &params).unwrap().into_parts();
                let mut request = http::Request::get(&uri)
                    .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
                    .body(Empty::new())
                    .unwrap();
                signed.apply_to_request_http1x(&mut request);
                let response = client.request(request).await.unwrap();
                assert!(response.status().is_success());
                response
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .len()
            }
            Self::Origin(origin, tileset) => {
                let (z, x, y) = place(number);
                let request = OriginRequest {
                    tileset: tileset.clone(),
                    coord: TileCoord::new(z, x, y).unwrap(),
                    scale: Scale::One,
                    validator: None,
                    deadline: Duration::from_secs(10),
                    urgency: Urgency::new(Lane::Interactive),
                };
                match origin.fetch(request).await {
                    Ok(OriginReply::Found(tile)) => tile.body.len(),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

fn tileset() -> TilesetSpec {
    TilesetSpec {
        name: "world".into(),
        bucket: BUCKET.into(),
        key: "world/{z}/{x}/{y}.png".into(),
        format: TileFormat::Png,
        minzoom: 0,
        maxzoom: 22,
        bounds: Bounds::WORLD,
        attribution: String::new(),
        version: None,
        missing: None,
        delivery: Delivery::default(),
        browser: BrowserCaching::default(),
        access: Access::default(),
        tilejson: serde_json::Map::new(),
    }
}
