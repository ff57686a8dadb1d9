//! Runs that do not come to their end at once: killed, interrupted, signed out, and left by their server.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tilekeep::origin::Origin;

use super::{TILES, WORLD, begin, counts, ended, origin_of, prefetch, server, until, world};
use crate::support::{self, claims, config, token};

#[tokio::test]
async fn a_run_that_is_killed_again_and_again_comes_to_its_end() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let folder = tempfile::tempdir().unwrap();
    let resume = folder.path().join("resume");
    let args = format!("{WORLD} --rate 100 --resume {}", resume.display());
    let (mut kills, mut before) = (0, 0);
    let said = loop {
        let mut child = begin(&server, &token(&claims()), &args);
        if kills < 6 {
            // From before the first request to well into the run.
            tokio::time::sleep(Duration::from_millis(40 + 130 * kills)).await;
            child.kill().unwrap();
            kills += 1;
            assert!(ended(child).await.code.is_none());
            continue;
        }
        let said = ended(child).await;
        before = said.json["resumed"].as_u64().unwrap_or(before);
        break said;
    };
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(before > 0, "the kills left something: {said:?}");
    let this = ["fetched", "stored", "absent"].map(|member| said.json[member].as_u64().unwrap());
    assert_eq!(before + this.iter().sum::<u64>(), TILES, "{said:?}");
    let mut asked: Vec<_> = origin.seen().iter().map(|seen| seen.coord).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len() as u64, TILES, "no tile was left out");
    assert!(!resume.exists());

    std::fs::write(&resume, "").unwrap();
    let child = begin(&server, &token(&claims()), &args.replace("100", "50"));
    until(|| std::fs::metadata(&resume).unwrap().len() > 0).await;
    let other = prefetch(&server, &args.replace("0-4", "0-3")).await;
    assert_eq!(other.code, Some(2));
    assert!(
        other.stderr.contains("another prefetch is using it"),
        "{other:?}"
    );
    let mut child = child;
    child.kill().unwrap();
    ended(child).await;
    let other = prefetch(&server, &args.replace("0-4", "0-3")).await;
    assert_eq!(other.code, Some(2));
    assert!(
        other.stderr.contains("belongs to another plan"),
        "{other:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn an_interrupted_run_finishes_what_is_open_and_says_how_to_go_on() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let folder = tempfile::tempdir().unwrap();
    let resume = folder.path().join("resume");
    let args = format!("{WORLD} --resume {}", resume.display());
    let child = begin(&server, &token(&claims()), &format!("{args} --rate 40"));
    until(|| origin.calls() > 5).await;
    let interrupt = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    let said = ended(child).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(said.json["stopped"], "interrupted");
    assert!(
        said.stderr
            .contains(&format!("--resume {}", resume.display())),
        "{said:?}"
    );
    let done = said.json["fetched"].as_u64().unwrap();
    assert_eq!(done, origin.calls() as u64, "what was open is counted");
    let rest = prefetch(&server, &args).await;
    assert_eq!(rest.code, Some(0), "{rest:?}");
    counts(&rest, &[("resumed", done), ("stored", 0)]);
    server.stop().await;
}

#[tokio::test]
async fn a_session_that_ends_under_way_ends_the_run_unless_it_can_sign_in_again() {
    let under_way = async |token: &str, who: &str| {
        let origin = origin_of(world());
        let server = server(&origin).await;
        let run = begin(&server, token, &format!("{WORLD} --rate 100 {who}"));
        until(|| origin.calls() > 10).await;
        server.clock.advance(Duration::from_hours(48));
        let said = ended(run).await;
        server.stop().await;
        said
    };
    let stopped = under_way(&token(&claims()), "").await;
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    let why = stopped.json["stopped"].as_str().unwrap();
    assert!(why.contains("401"), "{stopped:?}");
    let renewed = under_way("", "--user anna").await;
    assert_eq!(renewed.code, Some(0), "{renewed:?}");
    counts(&renewed, &[("failed", 0)]);
}

#[tokio::test]
async fn a_server_that_restarts_under_way_costs_no_tile() {
    let origin = origin_of(world());
    let server = server(&origin).await;
    let address = server.addresses.public;
    let child = begin(&server, &token(&claims()), &format!("{WORLD} --rate 150"));
    until(|| origin.calls() > 20).await;
    server.stop().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut config = config([world()]);
    config.server.listen = address;
    let again: Arc<dyn Origin> = origin.clone();
    let server = support::start(config, again).await;
    let said = ended(child).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    counts(&said, &[("failed", 0), ("tiles", TILES)]);
    assert!(said.json["retries"].as_u64().unwrap() > 0, "{said:?}");
    server.stop().await;
}
