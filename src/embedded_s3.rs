//! An S3 endpoint in this process: for `tilekeep demo`, which reads a private bucket over HTTP as it
//! would read AWS's, and for tests, which need an S3 that fails when told.
//!
//! Invariant: it listens on a loopback address alone, answers nobody whose `SigV4` signature is not
//! right (but for a bucket made public), and never writes to the folder that it reads.
//! Left out on purpose: everything that a tile server never asks of S3 (multipart, versions, ACLs,
//! virtual-hosted buckets). Such requests are answered 501.

mod access;
mod faults;
mod form;
mod keyring;
mod listing;
mod ops;
mod policy;
mod samples;
mod server;
mod store;
mod sts;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use s3s::service::S3ServiceBuilder;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::keyring::{ACCOUNT, Keyring, Principal};
use self::policy::Policy;
use self::server::Front;
use self::store::Store;
use crate::aws::AccessKeys;
use crate::clock::Clock;

pub use self::faults::{CannedAnswer, Fault, Operation};
pub use self::policy::PolicyError;

/// What the endpoint is to be.
#[derive(Debug, Clone)]
pub struct EmbeddedS3Settings {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The buckets.
    pub buckets: Vec<BucketSettings>,
    /// The owner's keys; without them new ones.
    pub keys: Option<AccessKeys>,
    /// The one region that requests must be signed for; without it, any.
    pub region: Option<String>,
    /// Roles that STS gives out.
    pub roles: Vec<RoleSettings>,
    /// When temporary keys end. Signatures are dated by the system's clock whatever this says.
    pub clock: Clock,
}

impl Default for EmbeddedS3Settings {
    /// A free port, no bucket, new keys, any region, no role.
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            buckets: Vec::new(),
            keys: None,
            region: None,
            roles: Vec::new(),
            clock: Clock::System,
        }
    }
}

/// A bucket.
#[derive(Debug, Clone)]
pub struct BucketSettings {
    /// Its name.
    pub name: String,
    /// What it holds before anything is written.
    pub source: BucketSource,
    /// Whether anybody may read its objects, as no bucket of tiles should let them.
    pub public_read: bool,
    /// Whether Block Public Access is on.
    pub block_public_access: bool,
}

impl BucketSettings {
    /// A private bucket.
    pub fn private(name: &str, source: BucketSource) -> Self {
        Self {
            name: name.to_owned(),
            source,
            public_read: false,
            block_public_access: true,
        }
    }
}

/// What a bucket holds before anything is written. It is read, never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketSource {
    /// Nothing.
    Empty,
    /// The files of a folder, each under its path.
    Folder(PathBuf),
    /// `tiles-sample/`, from this binary or, where the build did not pack it, from the sources.
    Samples,
}

/// A role that STS gives out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSettings {
    /// Its ARN.
    pub arn: String,
    /// What the caller must know, if anything.
    pub external_id: Option<String>,
    /// What it may do (JSON); without it, everything.
    pub policy: Option<String>,
    /// The longest session.
    pub max_duration: Duration,
}

/// How an object is described.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutOptions {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
}

/// Why the endpoint could not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedS3Error {
    /// The address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// A role's policy.
    #[error("the policy of {0}: {1}")]
    Policy(String, PolicyError),
}

/// A running endpoint. Stops when dropped; [`EmbeddedS3::shutdown`] also waits for it.
pub struct EmbeddedS3 {
    addr: SocketAddr,
    keys: AccessKeys,
    keyring: Arc<Keyring>,
    store: Arc<Store>,
    front: Arc<Front>,
    clock: Clock,
    sts_calls: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl fmt::Debug for EmbeddedS3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedS3")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl EmbeddedS3 {
    /// Starts it. When this returns, it answers.
    pub async fn start(settings: EmbeddedS3Settings) -> Result<Self, EmbeddedS3Error> {
        let mut roles = Vec::new();
        for role in settings.roles {
            let policy = role.policy.as_deref().map(Policy::parse).transpose();
            let policy = policy.map_err(|e| EmbeddedS3Error::Policy(role.arn.clone(), e))?;
            roles.push(sts::Role {
                policy: policy.map(Arc::new),
                settings: role,
            });
        }
        let refused = |error| EmbeddedS3Error::Listen(settings.listen, error);
        let listener = server::bind(settings.listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;

        let keys = settings
            .keys
            .unwrap_or_else(|| keyring::random_keys("AKIA", false));
        let keyring = Arc::new(Keyring::new(&keys, settings.clock.clone()));
        let store = Arc::new(Store::new(settings.buckets));
        let sts_calls = Arc::new(AtomicU64::new(0));
        let mut builder = S3ServiceBuilder::new(ops::Ops {
            store: Arc::clone(&store),
            clock: settings.clock.clone(),
            region: settings.region.clone(),
        });
        builder.set_auth(keyring::Auth(Arc::clone(&keyring)));
        builder.set_access(access::Access {
            keyring: Arc::clone(&keyring),
            store: Arc::clone(&store),
            region: settings.region,
        });
        builder.set_route(sts::Sts {
            keyring: Arc::clone(&keyring),
            roles: roles.into(),
            calls: Arc::clone(&sts_calls),
        });
        let front = Arc::new(Front {
            service: builder.build(),
            script: faults::Script::default(),
            requests: AtomicU64::new(1),
        });
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(server::run(listener, Arc::clone(&front), stopped));
        Ok(Self {
            addr,
            keys,
            keyring,
            store,
            front,
            clock: settings.clock,
            sts_calls,
            stop,
            task: Some(task),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:…`, for S3 (path style) and for STS.
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The owner's keys, which may do everything.
    pub fn keys(&self) -> &AccessKeys {
        &self.keys
    }

    /// A user who may do what the policy (JSON) says.
    pub fn add_user(&self, name: &str, policy: &str) -> Result<AccessKeys, PolicyError> {
        let policy = Arc::new(Policy::parse(policy)?);
        Ok(self.keyring.issue(Principal {
            arn: format!("arn:aws:iam::{ACCOUNT}:user/{name}"),
            user_id: format!("AIDATILEKEEP{name}"),
            temporary: false,
            policies: vec![policy],
        }))
    }

    /// Puts an object into a bucket, without a request. False where there is no such bucket.
    pub fn put(
        &self,
        bucket: &str,
        key: &str,
        body: impl Into<Bytes>,
        options: PutOptions,
    ) -> bool {
        let written = self.clock.now().to_system_time();
        let bucket = self.store.bucket(bucket);
        bucket
            .map(|bucket| bucket.put(key, body.into(), written, options))
            .is_some()
    }

    /// Deletes an object, without a request. False where there is no such bucket.
    pub fn delete(&self, bucket: &str, key: &str) -> bool {
        let bucket = self.store.bucket(bucket);
        bucket.map(|bucket| bucket.delete(key)).is_some()
    }

    /// The next `times` requests meet a fault: those of one operation, or any of S3's.
    /// `usize::MAX` means until [`EmbeddedS3::clear_faults`].
    pub fn inject(&self, operation: Option<Operation>, times: usize, fault: Fault) {
        self.front.script.add(operation, times, fault);
    }

    /// No more faults.
    pub fn clear_faults(&self) {
        self.front.script.clear();
    }

    /// How many requests of an operation came, refused and failed ones included.
    pub fn requests(&self, operation: Operation) -> u64 {
        self.front.script.count(operation)
    }

    /// How many requests came.
    pub fn total_requests(&self) -> u64 {
        self.front.script.total()
    }

    /// How often `AssumeRole` was called with a right signature.
    pub fn sts_calls(&self) -> u64 {
        self.sts_calls.load(Ordering::Relaxed)
    }

    /// Stops accepting, gives open requests a second, and waits for the end.
    pub async fn shutdown(mut self) {
        // Its receiver may be gone already: then it has ended.
        let _ = self.stop.send(true);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for EmbeddedS3 {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}
