//! `tilekeep doctor`: what is wrong with bucket, role and keys, and what to change.

use std::io::{self, IsTerminal as _};

use clap::Args;

use super::{ConfigArg, Failure, block_on, print};
use crate::app;
use crate::aws::CredentialSource;
use crate::aws::doctor::{Check, Finding, Status};
use crate::config::{Config, ConfigProblems};

/// Find out what is wrong with bucket, role and keys, and what to change.
///
/// Checks, in an order in which the first failure is the cause: the configuration, the way to S3, this machine's
/// clock, credentials and whose they are, roles and their trust, each bucket and that it is private, a tile of each
/// tileset, what a missing tile answers, and the cache's folder. What depends on a failed check is skipped.
/// Nothing is written but a probe file in the cache's folder, which is removed; it can run beside a server.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tilekeep doctor --config tilekeep.toml
  tilekeep doctor --config tilekeep.toml --json | jq '.[] | select(.status == \"failed\")'

Run it as the server runs: as the same user, with the same environment, in the same container.
Exit codes: 0 nothing failed, 1 something did, 2 the configuration itself is wrong.")]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Print an array of {check, status, reason, remedy}.
    #[arg(long)]
    json: bool,
}

/// Wider lines are hard to read.
const WIDEST: usize = 110;
/// Of a terminal that does not say how wide it is.
const USUAL: usize = 80;

pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let config = match Config::load(&args.config.config) {
        Ok(config) => config,
        Err(problems) => {
            if args.json {
                print_json(&refused(&problems))?;
            }
            return Err(problems.into());
        }
    };
    let look = Look::of_stdout();
    let mut lost = Ok(());
    let findings = block_on(app::doctor(&config, CredentialSource::Chain, |finding| {
        if !args.json && lost.is_ok() {
            lost = print(&look.finding(finding));
        }
    }))?;
    lost?;
    if args.json {
        print_json(&findings)?;
    } else {
        print(&look.end(&findings))?;
    }
    let failed = count(&findings, Status::Failed);
    if failed == 0 {
        return Ok(());
    }
    let checks = if failed == 1 { "check" } else { "checks" };
    Err(Failure::Failed(format!("{failed} {checks} failed")))
}

fn print_json(findings: &[Finding]) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(findings).unwrap_or_default())
}

/// A configuration that cannot be examined: each of its problems, and everything else skipped.
fn refused(problems: &ConfigProblems) -> Vec<Finding> {
    let file = problems.file();
    let said = problems.problems().iter().map(|problem| {
        let place = match (problem.line, problem.column) {
            (Some(line), Some(column)) => format!(":{line}:{column}"),
            _ => String::new(),
        };
        let path = problem.path();
        let named = if path.is_empty() {
            String::new()
        } else {
            format!("`{path}` ")
        };
        let remedy = if problem.remedy.is_empty() {
            "correct it, as the reason says"
        } else {
            &problem.remedy
        };
        Finding {
            check: Check::Config,
            status: Status::Failed,
            reason: format!("{file}{place}: {named}{}", problem.what),
            remedy: Some(remedy.to_owned()),
        }
    });
    let others = Check::ALL.iter().skip(1).map(|check| Finding {
        check: *check,
        status: Status::Skipped,
        reason: "waits for `config`".into(),
        remedy: None,
    });
    said.chain(others).collect()
}

fn count(findings: &[Finding], status: Status) -> usize {
    findings.iter().filter(|f| f.status == status).count()
}

/// How findings look.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// On a terminal: marks instead of words.
    terminal: bool,
    colour: bool,
    /// Where lines are broken; 0: nowhere.
    width: usize,
}

impl Look {
    fn of_stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col);
        let columns = if columns == 0 {
            USUAL
        } else {
            usize::from(columns)
        };
        Self {
            terminal,
            colour,
            width: if terminal { columns.min(WIDEST) } else { 0 },
        }
    }

    /// One line a check; what went wrong and what to do below it.
    fn finding(&self, finding: &Finding) -> String {
        let name = finding.check.word();
        let mark = if self.terminal {
            let (mark, colour) = match finding.status {
                Status::Ok => ("✓", "32"),
                Status::Warning => ("!", "33"),
                Status::Failed => ("✗", "1;31"),
                Status::Skipped => ("–", "2"),
            };
            self.paint(mark, colour)
        } else {
            format!("{:<7}", finding.status.word())
        };
        let plain_mark = if self.terminal { 1 } else { 7 };
        let indent = plain_mark + 1 + NAME + 1;
        let name = format!("{name:<NAME$}");
        let (name, reason) = match finding.status {
            Status::Failed => (self.paint(&name, "1"), finding.reason.clone()),
            Status::Skipped => (self.paint(&name, "2"), finding.reason.clone()),
            Status::Ok | Status::Warning => (name, finding.reason.clone()),
        };
        let reason = wrap(&reason, self.width.saturating_sub(indent), indent);
        let reason = if finding.status == Status::Skipped {
            self.paint(&reason, "2")
        } else {
            reason
        };
        let mut text = format!("{mark} {name} {reason}");
        if let Some(remedy) = &finding.remedy {
            let arrow = if self.terminal { "→" } else { "remedy:" };
            let inner = indent + arrow.chars().count() + 1;
            let remedy = wrap(remedy, self.width.saturating_sub(inner), inner);
            let colour = if finding.status == Status::Skipped {
                "2"
            } else {
                "36"
            };
            let arrow = self.paint(arrow, colour);
            text = format!("{text}\n{:indent$}{arrow} {remedy}", "");
        }
        text
    }

    /// How many ended how, and where to begin.
    fn end(&self, findings: &[Finding]) -> String {
        let counts: Vec<String> = [Status::Failed, Status::Warning, Status::Skipped, Status::Ok]
            .into_iter()
            .map(|status| (count(findings, status), status))
            .filter(|(count, _)| *count > 0)
            .map(|(count, status)| format!("{count} {}", status.word()))
            .collect();
        let counts = counts.join(", ");
        let first = findings.iter().find(|f| f.status == Status::Failed);
        let advice = match first {
            Some(first) if count(findings, Status::Failed) > 1 => format!(
                "Begin with `{}`: what comes after it may be its doing.",
                first.check.word()
            ),
            Some(first) => format!("Put `{}` right, and run this again.", first.check.word()),
            None if count(findings, Status::Warning) > 0 => {
                "Tiles can be served; see the warnings.".to_owned()
            }
            None => "Tiles can be served.".to_owned(),
        };
        format!("\n{}. {advice}", self.paint(&counts, "1"))
    }

    fn paint(&self, text: &str, colour: &str) -> String {
        if self.colour {
            format!("\u{1b}[{colour}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// The longest check's name.
const NAME: usize = 19;

/// Breaks a text at spaces into lines of this width, the later ones indented. What is longer than a line
/// stays whole, so that it can be copied.
fn wrap(text: &str, width: usize, indent: usize) -> String {
    if width < 20 {
        return text.to_owned();
    }
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut();
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{:indent$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(status: Status, remedy: Option<&str>) -> Finding {
        Finding {
            check: Check::Tile,
            status,
            reason: "world: GetObject s3://acme-tiles/world/0/0/0.png: 403 AccessDenied".into(),
            remedy: remedy.map(Into::into),
        }
    }

    #[test]
    fn elsewhere_than_on_a_terminal_a_finding_is_plain() {
        let look = Look {
            terminal: false,
            colour: false,
            width: 0,
        };
        assert_eq!(
            look.finding(&finding(Status::Failed, Some("allow it"))),
            "failed  tile                world: GetObject s3://acme-tiles/world/0/0/0.png: 403 AccessDenied\n\
             \u{20}                           remedy: allow it"
        );
    }

    #[test]
    fn a_terminal_gets_marks_and_lines_that_fit() {
        let look = Look {
            terminal: true,
            colour: false,
            width: 60,
        };
        let text = look.finding(&finding(
            Status::Failed,
            Some("allow it, in the policy of the role that reads"),
        ));
        assert!(text.starts_with("✗ tile"), "{text}");
        assert!(
            text.contains("\n                      → allow it, in"),
            "{text}"
        );
        assert!(
            text.lines().all(|line| line.chars().count() <= 60),
            "{text}"
        );
        let colourful = Look {
            colour: true,
            ..look
        };
        assert!(
            colourful
                .finding(&finding(Status::Ok, None))
                .starts_with("\u{1b}[32m✓")
        );
    }

    #[test]
    fn every_name_has_its_place() {
        let longest = Check::ALL.iter().map(|check| check.word().len()).max();
        assert_eq!(longest, Some(NAME));
    }

    #[test]
    fn the_end_says_where_to_begin() {
        let look = Look {
            terminal: false,
            colour: false,
            width: 0,
        };
        let end = look.end(&[finding(Status::Ok, None), finding(Status::Failed, None)]);
        assert_eq!(
            end,
            "\n1 failed, 1 ok. Put `tile` right, and run this again."
        );
    }
}
