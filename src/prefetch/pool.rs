//! Connections to the server, and as whom they are used.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::Mutex;

use crate::client::{
    Answer, Client, ClientError, Connection, Credential, CredentialError, Protocol,
};

/// For a connection and its first word.
const CONNECT: Duration = Duration::from_secs(10);
/// For an answer: more than the server's own deadline for a tile.
pub(super) const ANSWER: Duration = Duration::from_mins(1);
/// How many workers share an HTTP/2 connection: below what servers allow.
const STREAMS: usize = 50;

/// Name and password, for signing in again when a session ends.
pub struct LogIn {
    /// Who.
    pub user: String,
    /// Kept to itself.
    pub password: String,
}

impl std::fmt::Debug for LogIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogIn")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Connections to one server.
pub struct Pool {
    client: Client,
    slots: Vec<Mutex<Option<Connection>>>,
    credential: RwLock<Arc<Credential>>,
    log_in: Option<LogIn>,
    /// One sign-in at a time.
    signing_in: Mutex<()>,
}

impl Pool {
    /// For so many workers. Nothing is opened yet.
    pub fn new(
        client: Client,
        credential: Credential,
        log_in: Option<LogIn>,
        workers: usize,
    ) -> Self {
        let slots = match client.protocol() {
            Protocol::Http1 => workers,
            Protocol::Http2 => workers.div_ceil(STREAMS),
        };
        Self {
            client,
            slots: (0..slots.max(1)).map(|_| Mutex::default()).collect(),
            credential: RwLock::new(Arc::new(credential)),
            log_in,
            signing_in: Mutex::default(),
        }
    }

    /// As whom the next request goes.
    pub(super) fn credential(&self) -> Arc<Credential> {
        let held = self.credential.read();
        Arc::clone(&held.unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, credential: Credential) {
        let held = self.credential.write();
        *held.unwrap_or_else(PoisonError::into_inner) = Arc::new(credential);
    }

    /// Keeps the cookies of a session that an answer renewed.
    pub(super) fn absorb(&self, headers: &HeaderMap) {
        if headers.contains_key(http::header::SET_COOKIE) {
            let mut credential = (*self.credential()).clone();
            if credential.absorb(headers) {
                self.set(credential);
            }
        }
    }

    /// Signs in, if there is a name to do it with; `refused`: what no longer opens anything. Whether there is another
    /// credential now.
    pub async fn sign_in(
        &self,
        refused: Option<&Arc<Credential>>,
    ) -> Result<bool, CredentialError> {
        let _one = self.signing_in.lock().await;
        // Another worker may have done it meanwhile.
        if refused.is_some_and(|refused| !Arc::ptr_eq(refused, &self.credential())) {
            return Ok(true);
        }
        let Some(LogIn { user, password }) = &self.log_in else {
            return Ok(false);
        };
        let mut connection = self.client.connect(CONNECT).await?;
        let signed_in = Credential::log_in(&mut connection, user, password, ANSWER);
        self.set(signed_in.await?);
        Ok(true)
    }

    /// A connection for a worker. It goes back by [`Pool::give_back`] when its answer was read to the end.
    pub(super) async fn take(&self, worker: usize) -> Result<Connection, ClientError> {
        let slot = &self.slots[self.slot(worker)];
        let mut slot = slot.lock().await;
        if let Some(open) = slot.as_ref().filter(|open| open.is_open()) {
            if let Some(shared) = open.share() {
                return Ok(shared);
            }
            if let Some(open) = slot.take() {
                return Ok(open);
            }
        }
        // Held meanwhile: those who share it wait for it instead of opening one each.
        let opened = self.client.connect(CONNECT).await?;
        if let Some(shared) = opened.share() {
            *slot = Some(opened);
            return Ok(shared);
        }
        Ok(opened)
    }

    pub(super) async fn give_back(&self, worker: usize, connection: Connection) {
        if self.client.protocol() == Protocol::Http1 && connection.is_open() {
            *self.slots[self.slot(worker)].lock().await = Some(connection);
        }
    }

    fn slot(&self, worker: usize) -> usize {
        match self.client.protocol() {
            Protocol::Http1 => worker % self.slots.len(),
            Protocol::Http2 => worker / STREAMS % self.slots.len(),
        }
    }

    /// One request on a connection of its own, once.
    pub(super) async fn get_once(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Answer, ClientError> {
        let mut connection = self.client.connect(CONNECT).await?;
        connection
            .get(path, &self.credential(), headers, ANSWER)
            .await
    }
}
