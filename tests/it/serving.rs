//! `tilekeep serve` itself, in a folder and a process of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tilekeep::aws::AccessKeys;
use tokio::time::{Instant, sleep};

/// For the program to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A running program, killed with the test.
pub struct Serving {
    child: Child,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Serving {
    /// Starts a program on free ports: this configuration without `[server]`, in a folder that holds what it names.
    /// What it says goes to `log`.
    pub async fn start(
        program: &Path,
        folder: tempfile::TempDir,
        config: &str,
        keys: &AccessKeys,
        log: &Path,
    ) -> Self {
        let server = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n";
        let path = folder.path().join("tilekeep.toml");
        std::fs::write(path, format!("{server}{config}")).unwrap();
        let child = Command::new(program)
            .args(["serve", "--config", "tilekeep.toml"])
            .current_dir(folder.path())
            .env_remove("TILEKEEP_LOG")
            .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut serving = Self {
            child,
            public: nowhere,
            admin: nowhere,
            folder,
        };
        let until = Instant::now() + PATIENCE;
        loop {
            let said = std::fs::read_to_string(log).unwrap();
            let after = |words: &str| said.split_once(words)?.1.split_once('/')?.0.parse().ok();
            if let (Some(public), Some(admin)) = (
                after("tiles and pages on http://"),
                after("metrics and health on http://"),
            ) {
                (serving.public, serving.admin) = (public, admin);
                return serving;
            }
            let ended = serving.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {said}");
            assert!(Instant::now() < until, "it does not start: {said}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its configuration is, and what that names.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it as an operator does. Whether it ended well, and in time.
    pub async fn stop(&mut self, patience: Duration) -> bool {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            sleep(Duration::from_millis(50)).await;
        }
        false
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
