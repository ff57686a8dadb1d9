//! One test a rule: which key is named, on which line.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod cloudfront;
mod login;
mod rules;

/// The smallest configuration that is right. Its sections stand in the order in which tests add to them.
const MINIMAL: &str = "\
[tilesets.w]
bucket = 'b'
key = 'w/{z}/{x}/{y}.png'
access = 'public'
";

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn parse(text: &str) -> Result<Config, ConfigProblems> {
    let around = Surroundings {
        folder: Path::new(env!("CARGO_MANIFEST_DIR")),
        env: &|name| match name {
            "KEY" | "TILEKEEP_SESSION_KEY" | "TILEKEEP_ADMIN_TOKEN" => Some(KEY.to_owned()),
            "SHORT" => Some("hunter2".to_owned()),
            _ => None,
        },
    };
    Config::parse(text, "t.toml", around)
}

/// `path:line` of each problem.
fn places(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .problems()
            .iter()
            .map(|p| format!("{}:{}", p.path(), p.line.unwrap_or(0)))
            .collect(),
    }
}

/// What the minimal configuration with `added` below it is refused for; lines count from `added`'s first.
fn added(added: &str) -> Vec<String> {
    let lines = MINIMAL.lines().count();
    let text = format!("{MINIMAL}{added}");
    match parse(&text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .problems()
            .iter()
            .map(|p| format!("{}:{}", p.path(), p.line.map_or(0, |line| line - lines)))
            .collect(),
    }
}

#[test]
fn the_example_has_every_key_and_is_right() {
    let text = include_str!("../../deploy/tilekeep.example.toml");
    let config = parse(text).map_err(|p| p.to_string()).unwrap();
    assert_eq!(config.tilesets.len(), 3);
    assert_eq!(
        config.tilesets[2].tileset.place().key.archive(),
        Some("streets-2026-11.pmtiles")
    );
    assert_eq!(config.tilesets[0].tileset.name(), "world");
    assert!(config.tilesets[0].assume_role.is_some());
    assert!(
        config.tilesets[1]
            .tileset
            .tilejson_members()
            .contains_key("vector_layers")
    );
    assert_eq!(config.cache.disk, 20 << 30);
    let quotas: Vec<_> = config.quotas.iter().map(|class| &*class.name).collect();
    assert_eq!(quotas, ["viewer", "prefetch"]);
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(20));
    assert_eq!(config.origin.deadline, Duration::from_secs(10));
    assert_eq!(config.origin.concurrency, 64);
    assert_eq!((config.cache.memory, config.cache.disk), (512 << 20, 0));
    assert_eq!(config.cache.stale_if_error, Duration::from_hours(168));
    assert_eq!(config.cache.missing, Duration::from_mins(5));
    assert_eq!(config.session.cookie, "tilekeep_session");
    assert_eq!(config.session.ttl, Duration::from_hours(12));
    assert_eq!(config.session.max_ttl, Duration::from_hours(720));
    let tileset = &config.tilesets[0].tileset;
    assert_eq!((tileset.minzoom(), tileset.maxzoom()), (0, 22));
    assert_eq!(tileset.bounds(), crate::tile::Bounds::WORLD);
    assert_eq!(tileset.format(), crate::tile::TileFormat::Png);
}

#[test]
fn a_mistyped_key_is_told_its_nearest() {
    let text = format!("{MINIMAL}maxzom = 5\n[servr]\nlisten = '127.0.0.1:1'\n");
    assert_eq!(
        parse(&text).unwrap_err().to_string(),
        "t.toml:5:1: [tilesets.w] `maxzom` is not a key here; did you mean `maxzoom`?\n\
         t.toml:6:2: `servr` is not a key here; did you mean `server`?"
    );
    let text = format!("{MINIMAL}[origin]\ngues = ['ring']\n");
    let message = parse(&text).unwrap_err().to_string();
    assert!(message.contains("did you mean `guess`?"), "{message}");
    let far = format!("{MINIMAL}[cache]\nqqqqqqqqq = 1\n");
    let message = parse(&far).unwrap_err().to_string();
    assert!(
        message.contains("remove it, or use one of `memory`, `disk`"),
        "{message}"
    );
}

#[test]
fn ten_problems_are_ten() {
    let text = "\
surplus = 1
[server]
listen = 'localhost:8080'
cors_origins = ['https://a.example', '*', 'https://a.example/']
[cache]
memory = 'much'
fresh = 60
[session]
keys = [{ id = 'a', secret = { env = 'SHORT' } }, { id = 'a', secret = { env = 'UNSET' } }]
[tilesets.w]
bucket = 'b'
key = '{z}/{x}.png'
";
    assert_eq!(
        places(text),
        [
            "surplus:1",
            "server.listen:3",
            "server.cors_origins[1]:4",
            "server.cors_origins[2]:4",
            "cache.memory:6",
            "cache.fresh:7",
            "session.keys[0].secret:9",
            "session.keys[1].id:9",
            "session.keys[1].secret.env:9",
            "tilesets.w.key:12",
        ]
    );
}

#[test]
fn each_rule_names_its_key_and_line() {
    let mut wrong = Vec::new();
    for (text, expected) in rules::RULES {
        let mut found = added(text);
        found.sort();
        if found.join(" ") != *expected {
            wrong.push((text, expected, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_allowed_stays_allowed() {
    for text in [
        "[cache]\nmemory = 0\ndisk = '0'",
        "[server]\nlisten = '0.0.0.0:8080'\npublic_url = 'https://t.example'",
        "[server]\nlisten = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'",
        "[server]\ntrusted_proxies = ['10.1.2.3/8', '::1']",
        "[session]\nkeys = [{ id = 'a', secret = { env = 'KEY' } }, { id = 'b', public_key = '-----BEGIN PUBLIC KEY-----' }]",
        "[session]\ndomain = 'a.example'\n[server]\npublic_url = 'https://tiles.a.example'",
        "[aws]\nendpoint_url = 'https://h:443/storage/v1/s3'\nsts_endpoint_url = 'http://h:80'",
        "[aws]\nassume_role = { arn = 'arn:minio:iam:::role/tiles' }\nendpoint_url = 'http://h'\nsts_endpoint_url = 'http://h'",
        "[login]",
        "bounds = [176, -20.5, -178, -15]",
        "[[quotas]]\nname = 'free'\n[[quotas]]\nname = 'b'\nrequests_per_second = 5\nburst = 1",
        "delivery = 'proxy'",
    ] {
        assert_eq!(added(text), [""; 0], "{text}");
    }
}

#[test]
fn a_configuration_without_a_tileset_is_refused() {
    assert_eq!(places(""), ["tilesets:0"]);
    assert_eq!(places("[tilesets]"), ["tilesets:1"]);
    assert_eq!(places("tilesets = 5"), ["tilesets:1"]);
    assert_eq!(places("[tilesets]\nworld = 5"), ["tilesets.world:2"]);
}

#[test]
fn a_file_that_is_no_toml_is_shown_where() {
    let message = parse("[server]\nlisten = 127.0.0.1:8080\n")
        .unwrap_err()
        .to_string();
    assert!(message.starts_with("t.toml:2:"), "{message}");
    assert!(
        message.contains("\n  2 | listen = 127.0.0.1:8080\n"),
        "{message}"
    );
    let twice = places(&format!("{MINIMAL}bucket = 'c'\n"));
    assert_eq!(twice, [":5"]);
}

/// A secret wherever one could be typed, also by mistake.
#[test]
fn no_secret_is_in_any_output() {
    const S: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";
    for text in [
        format!("[server]\nadmin_token = '{S}'"),
        format!("[server]\nadmin_token = '{S} {S}'"),
        format!("[server]\nadmin_token = '{S}"),
        format!("[server]\nadmin_token = {S}"),
        format!("[server]\nadmin_token = {{ env = '{S}' }}"),
        "[server]\nadmin_token = { env = 'hunter2' }".to_owned(),
        format!("[server]\nadmin_token = [ '{S}' ]"),
        format!("[server]\nadmin_tokn = '{S}'"),
        format!("[server]\nlisten = '{S}'"),
        format!("[server]\npublic_url = 'https://a:{S}@h'"),
        format!("[session]\ncookie = '{S} '"),
        format!("[session]\nkeys = [\n{{ id = 'a', secret = '{S}' }},\n'{S}' ]"),
        format!("[session]\nkeys = [\n{{ id = 'a', secret = \n'{S} }} ]"),
        format!("[session]\nkeys = [{{ id = 'a', private_key = '''\n-----BEGIN\n{S}=\n'' }} ]"),
        format!("[session]\nkeys = [{{ id = 'a', secret = '{S}' }}]\n"),
        format!("[aws]\nendpoint_url = 'http://{S}@h'\nregion = '{S} '"),
        format!("[aws]\nassume_role = {{ arn = '{S}', external_id = '{S} ' }}"),
        format!("[cluster]\nredis = 'redis://:{S}@h'"),
        format!("format = '{S}'\nversion = '{S}/'\nmissing = '{S}'"),
    ] {
        let output = match parse(&format!("{MINIMAL}{text}")) {
            Ok(config) => format!("{config:?}"),
            Err(problems) => format!("{problems} {problems:?}"),
        };
        assert!(!output.contains("hunter2"), "{text}\n{output}");
    }
}

#[test]
fn a_secret_file_loses_its_last_newline() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key"), format!("{KEY}\n")).unwrap();
    let text = format!("{MINIMAL}[session]\nkeys = [{{ id = 'a', secret = {{ file = 'key' }} }}]");
    let file = folder.path().join("t.toml");
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file).unwrap();
    let KeyMaterial::Secret(secret) = &config.session.keys[0].material else {
        panic!("a shared secret");
    };
    assert_eq!(secret.expose(), KEY);
}

#[test]
fn the_users_file_is_found_before_the_rest_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    std::fs::write(&file, "[login]\nusers_file = 'users.toml'\n").unwrap();
    assert!(Config::load(&file).is_err());
    let users = users_file(&file).unwrap();
    assert_eq!(users, Some(folder.path().join("users.toml")));
    assert!(users_file(&folder.path().join("none.toml")).is_err());
}

proptest! {
    /// Bytes of the example are overwritten, cut out and doubled; any answer will do, but there is one.
    #[test]
    fn no_text_makes_reading_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..40usize, "\\PC{0,6}|[\\[\\]{}='\"\n.#]{1,4}"), 1..12),
    ) {
        let mut text = include_str!("../../deploy/tilekeep.example.toml").to_owned();
        for (at, cut, put) in edits {
            let mut start = at.index(text.len() + 1);
            while !text.is_char_boundary(start) {
                start -= 1;
            }
            let mut end = (start + cut).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            text.replace_range(start..end, &put);
        }
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.problems().is_empty());
            prop_assert!(!problems.to_string().contains(KEY));
        }
    }

    /// A value of any type under any key: a problem or none, never a panic.
    #[test]
    fn no_value_makes_reading_panic(
        key in prop::sample::select(vec![
            "server.listen", "server.tls", "server.cors_origins", "cache.memory", "cache.fresh", "session.keys",
            "session.ttl", "aws.assume_role", "aws.endpoint_url", "aws.region", "origin", "tilesets", "tilesets.x",
            "tilesets.x.bounds", "tilesets.x.tilejson", "tilesets.x.key", "tilesets.x.browser", "quotas", "login",
        ]),
        value in "[0-9]{1,25}|-?[0-9]{1,3}\\.[0-9]|'[^'\\pC]{0,30}'|true|\\[[0-9, ]{0,9}\\]|\\{ [a-z]{1,3} = [0-9] \\}|inf|nan|1979-05-27",
    ) {
        let _ = parse(&format!("{key} = {value}\n{MINIMAL}"));
    }
}
