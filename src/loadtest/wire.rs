//! A browser's way to the server: six connections over HTTP/1.1, one over HTTP/2.
//!
//! Invariant: requests go to the one server that was named; a request that is given up ends its HTTP/1.1
//! connection or resets its stream, as a browser's does. Left out: the order of requests, and what to do
//! with the answers.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinSet};

use super::outcome::Outcome;
use crate::client::{Client, ClientErrorKind, Connection, Credential, Protocol};
use crate::clock::{Clock, Uptime};

/// Connections of a browser to one host over HTTP/1.1.
const HTTP1_CONNECTIONS: usize = 6;
/// Streams at a time over HTTP/2: what browsers hold to.
const HTTP2_STREAMS: usize = 100;
/// For name, TCP, TLS.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// For one answer, its body too.
const DEADLINE: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Told apart by this.
    pub id: u64,
    /// Path and query.
    pub path: String,
    /// To be sent as `If-None-Match`.
    pub etag: Option<HeaderValue>,
}

/// An answer, its body counted and forgotten.
#[derive(Debug)]
pub struct Answered {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body's bytes.
    pub bytes: u64,
}

/// An order that is done.
pub struct Done {
    /// Whose.
    pub id: u64,
    /// The answer, or why there is none.
    pub answer: Result<Answered, Outcome>,
    /// When it was handed to an open connection.
    pub sent: Option<Uptime>,
    /// When the last byte came, or it failed.
    pub ended: Uptime,
    /// Connections that were opened for it.
    pub opened: u64,
    /// To be used again (HTTP/1.1).
    connection: Option<Connection>,
}

/// What [`Wire::next`] saw.
pub enum Next {
    /// An answer, or a failure.
    Done(Box<Done>),
    /// The end of what was aborted: there is room again.
    Aborted,
    /// Nothing is under way.
    Idle,
}

type Shared = Arc<OnceCell<Result<Connection, ClientErrorKind>>>;

/// The way of one person.
pub struct Wire {
    client: Client,
    clock: Clock,
    exchanges: JoinSet<Done>,
    idle: Vec<Connection>,
    shared: Shared,
}

impl Wire {
    /// No connection yet.
    pub fn new(client: Client, clock: Clock) -> Self {
        Self {
            client,
            clock,
            exchanges: JoinSet::new(),
            idle: Vec::new(),
            shared: Shared::default(),
        }
    }

    /// Whether another request can be sent at once.
    pub fn has_room(&self) -> bool {
        let most = match self.client.protocol() {
            Protocol::Http1 => HTTP1_CONNECTIONS,
            Protocol::Http2 => HTTP2_STREAMS,
        };
        self.exchanges.len() < most
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Sends a request. [`Wire::next`] tells how it ended, unless it is aborted.
    pub fn send(&mut self, order: Order, credential: &Credential) -> AbortHandle {
        let mut headers = HeaderMap::with_capacity(8);
        // As browsers do; a tile that is stored compressed comes as it is.
        headers.insert(
            ACCEPT_ENCODING,
            HeaderValue::from_static("gzip, deflate, br, zstd"),
        );
        if let Some(etag) = order.etag {
            headers.insert(http::header::IF_NONE_MATCH, etag);
        }
        let exchange = Exchange {
            client: self.client.clone(),
            clock: self.clock.clone(),
            credential: credential.clone(),
            id: order.id,
            path: order.path,
            headers,
            sent: None,
            opened: 0,
        };
        match self.client.protocol() {
            Protocol::Http1 => {
                self.idle.retain(Connection::is_open);
                self.exchanges.spawn(exchange.over_http1(self.idle.pop()))
            }
            Protocol::Http2 => {
                let usable = match self.shared.get() {
                    Some(Ok(connection)) => connection.is_open(),
                    Some(Err(_)) => false,
                    None => true,
                };
                if !usable {
                    self.shared = Shared::default();
                }
                self.exchanges
                    .spawn(exchange.over_http2(Arc::clone(&self.shared)))
            }
        }
    }

    /// Waits for the next thing to end. Nothing is lost when this is not waited for to its end.
    pub async fn next(&mut self) -> Next {
        match self.exchanges.join_next().await {
            Some(Ok(mut done)) => {
                self.idle.extend(done.connection.take());
                Next::Done(Box::new(done))
            }
            Some(Err(_)) => Next::Aborted,
            None => Next::Idle,
        }
    }

    /// One that is done already.
    pub fn try_next(&mut self) -> Option<Done> {
        while let Some(joined) = self.exchanges.try_join_next() {
            if let Ok(mut done) = joined {
                self.idle.extend(done.connection.take());
                return Some(done);
            }
        }
        None
    }
}

struct Exchange {
    client: Client,
    clock: Clock,
    credential: Credential,
    id: u64,
    path: String,
    headers: HeaderMap,
    sent: Option<Uptime>,
    opened: u64,
}

impl Exchange {
    async fn over_http1(mut self, idle: Option<Connection>) -> Done {
        if let Some(mut connection) = idle {
            match self.ask(&mut connection).await {
                // The server had closed it meanwhile: a browser asks again on another one, silently.
                Err(ClientErrorKind::BrokeOff) => {}
                answer => return self.done(answer, Some(connection)),
            }
        }
        match self.connect().await {
            Ok(mut connection) => {
                self.opened = 1;
                let answer = self.ask(&mut connection).await;
                self.done(answer, Some(connection))
            }
            Err(kind) => self.done(Err(kind), None),
        }
    }

    async fn over_http2(mut self, shared: Shared) -> Done {
        let mut opened = 0;
        let connected = shared
            .get_or_init(|| async {
                opened = 1;
                self.connect().await
            })
            .await;
        let connection = match connected {
            Ok(connection) => connection.share(),
            Err(kind) => return self.done(Err(*kind), None),
        };
        let Some(mut connection) = connection else {
            return self.done(Err(ClientErrorKind::BrokeOff), None);
        };
        self.opened = opened;
        let answer = self.ask(&mut connection).await;
        self.done(answer, None)
    }

    async fn connect(&self) -> Result<Connection, ClientErrorKind> {
        let opened = self.client.connect(CONNECT_DEADLINE).await;
        opened.map_err(|error| error.kind)
    }

    async fn ask(&mut self, connection: &mut Connection) -> Result<Answered, ClientErrorKind> {
        self.sent = Some(self.clock.uptime());
        let answer = connection
            .get(&self.path, &self.credential, &self.headers, DEADLINE)
            .await
            .map_err(|error| error.kind)?;
        let (status, headers) = (answer.status, answer.headers.clone());
        let bytes = answer.discard().await.map_err(|error| error.kind)?;
        Ok(Answered {
            status,
            headers,
            bytes,
        })
    }

    fn done(
        self,
        answer: Result<Answered, ClientErrorKind>,
        connection: Option<Connection>,
    ) -> Done {
        Done {
            id: self.id,
            connection: connection.filter(|_| answer.is_ok()),
            answer: answer.map_err(Outcome::of_error),
            sent: self.sent,
            ended: self.clock.uptime(),
            opened: self.opened,
        }
    }
}
