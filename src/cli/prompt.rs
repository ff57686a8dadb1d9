//! Asking for a password: typed twice without being shown, or read from standard input.

use std::io::{self, BufRead, IsTerminal, Write};

use super::Failure;

/// NIST SP 800-63B §3.1.1.2 asks for 8 at the very least.
const MIN_CHARS: usize = 8;
/// Long enough for any phrase; hashing a book is no service to anyone.
const MAX_BYTES: usize = 1024;

/// Reads a new password. `piped`: it is the first line of standard input.
pub(super) fn new_password(piped: bool) -> Result<String, Failure> {
    let stdin = io::stdin();
    if piped {
        return check(first_line(stdin.lock())?);
    }
    if !stdin.is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask for the password on: pipe it in with --password-stdin"
                .to_owned(),
        ));
    }
    let password = check(ask("Password: ")?)?;
    if ask("Again: ")? != password {
        return Err(Failure::Usage("the two passwords differ".to_owned()));
    }
    Ok(password)
}

/// The password of somebody who signs in: as given (an argument, or its variable), or asked for on a terminal.
pub(super) fn password_of(username: &str, given: Option<String>) -> Result<String, Failure> {
    match given {
        Some(password) => Ok(password),
        None if io::stdin().is_terminal() => ask(&format!("Password of {username}: ")),
        None => Err(Failure::Usage(format!(
            "--username {username}: there is no terminal to ask for the password on: put it into TILEKEEP_PASSWORD"
        ))),
    }
}

fn first_line(input: impl BufRead) -> Result<String, Failure> {
    let mut line = String::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) + 2;
    input
        .take(limit)
        .read_line(&mut line)
        .map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(line)
}

fn check(password: String) -> Result<String, Failure> {
    let refused = |text: &str| Err(Failure::Usage(text.to_owned()));
    if password.len() > MAX_BYTES {
        return refused("the password is too long: 1024 bytes are the most");
    }
    if password.chars().any(char::is_control) {
        return refused("the password holds a control character");
    }
    if password.chars().count() < MIN_CHARS {
        return refused("the password is too short: use 8 characters or more");
    }
    Ok(password)
}

/// Asks on the terminal, and shows nothing of what is typed.
pub(super) fn ask(question: &str) -> Result<String, Failure> {
    let mut err = io::stderr();
    let _ = write!(err, "{question}").and_then(|()| err.flush());
    let hidden = Hidden::begin()?;
    let line = first_line(io::stdin().lock());
    drop(hidden);
    let _ = writeln!(err);
    line
}

/// A terminal that shows nothing of what is typed, until dropped.
#[cfg(unix)]
struct Hidden(rustix::termios::Termios);

#[cfg(unix)]
impl Hidden {
    fn begin() -> Result<Self, Failure> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let hide = || {
            let before = tcgetattr(io::stdin())?;
            let mut hidden = before.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
            Ok(Self(before))
        };
        hide().map_err(|error: rustix::io::Errno| {
            Failure::Failed(format!("the terminal would show the password: {error}"))
        })
    }
}

#[cfg(unix)]
impl Drop for Hidden {
    fn drop(&mut self) {
        use rustix::termios::{OptionalActions, tcsetattr};
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(not(unix))]
struct Hidden;

#[cfg(not(unix))]
impl Hidden {
    fn begin() -> Result<Self, Failure> {
        Err(Failure::Usage(
            "passwords cannot be typed unseen on this system: use --password-stdin".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_without_its_end() {
        assert_eq!(
            first_line(&b"correct horse \r\nmore"[..]).unwrap(),
            "correct horse "
        );
        assert!(check("correct horse ".to_owned()).is_ok());
    }

    #[test]
    fn a_password_that_keeps_nobody_out_is_refused() {
        for bad in ["", "demo", "a\u{7}bcdefgh", &"x".repeat(1025)] {
            assert!(check(bad.to_owned()).is_err());
        }
    }
}
