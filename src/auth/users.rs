//! The built-in log-in: names and passwords from the users file.
//!
//! A log-in costs one argon2id computation, whoever asks and whether or not the name exists; so many
//! run at a time and so many wait, and the rest are told to come back. The file is read again
//! when it has changed; a broken one is reported and the last good one stays.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use twox_hash::XxHash3_64;

use super::password::MAX_PASSWORD_LEN;
use super::throttle::{Attempt, Throttle, Throttled};
use super::users_file::{MAX_NAME_LEN, UsersError, read};
use super::{Grants, NoRandomness, PasswordHash, Secret, random};
use crate::clock::Timestamp;

/// Log-ins that hash at the same time; 19 MiB each by default.
const RUNNING: usize = 2;
/// Log-ins that wait for their turn.
const WAITING: usize = 30;
/// The longest wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody who can log in.
#[derive(Debug, Clone)]
pub struct User {
    /// The name, which becomes the session's `sub`.
    pub name: String,
    /// The password's hash.
    pub hash: PasswordHash,
    /// What the session may do.
    pub grants: Grants,
}

/// Why nobody was logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The name or the password is wrong; which is not said.
    #[error("name or password is wrong")]
    Refused,
    /// Too many attempts.
    #[error("too many attempts to log in; try again in {} seconds", .retry_after.as_secs())]
    Throttled {
        /// When one more is allowed.
        retry_after: Duration,
    },
    /// Too many people log in at this moment.
    #[error("too many people are logging in at this moment; try again in a few seconds")]
    Busy,
}

impl LoginError {
    /// The word for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Throttled { .. } => "throttled",
            Self::Busy => "busy",
        }
    }
}

/// The users, and how they are checked. Cheap to clone.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    path: Option<PathBuf>,
    /// The quota classes that there are.
    classes: Vec<String>,
    loaded: RwLock<Arc<Loaded>>,
    /// The state of the file that was last read, well or not.
    seen: Mutex<Option<Stamp>>,
    throttle: Arc<Throttle>,
    /// Whoever runs or waits.
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    hashes: AtomicU64,
}

/// What tells that a file was changed or replaced.
#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    modified: Option<std::time::SystemTime>,
    len: u64,
    inode: u64,
}

struct Loaded {
    users: HashMap<String, User>,
    /// A hash nobody has the password of, for each user: an unknown name is checked against one that
    /// is always the same for that name, so that its time is some user's time.
    decoys: Vec<PasswordHash>,
    seed: u64,
}

impl Loaded {
    fn new(users: Vec<User>) -> Result<Self, NoRandomness> {
        let mut decoys = Vec::with_capacity(users.len().max(1));
        let mut made: HashMap<String, PasswordHash> = HashMap::new();
        for user in &users {
            let cost = user.hash.cost().to_owned();
            let decoy = match made.get(&cost) {
                Some(decoy) => decoy.clone(),
                None => user.hash.decoy().map_err(|_| NoRandomness)?,
            };
            made.insert(cost, decoy.clone());
            decoys.push(decoy);
        }
        Ok(Self {
            users: users
                .into_iter()
                .map(|user| (user.name.clone(), user))
                .collect(),
            decoys,
            seed: u64::from_ne_bytes(random()?),
        })
    }

    /// `None` when there are no users at all, which is no secret.
    fn decoy(&self, name: &str) -> Option<&PasswordHash> {
        let hash = XxHash3_64::oneshot_with_seed(self.seed, name.as_bytes());
        let count = u64::try_from(self.decoys.len()).ok()?;
        let index = usize::try_from(hash.checked_rem(count)?).ok()?;
        self.decoys.get(index)
    }
}

impl Users {
    /// Reads the users file: blocking. A user's quota has to be one of these classes; without any, every
    /// name is good.
    pub fn open<'c>(
        path: &Path,
        classes: impl IntoIterator<Item = &'c str>,
    ) -> Result<Self, UsersError> {
        let classes: Vec<String> = classes.into_iter().map(str::to_owned).collect();
        // Before reading: a change in between is then seen at the next log-in.
        let seen = stamp(path);
        let users = read(path, &classes)?;
        Ok(Self::new(Some(path.to_owned()), classes, seen, users)?)
    }

    /// These users and no file.
    pub fn fixed(users: Vec<User>) -> Result<Self, NoRandomness> {
        Self::new(None, Vec::new(), None, users)
    }

    fn new(
        path: Option<PathBuf>,
        classes: Vec<String>,
        seen: Option<Stamp>,
        users: Vec<User>,
    ) -> Result<Self, NoRandomness> {
        Ok(Self(Arc::new(Inner {
            path,
            classes,
            loaded: RwLock::new(Arc::new(Loaded::new(users)?)),
            seen: Mutex::new(seen),
            throttle: Arc::new(Throttle::new()?),
            admitted: Arc::new(Semaphore::new(RUNNING + WAITING)),
            running: Arc::new(Semaphore::new(RUNNING)),
            hashes: AtomicU64::new(0),
        })))
    }

    /// Checks a name and a password that came from an address; the answer is what the session may do.
    pub async fn check(
        &self,
        name: &str,
        password: &Secret,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<Grants, LoginError> {
        let password_len = password.expose().len();
        let throttled = |throttled: Throttled| LoginError::Throttled {
            retry_after: throttled.retry_after,
        };
        // Whoever exists has neither such a name nor such a password. It counts all the same.
        if name.is_empty()
            || name.len() > MAX_NAME_LEN
            || password_len == 0
            || password_len > MAX_PASSWORD_LEN
        {
            let stray = self.0.throttle.stray(from, now);
            return Err(stray.map_or_else(throttled, |()| LoginError::Refused));
        }
        let inner = &self.0;
        let Ok(admitted) = Arc::clone(&inner.admitted).try_acquire_owned() else {
            return Err(LoginError::Busy);
        };
        let attempt = inner.throttle.attempt(name, from, now).map_err(throttled)?;
        let turn = Arc::clone(&inner.running).acquire_owned();
        let Ok(Ok(running)) = tokio::time::timeout(PATIENCE, turn).await else {
            inner.throttle.withdraw(&attempt);
            return Err(LoginError::Busy);
        };
        let check = {
            let (inner, name, password) = (Arc::clone(inner), name.to_owned(), password.clone());
            move || {
                // Held until the hash is done, even if nobody waits for it any more.
                let _held = (admitted, running);
                inner.check(&name, &password, &attempt, now)
            }
        };
        match tokio::task::spawn_blocking(check).await {
            Ok(outcome) => outcome.ok_or(LoginError::Refused),
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The server is stopping.
                Err(_) => Err(LoginError::Busy),
            },
        }
    }

    /// How many passwords were hashed so far.
    pub fn hashes(&self) -> u64 {
        self.0.hashes.load(Ordering::Relaxed)
    }

    /// How often an address may try; other ways in count their failures here too.
    pub fn throttle(&self) -> Arc<Throttle> {
        Arc::clone(&self.0.throttle)
    }

    /// Whether somebody has this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.loaded().users.contains_key(name)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.0.loaded().users.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn check(
        &self,
        name: &str,
        password: &Secret,
        attempt: &Attempt,
        now: Timestamp,
    ) -> Option<Grants> {
        self.reload_if_changed();
        let loaded = self.loaded();
        let user = loaded.users.get(name);
        let hash = user.map(|user| &user.hash).or_else(|| loaded.decoy(name))?;
        self.hashes.fetch_add(1, Ordering::Relaxed);
        let right = hash.verify(password.expose());
        let user = user.filter(|_| right)?;
        self.throttle.succeeded(attempt, now);
        Some(user.grants.clone())
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn reload_if_changed(&self) {
        let Some(path) = &self.path else {
            return;
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamp(path);
        if found == *seen {
            return;
        }
        *seen = found;
        let loaded = read(path, &self.classes).and_then(|users| Ok(Loaded::new(users)?));
        match loaded {
            Ok(loaded) => {
                tracing::info!(path = %path.display(), users = loaded.users.len(), "users file read again");
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
            }
            Err(error) => {
                tracing::error!(%error, "the changed users file cannot be used; the last good one stays");
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    Some(Stamp {
        modified: metadata.modified().ok(),
        len: metadata.len(),
        inode,
    })
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("path", &self.0.path)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::password::tests::cheap;
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn user(name: &str, password: &str) -> User {
        User {
            name: name.to_owned(),
            hash: cheap(password),
            grants: Grants {
                tilesets: vec!["world".to_owned()],
                ..Grants::default()
            },
        }
    }

    async fn log_in(users: &Users, name: &str, password: &str) -> Result<Grants, LoginError> {
        users.check(name, &Secret::new(password), HOME, NOW).await
    }

    #[tokio::test]
    async fn the_right_password_alone_logs_in() {
        let users = Users::fixed(vec![user("ada", "one"), user("bob", "two")]).unwrap();
        let grants = log_in(&users, "ada", "one").await.unwrap();
        assert_eq!(grants.tilesets, ["world"]);
        for (name, password) in [("ada", "two"), ("Ada", "one"), ("eve", "one"), ("", "")] {
            let refused = log_in(&users, name, password).await;
            assert_eq!(refused.unwrap_err(), LoginError::Refused, "{name}");
        }
    }

    #[tokio::test]
    async fn an_unknown_name_costs_the_same_one_computation() {
        let users = Users::fixed(vec![user("ada", "one")]).unwrap();
        for (n, name) in ["ada", "nobody", "ada", "else"].into_iter().enumerate() {
            log_in(&users, name, "wrong").await.unwrap_err();
            assert_eq!(users.hashes(), n as u64 + 1);
        }
        let loaded = users.0.loaded();
        assert_eq!(
            loaded.decoy("nobody").unwrap().cost(),
            loaded.users["ada"].hash.cost()
        );
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_hashed() {
        let users = Users::fixed(vec![user("ada", "one")]).unwrap();
        log_in(&users, "ada", &"x".repeat(1025)).await.unwrap_err();
        log_in(&users, &"x".repeat(257), "x").await.unwrap_err();
        assert_eq!(users.hashes(), 0);
    }

    #[tokio::test]
    async fn what_is_too_long_is_throttled_by_its_address() {
        let users = Users::fixed(vec![user("ada", "one")]).unwrap();
        let mut outcomes = Vec::new();
        for n in 0..25 {
            let long = format!("{}{n}", "x".repeat(257));
            outcomes.push(log_in(&users, &long, "x").await.unwrap_err());
        }
        let refused = outcomes.iter().filter(|o| **o == LoginError::Refused);
        assert_eq!(refused.count(), 20);
        assert!(matches!(outcomes[24], LoginError::Throttled { .. }));
    }

    #[tokio::test]
    async fn failures_are_throttled_without_hashing_and_the_owner_is_not() {
        let users = Users::fixed(vec![user("ada", "one")]).unwrap();
        log_in(&users, "ada", "one").await.unwrap();
        let elsewhere: IpAddr = [10, 0, 0, 1].into();
        let wrong = Secret::new("wrong");
        let mut throttled = 0;
        for _ in 0..20 {
            let outcome = users.check("ada", &wrong, elsewhere, NOW).await;
            throttled += u32::from(matches!(outcome, Err(LoginError::Throttled { .. })));
        }
        assert_eq!((throttled, users.hashes()), (15, 6));
        log_in(&users, "ada", "one").await.unwrap();
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_and_costs_no_attempt() {
        let users = Users::fixed(vec![user("ada", "one")]).unwrap();
        let count = u32::try_from(RUNNING + WAITING).unwrap();
        let all = users.0.admitted.acquire_many(count).await.unwrap();
        for _ in 0..50 {
            let busy = log_in(&users, "ada", "wrong").await.unwrap_err();
            assert_eq!(busy, LoginError::Busy);
        }
        drop(all);
        log_in(&users, "ada", "one").await.unwrap();
    }

    #[tokio::test]
    async fn a_changed_file_counts_at_the_next_log_in_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        super::super::add_user(
            &path,
            "ada",
            "one",
            &Grants::default(),
            super::super::IfExists::Refuse,
        )
        .unwrap();
        let users = Users::open(&path, []).unwrap();
        log_in(&users, "ada", "one").await.unwrap();
        super::super::add_user(
            &path,
            "bob",
            "two",
            &Grants::default(),
            super::super::IfExists::Refuse,
        )
        .unwrap();
        log_in(&users, "bob", "two").await.unwrap();
        std::fs::write(&path, "[[users]]\nname = 7\n").unwrap();
        log_in(&users, "bob", "two").await.unwrap();
        std::fs::write(&path, "").unwrap();
        log_in(&users, "bob", "two").await.unwrap_err();
        assert!(users.is_empty());
    }

    #[test]
    fn a_user_of_a_class_that_there_is_not_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let grants = Grants {
            quota: Some("vip".to_owned()),
            ..Grants::default()
        };
        let refuse = super::super::IfExists::Refuse;
        super::super::add_user(&path, "ada", "one", &grants, refuse).unwrap();
        assert!(Users::open(&path, []).is_ok() && Users::open(&path, ["a", "vip"]).is_ok());
        let error = Users::open(&path, ["viewer", "batch"]).unwrap_err();
        let text = error.to_string();
        let told = "user \"ada\": quota \"vip\" is none of [[quotas]]: viewer, batch";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn debug_shows_no_hash() {
        let ada = user("ada", "one");
        let users = Users::fixed(vec![ada.clone()]).unwrap();
        let shown = format!("{ada:?} {users:?} {:?}", Secret::new("hunter2"));
        assert!(
            !shown.contains("argon2") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
