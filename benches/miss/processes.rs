//! Everything that takes part, each a process of its own, so that its CPU is its own.

#![allow(
    clippy::disallowed_methods,
    reason = "a process is waited for from outside: by asking again"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use tempfile::TempDir;

use crate::fixture::SESSION_KEY;
use crate::{ADDRESS, BUCKET, DELAY, ROLE, SECRET_KEY};

/// What is measured has a core, and everybody else the other one.
const MEASURED: &str = "0";
const OTHERS: &str = "1";

/// A program on a core.
fn on(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}

/// This program in another role.
fn own(core: &str, role: &str, address: &str) -> Command {
    let mut command = on(core, &env::current_exe().unwrap());
    command.env(ROLE, role).env(ADDRESS, address);
    command
}

/// Ended with this.
pub struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    /// What it has used so far, all its threads together.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        // Behind the name in parentheses: state is the third field, utime and stime 14 and 15. A hundred
        // ticks a second, as Linux has had for ever.
        let fields = stat.rsplit_once(')').unwrap().1;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // By its id.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// The bucket's stand-in.
pub fn bucket(delay: Duration) -> (Process, SocketAddr) {
    let address = free();
    let mut command = own(OTHERS, "bucket", &address.to_string());
    command.env(DELAY, delay.as_millis().to_string());
    let process = Process::start(command);
    wait_for(address);
    (process, address)
}

/// A process that fetches so many when it is told.
pub struct Fetcher {
    process: Process,
    answers: BufReader<ChildStdout>,
}

impl Fetcher {
    /// Fetches from the bucket itself; is measured.
    pub fn peer(name: &str, bucket: SocketAddr) -> Self {
        Self::start(own(MEASURED, name, &format!("http://{bucket}")))
    }

    /// Fetches from a server that is measured.
    pub fn generator(server: SocketAddr) -> Self {
        Self::start(own(OTHERS, "generator", &server.to_string()))
    }

    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        let mut process = Process::start(command);
        let answers = BufReader::new(process.0.stdout.take().unwrap());
        Self { process, answers }
    }

    /// Has it fetch these, and waits.
    pub fn fetch(&mut self, from: usize, count: usize) {
        let orders = self.process.0.stdin.as_mut().unwrap();
        writeln!(orders, "{from} {count}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n");
    }

    pub fn cpu(&self) -> Duration {
        self.process.cpu()
    }
}

/// `tilekeep serve`, as an operator would start it.
pub struct Server {
    process: Process,
    pub address: SocketAddr,
    _folder: TempDir,
}

impl Server {
    pub fn start(program: &Path, bucket: SocketAddr) -> Self {
        let (address, admin) = (free(), free());
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("tilekeep.toml");
        let text = format!(
            "[server]\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n\
             [cache]\nmemory = \"512MiB\"\ndisk = \"2GiB\"\ndisk_path = \"{folder}/cache\"\n\
             [session]\nkeys = [{{ id = \"bench\", secret = \"{SESSION_KEY}\" }}]\n\
             [[quotas]]\nname = \"viewer\"\nrequests_per_second = 100000\ndistinct_tiles_per_hour = 300000\n\
             [aws]\nregion = \"us-east-1\"\nendpoint_url = \"http://{bucket}\"\npath_style = true\n\
             [tilesets.world]\nbucket = \"{BUCKET}\"\nkey = \"world/{{z}}/{{x}}/{{y}}.png\"\nformat = \"png\"\n",
            folder = folder.path().display(),
        );
        fs::write(&config, text).unwrap();
        let mut command = on(MEASURED, program);
        command
            .args(["serve", "--config"])
            .arg(&config)
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Process::start(command);
        wait_for(address);
        Self {
            process,
            address,
            _folder: folder,
        }
    }

    pub fn cpu(&self) -> Duration {
        self.process.cpu()
    }
}

fn wait_for(address: SocketAddr) {
    for _ in 0..200 {
        if TcpStream::connect(address).is_ok() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("nobody listens on {address}");
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
