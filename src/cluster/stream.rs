//! Redis streams: ids, pages of entries, and reading what comes next.
//!
//! What an entry holds is anybody's who can write to Redis: fields are bytes until somebody has looked at them.

use std::fmt;
use std::time::Duration;

use redis::{Value, cmd};

use super::connection::{Connection, DEADLINE, Trouble};

/// How long Redis holds a question for news open.
const NEWS: Duration = Duration::from_secs(5);

/// An entry's id: the milliseconds when it came, by Redis's clock, and a number within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct StreamId {
    pub(super) millis: u64,
    pub(super) number: u64,
}

impl StreamId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (millis, number) = text.split_once('-')?;
        Some(Self {
            millis: millis.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: StreamId,
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// A field's value, the first of that name.
    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self
            .fields
            .iter()
            .find(|(field, _)| field == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }
}

/// What came after `after`: up to `most` entries, or none when nothing came for a while.
pub(super) async fn news(
    line: &mut Connection,
    key: &str,
    after: StreamId,
    most: usize,
) -> Result<Vec<Entry>, Trouble> {
    let mut question = cmd("XREAD");
    question.arg("COUNT").arg(most);
    question.arg("BLOCK").arg(NEWS.as_millis().to_string());
    question.arg("STREAMS").arg(key).arg(after.to_string());
    let answer: Value = line.ask_within(&question, NEWS + DEADLINE).await?;
    // One stream was asked for: [[key, entries]], or nothing.
    let Value::Array(streams) = answer else {
        return Ok(Vec::new());
    };
    let entries = streams.into_iter().next().and_then(|stream| match stream {
        Value::Array(pair) => pair.into_iter().nth(1),
        _ => None,
    });
    Ok(entries.map_or_else(Vec::new, entries_of))
}

/// The oldest entry, or the newest.
pub(super) async fn end(
    line: &mut Connection,
    key: &str,
    newest: bool,
) -> Result<Option<StreamId>, Trouble> {
    let (command, from, to) = if newest {
        ("XREVRANGE", "+", "-")
    } else {
        ("XRANGE", "-", "+")
    };
    let mut question = cmd(command);
    question.arg(key).arg(from).arg(to).arg("COUNT").arg(1);
    let entries = entries_of(line.ask(&question).await?);
    Ok(entries.first().map(|entry| entry.id))
}

/// Redis's clock, in milliseconds: the one that ids are made by.
pub(super) async fn time(line: &mut Connection) -> Result<u64, Trouble> {
    let (seconds, micros): (u64, u64) = line.ask(&cmd("TIME")).await?;
    Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

/// `[[id, [field, value, …]], …]`; what is not like that is left out.
fn entries_of(answer: Value) -> Vec<Entry> {
    let Value::Array(entries) = answer else {
        return Vec::new();
    };
    entries.into_iter().filter_map(entry_of).collect()
}

fn entry_of(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else {
        return None;
    };
    let mut parts = parts.into_iter();
    let id = StreamId::parse(str::from_utf8(&bytes(parts.next()?)?).ok()?)?;
    // An entry that was deleted while it was read has none.
    let fields = match parts.next() {
        Some(Value::Array(fields)) => pairs(fields),
        _ => Vec::new(),
    };
    Some(Entry { id, fields })
}

/// Two by two, as Redis lists fields with values and members with scores.
pub(super) fn pairs(flat: Vec<Value>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    let mut flat = flat.into_iter();
    while let (Some(first), Some(second)) = (flat.next(), flat.next()) {
        if let (Some(first), Some(second)) = (bytes(first), bytes(second)) {
            pairs.push((first, second));
        }
    }
    pairs
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_in_which_they_came() {
        let id = |text| StreamId::parse(text).unwrap();
        assert!(id("9-9") < id("10-0") && id("10-2") < id("10-10"));
        assert_eq!(id("1700000000000-3").to_string(), "1700000000000-3");
        for text in ["", "1", "-", "1-", "a-1", "1-1-1"] {
            assert_eq!(StreamId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_entry_is_left_out() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let good = Value::Array(vec![
            text("1-0"),
            Value::Array(vec![text("a"), text("b"), text("odd")]),
        ]);
        let deleted = Value::Array(vec![text("2-0"), Value::Nil]);
        let entries = entries_of(Value::Array(vec![
            Value::Nil,
            text("x"),
            Value::Array(vec![text("x"), Value::Nil]),
            good,
            deleted,
        ]));
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].field("a"), Some(&b"b"[..]));
        assert_eq!(entries[0].field("odd"), None);
        assert!(entries[1].fields.is_empty());
        assert!(entries_of(Value::Nil).is_empty());
    }
}
