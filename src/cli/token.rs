//! `tilekeep token`: minting and explaining session tokens.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{ConfigArg, Failure, print};
use crate::app::key_settings;
use crate::auth::{AuthError, Claims, KeyRing, Session};
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::tile::{Bounds, MAX_ZOOM};

mod explain;

/// Make or explain a session token.
///
/// A token is a JWT. It opens the same tilesets as a log-in: as `Authorization: Bearer`, or as the session cookie.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    Mint(MintArgs),
    Inspect(InspectArgs),
}

/// Make a token, signed with the first key of the configuration that can sign.
///
/// The token alone is printed, on one line. Whoever has it is let in until it expires: treat it as a password.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep token mint --sub anna --tilesets world
  tilekeep token mint --sub nightly-export --tilesets '*' --ttl 30d --quota batch > token
  tilekeep token mint --sub guest --tilesets world --maxzoom 8 --bounds 5.8,45.8,10.6,47.9

  curl -H \"Authorization: Bearer $(tilekeep token mint --sub me --tilesets world)\" \\
      http://127.0.0.1:8080/world/0/0/0.png")]
pub(super) struct MintArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Whom the token is for: stands in logs, and quotas count by it.
    #[arg(long, value_name = "NAME")]
    sub: String,

    /// The tilesets that it opens, separated by commas; '*' for all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    tilesets: Vec<String>,

    /// How long it is valid: 20m, 12h, 30d. Without it: [session] ttl.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,

    /// What it may do, separated by commas.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', default_value = "tiles",
          value_parser = super::SCOPES)]
    scope: Vec<String>,

    /// The deepest zoom that it opens. Without it: all.
    #[arg(long, value_name = "ZOOM", value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_ZOOM)))]
    maxzoom: Option<u8>,

    /// The area that it opens: west,south,east,north in degrees. Without it: all.
    #[arg(long, value_name = "W,S,E,N", allow_hyphen_values = true, value_parser = super::bounds)]
    bounds: Option<Bounds>,

    /// Its quota class. Without it: the first one of the configuration.
    #[arg(long, value_name = "CLASS")]
    quota: Option<String>,
}

/// Explain a token: whose it is, what it opens, until when.
///
/// The token comes from FILE, or from TILEKEEP_TOKEN, or from standard input; not from the command line, which
/// others on this machine can read. Exit code 1 if the server would refuse it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep token inspect token
  tilekeep token mint --sub anna --tilesets world | tilekeep token inspect
  tilekeep token inspect --config tilekeep.toml token      checks the signature too")]
#[allow(clippy::doc_markdown, reason = "a help text, not a document")]
pub(super) struct InspectArgs {
    /// Check the signature with the keys of this configuration file too.
    #[arg(long, value_name = "FILE", env = "TILEKEEP_CONFIG")]
    config: Option<PathBuf>,

    /// Print the header and the claims as JSON.
    #[arg(long)]
    json: bool,

    /// The file that holds the token; - for standard input.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(command: &TokenCommand) -> Result<(), Failure> {
    let now = Clock::System.now();
    match command {
        TokenCommand::Mint(args) => mint(args, now),
        TokenCommand::Inspect(args) => inspect(args, now),
    }
}

fn mint(args: &MintArgs, now: Timestamp) -> Result<(), Failure> {
    let config = Config::load(&args.config.config)?;
    let known: Vec<_> = config.tilesets.iter().map(|t| t.tileset.name()).collect();
    if let Some(unknown) = args
        .tilesets
        .iter()
        .find(|name| *name != "*" && !known.contains(&name.as_str()))
    {
        let known = known.join(", ");
        return Err(Failure::Usage(format!(
            "--tilesets: no tileset is called {unknown:?}; the configuration has {known}"
        )));
    }
    if let Some(unknown) = unknown_quota(&config, args.quota.as_deref()) {
        return Err(Failure::Usage(format!("--quota: {unknown}")));
    }
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|error| Failure::Failed(format!("no randomness: {error}")))?;
    let ttl = args.ttl.unwrap_or(config.session.ttl);
    print(&sign(&config, claims(args, ttl, id, now))?)
}

/// The claims of PRODUCT's token. `jti` lets the one token be ended before it expires.
fn claims(args: &MintArgs, ttl: Duration, id: [u8; 16], now: Timestamp) -> Value {
    let mut claims = json!({
        "sub": args.sub,
        "iat": now.secs(),
        "exp": (now + ttl).secs(),
        "jti": format!("{:032x}", u128::from_be_bytes(id)),
        "tilesets": args.tilesets,
        "scope": args.scope.join(" "),
    });
    if let Some(maxzoom) = args.maxzoom {
        claims["maxzoom"] = maxzoom.into();
    }
    if let Some(bounds) = args.bounds {
        claims["bounds"] = json!(bounds.to_array());
    }
    if let Some(quota) = &args.quota {
        claims["quota"] = quota.as_str().into();
    }
    claims
}

fn inspect(args: &InspectArgs, now: Timestamp) -> Result<(), Failure> {
    let token = read_token(args)?;
    let Some(parts) = explain::decode(&token) else {
        return Err(Failure::Failed(
            "this is no JWT: three parts in base64url with points between, the first two JSON objects"
                .to_owned(),
        ));
    };
    if args.json {
        let whole = json!({ "header": parts.header, "claims": parts.claims });
        print(&format!("{whole:#}"))?;
    } else {
        print(&explain::words(&parts, now))?;
    }
    // It names the claim, which a server's own word does not.
    if let Some(refusal) = explain::refusal(&parts, now) {
        return Err(Failure::Failed(format!(
            "the server would refuse it: {refusal}"
        )));
    }
    if let Some(doubt) = explain::doubt(&parts) {
        eprintln!("{doubt}");
    }
    if let Some(file) = &args.config {
        let config = Config::load(file)?;
        let session = verify(&config, &token, now)?;
        let known = config.tilesets.iter().map(|t| t.tileset.name());
        if !known.clone().any(|name| session.allows_tileset(name)) {
            let known: Vec<_> = known.collect();
            eprintln!(
                "It opens none of the tilesets of {}: {}",
                file.display(),
                known.join(", ")
            );
        }
        eprintln!("The signature is right, and the server takes this token unless it was ended.");
    } else {
        eprintln!("The signature was not checked: --config FILE does.");
    }
    Ok(())
}

fn read_token(args: &InspectArgs) -> Result<String, Failure> {
    /// Longer than any token, short enough to read at once.
    const MAX: u64 = 64 * 1024;
    let mut text = String::new();
    match (&args.file, std::env::var("TILEKEEP_TOKEN")) {
        (Some(file), _) if file.as_os_str() != "-" => {
            if file.to_string_lossy().matches('.').count() == 2
                && file.to_string_lossy().starts_with("ey")
            {
                return Err(Failure::Usage(
                    "that is a token, not a file: pipe it in, so that it stays out of the process list \
                     and the shell's history"
                        .to_owned(),
                ));
            }
            fs::File::open(file)
                .and_then(|file| file.take(MAX).read_to_string(&mut text))
                .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())))?;
        }
        (None, Ok(token)) if !token.is_empty() => text = token,
        _ => {
            if io::stdin().is_terminal() {
                eprintln!("Paste the token and end with Ctrl-D.");
            }
            io::stdin()
                .take(MAX)
                .read_to_string(&mut text)
                .map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
        }
    }
    let text = text.trim();
    Ok(text.strip_prefix("Bearer ").unwrap_or(text).to_owned())
}

/// A token's two readable parts.
struct Parts {
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

/// Signs claims with the first of the configuration's keys that can.
fn sign(config: &Config, claims: Value) -> Result<String, Failure> {
    let claims: Claims =
        serde_json::from_value(claims).map_err(|error| Failure::Failed(error.to_string()))?;
    keys(config)?
        .mint(&claims)
        .map_err(|error| Failure::failed(&error))
}

/// Checks a token as the server would, revocations aside.
fn verify(config: &Config, token: &str, now: Timestamp) -> Result<Session, Failure> {
    match keys(config)?.verify(token, now) {
        Ok(session) => match unknown_quota(config, session.quota()) {
            Some(unknown) => Err(Failure::Failed(format!("the server refuses it: {unknown}"))),
            None => Ok(session),
        },
        Err(error @ AuthError::BadSignature) => Err(Failure::Failed(format!(
            "{error}: it was made with another key, or the key's text was decoded first (a `secret` is used as it stands)"
        ))),
        Err(error) => Err(Failure::failed(&error)),
    }
}

/// What is wrong with a quota class: it is none of the configuration's, which has some.
fn unknown_quota(config: &Config, quota: Option<&str>) -> Option<String> {
    let known: Vec<_> = config.quotas.iter().map(|class| &*class.name).collect();
    let unknown = quota.filter(|quota| !known.is_empty() && !known.contains(quota))?;
    Some(format!(
        "quota {unknown:?} is none of [[quotas]]: {}",
        known.join(", ")
    ))
}

fn keys(config: &Config) -> Result<KeyRing, Failure> {
    let settings = config.session.keys.iter().map(key_settings).collect();
    KeyRing::new(settings).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::Failed(problems.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn mint_args(line: &str) -> MintArgs {
        let words = format!("tilekeep token mint {line}");
        match Cli::try_parse_from(words.split(' ')).unwrap().command {
            Command::Token(TokenCommand::Mint(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_become_claims() {
        let now = Timestamp::from_secs(1_000);
        let hour = Duration::from_hours(1);
        let short = mint_args("--sub anna --tilesets world");
        assert_eq!(
            claims(&short, hour, [0; 16], now),
            json!({
                "sub": "anna", "iat": 1000, "exp": 4600, "jti": "0".repeat(32),
                "tilesets": ["world"], "scope": "tiles",
            })
        );
        let all = mint_args(
            "--sub a --tilesets w,v --scope tiles,sign --maxzoom 8 --bounds -10,-5,10,5.5 --quota q",
        );
        let claims = claims(&all, hour, [255; 16], now);
        assert_eq!(claims["tilesets"], json!(["w", "v"]));
        assert_eq!(claims["scope"], "tiles sign");
        assert_eq!(claims["maxzoom"], 8);
        assert_eq!(claims["bounds"], json!([-10.0, -5.0, 10.0, 5.5]));
        assert_eq!(claims["quota"], "q");
    }

    #[test]
    fn a_quota_is_one_of_the_configurations_if_that_has_any() {
        let mut config = Config::default();
        assert_eq!(unknown_quota(&config, Some("vip")), None);
        config.quotas = ["viewer", "batch"]
            .map(|name| crate::config::QuotaConfig {
                background: false,
                name: name.to_owned(),
                requests_per_second: None,
                burst: None,
                distinct_tiles_per_hour: None,
            })
            .into();
        assert_eq!(unknown_quota(&config, None), None);
        assert_eq!(unknown_quota(&config, Some("batch")), None);
        assert_eq!(
            unknown_quota(&config, Some("vip")).unwrap(),
            "quota \"vip\" is none of [[quotas]]: viewer, batch"
        );
    }

    #[test]
    fn what_no_token_can_say_is_refused() {
        for line in [
            "--sub a",
            "--tilesets w",
            "--sub a --tilesets w --scope admin",
            "--sub a --tilesets w --maxzoom 31",
            "--sub a --tilesets w --bounds 1,2,3",
            "--sub a --tilesets w --bounds 0,5,1,4",
            "--sub a --tilesets w --ttl forever",
        ] {
            let words = format!("tilekeep token mint {line}");
            assert!(Cli::try_parse_from(words.split(' ')).is_err(), "{line}");
        }
    }
}
