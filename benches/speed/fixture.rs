//! The tiles that every server serves, who asks for them, and in which order.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tilekeep::auth::{Claims, KeyMaterial, KeyRing, KeySettings, Secret};
use tilekeep::aws::AccessKeys;
use tilekeep::embedded_s3::{BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings};

/// The key that signs the sessions, in every server's configuration.
pub const SESSION_KEY: &str = "a key for benches, of 32 bytes...";
pub const BUCKET: &str = "tiles";
/// All tiles of zoom 0 to 7: 21,845.
const MAX_ZOOM: u8 = 7;
const PEOPLE: usize = 1000;
/// A screen of 256-pixel tiles.
const VIEW: (u32, u32) = (5, 4);
const VIEWS: usize = 5000;
/// So few that nginx can keep every file of the trace open: 16,000 descriptors.
const PLACES: usize = 700;

/// One request: which tile, by whom.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub tile: usize,
    pub person: usize,
}

/// A tile on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    pub z: u8,
    pub x: u32,
    pub y: u32,
    pub bytes: usize,
}

impl Place {
    pub fn path(&self) -> String {
        format!("/world/{}/{}/{}.png", self.z, self.x, self.y)
    }
}

/// Everything that the servers and the generators have in common.
pub struct Fixture {
    folder: TempDir,
    pub tiles: Vec<Place>,
    pub trace: Vec<Request>,
    /// A thousand people's tokens.
    pub tokens: Vec<String>,
    /// The bucket, in this process: asked only while a server is warmed.
    s3: EmbeddedS3,
    _runtime: tokio::runtime::Runtime,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut chance = Chance(7);
        let tiles: Vec<Place> = (0..=MAX_ZOOM)
            .flat_map(|z| {
                let side = 1u32 << z;
                (0..side).flat_map(move |x| (0..side).map(move |y| (z, x, y)))
            })
            .map(|(z, x, y)| Place {
                z,
                x,
                y,
                bytes: chance.body_length(),
            })
            .collect();
        let root = folder.path().join("files");
        for tile in &tiles {
            let path = root.join(tile.path().trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, chance.bytes(tile.bytes)).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let s3 = runtime
            .block_on(EmbeddedS3::start(EmbeddedS3Settings {
                buckets: vec![BucketSettings::private(
                    BUCKET,
                    BucketSource::Folder(root.clone()),
                )],
                ..EmbeddedS3Settings::default()
            }))
            .unwrap();
        Self {
            trace: trace(&mut chance),
            tokens: tokens(),
            tiles,
            folder,
            s3,
            _runtime: runtime,
        }
    }

    /// Where the files are: nginx's root.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// For configurations and scripts.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn endpoint(&self) -> String {
        self.s3.endpoint_url().clone()
    }

    /// The bucket itself, for benches that slow it down or count what it is asked.
    #[allow(dead_code, reason = "not every bench does")]
    pub fn s3(&self) -> &EmbeddedS3 {
        &self.s3
    }

    pub fn keys(&self) -> &AccessKeys {
        self.s3.keys()
    }

    pub fn mean_body(&self) -> f64 {
        self.tiles.iter().map(|tile| tile.bytes).sum::<usize>() as f64 / self.tiles.len() as f64
    }
}

/// Views of places that are asked for as words are in a language (Zipf), each by one person, a view's
/// tiles one after another.
fn trace(chance: &mut Chance) -> Vec<Request> {
    let places: Vec<(u8, u32, u32)> = (0..PLACES)
        .map(|_| {
            let z = 4 + chance.below(4) as u8;
            let side = 1u32 << z;
            let x = chance.below(u64::from(side - VIEW.0)) as u32;
            let y = chance.below(u64::from(side - VIEW.1)) as u32;
            (z, x, y)
        })
        .collect();
    let mut heights = Vec::with_capacity(PLACES);
    let mut sum = 0.0;
    for rank in 1..=PLACES {
        sum += 1.0 / rank as f64;
        heights.push(sum);
    }
    let mut requests = Vec::new();
    for view in 0..VIEWS {
        let height = chance.unit() * sum;
        let (z, x, y) = places[heights.partition_point(|h| *h < height).min(PLACES - 1)];
        for dx in 0..VIEW.0 {
            for dy in 0..VIEW.1 {
                requests.push(Request {
                    tile: index(z, x + dx, y + dy),
                    person: (view * 37 + dx as usize) % PEOPLE,
                });
            }
        }
    }
    requests
}

/// A tile's place in the list of all.
fn index(z: u8, x: u32, y: u32) -> usize {
    let before = ((1usize << (2 * u32::from(z))) - 1) / 3;
    before + x as usize * (1 << z) + y as usize
}

/// A thousand people's.
pub fn tokens() -> Vec<String> {
    let keys = KeyRing::new(vec![KeySettings {
        id: "bench".into(),
        material: KeyMaterial::Hs256 {
            secret: Secret::new(SESSION_KEY),
        },
    }])
    .unwrap();
    (0..PEOPLE)
        .map(|person| {
            let claims: Claims = serde_json::from_value(serde_json::json!({
                "sub": format!("person-{person}@example.com"), "exp": 4_000_000_000_u64,
                "tilesets": ["*"], "quota": "viewer",
            }))
            .unwrap();
            keys.mint(&claims).unwrap()
        })
        .collect()
}

/// Numbers that look random and are the same at every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0.3 to some 60 kB, 8.7 kB on average: the exponential of a sum of uniform numbers.
    fn body_length(&mut self) -> usize {
        let normal = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        ((8.75 + 0.8 * normal).exp() as usize).clamp(300, 60_000)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        while bytes.len() < length {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
