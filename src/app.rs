//! The composition root: the only place that knows every part.
//!
//! [`App::start`] puts a checked configuration together and listens; [`App::run`] serves until the
//! shutdown. `tilekeep serve` and `tilekeep demo` differ only in where keys, users and AWS
//! credentials come from ([`Provided`]).

mod aws_helpers;
mod cloudfront;
mod cluster;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod events;
mod give_way;
mod login;
pub mod needs;
mod origin;
pub mod publish;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::task::JoinHandle;

#[cfg(feature = "demo")]
pub use self::demo::{DemoOptions, demo};
pub use self::doctor::{doctor, patient};
pub use self::give_way::give_way;
use self::origin::FromAws;
use self::tls::TlsError;
use crate::auth::{
    CookieError, KeyError, KeyMaterial, KeyRing, KeySettings, NoRandomness, OpenError, QuotaClass,
    QuotaLimit, Quotas, Scheme, Secret, SessionSettings, Sessions, Users, UsersError,
};
use crate::aws::events::Events;
use crate::aws::{AwsError, CredentialSource, Timing};
use crate::cache::{
    DiskOpenError, DiskSettings, DiskTier, FreshnessPolicy, Guesses, MemoryTier, Speculation,
    TileCache, TileCacheParts,
};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::http::admin::{self, AdminParts};
use crate::http::background::Background;
use crate::http::cores::{self, Cores, CoresEnded};
use crate::http::cors::Cors;
use crate::http::front::{Front, FrontSettings};
use crate::http::handling::Handling;
use crate::http::places::{ConnectionLimits, Places};
use crate::http::public::{PublicParts, PublicSide};
use crate::http::request_head::RequestHead;
use crate::http::server::{Server, Service as _};
use crate::http::site;
use crate::metrics::{Label as _, Metrics};
use crate::origin::Origin;
use crate::shutdown::{self, Shutdown, Trigger};
use crate::tile::Tilesets;

/// Verified tokens that are remembered: some 1 KB each.
const KNOWN_TOKENS: usize = 16_384;

/// The file of ended sessions, beside the users file or in the cache's folder.
const ENDED_SESSIONS: &str = "tilekeep-ended-sessions";

/// For requests on the admin side when the public side has ended: it has had its own grace by then.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// How long another process may hold the cache's folder before that is an error.
const FOLDER_PATIENCE: Duration = Duration::from_secs(3);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address is taken or not this machine's.
    #[error("[server] {key} = \"{address}\": {source}; is another process listening there?")]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// AWS settings that cannot work.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The disk tier's folder.
    #[error("[cache] disk_path: {0}")]
    Disk(#[from] DiskOpenError),
    /// The session keys.
    #[error("[session] keys: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Keys(Vec<KeyError>),
    /// The ended sessions.
    #[error(transparent)]
    Sessions(#[from] OpenError),
    /// The users file.
    #[error("[login] users_file: {0}")]
    Users(#[from] UsersError),
    /// The session cookie.
    #[error("[session] {0}")]
    Cookie(#[from] CookieError),
    /// TLS.
    #[error("[server] tls: {0}")]
    Tls(#[from] TlsError),
    /// The key that signs for CloudFront.
    #[error("[cloudfront] private_key {0}")]
    CloudFront(#[from] crate::aws::cloudfront::SigningKeyError),
    /// TLS to Redis.
    #[error("[cluster] {0}")]
    Cluster(#[from] crate::cluster::TlsError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// Signals cannot be caught.
    #[error("the system's signals cannot be listened to: {0}")]
    Signals(io::Error),
    /// The public side ended without having been asked to.
    #[error(
        "the public side ended by itself; the log says why: often too few file descriptors or threads (LimitNOFILE, TasksMax)"
    )]
    Cores,
    /// The demo's own parts.
    #[error("{0}")]
    Demo(String),
}

/// What the configuration file does not hold, or holds elsewhere.
#[derive(Default)]
pub struct Provided {
    /// Where the first AWS credentials come from.
    pub credentials: CredentialSource,
    /// How early and how patiently AWS credentials are renewed.
    pub timing: Timing,
    /// Keys instead of the configuration's.
    pub keys: Option<KeyRing>,
    /// Users instead of the users file's.
    pub users: Option<Users>,
    /// Whether this is the demo.
    pub demo: bool,
    /// An origin instead of S3.
    pub origin: Option<Arc<dyn Origin>>,
    /// The time.
    pub clock: Clock,
}

/// A server that listens.
pub struct App {
    cores: Cores,
    public: Server,
    public_side: PublicSide,
    admin_listener: TcpListener,
    admin: Server,
    admin_side: axum::Router,
    cache: TileCache,
    quotas: Arc<Quotas>,
    clock: Clock,
    shutdown: Trigger,
    admin_shutdown: Trigger,
    ending: Shutdown,
    grace: Duration,
    addresses: Addresses,
    metrics: Arc<Metrics>,
    sharing: Option<JoinHandle<()>>,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The public side.
    pub public: SocketAddr,
    /// The admin side.
    pub admin: SocketAddr,
    /// Whether the public side speaks TLS.
    pub tls: bool,
}

/// `tilekeep serve`: starts, says where it listens, and serves until it is asked to end.
pub async fn serve(config: Config) -> Result<(), AppError> {
    let app = App::start(config, Provided::default()).await?;
    app.shutdown.on_signals(|| {}).map_err(AppError::Signals)?;
    let Addresses { public, admin, tls } = app.addresses;
    let scheme = if tls { "https" } else { "http" };
    tracing::info!(
        "tiles and pages on {scheme}://{public}/, metrics and health on http://{admin}/"
    );
    app.run().await
}

impl App {
    /// Puts the parts together and listens. Nothing is answered before [`App::run`].
    pub async fn start(config: Config, provided: Provided) -> Result<Self, AppError> {
        let clock = provided.clock;
        let metrics = Arc::new(Metrics::new());
        let (shutdown, ending) = shutdown::channel();
        let tls = config.server.tls.as_ref().map(tls::acceptor).transpose()?;
        let (listen, admin_listen) = (config.server.listen, config.server.admin_listen);
        let public = Cores::listen(listen).map_err(taken("listen", listen))?;
        let admin =
            Cores::listen_once(admin_listen).map_err(taken("admin_listen", admin_listen))?;
        let addresses = Addresses {
            public: public.address(),
            admin: admin.local_addr().unwrap_or(admin_listen),
            tls: tls.is_some(),
        };

        let asking = (provided.credentials, provided.timing);
        let origin = origin::open(&config, provided.origin, asking, &clock, &metrics);
        let FromAws {
            origin,
            events,
            identities,
            helpers,
        } = origin.await?;
        let cache = tile_cache(&config, origin, clock.clone(), metrics.clone()).await?;
        let (others, link) = cluster::open(&config, &clock, &metrics)?.unzip();
        let quotas = Arc::new(quotas(&config, &metrics)?);
        let sessions = sessions(&config, provided.keys, quotas.clone(), &clock)?
            .announcing_to(others.as_ref().map(cluster::announcing));
        let users = users(&config, provided.users, &quotas)?;
        let parts = Arc::new(PublicParts {
            tilesets: tilesets(&config),
            sessions: Arc::new(sessions),
            front: front(&config, addresses)?,
            cache: cache.clone(),
            cors: cors(&config),
            background: Background::new(cores::count()),
            cloudfront: cloudfront::cloudfront(&config)?,
            missing: config.cache.missing,
            clock: clock.clone(),
            metrics: metrics.clone(),
            helpers,
        });
        let site = login::site(&config, parts.clone(), users, provided.demo)?;
        let admin_parts = AdminParts {
            metrics: metrics.clone(),
            cache: cache.clone(),
            quotas: quotas.clone(),
            tilesets: parts.tilesets.clone(),
            clock: clock.clone(),
            events: events.as_ref().map(Events::flow),
            others: others.clone(),
            shutdown: ending.clone(),
            listen: addresses.admin,
            token: config
                .server
                .admin_token
                .as_ref()
                .map(|token| Secret::new(token.expose())),
            identities,
            looks: admin::Looks::default(),
        };
        let grace = config.server.shutdown_grace;
        let (admin_shutdown, admin_ending) = shutdown::channel();
        let sharing = match others.as_ref().zip(link) {
            Some(ends) => Some(cluster::start(ends, here(&parts), admin_ending.clone()).await),
            None => None,
        };
        let dropping = events::Dropping {
            cache: cache.clone(),
            tilesets: parts.tilesets.clone(),
            others,
        };
        events::start(events, dropping, ending.clone());
        let server = |tls, shutdown, grace, proxies, metrics| Server {
            tls,
            shutdown,
            grace,
            places: Places::new(ConnectionLimits::new(proxies)),
            metrics,
            clock: clock.clone(),
        };
        let proxies = config.server.trusted_proxies.clone();
        Ok(Self {
            cores: public,
            public: server(tls, ending.clone(), grace, proxies, Some(metrics.clone())),
            public_side: PublicSide::new(parts, site::router(Arc::new(site))),
            admin_listener: admin,
            admin: server(None, admin_ending, ADMIN_GRACE, Vec::new(), None),
            admin_side: admin::router(Arc::new(admin_parts)),
            cache,
            quotas,
            clock,
            shutdown,
            admin_shutdown,
            ending,
            grace,
            addresses,
            metrics,
            sharing,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Answers a request as if it had come to the public side.
    pub fn handle<B>(&self, peer: SocketAddr, request: Request<B>) -> Handling
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        self.public_side.handle(peer, request)
    }

    /// Answers a head with nothing behind it as if it had come to the public side.
    pub fn handle_head(&self, peer: SocketAddr, head: &RequestHead<'_>) -> Handling {
        self.public_side.handle_head(peer, head)
    }

    /// What asks it to end.
    pub fn trigger(&self) -> Trigger {
        self.shutdown.clone()
    }

    /// Its counters.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Its caches.
    pub fn cache(&self) -> TileCache {
        self.cache.clone()
    }

    /// Serves until the shutdown; then finishes open requests and queued disk writes within the grace.
    pub async fn run(self) -> Result<(), AppError> {
        let (grace, mut ending) = (self.grace, self.ending.clone());
        let public_side = self.public_side;
        let admin_side = self.admin_side;
        let service = || public_side.clone();
        let public = self.cores.run(self.public, &self.shutdown, service);
        let admin = self.admin.run(self.admin_listener, move |_, request| {
            let answer = admin::answer(admin_side.clone(), request);
            Handling::later(async move { answer.await.into() })
        });
        // The admin side stays until the public side has ended, so that probes hear `503` meanwhile.
        let ended = async {
            let ended = public.await;
            self.admin_shutdown.fire();
            ended
        };
        // One grace for all: what requests have used of it, disk writes have no more.
        let asked = async {
            ending.asked().await;
            tokio::time::Instant::now()
        };
        let sweeping = sweep(&self.quotas, &self.clock, self.ending.clone());
        let (asked, ended, ..) = tokio::join!(asked, ended, admin, sweeping);
        // It has ended with the admin side; only what it was just writing down may take a moment.
        if let Some(sharing) = self.sharing {
            let _ = tokio::time::timeout(Duration::from_secs(1), sharing).await;
        }
        let left = grace.saturating_sub(asked.elapsed());
        if let Some(disk) = self.cache.disk() {
            disk.close(left.max(Duration::from_secs(1))).await;
        }
        tracing::info!("ended");
        match ended {
            CoresEnded::AsAsked => Ok(()),
            CoresEnded::ByThemselves => Err(AppError::Cores),
        }
    }
}

fn taken(key: &'static str, address: SocketAddr) -> impl FnOnce(io::Error) -> AppError {
    move |source| AppError::Listen {
        key,
        address,
        source,
    }
}

async fn tile_cache(
    config: &Config,
    origin: Arc<dyn Origin>,
    clock: Clock,
    metrics: Arc<Metrics>,
) -> Result<TileCache, AppError> {
    let cache = &config.cache;
    let disk = match &cache.disk_path {
        Some(path) if cache.disk > 0 => Some(disk_tier(path, cache.disk).await?),
        _ => None,
    };
    let parts = TileCacheParts {
        memory: (cache.memory > 0).then(|| MemoryTier::new(cache.memory)),
        disk,
        policy: FreshnessPolicy {
            fresh: cache.fresh,
            stale_while_revalidate: cache.stale_while_revalidate,
            stale_if_error: cache.stale_if_error,
            missing: cache.missing,
        },
        deadline: config.origin.deadline,
        speculation: (config.origin.speculative > 0)
            .then(|| Speculation::new(Guesses::of(&config.origin.guess), metrics.clone())),
        clock,
        metrics,
    };
    Ok(TileCache::new(parts, origin))
}

/// Takes the disk tier's folder. A server that is being replaced takes a moment to let go of it.
async fn disk_tier(path: &Path, capacity: u64) -> Result<DiskTier, AppError> {
    let settings = DiskSettings {
        path: path.to_owned(),
        capacity,
    };
    let until = tokio::time::Instant::now() + FOLDER_PATIENCE;
    loop {
        match DiskTier::open(settings.clone()) {
            Err(DiskOpenError::Held { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            opened => return Ok(opened?),
        }
    }
}

fn sessions(
    config: &Config,
    keys: Option<KeyRing>,
    quotas: Arc<Quotas>,
    clock: &Clock,
) -> Result<Sessions, AppError> {
    let keys = match keys {
        Some(keys) => keys,
        None if config.session.keys.is_empty() => KeyRing::ephemeral()?,
        None => {
            let keys = config.session.keys.iter().map(key_settings).collect();
            KeyRing::new(keys).map_err(AppError::Keys)?
        }
    };
    let revocations = ended_sessions(config);
    if revocations.is_none() {
        tracing::warn!(
            "sessions ended by their people come back at a restart: with [login] users_file or [cache] disk_path there is a place to remember them"
        );
    }
    let settings = SessionSettings {
        keys,
        ttl: config.session.ttl,
        max_ttl: config.session.max_ttl,
        revocations,
        known_tokens: KNOWN_TOKENS,
        quotas,
    };
    Ok(Sessions::open(settings, clock.now())?)
}

fn quotas(config: &Config, metrics: &Metrics) -> Result<Quotas, NoRandomness> {
    let class = |class: &config::QuotaConfig| {
        // From zero on, so that an alert sees the first refusal.
        for limit in QuotaLimit::ALL {
            metrics.quota_refusals.add(&class.name, *limit, 0);
        }
        QuotaClass {
            name: class.name.clone(),
            requests_per_second: class.requests_per_second,
            burst: class.burst,
            distinct_tiles_per_hour: class.distinct_tiles_per_hour,
            background: class.background,
        }
    };
    Quotas::new(config.quotas.iter().map(class).collect())
}

/// What other nodes' news has its effect on.
fn here(parts: &PublicParts) -> cluster::Here {
    cluster::Here {
        sessions: parts.sessions.clone(),
        cache: parts.cache.clone(),
        tilesets: parts.tilesets.clone(),
        metrics: parts.metrics.clone(),
    }
}

/// Has the quotas forget what no longer counts, once a minute until the end.
async fn sweep(quotas: &Quotas, clock: &Clock, mut ending: Shutdown) {
    const PAUSE: Duration = Duration::from_mins(1);
    while tokio::time::timeout(PAUSE, ending.asked()).await.is_err() {
        quotas.sweep(clock.uptime());
    }
}

/// Where ended sessions are remembered.
fn ended_sessions(config: &Config) -> Option<PathBuf> {
    let beside_users = config
        .login
        .users_file
        .as_ref()
        .and_then(|file| file.parent());
    let in_cache = config
        .cache
        .disk_path
        .as_deref()
        .filter(|_| config.cache.disk > 0);
    beside_users
        .or(in_cache)
        .map(|folder| folder.join(ENDED_SESSIONS))
}

/// A configured key, as the sessions take it.
pub fn key_settings(key: &config::SessionKey) -> KeySettings {
    let material = match &key.material {
        config::KeyMaterial::Secret(secret) => KeyMaterial::Hs256 {
            secret: Secret::new(secret.expose()),
        },
        config::KeyMaterial::Ed25519 { public, private } => KeyMaterial::Ed25519 {
            public_key: Secret::new(public.as_str()),
            private_key: private
                .as_ref()
                .map(|private| Secret::new(private.expose())),
        },
    };
    KeySettings {
        id: key.id.clone(),
        material,
    }
}

/// The people of the log-in page, whose classes must be among the quotas'.
fn users(
    config: &Config,
    provided: Option<Users>,
    quotas: &Quotas,
) -> Result<Option<Users>, UsersError> {
    match (provided, &config.login.users_file) {
        (Some(users), _) => Ok(Some(users)),
        (None, Some(path)) => Users::open(path, quotas.names()).map(Some),
        (None, None) => Ok(None),
    }
}

fn tilesets(config: &Config) -> Tilesets {
    let all = config.tilesets.iter().map(|t| t.tileset.clone()).collect();
    Tilesets::new(all, config.server.default_tileset.as_deref())
}

fn front(config: &Config, addresses: Addresses) -> Result<Front, CookieError> {
    let public = config.server.public_url.as_ref().map(|url| {
        let scheme = if url.is_https() {
            Scheme::Https
        } else {
            Scheme::Http
        };
        let authority = url
            .as_str()
            .split_once("://")
            .map_or("", |(_, authority)| authority);
        (scheme, authority.to_owned())
    });
    Front::new(FrontSettings {
        public,
        trusted_proxies: config.server.trusted_proxies.clone(),
        tls: addresses.tls,
        listen: addresses.public,
        cookie: config.session.cookie.clone(),
        cookie_domain: config.session.domain.clone(),
    })
}

fn cors(config: &Config) -> Cors {
    let origins = &config.server.cors_origins;
    Cors::new(
        origins
            .iter()
            .filter_map(|origin| origin.as_str().parse().ok()),
    )
}
