//! `tilekeep user`: editing the users file.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, print, prompt};
use crate::auth::{self, Grants, IfExists};
use crate::config;
use crate::tile::{Bounds, MAX_ZOOM};

/// Add, remove or list the people of the log-in page.
///
/// They are kept in the users file that `[login] users_file` names, with argon2id hashes of their passwords.
/// A running server sees the change at the next log-in.
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    Add(AddArgs),
    Remove(RemoveArgs),
    List(ListArgs),
}

/// Add a person, or change one. Asks for the password.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep user add anna --tilesets world,values
  tilekeep user add anna --tilesets '*' --scope tiles,explain --replace
  pass show tiles/anna | tilekeep user add anna --tilesets world --password-stdin
  tilekeep user add anna --tilesets world --users-file users.toml")]
pub(super) struct AddArgs {
    /// The name to log in with.
    #[arg(value_parser = name)]
    name: String,

    #[command(flatten)]
    file: UsersFileArgs,

    /// The tilesets to open, separated by commas; '*' for all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    tilesets: Vec<String>,

    /// What the person may do, separated by commas.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', default_value = "tiles",
          value_parser = super::SCOPES)]
    scope: Vec<String>,

    /// The quota class. Without it: the first one of the configuration.
    #[arg(long, value_name = "CLASS")]
    quota: Option<String>,

    /// The deepest zoom to open. Without it: all.
    #[arg(long, value_name = "ZOOM", value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_ZOOM)))]
    maxzoom: Option<u8>,

    /// The area to open: west,south,east,north in degrees. Without it: all.
    #[arg(long, value_name = "W,S,E,N", allow_hyphen_values = true, value_parser = super::bounds)]
    bounds: Option<Bounds>,

    /// Read the password from the first line of standard input.
    #[arg(long)]
    password_stdin: bool,

    /// Change a person who is there already: password and all.
    #[arg(long)]
    replace: bool,
}

/// Remove a person. Sessions that are open go on until they expire or are ended.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tilekeep user remove anna --config tilekeep.toml")]
pub(super) struct RemoveArgs {
    /// The name to log in with.
    #[arg(value_parser = name)]
    name: String,

    #[command(flatten)]
    file: UsersFileArgs,
}

/// List the people, and what each may see. No password and no hash is shown.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep user list
  tilekeep user list --json --users-file users.toml")]
pub(super) struct ListArgs {
    #[command(flatten)]
    file: UsersFileArgs,

    /// Print a JSON array of {name, tilesets, scope, maxzoom, bounds, quota}.
    #[arg(long)]
    json: bool,
}

/// Which file it is about.
#[derive(Debug, Args)]
struct UsersFileArgs {
    /// The users file itself. Without it: `users_file` in [login] of the configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    users_file: Option<PathBuf>,

    /// The configuration file that names the users file.
    #[arg(
        long,
        value_name = "FILE",
        env = "TILEKEEP_CONFIG",
        default_value = "tilekeep.toml"
    )]
    config: PathBuf,
}

impl UsersFileArgs {
    fn find(&self) -> Result<PathBuf, Failure> {
        if let Some(file) = &self.users_file {
            return Ok(file.clone());
        }
        config::users_file(&self.config)?.ok_or_else(|| {
            Failure::Usage(format!(
                "{} has no [login] users_file: add it, or name the file with --users-file",
                self.config.display()
            ))
        })
    }
}

impl AddArgs {
    /// A name that the configuration does not have is a slip of the pen, and for a class that there is not the
    /// server would refuse the whole file. Of a users file by itself nothing is known, nor of what has no names yet.
    fn check_names(&self) -> Result<(), Failure> {
        if self.file.users_file.is_some() {
            return Ok(());
        }
        let known = config::names(&self.file.config)?;
        let is_known = |name: &String| name == "*" || known.tilesets.contains(name);
        if !known.tilesets.is_empty()
            && let Some(unknown) = self.tilesets.iter().find(|name| !is_known(name))
        {
            return Err(Failure::Usage(format!(
                "--tilesets: no tileset is called {unknown:?}; the configuration has {}",
                known.tilesets.join(", ")
            )));
        }
        if !known.quotas.is_empty()
            && let Some(unknown) = &self.quota
            && !known.quotas.contains(unknown)
        {
            return Err(Failure::Usage(format!(
                "--quota: quota {unknown:?} is none of [[quotas]]: {}",
                known.quotas.join(", ")
            )));
        }
        Ok(())
    }
}

/// A person to be written down.
struct NewUser {
    name: String,
    password: String,
    /// Names of tilesets, or `*`.
    tilesets: Vec<String>,
    /// Separated by spaces, as in a token.
    scope: String,
    maxzoom: Option<u8>,
    bounds: Option<Bounds>,
    quota: Option<String>,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A person as listed.
#[derive(Debug, serde::Serialize)]
struct ListedUser {
    name: String,
    tilesets: Vec<String>,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    maxzoom: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bounds: Option<[f64; 4]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<String>,
}

pub(super) fn run(command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(args) => {
            let file = args.file.find()?;
            args.check_names()?;
            let user = NewUser {
                password: prompt::new_password(args.password_stdin)?,
                name: args.name,
                tilesets: args.tilesets,
                scope: args.scope.join(" "),
                maxzoom: args.maxzoom,
                bounds: args.bounds,
                quota: args.quota,
            };
            add(&file, &user, args.replace)?;
            eprintln!("{} can log in: written to {}", user.name, file.display());
            Ok(())
        }
        UserCommand::Remove(args) => {
            let file = args.file.find()?;
            remove(&file, &args.name)?;
            eprintln!("{} was removed from {}", args.name, file.display());
            Ok(())
        }
        UserCommand::List(args) => {
            let users = list(&args.file.find()?)?;
            if args.json {
                let json = serde_json::to_string_pretty(&users);
                return print(&json.map_err(|error| Failure::failed(&error))?);
            }
            print(&table(&users))
        }
    }
}

/// One line a person.
fn table(users: &[ListedUser]) -> String {
    let row = |[name, tilesets, scope, quota, limits]: [&str; 5]| {
        let row = format!("{name:<24}  {tilesets:<24}  {scope:<16}  {quota:<12}  {limits}");
        row.trim_end().to_owned()
    };
    let mut lines = vec![row(["NAME", "TILESETS", "SCOPE", "QUOTA", "LIMITS"])];
    lines.extend(users.iter().map(|user| {
        let zoom = user.maxzoom.map(|zoom| format!("zoom 0-{zoom}"));
        let area = user.bounds.map(|area| format!("inside of {area:?}"));
        let limits: Vec<_> = zoom.into_iter().chain(area).collect();
        row([
            &user.name,
            &user.tilesets.join(","),
            &user.scope,
            user.quota.as_deref().unwrap_or_default(),
            &limits.join(", "),
        ])
    }));
    lines.join("\n")
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty()
        || text.len() > 256
        || text.chars().any(char::is_control)
        || text.trim() != text
    {
        return Err(
            "a name has 1 to 256 bytes, and neither control characters nor spaces around"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// Writes a person into the file, which need not exist yet. `replace`: one of that name may be there.
fn add(file: &Path, user: &NewUser, replace: bool) -> Result<(), Failure> {
    let grants = Grants {
        tilesets: user.tilesets.clone(),
        scope: Some(user.scope.clone()),
        maxzoom: user.maxzoom,
        bounds: user.bounds,
        quota: user.quota.clone(),
    };
    let if_exists = if replace {
        IfExists::Replace
    } else {
        IfExists::Refuse
    };
    auth::add_user(file, &user.name, &user.password, &grants, if_exists)
        .map_err(|error| Failure::failed(&error))
}

/// Takes a person out; that there is none of that name is a failure.
fn remove(file: &Path, name: &str) -> Result<(), Failure> {
    auth::remove_user(file, name).map_err(|error| Failure::failed(&error))
}

/// Everyone in the file.
fn list(file: &Path) -> Result<Vec<ListedUser>, Failure> {
    let users = auth::list_users(file).map_err(|error| Failure::failed(&error))?;
    let listed = users.into_iter().map(|user| ListedUser {
        name: user.name,
        tilesets: user.grants.tilesets,
        scope: user.grants.scope.unwrap_or_else(|| "tiles".to_owned()),
        maxzoom: user.grants.maxzoom,
        bounds: user.grants.bounds.map(Bounds::to_array),
        quota: user.grants.quota,
    });
    Ok(listed.collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn adding(line: &str) -> AddArgs {
        let Command::User(UserCommand::Add(args)) =
            Cli::try_parse_from(line.split(' ')).unwrap().command
        else {
            panic!("user add");
        };
        args
    }

    #[test]
    fn a_person_is_given_what_the_configuration_has() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let refusal = |wishes: &str| {
            let mut args = adding(&format!("tilekeep user add anna {wishes}"));
            args.file.config = file.clone();
            match args.check_names() {
                Ok(()) => String::new(),
                Err(Failure::Usage(said)) => said,
                other => panic!("{other:?}"),
            }
        };
        // The users file is made before the rest is right: nothing has a name yet.
        std::fs::write(&file, "[login]\nusers_file = 'users.toml'\n").unwrap();
        assert_eq!(refusal("--tilesets w --quota vip"), "");
        let text =
            "[tilesets.w]\n[tilesets.v]\n[[quotas]]\nname = 'viewer'\n[[quotas]]\nburst = 1\n";
        std::fs::write(&file, text).unwrap();
        assert_eq!(refusal("--tilesets v,w --quota viewer"), "");
        assert_eq!(refusal("--tilesets *"), "");
        assert_eq!(
            refusal("--tilesets w,x"),
            "--tilesets: no tileset is called \"x\"; the configuration has w, v"
        );
        assert_eq!(
            refusal("--tilesets w --quota vip"),
            "--quota: quota \"vip\" is none of [[quotas]]: viewer"
        );
        assert_eq!(
            refusal("--tilesets x --quota vip --users-file users.toml"),
            "",
            "of a users file by itself nothing is known"
        );
    }

    #[test]
    fn a_person_is_read_from_the_command_line() {
        let args =
            adding("tilekeep user add anna --tilesets w,v --scope tiles,sign --password-stdin");
        assert_eq!(args.tilesets, ["w", "v"]);
        assert_eq!(args.scope, ["tiles", "sign"]);
        assert_eq!(args.file.config, Path::new("tilekeep.toml"));
    }

    #[test]
    fn a_password_has_no_place_in_arguments() {
        let line = "tilekeep user add anna --tilesets w --password hunter2";
        assert!(Cli::try_parse_from(line.split(' ')).is_err());
    }

    #[test]
    fn the_list_shows_everyone_on_a_line() {
        let user = ListedUser {
            name: "anna".into(),
            tilesets: vec!["w".into(), "v".into()],
            scope: "tiles".into(),
            maxzoom: Some(8),
            bounds: None,
            quota: None,
        };
        let table = table(&[user]);
        assert!(
            table.lines().nth(1).unwrap().starts_with("anna  "),
            "{table}"
        );
        assert!(table.ends_with("zoom 0-8"), "{table}");
    }
}
