//! The command as a person types it.

use std::path::Path;
use std::process::{Command, Output};

use super::*;

fn run(folder: &Path, config: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let file = folder.join("tilekeep.toml");
    std::fs::write(&file, config).unwrap();
    Command::new(env!("CARGO_BIN_EXE_tilekeep"))
        .args(["doctor", "--config"])
        .arg(&file)
        .args(arguments)
        .env_clear()
        .env("HOME", folder)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// In a blocking thread, since the endpoint lives on the test's own.
async fn doctor(
    s3: &EmbeddedS3,
    more: &str,
    arguments: &'static [&'static str],
    keys: Option<AccessKeys>,
) -> Output {
    let url = s3.endpoint_url();
    let text = format!(
        "[aws]\nendpoint_url = \"{url}\"\nsts_endpoint_url = \"{url}\"\npath_style = true\n\
         [tilesets.world]\nbucket = \"{BUCKET}\"\nkey = \"world/{{z}}/{{x}}/{{y}}.png\"\naccess = \"public\"\n{more}"
    );
    tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys.map(|keys| (keys.access_key_id, keys.secret_access_key));
        let environment: Vec<_> = keys
            .iter()
            .flat_map(|(id, secret)| {
                [
                    ("AWS_ACCESS_KEY_ID", id.as_str()),
                    ("AWS_SECRET_ACCESS_KEY", secret.as_str()),
                ]
            })
            .collect();
        run(folder.path(), &text, arguments, &environment)
    })
    .await
    .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_wrong_is_exit_code_0_and_plain_lines() {
    let s3 = endpoint().await;
    let output = doctor(&s3, "", &[], Some(s3.keys().clone())).await;
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}{}",
        text(&output.stderr)
    );
    assert!(said.starts_with("ok      config"), "{said}");
    assert!(
        said.contains("\nok      tile                world: s3://acme-tiles/world/0/0/0.png read"),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "{said}");
    assert!(!said.contains(&s3.keys().secret_access_key));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_credentials_it_says_where_they_were_looked_for() {
    let s3 = endpoint().await;
    let output = doctor(&s3, "", &["--json"], None).await;
    assert_eq!(output.status.code(), Some(1));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let first = findings.iter().find(|f| f["status"] == "failed").unwrap();
    assert_eq!(first["check"], "credentials");
    let reason = first["reason"].as_str().unwrap();
    for words in [
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set",
        "profile: ",
        "EC2 (IMDSv2): ",
    ] {
        assert!(reason.contains(words), "{reason}");
    }
    let remedy = first["remedy"].as_str().unwrap();
    assert!(remedy.contains("run it as the server runs"), "{remedy}");
    for finding in &findings {
        let finding = finding.as_object().unwrap();
        let keys: Vec<_> = finding.keys().map(String::as_str).collect();
        assert_eq!(keys, ["check", "reason", "remedy", "status"]);
    }
    assert_eq!(text(&output.stderr), "error: 1 check failed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_keys_whose_profile_let_them_expire_are_told() {
    let s3 = endpoint().await;
    let url = s3.endpoint_url();
    let output = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        let keys = r#"{"Version":1,"AccessKeyId":"ASIAEXAMPLEWXYZ","SecretAccessKey":"s3cr3t","SessionToken":"s3cr3t","Expiration":"2020-01-01T00:00:00Z"}"#;
        std::fs::write(folder.path().join("keys.json"), keys).unwrap();
        let process = format!("/bin/cat {}", folder.path().join("keys.json").display());
        let profile = folder.path().join("profile");
        std::fs::write(&profile, format!("[default]\ncredential_process = {process}\n")).unwrap();
        let text = format!(
            "[aws]\nendpoint_url = \"{url}\"\npath_style = true\n\
             [tilesets.world]\nbucket = \"{BUCKET}\"\nkey = \"world/{{z}}/{{x}}/{{y}}.png\"\naccess = \"public\"\n"
        );
        let environment = [("AWS_CONFIG_FILE", profile.to_str().unwrap()), ("PATH", "/usr/bin:/bin")];
        run(folder.path(), &text, &[], &environment)
    })
    .await
    .unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("failed  credentials"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
}

#[test]
fn a_wrong_configuration_is_exit_code_2_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = "[aws]\nregoin = \"x\"\n[tilesets.world]\nbucket = \"b\"\n";
    let output = run(folder.path(), wrong, &["--json"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<_> = findings
        .iter()
        .filter(|f| f["status"] == "failed")
        .collect();
    assert!(
        failed.len() >= 2 && failed.iter().all(|f| f["check"] == "config"),
        "{findings:?}"
    );
    assert!(
        failed[0]["reason"]
            .as_str()
            .unwrap()
            .contains("tilekeep.toml:2:1: `aws.regoin` is not a key here")
    );
    assert!(
        findings
            .iter()
            .any(|f| f["check"] == "tile" && f["status"] == "skipped")
    );
    let output = run(folder.path(), wrong, &[], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `region`?"));
    let output = run(folder.path(), wrong, &["--jsn"], &[]);
    assert_eq!(output.status.code(), Some(2));
}
