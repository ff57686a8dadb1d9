//! `tilekeep demo`: an embedded S3 endpoint with a private bucket of sample maps, and the real server
//! in front of it. The tiles travel as they would from AWS: signed `GetObject` over HTTP.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{App, AppError, Provided};
use crate::auth::{
    Grants, KeyMaterial, KeyRing, KeySettings, PasswordHash, Scope, Secret, User, Users,
};
use crate::aws::CredentialSource;
use crate::config::{AssumeRole, Aws, CacheConfig, Config, Server, TilesetConfig};
use crate::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, RoleSettings,
};
use crate::tile::{Access, Bounds, BrowserCaching, Delivery, TileFormat, Tileset, TilesetSpec};

const BUCKET: &str = "tilekeep-demo";
/// The server reads with it, and `POST /credentials` hands out sessions of it.
const ROLE: &str = "arn:aws:iam::000000000000:role/tilekeep-demo";
const DISK_BYTES: u64 = 64 << 20;
const MEMORY_BYTES: u64 = 64 << 20;

/// What the demo was asked for.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The public side; loopback.
    pub listen: SocketAddr,
    /// The admin side; loopback.
    pub admin_listen: SocketAddr,
    /// Where the cache stays between runs; none: a temporary folder.
    pub data_dir: Option<PathBuf>,
}

/// Starts everything, prints where it is, and serves until it is asked to end.
pub async fn demo(options: DemoOptions) -> Result<(), AppError> {
    let temporary = match &options.data_dir {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(|e| failed("a temporary folder", &e))?),
    };
    let folder = match (&options.data_dir, &temporary) {
        (Some(folder), _) => folder.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => Path::new("."),
    };
    std::fs::create_dir_all(folder).map_err(|e| failed(&folder.display().to_string(), &e))?;

    let settings = EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Samples)],
        roles: vec![RoleSettings {
            arn: ROLE.into(),
            external_id: None,
            policy: None,
            max_duration: Duration::from_hours(12),
        }],
        ..EmbeddedS3Settings::default()
    };
    let s3 = EmbeddedS3::start(settings)
        .await
        .map_err(|e| failed("the embedded S3 endpoint", &e))?;
    let provided = Provided {
        credentials: CredentialSource::Keys(s3.keys().clone()),
        keys: Some(key_ring(folder, options.data_dir.is_some())?),
        users: Some(Users::fixed(vec![demo_user()?])?),
        demo: true,
        ..Provided::default()
    };
    let app = App::start(config(&options, folder, &s3), provided).await?;
    let folder = temporary.as_ref().map(|folder| folder.path().to_owned());
    let parting = move || folder.as_deref().map_or((), remove);
    app.trigger()
        .on_signals(parting)
        .map_err(AppError::Signals)?;
    announce(&app, &s3);
    let ended = app.run().await;
    s3.shutdown().await;
    ended
}

/// Removes the temporary folder of a demo that leaves at once. The disk tier may still be writing there, so
/// what came while the rest went is removed by the next try.
fn remove(folder: &Path) {
    for _ in 0..10 {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
            _ => return,
        }
    }
    tracing::warn!(folder = %folder.display(), "the temporary folder could not be removed");
}

fn failed(what: &str, error: &dyn std::error::Error) -> AppError {
    AppError::Demo(format!("{what}: {error}"))
}

/// On stdout, for a person who has just typed the command.
fn announce(app: &App, s3: &EmbeddedS3) {
    let addresses = app.addresses();
    let (public, admin) = (addresses.public, addresses.admin);
    let text = format!(
        "\n  Map          http://{public}/map\n  \
           Tilesets     http://{public}/\n  \
           Log in as    demo / demo\n\n  \
           Dashboard    http://{admin}/\n  \
           Metrics      http://{admin}/metrics\n  \
           Private S3   {}  (bucket {BUCKET}; try it without keys: 403)\n\n  \
           Ctrl-C ends it.\n\n",
        s3.endpoint_url()
    );
    // Without a stdout there is nobody to tell.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// With a folder that stays, sessions stay too.
fn key_ring(folder: &Path, stays: bool) -> Result<KeyRing, AppError> {
    if !stays {
        return Ok(KeyRing::ephemeral()?);
    }
    let path = folder.join("session.key");
    let trouble = |error: std::io::Error| failed(&path.display().to_string(), &error);
    let secret = match std::fs::read(&path) {
        Ok(secret) => secret,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            use std::os::unix::fs::OpenOptionsExt as _;
            let secret: [u8; 32] = crate::auth::random()?;
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(trouble)?;
            file.write_all(&secret).map_err(trouble)?;
            secret.to_vec()
        }
        Err(error) => return Err(trouble(error)),
    };
    let material = KeyMaterial::Hs256 {
        secret: Secret::new(secret),
    };
    KeyRing::new(vec![KeySettings {
        id: "demo".into(),
        material,
    }])
    .map_err(AppError::Keys)
}

fn demo_user() -> Result<User, AppError> {
    let scopes: Vec<&str> = Scope::ALL.iter().map(|scope| scope.name()).collect();
    Ok(User {
        name: "demo".into(),
        hash: PasswordHash::of("demo").map_err(|e| failed("the demo's password", &e))?,
        grants: Grants {
            tilesets: vec!["*".into()],
            scope: Some(scopes.join(" ")),
            maxzoom: None,
            bounds: None,
            quota: None,
        },
    })
}

fn config(options: &DemoOptions, folder: &Path, s3: &EmbeddedS3) -> Config {
    Config {
        server: Server {
            listen: options.listen,
            admin_listen: options.admin_listen,
            default_tileset: Some("world".into()),
            ..Server::default()
        },
        cache: CacheConfig {
            memory: MEMORY_BYTES,
            disk: DISK_BYTES,
            disk_path: Some(folder.join("cache")),
            ..CacheConfig::default()
        },
        aws: Aws {
            endpoint_url: Some(s3.endpoint_url()),
            sts_endpoint_url: Some(s3.endpoint_url()),
            assume_role: Some(AssumeRole {
                arn: ROLE.into(),
                external_id: None,
                session_name: "tilekeep".into(),
                duration: Duration::from_hours(1),
            }),
            path_style: true,
            ..Aws::default()
        },
        tilesets: tilesets(),
        ..Config::default()
    }
}

fn tilesets() -> Vec<TilesetConfig> {
    let values = json!({
        "description": "Kilometres to the coast, encoded in the pixels",
        // MapLibre's own words for a raster whose pixels are numbers.
        "encoding": "mapbox",
        "value": { "label": "Distance to the coast", "unit": "km", "min": -2700, "max": 1800 },
    });
    let countries = json!({ "vector_layers": [
        { "id": "countries", "fields": {
            "name": "String", "iso_a2": "String", "iso_a3": "String", "iso_n3": "String",
            "colour": "Number",
        } },
        { "id": "borders", "fields": {} },
        { "id": "labels", "fields": { "name": "String", "iso_a2": "String", "rank": "Number" } },
    ] });
    [
        ("world", TileFormat::Png, json!({})),
        ("values", TileFormat::Png, values),
        ("countries", TileFormat::Mvt, countries),
    ]
    .into_iter()
    .filter_map(|(name, format, members)| tileset(name, format, members))
    .collect()
}

fn tileset(name: &str, format: TileFormat, members: Value) -> Option<TilesetConfig> {
    let tilejson = match members {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    let tileset = Tileset::new(TilesetSpec {
        name: name.into(),
        bucket: BUCKET.into(),
        key: format!("{name}/{{z}}/{{x}}/{{y}}.{{ext}}"),
        format,
        minzoom: 0,
        maxzoom: 5,
        bounds: Bounds::WORLD,
        attribution: "Made with Natural Earth".into(),
        version: None,
        missing: None,
        delivery: Delivery::Proxy,
        browser: BrowserCaching::default(),
        access: Access::Session,
        tilejson,
    });
    let tileset = Arc::new(tileset.ok()?);
    Some(TilesetConfig {
        tileset,
        assume_role: None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_three_tilesets_are_sound() {
        let names: Vec<_> = super::tilesets()
            .iter()
            .map(|t| t.tileset.name().to_owned())
            .collect();
        assert_eq!(names, ["world", "values", "countries"]);
    }
}
