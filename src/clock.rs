//! The time, as an argument: decisions take a [`Timestamp`], or an [`Uptime`] where a step of the wall
//! clock must change nothing, and only the edges ask a [`Clock`].

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

/// Milliseconds since 1970-01-01T00:00:00Z, by the wall clock. It can jump either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From seconds since the epoch, as JWTs and HTTP dates count.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub const fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same moment for the standard library.
    pub fn to_system_time(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

/// Nanoseconds since this process first asked. It never goes back and is never set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uptime(u64);

impl Uptime {
    /// From seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000_000))
    }

    /// From nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds: enough for 584 years.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub const fn since(self, earlier: Uptime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Uptime {
    fn from(since: Duration) -> Self {
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add<Duration> for Uptime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(Self::from(duration).0))
    }
}

/// What [`Uptime`] counts from.
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's clocks.
    #[default]
    System,
    /// Clocks that a test moves.
    Manual {
        /// Milliseconds since the epoch.
        wall: Arc<AtomicU64>,
        /// Nanoseconds of uptime.
        uptime: Arc<AtomicU64>,
    },
}

impl Clock {
    /// A clock that stands still at `start` until [`Clock::advance`] or [`Clock::set`].
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual {
            wall: Arc::new(AtomicU64::new(start.millis())),
            uptime: Arc::default(),
        }
    }

    /// The time.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
            }
            Self::Manual { wall, .. } => Timestamp(wall.load(Ordering::Acquire)),
        }
    }

    /// The time that passes whatever the wall clock is set to.
    pub fn uptime(&self) -> Uptime {
        match self {
            Self::System => STARTED.elapsed().into(),
            Self::Manual { uptime, .. } => Uptime(uptime.load(Ordering::Acquire)),
        }
    }

    /// Lets time pass on a manual clock; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual { uptime, .. } = self {
            uptime.store((self.uptime() + by).nanos(), Ordering::Release);
        }
        self.set(self.now() + by);
    }

    /// Sets a manual wall clock, as an operator would: no time passes. The system's clock is left alone.
    pub fn set(&self, to: Timestamp) {
        if let Self::Manual { wall, .. } = self {
            wall.store(to.millis(), Ordering::Release);
        }
    }
}
