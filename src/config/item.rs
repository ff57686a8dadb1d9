//! What values look like: durations, sizes, addresses, paths, secrets, one of several words.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value};
use toml::de::DeValue;

use super::SecretValue;
use super::section::{Item, Section, list, nearest};
use super::web_origin::WebOrigin;

/// What to do about a file that cannot be read.
const UNREADABLE: &str =
    "a relative path starts at the config file's folder; check the name and its rights";

impl Item<'_> {
    /// A string, as it is.
    pub(super) fn text(&self) -> Option<&str> {
        match self.value.as_str() {
            Some(text) => Some(text),
            None => self.wrong_type("a string", "write it in quotes"),
        }
    }

    /// A string with something in it.
    pub(super) fn word(&self) -> Option<String> {
        let text = self.text()?;
        if text.trim().is_empty() {
            return self.refuse("is empty", "give it a value or remove the key");
        }
        if text.chars().any(char::is_control) {
            return self.refuse("holds a control character", "remove it");
        }
        Some(text.to_owned())
    }

    /// A string that `T` can be read from.
    pub(super) fn parse<T: FromStr>(&self, what: &str, remedy: &str) -> Option<T> {
        match self.text()?.parse() {
            Ok(value) => Some(value),
            Err(_) => self.refuse(format!("is not {what}"), remedy),
        }
    }

    /// `true` or `false`.
    pub(super) fn switch(&self) -> Option<bool> {
        match self.value.as_bool() {
            Some(value) => Some(value),
            None => self.wrong_type("a boolean", "write true or false, without quotes"),
        }
    }

    /// A whole number in a range.
    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let Some(number) = integer(self.value) else {
            return self.wrong_type("a whole number", "write it without quotes and point");
        };
        if range.contains(&number) {
            Some(number)
        } else {
            let (low, high) = (range.start(), range.end());
            self.refuse("is out of range", format!("use {low} to {high}"))
        }
    }

    /// A number, with or without a point.
    pub(super) fn number(&self) -> Option<f64> {
        match float(self.value) {
            Some(number) => Some(number),
            None => self.wrong_type(
                "a decimal number",
                "write it like 12 or -0.5, without quotes",
            ),
        }
    }

    /// A duration in a range, `1h 30m`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        const REMEDY: &str = "write a number and a unit, like \"20s\", \"5m\", \"12h\" or \"7d\"";
        let Some(text) = self.value.as_str() else {
            return self.wrong_type("a duration", REMEDY);
        };
        let Ok(duration) = humantime::parse_duration(text) else {
            return self.refuse("is not a duration", REMEDY);
        };
        if range.contains(&duration) {
            return Some(duration);
        }
        let [low, high] = [*range.start(), *range.end()].map(humantime::format_duration);
        self.refuse("is out of range", format!("use {low} to {high}"))
    }

    /// A size in bytes, `512MiB`, `0`, or a bare number; not more than `i64::MAX`.
    pub(super) fn size(&self) -> Option<u64> {
        const REMEDY: &str =
            "write a number and a unit, like \"512MiB\" or \"20GiB\", or \"0\" for none";
        let bytes = match self.value {
            DeValue::String(text) => match text.trim().parse::<bytesize::ByteSize>() {
                Ok(size) => size.as_u64(),
                Err(_) => return self.refuse("is not a size", REMEDY),
            },
            number => match integer(number).map(u64::try_from) {
                Some(Ok(bytes)) => bytes,
                Some(Err(_)) => return self.refuse("is not a size", REMEDY),
                None => return self.wrong_type("a size", REMEDY),
            },
        };
        if i64::try_from(bytes).is_err() {
            return self.refuse("is more than any machine has", REMEDY);
        }
        Some(bytes)
    }

    /// An address and a port.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.parse(
            "an IP address with a port",
            "write it like \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::1]:8080\", without a host name",
        )
    }

    /// A network, or one address.
    pub(super) fn network(&self) -> Option<IpNet> {
        let text = self.text()?;
        let net = text
            .parse()
            .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        match net {
            Ok(net) if net.prefix_len() == 0 => self.refuse(
                "is the whole Internet",
                "anyone could then forge their address: name your own proxies' networks",
            ),
            Ok(net) => Some(net.trunc()),
            Err(_) => self.refuse(
                "is neither a network nor an address",
                "write it like \"10.0.0.0/8\", \"192.0.2.7\" or \"fd00::/8\"",
            ),
        }
    }

    /// `scheme://host[:port]`.
    pub(super) fn origin(&self) -> Option<WebOrigin> {
        match WebOrigin::parse(self.text()?) {
            Ok(origin) => Some(origin),
            Err(error) => self.refuse("is not an exact origin", error.to_string()),
        }
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Option<T> {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let all = list(&words);
        let Some(text) = self.value.as_str() else {
            return self.wrong_type("a string", format!("write one of {all} in quotes"));
        };
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let remedy = nearest(text, words).map_or_else(
            || format!("use one of {all}"),
            |word| format!("did you mean `{word}`? Use one of {all}"),
        );
        self.refuse("is none of the possible values", remedy)
    }

    /// A path, from the file's folder.
    pub(super) fn path(&self) -> Option<PathBuf> {
        Some(self.reader.around.folder.join(self.word()?))
    }

    /// The path of a file that can be read now.
    pub(super) fn readable(&self) -> Option<PathBuf> {
        self.readable_or(UNREADABLE)
    }

    /// As [`Item::readable`], with this remedy where it cannot be.
    pub(super) fn readable_or(&self, remedy: &str) -> Option<PathBuf> {
        let path = self.path()?;
        match std::fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(meta) if meta.is_dir() => self.refuse(
                format!("names a folder ({})", path.display()),
                "name the file in it",
            ),
            Ok(_) => Some(path),
            Err(error) => self.unreadable(&path, &error, remedy),
        }
    }

    /// The text of a file that can be read now.
    pub(super) fn contents(&self, path: &Path) -> Option<String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) => self.unreadable(path, &error, UNREADABLE),
        }
    }

    fn unreadable<T>(&self, path: &Path, error: &std::io::Error, remedy: &str) -> Option<T> {
        self.refuse(
            format!("names {}, which cannot be read: {error}", path.display()),
            remedy,
        )
    }

    /// A secret: `{ env = "NAME" }`, `{ file = "PATH" }`, or a string.
    pub(super) fn secret(&self) -> Option<SecretValue> {
        const REMEDY: &str = "write { env = \"NAME\" }, { file = \"/run/secrets/x\" }, or a string";
        if self.value.as_table().is_none() {
            let Some(text) = self.value.as_str() else {
                return self.wrong_type("a secret", REMEDY);
            };
            return self.filled(text);
        }
        let table = self.table(None)?;
        // Both are asked for in any case, so that neither is unknown.
        let value = [
            table.read("env", Item::variable),
            table.read("file", |item| {
                if self.reader.without_secrets && std::fs::File::open(item.path()?).is_err() {
                    return None;
                }
                let path = item.readable()?;
                item.filled(item.contents(&path)?.trim_end_matches(['\n', '\r']))
            }),
        ];
        match (table.has("env"), table.has("file")) {
            (true, true) => self.refuse("has both `env` and `file`", "keep one of them"),
            (false, false) if table.is_empty() => {
                self.refuse("has neither `env` nor `file`", REMEDY)
            }
            _ => value.into_iter().flatten().next(),
        }
    }

    fn variable(&self) -> Option<SecretValue> {
        const REMEDY: &str = "set it for the server's process, or check the name";
        let name = self.word()?;
        if let Some(value) = (self.reader.around.env)(&name) {
            return self.filled(&value);
        }
        if self.reader.without_secrets {
            return None;
        }
        // What does not look like a name may be the secret itself: not repeated.
        let part = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        if name.bytes().all(part) {
            let what = format!("names the environment variable {name}, which is not set");
            return self.refuse(what, REMEDY);
        }
        self.refuse("names an environment variable that is not set", REMEDY)
    }

    fn filled(&self, text: &str) -> Option<SecretValue> {
        if text.is_empty() {
            return self.refuse("is an empty secret", "give it a value");
        }
        Some(SecretValue::new(text))
    }

    /// A table as JSON.
    pub(super) fn json_object(&self) -> Option<Map<String, Value>> {
        match self.value {
            DeValue::Table(_) => match json(self.value) {
                Some(Value::Object(members)) => Some(members),
                _ => self.refuse("holds a number that JSON has not", "remove inf and nan"),
            },
            _ => self.wrong_type("a table", "write { name = value, … }"),
        }
    }
}

impl Section<'_> {
    /// A duration between nothing and a year, `default` where absent.
    pub(super) fn lifetime(&self, key: &'static str, default: Duration) -> Duration {
        const YEAR: Duration = Duration::from_hours(365 * 24);
        self.read(key, |item| item.duration(Duration::ZERO..=YEAR))
            .unwrap_or(default)
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn float(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
        _ => None,
    }
}

fn json(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(_) => integer(value)?.into(),
        DeValue::Float(_) => Value::Number(serde_json::Number::from_f64(float(value)?)?),
        DeValue::Boolean(truth) => (*truth).into(),
        DeValue::Datetime(moment) => moment.to_string().into(),
        DeValue::Array(values) => values
            .iter()
            .map(|value| json(value.get_ref()))
            .collect::<Option<_>>()?,
        DeValue::Table(members) => members
            .iter()
            .map(|(key, value)| Some((key.get_ref().to_string(), json(value.get_ref())?)))
            .collect::<Option<Map<_, _>>>()?
            .into(),
    })
}
