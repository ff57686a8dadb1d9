//! A stand-in for CloudFront, in Python with `cryptography`: `cloudfront.py` beside this file.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use serde_json::{Value, json};

use super::{Process, free_port, program};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/cloudfront.py");

/// A distribution, ended with the test.
pub struct Distribution {
    pub address: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Distribution {
    /// Starts one: `settings` has `public_key`, `key_pair_id`, `domain`, `tilesets`, `secret`, `now`, and the origin's
    /// port as `origin`.
    pub async fn start(mut settings: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        settings["listen"] = json!(port);
        let mut command = Command::new(program("python"));
        command.arg(PROGRAM).arg(settings.to_string());
        let process = Process::start(&mut command, folder.path(), port).await;
        Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            _process: process,
            _folder: folder,
        }
    }
}
