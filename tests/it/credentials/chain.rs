//! The SDK's chain, in a process of its own: its links read the environment, which a test cannot share.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Ends with the test, however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server in this environment alone, and waits for a line of its log.
fn log_line(folder: &Path, environment: &[(&str, &str)], wanted: &str) -> String {
    let config = folder.join("tilekeep.toml");
    let text = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n\
        [aws]\nendpoint_url = \"http://127.0.0.1:1\"\n\
        [tilesets.world]\nbucket = \"tiles\"\nkey = \"{z}/{x}/{y}.png\"\naccess = \"public\"\n";
    std::fs::write(&config, text).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_tilekeep"))
        .args(["serve", "--config"])
        .arg(&config)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut server = Server(child);
    let log = BufReader::new(server.0.stderr.take().unwrap());
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        log.lines()
            .map_while(Result::ok)
            .try_for_each(|l| send.send(l))
    });
    let patience = Instant::now() + Duration::from_secs(30);
    let mut heard = String::new();
    while let Ok(line) = lines.recv_timeout(patience.saturating_duration_since(Instant::now())) {
        assert!(!line.contains("s3cr3t"), "a secret is in the log");
        if line.contains(wanted) {
            return line;
        }
        heard += &line;
    }
    panic!("no `{wanted}` in: {heard}");
}

#[test]
fn a_profiles_credential_process_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("config");
    let keys = r#"{"Version":1,"AccessKeyId":"ASIAEXAMPLEWXYZ","SecretAccessKey":"s3cr3t","SessionToken":"s3cr3t","Expiration":"2099-01-01T00:00:00Z"}"#;
    std::fs::write(folder.path().join("keys.json"), keys).unwrap();
    let process = format!("/bin/cat {}", folder.path().join("keys.json").display());
    let text = format!("[profile tiles]\ncredential_process = {process}\n");
    std::fs::write(&profile, text).unwrap();
    let environment = [
        ("AWS_CONFIG_FILE", profile.to_str().unwrap()),
        ("AWS_PROFILE", "tiles"),
    ];
    let line = log_line(folder.path(), &environment, "credentials are here");
    for word in ["profile", "…WXYZ", "2099-01-01T00:00:00Z"] {
        assert!(line.contains(word), "{line}");
    }
    assert!(
        !line.contains("ASIAEXAMPLE"),
        "its last four characters do: {line}"
    );
}

#[test]
fn a_profile_with_sso_says_that_somebody_has_to_log_in() {
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("config");
    let text = "[default]\nsso_session = acme\nsso_account_id = 123456789012\nsso_role_name = tiles\n\
        [sso-session acme]\nsso_region = eu-west-1\nsso_start_url = https://acme.awsapps.com/start\n";
    std::fs::write(&profile, text).unwrap();
    let environment = [("AWS_CONFIG_FILE", profile.to_str().unwrap())];
    let line = log_line(folder.path(), &environment, "no AWS credentials");
    assert!(line.contains("aws sso login"), "{line}");
}

#[test]
fn without_any_credentials_the_log_says_where_they_were_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let line = log_line(folder.path(), &[], "no AWS credentials");
    for word in [
        "environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set",
        "profile: ",
        "web identity: ",
        "ECS or EKS Pod Identity: ",
        "EC2 (IMDSv2): IMDS disabled by",
    ] {
        assert!(line.contains(word), "{line}");
    }
}
