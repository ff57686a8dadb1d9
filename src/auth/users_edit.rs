//! Editing the users file by hand of a command: comments and order stay as the operator wrote them.
//!
//! An edit is made to the text and believed only when the text, read again, says exactly what it
//! should. The file is replaced at once by a rename, mode 0600, owner kept: a running server reads
//! either the old one or the new one. Two edits at the same time can lose one; people make edits.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use toml::Value;
use toml::de::DeTable;

use super::users::User;
use super::users_file::{MAX_NAME_LEN, UsersError, UsersProblem, is_name, parse, read, read_text};
use super::{Grants, HashError, PasswordHash};

/// Why the file was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It cannot be used as it is.
    #[error(transparent)]
    File(#[from] UsersError),
    /// Such a user is there.
    #[error("user {0:?} is there already; --replace changes it")]
    Exists(String),
    /// No such user is there.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    /// A name that no user can have.
    #[error(
        "a user's name has 1 to {MAX_NAME_LEN} bytes, no control characters, no space at either end"
    )]
    Name,
    /// No hash of the password.
    #[error("password: {0}")]
    Password(#[from] HashError),
    /// What the user may do cannot stand in the file.
    #[error("{0}")]
    Grants(String),
    /// The file is written in a way that this program does not edit.
    #[error("{}: edit this file by hand: users are not written as [[users]] there", .0.display())]
    ByHand(PathBuf),
    /// Writing failed.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The users in the file: blocking.
pub fn list_users(path: &Path) -> Result<Vec<User>, UsersError> {
    // Which classes there are is the server's configuration to say.
    read(path, &[])
}

/// What to do when a user of that name is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Nothing: it is an error.
    Refuse,
    /// Put the new one in its place, in one write.
    Replace,
}

/// Adds a user at the end; makes the file where there is none. Hashes the password: blocking.
pub fn add_user(
    path: &Path,
    name: &str,
    password: &str,
    grants: &Grants,
    if_exists: IfExists,
) -> Result<(), EditError> {
    if !is_name(name) {
        return Err(EditError::Name);
    }
    let mut text = match read_text(path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(unreadable(path, source)),
    };
    let mut expected = parse(&text, &[]).map_err(|problems| refused(path, problems))?;
    if let Some(index) = expected.iter().position(|user| user.name == name) {
        if if_exists == IfExists::Refuse {
            return Err(EditError::Exists(name.to_owned()));
        }
        text = without(&text, index).ok_or_else(|| EditError::ByHand(path.to_owned()))?;
        expected.remove(index);
    }
    let user = User {
        name: name.to_owned(),
        hash: PasswordHash::of(password)?,
        grants: grants.clone(),
    };
    let entry = write_user(&user);
    // Alone first: what is wrong with the entry is not the file's fault.
    parse(&entry, &[]).map_err(|problems| {
        let all: Vec<_> = problems.into_iter().map(|problem| problem.what).collect();
        EditError::Grants(all.join("; "))
    })?;
    if !text.is_empty() {
        text.push_str(if text.ends_with('\n') { "\n" } else { "\n\n" });
    }
    text.push_str(&entry);
    expected.push(user);
    replace(path, &text, &expected)
}

/// Removes a user: blocking.
pub fn remove_user(path: &Path, name: &str) -> Result<(), EditError> {
    let text = read_text(path).map_err(|source| unreadable(path, source))?;
    let mut expected = parse(&text, &[]).map_err(|problems| refused(path, problems))?;
    let index = expected
        .iter()
        .position(|user| user.name == name)
        .ok_or_else(|| EditError::NoSuchUser(name.to_owned()))?;
    let text = without(&text, index).ok_or_else(|| EditError::ByHand(path.to_owned()))?;
    expected.remove(index);
    replace(path, &text, &expected)
}

/// The text without one user's entry; `None` where users are not written as `[[users]]`.
fn without(text: &str, index: usize) -> Option<String> {
    let starts = entry_starts(text);
    let start = *starts.get(index)?;
    let next = starts.get(index + 1).copied().unwrap_or(text.len());
    // Comments above the next entry are about the next entry.
    let block = &text[start..next];
    let mut end = start;
    for line in block.split_inclusive('\n') {
        let said = line.trim();
        if !said.is_empty() && !said.starts_with('#') {
            end = start + (line.as_ptr() as usize - block.as_ptr() as usize) + line.len();
        }
    }
    let rest = text[end..].strip_prefix('\n').unwrap_or(&text[end..]);
    Some(format!("{}{rest}", &text[..start]))
}

/// Where each `[[users]]` begins. Empty when the users are written in another way.
fn entry_starts(text: &str) -> Vec<usize> {
    let Ok(document) = DeTable::parse(text) else {
        return Vec::new();
    };
    let users = document.get_ref().get("users");
    let entries = users.and_then(|users| users.get_ref().as_array());
    let starts = entries.into_iter().flat_map(|entries| entries.iter());
    starts
        .map(|entry| entry.span().start)
        .filter(|start| text[*start..].starts_with("[["))
        .collect()
}

fn write_user(user: &User) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let mut text = String::from("[[users]]\n");
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key} = {value}");
    };
    line("name", quoted(&user.name));
    line("password_hash", quoted(&user.hash.to_phc()));
    line(
        "tilesets",
        Value::from(user.grants.tilesets.clone()).to_string(),
    );
    if let Some(scope) = &user.grants.scope {
        line("scope", quoted(scope));
    }
    if let Some(quota) = &user.grants.quota {
        line("quota", quoted(quota));
    }
    if let Some(maxzoom) = user.grants.maxzoom {
        line("maxzoom", maxzoom.to_string());
    }
    if let Some(bounds) = user.grants.bounds {
        line(
            "bounds",
            Value::from(bounds.to_array().to_vec()).to_string(),
        );
    }
    text
}

/// Writes the text if it says what it should.
fn replace(path: &Path, text: &str, expected: &[User]) -> Result<(), EditError> {
    let said = parse(text, &[]).map_err(|problems| refused(path, problems))?;
    let same = |(a, b): (&User, &User)| {
        a.name == b.name && a.grants == b.grants && a.hash.to_phc() == b.hash.to_phc()
    };
    if said.len() != expected.len() || !said.iter().zip(expected).all(same) {
        return Err(EditError::ByHand(path.to_owned()));
    }
    write(path, text).map_err(|source| EditError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    // A link is followed: what it points to is the file.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Mode 0600 from the first byte on.
    let mut file = tempfile::Builder::new()
        .prefix(".users-")
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    #[cfg(unix)]
    if let Ok(old) = std::fs::metadata(&path) {
        use std::os::unix::fs::MetadataExt;
        let new = file.as_file().metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            // The server that reads it need not be the user who edits it.
            std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|failed| failed.error)?;
    Ok(())
}

fn unreadable(path: &Path, source: std::io::Error) -> EditError {
    let path = path.to_owned();
    EditError::File(UsersError::Io { path, source })
}

fn refused(path: &Path, problems: Vec<UsersProblem>) -> EditError {
    let path = path.to_owned();
    EditError::File(UsersError::Problems { path, problems })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::Bounds;

    fn grants() -> Grants {
        Grants {
            tilesets: vec!["world".to_owned(), "aerial".to_owned()],
            scope: Some("tiles explain".to_owned()),
            maxzoom: Some(12),
            bounds: Some(Bounds::new([5.0, 45.5, 11.0, 48.0]).unwrap()),
            quota: Some("viewer".to_owned()),
        }
    }

    fn names(path: &Path) -> Vec<String> {
        let users = list_users(path).unwrap();
        users.into_iter().map(|user| user.name).collect()
    }

    #[test]
    fn what_is_added_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let name = "ada \"the first\" ☂";
        add_user(&path, name, "one", &grants(), IfExists::Refuse).unwrap();
        add_user(&path, "bob", "two", &Grants::default(), IfExists::Refuse).unwrap();
        let users = list_users(&path).unwrap();
        assert_eq!(users[0].name, name);
        assert_eq!(users[0].grants, grants());
        assert!(users[0].hash.verify(b"one") && !users[0].hash.verify(b"two"));
        assert_eq!(users[1].grants, Grants::default());
        assert!(matches!(
            add_user(&path, "bob", "three", &grants(), IfExists::Refuse),
            Err(EditError::Exists(_))
        ));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn comments_and_order_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let hash = super::super::password::tests::cheap("x").to_phc();
        let entry = |name: &str| {
            format!(
                "[[users]]\nname = \"{name}\"\npassword_hash = '{hash}' # made by hand\ntilesets = [\n  \"a\",\n]\n"
            )
        };
        let text = |names: &[&str]| {
            let about = |name: &&str| format!("\n# about {name}\n{}", entry(name));
            format!("# ours\n{}", names.iter().map(about).collect::<String>())
        };
        for (gone, left) in [("ada", ["bob", "cyd"]), ("cyd", ["ada", "bob"])] {
            std::fs::write(&path, text(&["ada", "bob", "cyd"])).unwrap();
            remove_user(&path, gone).unwrap();
            assert_eq!(names(&path), left);
            let written = std::fs::read_to_string(&path).unwrap();
            for name in left {
                let kept = format!("# about {name}\n{}", entry(name));
                assert!(written.contains(&kept), "{written}");
            }
            assert!(written.starts_with("# ours\n"));
        }
        assert!(matches!(
            remove_user(&path, "dan"),
            Err(EditError::NoSuchUser(_))
        ));
    }

    #[test]
    fn users_written_in_another_way_are_left_to_the_hand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let hash = super::super::password::tests::cheap("x").to_phc();
        let text =
            format!("users = [{{ name = \"ada\", password_hash = \"{hash}\", tilesets = [] }}]\n");
        std::fs::write(&path, &text).unwrap();
        assert!(matches!(
            remove_user(&path, "ada"),
            Err(EditError::ByHand(_))
        ));
        assert!(add_user(&path, "bob", "x", &grants(), IfExists::Refuse).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let mut wrong = grants();
        wrong.scope = Some("fly".to_owned());
        assert!(matches!(
            add_user(&path, "ada", "x", &wrong, IfExists::Refuse),
            Err(EditError::Grants(_))
        ));
        assert!(matches!(
            add_user(&path, "ada\n", "x", &grants(), IfExists::Refuse),
            Err(EditError::Name)
        ));
        assert!(matches!(
            add_user(&path, "ada", "", &grants(), IfExists::Refuse),
            Err(EditError::Password(_))
        ));
        assert!(!path.exists());
    }

    #[test]
    fn replacing_a_user_is_one_write_and_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        for name in ["ada", "bob"] {
            add_user(&path, name, "one", &Grants::default(), IfExists::Refuse).unwrap();
        }
        add_user(&path, "ada", "two", &grants(), IfExists::Replace).unwrap();
        let users = list_users(&path).unwrap();
        let names: Vec<_> = users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["bob", "ada"]);
        assert_eq!(users[1].grants, grants());
        // What is refused changes nothing.
        let before = std::fs::read_to_string(&path).unwrap();
        assert!(add_user(&path, "bob", "", &grants(), IfExists::Replace).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    }
}
