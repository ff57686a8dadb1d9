//! The house's own rules: which way the arrows point, and that what is written down is true.

use std::fs;
use std::path::{Path, PathBuf};

use tilekeep::metrics::Metrics;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every line of code (not of comment) in `src/`, with its file's path below `src/`.
fn lines() -> Vec<(String, String)> {
    let src = root().join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut lines = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().display().to_string();
        let text = fs::read_to_string(&file).unwrap();
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            lines.push((name.clone(), line.to_owned()));
        }
    }
    assert!(
        lines.len() > 1000,
        "the sources are where they are looked for"
    );
    lines
}

/// That no file outside `home` has one of these words.
fn only_in(home: &[&str], words: &[&str]) {
    for (file, line) in lines() {
        let at_home = home.iter().any(|prefix| file.starts_with(prefix));
        let found = words.iter().find(|word| line.contains(**word));
        assert!(
            at_home || found.is_none(),
            "{file}: `{}` belongs to {home:?}",
            line.trim()
        );
    }
}

/// That no file under `folder` has one of these words.
fn never_in(folder: &str, words: &[&str]) {
    for (file, line) in lines().iter().filter(|(file, _)| file.starts_with(folder)) {
        let found = words.iter().find(|word| line.contains(**word));
        assert!(found.is_none(), "{file}: `{}`", line.trim());
    }
}

#[test]
fn arrows_point_one_way() {
    let upper = [
        "crate::http",
        "crate::app",
        "crate::cli::",
        "crate::config",
        "hyper::",
        "axum::",
    ];
    for lower in ["cache", "auth", "origin", "tile"] {
        never_in(lower, &upper);
    }
    never_in("cache", &["crate::auth", "StatusCode"]);
    never_in("auth", &["crate::cache", "crate::origin", "StatusCode"]);
    never_in("publish", &upper);
    never_in("publish", &["crate::cache", "crate::auth", "StatusCode"]);
    never_in("origin", &["crate::cache", "crate::auth"]);
    never_in(
        "tile",
        &["crate::cache", "crate::auth", "crate::origin", "tokio::"],
    );
    let parts = [
        "crate::auth",
        "crate::cache",
        "crate::origin",
        "crate::tile",
        "StatusCode",
    ];
    // What asks a server is none of the server's parts.
    never_in("client", &upper[..4]);
    never_in("client", &parts[..4]);
    never_in("cluster", &upper);
    never_in("cluster", &parts);
    for part in ["auth", "cache", "origin", "tile"] {
        never_in(part, &["crate::cluster"]);
    }
    never_in("archive", &upper);
    never_in(
        "archive",
        &[
            "crate::auth",
            "crate::cache",
            "crate::origin",
            "tokio::",
            "StatusCode",
        ],
    );
    never_in("client", &["crate::cluster", "crate::metrics"]);
    never_in("loadtest", &upper[..4]);
    never_in("loadtest", &parts[..3]);
    for leaf in ["metrics.rs", "clock.rs"] {
        never_in(leaf, &["use crate::"]);
    }
    never_in("metrics/", &upper);
    never_in("metrics/", &parts);
    never_in("http", &["crate::app", "crate::cli::", "crate::config"]);
}

#[test]
fn each_big_dependency_has_one_home() {
    only_in(
        &["origin/s3", "aws", "embedded_s3", "log.rs"],
        &[
            "aws_sdk_s3::",
            "aws_sdk_sqs::",
            "aws_sdk_sts::",
            "aws_smithy_",
            "aws_config::",
        ],
    );
    only_in(&["cache/memory.rs"], &["moka::"]);
    only_in(&["cache/disk"], &["lru::", "LruCache"]);
    only_in(&["tile/coverage"], &["geo::", "geojson::{"]);
    only_in(&["metrics"], &["prometheus::"]);
    only_in(&["cluster"], &["redis::"]);
    only_in(&["archive"], &["rusqlite::"]);
}

#[test]
fn every_metric_is_in_the_readme_with_its_help() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (name, help) in Metrics::new().table() {
        let row = format!("| `{name}` | {help} |");
        assert!(readme.contains(&row), "README.md lacks: {row}");
    }
    for row in readme
        .lines()
        .filter(|line| line.starts_with("| `tilekeep_"))
    {
        let name = row.split('`').nth(1).unwrap();
        let known = Metrics::new()
            .table()
            .iter()
            .any(|(known, _)| known == name);
        assert!(known, "README.md has a metric that there is not: {name}");
    }
}
