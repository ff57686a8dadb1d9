//! What is wrong with a configuration: one line a problem, with its place and its remedy.
//!
//! Invariant: a problem never repeats a value out of the file. It names the key and the place, so that a
//! mistyped secret, or one that stands under the wrong key, reaches no terminal and no log.

use std::fmt;
use std::ops::Range;

/// One thing to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; `None` for what the file does not contain.
    pub line: Option<usize>,
    /// Column in that line in characters, from 1; `None` with `line`.
    pub column: Option<usize>,
    /// The table that the key stands in, `tilesets.world`; empty at the top.
    pub section: String,
    /// The key, with an index for an element of an array; empty for the file as a whole.
    pub key: String,
    /// What is wrong, as the rest of a sentence that starts with the key.
    pub what: String,
    /// What to do, where `what` does not say it.
    pub remedy: String,
    /// The line that is no TOML, with a mark below; empty where it may hold a secret.
    pub excerpt: String,
}

impl Problem {
    /// The key's whole path: `tilesets.world.maxzoom`.
    pub fn path(&self) -> String {
        join(&self.section, &self.key)
    }
}

/// `section.key`, where neither needs to be there.
pub(super) fn join(section: &str, key: &str) -> String {
    let dot = if section.is_empty() || key.is_empty() {
        ""
    } else {
        "."
    };
    format!("{section}{dot}{key}")
}

/// Everything that is wrong with one configuration file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems {
    file: String,
    problems: Vec<Problem>,
}

impl ConfigProblems {
    pub(super) fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| (p.line.is_none(), p.line, p.column));
        Self {
            file: file.to_owned(),
            problems,
        }
    }

    /// The file as it was named.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The problems, at least one, in the order of their lines.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for ConfigProblems {}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&self.file)?;
            if let (Some(line), Some(column)) = (problem.line, problem.column) {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
            if !problem.section.is_empty() {
                write!(f, "[{}] ", problem.section.escape_debug())?;
            }
            if !problem.key.is_empty() {
                write!(f, "`{}` ", problem.key.escape_debug())?;
            }
            f.write_str(&problem.what)?;
            if !problem.remedy.is_empty() {
                write!(f, "; {}", problem.remedy)?;
            }
            if !problem.excerpt.is_empty() {
                write!(f, "\n{}", problem.excerpt)?;
            }
        }
        Ok(())
    }
}

/// Line and column, both from 1, of a byte in a text.
pub(super) fn locate(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The problem that a syntax error is.
pub(super) fn syntax(text: &str, message: &str, span: Option<Range<usize>>) -> Problem {
    let at = span.map(|span| span.start.min(text.len()));
    let place = at.map(|at| locate(text, at));
    let unquoted = ["float", "integer", "number", "date", "unquoted", "literal"]
        .iter()
        .any(|kind| message.contains(kind));
    Problem {
        line: place.map(|(line, _)| line),
        column: place.map(|(_, column)| column),
        section: String::new(),
        key: String::new(),
        what: format!("this is not TOML: {message}"),
        remedy: if unquoted {
            "addresses, durations, sizes and every other text stand in quotes".to_owned()
        } else {
            String::new()
        },
        excerpt: at.map_or_else(String::new, |at| excerpt(text, at)),
    }
}

/// Words in a line that keep it from being shown.
const SECRETIVE: [&str; 5] = ["secret", "token", "key", "passw", "redis"];

/// The line around `at` with a mark below, unless a secret may be in it: beside or below a word that says
/// so, inside of a text of several lines, or where the line does not begin with the key that it is about.
fn excerpt(text: &str, at: usize) -> String {
    let Some(before) = text.get(..at) else {
        return String::new();
    };
    let (above, _) = before.rsplit_once('\n').unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let says_secret = |line: &str| {
        let lower = line.to_ascii_lowercase();
        SECRETIVE.iter().any(|word| lower.contains(word))
    };
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let begins = line.trim_start();
    let has_key = begins.starts_with(bare)
        && begins
            .trim_start_matches(bare)
            .trim_start()
            .starts_with('=');
    let is_header = begins.starts_with('[') && !line.contains(['"', '\'']);
    let last_above = above.lines().rfind(|line| !line.trim().is_empty());
    if above.contains("\"\"\"")
        || above.contains("'''")
        || says_secret(line)
        || last_above.is_some_and(says_secret)
        || !(has_key || is_header)
        || line.len() > 200
    {
        return String::new();
    }
    let (number, column) = locate(text, at);
    let line = line.replace(|c: char| c.is_control(), " ");
    let gutter = number.to_string();
    format!(
        "  {gutter} | {line}\n  {:width$} | {:>column$}",
        "",
        "^",
        width = gutter.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_from_one() {
        assert_eq!(locate("", 0), (1, 1));
        assert_eq!(locate("a\nb = 1", 2), (2, 1));
        assert_eq!(locate("a\nä = 1", 5), (2, 3));
        assert_eq!(locate("a", 99), (1, 2));
        assert_eq!(locate("ä", 1), (1, 2), "never inside of a character");
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_shown() {
        let shown = |text: &str| syntax(text, "no", Some(text.len() - 1..text.len())).excerpt;
        assert!(shown("[server]\nlisten = 127.0.0.1").contains("2 | listen = 127.0.0.1\n"));
        assert_eq!(shown("admin_token = \"hunter2"), "");
        assert_eq!(shown("x = { id = \"a\", Secret = \"hunter2"), "");
        assert_eq!(shown("a = '''\nhunter = 2"), "");
        assert_eq!(shown("keys = [\n\"hunter2"), "");
        assert_eq!(shown("keys = [{ secret =\n\n  hunter2= x"), "");
        assert_eq!(shown("x = [\n  { id = \"a\",\n  \"hunter2=\" x"), "");
    }
}
