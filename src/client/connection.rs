//! One connection to the server, and requests over it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::tls::native_roots;
use super::{ClientError, ClientErrorKind, Credential, ServerUrl};

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1: one request at a time on a connection.
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge (h2c, RFC 9113 §3.3) without.
    Http2,
}

/// Sent with every request.
const AGENT: &str = concat!("tilekeep/", env!("CARGO_PKG_VERSION"));

/// Makes connections to one server.
#[derive(Clone)]
pub struct Client {
    url: ServerUrl,
    protocol: Protocol,
    tls: Option<Arc<ClientConfig>>,
    agent: HeaderValue,
}

impl Client {
    /// For a server. The machine's certificate roots are read here, once.
    pub fn new(url: ServerUrl, protocol: Protocol) -> Self {
        let tls = url.is_https().then(|| native_roots("the server"));
        Self::with_tls(url, protocol, tls)
    }

    /// As [`Client::new`], with other TLS settings: tests trust a certificate of their own.
    pub fn with_tls(url: ServerUrl, protocol: Protocol, tls: Option<ClientConfig>) -> Self {
        let tls = tls.map(|mut tls| {
            tls.alpn_protocols = match protocol {
                Protocol::Http1 => vec![b"http/1.1".to_vec()],
                Protocol::Http2 => vec![b"h2".to_vec()],
            };
            Arc::new(tls)
        });
        Self {
            url,
            protocol,
            tls,
            agent: HeaderValue::from_static(AGENT),
        }
    }

    /// The server.
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// What is spoken.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Opens a connection: name, TCP, TLS and HTTP within `deadline`.
    pub async fn connect(&self, deadline: Duration) -> Result<Connection, ClientError> {
        let opened = timeout_at(Instant::now() + deadline, self.open());
        let sender = opened.await.map_err(|_| {
            let detail = format!("{}: no connection within {deadline:?}", self.url);
            ClientError::new(ClientErrorKind::Deadline, detail)
        })??;
        Ok(Connection {
            sender,
            client: self.clone(),
        })
    }

    async fn open(&self) -> Result<Sender, ClientError> {
        let failed = |kind, error: &dyn std::error::Error| {
            ClientError::caused(kind, &self.url.to_string(), error)
        };
        let stream = TcpStream::connect((self.url.host(), self.url.port()))
            .await
            .map_err(|error| failed(ClientErrorKind::Unreachable, &error))?;
        // Requests are small and answers are waited for.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.handshake(stream).await;
        };
        let name = ServerName::try_from(self.url.host().to_owned())
            .map_err(|error| failed(ClientErrorKind::Tls, &error))?;
        let stream = TlsConnector::from(Arc::clone(tls))
            .connect(name, stream)
            .await
            .map_err(|error| failed(ClientErrorKind::Tls, &error))?;
        if self.protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            let detail = format!("{}: it does not speak HTTP/2 over TLS", self.url);
            return Err(ClientError::new(ClientErrorKind::Tls, detail));
        }
        self.handshake(stream).await
    }

    async fn handshake<S>(&self, stream: S) -> Result<Sender, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        let failed = |error: hyper::Error| {
            ClientError::caused(ClientErrorKind::BrokeOff, &self.url.to_string(), &error)
        };
        // A connection's end is seen by its requests.
        match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
                tokio::spawn(connection);
                Ok(Sender::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .adaptive_window(true)
                    .keep_alive_interval(Duration::from_secs(20))
                    .keep_alive_timeout(Duration::from_secs(20))
                    .handshake(io)
                    .await
                    .map_err(failed)?;
                tokio::spawn(connection);
                Ok(Sender::Http2(sender))
            }
        }
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// An open connection.
pub struct Connection {
    sender: Sender,
    client: Client,
}

impl Connection {
    /// Whether it can still take a request.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// The same connection for another request beside this one's; `None` over HTTP/1.1, which has no such thing.
    pub fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1(_) => None,
            Sender::Http2(sender) => Some(Self {
                sender: Sender::Http2(sender.clone()),
                client: self.client.clone(),
            }),
        }
    }

    /// GET of a path (with its query) as somebody, with further headers.
    pub async fn get(
        &mut self,
        path: &str,
        credential: &Credential,
        headers: &HeaderMap,
        deadline: Duration,
    ) -> Result<Answer, ClientError> {
        let mut headers = headers.clone();
        credential.put(&mut headers);
        self.send(Method::GET, path, headers, Bytes::new(), deadline)
            .await
    }

    /// Sends a request. The answer, its body too, has to be whole within `deadline`.
    ///
    /// Over HTTP/1.1 the answer before has to have been read to its end, or this waits for that.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Answer, ClientError> {
        let asked = format!("{method} {}{path}", self.client.url);
        let request = self.request(method, path, headers, body)?;
        let until = Instant::now() + deadline;
        let exchange = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        let response = timeout_at(until, exchange)
            .await
            .map_err(|_| late(&asked, deadline))?
            .map_err(|error| ClientError::caused(ClientErrorKind::BrokeOff, &asked, &error))?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
            asked,
            deadline,
            until,
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let url = &self.client.url;
        // HTTP/2 takes scheme and authority from the URI, HTTP/1.1 has `Host`.
        let uri = match self.client.protocol {
            Protocol::Http1 => {
                let host = HeaderValue::try_from(url.authority());
                headers.extend(host.ok().map(|host| (HOST, host)));
                path.parse::<Uri>()
            }
            Protocol::Http2 => format!("{url}{path}").parse(),
        };
        let uri = uri.map_err(|error| {
            ClientError::caused(
                ClientErrorKind::Unreachable,
                &format!("{url}{path}"),
                &error,
            )
        })?;
        headers.insert(USER_AGENT, self.client.agent.clone());
        // Without it a server may pick any coding (RFC 9110 §12.5.3).
        if !headers.contains_key(ACCEPT_ENCODING) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

fn late(asked: &str, deadline: Duration) -> ClientError {
    let detail = format!("{asked}: not answered within {deadline:?}");
    ClientError::new(ClientErrorKind::Deadline, detail)
}

/// An answer whose body is still to be read.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    asked: String,
    deadline: Duration,
    until: Instant,
}

impl Answer {
    /// A header's text; empty where there is none or it is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// Reads the body to its end and keeps none of it. How long it was.
    pub async fn discard(mut self) -> Result<u64, ClientError> {
        let mut length = 0;
        while let Some(data) = self.next().await? {
            length += data.len() as u64;
        }
        Ok(length)
    }

    /// The body, if it has at most `max` bytes.
    pub async fn collect(mut self, max: usize) -> Result<Bytes, ClientError> {
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let mut whole = Vec::new();
        let mut data = first;
        loop {
            if whole.len() + data.len() > max {
                let detail = format!("{}: more than {max} bytes", self.asked);
                return Err(ClientError::new(ClientErrorKind::TooLarge, detail));
            }
            let more = self.next().await?;
            let Some(more) = more else {
                // Most tiles come in one piece, which needs no copy.
                if whole.is_empty() {
                    return Ok(data);
                }
                whole.extend_from_slice(&data);
                return Ok(whole.into());
            };
            whole.extend_from_slice(&data);
            data = more;
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = timeout_at(self.until, self.body.frame()).await;
            match frame.map_err(|_| late(&self.asked, self.deadline))? {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    // Trailers say nothing here.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    return Err(ClientError::caused(
                        ClientErrorKind::BrokeOff,
                        &self.asked,
                        &error,
                    ));
                }
            }
        }
    }
}
