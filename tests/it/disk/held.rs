//! One folder, two servers: the second is refused in words, and the first does not notice.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use super::*;

/// A server of its own over this folder, which is killed at the end whatever happens.
struct Server {
    child: Child,
    admin: Option<SocketAddr>,
    said: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Server {
    /// Starts one and waits until it listens or has ended.
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tilekeep"))
            .args(["serve", "--config"])
            .arg(folder.join("tilekeep.toml"))
            .env_remove("TILEKEEP_LOG")
            .env("AWS_ACCESS_KEY_ID", "nobody")
            .env("AWS_SECRET_ACCESS_KEY", "nothing")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let (mut said, mut admin) = (String::new(), None);
        while admin.is_none() && lines.read_line(&mut said).unwrap() > 0 {
            admin = listens_at(&said);
        }
        // Whoever writes more must not wait for a reader.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Self { child, admin, said }
    }

    fn is_well(&self) -> bool {
        let mut stream = TcpStream::connect(self.admin.unwrap()).unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.starts_with("HTTP/1.1 200")
    }
}

fn listens_at(said: &str) -> Option<SocketAddr> {
    let (_, rest) = said.split_once("metrics and health on http://")?;
    rest.split_once('/')?.0.parse().ok()
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone_even_by_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        r#"
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
[cache]
disk = "64MiB"
disk_path = "{}"
[session]
keys = [{{ id = "test", secret = "a key for tests, of 32 bytes or more" }}]
[aws]
region = "eu-west-1"
endpoint_url = "http://127.0.0.1:9"
[tilesets.world]
bucket = "tiles"
key = "{{z}}/{{x}}/{{y}}.png"
format = "png"
"#,
        dir.path().join("cache").display()
    );
    std::fs::write(dir.path().join("tilekeep.toml"), config).unwrap();

    let mut first = Server::start(dir.path());
    assert!(first.admin.is_some(), "{}", first.said);
    let mut second = Server::start(dir.path());
    assert_eq!(
        second.child.wait().unwrap().code(),
        Some(1),
        "{}",
        second.said
    );
    let named = format!(
        "{} is in use by another process",
        dir.path().join("cache").display()
    );
    assert!(second.said.contains(&named), "{}", second.said);
    assert!(second.said.contains("disk_path") && second.said.contains("stop the other one"));
    assert!(first.child.try_wait().unwrap().is_none() && first.is_well());

    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let third = Server::start(dir.path());
    assert!(third.admin.is_some() && third.is_well(), "{}", third.said);
}
