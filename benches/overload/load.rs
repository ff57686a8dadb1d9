//! Who asks: at a rate, whatever becomes of it (open loop), or as fast as answers come (closed loop).
//!
//! Open loop: a thread of its own says when each request is due, which a runtime's timers of a millisecond could
//! not; it goes out on a connection that is free, or on a new one. Its time counts from when it was due.

use std::cell::RefCell;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

/// Tiles that are hit: 17 MB of them.
const HITS: u64 = 2000;
/// Open connections at most: fewer than the server lets one address have.
const MOST: usize = 4000;
/// What does not count at the beginning.
const WARM_UP: Duration = Duration::from_secs(1);
/// For what is still under way at the end.
const LAST: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Hits,
    EachHitOnce,
    Misses,
}

/// What is to be asked for, how, and of whom.
#[derive(Debug)]
pub struct Order {
    pub address: SocketAddr,
    pub tokens: PathBuf,
    pub what: What,
    /// Requests a second; without, closed loop.
    pub rate: Option<f64>,
    /// At the beginning, and for ever in a closed loop.
    pub connections: usize,
    pub seconds: u64,
}

impl Order {
    pub fn to_line(&self) -> String {
        let what = match self.what {
            What::Hits => "hits",
            What::EachHitOnce => "once",
            What::Misses => "misses",
        };
        json!([
            self.address,
            self.tokens,
            what,
            self.rate,
            self.connections,
            self.seconds
        ])
        .to_string()
    }

    fn from_line(line: &str) -> Self {
        let (address, tokens, what, rate, connections, seconds): (_, _, String, _, _, _) =
            serde_json::from_str(line).unwrap();
        let what = match what.as_str() {
            "hits" => What::Hits,
            "once" => What::EachHitOnce,
            _ => What::Misses,
        };
        Self {
            address,
            tokens,
            what,
            rate,
            connections,
            seconds,
        }
    }
}

/// Of some requests' times, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    pub p50: f64,
    pub p99: f64,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Done {
    pub seconds: f64,
    /// Requests that were due, and tiles that came, while it counted.
    pub offered: u64,
    pub ok: u64,
    pub refused: u64,
    /// Other answers, broken connections, 503 without `Retry-After`, and what never came.
    pub odd: u64,
    pub ok_ms: Times,
    pub refused_ms: Times,
}

impl Done {
    pub fn per_second(&self) -> f64 {
        self.ok as f64 / self.seconds
    }

    pub fn share_refused(&self) -> f64 {
        self.refused as f64 / self.offered as f64
    }

    pub fn others(&self) -> u64 {
        self.refused + self.odd
    }

    pub fn from_line(line: &str) -> Self {
        let value: Value = serde_json::from_str(line).unwrap();
        let times = |name: &str| Times {
            p50: value[name][0].as_f64().unwrap(),
            p99: value[name][1].as_f64().unwrap(),
        };
        let count = |name: &str| value[name].as_u64().unwrap();
        Self {
            seconds: value["seconds"].as_f64().unwrap(),
            offered: count("offered"),
            ok: count("ok"),
            refused: count("refused"),
            odd: count("odd"),
            ok_ms: times("ok_ms"),
            refused_ms: times("refused_ms"),
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "offered {:>6.0}/s, 200: {:>6.0}/s in {:.2} ms (p99 {:.2}), 503: {:>6.0}/s in {:.2} ms (p99 {:.2}), other: {}",
            self.offered as f64 / self.seconds,
            self.per_second(),
            self.ok_ms.p50,
            self.ok_ms.p99,
            self.refused as f64 / self.seconds,
            self.refused_ms.p50,
            self.refused_ms.p99,
            self.odd,
        )
    }
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Tile,
    Refused,
    Odd,
}

/// Reads an order from its standard input and writes what became of it.
pub fn run() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let order = Order::from_line(&line);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let load = Rc::new(Load::new(&order));
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        match order.rate {
            Some(rate) => load.clone().open(rate, &order).await,
            None => load.clone().closed(&order).await,
        }
    });
    println!("{}", load.result(order.seconds));
}

struct Load {
    address: SocketAddr,
    what: What,
    tokens: Vec<String>,
    /// From here on it counts, until there.
    from: Instant,
    until: Instant,
    /// Which tile is next. Misses begin elsewhere at every run.
    next: RefCell<u64>,
    free: RefCell<Vec<TcpStream>>,
    open: RefCell<usize>,
    seen: RefCell<Seen>,
}

#[derive(Default)]
struct Seen {
    offered: u64,
    ok: u64,
    refused: u64,
    odd: u64,
    ok_us: Vec<u32>,
    refused_us: Vec<u32>,
}

impl Load {
    fn new(order: &Order) -> Self {
        let begun = Instant::now();
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let first = match order.what {
            What::Hits | What::EachHitOnce => 0,
            // 2^14 tiles a millisecond: none is ever asked for twice.
            What::Misses => u64::try_from(since.as_millis()).unwrap() << 14,
        };
        Self {
            address: order.address,
            what: order.what,
            tokens: fs::read_to_string(&order.tokens)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect(),
            from: begun + WARM_UP,
            until: begun + WARM_UP + Duration::from_secs(order.seconds),
            next: RefCell::new(first),
            free: RefCell::default(),
            open: RefCell::new(0),
            seen: RefCell::default(),
        }
    }

    /// Each connection asks again when it has its answer.
    async fn closed(self: Rc<Self>, order: &Order) {
        let mut asking = JoinSet::new();
        for _ in 0..order.connections {
            let load = self.clone();
            asking.spawn_local(async move {
                let mut connection = load.connect().await;
                let goes_on = || match load.what {
                    What::EachHitOnce => *load.next.borrow() < HITS,
                    What::Hits | What::Misses => Instant::now() < load.until,
                };
                while goes_on() {
                    let due = Instant::now();
                    let request = load.request();
                    let answer = ask(&mut connection, &request).await;
                    load.note(due, answer);
                    if answer == Answer::Odd {
                        connection = load.connect().await;
                    }
                }
            });
        }
        while asking.join_next().await.is_some() {}
    }

    /// Requests go out when they are due.
    async fn open(self: Rc<Self>, rate: f64, order: &Order) {
        for _ in 0..order.connections {
            let connection = self.connect().await;
            self.free.borrow_mut().push(connection);
        }
        let (say, mut due) = mpsc::unbounded_channel();
        let until = self.until;
        let clock = std::thread::spawn(move || tell_when_due(rate, until, &say));
        let mut asking = JoinSet::new();
        while let Some(due) = due.recv().await {
            let load = self.clone();
            asking.spawn_local(async move { load.one(due).await });
            while asking.try_join_next().is_some() {}
        }
        clock.join().unwrap();
        let rest = async { while asking.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST, rest).await;
        let never = asking.len() as u64;
        self.seen.borrow_mut().odd += never;
    }

    async fn one(&self, due: Instant) {
        let free = self.free.borrow_mut().pop();
        let mut connection = match free {
            Some(connection) => connection,
            None if *self.open.borrow() < MOST => self.connect().await,
            // It has not been asked: this machine is at its end, and that shows.
            None => return self.note(due, Answer::Odd),
        };
        let request = self.request();
        let answer = ask(&mut connection, &request).await;
        self.note(due, answer);
        if answer == Answer::Odd {
            *self.open.borrow_mut() -= 1;
        } else {
            self.free.borrow_mut().push(connection);
        }
    }

    async fn connect(&self) -> TcpStream {
        *self.open.borrow_mut() += 1;
        let connection = TcpStream::connect(self.address).await.unwrap();
        connection.set_nodelay(true).unwrap();
        connection
    }

    fn request(&self) -> String {
        let mut next = self.next.borrow_mut();
        let n = *next;
        *next += 1;
        let (z, x, y) = match self.what {
            // Neither side by side nor in order.
            What::Hits | What::EachHitOnce => {
                let n = n * 7919 % HITS;
                (11, n % 64, n / 64)
            }
            What::Misses => (20, n % (1 << 20), (n >> 20) % (1 << 20)),
        };
        let token = &self.tokens[usize::try_from(n % self.tokens.len() as u64).unwrap()];
        format!(
            "GET /world/{z}/{x}/{y}.png HTTP/1.1\r\nHost: localhost\r\nCookie: tilekeep_session={token}\r\n\
             Accept: image/*\r\nUser-Agent: overload\r\n\r\n"
        )
    }

    fn note(&self, due: Instant, answer: Answer) {
        let now = Instant::now();
        let mut seen = self.seen.borrow_mut();
        let took = u32::try_from(now.duration_since(due).as_micros()).unwrap_or(u32::MAX);
        let counts = self.what == What::EachHitOnce || (due >= self.from && due < self.until);
        if counts {
            seen.offered += 1;
            match answer {
                Answer::Tile => seen.ok_us.push(took),
                Answer::Refused => {
                    seen.refused += 1;
                    seen.refused_us.push(took);
                }
                Answer::Odd => seen.odd += 1,
            }
        }
        // Throughput is what came in that time, whenever it was due.
        seen.ok += u64::from(answer == Answer::Tile && now >= self.from && now < self.until);
    }

    fn result(&self, seconds: u64) -> Value {
        let mut seen = self.seen.borrow_mut();
        let Seen {
            offered,
            ok,
            refused,
            odd,
            ..
        } = *seen;
        json!({
            "seconds": seconds, "offered": offered, "ok": ok, "refused": refused, "odd": odd,
            "ok_ms": percentiles(&mut seen.ok_us), "refused_ms": percentiles(&mut seen.refused_us),
        })
    }
}

/// Arrivals as of many people who know nothing of each other (Poisson), the same at every run.
fn tell_when_due(rate: f64, until: Instant, say: &mpsc::UnboundedSender<Instant>) {
    let mut state = 7_u64;
    let mut due = Instant::now();
    loop {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let unit = ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        due += Duration::from_secs_f64(-unit.ln() / rate);
        if due >= until {
            return;
        }
        let wait = due.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if say.send(due).is_err() {
            return;
        }
    }
}

/// Sends a request and reads the whole answer.
async fn ask(connection: &mut TcpStream, request: &str) -> Answer {
    match exchange(connection, request).await {
        Ok(answer) => answer,
        Err(_) => Answer::Odd,
    }
}

async fn exchange(connection: &mut TcpStream, request: &str) -> std::io::Result<Answer> {
    connection.write_all(request.as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    let head = loop {
        let read = connection.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(Answer::Odd);
        }
        filled += read;
        if let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = std::str::from_utf8(&buffer[..head]).unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let length: Option<usize> = field("content-length").and_then(|length| length.parse().ok());
    let answer = match text.get(9..12) {
        Some("200") => Answer::Tile,
        Some("503") if field("retry-after").is_some() => Answer::Refused,
        _ => Answer::Odd,
    };
    let Some(length) = length else {
        return Ok(Answer::Odd);
    };
    let mut left = (head + length).saturating_sub(filled);
    while left > 0 {
        let most = left.min(buffer.len());
        let read = connection.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Ok(Answer::Odd);
        }
        left -= read;
    }
    Ok(answer)
}

/// The middle and the 99th percentile, in milliseconds.
fn percentiles(micros: &mut [u32]) -> [f64; 2] {
    micros.sort_unstable();
    [50, 99].map(|percent| {
        let place = micros.len() * percent / 100;
        micros
            .get(place.min(micros.len().saturating_sub(1)))
            .map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    })
}
