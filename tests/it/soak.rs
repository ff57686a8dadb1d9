//! Mixed load on the program itself, for a minute or for an hour: what it holds stays as large as it was.
//!
//! Hits, misses, revalidations, missing tiles, purges of tiles that changed, log-ins and log-outs, evictions from
//! both tiers, clients that hang up, and an S3 that fails in a different way each cycle. Every body is compared
//! with what the bucket holds, so that it is also an hour of looking for a wrong tile.
//!
//! `SOAK_MINUTES=60 cargo test --test it soak` is the hour; `SOAK_RATE` says how many requests a second, `SOAK_OUT`
//! where the samples (CSV), the picture (SVG) and the server's log go, `SOAK_TILEKEEP` which program.
//!
//! Invariant: its clock is the load's own. A process that is stopped loses nothing but that time, and the sessions that
//! end meanwhile: theirs is the wall's, and they live a minute.
//! Left out: how fast anything is (the benches), and more than one node.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "small numbers, and figures for people"
)]

mod load;
mod watch;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tilekeep::embedded_s3::{
    BucketSettings, BucketSource, EmbeddedS3, EmbeddedS3Settings, Fault, Operation,
};
use tokio::time::Instant;

use self::load::{Load, NAMES, password};
use self::watch::{MIB, Watch};
use crate::serving::Serving;

const BUCKET: &str = "private-tiles";
const KEY: &str = "a key for tests, of 32 bytes or more";
/// Of the disk tier: about half of what there is, so that it evicts for as long as this goes on.
const DISK: u64 = 64 * MIB;
const PATIENCE: Duration = Duration::from_mins(2);
/// After a fault has gone: the breaker's pause, a deadline, and a busy machine.
const AFTERMATH: Duration = Duration::from_secs(10);

/// How long, how hard, and in which rhythm.
struct Plan {
    whole: Duration,
    rate: u32,
    /// From one fault of S3 to the next; a sixth of it is the fault.
    cycle: Duration,
    sample: Duration,
    log_in: Duration,
    purge: Duration,
}

impl Plan {
    fn from_environment() -> Self {
        let number = |name: &str, default: f64| {
            std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
        };
        let whole = Duration::from_secs_f64(number("SOAK_MINUTES", 1.0) * 60.0);
        let long = whole >= Duration::from_mins(10);
        let by =
            |long_form, short_form| Duration::from_secs(if long { long_form } else { short_form });
        let rate = number("SOAK_RATE", if long { 100.0 } else { 150.0 }) as u32;
        Self {
            whole,
            rate,
            cycle: by(60, 12),
            sample: by(5, 1),
            log_in: by(5, 2),
            purge: by(7, 2),
        }
    }

    /// Which way S3 fails now, and whether it has done so of late.
    fn fault(&self, now: Duration) -> (Option<usize>, bool) {
        let into =
            Duration::from_nanos(u64::try_from(now.as_nanos() % self.cycle.as_nanos()).unwrap());
        let number = usize::try_from(now.as_nanos() / self.cycle.as_nanos()).unwrap();
        let lasts = self.cycle / 6;
        // The first sixths of a cycle are quiet.
        let begins = self.cycle / 2;
        let on = (begins..begins + lasts).contains(&into);
        let late = now >= begins && into < (begins + lasts + AFTERMATH).saturating_sub(self.cycle);
        (
            on.then_some(number),
            late || (begins..begins + lasts + AFTERMATH).contains(&into),
        )
    }
}

fn faults() -> [(&'static str, Fault); 9] {
    [
        ("slow down", Fault::slow_down(None)),
        ("internal error", Fault::internal_error()),
        ("access denied", Fault::access_denied()),
        ("reset", Fault::Reset(100)),
        ("truncated", Fault::Truncate(100)),
        ("stalled", Fault::Stall(100)),
        ("never answers", Fault::NeverAnswer),
        ("corrupt", Fault::Corrupt),
        ("slow", Fault::Delay(Duration::from_millis(400))),
    ]
}

/// The program over this bucket.
async fn start(s3: &EmbeddedS3, out: &Path) -> Serving {
    let config = format!(
        "[origin]\ndeadline = \"3s\"\n\
         [cache]\nmemory = \"8MiB\"\ndisk = \"{DISK}\"\ndisk_path = \"cache\"\nfresh = \"20s\"\n\
         stale_while_revalidate = \"20s\"\nstale_if_error = \"1h\"\nmissing = \"5s\"\n\
         [session]\nttl = \"1m\"\nmax_ttl = \"2m\"\nkeys = [{{ id = \"test\", secret = \"{KEY}\" }}]\n\
         [login]\nusers_file = \"users.toml\"\n\
         [[quotas]]\nname = \"viewer\"\nrequests_per_second = 100000\ndistinct_tiles_per_hour = 100000\n\
         [aws]\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\npath_style = true\n\
         [tilesets.world]\nbucket = \"{BUCKET}\"\nkey = \"world/{{z}}/{{x}}/{{y}}.png\"\nmaxzoom = 8\n",
        s3.endpoint_url()
    );
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        add_user(&folder.path().join("users.toml"), name);
    }
    Serving::start(
        &program(),
        folder,
        &config,
        s3.keys(),
        &out.join("server.log"),
    )
    .await
}

fn program() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_tilekeep").into();
    std::env::var_os("SOAK_TILEKEEP").map_or_else(built, PathBuf::from)
}

fn add_user(users: &Path, name: &str) {
    let mut adding = Command::new(program())
        .args([
            "user",
            "add",
            name,
            "--tilesets",
            "*",
            "--password-stdin",
            "--users-file",
        ])
        .arg(users)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let input = adding.stdin.take();
    writeln!(input.unwrap(), "{}", password(name)).unwrap();
    assert!(adding.wait().unwrap().success(), "user add {name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_mixed_load_and_with_a_failing_bucket_nothing_grows_and_no_tile_is_wrong() {
    let plan = Plan::from_environment();
    let out = std::env::var_os("SOAK_OUT").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("soak"),
        PathBuf::from,
    );
    std::fs::create_dir_all(&out).unwrap();
    let s3 = EmbeddedS3::start(EmbeddedS3Settings {
        buckets: vec![BucketSettings::private(BUCKET, BucketSource::Empty)],
        ..EmbeddedS3Settings::default()
    });
    let s3 = Arc::new(s3.await.unwrap());
    let mut server = start(&s3, &out).await;
    let load = Arc::new(Load::new(Arc::clone(&s3), server.public, server.admin));
    load.every_tile_once(PATIENCE).await;
    let mut watch = Watch::new(server.id(), server.folder(), &out, plan.whole);

    let mut now = Duration::ZERO;
    let [mut sampled, mut logged_in, mut purged] = [Duration::ZERO; 3];
    let mut failing = None;
    let mut asked = 0u32;
    let mut last = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while now < plan.whole {
        tick.tick().await;
        // A step is never longer than this, whatever the machine did meanwhile.
        now += last.elapsed().min(Duration::from_millis(500));
        last = Instant::now();
        let (fault, trouble) = plan.fault(now);
        if fault != failing {
            s3.clear_faults();
            if let Some(number) = fault {
                let [.., (name, fault)] = &faults()[..=number % faults().len()] else {
                    unreachable!()
                };
                watch.fault(now, name);
                s3.inject(Some(Operation::GetObject), usize::MAX, fault.clone());
            }
            failing = fault;
        }
        load.trouble(trouble);
        let due = (now.as_secs_f64() * f64::from(plan.rate)) as u32;
        load.ask((due - asked).min(plan.rate));
        asked = due;
        if now >= logged_in + plan.log_in {
            logged_in = now;
            load.somebody_comes_and_goes();
        }
        if now >= purged + plan.purge {
            purged = now;
            load.tiles_change_and_are_purged();
        }
        if now >= sampled + plan.sample {
            sampled = now;
            watch.sample(now, &load).await;
        }
    }
    s3.clear_faults();
    let answered = load.all_answered(PATIENCE).await;
    let metrics = load.metrics().await;
    let ended_well = server.stop(PATIENCE).await;
    let verdict = watch.verdict(&load);
    println!("{verdict}");
    std::fs::write(out.join("verdict.txt"), verdict.to_string()).unwrap();
    assert!(answered, "requests that nobody answered");
    assert!(ended_well, "it did not end as it was asked to");
    assert_eq!(load.wrong(), Vec::<String>::new());
    assert!(verdict.few_failures_without_trouble, "{verdict}");
    for (what, least) in [
        ("tilekeep_memory_evictions_total", 100.0),
        ("tilekeep_tiles_served_total{source=\"memory\"}", 1000.0),
        ("tilekeep_tiles_served_total{source=\"disk\"}", 50.0),
        ("tilekeep_tiles_served_total{source=\"origin\"}", 100.0),
        ("tilekeep_logins_total", 5.0),
    ] {
        let seen: f64 = metrics
            .iter()
            .filter(|(name, _)| name.starts_with(what))
            .map(|(_, n)| n)
            .sum();
        assert!(
            seen >= least,
            "{what} is {seen}; the load was not what it is to be"
        );
    }
    assert!(verdict.flat(), "{verdict}");
}
