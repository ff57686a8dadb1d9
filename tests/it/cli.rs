//! The program as a person types it: exit codes, and what goes where.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn tilekeep(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tilekeep"))
        .args(args)
        .env_remove("TILEKEEP_CONFIG")
        .env_remove("TILEKEEP_LOG")
        .env_remove("TILEKEEP_TOKEN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn help_goes_to_stdout_and_is_a_success() {
    for args in [
        &["--help"][..],
        &["serve", "--help"],
        &["token", "mint", "--help"],
        &["user", "add", "--help"],
    ] {
        let output = tilekeep(args, "");
        assert!(output.status.success(), "{args:?}");
        let help = text(&output.stdout);
        assert!(
            help.contains("tilekeep serve") || help.contains("Example"),
            "{help}"
        );
        assert!(!help.contains('\u{1b}'), "no colour outside of a terminal");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &[][..],
        &["srve"],
        &["serve", "--port", "1"],
        &["token", "mint"],
        &["user", "add", "a"],
    ] {
        let output = tilekeep(args, "");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn a_wrong_configuration_is_exit_code_2_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tilekeep.toml");
    std::fs::write(
        &file,
        "[server]\nlisten = 'here'\n[tilesets.world]\nmaxzom = 5\n",
    )
    .unwrap();
    let output = tilekeep(&["serve", "--config", file.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    let name = file.display();
    assert!(
        errors.contains(&format!(
            "{name}:2:10: [server] `listen` is not an IP address"
        )),
        "{errors}"
    );
    assert!(
        errors.contains(&format!(
            "{name}:4:1: [tilesets.world] `maxzom` is not a key here; did you mean `maxzoom`?"
        )),
        "{errors}"
    );
    assert!(
        errors.ends_with(&format!("error: 4 problems in {name}\n")),
        "{errors}"
    );
    assert!(
        !errors.contains('\u{1b}') && !errors.contains("backtrace"),
        "{errors}"
    );
}

#[cfg(feature = "demo")]
#[test]
fn the_demo_listens_to_nobody_else() {
    for option in ["--listen", "--admin-listen"] {
        let output = tilekeep(&["demo", option, "0.0.0.0:8080"], "");
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("not a loopback address"));
    }
}

#[test]
fn a_log_filter_that_cannot_be_read_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tilekeep.toml");
    std::fs::write(
        &file,
        "[tilesets.w]\nbucket = 'b'\nkey = '{z}/{x}/{y}.png'\naccess = 'public'\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tilekeep"))
        .args(["serve", "--config", file.to_str().unwrap()])
        .env("TILEKEEP_LOG", "tilekeep=loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: TILEKEEP_LOG: "));
}

#[test]
fn a_token_is_explained_without_its_key() {
    // {"alg":"HS256","kid":"k"} . {"sub":"anna","exp":1,"tilesets":["w"]} . "sig"
    let token = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsifQ.eyJzdWIiOiJhbm5hIiwiZXhwIjoxLCJ0aWxlc2V0cyI6WyJ3Il19.c2ln";
    let output = tilekeep(&["token", "inspect"], &format!("{token}\n"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("whose         anna\n"));
    assert!(text(&output.stderr).contains("it has expired"));
    let typed = tilekeep(&["token", "inspect", token], "");
    assert_eq!(typed.status.code(), Some(2));
    assert!(!text(&typed.stderr).contains(token), "it is not repeated");
}

#[test]
fn a_password_that_is_too_short_is_refused_and_not_repeated() {
    let args = [
        "user",
        "add",
        "anna",
        "--tilesets",
        "w",
        "--users-file",
        "users.toml",
        "--password-stdin",
    ];
    let output = tilekeep(&args, "hunter2\n");
    assert_eq!(output.status.code(), Some(2));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("8 characters") && !errors.contains("hunter2"),
        "{errors}"
    );
}
