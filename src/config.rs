//! The configuration: from a TOML file to a checked [`Config`], or to every problem at once.
//!
//! Invariant: what [`Config::load`] gives out needs no further check of its own keys; nothing in the file was
//! ignored; no error and no `Debug` shows a secret.
//! Left out on purpose: whether the bucket, the role or the keys work. That is the doctor's to find out, and
//! nothing is read from here after the start.

mod aws;
mod cache;
mod cloudfront;
mod cluster;
mod events;
mod item;
mod login;
mod problem;
mod publish;
mod quotas;
mod secret;
mod section;
mod server;
mod session;
#[cfg(test)]
mod tests;
mod tilesets;
mod web_origin;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::tile::Access;

pub use aws::{AssumeRole, Aws};
pub use cache::{CacheConfig, OriginConfig};
pub use cloudfront::{CloudFrontConfig, is_one_host};
pub use cluster::ClusterConfig;
pub use events::EventsConfig;
pub use login::{IssuerKeySource, Login, LoginGrants, LoginIssuer, LoginOidc};
pub use problem::{ConfigProblems, Problem};
pub use publish::PublishConfig;
pub use quotas::QuotaConfig;
pub use secret::SecretValue;
pub use section::Surroundings;
pub use server::{Server, Tls};
pub use session::{KeyMaterial, SessionConfig, SessionKey};
pub use tilesets::TilesetConfig;
pub use web_origin::{WebOrigin, WebOriginError};

use problem::syntax;
use section::{Item, Reader, Section, nearest};

/// A checked configuration.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[origin]`.
    pub origin: OriginConfig,
    /// `[cache]`.
    pub cache: CacheConfig,
    /// `[session]`.
    pub session: SessionConfig,
    /// `[login]`.
    pub login: Login,
    /// `[[quotas]]` in the order of the file; none: nothing is limited.
    pub quotas: Vec<QuotaConfig>,
    /// `[aws]`.
    pub aws: Aws,
    /// `[cloudfront]`; none: no distribution is known.
    pub cloudfront: Option<CloudFrontConfig>,
    /// `[cluster]`; none: this node is alone.
    pub cluster: Option<ClusterConfig>,
    /// `[events]`; none: changes are seen when a tile is stale.
    pub events: Option<EventsConfig>,
    /// `[publish]`: for `tilekeep publish` alone.
    pub publish: PublishConfig,
    /// `[tilesets.*]` in the order of the file, at least one.
    pub tilesets: Vec<TilesetConfig>,
}

impl Config {
    /// Reads and checks a file, with the process's environment.
    pub fn load(path: &Path) -> Result<Self, ConfigProblems> {
        with_file(path, Self::parse)
    }

    /// As [`Config::load`], for commands that need no secrets and may run where there are none: one whose
    /// variable is not set, or whose file cannot be read, counts as absent.
    pub fn load_without_secrets(path: &Path) -> Result<Self, ConfigProblems> {
        with_file(path, |text, file, around| {
            let table = table(text, file)?;
            let reader = Reader::new(text, around).without_secrets();
            Self::finish(reader, &table, file)
        })
    }

    /// Reads and checks a text. `file` is what problems call it.
    pub fn parse(text: &str, file: &str, around: Surroundings<'_>) -> Result<Self, ConfigProblems> {
        let table = table(text, file)?;
        Self::finish(Reader::new(text, around), &table, file)
    }

    fn finish(reader: Reader<'_>, table: &DeTable<'_>, file: &str) -> Result<Self, ConfigProblems> {
        let config = Self::read(&Section::root(&reader, table));
        let problems = reader.into_problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigProblems::new(file, problems))
        }
    }

    fn read(root: &Section<'_>) -> Self {
        let server = root.section("server");
        let session = root.section("session");
        let login = root.section("login");
        let mut tilesets = root.section("tilesets");
        let aws = Aws::read(&root.section("aws"));
        let mut config = Self {
            server: Server::read(&server),
            origin: OriginConfig::read(&root.section("origin")),
            cache: CacheConfig::read(&root.section("cache")),
            session: SessionConfig::read(&session),
            login: Login::read(&login),
            quotas: QuotaConfig::read_all(root),
            tilesets: tilesets::read(&mut tilesets, &aws),
            aws,
            cloudfront: None,
            cluster: ClusterConfig::read(&root.section("cluster")),
            events: EventsConfig::read(&root.section("events")),
            publish: PublishConfig::read(&root.section("publish")),
        };
        // A tileset that was refused is not in `config`, but its name is right.
        if let Some(name) = &config.server.default_tileset
            && !tilesets.has(name)
        {
            let names = config.tilesets.iter().map(|t| t.tileset.name());
            let remedy = nearest(name, names).map_or_else(
                || "name one that is in the file".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            server.refuse("default_tileset", "names no tileset", remedy);
        }
        config.check_sessions(&server, &session, &login);
        let cloudfront = root.section("cloudfront");
        config.cloudfront = CloudFrontConfig::read(&cloudfront, &config);
        config
    }

    /// What sessions need of the other sections.
    fn check_sessions(&self, server: &Section<'_>, session: &Section<'_>, login: &Section<'_>) {
        const REMEDY: &str =
            "add keys = [{ id = \"2026-11\", secret = { env = \"TILEKEEP_SESSION_KEY\" } }]";
        let tilesets = self.tilesets.iter().map(|t| &t.tileset);
        let private = tilesets.clone().find(|t| t.access() == Access::Session);
        // Keys that were refused one by one are not missing.
        if session.count("keys") == 0 {
            if let Some(private) = private {
                session.refuse(
                    "keys",
                    format!(
                        "is empty or missing, but tileset `{}` needs a session",
                        private.name()
                    ),
                    format!("{REMEDY}, or make every tileset access = \"public\""),
                );
            } else if Login::is_asked_for(login) {
                session.refuse(
                    "keys",
                    "is empty or missing, but [login] needs a key to sign with",
                    REMEDY,
                );
            }
        }
        if let (Some(domain), Some(url)) = (&self.session.domain, &self.server.public_url) {
            let host = url.host();
            if host != domain && !host.ends_with(&format!(".{domain}")) {
                session.refuse(
                    "domain",
                    "is not a domain of `public_url`'s host, so browsers would refuse the cookie",
                    format!("use a part of `{host}` from a dot on, or remove the key"),
                );
            }
        }
        if !Login::is_asked_for(login) {
            return;
        }
        self.login.check(login, &self.session, &self.quotas);
        let mut keys = self.session.keys.iter();
        if !self.session.keys.is_empty() && !keys.any(|key| key.material.signs()) {
            session.refuse(
                "keys",
                "holds no key that can sign, and [login] signs what it hands out",
                "give one its `private_key`, or add a key with a `secret`; without [login], public keys will do",
            );
        }
        if let Some(url) = &self.server.public_url
            && !url.is_https()
            && !url.is_loopback()
        {
            server.refuse(
                "public_url",
                "is http: browsers do not send the session cookie back, so nobody could log in",
                "use https, with `tls` here or at a proxy in front",
            );
        }
    }
}

/// Where a configuration says that its users are, whatever else is wrong with it: for the commands that
/// create that file, without which the configuration is not complete. `None` where it has no such key.
pub fn users_file(path: &Path) -> Result<Option<PathBuf>, ConfigProblems> {
    with_file(path, |text, file, around| {
        let table = table(text, file)?;
        // What this reader finds besides is not asked for here.
        let reader = Reader::new(text, around);
        let login = Section::root(&reader, &table).section("login");
        Ok(login.read("users_file", Item::path))
    })
}

/// What a configuration has names for, as it stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The tilesets.
    pub tilesets: Vec<String>,
    /// The classes of `[[quotas]]`.
    pub quotas: Vec<String>,
}

/// A configuration's names, whatever is wrong with it: for the command that writes them into the users file.
pub fn names(path: &Path) -> Result<Names, ConfigProblems> {
    with_file(path, |text, file, around| {
        let table = table(text, file)?;
        // What this reader finds besides is not asked for here.
        let reader = Reader::new(text, around);
        let root = Section::root(&reader, &table);
        let quotas = root.list("quotas", |item| {
            let class = item.table(None)?;
            class.read("name", Item::word)
        });
        let mut section = root.section("tilesets");
        let tilesets = section.sections().into_iter().map(|(name, _)| name);
        Ok(Names {
            tilesets: tilesets.collect(),
            quotas,
        })
    })
}

/// The TOML of a file, with the place of each key and value.
fn table<'a>(text: &'a str, file: &str) -> Result<DeTable<'a>, ConfigProblems> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table.into_inner());
    }
    let problems = errors
        .iter()
        .map(|error| syntax(text, error.message(), error.span()))
        .collect();
    Err(ConfigProblems::new(file, problems))
}

/// Reads a file and hands on its text, its name and its surroundings.
fn with_file<T>(
    path: &Path,
    then: impl FnOnce(&str, &str, Surroundings<'_>) -> Result<T, ConfigProblems>,
) -> Result<T, ConfigProblems> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let problem = Problem {
            line: None,
            column: None,
            section: String::new(),
            key: String::new(),
            what: format!("this file cannot be read: {error}"),
            remedy: "name it with --config; deploy/tilekeep.example.toml is one to start from"
                .to_owned(),
            excerpt: String::new(),
        };
        ConfigProblems::new(&file, vec![problem])
    })?;
    let around = Surroundings {
        folder: path.parent().unwrap_or(Path::new("")),
        env: &|name| std::env::var(name).ok(),
    };
    then(&text, &file, around)
}
