//! A configuration file as an operator meets it.

use std::path::Path;

use tilekeep::config::Config;

#[test]
fn a_file_that_is_not_there_is_named() {
    let problems = Config::load(Path::new("no/such/tilekeep.toml")).unwrap_err();
    let text = problems.to_string();
    assert!(
        text.starts_with("no/such/tilekeep.toml: this file cannot be read"),
        "{text}"
    );
    assert!(text.contains("tilekeep.example.toml"), "{text}");
}

#[test]
fn paths_start_at_the_file_and_not_at_the_working_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users.toml"), "").unwrap();
    let file = folder.path().join("tilekeep.toml");
    let text = "
        [cache]
        disk = '1GiB'
        disk_path = 'cache'
        [session]
        keys = [{ id = 'a', secret = '0123456789abcdef0123456789abcdef' }]
        [login]
        users_file = 'users.toml'
        [tilesets.world]
        bucket = 'b'
        key = 'w/{z}/{x}/{y}.png'
    ";
    std::fs::write(&file, text).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.cache.disk_path, Some(folder.path().join("cache")));
    assert_eq!(
        config.login.users_file,
        Some(folder.path().join("users.toml"))
    );
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
}
