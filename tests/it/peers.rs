//! Software of other people that speaks AWS's and the archives' languages: SeaweedFS (S3, STS with session
//! policies), `MiniStack` (SQS, IMDS, IAM), and Python libraries that check what we sign and write.
//!
//! It comes from `PyPI` by `tests/peers/requirements.txt`, once, into a folder beside the build's own.

mod cloudfront;
mod ministack;
mod seaweed;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

pub use cloudfront::Distribution;
pub use ministack::MiniStack;
pub use seaweed::Seaweed;
use tokio::time::{Instant, sleep};

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/requirements.txt");

/// For a server to start on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A program of the environment: `python`, `weed`, `ministack`, `pmtiles-show`, `mb-util`.
pub fn program(name: &str) -> PathBuf {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(environment).join("bin").join(name)
}

/// Runs a Python program with the environment's libraries.
pub fn python(program_text: &str, arguments: &[&str]) -> Output {
    Command::new(program("python"))
        .arg("-c")
        .arg(program_text)
        .args(arguments)
        .output()
        .unwrap()
}

/// As [`python`], for one that has to succeed: what it wrote.
pub fn python_says(program_text: &str, arguments: &[&str]) -> String {
    let done = python(program_text, arguments);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "python: {errors}");
    String::from_utf8(done.stdout).unwrap()
}

/// Installs what is listed, where that has not been done yet. Another test run may want to at the same time.
fn environment() -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    std::fs::create_dir_all(&place).unwrap();
    let lock = std::fs::File::create(place.join("lock")).unwrap();
    lock.lock().unwrap();
    let stamp = place.join("installed.txt");
    let wanted = std::fs::read(REQUIREMENTS).unwrap();
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return place;
    }
    let run = |program: &Path, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).output();
        let done = done.expect("Python with venv is needed: apt-get install python3 python3-venv");
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "{} {arguments:?}: {errors}",
            program.display()
        );
    };
    let folder = place.to_str().unwrap();
    run(Path::new("python3"), &["-m", "venv", "--clear", folder]);
    let pip = place.join("bin/pip");
    run(
        &pip,
        &[
            "install",
            "--quiet",
            "--no-input",
            "--requirement",
            REQUIREMENTS,
        ],
    );
    std::fs::write(stamp, wanted).unwrap();
    place
}

/// A server's process, ended with the test.
struct Process(Child);

impl Process {
    /// Starts it in a folder of its own, its output in `log` there, and waits until its port listens.
    async fn start(command: &mut Command, folder: &Path, port: u16) -> Self {
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let mut process = Self(child.unwrap());
        let until = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_err()
        {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap();
            let ended = process.0.try_wait().unwrap();
            assert!(ended.is_none(), "ended by itself: {}", log());
            assert!(Instant::now() < until, "does not listen: {}", log());
            sleep(Duration::from_millis(50)).await;
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody has now. SeaweedFS takes the one 10,000 above for each of its own too.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 10_000)).is_ok() {
            return port;
        }
    }
}
