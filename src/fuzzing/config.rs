//! A configuration: right, or refused with the line of each problem and without its secrets.

use std::path::Path;

use crate::config::{Config, Surroundings};

/// The corpus's secret. No problem shows it.
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Nothing of this machine is read: a fuzzer that writes `file = "/dev/zero"` has found nothing.
    if text.contains("file") || text.contains("cert") || text.contains("pem") {
        return;
    }
    let around = Surroundings {
        folder: Path::new("/nonexistent"),
        env: &|name| (name == "KEY").then(|| SECRET.to_owned()),
    };
    let problems = match Config::parse(text, "fuzz.toml", around) {
        Ok(config) => {
            assert!(!config.tilesets.is_empty());
            assert!(!format!("{config:?}").contains(SECRET), "a secret in Debug");
            return;
        }
        Err(problems) => problems,
    };
    assert!(!problems.problems().is_empty());
    let lines = text.matches('\n').count() + 1;
    let mut last = 0;
    for problem in problems.problems() {
        assert!(!problem.what.is_empty());
        assert_eq!(problem.line.is_some(), problem.column.is_some());
        let line = problem.line.unwrap_or(lines + 1);
        assert!((1..=lines + 1).contains(&line), "line {line} of {lines}");
        assert!(last <= line, "in the order of their lines");
        last = line;
    }
    // As a value; as a name of something it is the fuzzer's own doing.
    let valued =
        text.matches(SECRET).count() == 1 && text.contains(&format!("secret = \"{SECRET}\"\n"));
    let from_the_environment = !text.contains("hunter2");
    if valued || from_the_environment {
        assert!(!problems.to_string().contains(SECRET), "{problems}");
    }
}
