//! The log: for people on a terminal, JSON lines elsewhere, on stderr in both cases.
//!
//! Invariant: crates that see credentials, cookies or headers on their way to a wire are never heard below
//! `info`, whatever `TILEKEEP_LOG` says: their `debug` and `trace` print what they sign and send.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

/// The environment variable with the filter.
pub const VARIABLE: &str = "TILEKEEP_LOG";

/// What is heard without it. The SDK tells of every attempt at `info`.
const DEFAULT: &str = "info,aws_config=warn,aws_credential_types=warn,aws_runtime=warn,aws_sdk_s3=warn,\
    aws_sdk_sso=warn,aws_sdk_ssooidc=warn,aws_sdk_sts=warn,aws_sigv4=warn,aws_smithy_http_client=warn,aws_smithy_runtime=warn,\
    aws_smithy_runtime_api=warn,h2=warn,hyper=warn,hyper_util=warn,rustls=warn,s3s=warn";

/// First parts of the targets that see secrets.
const SEE_SECRETS: [&str; 5] = ["aws_", "h2", "hyper", "rustls", "s3s"];

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be read.
    #[error(
        "{VARIABLE}: {0}; write a level (error, warn, info, debug, trace) or directives like \"info,tilekeep::cache=debug\""
    )]
    Filter(String),
    /// Somebody else set one up before.
    #[error("the log is set up already")]
    Twice,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Human { colour: bool },
    Json,
}

/// Whether errors and log lines on stderr may have colours (no-color.org).
pub fn colour_on_stderr() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Sets the process's log up. Once, before anything logs.
pub fn init() -> Result<(), LogError> {
    let wanted = match std::env::var(VARIABLE) {
        Ok(wanted) => wanted,
        Err(std::env::VarError::NotPresent) => String::new(),
        Err(error) => return Err(LogError::Filter(error.to_string())),
    };
    let format = if io::stderr().is_terminal() {
        Format::Human {
            colour: colour_on_stderr(),
        }
    } else {
        Format::Json
    };
    let subscriber = subscriber(&wanted, format, io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)
}

fn subscriber<W>(
    wanted: &str,
    format: Format,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + use<W>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A later directive replaces an earlier one for the same target.
    let filter = EnvFilter::builder()
        .parse(format!("{DEFAULT},{wanted}"))
        .map_err(|error| LogError::Filter(error.to_string()))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match format {
        Format::Human { colour } => lines.compact().with_ansi(colour).boxed(),
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    Ok(Registry::default().with(lines.with_filter(filter.and(filter_fn(keeps_secrets)))))
}

fn keeps_secrets(of: &Metadata<'_>) -> bool {
    *of.level() <= Level::INFO || !SEE_SECRETS.iter().any(|part| of.target().starts_with(part))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(wanted: &str, format: Format, log: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(wanted, format, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn elsewhere_than_on_a_terminal_each_line_is_json() {
        let line = logged("", Format::Json, || {
            tracing::info!(tileset = "world", "ready");
            tracing::debug!("not asked for");
        });
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["message"], "ready");
        assert_eq!(json["tileset"], "world");
        assert_eq!(json["level"], "INFO");
    }

    #[test]
    fn crates_that_see_secrets_stay_quiet_even_when_asked() {
        let human = Format::Human { colour: false };
        let wanted = "trace,aws_sigv4=trace,hyper=trace";
        let text = logged(wanted, human, || {
            tracing::trace!(target: "aws_sigv4::http_request", "hunter2");
            tracing::debug!(target: "hyper::proto", "hunter2");
            tracing::warn!(target: "aws_config::profile", "an old profile");
            tracing::trace!(target: "tilekeep::cache", "our own");
        });
        assert!(!text.contains("hunter2"), "{text}");
        assert!(
            text.contains("an old profile") && text.contains("our own"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "no colour where none is wanted");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_an_error() {
        let error = subscriber("tilekeep=loud", Format::Json, io::stderr).err();
        assert!(error.unwrap().to_string().starts_with("TILEKEEP_LOG: "));
    }
}
