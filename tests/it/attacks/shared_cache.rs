//! A real shared cache in front, set up as a tutorial would: nginx that keeps every answer for an hour.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::{Method, StatusCode};
use tempfile::TempDir;

use super::{SAME, TILE, cookie, log_in, only, server};
use crate::support::{Answer, Running, token};

/// An nginx that ends with the test.
struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process, all its files in one folder. It keys by the address alone, keeps whatever it may keep,
/// and says whether an answer came from its cache.
fn configuration(folder: &str, listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "daemon off;
master_process off;
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_cache_path {folder}/cache keys_zone=tiles:1m;
    server {{
        listen {listen};
        location / {{
            proxy_pass http://{upstream};
            proxy_cache tiles;
            proxy_cache_key $request_uri;
            proxy_cache_methods GET HEAD;
            proxy_cache_valid any 1h;
            proxy_cache_use_stale error timeout http_500 http_502 http_503 http_504;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
}}
"
    )
}

/// Where Debian puts it, is no place that everybody's PATH has.
fn spawn(arguments: &[&str]) -> Child {
    let start = |program: &str| {
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
    };
    start("nginx")
        .or_else(|_| start("/usr/sbin/nginx"))
        .unwrap_or_else(|error| {
            panic!(
                "nginx: {error}; this test puts a real cache in front: apt-get install nginx-light"
            )
        })
}

impl Nginx {
    async fn start(server: &Running) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        // The port is free now; should another take it meanwhile, nginx does not start, and another is tried.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let file = folder.path().join("nginx.conf");
            std::fs::write(&file, configuration(path, address, server.addresses.public)).unwrap();
            let mut child = spawn(&["-p", path, "-e", "stderr", "-c", file.to_str().unwrap()]);
            for _ in 0..200 {
                if tokio::net::TcpStream::connect(address).await.is_ok() {
                    return Self {
                        child,
                        address,
                        _folder: folder,
                    };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("nginx did not start; what it said is above");
    }

    async fn get(&self, server: &Running, path: &str, headers: &[(&str, &str)]) -> Answer {
        server
            .send_to(self.address, Method::GET, path, headers, "")
            .await
    }
}

#[tokio::test]
async fn a_shared_cache_gives_nobody_what_another_was_given() {
    let server = server().await;
    let nginx = Nginx::start(&server).await;
    // The cache works, or the rest would prove nothing.
    for expected in ["MISS", "HIT"] {
        let open = nginx.get(&server, "/open/0/0/0.png", &[]).await;
        assert_eq!(
            (open.status, open.header("x-cache")),
            (StatusCode::OK, expected)
        );
    }

    let seeing = format!("tilekeep_session={}", token(&only("world")));
    let other = format!("Bearer {}", token(&only("other")));
    let (seeing, other) = (
        ("cookie", seeing.as_str()),
        ("authorization", other.as_str()),
    );
    // Nobody first: a refusal that is kept would lock the next one out.
    for round in 0..2 {
        for path in [
            TILE,
            "/world/0/0/0",
            "/0/0/0",
            "/world.json",
            "/world/0/0/0.png?v=1",
        ] {
            let what = format!("round {round}, {path}");
            let nobody = nginx.get(&server, path, &[]).await;
            assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{what}");
            let seen = nginx.get(&server, path, &[seeing]).await;
            assert_eq!(seen.status, StatusCode::OK, "{what}");
            let hidden = nginx.get(&server, path, &[other]).await;
            assert_eq!(hidden.status, StatusCode::NOT_FOUND, "{what}");
            for answer in [nobody, seen, hidden] {
                assert_ne!(answer.header("x-cache"), "HIT", "{what}");
            }
        }
        // What a tileset does not have is told to those who may see that it does not.
        let absent = nginx.get(&server, "/world/1/0/0.png", &[seeing]).await;
        assert_eq!(absent.status, StatusCode::NOT_FOUND);
        let nobody = nginx.get(&server, "/world/1/0/0.png", &[]).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_shared_cache_keeps_no_page_no_session_and_no_cookie() {
    let server = server().await;
    let nginx = Nginx::start(&server).await;
    let anna = cookie(&log_in(&server, "anna", "secret", &[]).await);
    let bert = cookie(&log_in(&server, "bert", "other", &[]).await);
    for path in ["/session", "/", "/map"] {
        for (cookie, own, foreign) in [(&anna, "anna", "bert"), (&bert, "bert", "anna")] {
            let answer = nginx.get(&server, path, &[("cookie", cookie)]).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert!(text.contains(own) && !text.contains(foreign), "{path}");
            assert_ne!(answer.header("x-cache"), "HIT", "{path}");
        }
    }
    // A tile that brings anna's renewed cookie brings it to nobody else.
    server.clock.advance(Duration::from_hours(7));
    let renewed = nginx.get(&server, TILE, &[("cookie", &anna)]).await;
    assert!(renewed.header("set-cookie").contains("tilekeep_session="));
    let next = nginx.get(&server, TILE, &[("cookie", &bert)]).await;
    assert_ne!(next.header("x-cache"), "HIT");
    assert_ne!(next.header("set-cookie"), renewed.header("set-cookie"));
    // And after the log-out the session opens nothing, cache or not.
    let ended = [("cookie", anna.as_str()), SAME];
    server
        .send_to(nginx.address, Method::DELETE, "/session", &ended, "")
        .await;
    let after = nginx.get(&server, TILE, &[("cookie", &anna)]).await;
    assert_eq!(after.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}
