//! The servers, each a process of its own, so that its CPU is its own.

#![allow(
    clippy::disallowed_methods,
    reason = "a process is waited for from outside: by asking again, and for its disk writes by time"
)]

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fs, thread};

use crate::fixture::{BUCKET, Fixture, SESSION_KEY};
use crate::limit;

/// Which cores a server has. The generator has the other one, or shares them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cores {
    One,
    Both,
}

impl Cores {
    /// A program on the server's cores.
    fn command(self, program: impl AsRef<OsStr>) -> Command {
        on(self, "0", program)
    }

    /// A program on the generator's.
    pub fn generator(self, program: impl AsRef<OsStr>) -> Command {
        on(self, "1", program)
    }
}

fn on(cores: Cores, core: &str, program: impl AsRef<OsStr>) -> Command {
    if cores == Cores::Both {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

/// A running server.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// The processes whose CPU counts.
    processes: Vec<u32>,
    /// What each tile's `ETag` is there, found out while warming.
    pub etags: Mutex<HashMap<usize, String>>,
}

impl Server {
    fn start(mut command: Command, address: SocketAddr) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..200 {
            if TcpStream::connect(address).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let workers = children(child.id());
        let processes = if workers.is_empty() {
            vec![child.id()]
        } else {
            workers
        };
        Self {
            child,
            address,
            processes,
            etags: Mutex::default(),
        }
    }

    /// nginx as Debian builds it, over the files, with descriptors cached and no check of anything.
    pub fn nginx(fixture: &Fixture, cores: Cores) -> Self {
        let (address, h2c) = (free(), free());
        let folder = fixture.folder().join(format!("nginx-{}", address.port()));
        fs::create_dir_all(&folder).unwrap();
        let config = folder.join("nginx.conf");
        let workers = if cores == Cores::One { 1 } else { 2 };
        let text = format!(
            "daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes {workers}; worker_rlimit_nofile 20000;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
               types {{ image/png png; }}\n\
               access_log off; sendfile on; tcp_nopush on; tcp_nodelay on;\n\
               keepalive_timeout 600; keepalive_requests 100000000; http2_max_requests 100000000;\n\
               open_file_cache max=16000 inactive=1h; open_file_cache_valid 1h;\n\
               client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};\n\
               uwsgi_temp_path {folder}; scgi_temp_path {folder};\n\
               server {{ listen {address} reuseport; listen {h2c} http2 reuseport; root {root}; }}\n\
             }}\n",
            folder = folder.display(),
            root = fixture.files().display(),
        )
        .replace("http2_max_requests 100000000;", "");
        fs::write(&config, text).unwrap();
        let mut command = cores.command("nginx");
        command.arg("-c").arg(&config).arg("-p").arg(&folder);
        let mut server = Self::start(command, address);
        server.h2c_at(h2c);
        server
    }

    /// The least that hyper can do.
    pub fn limit(fixture: &Fixture, cores: Cores) -> Self {
        let address = free();
        let own = env::current_exe().unwrap();
        let mut command = cores.command(own);
        command
            .env(limit::ROLE, fixture.files())
            .env(limit::LISTEN, address.to_string());
        Self::start(command, address)
    }

    /// `tilekeep serve`, as an operator would start it.
    pub fn ours(fixture: &Fixture, cores: Cores, binary: impl AsRef<OsStr>, memory: bool) -> Self {
        let (address, admin) = (free(), free());
        let folder = fixture.folder().join(format!("ours-{}", address.port()));
        fs::create_dir_all(&folder).unwrap();
        let config = folder.join("tilekeep.toml");
        let text = format!(
            "[server]\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n\
             [cache]\nmemory = \"{memory}\"\ndisk = \"1GiB\"\ndisk_path = \"{folder}/cache\"\n\
             [session]\nkeys = [{{ id = \"bench\", secret = \"{SESSION_KEY}\" }}]\n\
             [[quotas]]\nname = \"viewer\"\nrequests_per_second = 100000\ndistinct_tiles_per_hour = 30000\n\
             [aws]\nregion = \"us-east-1\"\nendpoint_url = \"{endpoint}\"\npath_style = true\n\
             [tilesets.world]\nbucket = \"{BUCKET}\"\nkey = \"world/{{z}}/{{x}}/{{y}}.png\"\nformat = \"png\"\n",
            memory = if memory { "512MiB" } else { "0" },
            folder = folder.display(),
            endpoint = fixture.endpoint(),
        );
        fs::write(&config, text).unwrap();
        let mut command = cores.command(binary);
        command
            .args(["serve", "--config"])
            .arg(&config)
            .env("AWS_ACCESS_KEY_ID", &fixture.keys().access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &fixture.keys().secret_access_key);
        Self::start(command, address)
    }

    fn h2c_at(&mut self, address: SocketAddr) {
        self.etags
            .lock()
            .unwrap()
            .insert(usize::MAX, address.to_string());
    }

    /// Where it speaks HTTP/2 without TLS.
    pub fn h2c(&self) -> SocketAddr {
        let etags = self.etags.lock().unwrap();
        etags
            .get(&usize::MAX)
            .map_or(self.address, |text| text.parse().unwrap())
    }

    /// Asks for every tile, so that what is measured are hits, and notes the `ETag`s.
    pub fn warm(&self, fixture: &Fixture) {
        thread::scope(|scope| {
            for part in 0..8 {
                scope.spawn(move || {
                    let mut stream = TcpStream::connect(self.address).unwrap();
                    for tile in (part..fixture.tiles.len()).step_by(8) {
                        let etag = ask(
                            &mut stream,
                            &fixture.tiles[tile].path(),
                            &fixture.tokens[tile % fixture.tokens.len()],
                        );
                        self.etags.lock().unwrap().insert(tile, etag);
                    }
                });
            }
        });
        // Disk writes are queued behind the answers.
        thread::sleep(Duration::from_secs(1));
    }

    /// What its processes have used so far.
    pub fn cpu(&self) -> Duration {
        self.processes.iter().map(|pid| ticks(*pid)).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // By its id, and nginx by its master's: TERM, so that workers end too.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn ticks(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name in parentheses: state is the third field, utime and stime 14 and 15. A hundred
    // ticks a second, as Linux has had for ever.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// One tile over a connection that stays; its `ETag`.
fn ask(stream: &mut TcpStream, path: &str, token: &str) -> String {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: tilekeep_session={token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let (mut answer, mut part) = (Vec::new(), [0; 16 * 1024]);
    let (head, body) = loop {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "the server hung up");
        answer.extend_from_slice(&part[..read]);
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break (String::from_utf8(answer[..end].to_vec()).unwrap(), end + 4);
        }
    };
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
    let field = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    };
    let length: usize = field("content-length").unwrap().parse().unwrap();
    while answer.len() < body + length {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "the server hung up");
        answer.extend_from_slice(&part[..read]);
    }
    field("etag").unwrap()
}
