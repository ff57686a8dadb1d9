//! The README's "Minted by your application", run as it stands there: whoever copies it gets in.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use http::{Method, StatusCode};
use tilekeep::app::Provided;
use tilekeep::auth::{KeyMaterial, KeyRing, KeySettings, Secret};
use tilekeep::origin::failing::MemoryOrigin;
use tilekeep::tile::{Scale, TileCoord, TileFormat};

use crate::support::{self, Running, config, spec, tileset};

const HEADING: &str = "### Minted by your application\n";
/// As `openssl rand -base64 48` writes them: a decoded one would be another key.
const KEY: &str = "Q2w3ZsXk0b1uJt7yP5mH9dVrA2eF6gLoTn4cSxYzIiUqWvBbRjKkMmNnOoPpQqRr";

/// A language: its fence in the README, its file, its command, and how to get it.
struct Language {
    fence: &'static str,
    file: &'static str,
    command: &'static [&'static str],
    remedy: &'static str,
}

const LANGUAGES: [Language; 4] = [
    Language {
        fence: "python",
        file: "mint.py",
        command: &["python3"],
        remedy: "apt-get install python3-minimal",
    },
    Language {
        fence: "js",
        file: "mint.mjs",
        command: &["node"],
        remedy: "install Node 20 or newer",
    },
    Language {
        fence: "php",
        file: "mint.php",
        command: &["php"],
        remedy: "apt-get install php-cli",
    },
    // 300 MB for one snippet: where there is none, that is said and no more.
    Language {
        fence: "go",
        file: "mint.go",
        command: &["go", "run"],
        remedy: "",
    },
];

/// The section's code in a language.
fn snippet(fence: &str) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let section = readme.split_once(HEADING).expect("the section").1;
    let section = section.split("\n### ").next().unwrap();
    let opening = format!("```{fence}\n");
    let blocks: Vec<&str> = section.split(&opening).skip(1).collect();
    let [block] = blocks.as_slice() else {
        panic!("{} blocks of {fence}", blocks.len());
    };
    block.split("```").next().unwrap().to_owned()
}

/// Runs a snippet; `None` where there is no such language and that is allowed.
fn mint(language: &Language, folder: &Path) -> Option<String> {
    let file = folder.join(language.file);
    let code = snippet(language.fence);
    assert!(
        code.lines().next().unwrap().contains(language.file),
        "{code}"
    );
    std::fs::write(&file, code).unwrap();
    let (program, arguments) = language.command.split_first().unwrap();
    let output = Command::new(program)
        .args(arguments)
        .arg(&file)
        .current_dir(folder)
        .env("TILEKEEP_SESSION_KEY", KEY)
        .env("GOCACHE", folder.join("go"))
        .env("GOPATH", folder.join("gopath"))
        .env("GO111MODULE", "off")
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if language.remedy.is_empty() => {
            eprintln!("NOT RUN: {}: {program}: {error}", language.file);
            return None;
        }
        Err(error) => panic!(
            "{program}: {error}; the README's {} has to run: {}",
            language.file, language.remedy
        ),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", language.file);
    assert_eq!(errors, "", "{}", language.file);
    let token = String::from_utf8(output.stdout).unwrap();
    assert_eq!(token.matches('.').count(), 2, "{token}");
    Some(token.trim_end().to_owned())
}

async fn server() -> Running {
    let specs = [
        spec("world", TileFormat::Png),
        spec("other", TileFormat::Png),
    ];
    let memory = MemoryOrigin::new();
    let place = TileCoord::new(0, 0, 0).unwrap();
    for spec in &specs {
        memory.put(&tileset(spec.clone()), place, Scale::One, "tile", None);
    }
    let material = KeyMaterial::Hs256 {
        secret: Secret::new(KEY),
    };
    let id = "2026-11".into();
    // By the machine's clock: the snippets go by it too.
    let provided = Provided {
        keys: Some(KeyRing::new(vec![KeySettings { id, material }]).unwrap()),
        origin: Some(Arc::new(memory)),
        ..Provided::default()
    };
    support::launch(config(specs), provided).await
}

/// The token with one character of one part changed to another that stands for other bits.
fn tampered(token: &str, part: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let other = if parts[part].as_bytes()[4] == b'A' {
        "B"
    } else {
        "A"
    };
    parts[part].replace_range(4..5, other);
    parts.join(".")
}

#[tokio::test]
async fn every_snippet_mints_a_token_that_opens_its_tileset_until_it_is_tampered_with() {
    let server = server().await;
    for language in &LANGUAGES {
        let folder = tempfile::tempdir().unwrap();
        let Some(token) = mint(language, folder.path()) else {
            continue;
        };
        let ask = async |path: &str, token: &str| {
            let (bearer, cookie) = (
                format!("Bearer {token}"),
                format!("tilekeep_session={token}"),
            );
            let by_bearer = server
                .send(Method::GET, path, &[("authorization", &bearer)], "")
                .await;
            let by_cookie = server
                .send(Method::GET, path, &[("cookie", &cookie)], "")
                .await;
            assert_eq!(
                by_bearer.status, by_cookie.status,
                "{} {path}",
                language.file
            );
            by_bearer
        };
        let file = language.file;
        assert_eq!(
            ask("/world/0/0/0.png", &token).await.status,
            StatusCode::OK,
            "{file}"
        );
        assert_eq!(
            ask("/other/0/0/0.png", &token).await.status,
            StatusCode::NOT_FOUND,
            "{file}"
        );
        let session = ask("/session", &token).await.json();
        assert_eq!(
            (&session["sub"], &session["tilesets"]),
            (&"anna".into(), &serde_json::json!(["world"]))
        );
        for part in 0..3 {
            let answer = ask("/world/0/0/0.png", &tampered(&token, part)).await;
            assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{file}, part {part}"
            );
        }
    }
    server.stop().await;
}
