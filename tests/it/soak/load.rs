//! What people, an operator and a bucket do during a soak, and whether the answers are right.
//!
//! Invariant: a body is compared whole with what the bucket has held since the tile was last purged; nothing that
//! differs goes untold.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tilekeep::auth::{Claims, KeyMaterial, KeyRing, KeySettings, Secret};
use tilekeep::clock::Clock;
use tilekeep::embedded_s3::{EmbeddedS3, PutOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};

use super::{BUCKET, KEY};

/// Who has a password.
pub(super) const NAMES: [&str; 4] = ["anna", "bert", "carla", "dora"];
/// The deepest zoom that has tiles: 5,461 of them, some 130 MB.
const DEEPEST: u8 = 6;
/// Tiles that are asked for most.
const HOT: usize = 400;
const PEOPLE: u64 = 12;
/// More are not asked for at once; a tick that finds so many under way is left out.
const AT_ONCE: u64 = 128;

pub(super) fn password(name: &str) -> String {
    format!("{name}s long password")
}

type Http = Client<HttpConnector, Full<Bytes>>;

/// A tile that the bucket holds, with which content, and since when that is all that may be served.
struct Tile {
    place: (u8, u32, u32),
    written: AtomicU32,
    least: AtomicU32,
}

/// The load and its books.
pub(super) struct Load {
    s3: Arc<EmbeddedS3>,
    public: SocketAddr,
    admin: SocketAddr,
    http: [Http; 2],
    keys: KeyRing,
    tiles: Vec<Tile>,
    tokens: Mutex<Vec<String>>,
    /// The validators that answers brought, and of which content.
    held: Mutex<HashMap<usize, (String, u32)>>,
    chance: Mutex<u64>,
    trouble: AtomicBool,
    under_way: AtomicU64,
    left_out: AtomicU64,
    turns: AtomicU64,
    answers: Mutex<BTreeMap<String, u64>>,
    wrong: Mutex<Vec<String>>,
}

impl Load {
    pub(super) fn new(s3: Arc<EmbeddedS3>, public: SocketAddr, admin: SocketAddr) -> Self {
        let material = KeyMaterial::Hs256 {
            secret: Secret::new(KEY),
        };
        let keys = KeyRing::new(vec![KeySettings {
            id: "test".into(),
            material,
        }]);
        let tiles: Vec<Tile> = (0..=DEEPEST)
            .flat_map(|z| (0..1 << z).flat_map(move |x| (0..1 << z).map(move |y| (z, x, y))))
            .map(|place| Tile {
                place,
                written: AtomicU32::new(0),
                least: AtomicU32::new(0),
            })
            .collect();
        let http = |h2: bool| {
            Client::builder(TokioExecutor::new())
                .http2_only(h2)
                .pool_max_idle_per_host(16)
                .build_http()
        };
        let load = Self {
            s3,
            public,
            admin,
            http: [http(false), http(true)],
            keys: keys.unwrap(),
            tiles,
            tokens: Mutex::default(),
            held: Mutex::default(),
            chance: Mutex::new(7),
            trouble: AtomicBool::new(false),
            under_way: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            answers: Mutex::default(),
            wrong: Mutex::default(),
        };
        for index in 0..load.tiles.len() {
            load.write(index);
        }
        for person in 0..PEOPLE {
            let token = load.token(person);
            load.tokens.lock().unwrap().push(token);
        }
        load
    }

    /// Whether S3 fails now or did so of late.
    pub(super) fn trouble(&self, trouble: bool) {
        self.trouble.store(trouble, Ordering::Relaxed);
    }

    /// Fills both tiers, so that they evict from the beginning.
    pub(super) async fn every_tile_once(self: &Arc<Self>, patience: Duration) {
        let until = Instant::now() + patience;
        for index in 0..self.tiles.len() {
            while self.under_way.load(Ordering::SeqCst) >= 16 {
                assert!(Instant::now() < until, "the tiers take too long to fill");
                sleep(Duration::from_millis(1)).await;
            }
            self.meanwhile(async move |load| load.tile(0, index, false, &load.bearer()).await);
        }
        assert!(self.all_answered(patience).await);
    }

    /// So many requests, of every kind.
    pub(super) fn ask(self: &Arc<Self>, count: u32) {
        for _ in 0..count {
            let (kind, index) = (self.below(1000), self.below(self.tiles.len() as u64));
            // Some tiles are wanted far more than others.
            let hot = self.below(HOT as u64).min(self.below(HOT as u64));
            let [hot, index] = [hot, index].map(|n| usize::try_from(n).unwrap());
            let http = usize::from(self.below(4) == 0);
            self.meanwhile(async move |load| match kind {
                0..600 => load.tile(http, hot, false, &load.bearer()).await,
                600..780 => load.tile(http, index, false, &load.bearer()).await,
                780..880 => load.tile(http, hot, true, &load.bearer()).await,
                880..960 => load.absent(http).await,
                960..980 => load.head(http, hot).await,
                980..990 => load.page(http).await,
                990..996 => load.somebody_hangs_up(hot).await,
                _ => load.a_new_token(),
            });
        }
    }

    /// Somebody signs in, looks at tiles, stays a while, signs out, and sees nothing after that.
    pub(super) fn somebody_comes_and_goes(self: &Arc<Self>) {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let name = NAMES[usize::try_from(turn).unwrap() % NAMES.len()];
        self.meanwhile(async move |load| load.visit(name).await);
    }

    async fn visit(&self, name: &str) {
        let body = serde_json::json!({"username": name, "password": password(name)}).to_string();
        let json = [
            ("content-type", "application/json"),
            ("sec-fetch-site", "same-origin"),
        ];
        let Some(answer) = self
            .send(0, self.public, Method::POST, "/session", &json, body)
            .await
        else {
            return;
        };
        if !self.expect("log-in", &answer, &[200], &[]) {
            return;
        }
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let with_cookie = ("cookie", cookie.as_str());
        for _ in 0..8 {
            let index = usize::try_from(self.below(HOT as u64)).unwrap();
            self.tile(0, index, false, &with_cookie).await;
            sleep(Duration::from_millis(200)).await;
        }
        let own = [with_cookie, ("sec-fetch-site", "same-origin")];
        for (method, path, expected) in [
            (Method::POST, "/session/renew", 200),
            (Method::DELETE, "/session", 204),
            (Method::GET, "/world/0/0/0.png", 401),
        ] {
            let what = format!("{method} {path} of a session");
            if let Some(answer) = self.send(0, self.public, method, path, &own, "").await {
                self.expect(&what, &answer, &[expected], &[]);
            }
        }
    }

    /// Tiles get new content in the bucket and are purged: from the answer on, only that may be served. Now and then
    /// everything of a zoom goes too, or is to be revalidated.
    pub(super) fn tiles_change_and_are_purged(self: &Arc<Self>) {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        self.meanwhile(async move |load| {
            let first = usize::try_from(load.below(HOT as u64)).unwrap();
            let changed: Vec<usize> = (first..first + 5).collect();
            for &index in &changed {
                load.write(index);
            }
            let written: Vec<u32> = changed
                .iter()
                .map(|&i| load.tiles[i].written.load(Ordering::SeqCst))
                .collect();
            let names: Vec<String> = changed.iter().map(|&i| load.tiles[i].name()).collect();
            let mut purges = vec![serde_json::json!({"tileset": "world", "tiles": names})];
            if turn.is_multiple_of(3) {
                purges.push(
                    serde_json::json!({"tileset": "world", "minzoom": 6, "bbox": [-180, 0, 0, 85]}),
                );
            }
            if turn.is_multiple_of(5) {
                purges.push(serde_json::json!({"tileset": "world", "soft": true}));
            }
            for (number, purge) in purges.into_iter().enumerate() {
                let json = [("content-type", "application/json")];
                let answer = load
                    .send(
                        0,
                        load.admin,
                        Method::POST,
                        "/purge",
                        &json,
                        purge.to_string(),
                    )
                    .await;
                let Some(answer) = answer else { continue };
                if load.expect("purge", &answer, &[200], &[]) && number == 0 {
                    for (&index, &written) in changed.iter().zip(&written) {
                        load.tiles[index].least.fetch_max(written, Ordering::SeqCst);
                    }
                }
            }
        });
    }

    /// The admin side's figures by name and labels.
    pub(super) async fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = self
            .send(0, self.admin, Method::GET, "/metrics", &[], "")
            .await;
        let text = answer.map_or(String::new(), |a| {
            String::from_utf8(a.body.to_vec()).unwrap()
        });
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect()
    }

    /// Waits until nothing is under way.
    pub(super) async fn all_answered(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.under_way.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
        }
        self.under_way.load(Ordering::SeqCst) == 0
    }

    /// How often which answer came.
    pub(super) fn answers(&self) -> BTreeMap<String, u64> {
        let mut answers = self.answers.lock().unwrap().clone();
        answers.insert("left out".into(), self.left_out.load(Ordering::Relaxed));
        answers
    }

    /// What must not be: wrong tiles, answers that nothing explains.
    pub(super) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    fn meanwhile<F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.under_way.load(Ordering::SeqCst) >= AT_ONCE {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let (load, work) = (Arc::clone(self), work(Arc::clone(self)));
        tokio::spawn(async move {
            work.await;
            load.under_way.fetch_sub(1, Ordering::SeqCst);
        });
    }

    async fn tile(
        &self,
        http: usize,
        index: usize,
        conditional: bool,
        right: &(&str, impl AsRef<str>),
    ) {
        let tile = &self.tiles[index];
        let least = tile.least.load(Ordering::SeqCst);
        let held = self
            .held
            .lock()
            .unwrap()
            .get(&index)
            .cloned()
            .filter(|_| conditional);
        let mut headers = vec![(right.0, right.1.as_ref())];
        if let Some((etag, _)) = &held {
            headers.push(("if-none-match", etag));
        }
        let path = format!("/world/{}.png", tile.name());
        let Some(answer) = self
            .send(http, self.public, Method::GET, &path, &headers, "")
            .await
        else {
            return;
        };
        let what = if held.is_some() { "held tile" } else { "tile" };
        let expected: &[u16] = if held.is_some() { &[200, 304] } else { &[200] };
        if !self.expect(what, &answer, expected, &[502, 503, 504]) {
            return;
        }
        let newest = tile.written.load(Ordering::SeqCst);
        if answer.status == 304 {
            let of = held.map_or(0, |(_, of)| of);
            if !(least..=newest).contains(&of) {
                self.tell(format!("{path}: 304 to content {of}; {least} is the least"));
            }
            return;
        }
        let right = (least..=newest).find(|&of| answer.body == tile.content(of));
        let Some(of) = right else {
            let begin =
                String::from_utf8_lossy(&answer.body[..answer.body.len().min(60)]).into_owned();
            let status = answer.headers.get("cache-status");
            self.tell(format!(
                "{path}: not the content {least} to {newest}: {begin:?}, {status:?}"
            ));
            return;
        };
        let etag = answer.headers["etag"].to_str().unwrap().to_owned();
        self.held.lock().unwrap().insert(index, (etag, of));
    }

    async fn absent(&self, http: usize) {
        let (x, y) = (self.below(256), self.below(256));
        let path = format!("/world/8/{x}/{y}.png");
        let (name, value) = self.bearer();
        if let Some(answer) = self
            .send(http, self.public, Method::GET, &path, &[(name, &value)], "")
            .await
        {
            self.expect("absent tile", &answer, &[404], &[502, 503, 504]);
        }
    }

    async fn head(&self, http: usize, index: usize) {
        let path = format!("/world/{}.png", self.tiles[index].name());
        let (name, value) = self.bearer();
        if let Some(answer) = self
            .send(
                http,
                self.public,
                Method::HEAD,
                &path,
                &[(name, &value)],
                "",
            )
            .await
        {
            self.expect("HEAD", &answer, &[200], &[502, 503, 504]);
        }
    }

    async fn page(&self, http: usize) {
        let (path, expected) = [
            ("/world.json", 200),
            ("/login", 200),
            ("/healthz", 200),
            ("/world/x/y/z", 400),
        ][usize::try_from(self.below(4)).unwrap()];
        let (name, value) = self.bearer();
        if let Some(answer) = self
            .send(http, self.public, Method::GET, path, &[(name, &value)], "")
            .await
        {
            self.expect(path, &answer, &[expected], &[]);
        }
    }

    /// In the middle of a head, or before the answer is read.
    async fn somebody_hangs_up(&self, index: usize) {
        let Ok(mut stream) = tokio::net::TcpStream::connect(self.public).await else {
            return self.tell("a connection is refused".into());
        };
        let head = format!(
            "GET /world/{}.png HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n",
            self.tiles[index].name(),
            self.bearer().1
        );
        let sent = usize::try_from(self.below(head.len() as u64 * 2)).unwrap();
        // The other side may end it first.
        let _ = stream
            .write_all(&head.as_bytes()[..sent.min(head.len())])
            .await;
    }

    fn a_new_token(&self) {
        let person = self.below(PEOPLE);
        let token = self.token(person);
        self.tokens.lock().unwrap()[usize::try_from(person).unwrap()] = token;
    }

    fn token(&self, person: u64) -> String {
        let now = Clock::System.now().secs();
        let claims: Claims = serde_json::from_value(serde_json::json!({
            "sub": format!("person-{person}@example.com"), "iat": now, "exp": now + 86_400,
            "jti": self.below(u64::MAX).to_string(), "tilesets": ["*"], "quota": "viewer",
        }))
        .unwrap();
        self.keys.mint(&claims).unwrap()
    }

    fn bearer(&self) -> (&'static str, String) {
        let person = usize::try_from(self.below(PEOPLE)).unwrap();
        (
            "authorization",
            format!("Bearer {}", self.tokens.lock().unwrap()[person]),
        )
    }

    /// Writes the next content of a tile into the bucket.
    fn write(&self, index: usize) {
        let tile = &self.tiles[index];
        let next = tile.written.fetch_add(1, Ordering::SeqCst) + 1;
        let key = format!("world/{}.png", tile.name());
        assert!(
            self.s3
                .put(BUCKET, &key, tile.content(next), PutOptions::default())
        );
    }

    async fn send(
        &self,
        http: usize,
        to: SocketAddr,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Option<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{to}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = async {
            let response = self.http[http]
                .request(request)
                .await
                .map_err(|e| format!("{e:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|e| format!("{e:?}"))?
                .to_bytes();
            Ok::<_, String>(Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
            })
        };
        match answer.await {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.tell(format!("{path}: no answer: {error}"));
                None
            }
        }
    }

    /// Whether the status is one of those expected; what else is right only while S3 is in trouble.
    fn expect(&self, what: &str, answer: &Answer, expected: &[u16], in_trouble: &[u16]) -> bool {
        let trouble = self.trouble.load(Ordering::Relaxed);
        let right = expected.contains(&answer.status);
        let excused = in_trouble.contains(&answer.status);
        let when = if excused && !trouble {
            " without trouble"
        } else {
            ""
        };
        let word = format!("{what} {}{when}", answer.status);
        *self.answers.lock().unwrap().entry(word).or_default() += 1;
        if !right && !excused {
            let body =
                String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned();
            self.tell(format!("{what}: {}: {body}", answer.status));
        }
        right
    }

    fn tell(&self, what: String) {
        let mut wrong = self.wrong.lock().unwrap();
        // The first ones say enough.
        if wrong.len() < 20 {
            wrong.push(what);
        }
    }

    fn below(&self, bound: u64) -> u64 {
        let mut state = self.chance.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        splitmix(*state) % bound
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Tile {
    fn name(&self) -> String {
        let (z, x, y) = self.place;
        format!("{z}/{x}/{y}")
    }

    /// Some 24 kB that follow from the place and the number, and look like nothing else.
    fn content(&self, number: u32) -> Bytes {
        let (z, x, y) = self.place;
        let mut state =
            u64::from(z) << 56 ^ u64::from(x) << 40 ^ u64::from(y) << 24 ^ u64::from(number);
        let length = 500 + usize::try_from(splitmix(state) % 47_000).unwrap();
        let mut body = format!("\u{89}PNG {} {number} ", self.name()).into_bytes();
        while body.len() < length {
            state = splitmix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            body.extend(state.to_le_bytes());
        }
        body.into()
    }
}

fn splitmix(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
