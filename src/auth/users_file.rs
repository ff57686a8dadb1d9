//! The users file: TOML in, checked users out; every problem at once, each with its line and none
//! with a byte of a hash.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::users::User;
use super::{Grants, PasswordHash, Scopes};
use crate::tile::{Bounds, MAX_ZOOM};

/// The longest name; it becomes a token's `sub`.
pub(super) const MAX_NAME_LEN: usize = 256;
/// The biggest file that is read: a hundred thousand users.
const MAX_FILE_LEN: u64 = 32 << 20;
/// What a user may have.
const KEYS: [&str; 7] = [
    "name",
    "password_hash",
    "tilesets",
    "scope",
    "quota",
    "maxzoom",
    "bounds",
];

/// One thing wrong in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersProblem {
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong and what to do.
    pub what: String,
}

/// Why a users file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("users file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It says something wrong.
    #[error("{}", Listed(path, problems))]
    Problems {
        /// The file.
        path: PathBuf,
        /// All of them, in the order of lines.
        problems: Vec<UsersProblem>,
    },
    /// No randomness for what goes with it.
    #[error(transparent)]
    Random(#[from] super::NoRandomness),
}

struct Listed<'a>(&'a Path, &'a [UsersProblem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.1.iter().enumerate() {
            let end = if n == 0 { "" } else { "\n" };
            write!(
                f,
                "{end}{}:{}: {}",
                self.0.display(),
                problem.line,
                problem.what
            )?;
        }
        Ok(())
    }
}

/// Reads and checks the file: blocking. A quota is one of these classes, if there are any.
pub(super) fn read(path: &Path, classes: &[String]) -> Result<Vec<User>, UsersError> {
    let text = read_text(path).map_err(|source| UsersError::Io {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, classes).map_err(|problems| UsersError::Problems {
        path: path.to_owned(),
        problems,
    })
}

/// Its text, if it is of a size that a users file can have.
pub(super) fn read_text(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE_LEN + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_LEN {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// Checks the text.
pub(super) fn parse(text: &str, classes: &[String]) -> Result<Vec<User>, Vec<UsersProblem>> {
    let mut problems = Problems {
        text,
        found: Vec::new(),
    };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        // The message alone: the error's own display quotes the line, and it may hold a hash.
        problems.add(error.span().map_or(0, |span| span.start), error.message());
    }
    let mut users: Vec<User> = Vec::new();
    let mut names = std::collections::HashMap::new();
    for (key, value) in document.get_ref() {
        if key.get_ref() != "users" {
            problems.add(
                key.span().start,
                &format!(
                    "unknown key `{}`; a users file holds [[users]]",
                    key.get_ref()
                ),
            );
            continue;
        }
        let Some(entries) = value.get_ref().as_array() else {
            problems.add(value.span().start, "`users` is a list: write [[users]]");
            continue;
        };
        for entry in entries {
            let at = entry.span().start;
            let Some(table) = entry.get_ref().as_table() else {
                problems.add(at, "a user is a table: write [[users]]");
                continue;
            };
            let Some(user) = read_user(table, at, classes, &mut problems) else {
                continue;
            };
            if let Some(first) = names.insert(user.name.clone(), at) {
                let what = format!(
                    "user {:?} is there twice; the first is on line {}",
                    user.name,
                    problems.line(first)
                );
                problems.add(at, &what);
            }
            users.push(user);
        }
    }
    if problems.found.is_empty() {
        Ok(users)
    } else {
        problems.found.sort_by_key(|problem| problem.line);
        Err(problems.found)
    }
}

/// Problems, with the text that turns places into lines.
struct Problems<'a> {
    text: &'a str,
    found: Vec<UsersProblem>,
}

impl Problems<'_> {
    fn add(&mut self, at: usize, what: &str) {
        self.found.push(UsersProblem {
            line: self.line(at),
            what: what.to_owned(),
        });
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or(self.text);
        1 + before.matches('\n').count()
    }
}

fn read_user(
    table: &DeTable<'_>,
    at: usize,
    classes: &[String],
    problems: &mut Problems<'_>,
) -> Option<User> {
    let before = problems.found.len();
    for (key, _) in table {
        let key_name: &str = key.get_ref();
        if !KEYS.contains(&key_name) {
            let nearest = KEYS
                .into_iter()
                .min_by_key(|known| strsim::damerau_levenshtein(known, key_name))
                .filter(|known| strsim::damerau_levenshtein(known, key_name) <= 3)
                .map_or_else(
                    || format!("a user has {}", KEYS.join(", ")),
                    |known| format!("did you mean `{known}`?"),
                );
            problems.add(
                key.span().start,
                &format!("unknown key `{key_name}`; {nearest}"),
            );
        }
    }
    let mut fields = Fields {
        table,
        at,
        problems,
    };
    let name = fields.required("name", "a text", |value| Some(value.as_str()?.to_owned()));
    if let Some((name, at)) = &name
        && !is_name(name)
    {
        let what = format!(
            "name: 1 to {MAX_NAME_LEN} bytes, no control characters, no space at either end"
        );
        fields.problems.add(*at, &what);
    }
    let hash = fields.required(
        "password_hash",
        "a text, from `tilekeep user add`",
        |value| Some(PasswordHash::parse(value.as_str()?)),
    );
    let tilesets = fields.required("tilesets", "a list of names, or [\"*\"]", |value| {
        let names = value.as_array()?.iter();
        let names: Option<Vec<String>> = names
            .map(|name| name.get_ref().as_str().map(str::to_owned))
            .collect();
        names
    });
    let scope = fields.optional("scope", "a text of words", |value| {
        Some(value.as_str()?.to_owned())
    });
    if let Some((scope, at)) = &scope
        && let Some(word) = Scopes::unknown_word(scope)
    {
        let what = format!("scope: {word:?} is none of tiles, sign, credentials, explain");
        fields.problems.add(*at, &what);
    }
    let quota = fields.optional("quota", "the name of a class, 1 to 64 bytes", |value| {
        let name = value.as_str()?;
        (1..=64).contains(&name.len()).then(|| name.to_owned())
    });
    if let (Some((quota, at)), Some((name, _))) = (&quota, &name)
        && !classes.is_empty()
        && !classes.contains(quota)
    {
        let classes = classes.join(", ");
        let what = format!("user {name:?}: quota {quota:?} is none of [[quotas]]: {classes}");
        fields.problems.add(*at, &what);
    }
    let maxzoom = fields.optional("maxzoom", "a zoom, 0 to 30", |value| {
        let zoom = value.as_integer()?;
        let zoom = u8::from_str_radix(zoom.as_str(), zoom.radix()).ok()?;
        (zoom <= MAX_ZOOM).then_some(zoom)
    });
    let bounds = fields.optional("bounds", "west, south, east, north in degrees", |value| {
        let degrees: Option<Vec<f64>> = value.as_array()?.iter().map(number).collect();
        Bounds::new(degrees?.try_into().ok()?).ok()
    });
    let hash = match hash {
        Some((Ok(hash), _)) => Some(hash),
        Some((Err(error), at)) => {
            fields.problems.add(at, &format!("password_hash: {error}"));
            None
        }
        None => None,
    };
    if problems.found.len() > before {
        return None;
    }
    Some(User {
        name: name?.0,
        hash: hash?,
        grants: Grants {
            tilesets: tilesets?.0,
            scope: scope.map(|(scope, _)| scope),
            maxzoom: maxzoom.map(|(maxzoom, _)| maxzoom),
            bounds: bounds.map(|(bounds, _)| bounds),
            quota: quota.map(|(quota, _)| quota),
        },
    })
}

/// Whether a user can have this name.
pub(super) fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_LEN).contains(&name.len())
        && !name.chars().any(char::is_control)
        && name.trim() == name
}

fn number(value: &Spanned<DeValue<'_>>) -> Option<f64> {
    let value = value.get_ref();
    match (value.as_float(), value.as_integer()) {
        (Some(float), _) => float.as_str().parse().ok(),
        (None, Some(integer)) if integer.radix() == 10 => integer.as_str().parse().ok(),
        _ => None,
    }
}

/// A user's table, field by field.
struct Fields<'a, 't> {
    table: &'a DeTable<'a>,
    at: usize,
    problems: &'a mut Problems<'t>,
}

impl Fields<'_, '_> {
    /// The value and its place; a problem where there is one of another kind.
    fn optional<T>(
        &mut self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<(T, usize)> {
        let value = self.table.get(key)?;
        let at = value.span().start;
        let read = read(value.get_ref());
        if read.is_none() {
            self.problems.add(at, &format!("{key}: {kind}"));
        }
        Some((read?, at))
    }

    /// The same; a problem where there is none.
    fn required<T>(
        &mut self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<(T, usize)> {
        if !self.table.contains_key(key) {
            self.problems
                .add(self.at, &format!("this user has no `{key}`: {kind}"));
        }
        self.optional(key, kind, read)
    }
}

#[cfg(test)]
mod tests {
    use super::super::password::tests::cheap;
    use super::*;

    #[test]
    fn every_problem_is_told_at_once_with_its_line() {
        let hash = cheap("x").to_phc();
        let text = format!(
            "title = 1\n\
             [[users]]\nname = \"ada\"\npassword_hash = \"{hash}\"\ntilesets = [\"*\"]\n\
             [[users]]\nname = \" bob\"\npasword_hash = \"hunter2\"\ntilesets = \"*\"\n\
             [[users]]\nname = \"ada\"\npassword_hash = \"{hash}\"\ntilesets = []\nscope = \"tiles fly\"\n\
             maxzoom = 31\nbounds = [0, 5, 1, 2]\nquota = \"\"\n"
        );
        let problems = parse(&text, &[]).unwrap_err();
        let told: Vec<_> = problems
            .iter()
            .map(|problem| {
                let end = problem.what.len().min(24);
                (problem.line, problem.what.get(..end).unwrap_or(""))
            })
            .collect();
        assert_eq!(
            told,
            [
                (1, "unknown key `title`; a u"),
                (6, "this user has no `passwo"),
                (7, "name: 1 to 256 bytes, no"),
                (8, "unknown key `pasword_has"),
                (9, "tilesets: a list of name"),
                (14, "scope: \"fly\" is none of "),
                (15, "maxzoom: a zoom, 0 to 30"),
                (16, "bounds: west, south, eas"),
                (17, "quota: the name of a cla"),
            ]
        );
        assert!(problems[3].what.ends_with("did you mean `password_hash`?"));
    }

    #[test]
    fn a_quota_that_there_is_not_is_refused_with_those_that_there_are() {
        let hash = cheap("x").to_phc();
        let text = format!(
            "[[users]]\nname = \"ada\"\npassword_hash = \"{hash}\"\ntilesets = []\nquota = \"vip\"\n"
        );
        let classes = ["viewer", "batch"].map(str::to_owned);
        let problems = parse(&text, &classes).unwrap_err();
        assert_eq!(
            (problems[0].line, &*problems[0].what),
            (
                5,
                "user \"ada\": quota \"vip\" is none of [[quotas]]: viewer, batch"
            )
        );
        assert!(parse(&text.replace("\"vip\"", "\"batch\""), &classes).is_ok());
        assert!(
            parse(&text, &[]).is_ok(),
            "without classes every name is good"
        );
    }

    #[test]
    fn two_users_of_one_name_are_refused() {
        let hash = cheap("x").to_phc();
        let user =
            format!("[[users]]\nname = \"ada\"\npassword_hash = \"{hash}\"\ntilesets = []\n");
        let problems = parse(&user.repeat(2), &[]).unwrap_err();
        assert_eq!(
            problems[0].what,
            "user \"ada\" is there twice; the first is on line 1"
        );
    }

    #[test]
    fn a_problem_never_quotes_a_hash() {
        let path = Path::new("users.toml");
        for text in [
            "[[users]]\nname = \"ada\"\npassword_hash = \"$argon2id$v=19$hunter2\n",
            "[[users]]\nname = \"ada\"\npassword_hash = \"$argon2id$v=19$hunter2\"\n",
            "[[users]]\nname = \"ada\"\npassword_hash = hunter2\n",
        ] {
            let error = UsersError::Problems {
                path: path.to_owned(),
                problems: parse(text, &[]).unwrap_err(),
            };
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("users.toml:3"), "{shown}");
        }
    }
}
