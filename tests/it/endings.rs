//! How a server ends: at once for those who asked for nothing, and with their answer for the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tilekeep::origin::failing::{FailingOrigin, Fault, MemoryOrigin};
use tilekeep::tile::{Scale, TileCoord, TileFormat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{self, Running, claims, config, spec, tileset, token};

const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than any test should take: who waits for it fails.
const GRACE: Duration = Duration::from_mins(1);

async fn server() -> (Running, Arc<FailingOrigin<MemoryOrigin>>) {
    let world = spec("world", TileFormat::Png);
    let memory = MemoryOrigin::new();
    let place = TileCoord::new(0, 0, 0).unwrap();
    memory.put(&tileset(world.clone()), place, Scale::One, "tile", None);
    let origin = Arc::new(FailingOrigin::new(memory));
    let mut config = config([world]);
    config.server.shutdown_grace = GRACE;
    (support::start(config, origin.clone()).await, origin)
}

fn tile_request() -> String {
    let token = token(&claims());
    format!("GET /world/0/0/0.png HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
}

async fn say(server: &Running, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.addresses.public).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains(text) {
        match timeout(PATIENCE, stream.read_buf(&mut read))
            .await
            .expect("an answer or an end")
        {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn nobody_waits_for_those_who_asked_for_nothing() {
    let (server, _) = server().await;
    let _silent = say(&server, "").await;
    let _first_byte = say(&server, "G").await;
    let _half_a_head = say(
        &server,
        "GET /world/0/0/0.png HTTP/1.1\r\nHost: x\r\nAccept:",
    )
    .await;
    let _half_a_preface = say(&server, "PRI * HT").await;
    let _preface = say(
        &server,
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    )
    .await;
    let mut idle = say(&server, &tile_request()).await;
    read_until(&mut idle, "\r\n\r\ntile").await;
    let mut half_the_next = say(&server, &tile_request()).await;
    read_until(&mut half_the_next, "\r\n\r\ntile").await;
    half_the_next.write_all(b"GET /wor").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    timeout(PATIENCE, server.stop())
        .await
        .expect("long before the grace is over");
}

#[tokio::test]
async fn who_asked_in_time_still_gets_the_answer() {
    let (server, origin) = server().await;
    origin.fail_next(1, Fault::Delay(Duration::from_millis(500)));
    let mut asking = say(&server, &tile_request()).await;
    while origin.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.ask_to_end();
    let answer = read_until(&mut asking, "\r\n\r\ntile").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    timeout(PATIENCE, server.stop())
        .await
        .expect("long before the grace is over");
}

#[cfg(feature = "demo")]
mod demo {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    struct Demo(Child);

    impl Drop for Demo {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    impl Demo {
        /// Starts it with a temporary folder of ours; at which address the map is.
        fn start(temporary: &std::path::Path) -> (Self, String) {
            let mut child = Command::new(env!("CARGO_BIN_EXE_tilekeep"))
                .args([
                    "demo",
                    "--listen",
                    "127.0.0.1:0",
                    "--admin-listen",
                    "127.0.0.1:0",
                ])
                .env("TMPDIR", temporary)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            let demo = Self(child);
            let line = stdout
                .lines()
                .map_while(Result::ok)
                .find(|line| line.contains("/map"));
            let line = line.expect("it starts");
            let address = line
                .split("http://")
                .nth(1)
                .unwrap()
                .split('/')
                .next()
                .unwrap();
            (demo, address.to_owned())
        }

        fn interrupt(&self) {
            let id = self.0.id().to_string();
            assert!(
                Command::new("kill")
                    .args(["-INT", &id])
                    .status()
                    .unwrap()
                    .success()
            );
        }

        async fn exit_code(&mut self) -> Option<i32> {
            let begun = Instant::now();
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status.code();
                }
                assert!(begun.elapsed() < PATIENCE, "it does not end");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    fn left_in(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[tokio::test]
    async fn a_demo_takes_its_temporary_folder_along_also_when_it_is_asked_twice() {
        let temporary = tempfile::tempdir().unwrap();
        let nothing: [std::path::PathBuf; 0] = [];
        let (mut demo, _) = Demo::start(temporary.path());
        assert_eq!(left_in(temporary.path()).len(), 1);
        demo.interrupt();
        assert_eq!(demo.exit_code().await, Some(0));
        assert_eq!(left_in(temporary.path()), nothing);

        let (mut demo, address) = Demo::start(temporary.path());
        // A log-in whose password does not come holds the first ending.
        let head = format!(
            "POST /session HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: 100\r\nExpect: 100-continue\r\n\r\n"
        );
        let mut holding = TcpStream::connect(&address).await.unwrap();
        holding.write_all(head.as_bytes()).await.unwrap();
        let asked_for = read_until(&mut holding, "\r\n\r\n").await;
        assert!(asked_for.starts_with("HTTP/1.1 100"), "{asked_for}");
        demo.interrupt();
        while TcpStream::connect(&address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(
            demo.0.try_wait().unwrap().is_none(),
            "it waits for the log-in"
        );
        demo.interrupt();
        assert_eq!(demo.exit_code().await, Some(1));
        assert_eq!(left_in(temporary.path()), nothing);
    }
}
