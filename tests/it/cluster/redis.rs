//! A Redis of the test's own: Debian's `redis-server` on a loopback port, gone with the test.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// For anything that takes its time on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Redis {
    child: Option<Child>,
    folder: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    /// Between `//` and `@`.
    login: String,
}

impl Redis {
    pub async fn start() -> Self {
        Self::start_with(&[], "").await
    }

    /// With further options, and a log-in like `:password@`.
    pub async fn start_with(options: &[&str], login: &str) -> Self {
        let mut redis = Self {
            child: None,
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            login: login.to_owned(),
        };
        redis.revive().await;
        redis
    }

    /// Starts it, empty, where it was.
    pub async fn revive(&mut self) {
        let tls = self.options.iter().any(|option| option == "--tls-port");
        let port = if tls { 0 } else { self.port };
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.folder.path())
            .args(self.options.iter().map(|option| {
                if option == "PORT" {
                    self.port.to_string()
                } else {
                    option.clone()
                }
            }))
            .stdout(Stdio::null())
            .spawn();
        let child = started.expect("redis-server is needed: apt-get install redis-server");
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))
            .await
            .is_err()
        {
            assert!(Instant::now() < until, "redis-server does not listen");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://{}127.0.0.1:{}", self.login, self.port)
    }

    /// Asks it something, and gives the answer as text.
    pub async fn ask(&self, question: &[&str]) -> String {
        let client = redis::Client::open(self.url()).unwrap();
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let line = client.get_multiplexed_async_connection_with_config(&patient);
        let mut line = line.await.unwrap();
        let mut command = redis::cmd(question[0]);
        command.arg(&question[1..]);
        let answer: redis::Value = command.query_async(&mut line).await.unwrap();
        format!("{answer:?}")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// An authority and a certificate of `127.0.0.1` by it, in the folder: `ca.pem`, `redis.pem`, `redis.key`.
pub fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let done = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(folder)
            .stderr(Stdio::null())
            .status()
            .expect("openssl is needed: apt-get install openssl");
        assert!(done.success(), "openssl {arguments}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!(
        "req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test"
    ));
    openssl(&format!(
        "req {key} -keyout redis.key -out redis.csr -subj /CN=redis"
    ));
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out redis.pem",
    );
}
