//! The generators: wrk for HTTP/1.1, h2load for HTTP/2 without TLS.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::fixture::Fixture;
use crate::servers::{Cores, Server};

const CONNECTIONS: usize = 64;

/// What is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// HTTP/1.1, the trace.
    Get,
    /// The same with the tiles' `ETag`s.
    Conditional,
    /// HTTP/2 without TLS: eight browsers of twenty streams.
    H2c,
}

/// What a run did.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    pub requests: u64,
    pub seconds: f64,
    pub p99_ms: f64,
}

/// Whether a program can be found.
pub fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

impl Load {
    /// The requests, spelt out beforehand: the generator must not be what is slow.
    pub fn prepare(self, fixture: &Fixture, server: &Server) -> PathBuf {
        let name = format!("requests-{}-{self:?}", server.address.port());
        let path = fixture.folder().join(name);
        let mut text = String::new();
        if self == Self::H2c {
            for request in fixture.trace.iter().take(20_000) {
                let tile = fixture.tiles[request.tile].path();
                writeln!(text, "http://{}{tile}", server.h2c()).unwrap();
            }
        } else {
            let etags = server.etags.lock().unwrap();
            for request in &fixture.trace {
                let tile = fixture.tiles[request.tile].path();
                let token = &fixture.tokens[request.person];
                let etag = match self {
                    Self::Conditional => etags[&request.tile].as_str(),
                    _ => "-",
                };
                writeln!(text, "{tile} {token} {etag}").unwrap();
            }
            fs::write(path.with_extension("lua"), wrk_script(&path)).unwrap();
        }
        fs::write(&path, text).unwrap();
        path
    }

    /// One run; panics where an answer was not what it should be.
    pub fn run(
        self,
        script: &Path,
        fixture: &Fixture,
        server: &Server,
        cores: Cores,
        seconds: usize,
    ) -> Done {
        match self {
            Self::Get | Self::Conditional => wrk(script, server, cores, seconds),
            Self::H2c => {
                // h2load sends the same headers with every request: one person's.
                let cookie = format!("cookie: tilekeep_session={}", fixture.tokens[0]);
                h2load(script, &cookie, cores, seconds)
            }
        }
    }
}

/// Each request in its turn, and the figures as one line. A table in the script itself would have more
/// constants than Lua allows.
fn wrk_script(requests: &Path) -> String {
    format!(
        r#"
local r = {{}}
for line in io.lines("{requests}") do
  local path, token, etag = line:match("^(%S+) (%S+) (%S+)$")
  local condition = etag == "-" and "" or "If-None-Match: " .. etag .. "\r\n"
  r[#r + 1] = "GET " .. path .. " HTTP/1.1\r\nHost: localhost\r\nCookie: tilekeep_session=" .. token .. "\r\n" .. condition .. "\r\n"
end
local n, i = #r, 0
request = function() i = i % n + 1; return r[i] end
done = function(s, latency)
  local e = s.errors
  print(string.format("FIGURES %d %d %d %f", s.requests, s.duration, e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99)))
end
"#,
        requests = requests.display()
    )
}

fn wrk(requests: &Path, server: &Server, cores: Cores, seconds: usize) -> Done {
    let output = output(
        cores
            .generator("wrk")
            .args([
                "-t1",
                &format!("-c{CONNECTIONS}"),
                &format!("-d{seconds}s"),
                "-s",
            ])
            .arg(requests.with_extension("lua"))
            .arg(format!("http://{}", server.address)),
    );
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("FIGURES "))
        .unwrap_or_else(|| panic!("wrk said:\n{output}"));
    let figures: Vec<f64> = line
        .split_whitespace()
        .map(|figure| figure.parse().unwrap())
        .collect();
    assert!(figures[2] == 0.0, "wrk counted errors: {line}");
    Done {
        requests: figures[0] as u64,
        seconds: figures[1] / 1e6,
        p99_ms: figures[3] / 1e3,
    }
}

fn h2load(urls: &Path, cookie: &str, cores: Cores, seconds: usize) -> Done {
    let output = output(
        cores
            .generator("h2load")
            .args(["-t1", "-c8", "-m20", &format!("-D{seconds}"), "-H", cookie])
            .arg(format!("-i{}", urls.display())),
    );
    let number = |before: &str, after: &str| -> f64 {
        output
            .lines()
            .find_map(|line| line.split_once(after)?.0.rsplit_once(before))
            .and_then(|(_, number)| number.trim().parse().ok())
            .unwrap_or_else(|| panic!("h2load said:\n{output}"))
    };
    let (succeeded, failed) = (number(",", " succeeded"), number(",", " failed"));
    let not_ok = number(",", " 4xx") + number(",", " 5xx");
    assert!(
        failed + not_ok == 0.0 && succeeded > 0.0,
        "h2load said:\n{output}"
    );
    Done {
        requests: succeeded as u64,
        seconds: seconds as f64,
        p99_ms: f64::NAN,
    }
}

fn output(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?} failed");
    String::from_utf8(output.stdout).unwrap()
}
