//! An instance's metadata service (`IMDSv2`): a token by PUT, a role's name, its keys. It fails on demand.
//!
//! Source: "Use `IMDSv2`", Amazon EC2 User Guide.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tilekeep::aws::AccessKeys;
use tilekeep::clock::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How it is today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As it should be.
    Well,
    /// Nobody listens.
    Refusing,
    /// Connections are taken and closed.
    Dead,
    /// Connections are taken, and nothing follows: the hop limit's work.
    Slow,
    /// 500.
    Broken,
    /// 403: its metadata is switched off.
    Off,
    /// The instance has no role.
    Roleless,
}

const FOLDER: &str = "get /latest/meta-data/iam/security-credentials/";

struct Shared {
    mode: Mutex<Mode>,
    keys: Mutex<String>,
    asked: AtomicUsize,
}

/// The double. Stops when dropped.
pub struct Imds {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Mutex<Option<JoinHandle<()>>>,
}

impl Imds {
    pub async fn start(mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let imds = Self {
            address: listener.local_addr().unwrap(),
            shared: Arc::new(Shared {
                mode: Mutex::new(Mode::Well),
                keys: Mutex::default(),
                asked: AtomicUsize::new(0),
            }),
            listening: Mutex::default(),
        };
        drop(listener);
        imds.set(mode).await;
        imds
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections there were.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// The keys that it hands out.
    pub fn hand_out(&self, keys: &AccessKeys, until: Timestamp) {
        let json = serde_json::json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-11-22T00:00:00Z",
            "AccessKeyId": keys.access_key_id, "SecretAccessKey": keys.secret_access_key,
            "Token": keys.session_token,
            "Expiration": humantime::format_rfc3339_seconds(until.to_system_time()).to_string(),
        });
        *self.shared.keys.lock().unwrap() = json.to_string();
    }

    /// Changes its ways; connections that it had are left as they are.
    pub async fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        let before = self.listening.lock().unwrap().take();
        if let Some(task) = before {
            task.abort();
            let _ = task.await;
        }
        if mode != Mode::Refusing {
            let listener = TcpListener::bind(self.address).await.unwrap();
            let task = tokio::spawn(listen(listener, self.shared.clone()));
            *self.listening.lock().unwrap() = Some(task);
        }
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        if let Some(task) = self.listening.lock().unwrap().take() {
            task.abort();
        }
    }
}

/// Until aborted.
async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        shared.asked.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(answer(stream, shared.clone()));
    }
}

/// One request a connection.
async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let mode = *shared.mode.lock().unwrap();
    match mode {
        Mode::Dead => return,
        Mode::Slow => tokio::time::sleep(Duration::from_secs(20)).await,
        _ => {}
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let with_token = head.contains("x-aws-ec2-metadata-token: a-token");
    let keys = shared.keys.lock().unwrap().clone();
    let (status, body) = if mode == Mode::Broken {
        ("500 Internal Server Error", String::new())
    } else if mode == Mode::Off {
        ("403 Forbidden", String::new())
    } else if head.starts_with("put /latest/api/token") {
        ("200 OK", "a-token".to_owned())
    } else if !with_token {
        ("401 Unauthorized", String::new())
    } else if mode == Mode::Roleless {
        ("404 Not Found", String::new())
    } else if head.starts_with(&format!("{FOLDER} ")) {
        ("200 OK", "tiles".to_owned())
    } else if head.starts_with(&format!("{FOLDER}tiles ")) {
        ("200 OK", keys)
    } else {
        ("404 Not Found", String::new())
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nX-aws-ec2-metadata-token-ttl-seconds: 21600\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}
