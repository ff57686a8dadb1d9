//! `MiniStack`: SQS, S3 notifications, IAM, STS and an instance's metadata service in one process.

use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{PATIENCE, Process, free_port, program};

/// A running `MiniStack`. It checks no signatures: any keys do.
pub struct MiniStack {
    _process: Process,
    _folder: tempfile::TempDir,
    port: u16,
}

impl MiniStack {
    /// Starts one of the test's own.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(program("ministack"));
        command
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("IOT_MTLS_ENABLED", "0")
            .env("S3_DATA_DIR", folder.path().join("s3"))
            .env("STATE_DIR", folder.path().join("state"));
        let process = Process::start(&mut command, folder.path(), port).await;
        let until = Instant::now() + PATIENCE;
        let log = folder.path().join("log");
        while !std::fs::read_to_string(&log).unwrap().contains("Ready") {
            assert!(Instant::now() < until, "MiniStack is not ready");
            sleep(Duration::from_millis(50)).await;
        }
        Self {
            _process: process,
            _folder: folder,
            port,
        }
    }

    /// Where all of its services are.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
